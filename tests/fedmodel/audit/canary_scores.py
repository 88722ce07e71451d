"""Scores of canaries that a Gaussian mechanism released, for tests of what is made of scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from fedmodel.audit.gdp import gdp_epsilon


def gaussian_run(rng: np.random.Generator, canaries: int, mu: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A Gaussian mechanism's scores, and the coins."""
    coins = rng.random(canaries) < 0.5
    return rng.normal(size=canaries) + mu * coins, coins


def mu_of(epsilon: float, delta: float) -> float:
    return float(optimize.brentq(lambda mu: gdp_epsilon(mu, delta) - epsilon, 1e-3, 50))
