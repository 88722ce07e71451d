"""Gaussian noise on a sum of one clipped vector of each record, as a count or a sum is released.

It is DP-SGD's step without a gradient: what is accounted for is the same sampled Gaussian. It has a name of its own, so
that a law, a ledger and a report tell a statistic from training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fedmodel.privacy.events import Event
from fedmodel.privacy.mechanisms._mechanism import Facts
from fedmodel.privacy.mechanisms._sentences import clipped, sampled
from fedmodel.privacy.mechanisms.dp_sgd import DpSgd, DpSgdEvent

_DESCRIPTION: Final = (
    "The Gaussian mechanism: a vector of each record, clipped in L2, and Gaussian noise on their sum. Each sum is"
    " charged to the silo's ledger before records are read for it."
)
_GAINED: Final = "what that gains is accounted for at the rate with which the sampler really draws"


@dataclass(frozen=True)
class GaussianEvent(DpSgdEvent):
    """Some noised sums of a clipped vector of each record.

    Guarantee: that of `DpSgdEvent`, whose figures it has; `max_grad_norm` is the clip of a record's vector.
    """

    mechanism: str = "gaussian"


class Gaussian(DpSgd):
    """Plans and checks as DP-SGD does, and says what it is."""

    event = GaussianEvent

    def describe(self, event: Event, unit: str) -> Facts:
        """Return what holds of the sums by an event's figures."""
        return Facts(_DESCRIPTION, clipped(event, unit, "What a record adds"), sampled(event, _GAINED))


MECHANISM: Final = Gaussian()
