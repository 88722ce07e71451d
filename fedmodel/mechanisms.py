"""What was done to records, as events that a ledger keeps and an accountant reads.

The event is the durable truth: epsilon is derived from it, so that a better accountant can read an old ledger again.
The parser knows a closed list of mechanisms and refuses every other; it never imports what a file tells it to.

A privacy unit is whose presence is hidden: a record; a person, with at most so many records; a client, which is all
that a silo holds, of which at most so many records are used. Figures of different units are not comparable and are
never added up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

from fedmodel.errors import LedgerError

NoiseSourceName = Literal["os", "seeded-unsafe"]
UnitName = Literal["record", "person", "client"]

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
        _require(
            _is_real(self.sample_rate) and LEAST_RATE <= self.sample_rate <= 1,
            "sample_rate",
            f"a number from {LEAST_RATE:g} to 1",
        )
        _require(
            type(self.steps) is int and 1 <= self.steps <= MOST_STEPS, "steps", f"a whole number from 1 to {MOST_STEPS}"
        )
        _require(type(self.denominator) is int and self.denominator >= 1, "denominator", "a whole number from 1")
        _require(self.noise_source in ("os", "seeded-unsafe"), "noise_source", '"os" or "seeded-unsafe"')
        _require(self.sampler == "poisson", "sampler", '"poisson"; no other sampling is accounted for')
        _require(self.mechanism == "dp-sgd", "mechanism", '"dp-sgd"')
        _require(
            _is_real(self.realised_sample_rate)
            and realised_rate(self.sample_rate, self.noise_source) <= self.realised_sample_rate <= 1,
            "realised_sample_rate",
            "a number up to 1, and no less than what the sampler draws with",
        )
        _require(
            type(self.max_records) is int and 1 <= self.max_records <= MOST_RECORDS,
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


def event_to_json(event: DpSgdEvent) -> str:
    """Return canonical JSON: sorted keys, no spaces, no NaN, shortest round-trip floats."""
    return json.dumps(asdict(event), sort_keys=True, separators=(",", ":"), allow_nan=False)


def event_from_json(text: str) -> DpSgdEvent:
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
    if not isinstance(document, Mapping) or document.get("mechanism") != "dp-sgd":
        raise LedgerError("an event's mechanism is not known; only 'dp-sgd' can be accounted for")
    expected = {field.name for field in fields(DpSgdEvent)}
    if set(document) != expected:
        raise LedgerError("a dp-sgd event must have exactly its own fields; one is missing or unknown")
    values: dict[str, Any] = dict(document)
    if values["realised_sample_rate"] == -1.0:
        raise LedgerError("a dp-sgd event says the rate that was drawn with")
    return DpSgdEvent(**values)


def _is_real(value: object) -> bool:
    # A comparison, not isfinite: an integer of a thousand digits has no float to ask. It is false for a NaN.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _require(holds: bool, field: str, rule: str) -> None:
    if not holds:
        raise LedgerError(f"a dp-sgd event's {field} must be {rule}")
