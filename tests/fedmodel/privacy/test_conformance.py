"""Mechanisms that release otherwise than they say: each is refused, and the refusal says what was found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from fedmodel.errors import PrivacyError
from fedmodel.privacy import conformance, grid
from fedmodel.privacy.conformance import check_release
from fedmodel.privacy.events import Event
from fedmodel.privacy.mechanisms.dp_sgd import DpSgd, DpSgdEvent
from fedmodel.privacy.noise import NoiseSource
from fedmodel.privacy.primitives import Parts
from fedmodel.privacy.release import divided, release, round_

CLIP, NOISE = 0.8, 1.7
EVENT = DpSgdEvent(NOISE, CLIP, 0.5, 1, 37)
STD = NOISE * CLIP
Draw = Callable[[int, NoiseSource], Tensor]
CPU = torch.device("cpu")


class Other(DpSgd):
    """DP-SGD, but for its release."""

    def __init__(self, released: Callable[[list[Tensor], NoiseSource], list[Tensor]], draws: int = 1) -> None:
        self.released, self.draws, self.of = released, draws, EVENT

    def release(self, event: Event, sums_L: list[Tensor], noise: NoiseSource) -> list[Tensor]:
        assert event == self.of
        return self.released(sums_L, noise)


def by(drawn: Draw) -> Other:
    """A mechanism that adds other noise, drawn for all coordinates at once."""

    def released(sums_L: list[Tensor], noise: NoiseSource) -> list[Tensor]:
        sizes = [sum_.numel() for sum_ in sums_L]
        noise_P = round_(drawn(sum(sizes), noise).clone(), grid.fine(STD))
        noised = (one + part.view_as(one) for one, part in zip(sums_L, torch.split(noise_P, sizes), strict=True))
        return [divided(round_(one, grid.coarse(STD)), 37) for one in noised]

    return Other(released)


def honest(size: int, noise: NoiseSource) -> Tensor:
    return noise.gaussian(size, STD, CPU)


def scaled(factor: float) -> Draw:
    return lambda size, noise: factor * honest(size, noise)


def missing(*coordinates: int) -> Draw:
    def drawn(size: int, noise: NoiseSource) -> Tensor:
        noise_P = honest(size, noise)
        noise_P[list(coordinates)] = 0.0
        return noise_P

    return drawn


def shaped(inverse: Callable[[Tensor], Tensor]) -> Draw:
    """Noise of another distribution, from the uniform values behind the Gaussian's."""
    return lambda size, noise: STD * inverse(torch.special.ndtr(honest(size, noise) / STD))


def laplace(uniform: Tensor) -> Tensor:
    return -(uniform - 0.5).sign() * torch.log1p(-2 * (uniform - 0.5).abs()) / math.sqrt(2)


def repeated() -> Draw:
    """One draw, used again and again."""
    kept: list[Tensor] = []

    def drawn(size: int, noise: NoiseSource) -> Tensor:
        fresh = honest(size, noise)
        kept[:] = kept or [fresh]
        return kept[0]

    return drawn


