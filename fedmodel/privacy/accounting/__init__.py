"""From events to (epsilon, delta), and from a target back to a noise multiplier.

Guarantee: what stands here is an upper bound for running the given events on one data set, when neighbours differ by
adding or removing one privacy unit that holds at most `max_records` records. `epsilon`, `deltas`, `advantage` and
`gdp_mu` compose privacy loss distributions (`pld`), for plans that were fixed in advance. `renyi` and its companions
(`renyi_filter`) are for plans that are chosen by looking at earlier releases. A run that may end by looking cost what
its whole plan costs, and `odometer` says how much less that may be. `least_epsilon` alone is a lower bound, by code
that shares nothing with them (`lower`).

Floating point is counted, over the whole range that an event may have. What it may take away is bounded where it
arises and added outwards: of one step's distribution (`cells`), of the composition (`composition`), of a closed form
(`gaussian`). It rests on error bounds of scipy's Gaussian tails and Fourier transforms, and of numpy's exp and log,
that tests measure. Where nothing is left of delta a figure is infinite, or delta is 1.

Of an event accountants see its primitives (`fedmodel.privacy.primitives`) and nothing else. One that nothing bounds
makes every figure over it infinite, and delta 1: it is never left out.

What it does NOT cover: replace-one neighbours and lots of a fixed size, which `check_supported` refuses; figures of
different units, which are never composed; the sum of two epsilons, which nothing here computes.
"""

from fedmodel.privacy.accounting.calibration import calibrate, calibrate_lots, calibrate_parts, spares_noise
from fedmodel.privacy.accounting.lower import least_epsilon
from fedmodel.privacy.accounting.odometer import Reading, checkpoints, odometer
from fedmodel.privacy.accounting.pld import (
    ACCOUNTANT,
    COARSE_GRID,
    FINE_GRID,
    advantage,
    check_supported,
    deltas,
    epsilon,
    gdp_mu,
)
from fedmodel.privacy.accounting.renyi_filter import filter_order, renyi, renyi_room, renyi_to_epsilon

__all__ = [
    "ACCOUNTANT",
    "COARSE_GRID",
    "FINE_GRID",
    "Reading",
    "advantage",
    "calibrate",
    "calibrate_lots",
    "calibrate_parts",
    "check_supported",
    "checkpoints",
    "deltas",
    "epsilon",
    "filter_order",
    "gdp_mu",
    "least_epsilon",
    "odometer",
    "renyi",
    "renyi_room",
    "renyi_to_epsilon",
    "spares_noise",
]
