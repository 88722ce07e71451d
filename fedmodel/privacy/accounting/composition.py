"""Many steps' privacy loss, composed by Fourier transform, with its numerical error counted outwards.

A transform's error is small beside the largest masses of a composition, and not beside those in its tail, where delta
is read: at 10^6 steps it is 10^-9 or so, which drowns a delta of 10^-12. So each step's measure is first tilted,
multiplied by e^(theta * loss - K): that moves the tail that is asked for into the middle, the error becomes small
beside it, and the tilt is taken off afterwards (Koskela and Honkela 2021 bound such errors another way).

Guarantee: `Composition.delta` is at least the delta of the composed measures at each epsilon. Added are

    rounding   of the transforms. With u = 2^-53, n points and a tilted measure m, the computed transform is off by at
               most 8 u log2(n) of its norm, in L2 (Higham 2002, theorem 24.2, has 7 for radix 2); tests measure it. A
               product of T transforms of norm at most 1 is off by the sum of their errors, and of its own
               multiplications, each at most sqrt(5) u. The L2 norm is kept by the way back, and by Cauchy and Schwarz
               a sum over the result is off by at most that error times the norm of its weights.
    cut        what lies right of the window that is computed, by Chernoff's bound. What lies left of it, or right, is
               wrapped into it: more than nothing, so never too little.
    relative   e^(theta * loss - K) is rounded once in each of T steps; sums over the window are rounded too.

Where these leave nothing of delta, Chernoff's own bound, which needs no transform, is the smaller and is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.linalg.blas import dtbsv
from scipy.optimize import minimize_scalar

from fedmodel.privacy.accounting.cells import LEAST_MASS, Measure
from fedmodel.privacy.accounting.mixture import UNIT, Floats

_TRANSFORM: Final = 8 * UNIT  # of a transform, relative, for each doubling of its length
_PRODUCT: Final = 2.3 * UNIT  # of one multiplication of complex numbers
_OUTSIDE: Final = math.log(1e16)  # of the tilted measure no more than 10^-16 is to lie on either side of the window
_LONGEST: Final = 2**22
_MOST_TILT: Final = 3.0  # for a grid width
_BINS: Final = 2**11
_LEAST_POWER: Final = -200.0


class Part(NamedTuple):
    """A measure, and how often it is taken."""

    measure: Measure
    times: int


class Composition:
    """What some parts give together, computed under one tilt."""

    def __init__(self, parts: Sequence[Part], grid: float, slack: float, tilt: float) -> None:
        """Compose.

        Args:
            parts: On one grid.
            grid: Its width.
            slack: What all parts' slacks add to every finite loss.
            tilt: At least 0. Each is sound, and each is close somewhere: 0 where delta is large.
        """
        self.grid, self.slack, self.tilt = grid, slack, tilt
        tilted = [_tilted(part, grid, tilt) for part in parts]
        self._log_scale = math.fsum(one.times * one.log_mass for one in tilted)
        self._low, length, log_cut = _window(tilted, grid)
        g, self._error = _power(tilted, self._low, length)

        rounding = math.fsum(one.times * one.rounding for one in tilted)
        self._relative = math.exp(rounding + 8 * UNIT * (length + abs(self._log_scale) + 1000))
        self._log_tilted = sum(one.times * math.log(one.total) for one in tilted)
        self._log_total = sum(part.times * math.log(_total(part.measure.mass)) for part in parts)
        infinite = sum(part.times * part.measure.infinite for part in parts)
        self._infinite = infinite * math.exp(min(self._log_total + infinite, 700.0)) * (1 + 1e-9)
        end = (self._low + length) * grid
        self._cut = math.exp(min(self._log_scale - self.tilt * end + log_cut, 700.0)) * self._relative
        # Off with the tilt: masses in the window, and the excess over each point of it, by sums of positive terms.
        losses = _losses(self._low, length, grid)
        masses = np.exp(np.minimum(self._log_scale - self.tilt * losses, 700.0)) * g
        beyond = _discounted(masses[::-1], math.exp(-grid))
        self._excess = np.append(-math.expm1(-grid) * np.cumsum(beyond)[::-1][1:], 0.0)

    @property
    def top(self) -> float:
        """An epsilon above which no more is known than at it."""
        return (self._low + len(self._excess)) * self.grid + self.slack

    def delta(self, epsilons: Floats) -> Floats:
        """Return an upper bound on delta at each epsilon, of any sign, at most 1."""
        losses = epsilons - self.slack
        place = losses / self.grid - self._low
        below = np.clip(np.floor(place), 0, len(self._excess) - 2).astype(np.int64)
        # The excess of atoms is linear in e^epsilon between two of them; left of the window it is at most the chord.
        share = np.clip(np.expm1(np.clip(place - below, 0, 1) * self.grid) / math.expm1(self.grid), 0.0, 1.0)
        found = self._excess[below] * (1 - share) + self._excess[below + 1] * share
        left = np.exp(np.minimum(place, 0.0) * self.grid)
        found = np.where(place < 0, (1 - left) * math.exp(self._log_total) + found * left, found)
        tilted = np.exp(np.minimum(self._log_scale - self.tilt * losses, 700.0)) * self._relative
        transformed = found * self._relative + self.error(epsilons) + self._cut
        chernoff = tilted * math.exp(min(self._log_tilted + _most_excess(self.tilt), 700.0))
        return np.clip(np.minimum(transformed, chernoff) + self._infinite, 0.0, 1.0)

    def error(self, epsilons: Floats) -> Floats:
        """Return how much of each delta is error of the transforms, counted outwards."""
        powers = self._log_scale - self.tilt * (epsilons - self.slack)
        error: Floats = np.exp(np.minimum(powers, 700.0)) * (self._relative * self._norm * self._error)
        return error

    def epsilon(self, delta: float) -> float:
        """Return the least epsilon of at least 0, nearly, whose delta is at most the given one; or infinity."""

        def met(value: float) -> bool:
            return bool(self.delta(np.array([value]))[0] <= delta)

        low, high = 0.0, max(self.top, self.grid)
        if met(low):
            return 0.0
        if not met(high):
            return math.inf
        while high - low > 1e-12 * high:
            middle = (low + high) / 2
            if middle in (low, high):
                break
            low, high = (low, middle) if met(middle) else (middle, high)
        return high

    @property
    def _norm(self) -> float:
        """Bound the L2 norm of e^(-theta x) (1 - e^-x) over the window's x >= 0, a grid width apart.

        A sum over steps of a grid is at most the integral over it and the largest value.
        """
        theta, width = self.tilt, self.grid
        bounds = [float(len(self._excess))]
        if theta > 0:
            bounds += [1 / -math.expm1(-2 * theta * width), 1 / (4 * width * theta**3) + 0.14 / theta**2]
        return math.sqrt(min(bounds))


def _discounted(masses: Floats, factor: float) -> Floats:
    """Return sums over the masses up to each place, every one times the factor for each place that it lies behind.

    They solve (1 - factor shift) sums = masses by forward substitution, as `scipy.signal.lfilter` does, whose import
    would be a quarter of what every process imports.

    >>> _discounted(np.array([1.0, 0.0, 4.0]), 0.5)
    array([1.  , 0.5 , 4.25])
    """
    band = np.empty((2, len(masses)), order="F")
    band[0], band[1] = 1.0, -factor
    sums: Floats = dtbsv(1, band, masses, lower=1, diag=1)
    return sums


class _Tilted(NamedTuple):
    """A part's masses times e^(theta * loss - log_mass): about a probability."""

    first: int
    losses: Floats
    mass: Floats
    times: int
    log_mass: float
    total: float  # an upper bound on their sum
    rounding: float  # of each of them, relative


