"""What was done to records, as events that a ledger keeps and an accountant reads.

The event is the durable truth: epsilon is derived from it, so that a better accountant can read an old ledger again.
Which kinds of event there are, a file each, is in `fedmodel.privacy.mechanisms`, which also reads a stored one back;
what all kinds have in common, and what is checked of each, is here.

A privacy unit is whose presence is hidden: a record; a person, with at most so many records; a client, which is all
that a silo holds, of which at most so many records are used. Figures of different units are not comparable and are
never added up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict
from typing import Any, ClassVar, Final, Literal, Protocol, Self, get_args

from fedmodel.errors import LedgerError, PrivacyError
from fedmodel.privacy.primitives import Parts, SampledGaussian

NoiseSourceName = Literal["os", "seeded-unsafe", "experiment"]
EXPERIMENT: Final = "experiment"
"""Noise for experiments on data that need no protection, from a seed: it protects nobody."""
IF_HIDDEN: Final = "if the noise were secret"
"""Under which label it is told what a run with an experiment's noise would cost, and nowhere without it."""
EPSILON_IF_HIDDEN: Final = "epsilon_if_noise_were_secret"
"""That cost in files, where every other run has an epsilon; its own is null."""
UnitName = Literal["record", "person", "client"]
UNITS: Final[Mapping[str, str]] = {
    "record": "hides one record",
    "person": "hides a person, with max_records records at most",
    "client": "hides a whole silo, with max_records records at most",
}
"""Whose presence a claim of each unit hides, in a few words."""
Baseline = Literal["no-noise", "no-noise-no-clip"]
"""What a run leaves out that is compared with a private one; it protects nobody."""
LEFT_OUT: Final[Mapping[Baseline, str]] = {
    "no-noise": "no noise was added",
    "no-noise-no-clip": "no noise was added and no gradient was clipped",
}

# An event outside these cannot be accounted for in the memory of a machine, and claims nothing worth having.
LEAST_NOISE: Final = 0.2
MOST_NOISE: Final = 1e6
LEAST_RATE: Final = 1e-9
MOST_STEPS: Final = 1_000_000
LEAST_DELTA: Final = 1e-12  # below, nothing worth having is claimed, and tails are cut for no less

MOST_EPSILON: Final = 1_000
MOST_RECORDS: Final = 1_000  # of one unit; more could not be hidden anyway

_LARGEST: Final = 1e12
_SOURCES: Final = get_args(NoiseSourceName)


class Event(Protocol):
    """Some sums over lots of records, released: a frozen, validated dataclass of a mechanism's own file.

    Guarantee, which every kind gives: whatever these steps release is, for neighbours that differ by one unit, no
    easier to tell apart than the primitives that `parts` names, each as often as it says. `times` changes how many
    steps there are, and nothing else.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def mechanism(self) -> str:
        """The name under which the event is stored: its kind's."""

    @property
    def steps(self) -> int:
        """Sums released, at least 1. That of an empty lot is one of them."""

    @property
    def sample_rate(self) -> float:
        """The Poisson rate q as planned, in (0, 1]."""

    @property
    def realised_sample_rate(self) -> float:
        """The rate with which the sampler really draws, in (0, 1], which is what is accounted for."""

    @property
    def denominator(self) -> int:
        """The public divisor of every sum."""

    @property
    def sampler(self) -> str:
        """How lots were drawn: "poisson"."""

    @property
    def max_records(self) -> int:
        """Most records of one privacy unit among those that were used."""

    @property
    def drawn_from(self) -> NoiseSourceName:
        """Where lots and dropout masks are drawn from."""

    @property
    def noise_source(self) -> NoiseSourceName | None:
        """Where noise is drawn from; None where none is added."""

    @property
    def noise_multiplier(self) -> float:
        """Standard deviation of the noise of one release over the clip; 0 where none is added."""

    @property
    def max_grad_norm(self) -> float | None:
        """What one record may add to a sum, in L2; None where nothing bounds it."""

    def __hash__(self) -> int: ...

    def parts(self) -> Parts:
        """Return what accountants see: primitives, each with how often it is released in all steps."""

    def times(self, steps: int) -> Self:
        """Return the same event of so many steps."""


