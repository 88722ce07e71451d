"""Noise and lots have the distributions they claim, and the operating system's are never repeated."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from fedmodel.crypto import KEY_SIZE, SecretStream
from fedmodel.errors import PrivacyError
from fedmodel.privacy import grid
from fedmodel.privacy import noise as noise_module
from fedmodel.privacy.events import realised_rate
from fedmodel.privacy.noise import ExperimentNoise, NoiseSource, OsNoise, SeededNoise, source_of

CPU = torch.device("cpu")
of_the_system = os.urandom
pytestmark = pytest.mark.usefixtures("same_bytes")
SOURCES = [OsNoise(), SeededNoise(3), ExperimentNoise(3)]
DRAWS = {
    "gaussian": lambda source, size: source.gaussian(size, 1.0, CPU).numpy(),
    "lot": lambda source, size: np.isin(np.arange(size), source.lot(size, 0.5)),
    "keep": lambda source, size: source.keep(size, 0.5, CPU).numpy(),
    "uniform": lambda source, size: source.uniform(size, CPU).numpy(),
}


@pytest.mark.parametrize("source", SOURCES, ids=["os", "seeded", "experiment"])
def test_gaussian_has_the_standard_deviation_asked_for(source: NoiseSource) -> None:
    size, std = 200_000, 3.5
    noise = source.gaussian(size, std, CPU).numpy()
    assert noise.dtype == np.float64
    # Five standard errors: of a mean, and of a sample deviation.
    assert abs(noise.mean()) < 5 * std / math.sqrt(size)
    assert abs(noise.std() / std - 1) < 5 / math.sqrt(2 * size)
    # p under 1e-9 once in a thousand million correct runs.
    assert stats.kstest(noise / std, "norm").pvalue > 1e-9


@pytest.mark.parametrize("source", SOURCES, ids=["os", "seeded", "experiment"])
def test_coordinates_and_draws_are_uncorrelated(source: NoiseSource) -> None:
    size = 100_000
    first, second = (source.gaussian(size, 1.0, CPU).numpy() for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(size)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 5 / math.sqrt(size)
    # Box-Muller's halves share a radius; their sizes must not show it.
    half = size // 2
    assert abs(np.corrcoef(first[:half] ** 2, first[half:] ** 2)[0, 1]) < 5 / math.sqrt(half)


@pytest.mark.parametrize("source", SOURCES, ids=["os", "seeded", "experiment"])
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


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 31])
def test_any_size_of_a_draw(size: int, name: str) -> None:
    assert DRAWS[name](OsNoise(), size).shape == (size,)


@pytest.mark.parametrize("source", SOURCES, ids=["os", "seeded", "experiment"])
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


@pytest.mark.parametrize("source", SOURCES, ids=["os", "seeded", "experiment"])
def test_a_full_lot_holds_everyone_and_a_tiny_rate_hardly_anyone(source: NoiseSource) -> None:
    assert source.lot(7, 1.0).tolist() == list(range(7))
    assert len(source.lot(1_000, 1e-12)) == 0
    assert source.lot(0, 0.5).tolist() == []


@pytest.mark.parametrize("name", DRAWS)
def test_each_draw_has_a_key_of_its_own_and_nothing_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw of more than one block has one key too; what is asked is 32 bytes, of the operating system."""
    asked: list[int] = []
    given = np.random.default_rng(1)

    def counted(size: int) -> bytes:
        asked.append(size)
        return given.bytes(size)

    monkeypatch.setattr(os, "urandom", counted)
    source = OsNoise()
    torch.manual_seed(0)
    first = DRAWS[name](source, 70_000)
    torch.manual_seed(0)
    second = DRAWS[name](source, 70_000)
    assert asked == [KEY_SIZE, KEY_SIZE]
    assert not np.array_equal(first, second)
    assert vars(source) == {}
    given = np.random.default_rng(1)
    assert np.array_equal(DRAWS[name](OsNoise(), 70_000), first)  # and so all of a draw hangs on its key


@pytest.mark.parametrize("name", DRAWS)
def test_no_block_of_a_draw_repeats_another(name: str) -> None:
    """Blocks of 32,768 values: in any two of them as much is alike as by chance."""
    parts = np.split(DRAWS[name](OsNoise(), 3 * 32_768), 3)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.mean(parts[one] == parts[other]) < 0.55


