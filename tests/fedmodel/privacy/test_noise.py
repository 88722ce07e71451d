"""Noise and lots have the distributions they claim, and the operating system's are never repeated."""

from __future__ import annotations

import math
import os

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from fedmodel.privacy.noise import NoiseSource, OsNoise, SeededNoise

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("same_bytes")
SOURCES = [OsNoise(), SeededNoise(3)]


@pytest.mark.parametrize("source", SOURCES, ids=["os", "seeded"])
def test_gaussian_has_the_standard_deviation_asked_for(source: NoiseSource) -> None:
    size, std = 200_000, 3.5
    noise = source.gaussian(size, std, CPU).numpy()
    assert noise.dtype == np.float64
    # Five standard errors: of a mean, and of a sample deviation.
    assert abs(noise.mean()) < 5 * std / math.sqrt(size)
    assert abs(noise.std() / std - 1) < 5 / math.sqrt(2 * size)
    # p under 1e-9 once in a thousand million correct runs.
    assert stats.kstest(noise / std, "norm").pvalue > 1e-9


@pytest.mark.parametrize("source", SOURCES, ids=["os", "seeded"])
def test_coordinates_and_draws_are_uncorrelated(source: NoiseSource) -> None:
    size = 100_000
    first, second = (source.gaussian(size, 1.0, CPU).numpy() for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(size)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 5 / math.sqrt(size)
    # Box-Muller's halves share a radius; their sizes must not show it.
    half = size // 2
    assert abs(np.corrcoef(first[:half] ** 2, first[half:] ** 2)[0, 1]) < 5 / math.sqrt(half)


@pytest.mark.parametrize("source", SOURCES, ids=["os", "seeded"])
def test_uniform_numbers_are_uniform_and_never_repeated(source: NoiseSource) -> None:
    first, second = (source.uniform(100_000, CPU).numpy() for _ in range(2))
    assert first.dtype == np.float64
    assert 0 <= first.min() < first.max() < 1
    assert stats.kstest(first, "uniform").pvalue > 1e-9
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(100_000)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 5 / math.sqrt(100_000)


def test_uniform_numbers_leave_a_seeded_runs_other_draws_as_they_were() -> None:
    plain, other = SeededNoise(5), SeededNoise(5)
    other.uniform(100, CPU)
    assert np.array_equal(plain.lot(50, 0.5), other.lot(50, 0.5))
    assert torch.equal(plain.gaussian(50, 1.0, CPU), other.gaussian(50, 1.0, CPU))
    assert torch.equal(plain.keep(50, 0.5, CPU), other.keep(50, 0.5, CPU))


@pytest.mark.parametrize("size", [1, 2, 3, 31])
def test_any_size_of_noise(size: int) -> None:
    assert OsNoise().gaussian(size, 1.0, CPU).shape == (size,)


@pytest.mark.parametrize("source", SOURCES, ids=["os", "seeded"])
@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_lots_are_poisson(source: NoiseSource, rate: float) -> None:
    records, lots = 50, 4_000
    counts = np.zeros(records)
    sizes = []
    for _ in range(lots):
        lot = source.lot(records, rate)
        counts[lot] += 1
        sizes.append(len(lot))
    # Each record at the rate, independently: a binomial size, not a fixed one.
    assert np.all(np.abs(counts / lots - rate) < 5 * math.sqrt(rate * (1 - rate) / lots))
    expected = records * rate * (1 - rate)
    assert abs(np.var(sizes) / expected - 1) < 5 * math.sqrt(2 / lots) + 0.05


@pytest.mark.parametrize("source", SOURCES, ids=["os", "seeded"])
def test_a_full_lot_holds_everyone_and_a_tiny_rate_hardly_anyone(source: NoiseSource) -> None:
    assert source.lot(7, 1.0).tolist() == list(range(7))
    assert len(source.lot(1_000, 1e-12)) == 0
    assert source.lot(0, 0.5).tolist() == []


def test_os_noise_asks_the_operating_system_for_every_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    words = np.random.default_rng(1)  # by seed, so that no radius asks for more bits: one in 8,192 does

    def counted(size: int) -> bytes:
        asked.append(size)
        return words.bytes(size)

    monkeypatch.setattr(os, "urandom", counted)
    torch.manual_seed(0)
    first = OsNoise().gaussian(10, 1.0, CPU)
    torch.manual_seed(0)
    assert not torch.equal(first, OsNoise().gaussian(10, 1.0, CPU))
    OsNoise().lot(10, 0.5)
    # Four normals a coordinate, a word each; one word a record.
    assert asked == [320, 320, 80]


def drawn(monkeypatch: pytest.MonkeyPatch, *words: list[int]) -> float:
    """Return one draw of unit noise from 53-bit words: two radii and two angles, and then what more is asked for."""
    given = iter(np.array(one, dtype=np.int64) << 11 for one in words)
    monkeypatch.setattr(os, "urandom", lambda size: next(given).tobytes()[:size])
    return float(OsNoise().gaussian(1, 1.0, CPU)[0])


def test_a_large_radius_is_drawn_with_53_bits_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second pair is silent: its radius is 0. A quarter turn leaves the sine alone."""
    with monkeypatch.context() as patch:
        ordinary = 1 << 40
        assert drawn(patch, [ordinary, 2**53 - 1, 2**51, 0]) == pytest.approx(
            math.sqrt(-2 * math.log((ordinary + 1) * 2.0**-53)) / 2
        )
    for first, more in ((0, 0), (0, 2**53 - 1), (5, 2**52), ((1 << 40) - 1, 12345)):
        with monkeypatch.context() as patch:
            share = (first + (more + 1) * 2.0**-53) * 2.0**-53
            value = drawn(patch, [first, 2**53 - 1, 2**51, 0], [more])
            assert value == pytest.approx(math.sqrt(-2 * math.log(share)) / 2, rel=1e-14)


def test_logarithm_sine_and_cosine_are_as_exact_as_the_distance_from_a_gaussian_supposes() -> None:
    """Two units in the last place, of 20,000 arguments each."""
    rng = np.random.default_rng(3)
    shares, angles = 2.0 ** rng.uniform(-106, 0, 20_000), rng.uniform(0, 2 * math.pi, 20_000)
    shares = np.concatenate([shares, 1 - 2.0 ** rng.uniform(-53, -1, 2_000)])
    for real, exact, at in (
        (torch.log, mpmath.log, shares),
        (torch.sin, mpmath.sin, angles),
        (torch.cos, mpmath.cos, angles),
    ):
        found = real(torch.from_numpy(at)).tolist()
        with mpmath.workdps(40):
            off = [abs(exact(mpmath.mpf(x)) - value) / math.ulp(value) for x, value in zip(at, found, strict=True)]
        assert max(off) <= 2


def test_seeded_noise_repeats_and_says_so() -> None:
    first, second, other = SeededNoise(1), SeededNoise(1), SeededNoise(2)
    assert torch.equal(first.gaussian(9, 1.0, CPU), second.gaussian(9, 1.0, CPU))
    assert not torch.equal(first.gaussian(9, 1.0, CPU), other.gaussian(9, 1.0, CPU))
    assert np.array_equal(SeededNoise(1).lot(99, 0.5), SeededNoise(1).lot(99, 0.5))
    assert first.name == "seeded-unsafe"
    assert OsNoise().name == "os"


@pytest.mark.parametrize("source", SOURCES, ids=["os", "seeded"])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_masks_keep_each_place_independently_at_the_rate(source: NoiseSource, rate: float) -> None:
    size = 100_000
    kept = source.keep(size, rate, CPU).numpy().astype(float)
    assert abs(kept.mean() - rate) < 5 * math.sqrt(rate * (1 - rate) / size)
    assert abs(np.corrcoef(kept[:-1], kept[1:])[0, 1]) < 5 / math.sqrt(size)
    assert not np.array_equal(kept, source.keep(size, rate, CPU).numpy())


def test_masks_repeat_only_when_seeded() -> None:
    assert torch.equal(SeededNoise(1).keep(99, 0.5, CPU), SeededNoise(1).keep(99, 0.5, CPU))
    assert not torch.equal(OsNoise().keep(99, 0.5, CPU), OsNoise().keep(99, 0.5, CPU))
