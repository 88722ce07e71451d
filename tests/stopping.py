"""An adversary who sees the privacy loss of Gaussian steps, and by it chooses what comes next, or to stop.

Each step of noise multiplier s adds N(mu^2 / 2, mu^2) to the loss L, mu = 1 / s, and L is all that a transcript says.
Of whoever stops where an epsilon is told, delta has to cover E_P[(1 - exp(epsilon - L))+]. The largest of that over all
rules follows backwards, by Bellman's equation: at every loss the best of stopping, and of what each possible step leads
to on average. Averages are taken over a grid of losses, on which the closed form is met to half a percent.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
_CELL = 0.002
LOSS_N: Values = np.arange(-1.5, 6.0, _CELL)


def stopped(told: float) -> Values:
    """Return what delta has to cover where it ends now, told this epsilon."""
    covered: Values = np.maximum(0.0, -np.expm1(told - LOSS_N))
    return covered


def before(value_N: Values, noise: float) -> Values:
    """Return the mean of what comes after one more step of such noise."""
    mu = 1 / noise
    reach = math.ceil(9 * mu / _CELL)
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-(((offsets - mu**2 / 2 / _CELL) * _CELL / mu) ** 2) / 2)  # cut off past nine deviations
    padded = np.concatenate([np.zeros(reach), value_N, np.full(reach, value_N[-1])])
    mean: Values = np.convolve(padded, (kernel / kernel.sum())[::-1], "valid")
    return mean


def at_the_start(value_N: Values) -> float:
    """Return the value where nothing was seen yet."""
    return float(np.interp(0.0, LOSS_N, value_N))
