"""What epsilon is at least: a second accountant, to contradict the first where it reads too little.

Any test of neighbours bounds epsilon from below: an event of probability p where the unit is there, and r where it is
not, has p <= e^epsilon r + delta. Two tests are taken, of what all releases of one kind say on one coordinate:

    sum      whether their sum exceeds a threshold: Binomial(T k, q) clips and N(0, T sigma^2), against the noise alone.
             At q = 1 the sum tells all, and the bound is exact (Balle and Wang 2018); for k records of a unit too.
    largest  whether any of them exceeds a threshold: close where a unit is rarely drawn and its noise is small

This module shares no code with what it is held against, from an event's primitives on: which these are is for its
mechanism to say, and a mechanism that says too few is found by neither.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr, ndtr

from fedmodel.privacy.events import Event, bounded

_TAIL: Final = 1e-13  # of counts left out, on either side
_ROUNDING: Final = 1e-9  # of a probability, and of epsilon, inwards: far more than floating point takes or adds
_NODES: Final = 200


class Steps(NamedTuple):
    """Steps of one kind: the rate with which records are drawn, noise multiplier, records of a unit, and how many."""

    rate: float
    noise: float
    records: int
    number: int


def least_epsilon(events: Iterable[Event], delta: float) -> float:
    """Return a lower bound on the epsilon of all events together.

    Guarantee: no (epsilon, delta) with a smaller epsilon holds for them. A composition has no less than one of its
    parts, so the largest bound over the kinds of steps is one. It is infinity where nothing bounds one of them.

    Args:
        events: Of one data set and one unit.
        delta: In (0, 1).
    """
    kinds = merged(events)
    if kinds is None:
        return math.inf
    return max((max(sum_epsilon(one, delta), largest_epsilon(one, delta)) for one in kinds), default=0.0)


def merged(events: Iterable[Event]) -> tuple[Steps, ...] | None:
    """Count the steps of each kind; None where nothing bounds one of them."""
    parts = bounded(events)
    if parts is None:
        return None
    counts: Counter[tuple[float, float, int]] = Counter()
    for (rate, noise, records), count in parts:
        counts[rate, noise, records] += count
    return tuple(Steps(*kind, count) for kind, count in sorted(counts.items()))


@lru_cache(maxsize=256)
def sum_epsilon(steps: Steps, delta: float) -> float:
    """Return a lower bound on epsilon by the best threshold that is found on the sum of all releases.

    >>> round(sum_epsilon(Steps(1.0, 2.0, 1, 1), 1e-5), 3)  # as by Balle and Wang's closed form
    1.993
    """
    std = steps.noise * steps.number**0.5
    counts, weights = _drawn(steps.number * steps.records, steps.rate)

    def bound(c: float) -> float:
        return _bound(float(ndtr((counts - c) / std) @ weights), float(log_ndtr(-c / std)), delta)

    return _best(bound, float(counts[0]) - 9 * std, float(counts[-1]) + 9 * std)


@lru_cache(maxsize=256)
def largest_epsilon(steps: Steps, delta: float) -> float:
    """Return a lower bound on epsilon by the best threshold that is found on the largest of all releases.

    >>> round(largest_epsilon(Steps(1.0, 2.0, 1, 1), 1e-5), 3)  # one release is its own sum
    1.993
    """
    counts, weights = _drawn(steps.records, steps.rate)

    def bound(c: float) -> float:
        above = min(float(ndtr((counts - c) / steps.noise) @ weights), 1.0)
        with_unit = -math.expm1(steps.number * math.log1p(-above)) if above < 1 else 1.0
        # At most the sum over all releases, and as good as that wherever the bound is worth having.
        without = min(math.log(steps.number) + float(log_ndtr(-c / steps.noise)), 0.0)
        return _bound(with_unit, without, delta)

    return _best(bound, float(counts[0]) - 9 * steps.noise, float(counts[-1]) + 9 * steps.noise)


def _drawn(trials: int, rate: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how many records may be drawn, and how probable each number is; what is left out lowers a bound."""
    if rate >= 1:
        return np.array([float(trials)]), np.ones(1)
    from scipy.stats import binom  # a quarter of what every process would import

    ends = binom.ppf(_TAIL, trials, rate), binom.isf(_TAIL, trials, rate)
    counts = np.arange(max(ends[0], 0.0), min(ends[1], trials) + 1)
    return counts, binom.pmf(counts, trials, rate)


def _bound(with_unit: float, log_without: float, delta: float) -> float:
    """Return the least epsilon under which an event may have two such probabilities, rounded down."""
    above = with_unit * (1 - _ROUNDING) - delta
    if above <= 0:
        return 0.0
    found = math.log(above) - log_without
    return max(0.0, found - _ROUNDING * (found + 1) * 0.1)


def _best(bound: Callable[[float], float], low: float, high: float) -> float:
    """Return the largest bound over thresholds that is found; any of them is one."""
    nodes = np.linspace(low, high, _NODES)
    found = [bound(float(node)) for node in nodes]
    best = int(np.argmax(found))
    bracket = nodes[max(best - 1, 0)], nodes[min(best + 1, len(nodes) - 1)]
    refined = minimize_scalar(
        lambda c: -bound(float(c)), bounds=bracket, method="bounded", options={"xatol": 1e-9 * (high - low)}
    )
    return max(found[best], -float(refined.fun))
