"""From events to (epsilon, delta), and from a target back to a noise multiplier.

Guarantee: what stands here is an upper bound for running the given events on one data set, when neighbours differ by
adding or removing one privacy unit that holds at most `max_records` records. `epsilon`, `deltas`, `advantage` and
`gdp_mu` compose privacy loss distributions (`pld`), for plans that were fixed in advance. `renyi` and its companions
(`renyi_filter`) are for plans that are chosen by looking at earlier releases.

What it does NOT cover: replace-one neighbours and lots of a fixed size, which `check_supported` refuses; figures of
different units, which are never composed; the sum of two epsilons, which nothing here computes.

Each bound holds in exact arithmetic. Floating point adds what it adds: about 1e-16 a step to a delta.
"""

from fedmodel.accounting.calibration import calibrate, noise_multiplier, planned_event
from fedmodel.accounting.pld import (
    ACCOUNTANT,
    COARSE_GRID,
    FINE_GRID,
    advantage,
    check_supported,
    deltas,
    epsilon,
    gdp_mu,
)
from fedmodel.accounting.renyi_filter import filter_order, renyi, renyi_room, renyi_to_epsilon

__all__ = [
    "ACCOUNTANT",
    "COARSE_GRID",
    "FINE_GRID",
    "advantage",
    "calibrate",
    "check_supported",
    "deltas",
    "epsilon",
    "filter_order",
    "gdp_mu",
    "noise_multiplier",
    "planned_event",
    "renyi",
    "renyi_room",
    "renyi_to_epsilon",
]
