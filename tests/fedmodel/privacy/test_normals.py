"""Whole numbers nearest to Gaussians are so wherever float64 cannot tell, and its distance is measured and held to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from fedmodel.errors import PrivacyError
from fedmodel.privacy import normals
from fedmodel.privacy.exact_normals import nearest_pair

CPU = torch.device("cpu")
RATIOS = (2.0**30, 1.37 * 2.0**30, math.nextafter(2.0**31, 0))  # of a standard deviation over the fine grid's step


def words(*pairs: tuple[int, int]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.int64).T.contiguous()


def drawn(seed: int, pairs: int) -> Tensor:
    made = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, (2, pairs), dtype=np.int64, endpoint=True)
    return torch.from_numpy(made)


def exactly(words_2W: Tensor, ratio: float) -> list[tuple[int, int]]:
    """What the words' Gaussians are nearest to, by a third library, where bits that are not drawn decide nothing."""
    found = []
    with mpmath.workdps(60):
        for radius, angle in zip(*words_2W.tolist(), strict=True):
            share = mpmath.mpf(2 * (radius & (2**63 - 1)) + 1) / 2**64
            turn = mpmath.pi * (2 * angle + 1) / 2**64
            size = ratio * mpmath.sqrt(-2 * mpmath.log(share))
            found.append(tuple(int(mpmath.floor(size * one + 0.5)) for one in (mpmath.cos(turn), mpmath.sin(turn))))
    return found


def beside_a_middle(ratio: float, seed: int, number: int, angle_of: Any) -> Tensor:
    """Return words one of whose Gaussians is nearer to a middle of whole numbers than float64 can tell, by far."""
    rng, found = np.random.default_rng(seed), []
    with mpmath.workdps(60):
        for _ in range(number):
            radius = int(rng.integers(2**60, 2**63 - 2**60))
            size = ratio * mpmath.sqrt(-2 * mpmath.log(mpmath.mpf(2 * radius + 1) / 2**64))
            middle = int(rng.uniform(0.1, 0.9) * float(size)) + mpmath.mpf(1) / 2
            turn = angle_of(middle / size) * 2**63 / mpmath.pi
            found.append((radius, int(turn) + int(rng.choice([-4, -3, 3, 4]))))
    return words(*found)