def bounded(events: Iterable[Event]) -> list[tuple[SampledGaussian, int]] | None:
    """Return the parts of all events, in order; None where one of them has a part that nothing bounds, or no part.

    Every accountant asks this first: a release without a bound is never left out of what is composed. An event that
    names no part would cost nothing, and releases something, so that it counts as one without a bound.

    Raises:
        LedgerError: When an event says a part less than once.
    """
    found: list[tuple[SampledGaussian, int]] = []
    for event in events:
        parts = event.parts()
        if not parts:
            return None
        for part, count in parts:
            if not isinstance(part, SampledGaussian):
                return None
            require(type(count) is int and count >= 1, "parts", "each released at least once")
            found.append((part, count))
    return found


def protects(event: Event) -> bool:
    """Return whether anything bounds what an event tells of a unit."""
    return bounded([event]) is not None


def is_secret(noise_source: str | None) -> bool:
    """Return whether nobody can subtract noise from such a source: that of the operating system alone.

    >>> [is_secret(source) for source in ("os", "seeded-unsafe", "experiment", None)]
    [True, False, False, False]
    """
    return noise_source == "os"


def if_secret(events: Iterable[Event]) -> bool:
    """Return whether events have figures that would hold if the noise were secret: it is an experiment's, in some.

    Of noise that was "seeded-unsafe" no such figure is told, and of what was released without noise there is none.
    """
    sources = {event.noise_source for event in events}
    return EXPERIMENT in sources and sources <= {EXPERIMENT, "os"}


def clip_of(event: Event) -> float:
    """Return an event's clip.

    Raises:
        PrivacyError: When it has none, so that nothing that rests on a clip may be done with it.
    """
    if event.max_grad_norm is None:
        raise PrivacyError(f"a {event.mechanism} event without a clip is used where a clip is needed")
    return event.max_grad_norm


def check_lots(event: Event) -> None:
    """Refuse what no event says of its lots and steps.

    Raises:
        LedgerError: Which figure is out of range.
    """
    require(
        is_real(event.sample_rate) and LEAST_RATE <= event.sample_rate <= 1,
        "sample_rate",
        f"a number from {LEAST_RATE:g} to 1",
    )
    require(
        type(event.steps) is int and 1 <= event.steps <= MOST_STEPS, "steps", f"a whole number from 1 to {MOST_STEPS}"
    )
    require(type(event.denominator) is int and event.denominator >= 1, "denominator", "a whole number from 1")
    require(event.sampler == "poisson", "sampler", '"poisson"; no other sampling is accounted for')
    require(
        is_real(event.realised_sample_rate)
        and realised_rate(event.sample_rate, event.drawn_from) <= event.realised_sample_rate <= 1,
        "realised_sample_rate",
        "a number up to 1, and no less than what the sampler draws with",
    )
    require(
        type(event.max_records) is int and 1 <= event.max_records <= MOST_RECORDS,
        "max_records",
        f"a whole number from 1 to {MOST_RECORDS}",
    )


def check_source(name: object, field: str) -> None:
    """Refuse what is no source of randomness.

    Raises:
        LedgerError: When it is none.
    """
    require(name in _SOURCES, field, '"os", "seeded-unsafe" or "experiment"')


def realised_rate(sample_rate: float, noise_source: NoiseSourceName) -> float:
    """Return the probability with which a sampler that is asked for a rate includes a record.

    A sampler compares uniform words with a threshold: 64 bits of the operating system's, rounded down; or the 53 bits
    of a seeded generator's floats, rounded up.

    >>> realised_rate(0.5, "os"), realised_rate(1e-9, "os") < 1e-9
    (0.5, True)
    """
    if not is_real(sample_rate) or not 0 < sample_rate < 1:
        return sample_rate  # all records, or nothing that a sampler would take
    if noise_source == "os":
        return math.ldexp(math.floor(math.ldexp(sample_rate, 64)), -64)
    return math.ldexp(math.ceil(math.ldexp(sample_rate, 53)), -53)


def event_to_json(event: Event) -> str:
    """Return canonical JSON: sorted keys, no spaces, no NaN, shortest round-trip floats."""
    return json.dumps(asdict(event), sort_keys=True, separators=(",", ":"), allow_nan=False)


def is_real(value: object) -> bool:
    """Return whether a field holds a number that an event may say."""
    # A comparison, not isfinite: an integer of a thousand digits has no float to ask. It is false for a NaN.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def require(holds: bool, field: str, rule: str) -> None:
    """Refuse an event by a rule that one of its fields breaks.

    Raises:
        LedgerError: Which field, and the rule.
    """
    if not holds:
        raise LedgerError(f"an event's {field} must be {rule}")
