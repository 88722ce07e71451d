"""A Gaussian release of sensitivity mu, in units of its noise: delta and epsilon in closed form.

Balle and Wang 2018 (arXiv 1805.06530), theorem 8: delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon
Phi(-mu/2 - epsilon/mu), in both directions. Full lots compose to one such release (Dong, Roth and Su 2022).

Guarantee: each figure is an upper bound, floating point included: what rounding may take from the difference of the two
terms is added to it.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr, ndtr

from fedmodel.privacy.accounting.mixture import UNIT, Floats


def delta(mu: float, epsilons: Floats) -> Floats:
    """Return delta at each epsilon of at least 0, at most 1.

    >>> round(float(delta(1.0, np.array([1.0]))[0]), 6)
    0.126937
    """
    upper, lower = mu / 2 - epsilons / mu, -mu / 2 - epsilons / mu
    first, second = ndtr(upper), np.exp(epsilons + log_ndtr(lower))
    # Of Phi, of its log and of both arguments: as `fedmodel.privacy.accounting.cells` bounds them, of the larger
    # argument.
    rounding = UNIT * (32 + 16 * np.minimum(np.abs(lower), 1e6) ** 2 + 8 * epsilons)
    # And of what is too small for a double.
    found: Floats = np.clip(first - second + rounding * (first + second) + 1e-300, 0.0, 1.0)
    return found


def epsilon(mu: float, target: float) -> float:
    """Return the least epsilon of at least 0, nearly, whose delta is at most the target.

    >>> round(epsilon(1.0, 1e-5), 3)
    4.377
    """

    def met(value: float) -> bool:
        return bool(delta(mu, np.array([value]))[0] <= target)

    if met(0.0):
        return 0.0
    low, high = 0.0, 1e-9
    while not met(high):
        low, high = high, 2 * high
        if high > 1e12:
            return math.inf
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if met(middle) else (middle, high)
    return high
