"""What was done to records, as events that a ledger keeps and an accountant reads.

The event is the durable truth: epsilon is derived from it, so that a better accountant can read an old ledger again.
The parser knows a closed list of mechanisms and refuses every other; it never imports what a file tells it to.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from fedmodel.errors import LedgerError

NoiseSourceName = Literal["os", "seeded-unsafe"]


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
        _require(_is_real(self.noise_multiplier) and self.noise_multiplier > 0, "noise_multiplier", "a positive number")
        _require(_is_real(self.max_grad_norm) and self.max_grad_norm > 0, "max_grad_norm", "a positive number")
        _require(_is_real(self.sample_rate) and 0 < self.sample_rate <= 1, "sample_rate", "a number in (0, 1]")
        _require(type(self.steps) is int and self.steps >= 1, "steps", "a whole number of at least 1")
        _require(type(self.denominator) is int and self.denominator >= 1, "denominator", "a whole number of at least 1")
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
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise LedgerError(f"an event is not JSON: {error}") from error
    if not isinstance(document, Mapping) or document.get("mechanism") != "dp-sgd":
        found = document.get("mechanism") if isinstance(document, Mapping) else type(document).__name__
        raise LedgerError(f"an event of mechanism {found!r} is not known; only 'dp-sgd' can be accounted for")
    expected = {field.name for field in fields(DpSgdEvent)}
    if set(document) != expected:
        odd = ", ".join(sorted(set(document) ^ expected))
        raise LedgerError(f"a dp-sgd event must have exactly its own fields; missing or unknown: {odd}")
    values: dict[str, Any] = dict(document)
    return DpSgdEvent(**values)


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _require(holds: bool, field: str, rule: str) -> None:
    if not holds:
        raise LedgerError(f"a dp-sgd event's {field} must be {rule}")
