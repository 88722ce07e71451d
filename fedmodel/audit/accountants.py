"""Is the claimed epsilon as large as it must be? What was charged, read from below by others than its accountant.

The claim is an upper bound by `fedmodel.privacy.accounting`. Held against it are figures that a claim under the truth
falls below:

    tests  `fedmodel.privacy.accounting.lower`: a lower bound by the best threshold on the sum, or on the largest, of
    all
           releases; exact at q = 1
    PRV    the lower end of what Opacus's accountant leaves open (Gopi et al. 2021, arXiv 2106.02848, theorem 5), for
           units of one record; within 0.02 of the truth. It counts no rounding, so it is asked only where what its
           transforms may round away is small beside its own error

Neither shares code with the claim from the event on, so that a rate, a count or a noise that the claim's accountant
gets wrong on its way shows here. The same is asked at points where accountants fail: many steps and tiny deltas.

Blind to an event that is charged with a wrong figure, which the other gauges hold against what was released; and to a
claim that is larger than it need be.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import numpy as np

from fedmodel.audit.measured import Gauge, gauge
from fedmodel.audit.prv import prv_accountant
from fedmodel.privacy import accounting
from fedmodel.privacy.accounting.lower import Steps, least_epsilon, merged
from fedmodel.privacy.events import Event
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.rounding import down, small, up

NAME: Final = "accountants"
EXTREMES: Final = "accountants_at_extremes"

_PRV_ERROR: Final = 0.01
_PRV_DELTA_ERROR: Final = 1e-3  # of delta
_LARGEST_PRV: Final = 200.0  # past which the grid of PRV outgrows memory
_PRV_ROUNDING: Final = 1e-13  # of delta, for each step
_ROUNDING: Final = 1e-6


# (rate, noise multiplier, steps, delta), where the tests' bound is within a fiftieth of the truth, and a composition
# whose numerical error is forgotten reads less.
_EXTREMES: Final = (
    (0.1, 15.81, 100_000, 1e-12),
    (0.99, 300.0, 100_000, 1e-12),
    (0.5, 500.0, 100_000, 1e-11),
)


def accountants(silo: str, events: Iterable[Event], claimed: float, delta: float) -> Gauge:
    """How far a silo's claimed epsilon lies under what another accountant finds at least: 0.

    Args:
        silo: Whose.
        events: What its ledger reserved for it, whole plans.
        claimed: The epsilon that is claimed for them at `delta`.
        delta: In (0, 1).
    """
    events = list(events)
    by_tests = least_epsilon(events, delta)
    kinds = merged(events)
    by_prv = None if kinds is None or claimed >= _LARGEST_PRV else prv_epsilon(kinds, delta)
    least = max(by_tests, by_prv or 0.0)
    told = "" if by_prv is None else f", and by PRV (Opacus) at least {down(by_prv)}"
    return gauge(
        NAME,
        silo,
        max(0.0, least - claimed),
        0.0,
        (0.0, _ROUNDING * least),
        f"silo {silo} claims epsilon {up(claimed)} at delta {small(delta)}; by tests of its releases it is at"
        f" least {down(by_tests)}{told}",
    )


def extremes() -> Gauge:
    """How far the accountant of claims reads under a lower bound, at most, for a few plans that no run has: 0."""
    found = []
    for rate, noise, steps, delta in _EXTREMES:
        event = DpSgdEvent(noise, 1.0, rate, steps, denominator=1)
        claimed, least = accounting.epsilon([event], delta), least_epsilon([event], delta)
        told = (
            f"of {steps} steps at rate {rate:g}, noise {noise:g} and delta {small(delta)}, the accountant of claims"
            f" finds epsilon {up(claimed)}; by tests of the releases it is at least {down(least)}"
        )
        found.append((max(0.0, least - claimed), told))
    under, told = max(found)
    return gauge(EXTREMES, None, under, 0.0, (0.0, 0.0), told)


def prv_is_close(steps: int, delta: float) -> bool:
    """Whether what PRV's transforms may round away is small beside the error that it counts: it counts no rounding."""
    return steps * _PRV_ROUNDING <= _PRV_DELTA_ERROR * delta


@lru_cache(maxsize=64)
def prv_epsilon(steps: tuple[Steps, ...], delta: float) -> float | None:
    """Return the lower end of PRV's interval for epsilon; None where Opacus has none, or none to rely on."""
    if not steps or any(one.records > 1 for one in steps):
        return None
    if not prv_is_close(sum(one.number for one in steps), delta):
        return None
    accountant = prv_accountant()
    accountant.history = [(one.noise, one.rate, one.number) for one in steps]
    error = _PRV_DELTA_ERROR * delta
    # Its formula takes the log of 0 where every record is in every lot, and means it; the domain it searches by RDP.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            whole = accountant._get_dprv(_PRV_ERROR, error)  # noqa: SLF001 - `get_epsilon` tells the upper end alone
            low = float(whole.compute_epsilon(delta, error, _PRV_ERROR)[0])
        except (ArithmeticError, ValueError, RuntimeError, MemoryError):
            return None
    return low if math.isfinite(low) else None
