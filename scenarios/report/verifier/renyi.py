"""A run's charges by Rényi divergences, as Google's dp_accounting reads them; for comparison beside the claim alone.

Mironov, Talwar and Zhang 2019 (arXiv 1908.10530), at the best whole order up to 256. Of several records in a unit,
which that library does not know, by our own (`fedmodel.privacy.accounting`). It shares no code with the claim, which is
PLD's, from an event's primitives on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

from fedmodel.privacy import accounting
from fedmodel.privacy.events import Event, bounded

ORDERS: Final = range(2, 257)


def rdp(events: Sequence[Event], delta: float) -> tuple[float | None, int | None]:
    """Return the epsilon of the best whole order up to 256, and the order; 0 for no events, None without noise.

    An upper bound in exact arithmetic, of positive terms alone, so that rounding takes little from it.

    Args:
        events: What was charged, of one unit.
        delta: In (0, 1).
    """
    if not events:
        return 0.0, None
    parts = bounded(events)
    if parts is None:
        return None, None
    if any(step.records > 1 for step, _ in parts):
        found = {
            order: accounting.renyi_to_epsilon(sum(accounting.renyi(event, order) for event in events), order, delta)
            for order in ORDERS
        }
        best = min(found, key=found.__getitem__)
        return found[best], best
    accountant = RdpAccountant(list(ORDERS))
    for step, count in parts:
        accountant.compose(PoissonSampledDpEvent(step.rate, GaussianDpEvent(step.noise)), count)
    epsilon, order = accountant.get_epsilon_and_optimal_order(delta)
    return float(epsilon), int(order)
