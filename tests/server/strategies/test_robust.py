"""Strategies that look at single updates: no minority moves a coordinate beyond the others, in any order of silos."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load

from fedmodel.config import Scenario, read_scenario
from fedmodel.data import silo_records
from fedmodel.privacy.noise import OsNoise
from server.aggregation import plain
from server.server_app import run_federation
from server.strategies import Combining, strategy_of
from tests.fakes import FaultyGrid

CPU = torch.device("cpu")
SEVEN = [f"federation.silos={[f's{number}' for number in range(7)]}", "federation.min_silos=7"]
LYING = {"median": 3, "trimmed-mean": 1, "krum": 2}
OPTIONS = {"median": "", "trimmed-mean": "", "krum": "num_malicious_nodes = 2"}


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scenario]:
    from tests.conftest import TINY

    path = tmp_path_factory.mktemp("robust") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    said = {name: [f"federation.strategy={name}", f"federation.strategy_options={{{OPTIONS[name]}}}"] for name in LYING}
    return {name: read_scenario(str(path), [*SEVEN, *settings]) for name, settings in said.items()}


def combined(scenario: Scenario, updates: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    strategy = strategy_of(scenario)
    assert isinstance(strategy, Combining)
    return strategy.combine(updates)


@given(
    name=st.sampled_from(sorted(LYING)), seed=st.integers(0, 2**32 - 1), lie=st.floats(-1e9, 1e9), turn=st.booleans()
)
def test_updates_that_lie_move_nothing_beyond_what_the_others_say(
    name: str, seed: int, lie: float, turn: bool, scenarios: dict[str, Scenario]
) -> None:
    """Krum chooses an honest update where honest ones are near each other and lies are far from them."""
    rng = np.random.default_rng(seed)
    honest = {f"s{number}": rng.normal(size=9).astype(np.float32) for number in range(LYING[name], 7)}
    if name == "krum":
        lie = float(np.copysign(max(abs(lie), 1e3), lie))
    lies = {f"s{number}": np.full(9, lie if turn or number % 2 else -lie, np.float32) for number in range(LYING[name])}
    mean_P = combined(scenarios[name], {**honest, **lies})
    told_NP = np.stack(list(honest.values()))
    assert (told_NP.min(axis=0) <= mean_P).all()
    assert (mean_P <= told_NP.max(axis=0)).all()


@pytest.mark.parametrize("name", sorted(LYING))
def test_the_order_of_silos_and_the_size_of_a_part_change_no_bit(
    name: str, scenarios: dict[str, Scenario], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    updates = {f"s{number}": rng.normal(size=101).astype(np.float32) for number in range(7)}
    before = {silo: update_P.tobytes() for silo, update_P in updates.items()}
    found = combined(scenarios[name], updates).tobytes()
    assert combined(scenarios[name], dict(reversed(updates.items()))).tobytes() == found
    monkeypatch.setattr("server.strategies._robust._COLUMNS", 7)
    assert combined(scenarios[name], updates).tobytes() == found
    assert {silo: update_P.tobytes() for silo, update_P in updates.items()} == before


def test_a_run_moves_by_what_is_combined_and_a_job_besides_counts_every_silo(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is the start and the medians of what silos sent; label counts are a sum over all of them."""
    monkeypatch.setattr(OsNoise, "gaussian", lambda _, size, std, device: torch.zeros(size, dtype=torch.float64))
    settings = ["federation.strategy=median", "federation.min_silos=3"]
    besides = ["besides.label-counts.noise_multiplier=4.0", "besides.label-counts.bound=60.0"]
    scenario = read_scenario(str(tiny_file), [*settings, *besides])
    averaged: list[tuple[str, ...]] = []
    average = plain.average_updates

    def noted(updates: dict[str, NDArray[np.float32]], federation: object) -> NDArray[np.float32]:
        averaged.append(tuple(sorted(updates)))
        return average(updates, federation)  # type: ignore[arg-type]

    monkeypatch.setattr(plain, "average_updates", noted)
    moved: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    kind = type(strategy_of(scenario))
    combine, apply = kind.combine, kind.apply  # type: ignore[attr-defined]
    seen: list[NDArray[np.float32]] = []

    def combining(self: object, updates: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        seen.append(np.median(np.stack(list(updates.values())), axis=0))
        return combine(self, updates)  # type: ignore[no-any-return]

    def applying(self: object, model_P: NDArray[np.float32], *more: object) -> object:
        after = apply(self, model_P, *more)  # type: ignore[arg-type]
        moved.append((model_P, after[0]))
        return after

    monkeypatch.setattr(kind, "combine", combining)
    monkeypatch.setattr(kind, "apply", applying)
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    assert averaged == [("north", "south", "west")]  # of the job besides alone
    assert len(seen) == len(moved) == 2
    for (before_P, after_P), median_P in zip(moved, seen, strict=True):
        assert after_P == pytest.approx(before_P + median_P, abs=1e-6)
    for (_, after_P), (before_P, _) in pairwise(moved):
        assert after_P.tobytes() == before_P.tobytes()
    saved = load((tmp_path / "model.safetensors").read_bytes())
    assert np.array_equal(np.concatenate([saved["1.weight"].ravel(), saved["1.bias"]]), moved[-1][1])
    counts = json.loads((tmp_path / "besides.jsonl").read_text())["counts"]
    held = sum(np.bincount(silo_records(scenario, silo).y_N, minlength=2) for silo in scenario.federation.silos)
    assert list(counts.values()) == pytest.approx(list(held), abs=0.05)
