"""Gauges of noise, from what a silo released on the coordinates of canaries that are not in its data.

There is noise alone on them under correct code, N(0, (sigma C)^2), independent over coordinates, steps and silos. At
q = 1 an included canary's coordinate measures noise too, about the mean of all that are in.

Shapes: T steps, O canaries that are out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, combinations_with_replacement
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln
from scipy.stats import chi2, norm

from fedmodel.audit.intervals import binomial_interval, chernoff, correlation_limit
from fedmodel.audit.measured import Gauge, Seen, gauge, groups, worst
from fedmodel.canaries.observations import Observations

_LAGS: Final = 12
_BANDS: Final = (0.5, 1.0, 2.0, 3.0)
_BLOCK: Final = 1024  # steps whose correlations with all others are in memory at once


def noise_gauges(seen: Sequence[Seen], level: float) -> list[Gauge]:
    """Return every gauge of noise that can be measured, each at the level over all silos."""
    found = [*_noise_std(seen, level), *_denominator(seen, level), *_noise_everywhere(seen, level)]
    for one in seen:
        found += [*_noise_shape(one, level / len(seen)), *_noise_lag1(one, level / len(seen))]
    found += [*_noise_repeat(seen, level), *_noise_between_silos(seen, level)]
    return [*found, *_model_noise(seen, level)]


def _model_noise(seen: Sequence[Seen], level: float) -> Iterator[Gauge]:
    """The gauges of shape, repetition and likeness once more, of noise on coordinates of the model itself.

    Each has its name with `model_` before it, and its level. `model_noise_std` is of single coordinates: one without
    noise shows, where a tensor's mean square hides it. The coordinates are some hundreds, drawn by the scenario's seed;
    blind to others.
    """
    followed = [_followed(one) for one in seen if one.of.followed_TS.size]
    found = [*_noise_repeat(followed, level), *_noise_between_silos(followed, level)] if followed else []
    for one in followed:
        share = level / len(followed)
        found += [*_noise_shape(one, share), *_noise_lag1(one, share), *_worst_coordinate(one, share)]
    yield from (replace(one, name=f"model_{one.name}") for one in found)


def _followed(one: Seen) -> Seen:
    """Return a silo as if the model's own coordinates were canaries', all of them out."""
    coordinates = one.of.followed_TS.shape[1]
    return replace(one, of=replace(one.of, sums_TK=one.of.followed_TS, coins_K=np.zeros(coordinates, dtype=np.bool_)))


def _worst_coordinate(one: Seen, level: float) -> Iterator[Gauge]:
    """The standard deviation of the noise on the coordinate where it is farthest from what is claimed."""
    squares_O = (one.noise**2).sum(axis=0)
    steps, coordinates = one.noise.shape
    share = level / coordinates
    low, high = (chi2.ppf(share / 2, steps) / steps) ** 0.5, (chi2.isf(share / 2, steps) / steps) ** 0.5
    ratios = [(float(square) / steps) ** 0.5 for square in squares_O]
    yield worst(
        [
            gauge(
                "noise_std",
                one.silo,
                ratio,
                1.0,
                (low, high),
                f"of {coordinates} coordinates of the model the one with the farthest noise has {ratio:.4f} times the"
                f" standard deviation that is claimed, over {steps} steps; chance leaves {low:.4f} to {high:.4f}",
            )
            for ratio in ratios
        ]
    )


def _noise_std(seen: Sequence[Seen], level: float) -> Iterator[Gauge]:
    """The standard deviation of the noise over what is claimed, per silo and of all silos together.

    Under correct code n times its square is chi-square of n degrees, n the coordinates that are noise alone times the
    steps. Blind to noise that repeats itself, to its shape, and to a factor of less than about 1 -+ 3.5 / sqrt(n).
    """
    for group, silo, share in groups(seen, level):
        parts = [one.squares for one in group]
        total, degrees = sum(squares for squares, _ in parts), sum(size for _, size in parts)
        if degrees < 1:
            continue
        low, high = chi2.ppf(share / 2, degrees), chi2.isf(share / 2, degrees)
        ratio, ends = (total / degrees) ** 0.5, ((low / degrees) ** 0.5, (high / degrees) ** 0.5)
        true = ((total / high) ** 0.5, (total / low) ** 0.5)
        yield gauge(
            "noise_std",
            silo,
            ratio,
            1.0,
            ends,
            f"the noise has {ratio:.4f} times the standard deviation that is claimed, from {degrees} values; the true"
            f" ratio is from {true[0]:.4f} to {true[1]:.4f}, and 1 is claimed",
        )


def _noise_everywhere(seen: Sequence[Seen], level: float) -> Iterator[Gauge]:
    """The standard deviation of what was added to each tensor's clipped sum over what is claimed, the worst tensor's.

    The canaries' block is one tensor among the model's own, so that noise which is missing on another shows. Under
    correct code a tensor's mean square times its values is chi-square of so many degrees. The division and float32's
    rounding are under a part in a million of it. Blind to noise that repeats itself, and to its shape.
    """
    for one in seen:
        noise_TL, sizes_L = one.of.noise_TL, one.of.sizes_L
        if not noise_TL.size:
            continue
        found = []
        for at, size in enumerate(sizes_L.tolist()):
            degrees = size * len(noise_TL)
            ratio = float(noise_TL[:, at].mean()) ** 0.5 / one.scale
            share = level / len(seen) / len(sizes_L)
            low, high = (chi2.ppf(share / 2, degrees) / degrees) ** 0.5, (chi2.isf(share / 2, degrees) / degrees) ** 0.5
            told = (
                f"of {len(sizes_L)} tensors, number {at + 1} has the farthest noise: {ratio:.4f} times the standard"
                f" deviation that is claimed, from {degrees} values; 1 is claimed, and chance leaves {low:.4f} to"
                f" {high:.4f}"
            )
            found.append(gauge("noise_everywhere", one.silo, ratio, 1.0, (low, high), told))
        yield worst(found)


def _noise_shape(one: Seen, level: float) -> Iterator[Gauge]:
    """The share of noise beyond 0, 0.5, 1, 2 and 3 of the claimed standard deviations, against the normal's.

    Exactly binomial under correct code; the worst of the five is told. Finds noise of the right variance that is
    uniform, Laplace's, one-sided or of two values; noise of a wrong variance shows here too. Blind to what
    differs farther out, or inside a band.
    """
    out_TO = one.noise
    if not out_TO.size:
        return
    kinds = [
        (f"beyond {band:g} claimed standard deviations", np.abs(out_TO) > band, 2 * float(norm.sf(band)))
        for band in _BANDS
    ]
    found = []
    for kind, is_beyond_TO, rate in [("above 0", out_TO > 0, 0.5), *kinds]:
        low, high = binomial_interval(out_TO.size, rate, level / (1 + len(_BANDS)))
        share = float(is_beyond_TO.mean())
        found.append(
            gauge(
                "noise_shape",
                one.silo,
                share,
                rate,
                (low / out_TO.size, high / out_TO.size),
                f"of {out_TO.size} values of noise a share of {share:.4f} lies {kind}; a normal"
                f" distribution has {rate:.4f}, and chance leaves {low / out_TO.size:.4f} to {high / out_TO.size:.4f}",
            )
        )
    yield worst(found)


def _noise_lag1(one: Seen, level: float) -> Iterator[Gauge]:
    """The correlation of noise with that of 1 to 12 steps before, over pairs of steps that do not overlap; the worst.

    Under correct code each is a correlation of independent normals, against 0. Noise that is used again in every step
    has 1 at lag 1; every so many steps, 1 at that lag. Blind to lags over 12 and to a few steps that are alike among
    many: `noise_repeat` sees those, where they are alike entirely.
    """
    out_TO = one.noise
    steps, width = out_TO.shape
    lags = range(1, min(_LAGS, steps - 1) + 1)
    found = []
    for lag in lags:
        first = np.flatnonzero(np.arange(steps - lag) // lag % 2 == 0)
        pairs = len(first) * width
        if pairs < 2:
            continue
        r = _correlation(out_TO[first], out_TO[first + lag])
        reach = correlation_limit(pairs, level / len(lags))
        found.append(
            gauge(
                "noise_lag1",
                one.silo,
                r,
                0.0,
                (-reach, reach),
                f"of lags up to {len(lags)}, noise is most alike at lag {lag}: a correlation of {r:.4f}; 0 is claimed,"
                f" and chance leaves {reach:.4f} either way",
            )
        )
    if found:
        yield worst(found)


def _noise_repeat(seen: Sequence[Seen], level: float) -> Iterator[Gauge]:
    """The largest correlation between the noise of any two releases, of one silo or of two, at any distance.

    Each pair's is a correlation of independent normals under correct code, against 0; the level is shared by all pairs.
    Finds a seed that was used twice. Blind to a likeness under some 8 / sqrt(coordinates out at both).
    """
    total = sum(len(one.of.lots_T) for one in seen)
    found: list[Gauge] = []
    for one, other in combinations_with_replacement(seen, 2):
        first_TO, second_TO = _out_at_both(one, other)
        width = first_TO.shape[1]
        if width < 2 or total < 2:
            continue
        reach = correlation_limit(width, level / (total * (total - 1) / 2))
        r, step, again = _most_alike(first_TO, second_TO, within=one is other)
        found.append(
            gauge(
                "noise_repeat",
                None,
                r,
                0.0,
                (-reach, reach),
                f"of all releases, step {step + 1} of silo {one.silo} and step {again + 1} of silo {other.silo} have"
                f" noise most alike: a correlation of {r:.4f}; 0 is claimed, and chance leaves {reach:.4f} either way",
            )
        )
    if found:
        yield worst(found)


def _noise_between_silos(seen: Sequence[Seen], level: float) -> Iterator[Gauge]:
    """The correlation of two silos' noise in the same step of the same round; the worst of all pairs of silos.

    A correlation of independent normals under correct code, against 0; one seed for all silos makes it 1. Blind to
    noise that is shared with a delay, which `noise_repeat` sees.
    """
    found = []
    for one, other in combinations(seen, 2):
        first_TO, second_TO = _out_at_both(one, other)
        places, others = _places(one.of), _places(other.of)
        shared = sorted(places.keys() & others.keys())
        pairs = len(shared) * first_TO.shape[1]
        if pairs < 2:
            continue
        r = _correlation(first_TO[[places[at] for at in shared]], second_TO[[others[at] for at in shared]])
        reach = correlation_limit(pairs, level / (len(seen) * (len(seen) - 1) / 2))
        found.append(
            gauge(
                "noise_between_silos",
                None,
                r,
                0.0,
                (-reach, reach),
                f"silos {one.silo} and {other.silo} have the noise most alike in one step: a correlation of {r:.4f};"
                f" 0 is claimed, and chance leaves {reach:.4f} either way",
            )
        )
    if found:
        yield worst(found)


def _denominator(seen: Sequence[Seen], level: float) -> Iterator[Gauge]:
    """How the logarithm of a step's noise follows that of its lot: the slope, against 0; -1 where lots divide.

    Under correct code a step's sum of squares is chi-square whatever the lot, so that the slope is a sum of logarithms
    of chi-squares with known factors, bounded by Chernoff. It is left out where chance alone could make it -1: few
    steps, or lots that hardly vary. Blind to a wrong divisor that is the same in every step, which scales noise and
    canaries alike: `noise_std` and `canary_mean` see that, and at q = 1, where lots do not vary, they see all.
    """
    for group, silo, share in groups(seen, level):
        parts = [_lots_and_noise(one) for one in group if one.event.realised_sample_rate < 1 and one.noise.size]
        spread = sum(float((lots_T**2).sum()) for lots_T, _, _ in parts)
        if spread <= 0:
            continue
        factor_T = np.concatenate([lots_T for lots_T, _, _ in parts]) / spread / 2
        half_T = np.concatenate([np.full(len(lots_T), width / 2) for lots_T, _, width in parts])
        slope = float(factor_T @ np.concatenate([log_T for _, log_T, _ in parts]))
        low, high = (_slope_limit(factor_T, half_T, share / 2, sign) for sign in (-1, 1))
        if low <= -1:
            continue
        yield gauge(
            "denominator",
            silo,
            slope,
            0.0,
            (low, high),
            f"noise goes with the size of a lot to the power of {slope:.3f}; 0 is claimed, chance leaves {low:.3f} to"
            f" {high:.3f}, and it would be -1 if sums were divided by the lot's size",
        )


def _lots_and_noise(one: Seen) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Return each step's logarithms of lot, about their mean, and of the sum of squares of noise; and its degrees."""
    out_TO = one.noise
    lots_T = np.log(np.maximum(one.of.lots_T, 1))
    return lots_T - lots_T.mean(), np.log(np.maximum((out_TO**2).sum(axis=1), 1e-300)), out_TO.shape[1]


