"""Rényi divergences at one order, for plans that are chosen by looking at earlier releases.

Epsilons of an adaptively chosen plan may not be read off a composition, since the composition depends on what was
released. Rényi divergences at one order may be added up and stopped at a cap: as long as their sum stays within it, the
whole is as private as the cap says, however each plan was chosen (Feldman and Zrnic 2021; Lécuyer 2021).
Epsilons have no such rule here, and nothing in this module adds them.

Guarantee: `renyi` bounds the divergence of adding and of removing one privacy unit from above, floating point included.
What is added for it is a hundred times what it takes where a unit is one record. Where it is more, the larger direction
was measured against long integers, at 1,000 records of order 8 and at 100 of order 64: there it is 40 times and more.
At rate 1, and in `renyi_room`, a figure is rounded a few times, by less than 10^-12 of it. That order, epsilon and
delta are fixed before anything is released is for the caller to see to.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import log_ndtr, logsumexp

from fedmodel.errors import ConfigError
from fedmodel.privacy.accounting.mixture import Floats, log_ratio, log_weights
from fedmodel.privacy.events import LEAST_DELTA, Event, bounded
from fedmodel.privacy.primitives import SampledGaussian

_LEAST_ORDER, _MOST_ORDER = 2, 256
_CELLS = 4_096
_MOST_SHIFTS = 8_192  # of a sum of shifts; the square of it is work
_ROWS = 256

# More than floating point takes away: relative to a divergence, and of one step.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12


def renyi(event: Event, order: int) -> float:
    """Return an upper bound on the Rényi divergence of all the event's steps, in both directions.

    One record in a unit: Mironov, Talwar and Zhang 2019 (arXiv 1908.10530), section 3.3, which theorem 5 there shows to
    be the larger direction. More: the mixture of `fedmodel.privacy.accounting.mixture`, a closed form in one direction
    and a close upper bound in the other. Of 1,000 records at high orders, shifts are rounded up, which overstates it.

    Args:
        event: Some steps, with the rate that was really drawn with.
        order: A whole number from 2 to 256, fixed in advance.

    Returns:
        The divergence, in nats; divergences of one order and one unit add up. Infinity where nothing bounds a part.

    Raises:
        ConfigError: When the order is out of range.
    """
    _check_order(order)
    parts = bounded([event])
    return math.inf if parts is None else math.fsum(count * _divergence(step, order) for step, count in parts)


def renyi_to_epsilon(rho: float, order: int, delta: float) -> float:
    """Return epsilon at a delta, for what has a Rényi divergence of at most rho: at least 0.

    Canonne, Kamath and Steinke 2020 (arXiv 2004.00010), proposition 12.

    >>> round(renyi_to_epsilon(1.0, 8, 1e-5), 3)
    2.214

    Raises:
        ConfigError: When rho, the order or delta is out of range.
    """
    _check_order(order)
    _check_delta(delta)
    if not rho >= 0:
        raise ConfigError(f"rho = {rho} is out of range; a Rényi divergence is at least 0")
    return max(0.0, rho + _excess(order, delta))


def renyi_room(epsilon: float, delta: float, order: int) -> float:
    """Return the largest rho whose epsilon at this delta is at most the given one.

    Returns:
        What the divergences at this order may add up to. 0 where no divergence of this order gives so small an
        epsilon; nothing is then admitted.

    Raises:
        ConfigError: When epsilon, delta or the order is out of range.
    """
    _check_order(order)
    _check_budget(epsilon, delta)
    room = epsilon - _excess(order, delta)
    while room > 0 and renyi_to_epsilon(room, order, delta) > epsilon:
        room = math.nextafter(room, 0.0)  # the two roundings may differ
    return max(0.0, room)


@lru_cache(maxsize=256)
def filter_order(epsilon: float, delta: float) -> int:
    """Return the order from 2 to 256 at which a budget admits the most full-batch Gaussian steps.

    One such step has a divergence in proportion to the order, so it is the order with the largest `renyi_room` over
    order. It depends on the budget alone, never on data or plans: an order picked after a look at either would not be
    fixed in advance, and the filter's guarantee with it.

    >>> filter_order(3.0, 1e-5)
    8

    Raises:
        ConfigError: When epsilon or delta is out of range.
    """
    _check_budget(epsilon, delta)
    orders = range(_LEAST_ORDER, _MOST_ORDER + 1)
    return max(orders, key=lambda order: (epsilon - _excess(order, delta)) / order)


def _excess(order: int, delta: float) -> float:
    """Return epsilon less rho in proposition 12."""
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


@lru_cache(maxsize=4096)
def _divergence(step: SampledGaussian, order: int) -> float:
    """Bound one step's divergence."""
    if step.rate == 1:
        return order * step.records**2 / (2 * step.noise**2)
    log_power = _single(step, order) if step.records == 1 else max(_forward(step, order), _reverse(step, order))
    return max(log_power, 0.0) / (order - 1) * (1 + _RELATIVE) + _ABSOLUTE


