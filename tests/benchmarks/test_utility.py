"""What the benchmark of utility compares is measured on the records that it says."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fedmodel.config import read_scenario
from fedmodel.data.records import dealt
from fedmodel.kinds.sources.metabric import times

_FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(_FOLDER))
    return importlib.import_module("utility")


def test_a_hospitals_scaling_is_by_its_own_training_rows_of_the_same_split(benchmark: ModuleType) -> None:
    scaled = benchmark.heart.by_hospital(11)
    held_out, silos = dealt(read_scenario("heart", ["seed=11"]))
    for (x_NF, y_N), records in zip(scaled["train"], silos, strict=True):
        assert np.array_equal(y_N, records.y_N)
        assert x_NF.mean(axis=0) == pytest.approx(np.zeros(13), abs=0.05)  # but for what is bounded at ten deviations
        assert set(np.round(x_NF.std(axis=0, ddof=1), 1)) <= {0.0, 1.0}
    assert np.array_equal(scaled["test"][1], held_out.y_N)


def test_flambys_figure_is_the_mean_of_four_accuracies(benchmark: ModuleType) -> None:
    scenario = read_scenario("heart", ["seed=11"])
    held_out, _ = dealt(scenario)
    hospital_N = scenario.data.groups("hospital", 0)[held_out.person_N]  # type: ignore[attr-defined]
    right_N = held_out.y_N == 1
    output_NK = np.where(right_N ^ (hospital_N == "switzerland"), 1.0, -1.0)[:, None]  # wrong of one hospital alone
    found = benchmark.heart.of_hospitals(scenario, held_out, output_NK)
    assert found["mean of hospitals"] == 0.75
    assert found["accuracy"] == pytest.approx((hospital_N != "switzerland").mean())


def test_cox_ranks_better_than_any_single_feature_of_the_training_records(benchmark: ModuleType) -> None:
    """Newton's method ends at a maximum: its ranking of those it was fitted to is no worse than each feature's."""
    found = benchmark.survival.cox(11)["concordance"]
    held_out, _ = dealt(read_scenario("survival", ["seed=11"]))
    months_N, seen_N = (one[held_out.person_N] for one in times())
    each = [
        benchmark.survival.concordance(months_N, seen_N, sign * column_N)
        for column_N in held_out.x_NF.T
        for sign in (-1.0, 1.0)
    ]
    assert max(each) < found < 0.7


@pytest.mark.filterwarnings("ignore:Secure RNG turned off", "ignore:Full backward hook", "ignore:Using a non-full")
def test_a_central_lot_that_is_added_up_of_parts_or_by_two_passes_is_the_same_lot(benchmark: ModuleType) -> None:
    whole = benchmark.FIELDS["heart"]
    seen: list[np.ndarray] = []
    watched = replace(whole, score=lambda *told: seen.append(told[2]) or {})
    settings = ["seed=11", "encryption={}", *whole.levels["epsilon 1"].settings]
    how = 1.0, 3, 0.5  # most records are clipped
    for at_once, ghost in ((10_000, False), (50, False), (50, True)):
        benchmark.central(replace(watched, at_once=at_once, ghost=ghost), how, settings, times_the_noise=0.0)
    assert np.abs(seen[0]).max() > 0.1
    assert seen[1] == pytest.approx(seen[0], abs=1e-5)
    assert seen[2] == pytest.approx(seen[0], abs=1e-5)


def test_a_central_row_trains_as_its_level_says_and_the_noisy_one_by_its_own_rate_where_it_has_one(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(benchmark, "central", lambda _, how, __, times=1.0: seen.append((how, times)) or {})
    whole = benchmark.FIELDS["heart"]
    for noisy in (None, (0.1, 2, 0.5)):
        level = replace(whole.levels["epsilon 1"], central=(0.3, 2, 0.5), noisy=noisy)
        for who in (benchmark.CENTRAL, benchmark.CENTRAL_AS_NOISY):
            benchmark.trained(who, whole, level, ["seed=11", *level.settings])
    assert seen == [((0.3, 2, 0.5), 1.0), ((0.3, 2, 0.5), 2.0), ((0.3, 2, 0.5), 1.0), ((0.1, 2, 0.5), 2.0)]
