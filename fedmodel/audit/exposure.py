"""Exposure of canaries in the final model: how many bits sooner one that was trained on is guessed, for its loss.

A canary is one of many records that are drawn alike. Whoever guesses among them in the order of the final model's loss,
smallest first, comes to a canary at its rank. Its exposure is the logarithm of how many guesses that spares (Carlini et
al. 2019, section 4.2):

    exposure = log2 of how many records there are - log2 of the canary's rank

The space of all records is too large to be counted through. So a canary is ranked among those canaries of the audit
that were left out by a coin, drawn as it was (section 4.3, approximation by sampling): with O of them, from 0 to
log2(O + 1) bits. Where scores are equal the canary comes last.

Guarantee, of a model that depends on no canary: those that were in are then drawn as those that were out, so each rank
is equally likely, and exposures are `by_chance` on average, or less where scores are equal.

Everything here is an estimate, without confidence, and no bound: a model that exposes nothing to a guess by loss may
still leak to another attack.

Shapes: I canaries that were in, O that were out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmodel.errors import ConfigError


@dataclass(frozen=True)
class Exposure:
    """How exposed canaries are, in bits.

    Attributes:
        mean: Of those that were in.
        largest: Of the most exposed.
        by_chance: What the mean is on average where the model knows nothing of them.
        most: What one of smaller loss than all that were out has.
        canaries: How many were in.
        among: Among how many others each is ranked.
    """

    mean: float
    largest: float
    by_chance: float
    most: float
    canaries: int
    among: int


def exposure(score_I: NDArray[np.float64], score_O: NDArray[np.float64]) -> Exposure:
    """Return how exposed canaries are.

    Args:
        score_I: Minus the final model's loss on each canary that was trained on.
        score_O: On each that was not.

    Raises:
        ConfigError: When there are none of either, or a score is no number, of which no rank is known.

    >>> found = exposure(np.array([4.0, 1.0]), np.array([1.0, 2.0, 3.0]))
    >>> found.largest, found.most, found.mean
    (2.0, 2.0, 1.0)
    """
    if not len(score_I) or not len(score_O) or np.isnan(score_I).any() or np.isnan(score_O).any():
        raise ConfigError("exposure ranks canaries that were in among those that were out: it needs some of both")
    most = math.log2(len(score_O) + 1)
    above_I = len(score_O) - np.searchsorted(np.sort(score_O), score_I, side="left")  # ties are above
    bits_I = most - np.log2(1 + above_I)
    by_chance = most - math.lgamma(len(score_O) + 2) / math.log(2) / (len(score_O) + 1)
    return Exposure(float(bits_I.mean()), float(bits_I.max()), by_chance, most, len(score_I), len(score_O))