def _tilted(part: Part, grid: float, theta: float) -> _Tilted:
    """Tilt a part."""
    first, mass, _ = part.measure
    losses = _losses(first, len(mass), grid)
    log_mass = _log_moment(mass, losses, theta)
    # Nowhere less than e^-200, which is too much if anything: what is smaller slows a processor down.
    powers = np.maximum(theta * losses - log_mass, _LEAST_POWER)
    tilted = np.maximum(mass, LEAST_MASS) * np.exp(powers)
    largest = float(np.abs(powers).max()) + abs(log_mass)  # of a product, a sum, and exp of it, all of them rounded
    return _Tilted(first, losses, tilted, part.times, log_mass, _total(tilted), (4 * largest + 16) * UNIT)


def _losses(first: int, number: int, grid: float) -> Floats:
    """Return neighbouring points of the grid."""
    return np.arange(first, first + number, dtype=np.float64) * grid


def _total(mass: Floats) -> float:
    """Return an upper bound on a sum of positive numbers."""
    return float(mass.sum()) * (1 + len(mass) * UNIT)


def _log_moment(mass: Floats, losses: Floats, theta: float) -> float:
    """Return the log of the sum of mass * e^(theta * loss), of numbers that are no less than what a processor likes."""
    powers = theta * losses
    most = float(max(powers[0], powers[-1]))
    whole = float(mass @ np.exp(np.maximum(powers - most, _LEAST_POWER)))
    if whole < 1e-70:  # nearly all is far from the ends
        with np.errstate(divide="ignore"):
            powers = np.log(mass) + powers
        most = float(powers.max())
        whole = float(np.exp(np.maximum(powers - most, _LEAST_POWER)).sum())
    return most + math.log(whole)


