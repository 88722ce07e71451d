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
from fedmodel.mechanisms import LEAST_DELTA, LEAST_NOISE, LEAST_RATE, MOST_NOISE, MOST_STEPS, DpSgdEvent

ACCOUNTANT = "pld"
FINE_GRID = 1e-4
COARSE_GRID = 1e-3

_LARGEST_LOSS = 1_000.0  # Rényi divergence of order 2 past which a privacy loss distribution may outgrow memory
_TOLERANCE = 1e-4  # of the noise multiplier, relative


def epsilon(events: Iterable[DpSgdEvent], delta: float, grid: float = FINE_GRID) -> float:
    """Return an upper bound on epsilon for all the events together.

    Args:
        events: What was run on one data set, in any order.
        delta: In (0, 1).
        grid: Width of the discretisation of privacy loss. `COARSE_GRID` is several times faster and slightly higher.

    Returns:
        Epsilon, 0 for no events; infinity past an order-2 Rényi divergence of 1,000, where none is computed
        though one may hold.

    Raises:
        ConfigError: When delta is out of range.
    """
    if not LEAST_DELTA <= delta < 1:
        raise ConfigError(f"delta = {delta} is out of range; it lies between {LEAST_DELTA:g} and 1")
    steps: Counter[tuple[float, float]] = Counter()
    for event in events:
        steps[event.sample_rate, event.noise_multiplier] += event.steps
    if sum(_order_two(rate, noise) * count for (rate, noise), count in steps.items()) > _LARGEST_LOSS:
        return math.inf  # an upper bound all the same, and no memory is spent on its tail
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
        A multiplier s of at least `LEAST_NOISE` with `epsilon(s) <= target_epsilon`, computed on the fine grid.

    Raises:
        ConfigError: When an argument is out of range, or no multiplier up to 10^6 meets the target.
    """
    _check_ranges(target_epsilon, sample_rate, steps)

    def excess(log_noise: float, grid: float) -> float:
        spent = epsilon([_event(math.exp(log_noise), sample_rate, steps)], delta, grid)
        # Kept off 0 and infinity, which a root finder cannot use; neither end is ever near a target.
        return math.log(min(max(spent, 1e-12), 1e12) / target_epsilon)

    # `low` stays where the target is missed, `high` where it is met.
    least = math.log(LEAST_NOISE)
    low, high = least, 0.0
    while excess(high, COARSE_GRID) > 0:
        low, high = high, high + 1
        if high > math.log(MOST_NOISE):
            raise ConfigError(
                f"no noise multiplier up to {MOST_NOISE:g} gives epsilon {target_epsilon:g} at delta {delta:g}"
                f" over {steps} steps; ask for a larger epsilon or fewer steps"
            )
    if excess(least, COARSE_GRID) <= 0:
        return LEAST_NOISE
    # Epsilon is nearly a power of the noise, so in logarithms nearly a line. The coarse grid brackets the answer from
    # above, since it is the higher bound; the fine grid's lies a little beneath.
    high = brentq(excess, low, high, args=(COARSE_GRID,), xtol=_TOLERANCE) + _TOLERANCE
    low = max(high - 0.01, least)
    while excess(low, FINE_GRID) <= 0:
        if low == least:
            return LEAST_NOISE
        low, high = max(low - 0.1, least), low
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


def _order_two(sample_rate: float, noise: float) -> float:
    """Return one step's Rényi divergence of order 2 (Mironov, Talwar and Zhang 2019, section 3.3), exactly."""
    return math.log1p(sample_rate**2 * math.expm1(1 / noise**2))


def _event(noise: float, sample_rate: float, steps: int) -> DpSgdEvent:
    return DpSgdEvent(noise, max_grad_norm=1.0, sample_rate=sample_rate, steps=steps, denominator=1)


def _check_ranges(target_epsilon: float, sample_rate: float, steps: int) -> None:
    if not 0 < target_epsilon < math.inf:
        raise ConfigError(f"epsilon = {target_epsilon} is out of range; it is a positive number")
    if not LEAST_RATE <= sample_rate <= 1:
        raise ConfigError(f"sample rate = {sample_rate} is out of range; it lies between {LEAST_RATE:g} and 1")
    if not 1 <= steps <= MOST_STEPS:
        raise ConfigError(f"steps = {steps} is out of range; from 1 to {MOST_STEPS} are accounted for")
