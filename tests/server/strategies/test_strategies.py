"""A strategy is found by its name, refused by it before anything is spent, and its state outlives its process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load

from fedmodel.config import Scenario, read_scenario, scenario_from_json, scenario_to_toml
from fedmodel.errors import ConfigError
from fedmodel.provision import scenario_hash
from scenarios.simulation.simulate import check_scenario
from server import strategies
from server.journal import Checkpoint, Journal
from server.server_app import run_federation
from server.strategies.fedavg import FedAvg
from tests.fakes import FaultyGrid, run_config

CPU = torch.device("cpu")
RUN = 12345


class Momentum(FedAvg):
    """Half of the last step is taken again: its state is a vector."""

    def choose(self, silos: Sequence[str], number: int) -> list[str]:
        return sorted(silos)[number % 2 :]

    def apply(
        self, model_P: NDArray[np.float32], mean_P: NDArray[np.float32], state: bytes
    ) -> tuple[NDArray[np.float32], bytes]:
        step_P = mean_P + np.float32(0.5) * (np.frombuffer(state, "<f4") if state else np.zeros_like(mean_P))
        return model_P + step_P, step_P.astype("<f4").tobytes()


@pytest.fixture
def momentum(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """A scenario with a strategy that keeps something."""
    monkeypatch.setitem(strategies.KINDS, "momentum", SimpleNamespace(make=Momentum))  # type: ignore[arg-type]
    settings = ["federation.strategy=momentum", "rounds=3", "privacy.noise=seeded-unsafe"]
    return read_scenario(str(tiny_file), settings)


def test_a_scenario_that_names_none_has_the_text_and_the_hash_of_before(tiny_file: Path, tmp_path: Path) -> None:
    plain = read_scenario(str(tiny_file))
    assert "strategy" not in plain.model_dump_json()
    assert scenario_hash(read_scenario(str(tiny_file), ["federation.strategy=fedavg"])) == scenario_hash(plain)
    other = read_scenario(str(tiny_file), ["federation.strategy=another"])
    assert scenario_hash(other) != scenario_hash(plain)
    (tmp_path / "again.toml").write_text(scenario_to_toml(other), encoding="utf-8")
    assert read_scenario(str(tmp_path / "again.toml")) == other
    assert scenario_from_json(other.model_dump_json(exclude_none=True)) == other


@pytest.mark.parametrize("name", ["", "Fedavg", "../fedavg", "os.path", "a" * 41])
def test_what_is_no_name_of_a_strategy_is_refused_on_reading(name: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"federation\.strategy"):
        read_scenario(str(tiny_file), [f'federation.strategy="{name}"'])


def test_an_unknown_strategy_is_refused_before_anybody_is_asked(tiny_file: Path, tmp_path: Path) -> None:
    """Also one that Python could import: what is looked up is a closed list."""
    for name in ("fedavgg", "json", "cohorts", "-cohorts"):
        unknown = read_scenario(str(tiny_file))
        federation = unknown.federation.model_copy(update={"strategy": name})
        unknown = unknown.model_copy(update={"federation": federation})
        with pytest.raises(ConfigError, match=r"federation\.strategy: unknown strategy"):
            check_scenario(unknown)
        grid = FaultyGrid(unknown, tmp_path / name)
        with pytest.raises(ConfigError, match="unknown strategy"):
            run_federation(grid, unknown, tmp_path / name, CPU)
        assert grid.seen == []
        assert not list((tmp_path / name).glob("ledgers/*"))


def test_a_strategy_chooses_and_moves_the_model(
    momentum: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[tuple[NDArray[np.float32], NDArray[np.float32], bytes]] = []
    apply = Momentum.apply

    def noted(self: Momentum, *arguments: NDArray[np.float32]) -> tuple[NDArray[np.float32], bytes]:
        after = apply(self, *arguments)  # type: ignore[arg-type]
        moved.append((arguments[0], *after))
        return after

    monkeypatch.setattr(Momentum, "apply", noted)
    run_federation(FaultyGrid(momentum, tmp_path), momentum, tmp_path, CPU)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["cohort"] for line in lines] == [["south", "west"], ["north", "south", "west"], ["south", "west"]]
    for (_, after_P, _), (before_P, _, _) in pairwise(moved):
        assert after_P.tobytes() == before_P.tobytes()
    saved = load((tmp_path / "model.safetensors").read_bytes())
    assert np.array_equal(np.concatenate([saved["1.weight"].ravel(), saved["1.bias"]]), moved[-1][1])


class Killed(BaseException):
    """As nothing catches SIGKILL."""


def numbered(scenario: Scenario, folder: Path) -> FaultyGrid:
    grid = FaultyGrid(scenario, folder)
    for context in grid._contexts.values():
        context.run_config = {**run_config(scenario, folder), "run": str(RUN)}
    return grid


@pytest.mark.parametrize("name", ["momentum", "fedadam"])
def test_a_server_that_is_killed_goes_on_with_the_state_of_its_strategy(
    name: str, momentum: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = momentum.federation.model_copy(update={"strategy": name})
    momentum = momentum.model_copy(update={"federation": federation})
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    run_federation(numbered(momentum, tmp_path / "whole"), momentum, tmp_path / "whole", CPU, run=RUN)
    keep = Journal.keep

    def killed(self: Journal, told: Checkpoint, *dealt: object) -> None:
        keep(self, told, *dealt)  # type: ignore[arg-type]
        if told.round_number == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", killed)
        with pytest.raises(Killed):
            run_federation(numbered(momentum, tmp_path / "killed"), momentum, tmp_path / "killed", CPU, run=RUN)
    run_federation(numbered(momentum, tmp_path / "killed"), momentum, tmp_path / "killed", CPU, run=RUN)
    whole, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == resumed
