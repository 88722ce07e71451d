"""Is the claimed epsilon as large as it must be? What was charged, read from below by others than its accountant.

The claim is an upper bound by privacy loss distributions (`fedmodel.accounting`). Held against it are lower bounds on
the epsilon of the same events, which a claim under the truth falls below:

    sum   any test of neighbours bounds epsilon from below. Taken is that of the sum of all releases on one coordinate:
          Binomial(T k, q) clips and N(0, T sigma^2) against the noise alone, in closed form. At q = 1 the sum tells
          all, and the bound is exact (Balle and Wang 2018); for k records of a unit too.
    PRV   the lower end of what Opacus's accountant leaves open (Gopi et al. 2021, arXiv 2106.02848, theorem 5), for
          units of one record; within 0.02 of the truth

Neither shares code with the claim from the event on, so that a rate, a count or a noise that the claim's accountant
gets wrong on its way shows here.

Blind to an event that is charged with a wrong figure, which the other gauges hold against what was released; and to a
claim that is larger than it need be.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from opacus.accountants import PRVAccountant
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr, ndtr
from scipy.stats import binom

from fedmodel.audit.measured import Gauge, gauge
from fedmodel.mechanisms import DpSgdEvent
from fedmodel.rounding import down, small, up

NAME: Final = "accountants"

_PRV_ERROR: Final = 0.01
_PRV_DELTA_ERROR: Final = 1e-3  # of delta
_LARGEST_PRV: Final = 200.0  # past which the grid of PRV outgrows memory
_TAIL: Final = 1e-13  # of counts left out, on either side
_ROUNDING: Final = 1e-6


class Steps(NamedTuple):
    """Steps of one kind: the rate with which records are drawn, noise multiplier, records of a unit, and how many."""

    rate: float
    noise: float
    records: int
    number: int


def accountants(silo: str, events: Iterable[DpSgdEvent], claimed: float, delta: float) -> Gauge:
    """How far a silo's claimed epsilon lies under what another accountant finds at least: 0.

    Args:
        silo: Whose.
        events: What its ledger reserved for it, whole plans.
        claimed: The epsilon that is claimed for them at `delta`.
        delta: In (0, 1).
    """
    steps = _merged(events)
    by_sum, by_prv = sum_epsilon(steps, delta), prv_epsilon(steps, delta) if claimed < _LARGEST_PRV else None
    least = max(by_sum, by_prv or 0.0)
    told = "" if by_prv is None else f", and by PRV (Opacus) at least {down(by_prv)}"
    return gauge(
        NAME,
        silo,
        max(0.0, least - claimed),
        0.0,
        (0.0, _ROUNDING * least),
        f"silo {silo} claims epsilon {up(claimed)} at delta {small(delta)}; by the sum of its releases it is at least"
        f" {down(by_sum)}{told}",
    )


@lru_cache(maxsize=64)
def sum_epsilon(steps: tuple[Steps, ...], delta: float) -> float:
    """Return a lower bound on epsilon by the best threshold on the sum of all releases of one kind, of the best kind.

    Guarantee: no (epsilon, delta) with a smaller epsilon holds, up to floating point: an event S > c with probability
    p where the unit is there, and r where it is not, has p <= e^epsilon r + delta.

    >>> round(sum_epsilon((Steps(1.0, 2.0, 1, 1),), 1e-5), 3)  # as by Balle and Wang's closed form
    1.993
    """
    return max((_by_threshold(one, delta) for one in steps), default=0.0)


@lru_cache(maxsize=64)
def prv_epsilon(steps: tuple[Steps, ...], delta: float) -> float | None:
    """Return the lower end of PRV's interval for epsilon; None where Opacus has none."""
    if not steps or any(one.records > 1 for one in steps):
        return None
    accountant = PRVAccountant()
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


def _merged(events: Iterable[DpSgdEvent]) -> tuple[Steps, ...]:
    """Count the steps of each kind."""
    counts: Counter[tuple[float, float, int]] = Counter()
    for event in events:
        counts[event.realised_sample_rate, event.noise_multiplier, event.max_records] += event.steps
    return tuple(Steps(*kind, count) for kind, count in sorted(counts.items()))


def _by_threshold(steps: Steps, delta: float) -> float:
    """Return the largest log((P(S > c) - delta) / Q(S > c)) over c that is found; any c gives a bound."""
    trials, std = steps.number * steps.records, steps.noise * steps.number**0.5
    if steps.rate >= 1:
        counts, weights = np.array([float(trials)]), np.ones(1)
    else:
        # Counts that are left out take from P, which only lowers the bound.
        ends = binom.ppf(_TAIL, trials, steps.rate), binom.isf(_TAIL, trials, steps.rate)
        counts = np.arange(max(ends[0], 0.0), min(ends[1], trials) + 1)
        weights = binom.pmf(counts, trials, steps.rate)

    def under(c: float) -> float:
        above = float(ndtr((counts - c) / std) @ weights) - delta
        return float(log_ndtr(-c / std)) - math.log(above) if above > 0 else math.inf

    # One peak, where above the threshold delta's share of P begins to weigh.
    nodes = np.linspace(float(counts[0]) - 9 * std, float(counts[-1]) + 9 * std, 200)
    best = int(np.argmin([under(float(c)) for c in nodes]))
    bracket = nodes[max(best - 1, 0)], nodes[min(best + 1, len(nodes) - 1)]
    found = minimize_scalar(under, bounds=bracket, method="bounded", options={"xatol": 1e-9 * std})
    return max(0.0, -float(min(found.fun, under(float(nodes[best])))))
