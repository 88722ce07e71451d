"""One step's privacy loss on a grid, as a measure that dominates it: by connecting the dots, cell by cell.

Doroshenko et al. 2022 (arXiv 2207.04380): of all that is released with a loss between two points of the grid, the two
probabilities p and q, with and without the unit, are kept, and put on the two points. That dominates what stood there:
for every g >= 0 the excess of p over g q only grows (it is convex in g, and the two points' is the chord).

Guarantee, floating point included: let M be a `Measure`, its atoms at (first + i) * grid + slack. For every real
epsilon, M(infinity) + sum over atoms of mass * (1 - e^(epsilon - loss))_+ is at least delta(epsilon) of the step. M may
weigh a little more than 1: a measure that dominates need not be a probability, and dominating measures compose.

It rests on two errors that tests measure: of `scipy.special.ndtr`, at most `_tail_error`, and of what numpy computes
of exp and log, at most four units in the last place.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from scipy.special import ndtr

from fedmodel.privacy.accounting.mixture import UNIT, Floats, Mixture, mixture
from fedmodel.privacy.primitives import SampledGaussian

LEAST_MASS: Final = 1e-150  # of an atom: what is smaller slows a processor down, and more is only an upper bound


class Measure(NamedTuple):
    """Masses on a grid of losses: of `first` grid widths and up, and of a loss without bound."""

    first: int
    mass: Floats
    infinite: float


class Discrete(NamedTuple):
    """A step's two directions, and what is to be added to each of their losses."""

    remove: Measure
    add: Measure
    slack: float


class _Masses(NamedTuple):
    """Bounds on one distribution's mass in each cell, and left and right of them all."""

    upper: Floats
    lower: Floats
    left: float
    right: float


@lru_cache(maxsize=16)
def discretise(step: SampledGaussian, grid: float) -> Discrete:
    """Return the measures of a step on multiples of `grid`.

    The cells are cut where the log ratio, as computed, is a multiple of the grid. The true one is off by at most
    `slack`: so a cell's losses lie between its points less slack and plus slack, the atoms are raised by slack, and
    the share of the upper one by what at most 2 slack can add to it.
    """
    pair = mixture(step)
    first = math.floor(pair.losses[0] / grid)
    last = max(math.ceil(pair.losses[-1] / grid), first + 1)
    points = np.arange(first, last + 1, dtype=np.float64) * grid
    inner = np.maximum.accumulate(pair.threshold(points[1:-1]))
    missed = float(np.abs(pair.ratio(inner)[0] - points[1:-1]).max(initial=0.0))
    slack = pair.error + missed
    # Where the log ratio never falls under the first point, nothing lies left of the first cell.
    edges = np.concatenate([[-math.inf if pair.least >= points[0] else pair.low], inner, [pair.high]])
    with_unit = _masses(edges, pair, pair.shifts, pair.weights)
    without = _masses(edges, pair, np.zeros(1), np.ones(1))

    removed = np.zeros(len(points))
    low, high = _split(with_unit.upper, without.lower, points[:-1], grid, slack)
    removed[:-1] += low
    removed[1:] += high
    removed[1] += with_unit.left
    added = np.zeros(len(points))
    low, high = _split(without.upper, with_unit.lower, -points[1:], grid, slack)
    added[1:] += low
    added[:-1] += high
    added[-2] += without.right
    rounded = 1 + 16 * UNIT
    lost = pair.lost * (1 + 2 * pair.weight_error)
    return Discrete(
        Measure(first, removed * rounded, (with_unit.right + lost) * rounded),
        Measure(-last, added[::-1] * rounded, without.left * rounded),
        slack * rounded,
    )


def _split(many: Floats, few: Floats, low: Floats, grid: float, slack: float) -> tuple[Floats, Floats]:
    """Return what a cell's lower and upper point get, from an upper and a lower bound on its two masses."""
    rounding = 2.1 * slack + 8 * UNIT * (1 + np.abs(low))
    upper = np.clip((many * (1 + rounding) - np.exp(np.minimum(low, 700.0)) * few) / -math.expm1(-grid), 0.0, many)
    return many - upper, upper


def _masses(edges: Floats, pair: Mixture, shifts: Floats, weights: Floats) -> _Masses:
    """Return bounds on the mass of a mixture between each two edges; of a cell the smaller tails are subtracted."""
    mass, error = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    left = right = 0.0
    for shift, weight in zip(shifts, weights, strict=True):
        z = (edges - shift) / pair.noise
        tail = ndtr(-np.abs(z))
        off = tail * _tail_error(z)
        signed = np.where(z <= 0, tail, -tail)
        middle = (z[:-1] <= 0) & (z[1:] > 0)
        mass += weight * (signed[1:] - signed[:-1] + middle)
        error += weight * (off[1:] + off[:-1] + 4 * UNIT * middle)
        left += weight * float(ndtr(z[0]))
        right += weight * float(ndtr(-z[-1]))
    # Of sums of so many terms, of the weights, and of a tail that is too small for a double.
    relative = pair.weight_error + (len(shifts) + 4) * UNIT
    error += np.abs(mass) * relative + LEAST_MASS
    ends = 1 + relative + float(_tail_error(np.array([50.0]))[0])
    return _Masses(np.maximum(mass + error, 0.0), np.maximum(mass - error, 0.0), left * ends, right * ends)


def _tail_error(z: Floats) -> Floats:
    """Bound the relative error of a Gaussian's tail at z, the rounding of z with it."""
    return (16 + 8 * np.minimum(np.abs(z), 50.0) ** 2) * UNIT