def tilt_for(parts: Sequence[Part], grid: float, delta: float) -> float:
    """Return the tilt under which Chernoff's bound at the tilted mean is this delta, below 1."""
    binned = [(part.times, *_binned(part.measure.mass, part.measure.first, grid)) for part in parts]

    def exponent(theta: float) -> float:
        found = 0.0
        for times, mass, losses in binned:
            log_mass = _log_moment(mass, losses, theta)
            mean = float((mass * np.exp(np.maximum(theta * losses - log_mass, _LEAST_POWER))) @ losses)
            found += times * (log_mass - theta * mean)
        return found

    low, high = math.log(1e-3), math.log(_MOST_TILT / grid)
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if exponent(math.exp(middle)) > math.log(delta) else (low, middle)
    return math.exp(low)


def _binned(mass: Floats, first: int, grid: float) -> tuple[Floats, Floats]:
    """Return masses in fewer bins, each at its mean loss: half of them spread evenly, half where most of it lies."""
    losses = _losses(first, len(mass), grid)
    mass = np.maximum(mass, LEAST_MASS)
    places = np.cumsum(mass / mass.sum() + 1 / len(mass)) * (_BINS / 2)
    starts = np.flatnonzero(np.diff(np.floor(places), prepend=-1.0))
    binned = np.add.reduceat(mass, starts)
    return binned, np.add.reduceat(mass * losses, starts) / binned


def _window(tilted: Sequence[_Tilted], grid: float) -> tuple[int, int, float]:
    """Return where a window begins and how long it is, and the log of what of the tilted measure lies right of it."""
    binned = [(one.times, *_binned(one.mass, one.first, grid)) for one in tilted]
    variance = sum(times * float(mass @ (losses - mass @ losses) ** 2) for times, mass, losses in binned)

    def reach(log_power: float, sign: int) -> float:
        power = math.exp(log_power)
        moments = [times * _log_moment(mass, losses, sign * power) for times, mass, losses in binned]
        return (math.fsum(moments) + _OUTSIDE) / power

    scale = -math.log(math.sqrt(variance) + grid)
    ends = scale - 12, scale + 4
    left = minimize_scalar(reach, args=(-1,), bounds=ends, method="bounded", options={"xatol": 0.05})
    right = minimize_scalar(reach, args=(1,), bounds=ends, method="bounded", options={"xatol": 0.05})
    start, last = math.floor(-left.fun / grid) - 1, math.ceil(right.fun / grid) + 2
    length = 2 ** max(4, (last - start - 1).bit_length())
    if length > _LONGEST:
        # The right end is what delta is read off.
        start, length = max(start, last - _LONGEST), _LONGEST
    power = math.exp(right.x)
    moment = math.fsum(one.times * _log_moment(one.mass, one.losses, power) for one in tilted)
    rounding = 1e-9 + 4 * UNIT * sum(one.times * len(one.mass) for one in tilted)
    return start, length, moment - power * (start + length) * grid + rounding


def _power(tilted: Sequence[_Tilted], low: int, length: int) -> tuple[Floats, float]:
    """Return the tilted masses in the window, and a bound on the L2 norm of their error."""
    spectrum = np.ones(length // 2 + 1, dtype=np.complex128)
    offset, transform = 0, _TRANSFORM * math.log2(length)
    growth = error = largest = 0.0
    for one in tilted:
        rows = -(-len(one.mass) // length)
        folded = np.pad(one.mass, (0, rows * length - len(one.mass))).reshape(rows, length).sum(axis=0)
        spectrum = spectrum * _to_the(fft.rfft(folded), one.times)
        offset += one.times * one.first
        norm = float(np.linalg.norm(folded)) * (1 + length * UNIT)
        error += one.times * (transform + _PRODUCT + rows * UNIT) * norm
        growth += one.times * math.log(one.total + transform * math.sqrt(length) * norm)
        largest = max(largest, norm)
    masses = fft.irfft(spectrum, length)
    error = (error + (transform + _PRODUCT) * largest) * math.exp(growth) * 1.01
    return np.roll(masses, -((low - offset) % length)), error


def _to_the(base: NDArray[np.complex128], power: int) -> NDArray[np.complex128]:
    """Return a power by squaring: as many roundings as a product of so many factors has, or fewer."""
    result = base
    for bit in bin(power)[3:]:
        result = result * result
        if bit == "1":
            result = result * base
    return result


def _most_excess(theta: float) -> float:
    """Return the log of the largest e^(-theta x) (1 - e^-x) over x >= 0."""
    return theta * math.log(theta) - (1 + theta) * math.log1p(theta) if theta > 0 else 0.0
