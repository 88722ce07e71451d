"""The run's model is the average of its rounds' models, and silos go on from those models as without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ConfigError, ProtocolError
from fedmodel.learning.averaging import Average, outcome
from fedmodel.learning.jobs import Serving, State
from fedmodel.learning.jobs.training import Asking
from fedmodel.provision import scenario_hash
from scenarios.runs.summary import read_metrics
from server.run_files import MODEL, RunFiles
from server.served_model import ServedModel
from server.server_app import run_federation
from server.strategies import strategy_of
from tests.fakes import FaultyGrid

Vector = NDArray[np.float32]


def averaged(models: list[Vector], decay: float) -> NDArray[np.float64]:
    """Return the average by its definition."""
    weights = [decay ** (len(models) - 1 - place) for place in range(len(models))]
    return np.average(np.stack(models).astype(np.float64), axis=0, weights=weights)


@pytest.mark.parametrize("decay", [1e-6, 0.3, 0.9, 0.999999])
def test_the_average_is_what_its_definition_says(decay: float) -> None:
    generator = np.random.default_rng(1)
    models = [generator.normal(size=5).astype(np.float32) for _ in range(9)]
    kept = b""
    for count, model_P in enumerate(models, start=1):
        _, average = Average.behind(kept, 5)
        kept = average.after(model_P, decay).to_bytes()
        found_P = outcome(model_P, kept, decay)
        assert found_P.dtype == np.float32
        assert found_P == pytest.approx(averaged(models[:count], decay), abs=1e-6)


def test_what_a_run_begins_from_is_in_no_average() -> None:
    begun_P = np.float32([7.0, 7.0])
    assert outcome(begun_P, b"", 0.9) is begun_P
    assert Average.behind(b"", 2)[1].after(np.float32([1.0, 2.0]), 0.9).mean_P.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_a_strategy_keeps_what_it_would_and_the_average_lies_behind_it(strategy: str, tiny_file: Path) -> None:
    models: dict[float | None, list[Vector]] = {None: [], 0.5: []}
    for decay, seen in models.items():
        settings = [f"federation.strategy={strategy}", *([] if decay is None else [f"training.ema_decay={decay}"])]
        scenario = read_scenario(str(tiny_file), settings)
        job = Asking(Serving(scenario, strategy_of(scenario).apply, lambda model_P: {"mean": float(model_P.sum())}))
        generator, state = np.random.default_rng(2), State(np.zeros(3, np.float32))
        for number in range(1, 5):
            assert job.question(number, state) is state.vector_P
            state = job.fold(state, generator.normal(size=3).astype(np.float32))
            seen.append(state.vector_P)
            told = dict(job.tell(state, 3))
            of = state.vector_P if decay is None else averaged(seen, decay)
            assert told.pop("mean") == pytest.approx(float(of.sum()), abs=1e-5)
            assert told == ({} if decay is None else {"model": "average"})
    assert np.array_equal(models[None], models[0.5])


@pytest.mark.parametrize("kept", [b"\0" * 7, b"\0" * 19])
def test_what_is_too_short_for_an_average_is_refused(kept: bytes) -> None:
    with pytest.raises(ProtocolError, match="holds no average"):
        Average.behind(kept, 3)


def ran(scenario: Scenario, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Vector]:
    """Run a scenario, and return the model after each round that silos went on from."""
    seen: list[Vector] = []
    save: Callable[..., None] = ServedModel.save

    def noted(self: ServedModel, state: State, number: int) -> None:
        seen.append(state.vector_P)
        save(self, state, number)

    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(ServedModel, "save", noted)
        run_federation(FaultyGrid(scenario, folder), scenario, folder, torch.device("cpu"))
    return seen


def test_a_runs_file_and_its_figures_are_of_the_average(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["rounds=3", "privacy.noise=seeded-unsafe"]
    plain = read_scenario(str(tiny_file), settings)
    scenario = read_scenario(str(tiny_file), [*settings, "training.ema_decay=0.5"])
    models = ran(scenario, tmp_path / "averaged", monkeypatch)
    assert np.array_equal(models, ran(plain, tmp_path / "plain", monkeypatch))
    with safe_open(str(tmp_path / "averaged" / MODEL), "np") as file:
        written_P = np.concatenate([file.get_tensor(name).ravel() for name in ("1.weight", "1.bias")])
        assert file.metadata()["fedmodel"].startswith('{"ema_decay": "0.5"')
    assert written_P == pytest.approx(averaged(models, 0.5), abs=1e-6)
    assert written_P != pytest.approx(models[-1], abs=1e-3)
    folder = tmp_path / "averaged"
    served = ServedModel(scenario, RunFiles(folder, folder / "server", sealed=False), torch.device("cpu"))
    lines = read_metrics(folder / "metrics.jsonl")
    for count, line in enumerate(lines, start=1):
        assert line["model"] == "average"
        measured = served.measure(averaged(models[:count], 0.5).astype(np.float32))
        assert line["loss"] == pytest.approx(measured["loss"], rel=1e-5)
    assert all("model" not in line for line in read_metrics(tmp_path / "plain" / "metrics.jsonl"))


def test_a_scenario_without_an_average_keeps_its_text(tiny_file: Path) -> None:
    plain = read_scenario(str(tiny_file))
    assert "ema_decay" not in plain.model_dump_json()
    assert scenario_hash(plain) != scenario_hash(read_scenario(str(tiny_file), ["training.ema_decay=0.5"]))


@pytest.mark.parametrize("decay", ["0.0", "1.0", "-0.5", "nan"])
def test_a_decay_that_averages_nothing_is_refused(decay: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.ema_decay = .* is not accepted|ema_decay"):
        read_scenario(str(tiny_file), [f"training.ema_decay={decay}"])
