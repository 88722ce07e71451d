"""Intervals that hold at one false alarm in a million.

So far out in the tails an approximation by a normal distribution is off by orders of magnitude. Every interval here is
the exact distribution's, or a Chernoff bound on it, which is wider than exact and never narrower:

    P(X >= x) <= exp(T K(s) - s x) for every s > 0, with K the logarithm of E exp(s V) and X the sum of T such V.

Shapes: T summands, V values of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import beta, binom, norm

_CAP: Final = 25.0  # what one summand of a dispersion counts at most: five standard deviations, squared
_STEEPEST: Final = 1e5  # where a Chernoff bound has come to its limit, the probability of the most extreme outcome


def binomial_interval(trials: int, rate: float, level: float) -> tuple[int, int]:
    """Return the counts between which a binomial lies, but for at most half the level on either side.

    >>> binomial_interval(100, 1.0, 1e-6), binomial_interval(100, 0.5, 0.05)
    ((100, 100), (40, 60))
    """
    if rate >= 1:
        return trials, trials
    return int(binom.ppf(level / 2, trials, rate)), int(binom.isf(level / 2, trials, rate))


def thinned_interval(trials: int, rate: float, std: float, level: float) -> tuple[float, float]:
    """Return between what a binomial count plus N(0, std^2) lies, but for half the level on either side."""
    least, most = binomial_interval(trials, rate, level * 1e-3)  # what is left out counts as an alarm
    counts = np.arange(least, most + 1)
    weights = binom.pmf(counts, trials, rate) if rate < 1 else np.ones(1)
    tail = level / 2 * (1 - 1e-3)
    reach = std * (float(norm.isf(tail)) + 1)
    low = brentq(lambda x: float(weights @ norm.cdf((x - counts) / std)) - tail, least - reach, most + reach)
    high = brentq(lambda x: float(weights @ norm.sf((x - counts) / std)) - tail, least - reach, most + reach)
    return float(low), float(high)


def correlation_limit(pairs: int, level: float) -> float:
    """Return what the correlation of so many independent normal pairs of mean 0 exceeds in size with the level.

    The square of `sum xy / sqrt(sum x^2 sum y^2)` is Beta(1/2, (pairs - 1)/2), whatever the two variances.
    """
    return math.sqrt(float(beta.isf(level, 0.5, (pairs - 1) / 2)))


def chernoff(cumulant: Callable[[float], tuple[float, float]], tail: float, most: float = _STEEPEST) -> float | None:
    """Return a value that the tail beyond, on the side of the sign of `most`, has at most the probability `tail` of.

    Args:
        cumulant: K of the whole sum and its derivative, at s.
        tail: A probability.
        most: The end of s; negative for the lower tail.

    Returns:
        None where even the most extreme outcome is more probable than that, as far as the bound says.
    """

    def excess(s: float) -> float:
        value, slope = cumulant(s)
        return value - s * slope - math.log(tail)

    far = math.copysign(min(1e-6, abs(most) / 2), most)
    while excess(far) > 0:
        if abs(far) >= abs(most):
            return None
        far = math.copysign(min(2 * abs(far), abs(most)), most)
    return cumulant(float(brentq(excess, 0.0, far)))[1]


def dispersion(counts_T: NDArray[np.int64], trials: int, rate: float) -> float:
    """Return the sum of squared standardised counts, none of which counts more than 25."""
    return float(np.minimum(_squares(counts_T, trials, rate), _CAP).sum())


def dispersion_interval(summands: int, trials: int, rate: float, level: float) -> tuple[float | None, float | None]:
    """Return between what `dispersion` of independent binomials lies; None at an end that cannot be left.

    A chi-square would be wrong at a small rate, and at few summands. The distribution of one summand is written out
    instead, and bounded by Chernoff.
    """
    deviation = math.sqrt(trials * rate * (1 - rate))
    least = max(0, math.ceil(trials * rate - math.sqrt(_CAP) * deviation))
    most = min(trials, math.floor(trials * rate + math.sqrt(_CAP) * deviation))
    counts = np.arange(least, most + 1)
    value_V = np.append(np.minimum(_squares(counts, trials, rate), _CAP), _CAP)
    beyond = binom.cdf(least - 1, trials, rate) + binom.sf(most, trials, rate)
    log_V = np.append(binom.logpmf(counts, trials, rate), math.log(max(float(beyond), 1e-300)))

    def cumulant(s: float) -> tuple[float, float]:
        tilted_V = log_V + s * value_V
        total = float(logsumexp(tilted_V))
        return summands * total, summands * float(np.exp(tilted_V - total) @ value_V)

    return chernoff(cumulant, level / 2, -_STEEPEST), chernoff(cumulant, level / 2)


def _squares(counts_T: NDArray[np.int64], trials: int, rate: float) -> NDArray[np.float64]:
    """Return each count's squared distance from its mean, over its variance."""
    away_T = counts_T.astype(np.float64) - trials * rate
    return away_T**2 / (trials * rate * (1 - rate))