def _slope_limit(factor_T: NDArray[np.float64], half_T: NDArray[np.float64], tail: float, sign: int) -> float:
    """Return where the sum of factors times logarithms of chi-squares of `2 half` degrees lies at the tail."""

    def cumulant(s: float) -> tuple[float, float]:
        moved_T = half_T + s * factor_T
        return float((gammaln(moved_T) - gammaln(half_T)).sum()), float(factor_T @ digamma(moved_T))

    # The moment generating function ends where an argument of a gamma function comes to 0.
    end = float((half_T / np.maximum(-sign * factor_T, 1e-300)).min())
    limit = chernoff(cumulant, tail, sign * end * (1 - 1e-9))
    return sign * 1e300 if limit is None else limit


def _out_at_both(one: Seen, other: Seen) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two silos' noise on the coordinates whose canaries are out at both."""
    if not one.of.sums_TK.shape[1]:
        return one.noise, other.noise
    is_out_K = ~one.of.coins_K & ~other.of.coins_K
    return one.noise[:, is_out_K[~one.of.coins_K]], other.noise[:, is_out_K[~other.of.coins_K]]


def _places(of: Observations) -> dict[tuple[int, int], int]:
    """Return each step by its round and its place in the round."""
    first = {int(number): int(at) for number, at in zip(*np.unique(of.round_T, return_index=True), strict=True)}
    return {(int(number), at - first[int(number)]): at for at, number in enumerate(of.round_T)}


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the correlation about 0; 0 where there is no noise at all, which is another gauge's to tell."""
    size = float((first**2).sum() * (second**2).sum()) ** 0.5
    return float((first * second).sum()) / size if size else 0.0


def _most_alike(
    first_TO: NDArray[np.float64], second_TO: NDArray[np.float64], *, within: bool
) -> tuple[float, int, int]:
    """Return the correlation that is largest in size between a step of the one and a step of the other, and which."""
    unit_TO, other_TO = (
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300) for rows in (first_TO, second_TO)
    )
    most, where = 0.0, (0, 0)
    for start in range(0, len(unit_TO), _BLOCK):
        r_BT = unit_TO[start : start + _BLOCK] @ other_TO.T
        if within:
            r_BT = np.triu(r_BT, k=start + 1)
        at = np.unravel_index(int(np.abs(r_BT).argmax()), r_BT.shape) if r_BT.size else (0, 0)
        if r_BT.size and abs(r_BT[at]) > abs(most):
            most, where = float(r_BT[at]), (int(at[0]) + start, int(at[1]))
    return most, *where
