"""From events to (epsilon, delta), and from a target back to a noise multiplier.

Guarantee: `epsilon` returns an upper bound on the epsilon of running the given events on one data set, at the given
delta, when neighbours differ by adding or removing one record. It composes privacy loss distributions (Koskela et al.
2020; Doroshenko et al. 2022) that are discretised pessimistically, so a coarser grid only raises the answer.

What it does NOT cover: events that are chosen by looking at earlier releases (adaptive choice of the mechanisms
themselves, as opposed to their inputs), replace-one neighbours, groups of records, several records of one person.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import dp_accounting
from dp_accounting.pld import pld_privacy_accountant
from scipy.optimize import brentq

from fedmodel.config import SiloPlan
from fedmodel.errors import ConfigError
from fedmodel.mechanisms import DpSgdEvent

ACCOUNTANT = "pld"
FINE_GRID = 1e-4
COARSE_GRID = 1e-3

_LOWEST_NOISE = 0.2  # below this a sampled Gaussian's epsilon is in the hundreds: no claim worth making
_HIGHEST_NOISE = 1e6
_TOLERANCE = 1e-4  # of the noise multiplier, relative


def epsilon(events: Iterable[DpSgdEvent], delta: float, grid: float = FINE_GRID) -> float:
    """Return an upper bound on epsilon for all the events together.

    Args:
        events: What was run on one data set, in any order.
        delta: In (0, 1).
        grid: Width of the discretisation of privacy loss. `COARSE_GRID` is several times faster and slightly higher.

    Returns:
        Epsilon, 0 for no events; infinity where no finite epsilon holds at this delta.

    Raises:
        ConfigError: When delta is out of range.
    """
    if not 0 < delta < 1:
        raise ConfigError(f"delta = {delta} is out of range; it lies strictly between 0 and 1")
    steps: Counter[tuple[float, float]] = Counter()
    for event in events:
        steps[event.sample_rate, event.noise_multiplier] += event.steps
    return _compose(tuple(sorted(steps.items())), delta, grid)


def noise_multiplier(plan: SiloPlan) -> float:
    """Return the noise that a plan needs: as declared, or calibrated to its target over all planned steps."""
    if plan.noise_multiplier is not None:
        return plan.noise_multiplier
    if plan.epsilon is None:
        raise ConfigError(f"silo {plan.silo!r} has neither a noise multiplier nor a target epsilon")
    return calibrate(plan.epsilon, plan.delta, plan.sample_rate, plan.steps)


@lru_cache(maxsize=256)
def calibrate(target_epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return the least noise multiplier, to one part in 10^4, whose epsilon over the steps is at most the target.

    Args:
        target_epsilon: Above 0.
        delta: In (0, 1).
        sample_rate: Poisson rate in (0, 1].
        steps: At least 1.

    Returns:
        A multiplier s with `epsilon(s) <= target_epsilon` as `epsilon` computes it on the fine grid.

    Raises:
        ConfigError: When an argument is out of range, or no multiplier up to 10^6 meets the target.
    """
    _check_ranges(target_epsilon, sample_rate, steps)

    def excess(log_noise: float, grid: float) -> float:
        spent = epsilon([_event(math.exp(log_noise), sample_rate, steps)], delta, grid)
        # Kept off 0 and infinity, which a root finder cannot use; neither end is ever near a target.
        return math.log(min(max(spent, 1e-12), 1e12) / target_epsilon)

    low, high = math.log(_LOWEST_NOISE), 0.0
    while excess(high, COARSE_GRID) > 0:
        low, high = high, high + 1
        if high > math.log(_HIGHEST_NOISE):
            raise ConfigError(
                f"no noise multiplier up to {_HIGHEST_NOISE:g} gives epsilon {target_epsilon:g} at delta {delta:g}"
                f" over {steps} steps; ask for a larger epsilon or fewer steps"
            )
    if excess(low, COARSE_GRID) <= 0:
        return _LOWEST_NOISE
    # Epsilon is nearly a power of the noise, so in logarithms nearly a line. The coarse grid brackets the answer from
    # above, since it is the higher bound; the fine grid's lies a little beneath.
    high = brentq(excess, low, high, args=(COARSE_GRID,), xtol=_TOLERANCE) + _TOLERANCE
    low = high - 0.01
    while excess(low, FINE_GRID) <= 0:
        low, high = low - 0.1, low
    log_noise = brentq(excess, low, high, args=(FINE_GRID,), xtol=_TOLERANCE)
    while excess(log_noise, FINE_GRID) > 0:
        log_noise += _TOLERANCE
    return math.exp(log_noise)


@lru_cache(maxsize=4096)
def _compose(steps: tuple[tuple[tuple[float, float], int], ...], delta: float, grid: float) -> float:
    """Compose privacy loss distributions; cached, since silos that run alike ask alike."""
    accountant = pld_privacy_accountant.PLDAccountant(
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=grid
    )
    for (sample_rate, noise), count in steps:
        event: dp_accounting.DpEvent = dp_accounting.GaussianDpEvent(noise)
        if sample_rate < 1:
            event = dp_accounting.PoissonSampledDpEvent(sample_rate, event)
        accountant.compose(event, count)
    return float(accountant.get_epsilon(delta))


def _event(noise: float, sample_rate: float, steps: int) -> DpSgdEvent:
    return DpSgdEvent(noise, max_grad_norm=1.0, sample_rate=sample_rate, steps=steps, denominator=1)


def _check_ranges(target_epsilon: float, sample_rate: float, steps: int) -> None:
    if not 0 < target_epsilon < math.inf:
        raise ConfigError(f"epsilon = {target_epsilon} is out of range; it is a positive number")
    if not 0 < sample_rate <= 1:
        raise ConfigError(f"sample rate = {sample_rate} is out of range; it lies in (0, 1]")
    if steps < 1:
        raise ConfigError(f"steps = {steps} is out of range; at least one is taken")