def mirrored(size: int, noise: NoiseSource) -> Tensor:
    """The first half again, from the other end."""
    noise_P = honest(size, noise)
    noise_P[-(size // 2) :] = noise_P[: size // 2].flip(0)
    return noise_P


def shared(size: int, noise: NoiseSource) -> Tensor:
    """One draw for all coordinates."""
    return honest(size, noise)[:1].expand(size)


def grouped(size: int) -> Draw:
    """One draw for each so many neighbours; the rest is thrown away."""
    return lambda many, noise: honest(many, noise)[torch.arange(many) // size * size]


def copied(one: int, other: int, sign: float = 1.0) -> Draw:
    """One coordinate has another's draw."""

    def drawn(size: int, noise: NoiseSource) -> Tensor:
        noise_P = honest(size, noise)
        noise_P[other] = sign * noise_P[one]
        return noise_P

    return drawn


def smoothed(size: int, noise: NoiseSource) -> Tensor:
    """Each draw in two neighbours, so that their difference has less of it."""
    noise_P = honest(size, noise)
    return (noise_P + noise_P.roll(1)) / math.sqrt(2)


def from_the_start(size: int, noise: NoiseSource) -> Tensor:
    """The draws of the first tensor again for each of the others."""
    noise_P = honest(size, noise)
    return torch.cat([noise_P[: math.prod(shape)] for shape in conformance._SHAPES])


def foreign(size: int, noise: NoiseSource) -> Tensor:
    """From a source that nobody named."""
    honest(size, noise)
    return torch.from_numpy(np.random.default_rng().normal(0.0, STD, size))


@pytest.mark.parametrize(
    ("drawn", "why"),
    [
        (scaled(0.93), r"noise of 0\.9\d+ times what its event says, of all tensors"),
        (scaled(1.07), r"noise of 1\.0\d+ times what its event says, of all tensors"),
        (scaled(0.0), "noise of 0.000 times what its event says, of all tensors"),
        (scaled(math.nan), "off the grid"),
        (missing(1281), "noise of 0.000 times what its event says, of one coordinate"),
        (missing(*range(1408, 1411)), "noise of 0.000 times what its event says, of one tensor"),
        (shaped(lambda uniform: math.sqrt(3) * (2 * uniform - 1)), "is not Gaussian"),
        (shaped(laplace), "is not Gaussian"),
        (lambda size, noise: honest(size, noise).abs(), r"noise of 0\.\d+ times what its event says, of one release"),
        (repeated(), "noise of 0.000 times what its event says, of one coordinate, where it is least"),
        (mirrored, "noise of 0.000 times what its event says, of one coordinate, compared with another"),
        (shared, "noise of"),
        (grouped(2), "of one coordinate, compared with that 1 on"),
        (grouped(8), "of one coordinate, compared with that 1 on"),
        (smoothed, "noise of 0.7.* of one coordinate, compared with that 1 on"),
        (copied(0, 1), "noise of 0.0.* of one coordinate, compared with that most like it"),
        (copied(1279, 1280), "noise of 0.0.* of one coordinate, compared with that most like it"),
        (copied(17, 900, -1.0), "noise of 0.0.* of one coordinate, compared with that most like it"),
        (from_the_start, "noise of 0.0.* of one coordinate, compared with that most like it"),
        (foreign, "not drawn from the source that it is given"),
    ],
)  # fmt: skip
def test_noise_that_is_not_what_the_event_says_is_refused(drawn: Draw, why: str) -> None:
    check_release(by(honest), EVENT)
    with pytest.raises(PrivacyError, match=rf"mechanism 'dp-sgd' releases .*{why}.*; nothing was trained"):
        check_release(by(drawn), EVENT)


def doubled(sums_L: list[Tensor], noise: NoiseSource) -> list[Tensor]:
    """Twice the clip, and the noise of one."""
    return release([2 * sum_ for sum_ in sums_L], noise, STD, 37)


def counted(sums_L: list[Tensor], noise: NoiseSource) -> list[Tensor]:
    """A smaller divisor than the public one, which makes both larger."""
    return release(sums_L, noise, STD, 36)


def every_bit(sums_L: list[Tensor], noise: NoiseSource) -> list[Tensor]:
    """Nothing rounded."""
    return [divided(sum_ + noise.gaussian(sum_.numel(), STD, CPU).view_as(sum_), 37) for sum_ in sums_L]


def in_place(sums_L: list[Tensor], noise: NoiseSource) -> list[Tensor]:
    """What an audit would compare with is gone."""
    means_L = release(sums_L, noise, STD, 37)
    sums_L[0].zero_()
    return means_L


def flat(sums_L: list[Tensor], noise: NoiseSource) -> list[Tensor]:
    return [mean.flatten() for mean in release(sums_L, noise, STD, 37)]


def twice(sums_L: list[Tensor], noise: NoiseSource) -> list[Tensor]:
    """Two draws of half of the variance."""

    def drawn(sum_: Tensor) -> Tensor:
        return round_(noise.gaussian(sum_.numel(), STD / math.sqrt(2), CPU), grid.fine(STD)).view_as(sum_)

    return [divided(round_(sum_ + drawn(sum_) + drawn(sum_), grid.coarse(STD)), 37) for sum_ in sums_L]


@pytest.mark.parametrize(
    ("released", "why"),
    [
        (doubled, "times what its event says"),
        (counted, "off the grid"),
        (every_bit, "off the grid"),
        (in_place, "a sum that it has changed in place"),
        (flat, "tensors of another shape or type"),
        (twice, "2 draws of noise for each coordinate, and says 1"),
    ],
)
def test_a_release_of_another_form_is_refused(
    released: Callable[[list[Tensor], NoiseSource], list[Tensor]], why: str
) -> None:
    with pytest.raises(PrivacyError, match=why):
        check_release(Other(released), EVENT)


@dataclass(frozen=True)
class Halved(DpSgdEvent):
    """Charged for the noise of one of two draws."""

    mechanism: str = "halved"

    def parts(self) -> Parts:
        ((part, steps),) = super().parts()
        return ((part._replace(noise=math.sqrt(0.5) * part.noise), steps),)


def test_noise_of_two_draws_is_let_pass_where_one_of_them_is_charged_for() -> None:
    """A sum of two rounded draws is no rounded Gaussian of all their noise; given one, it is one of the other's."""
    other = Other(twice, draws=2)
    with pytest.raises(PrivacyError, match=r"noise of 1\.41 times its largest draw as if it were one"):
        check_release(other, EVENT)
    other.of = Halved(NOISE, CLIP, 0.5, 1, 37)
    check_release(other, other.of)


@pytest.mark.parametrize("draws", [32, 96, 45_152])
def test_the_bound_on_a_mean_square_holds_on_both_sides(draws: int) -> None:
    """Beside the exact distribution of a sum of squares."""
    for mean in (0.05, 0.5, 0.9, 0.99, 1.01, 1.1, 1.5, 3.0):
        exact = chi2.logcdf(draws * mean, draws) if mean < 1 else chi2.logsf(draws * mean, draws)
        assert -exact >= conformance._rarity(mean, draws) - 1e-9


def test_noise_of_0_93_of_what_is_said_is_let_pass_no_more_often_than_is_promised() -> None:
    """The least mean square that passes is so far over that of such noise."""
    sizes = [math.prod(shape) for shape in conformance._SHAPES]
    draws = conformance._CALLS * sum(sizes)
    rare = conformance._rare(sum(sizes), len(sizes) + len(conformance._LAGS) + 6)
    least = min(mean for mean in np.linspace(0.9, 1.0, 10_001) if conformance._rarity(mean, draws) <= rare)
    assert 0.93**2 < least < 1
    assert conformance._rarity(least / 0.93**2, draws) > conformance._RARE


def test_the_distance_of_a_distribution_is_kolmogorovs() -> None:
    values = torch.tensor([0.3, -0.5, 1.2], dtype=torch.float64)
    below = [0.3085375387, 0.6179114222, 0.8849303298]
    steps = [(abs(one - k / 3), abs(one - (k + 1) / 3)) for k, one in enumerate(below)]
    assert conformance._apart(values) == pytest.approx(max(max(pair) for pair in steps), abs=1e-9)
