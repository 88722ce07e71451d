"""The Gaussian trade-off curve, mu-GDP of Dong, Roth and Su 2019 (arXiv 1905.02383): epsilon and delta read off it."""

from __future__ import annotations

import math
from statistics import NormalDist

from scipy.optimize import brentq
from scipy.special import log_ndtr

from fedmodel.audit.arguments import check_at_least_0
from fedmodel.errors import ConfigError

_NORMAL = NormalDist()


def gdp_delta(mu: float, epsilon: float) -> float:
    """Return the least delta of mu-GDP at an epsilon.

    Balle and Wang 2018 (arXiv 1805.06530), theorem 8, with mu = sensitivity / standard deviation; Dong, Roth and Su
    2019, corollary 2.13.

    >>> round(gdp_delta(1.0, 1.0), 6)
    0.126937

    Args:
        mu: At least 0.
        epsilon: At least 0.

    Returns:
        Delta, in [0, 1].

    Raises:
        ConfigError: When mu or epsilon is out of range.
    """
    check_at_least_0("mu", mu)
    check_at_least_0("epsilon", epsilon)
    if mu == 0:
        return 0.0
    high = float(log_ndtr(mu / 2 - epsilon / mu))
    low = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    # By logarithms: e^epsilon alone overflows, and the two may differ in their last digits only.
    return 0.0 if high < -745 else math.exp(high) * -math.expm1(min(0.0, low - high))


def gdp_epsilon(mu: float, delta: float) -> float:
    """Return the least epsilon of mu-GDP at a delta: `gdp_delta` the other way round, 0 where delta is enough for 0.

    >>> round(gdp_epsilon(1.0, 1e-5), 4)
    4.3772

    Args:
        mu: At least 0.
        delta: In (0, 1); mu-GDP has no epsilon at delta 0.

    Returns:
        Epsilon, in nats.

    Raises:
        ConfigError: When mu or delta is out of range.
    """
    if not 0 < delta < 1:
        raise ConfigError(f"delta = {delta} is out of range; an epsilon of mu-GDP needs one between 0 and 1")
    if gdp_delta(mu, 0.0) <= delta:
        return 0.0
    enough = mu * (mu / 2 - _NORMAL.inv_cdf(delta))  # where the first of the two terms alone is delta
    return float(brentq(lambda epsilon: gdp_delta(mu, epsilon) - delta, 0.0, enough, xtol=1e-12))
