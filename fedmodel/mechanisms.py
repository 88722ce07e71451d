"""What was done to records, as events that a ledger keeps and an accountant reads.

The event is the durable truth: epsilon is derived from it, so that a better accountant can read an old ledger again.
The parser knows a closed list of mechanisms and refuses every other; it never imports what a file tells it to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

from fedmodel.errors import LedgerError

NoiseSourceName = Literal["os", "seeded-unsafe"]

# An event outside these cannot be accounted for in the memory of a machine, and claims nothing worth having.
LEAST_NOISE: Final = 0.2
MOST_NOISE: Final = 1e6
LEAST_RATE: Final = 1e-9
MOST_STEPS: Final = 1_000_000
LEAST_DELTA: Final = 1e-12  # below, it drowns in the tails that accounting truncates

_LARGEST: Final = 1e12
_MOST_CHARACTERS: Final = 2_000


@dataclass(frozen=True)
class DpSgdEvent:
    """Some steps of DP-SGD: Poisson lots, per-record clipping, Gaussian noise on the sum.

    After Abadi et al. 2016, section 3.

    Attributes:
        noise_multiplier: Standard deviation of the noise over `max_grad_norm`, on the sum of clipped gradients.
        max_grad_norm: The clip C in L2.
        sample_rate: The Poisson rate q, in (0, 1]; every lot includes each record independently with probability q.
        steps: Noised sums released, at least 1. An empty lot is one of them.
        denominator: The public divisor of every sum.
        noise_source: "os", or "seeded-unsafe" when whoever knows the seed can subtract the noise.
        sampler: How lots were drawn.
        mechanism: The name under which the event is stored.
    """

    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int
    denominator: int
    noise_source: NoiseSourceName = "os"
    sampler: Literal["poisson"] = "poisson"
    mechanism: Literal["dp-sgd"] = "dp-sgd"

    def __post_init__(self) -> None:
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
    return DpSgdEvent(**values)


def _is_real(value: object) -> bool:
    # A comparison, not isfinite: an integer of a thousand digits has no float to ask. It is false for a NaN.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _require(holds: bool, field: str, rule: str) -> None:
    if not holds:
        raise LedgerError(f"a dp-sgd event's {field} must be {rule}")