def test_a_fork_draws_otherwise_than_the_process_it_was_forked_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was drawn before: a stream that is kept would go on alike in both, as the tests' own bytes do."""
    monkeypatch.setattr(os, "urandom", of_the_system)
    source, ahead = OsNoise(), OsNoise(9)

    def drawn() -> list[str]:
        made = [draw(source, 200) for draw in DRAWS.values()]
        return [one.tobytes().hex() for one in (*made, DRAWS["gaussian"](ahead, 200))]

    drawn()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, json.dumps(drawn()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        forked = json.load(answer)
    assert os.waitpid(child, 0) == (child, 0)
    assert [one == other for one, other in zip(forked, drawn(), strict=True)] == [False] * (len(DRAWS) + 1)


AHEAD = 7


@pytest.mark.parametrize("size", [1, 31, 2_850, 20_000])
def test_noise_of_several_sums_is_drawn_at_once_and_of_no_more_sums_than_there_are(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of as few keys as fit, and of no more bytes than draw by draw but for a pair; afterwards draws are their own."""
    filled: list[int] = []
    fill = SecretStream.fill

    def counted(self: SecretStream, buffer: memoryview) -> None:
        filled.append(len(buffer))
        fill(self, buffer)

    monkeypatch.setattr(SecretStream, "fill", counted)
    source = OsNoise(AHEAD)
    rows = [source.gaussian(size, 2.0, CPU) for _ in range(AHEAD)]
    at_once = min(AHEAD, 32_768 // size)
    draws = -(-AHEAD // at_once)
    assert sum(filled) <= 8 * (AHEAD * size + draws)
    assert len(filled) == draws
    assert all(float((one == other).double().mean()) < 0.01 for one, other in combinations(rows, 2))
    for _ in range(2):
        filled.clear()
        rows.append(source.gaussian(size, 2.0, CPU))
        assert sum(filled) == 16 * -(-size // 2)
    steps_P = torch.cat(rows) / grid.fine(2.0)
    assert torch.equal(steps_P, steps_P.round())
    assert all(row.shape == (size,) for row in rows)


def test_noise_that_is_drawn_at_once_is_noise() -> None:
    source, size = OsNoise(10), 3_000
    noise_TP = torch.stack([source.gaussian(size, 3.5, CPU) for _ in range(10)]).numpy()
    assert stats.kstest(noise_TP.ravel() / 3.5, "norm").pvalue > 1e-9
    assert abs(noise_TP.std() / 3.5 - 1) < 5 / math.sqrt(2 * noise_TP.size)
    # No sum's noise tells of another's: neither by its values nor by their sizes, which Box-Muller's halves share.
    for values_TP in (noise_TP, noise_TP**2):
        apart = np.corrcoef(values_TP) - np.eye(10)
        assert np.abs(apart).max() < 5.5 / math.sqrt(size)


def test_noise_that_was_handed_out_is_wiped_and_whoever_has_it_may_change_it() -> None:
    source = OsNoise(3)
    first = source.gaussian(9, 1.0, CPU)
    assert source._ahead is not None
    storage = source._ahead._noise[0]._base
    assert storage is not None
    assert bool(first.all())
    assert [bool(row.any()) for row in storage.view(3, 9)] == [True, True, False]
    first.zero_()
    assert bool(source.gaussian(9, 1.0, CPU).all())


@pytest.mark.parametrize("other", [(8, 1.0), (9, 2.0)])
def test_noise_of_another_sum_than_was_told_of_is_drawn_for_it_alone(
    other: tuple[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "urandom", lambda size: asked.append(size) or of_the_system(size))
    source = OsNoise(5)
    source.gaussian(9, 1.0, CPU)
    asked.clear()
    drawn = [source.gaussian(*one, CPU) for one in (other, (9, 1.0), other)]
    assert [len(one) for one in drawn] == [other[0], 9, other[0]]
    assert asked == [KEY_SIZE] * 3


def by_pickle(source: OsNoise) -> OsNoise:
    return pickle.loads(pickle.dumps(source))  # type: ignore[no-any-return]  # noqa: S301 - our own


@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle, copy.copy])
def test_a_copy_has_no_noise_that_its_original_has(copied: Callable[[OsNoise], OsNoise]) -> None:
    source = OsNoise(6)
    source.gaussian(50, 1.0, CPU)
    other = copied(source)
    rows = [one.gaussian(50, 1.0, CPU) for one in (source, other, source, other)]
    assert len(torch.unique(torch.cat(rows))) == 200


@pytest.mark.parametrize("size", [1, 2, 33, 32_769])
@pytest.mark.parametrize("std", [1.0, 0.3, 7.7e-9, 5e8])
def test_noise_lies_on_the_fine_grid_already(std: float, size: int) -> None:
    noise_P = OsNoise().gaussian(size, std, CPU)
    steps_P = noise_P / grid.fine(std)
    assert torch.equal(steps_P, steps_P.round())
    assert noise_P.dtype == torch.float64
    assert bool((noise_P.abs() < 12 * std).all())
    assert noise_P.shape == (size,)


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan])
def test_noise_without_a_grid_is_refused(std: float) -> None:
    with pytest.raises(PrivacyError, match="has no grid"):
        OsNoise().gaussian(3, std, CPU)


def test_no_noise_comes_of_a_device_that_is_not_exact_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(device: torch.device) -> None:
        raise PrivacyError(f"not exact enough on {device}")

    monkeypatch.setattr(noise_module, "check_device", refused)
    with pytest.raises(PrivacyError, match="not exact enough on cpu"):
        OsNoise().gaussian(3, 1.0, CPU)


def test_seeded_noise_repeats_and_says_so() -> None:
    first, second, other = SeededNoise(1), SeededNoise(1), SeededNoise(2)
    assert torch.equal(first.gaussian(9, 1.0, CPU), second.gaussian(9, 1.0, CPU))
    assert not torch.equal(first.gaussian(9, 1.0, CPU), other.gaussian(9, 1.0, CPU))
    assert np.array_equal(SeededNoise(1).lot(99, 0.5), SeededNoise(1).lot(99, 0.5))
    assert first.name == "seeded-unsafe"
    assert OsNoise().name == "os"


@pytest.mark.parametrize("source", SOURCES, ids=["os", "seeded", "experiment"])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_masks_keep_each_place_independently_at_the_rate(source: NoiseSource, rate: float) -> None:
    size = 100_000
    kept = source.keep(size, rate, CPU).numpy().astype(float)
    assert abs(kept.mean() - rate) < 5 * math.sqrt(rate * (1 - rate) / size)
    assert abs(np.corrcoef(kept[:-1], kept[1:])[0, 1]) < 5 / math.sqrt(size)
    assert not np.array_equal(kept, source.keep(size, rate, CPU).numpy())


def test_noise_of_an_experiment_repeats_under_its_own_name_and_is_no_other_silos_or_rounds() -> None:
    draws = {
        whose: source_of("experiment", 5, *whose).gaussian(999, 2.0, CPU) for whose in (("a", 1), ("a", 2), ("b", 1))
    }
    for whose, drawn in draws.items():
        again = source_of("experiment", 5, *whose)
        assert again.name == "experiment"
        assert torch.equal(again.gaussian(999, 2.0, CPU), drawn)
    assert len({tuple(drawn.tolist()) for drawn in draws.values()}) == 3
    assert not torch.equal(source_of("experiment", 6, "a", 1).gaussian(999, 2.0, CPU), draws["a", 1])
    assert [source_of(name, 5, "a", 1).name for name in ("os", "seeded-unsafe")] == ["os", "seeded-unsafe"]


def test_lots_of_an_experiment_are_drawn_at_the_rate_that_is_accounted_for() -> None:
    rate = 1 / 3
    found = realised_rate(rate, "experiment")
    assert rate <= found < rate + 2.0**-52
    # Floats of 53 bits: those under a rate are its ceiling on their grid.
    uniform = np.random.Generator(np.random.SFC64(1)).random(1000)
    assert np.array_equal(uniform * 2.0**53, np.floor(uniform * 2.0**53))


def test_masks_repeat_only_when_seeded() -> None:
    assert torch.equal(SeededNoise(1).keep(99, 0.5, CPU), SeededNoise(1).keep(99, 0.5, CPU))
    assert not torch.equal(OsNoise().keep(99, 0.5, CPU), OsNoise().keep(99, 0.5, CPU))