@pytest.mark.parametrize("angle_of", [mpmath.acos, mpmath.asin], ids=["cosine", "sine"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_beside_a_middle_between_two_whole_numbers_the_nearest_is_found(ratio: float, angle_of: Any) -> None:
    """Where float64 alone would guess: of 200 it has many wrong, and so the test could see it."""
    hostile = beside_a_middle(ratio, 1, 200, angle_of)
    expected = exactly(hostile, ratio)
    guessed = normals._values(hostile.clone(), ratio)[0].round().T.tolist()
    assert sum(tuple(one) != right for one, right in zip(guessed, expected, strict=True)) > 40
    assert [tuple(one) for one in normals.nearest(hostile, ratio).T.tolist()] == expected


@pytest.mark.parametrize("ratio", RATIOS)
def test_anywhere_the_nearest_is_found(ratio: float) -> None:
    anywhere = drawn(2, 500)
    assert [tuple(one) for one in normals.nearest(anywhere.clone(), ratio).T.tolist()] == exactly(anywhere, ratio)


def test_where_a_uniform_value_is_near_an_end_integers_decide() -> None:
    """Of radii so small and so large that float64 says little, and on either side of what is left to it."""
    ratio, edge = RATIOS[1], 1 << 47
    shares = (edge >> 3, edge >> 1, edge - 1, edge, edge + 1, 2**63 - edge, 2**63 - edge // 3, 2**63 - 9)
    ends = words(*((share, angle) for share in shares for angle in (5, -(2**62), 2**61 + 12345)))
    assert [tuple(one) for one in normals.nearest(ends.clone(), ratio).T.tolist()] == exactly(ends, ratio)


def test_a_tail_goes_on_past_the_bits_of_a_word() -> None:
    """Where a uniform value may be nearly anything of its first bits' interval, and 0 among it, more are drawn."""
    for share in (0, 1, 1000):
        found = normals.nearest(words(*[(share, angle) for angle in (3, 2**62, -(2**63))]), RATIOS[1]) / RATIOS[1]
        size = (found**2).sum(dim=0).sqrt()
        assert bool((size >= math.sqrt(-2 * math.log((share + 1) * 2.0**-63)) - 1e-9).all())
        assert bool((size <= (math.sqrt(-2 * math.log(share * 2.0**-63)) + 1e-9 if share else 20)).all())


def test_float64_is_as_far_from_a_gaussian_as_is_said_and_no_farther() -> None:
    """Beside integers, at pairs of every radius that is left to it; 92 of the last places of 1 are allowed for."""
    rng, pairs, ratio, finer = np.random.default_rng(3), 3_000, 2.0**30, 2.0**20
    tried = drawn(4, pairs)
    depth = np.concatenate([rng.uniform(0, 16, pairs // 2), rng.uniform(14, 16, pairs - pairs // 2)])
    share = np.where(np.arange(pairs) % 2, 2.0**-depth, 1 - 2.0**-depth)
    tried[0] = torch.from_numpy(np.minimum((share * 2.0**53).astype(np.int64), 2**53 - 1) << 10) | (tried[0] & 1023)
    values, sure = normals._values(tried.clone(), ratio)
    assert sure.mean() > 0.99
    apart = [
        abs(value * finer - exact) / (ratio * finer * 2.0**-53)
        for radius, angle, both, held in zip(*tried.tolist(), values.T.tolist(), sure.tolist(), strict=True) if held
        for value, exact in zip(both, nearest_pair(radius, angle, 63, ratio * finer), strict=True)
    ]  # fmt: skip
    assert 20 < max(apart) < 92
    assert normals._APART == 128 * 2.0**-53


def test_the_parts_of_the_bound_add_up_to_less_than_is_allowed_for() -> None:
    """The docstring's arithmetic, at every radius that is left to float64, in last places of 1."""
    turns = np.linspace(0, math.pi, 10_001)
    for one, other in ((np.cos, np.sin), (np.sin, np.cos)):
        assert (9 * abs(one(turns)) + 3 * turns * abs(other(turns))).max() < 12
    depth = np.linspace(1, 16, 2_000)
    share = np.concatenate([2.0**-depth, 1 - 2.0**-depth])
    radius = np.sqrt(-2 * np.log(share))
    rounded = np.where(share > 0.5, 0.5 / share, 1.0) + 2.0**-63 / share * 2.0**53
    assert (rounded / radius + 12 * radius).max() < 92


def test_logarithm_sine_and_cosine_are_as_exact_as_the_bound_supposes() -> None:
    """Two units in the last place, of 6,000 arguments each; numpy's logarithm is a processor's."""
    rng = np.random.default_rng(3)
    shares, angles = 2.0 ** rng.uniform(-16, 0, 6_000), rng.uniform(-math.pi, math.pi, 6_000)
    shares = np.concatenate([shares, 1 - 2.0 ** rng.uniform(-16, -1, 2_000)])
    for real, exact, at in (
        (torch.log, mpmath.log, shares),
        (np.log, mpmath.log, shares),
        (torch.sin, mpmath.sin, angles),
        (torch.cos, mpmath.cos, angles),
    ):
        found = real(at if real is np.log else torch.from_numpy(at)).tolist()
        with mpmath.workdps(40):
            off = [abs(exact(mpmath.mpf(x)) - value) / math.ulp(value) for x, value in zip(at, found, strict=True)]
        assert max(off) <= 2


@pytest.fixture
def asked_anew() -> Iterator[None]:
    normals.check_device.cache_clear()
    yield
    normals.check_device.cache_clear()


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize("name", ["log", "cos_", "sin_"])
def test_a_device_whose_functions_are_less_exact_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By 64 units in the last place; as they are, it passes."""
    normals.check_device(CPU)
    normals.check_device.cache_clear()
    of: Any = np if name == "log" else Tensor
    real = getattr(of, name)

    def off(values: Any, **named: Any) -> Any:
        found = real(values, **named)
        found *= 1 + 2.0**-46
        return found

    monkeypatch.setattr(of, name, off)
    with pytest.raises(PrivacyError, match=r"noise computed on cpu is [\d.]+ times as far from a Gaussian .* nothing"):
        normals.check_device(CPU)


def test_each_cell_is_as_frequent_as_it_is_in_a_gaussian_and_pairs_are_independent() -> None:
    """The same words each time: cosines and sines beside one another, in 16 by 16 cells of one probability."""
    pairs, ratio = 200_000, 1.6 * 2.0**30
    values = (normals.nearest(drawn(6, pairs), ratio) / ratio).numpy()
    assert stats.kstest(values.ravel(), "norm").pvalue > 1e-9
    edges = stats.norm.ppf(np.linspace(0, 1, 17))
    counts, _, _ = np.histogram2d(values[0], values[1], [edges, edges])
    # Five standard errors of a chi-square of 255 degrees of freedom.
    assert abs(stats.chisquare(counts.ravel()).statistic - 255) < 5 * math.sqrt(2 * 255)
