"""What one privacy unit does to one noised sum, when several of its records may fall into the lot.

Of k records, each in the Poisson lot with probability q, j ~ Binomial(k, q) are drawn, and j clipped gradients move
the sum by at most j clips. With the noise N(0, s^2), in units of the clip, neighbours are told apart no better than
Q = N(0, s^2) from the mixture P = sum_j w_j N(j, s^2): Ganesh 2024 (arXiv 2401.10294), after
Choquette-Choo et al. 2024 (arXiv 2310.15526), corollary 4.7. Their log ratio rises with x, in both directions.

Guarantee: `Mixture.error` bounds what floating point takes from or adds to a log ratio. Shifts that are left out of P
are counted in `lost`. dp_accounting offers the same pair (`from_mixture_gaussian_mechanism`), but it finds the
thresholds of its tests to 10^-6 and no better, and none at all at small rates (k = 4, q = 10^-9: a delta of 0 where
1.5 * 10^-9 is true), and it takes a minute where this takes a second.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp, ndtr

from fedmodel.privacy.primitives import SampledGaussian

Floats = NDArray[np.float64]

UNIT: Final = 2.0**-53  # of rounding, relative

_TAIL = 1e-22  # probability beyond which losses count as infinite: over 10^6 steps far below any delta
_DEVIATIONS = 9.8  # of a Gaussian, outside which less than `_TAIL` lies on either side
_BLOCK = 2_000_000  # numbers held at a time


def log_weights(step: SampledGaussian) -> Floats:
    """Return the log of Binomial(k, q) at 0..k, with exact coefficients; at rate 1 nothing but all k are drawn."""
    k = step.records
    if step.rate == 1:
        return np.where(np.arange(k + 1) == k, 0.0, -np.inf)
    drawn, missed = math.log(step.rate), math.log1p(-step.rate)
    return np.array([math.log(math.comb(k, j)) + j * drawn + (k - j) * missed for j in range(k + 1)])


def _weight_errors(step: SampledGaussian) -> Floats:
    """Return how far rounding may move each of `log_weights`."""
    k = step.records
    if step.rate == 1:
        return np.zeros(k + 1)
    drawn, missed = abs(math.log(step.rate)), abs(math.log1p(-step.rate))
    return np.array([(math.log(math.comb(k, j)) + j * drawn + (k - j) * missed + 1) * 4 * UNIT for j in range(k + 1)])


def log_ratio(x: Floats, shifts: Floats, log_weights: Floats, noise: float) -> tuple[Floats, Floats]:
    """Return log(P/Q) at each x, and its slope: convex and rising in x; a ratio close to 1 keeps its digits."""
    value, slope = np.empty_like(x), np.empty_like(x)
    weights = np.exp(log_weights)
    for part in _blocks(x, shifts):
        powers = shifts * (x[part, None] - shifts / 2) / noise**2
        terms = log_weights + powers
        most = terms.max(axis=1)
        parts = np.exp(terms - most[:, None])
        whole = parts.sum(axis=1)
        growth = np.expm1(np.minimum(powers, 700.0)) @ weights
        value[part] = np.where(np.abs(growth) < 0.5, np.log1p(np.maximum(growth, -0.5)), most + np.log(whole))
        slope[part] = parts @ shifts / (whole * noise**2)
    return value, slope


def _blocks(x: Floats, shifts: Floats) -> list[slice]:
    """Cut x into parts whose table over all shifts fits in memory."""
    rows = max(1, _BLOCK // len(shifts))
    return [slice(start, start + rows) for start in range(0, len(x), rows)]


class Mixture:
    """The pair (P, Q) of one step, less shifts of a joint probability below `_TAIL`.

    Left out of P, they become an outcome that Q never has: removing a unit then shows with that probability, and the
    direction of adding one only gains, since less of P weighs against Q.

    Attributes:
        shifts: Those that are kept, in clips.
        weights: Of each, and `log_weights` their logs.
        lost: Probability of those that are not.
        low: Below it lies less than `_TAIL` of Q; `high`: above it lies about `_TAIL` of P.
        nodes: From low to high, and `losses` the log ratio there.
        weight_error: How far rounding may move a weight, relative.
        error: How far rounding may move a log ratio between low and high.
    """

    def __init__(self, step: SampledGaussian) -> None:
        self.noise = step.noise
        every = log_weights(step)
        weights = np.exp(every)
        kept = (np.cumsum(weights) > _TAIL / 2) & (np.cumsum(weights[::-1])[::-1] > _TAIL / 2)
        self.shifts = np.flatnonzero(kept).astype(np.float64)
        self.log_weights, self.weights = every[kept], weights[kept]
        self.lost = float(weights[~kept].sum())
        self.low = -_DEVIATIONS * step.noise
        self.high = self._highest()
        # So dense that the slope of the log ratio hardly changes from one node to the next.
        nodes = 4 * (self.high - self.low) * float(self.shifts[-1]) / step.noise**2
        self.nodes = np.linspace(self.low, self.high, int(min(max(1024.0, nodes), 65_536.0)))
        self.losses = np.maximum.accumulate(self.ratio(self.nodes)[0])
        errors = _weight_errors(step)[kept]
        self.weight_error = float(errors.max())
        self.error = self._ratio_error(errors)

    def ratio(self, x: Floats) -> tuple[Floats, Floats]:
        """Return log(P/Q) at each x, and its slope."""
        return log_ratio(x, self.shifts, self.log_weights, self.noise)

    def threshold(self, losses: Floats) -> Floats:
        """Return x where the log ratio has these values, nearly; they lie between those at both ends.

        Newton's method from the right, where a convex function lies above its tangent and no step goes too far. What
        is still missing is for the caller to measure.
        """
        x = self.nodes[np.minimum(np.searchsorted(self.losses, losses), len(self.nodes) - 1)]
        for _ in range(50):
            value, slope = self.ratio(x)
            moved = np.clip(x - (value - losses) / slope, self.low, self.high)
            done = np.abs(moved - x).max(initial=0.0) <= 1e-8 * self.noise
            x = moved
            if done:
                break
        return x

    @property
    def least(self) -> float:
        """The limit of the log ratio towards minus infinity."""
        return float(self.log_weights[0]) if self.shifts[0] == 0 else -math.inf

    def _highest(self) -> float:
        """Return x above which P has no more than `_TAIL`, nearly."""

        def excess(x: float) -> float:
            return math.log(float(ndtr((self.shifts - x) / self.noise) @ self.weights) / _TAIL)

        # At the right end every part of P has less than that, and so have all of them together.
        end = float(self.shifts[-1]) + _DEVIATIONS * self.noise
        return float(brentq(excess, self.low, end, xtol=1e-3 * self.noise))

    def _ratio_error(self, weight_errors: Floats) -> float:
        """Bound the rounding of a log ratio: the mean of its terms' own, and of a ratio close to 1 less than that."""
        ends = np.array([[self.low], [self.high]])
        powers = self.shifts * (ends - self.shifts / 2) / self.noise**2
        of_a_term = float(((4 * np.abs(powers) + 8) * UNIT + weight_errors).max())
        moving = self.shifts > 0
        most = np.minimum(powers[1, moving], 700.0)
        share = float((self.weights[moving] * (np.exp(most) + 1)).sum())
        return 4 * of_a_term * min(1.0, share)


@lru_cache(maxsize=16)
def mixture(step: SampledGaussian) -> Mixture:
    """Return the pair of a step; kept, since several things are asked of it."""
    return Mixture(step)


@lru_cache(maxsize=256)
def log_moment(step: SampledGaussian, power: float) -> float:
    """Return log E exp(power * loss) of one step, by quadrature: a guard of memory rests on it, no guarantee."""
    if step.rate == 1:
        return power * (1 + power) * step.records**2 / (2 * step.noise**2)
    pair = mixture(step)
    x = pair.nodes
    density = -((x / pair.noise) ** 2) / 2 - math.log(pair.noise * math.sqrt(2 * math.pi)) + math.log(x[1] - x[0])
    return float(logsumexp(density + (1 + power) * pair.losses))


def loss_deviation(step: SampledGaussian) -> float:
    """Return the standard deviation of one step's loss, by quadrature: it chooses a grid, no guarantee."""
    pair = mixture(step)
    x, losses = pair.nodes, pair.losses
    weights = np.exp(-((x / pair.noise) ** 2) / 2 + losses)
    weights /= weights.sum()
    mean = float(weights @ losses)
    return math.sqrt(float(weights @ (losses - mean) ** 2))
