"""What one privacy unit does to one noised sum, when several of its records may fall into the lot.

Of k records, each in the Poisson lot with probability q, j ~ Binomial(k, q) are drawn, and j clipped gradients move
the sum by at most j clips. With the noise N(0, s^2), in units of the clip, neighbours are told apart no better than
Q = N(0, s^2) from the mixture P = sum_j w_j N(j, s^2): Ganesh 2024 (arXiv 2401.10294), after
Choquette-Choo et al. 2024 (arXiv 2310.15526), corollary 4.7. Their log ratio rises with x, so half lines are the best
tests, in both directions.

Guarantee: the discretised distribution dominates the pair (P, Q) in each direction. Shifts that are left out count as
losses without bound. dp_accounting offers the same (`from_mixture_gaussian_mechanism`), but it finds the thresholds of
those tests to 10^-6 and no better, on the low side, and none at all at small rates (k = 4, q = 10^-9: a delta of 0
where 1.5 * 10^-9 is true), and it takes a minute where this takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from dp_accounting.pld import pld_pmf, privacy_loss_distribution
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp, ndtr

Floats = NDArray[np.float64]

_TAIL = 1e-22  # probability beyond which losses count as infinite: over 10^6 steps far below any delta
_DEVIATIONS = 9.8  # of a Gaussian, outside which less than `_TAIL` lies on either side
_BLOCK = 2_000_000  # numbers held at a time


class Step(NamedTuple):
    """One noised sum: the Poisson rate, the noise multiplier and the most records of one unit."""

    rate: float
    noise: float
    records: int


def log_weights(step: Step) -> Floats:
    """Return the log of Binomial(k, q) at 0..k, for a rate below 1; with exact coefficients."""
    drawn, missed = math.log(step.rate), math.log1p(-step.rate)
    k = step.records
    return np.array([math.log(math.comb(k, j)) + j * drawn + (k - j) * missed for j in range(k + 1)])


def log_ratio(x: Floats, shifts: Floats, log_weights: Floats, noise: float) -> tuple[Floats, Floats]:
    """Return log(P/Q) at each x, and its slope: convex and rising in x."""
    value, slope = np.empty_like(x), np.empty_like(x)
    for part in _blocks(x, shifts):
        terms = log_weights + shifts * (x[part, None] - shifts / 2) / noise**2
        most = terms.max(axis=1)
        parts = np.exp(terms - most[:, None])
        whole = parts.sum(axis=1)
        value[part] = most + np.log(whole)
        slope[part] = parts @ shifts / (whole * noise**2)
    return value, slope


def _blocks(x: Floats, shifts: Floats) -> list[slice]:
    """Cut x into parts whose table over all shifts fits in memory."""
    rows = max(1, _BLOCK // len(shifts))
    return [slice(start, start + rows) for start in range(0, len(x), rows)]


class Mixture:
    """The pair (P, Q) of one step at a rate below 1, less shifts of a joint probability below `_TAIL`.

    Left out of P, they become an outcome that Q never has: removing a unit then shows with that probability, and the
    direction of adding one only gains, since less of P weighs against Q.
    """

    def __init__(self, step: Step) -> None:
        self.noise = step.noise
        every = log_weights(step)
        weights = np.exp(every)
        kept = (np.cumsum(weights) > _TAIL / 2) & (np.cumsum(weights[::-1])[::-1] > _TAIL / 2)
        self.shifts = np.flatnonzero(kept).astype(np.float64)
        self.log_weights = every[kept]
        self.lost = float(weights[~kept].sum())
        self.low = -_DEVIATIONS * step.noise
        self.high = self._highest()
        # So dense that the slope of the log ratio hardly changes from one node to the next.
        nodes = 4 * (self.high - self.low) * float(self.shifts[-1]) / step.noise**2
        self.nodes = np.linspace(self.low, self.high, int(min(max(1024.0, nodes), 65_536.0)))
        self.losses = self.ratio(self.nodes)[0]

    def ratio(self, x: Floats) -> tuple[Floats, Floats]:
        """Return log(P/Q) at each x, and its slope."""
        return log_ratio(x, self.shifts, self.log_weights, self.noise)

    def threshold(self, losses: Floats) -> Floats:
        """Return x where the log ratio has these values; at the end of the table where it ends before.

        Newton's method from the right, where a convex function lies above its tangent and no step goes too far. Its
        error squares at each step, and a threshold that is off by d costs a test d^2 of its power: after a step of
        10^-6 deviations no more than 10^-20.
        """
        x = self.nodes[np.minimum(np.searchsorted(self.losses, losses), len(self.nodes) - 1)]
        for _ in range(50):
            value, slope = self.ratio(x)
            moved = np.maximum(x - (value - losses) / slope, self.low)
            done = np.abs(moved - x).max() <= 1e-6 * self.noise
            x = moved
            if done:
                break
        return x

    def remove(self, epsilons: Floats) -> Floats:
        """Return delta of telling P from Q: P(x > t) - e^epsilon Q(x > t) at the best threshold."""
        # Where the loss is everywhere more than epsilon, all of it counts.
        x = self.threshold(epsilons)
        delta = self._above(x) - np.exp(epsilons + log_ndtr(-x / self.noise))
        return np.where(epsilons <= self._least(), -np.expm1(epsilons), delta) + self.lost

    def add(self, epsilons: Floats) -> Floats:
        """Return delta of telling Q from P: Q(x < u) - e^epsilon P(x < u) at the best threshold."""
        x = self.threshold(-epsilons)
        delta = ndtr(x / self.noise) - self._below(x, epsilons)
        # Beyond the table lies less than `_TAIL`.
        return np.maximum(np.where(-epsilons <= self._least(), 0.0, delta), _TAIL)

    def _least(self) -> float:
        """Return the limit of the log ratio towards minus infinity."""
        return float(self.log_weights[0]) if self.shifts[0] == 0 else -math.inf

    def _above(self, x: Floats) -> Floats:
        """Return P(X > x)."""
        weights = np.exp(self.log_weights)
        sums = [ndtr((self.shifts - x[part, None]) / self.noise) @ weights for part in _blocks(x, self.shifts)]
        return np.concatenate(sums)

    def _below(self, x: Floats, epsilons: Floats) -> Floats:
        """Return e^epsilon P(X < x), at most 1 where it is used though its first factor may overflow."""
        sums = []
        for part in _blocks(x, self.shifts):
            tails = self.log_weights + log_ndtr((x[part, None] - self.shifts) / self.noise)
            sums.append(np.exp(epsilons[part, None] + tails).sum(axis=1))
        return np.concatenate(sums)

    def _highest(self) -> float:
        """Return x above which P has no more than `_TAIL`, nearly."""

        def excess(x: float) -> float:
            return math.log(float(self._above(np.array([x]))[0]) / _TAIL)

        # At the right end every part of P has less than that, and so have all of them together.
        end = float(self.shifts[-1]) + _DEVIATIONS * self.noise
        return float(brentq(excess, self.low, end, xtol=1e-3 * self.noise))


@lru_cache(maxsize=16)
def mixture(step: Step) -> Mixture:
    """Return the pair of a step; kept, since several things are asked of it."""
    return Mixture(step)


@lru_cache(maxsize=256)
def log_moment(step: Step, power: float) -> float:
    """Return log E exp(power * loss) of one step, by quadrature: a guard of memory rests on it, no guarantee."""
    if step.rate == 1:
        return power * (1 + power) * step.records**2 / (2 * step.noise**2)
    pair = mixture(step)
    x = pair.nodes
    density = -((x / pair.noise) ** 2) / 2 - math.log(pair.noise * math.sqrt(2 * math.pi)) + math.log(x[1] - x[0])
    return float(logsumexp(density + (1 + power) * pair.losses))


def mixture_pld(step: Step, grid: float) -> privacy_loss_distribution.PrivacyLossDistribution:
    """Return the step's privacy loss distribution on a grid, by connecting the dots of its two curves of delta.

    Doroshenko et al. 2022, algorithm 1: between two points of the grid delta is at most the chord, and past the last
    point all that is left counts as infinite.
    """
    pair = mixture(step)
    top = float(pair.losses[-1])
    return privacy_loss_distribution.PrivacyLossDistribution(
        _pmf(pair.remove, float(pair.losses[0]), top, grid),
        _pmf(pair.add, -top, -float(pair.losses[0]), grid),
    )


def _pmf(delta: Callable[[Floats], Floats], low: float, high: float, grid: float) -> pld_pmf.PLDPmf:
    first, last = math.floor(low / grid), math.ceil(high / grid)
    curve = np.clip(delta(np.arange(first, last + 1, dtype=np.float64) * grid), 0.0, 1.0)
    # Rounding may make a curve rise by a last digit; it never truly does.
    curve = np.maximum.accumulate(curve[::-1])[::-1]
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(grid, first, last, curve)
