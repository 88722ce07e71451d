"""What no bound can be computed of is refused in one line: scores, coins, deltas and significances."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedmodel.errors import ConfigError


def scored(scores_M: ArrayLike, coins_M: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores and coins as arrays of one length, or refuse them."""
    scores, coins = group("canaries'", scores_M), np.asarray(coins_M)
    if coins.dtype != np.bool_ or coins.shape != scores.shape:
        raise ConfigError(
            f"{scores.size} scores and {coins.size} coins of type {coins.dtype}; there is one boolean coin a score"
        )
    if coins.all() or not coins.any():
        raise ConfigError(f"all {coins.size} coins are alike, so there is nothing to tell apart; use more canaries")
    return scores, coins


def group(name: str, scores: ArrayLike) -> NDArray[np.float64]:
    """Return scores as an array, or refuse them."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ConfigError(
            f"{name} scores of shape {array.shape} are of no use; they are a list of finite numbers, not empty"
        )
    return array


def check_at_least_0(name: str, value: float) -> None:
    """Refuse what is negative, infinite or not a number."""
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} = {value} is out of range; it is at least 0 and finite")


def check_delta(delta: float) -> None:
    """Refuse a delta outside [0, 1)."""
    if not 0 <= delta < 1:
        raise ConfigError(f"delta = {delta} is out of range; it is at least 0 and less than 1")


def check_significance(significance: float) -> None:
    """Refuse a significance outside (0, 1)."""
    if not 0 < significance < 1:
        raise ConfigError(f"significance = {significance} is out of range; it lies between 0 and 1")
