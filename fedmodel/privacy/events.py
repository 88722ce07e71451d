"""What was done to records, as events that a ledger keeps and an accountant reads.

The event is the durable truth: epsilon is derived from it, so that a better accountant can read an old ledger again.
The parser knows a closed list of mechanisms and refuses every other; it never imports what a file tells it to.

    dp-sgd       `DpSgdEvent`: what protects
    none-unsafe  `UnprotectedEvent`: the same pipeline without noise, which protects nobody. It exists so that a
                 simulation can show what privacy costs; no epsilon is finite over anything that it is among.

A privacy unit is whose presence is hidden: a record; a person, with at most so many records; a client, which is all
that a silo holds, of which at most so many records are used. Figures of different units are not comparable and are
never added up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Final, Literal

from fedmodel.errors import LedgerError

NoiseSourceName = Literal["os", "seeded-unsafe"]
UnitName = Literal["record", "person", "client"]
MechanismName = Literal["dp-sgd", "none-unsafe"]
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

MOST_RECORDS: Final = 1_000  # of one unit; more could not be hidden anyway

_LARGEST: Final = 1e12
_MOST_CHARACTERS: Final = 2_000


@dataclass(frozen=True)
class DpSgdEvent:
    """Some steps of DP-SGD: Poisson lots, per-record clipping, Gaussian noise on the sum.

    After Abadi et al. 2016, section 3.

    Attributes:
        noise_multiplier: Standard deviation of the noise over `max_grad_norm`, on the sum of clipped gradients.
        max_grad_norm: The clip C in L2.
        sample_rate: The Poisson rate q as planned, in (0, 1]; every lot includes each record independently with
            probability q.
        steps: Noised sums released, at least 1. An empty lot is one of them.
        denominator: The public divisor of every sum.
        noise_source: "os", or "seeded-unsafe" when whoever knows the seed can subtract the noise.
        sampler: How lots were drawn.
        mechanism: The name under which the event is stored.
        realised_sample_rate: The rate with which the sampler really draws, in (0, 1], which is what is accounted for;
            by default what `realised_rate` says.
        max_records: Most records of one privacy unit among those that were trained on.
    """

    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int
    denominator: int
    noise_source: NoiseSourceName = "os"
    sampler: Literal["poisson"] = "poisson"
    mechanism: Literal["dp-sgd"] = "dp-sgd"
    realised_sample_rate: float = -1.0
    max_records: int = 1

    def __post_init__(self) -> None:
        if self.realised_sample_rate == -1.0:
            object.__setattr__(self, "realised_sample_rate", realised_rate(self.sample_rate, self.noise_source))
        _require(
            _is_real(self.noise_multiplier) and LEAST_NOISE <= self.noise_multiplier <= MOST_NOISE,
            "noise_multiplier",
            f"a number from {LEAST_NOISE:g} to {MOST_NOISE:g}",
        )
        _require(_is_real(self.max_grad_norm) and self.max_grad_norm > 0, "max_grad_norm", "a positive number")
        _require(self.mechanism == "dp-sgd", "mechanism", '"dp-sgd"')
        _require(self.noise_source in _SOURCES, "noise_source", _ONE_OF_SOURCES)
        _check_lots(self)

    @property
    def drawn_from(self) -> NoiseSourceName:
        """Where lots and dropout masks are drawn from: whence noise is."""
        return self.noise_source


@dataclass(frozen=True)
class UnprotectedEvent:
    """Some steps of the same pipeline WITHOUT noise: sums of gradients, released as they are. It protects nobody.

    Guarantee: there is none, whatever the other figures are: `fedmodel.privacy.accounting` reads every epsilon over it
    as infinite, and a ledger that holds one reserves nothing more on that budget. What is known of it has the names
    that `DpSgdEvent` has: `noise_multiplier` is 0 and `noise_source` is None, so that whoever takes it for the other
    divides by zero.

    Attributes:
        max_grad_norm: The clip C in L2 of each record's gradient; None where gradients were not clipped either.
        sample_rate: As `DpSgdEvent`, like all that follow.
        steps: Sums released, at least 1.
        denominator: The public divisor of every sum.
        drawn_from: Where lots and dropout masks were drawn from.
        sampler: How lots were drawn.
        mechanism: The name under which the event is stored.
        realised_sample_rate: The rate with which the sampler really draws.
        max_records: Most records of one privacy unit.
    """

    max_grad_norm: float | None
    sample_rate: float
    steps: int
    denominator: int
    drawn_from: NoiseSourceName = "os"
    sampler: Literal["poisson"] = "poisson"
    mechanism: Literal["none-unsafe"] = "none-unsafe"
    realised_sample_rate: float = -1.0
    max_records: int = 1

    noise_multiplier: ClassVar[float] = 0.0
    noise_source: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.realised_sample_rate == -1.0:
            object.__setattr__(self, "realised_sample_rate", realised_rate(self.sample_rate, self.drawn_from))
        clip = self.max_grad_norm
        _require(clip is None or (_is_real(clip) and clip > 0), "max_grad_norm", "a positive number, or null")
        _require(self.mechanism == "none-unsafe", "mechanism", '"none-unsafe"')
        _require(self.drawn_from in _SOURCES, "drawn_from", _ONE_OF_SOURCES)
        _check_lots(self)

    @property
    def baseline(self) -> Baseline:
        """What was left out."""
        return "no-noise" if self.max_grad_norm is not None else "no-noise-no-clip"


Event = DpSgdEvent | UnprotectedEvent
"""What a ledger keeps."""

_MECHANISMS: Final[Mapping[MechanismName, type[DpSgdEvent] | type[UnprotectedEvent]]] = {
    "dp-sgd": DpSgdEvent,
    "none-unsafe": UnprotectedEvent,
}
_SOURCES: Final = ("os", "seeded-unsafe")
_ONE_OF_SOURCES: Final = '"os" or "seeded-unsafe"'


def protected(events: Iterable[Event]) -> list[DpSgdEvent] | None:
    """Return the events if noise was added in each; None where one releases records without, and nothing bounds all.

    Every accountant asks this first: an unprotected release is never left out of what is composed.
    """
    noised: list[DpSgdEvent] = []
    for event in events:
        if not isinstance(event, DpSgdEvent):
            return None
        noised.append(event)
    return noised


def _check_lots(event: Event) -> None:
    """Refuse what no event says of its lots and steps."""
    _require(
        _is_real(event.sample_rate) and LEAST_RATE <= event.sample_rate <= 1,
        "sample_rate",
        f"a number from {LEAST_RATE:g} to 1",
    )
    _require(
        type(event.steps) is int and 1 <= event.steps <= MOST_STEPS, "steps", f"a whole number from 1 to {MOST_STEPS}"
    )
    _require(type(event.denominator) is int and event.denominator >= 1, "denominator", "a whole number from 1")
    _require(event.sampler == "poisson", "sampler", '"poisson"; no other sampling is accounted for')
    _require(
        _is_real(event.realised_sample_rate)
        and realised_rate(event.sample_rate, event.drawn_from) <= event.realised_sample_rate <= 1,
        "realised_sample_rate",
        "a number up to 1, and no less than what the sampler draws with",
    )
    _require(
        type(event.max_records) is int and 1 <= event.max_records <= MOST_RECORDS,
        "max_records",
        f"a whole number from 1 to {MOST_RECORDS}",
    )


def realised_rate(sample_rate: float, noise_source: NoiseSourceName) -> float:
    """Return the probability with which a sampler that is asked for a rate includes a record.

    A sampler compares uniform words with a threshold: 64 bits of the operating system's, rounded down; or the 53 bits
    of a seeded generator's floats, rounded up.

    >>> realised_rate(0.5, "os"), realised_rate(1e-9, "os") < 1e-9
    (0.5, True)
    """
    if not _is_real(sample_rate) or not 0 < sample_rate < 1:
        return sample_rate  # all records, or nothing that a sampler would take
    if noise_source == "os":
        return math.ldexp(math.floor(math.ldexp(sample_rate, 64)), -64)
    return math.ldexp(math.ceil(math.ldexp(sample_rate, 53)), -53)


def event_to_json(event: Event) -> str:
    """Return canonical JSON: sorted keys, no spaces, no NaN, shortest round-trip floats."""
    return json.dumps(asdict(event), sort_keys=True, separators=(",", ":"), allow_nan=False)


def event_from_json(text: str) -> Event:
    """Read an event back.

    Raises:
        LedgerError: When the mechanism is unknown, or a field is missing, unknown or out of range.
    """
    if len(text) > _MOST_CHARACTERS:  # what a hostile peer could make a parser of numbers or brackets do
        raise LedgerError(f"an event of {len(text)} characters is no event")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LedgerError("an event is not JSON") from error
    name = document.get("mechanism") if isinstance(document, Mapping) else None
    kind = _MECHANISMS.get(name) if isinstance(name, str) else None  # type: ignore[call-overload]  # any text
    if kind is None:
        raise LedgerError(f"an event's mechanism is not known; known: {', '.join(_MECHANISMS)}")
    if set(document) != {field.name for field in fields(kind)}:
        raise LedgerError(f"a {name} event must have exactly its own fields; one is missing or unknown")
    values: dict[str, Any] = dict(document)
    if values["realised_sample_rate"] == -1.0:
        raise LedgerError(f"a {name} event says the rate that was drawn with")
    event: Event = kind(**values)
    return event


def _is_real(value: object) -> bool:
    # A comparison, not isfinite: an integer of a thousand digits has no float to ask. It is false for a NaN.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _require(holds: bool, field: str, rule: str) -> None:
    if not holds:
        raise LedgerError(f"an event's {field} must be {rule}")