def _single(step: SampledGaussian, order: int) -> float:
    """Return log E_Q (P/Q)^order for one record, as log of 1 plus what is above 1: small rates keep their digits."""
    i = np.arange(2, order + 1)
    ways = np.array([math.log(math.comb(order, n)) for n in range(2, order + 1)])
    growth = i * (i - 1) / (2 * step.noise**2)
    log_terms = ways + i * math.log(step.rate) + (order - i) * math.log1p(-step.rate)
    log_terms += growth + np.log(-np.expm1(-growth))
    return float(np.logaddexp(0.0, logsumexp(log_terms)))


def _forward(step: SampledGaussian, order: int) -> float:
    """Return log E_Q (P/Q)^order for more records; above it where the shifts are too many to tell apart.

    The product of `order` mixtures is one over sums of shifts: with v the convolution power of
    w_j exp(-j^2 / 2s^2), the expectation is sum_t v_t exp(t^2 / 2s^2). All is positive, so nothing cancels.
    """
    weights, width = log_weights(step), 1
    if order * step.records > _MOST_SHIFTS:
        # Rounding shifts up only raises it: it is the mean of exp(sum over pairs of their shifts / s^2).
        width = math.ceil(order * step.records / _MOST_SHIFTS)
        starts = np.r_[0, np.arange(1, step.records + 1, width)]
        weights = np.logaddexp.reduceat(weights, starts)
    noise = step.noise / width
    base = weights - np.arange(len(weights)) ** 2 / (2 * noise**2)
    sums = _convolution_power(base, order)
    return float(logsumexp(sums + np.arange(len(sums)) ** 2 / (2 * noise**2)))


def _convolution_power(a: Floats, power: int) -> Floats:
    """Return the log of exp(a) convolved with itself so many times, by squaring."""
    result = a
    for bit in bin(power)[3:]:
        result = _convolve(result, result)
        if bit == "1":
            result = _convolve(result, a)
    return result


def _convolve(a: Floats, b: Floats) -> Floats:
    """Return the log of exp(a) convolved with exp(b): term by term, since a Fourier transform loses small ones."""
    edge = np.full(len(a) - 1, -np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([edge, b, edge]), len(a))
    sums = []
    for start in range(0, len(windows), _ROWS):
        terms = windows[start : start + _ROWS] + a[::-1]
        most = terms.max(axis=1)
        sums.append(most + np.log(np.exp(terms - most[:, None]).sum(axis=1)))
    return np.concatenate(sums)


def _reverse(step: SampledGaussian, order: int) -> float:
    """Return an upper bound on log E_Q (P/Q)^(1 - order), the order-th power of the other direction.

    log(P/Q) is convex, so log of what is integrated lies below its tangents. Cell by cell the tangent at the middle is
    integrated exactly, which bounds the integral from above; the outermost cells reach to infinity.
    """
    weights, shifts, noise = log_weights(step), np.arange(step.records + 1.0), step.noise
    power = order - 1

    # The mode: x + power * s^2 * slope(x) rises in x, and is not positive at the first of these ends.
    low, high = -float(power * step.records), 0.0
    for _ in range(60):
        middle = (low + high) / 2
        slope = float(log_ratio(np.array([middle]), shifts, weights, noise)[1][0])
        low, high = (middle, high) if middle + power * noise**2 * slope < 0 else (low, middle)

    # The integrand falls off from its mode as fast as the Gaussian, or faster.
    edges = high + np.linspace(-10.0, 10.0, _CELLS + 1) * noise
    middles = (edges[1:] + edges[:-1]) / 2
    edges[0], edges[-1] = -math.inf, math.inf
    value, slope_at = log_ratio(middles, shifts, weights, noise)
    # exp(-x^2 / 2s^2 - power * (value + slope * (x - middle))) is a Gaussian around `centre`, times a constant.
    centre = -power * slope_at * noise**2
    constant = -power * (value - slope_at * middles) + (power * slope_at * noise) ** 2 / 2
    return float(logsumexp(constant + _log_mass((edges[:-1] - centre) / noise, (edges[1:] - centre) / noise)))


def _log_mass(low: Floats, high: Floats) -> Floats:
    """Return the log of a standard Gaussian's mass between two points, read off the tail that is the smaller."""
    right = low > 0
    low, high = np.where(right, -high, low), np.where(right, -low, high)
    above = log_ndtr(high)
    mass: Floats = above + np.log1p(-np.exp(log_ndtr(low) - above))
    return mass


def _check_order(order: int) -> None:
    if type(order) is not int or not _LEAST_ORDER <= order <= _MOST_ORDER:
        raise ConfigError(f"order = {order} is out of range; a whole number from {_LEAST_ORDER} to {_MOST_ORDER}")


def _check_delta(delta: float) -> None:
    if not LEAST_DELTA <= delta < 1:
        raise ConfigError(f"delta = {delta} is out of range; it lies between {LEAST_DELTA:g} and 1")


def _check_budget(epsilon: float, delta: float) -> None:
    if not 0 < epsilon < math.inf:
        raise ConfigError(f"epsilon = {epsilon} is out of range; it is a positive number")
    _check_delta(delta)
