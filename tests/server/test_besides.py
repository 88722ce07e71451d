"""Jobs besides training over the real apps: asked last and once each, counted evenly, and never a reason to fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message

from fedmodel import wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.data import silo_records
from fedmodel.privacy.noise import OsNoise
from scenarios.runs.summary import outcome, rows_from_ledgers
from server.server_app import run_federation
from tests.fakes import Fault, FaultyGrid
from tests.server.test_rounds import CPU, lines, quick, without

NAME = "label-counts"
COUNTING = [f"besides.{NAME}.noise_multiplier=4.0", f"besides.{NAME}.bound=60.0"]
ON = ["encryption.secure_aggregation=on", "encryption.bound=50.0", "encryption.colluding=0",
      'federation.silos=["north","south","west","east"]', "data.partition.min_records=10",
      "encryption.window=2", "federation.weights.east=1.5"]  # fmt: skip
SIMULATED = ["encryption.secure_aggregation=simulated", "encryption.bound=0.5"]


def counting(tiny_file: Path, *settings: str) -> Scenario:
    return read_scenario(str(tiny_file), [*COUNTING, *settings])


def besides(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "besides.jsonl").read_text().splitlines()]


def labels(scenario: Scenario, *silos: str) -> list[int]:
    """Return how many records of each class these silos hold."""
    of_each = [np.bincount(silo_records(scenario, silo).y_N, minlength=2) for silo in silos]
    return np.sum(of_each, axis=0).tolist()


@pytest.fixture
def noiseless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave noise out, so that what is told can be compared with what is there."""
    monkeypatch.setattr(OsNoise, "gaussian", lambda _, size, std, device: torch.zeros(size, dtype=torch.float64))


@pytest.mark.usefixtures("noiseless")
@pytest.mark.parametrize("settings", [[], ["federation.weights.north=3.0"], SIMULATED, ON])
def test_the_records_of_all_silos_are_counted_each_once_whatever_the_weights(
    settings: list[str], tiny_file: Path, tmp_path: Path
) -> None:
    scenario = counting(tiny_file, *settings)
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    (line,) = besides(tmp_path)
    silos = scenario.federation.silos
    assert list(line["counts"].values()) == pytest.approx(labels(scenario, *silos), abs=0.05)
    assert (line["round"], line["job"], line["summed"]) == (3, NAME, len(silos))
    assert line["noise_std"] == 4.0 * len(silos) ** 0.5
    assert [one["round"] for one in lines(tmp_path)] == [1, 2]
    assert not any("job" in one or "counts" in one for one in lines(tmp_path))


def test_a_summary_says_what_a_job_came_to_and_its_epsilon_is_of_all_parts(tiny_file: Path, tmp_path: Path) -> None:
    scenario, alone = counting(tiny_file), read_scenario(str(tiny_file))
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    run_federation(FaultyGrid(alone, tmp_path / "alone"), alone, tmp_path / "alone", CPU)
    ledgers = [{silo: at / "ledgers" / f"{silo}.sqlite" for silo in alone.federation.silos}
               for at in (tmp_path, tmp_path / "alone")]  # fmt: skip
    (row, *_), (less, *_) = rows_from_ledgers(scenario, ledgers[0]), rows_from_ledgers(alone, ledgers[1])
    assert row["epsilon"] > less["epsilon"] + 0.1
    assert lines(tmp_path)[0]["epsilon"]["north"] == pytest.approx(row["epsilon"], rel=1e-3)  # type: ignore[index]
    told = outcome(scenario, tmp_path, 1.0, [])
    assert told["besides"].keys() == {NAME}
    assert told["besides"][NAME].keys() == {"silos", "noise_std", "counts"}
    assert "besides" not in outcome(alone, tmp_path / "alone", 1.0, [])


def _but(number: int, *silos: str) -> Fault:
    """Answers of these silos in one round never come."""
    nodes = {2 + ["north", "south", "west"].index(silo) for silo in silos}

    def fault(node: int, reply: Message) -> Message | None:
        is_gone = reply.metadata.message_type == wire.TRAIN and node in nodes and not reply.has_error()
        return None if is_gone and wire.read_train_reply(reply).round_number == number else reply

    return fault


@pytest.mark.usefixtures("noiseless")
def test_silos_that_do_not_answer_are_not_counted(tiny_file: Path, tmp_path: Path) -> None:
    scenario = quick(counting(tiny_file))
    run_federation(FaultyGrid(scenario, tmp_path, _but(3, "south")), scenario, tmp_path, CPU)
    (line,) = besides(tmp_path)
    assert (line["summed"], line["dropouts"]) == (2, {"south": "late"})
    assert list(line["counts"].values()) == pytest.approx(labels(scenario, "north", "west"), abs=0.05)


def test_a_job_that_fails_closed_fails_no_run_and_is_said(tiny_file: Path, tmp_path: Path) -> None:
    scenario = quick(counting(tiny_file))
    run_federation(FaultyGrid(scenario, tmp_path, _but(3, "south", "west")), scenario, tmp_path, CPU)
    (line,) = besides(tmp_path)
    assert line["failed"] is True
    assert line["charged"] == ["north"]
    assert "counts" not in line
    assert [one["round"] for one in lines(tmp_path)] == [1, 2]
    assert (tmp_path / "model.safetensors").exists()
    assert outcome(scenario, tmp_path, 1.0, [])["besides"][NAME]["failed"] is True


def test_a_run_that_ends_early_still_asks(tiny_file: Path, tmp_path: Path) -> None:
    scenario = counting(tiny_file, "stop_below_loss=100.0")
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    assert [line["round"] for line in lines(tmp_path)] == [1]
    assert [line["round"] for line in besides(tmp_path)] == [3]


def test_nobody_is_asked_where_too_few_are_left(tiny_file: Path, tmp_path: Path) -> None:
    """Two of three have a budget of one round and of the counts: asked, they would pay for what is never summed."""
    scenario = counting(tiny_file, "budgets.south=1.5", "budgets.west=1.5")
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    (line,) = besides(tmp_path)
    assert line["failed"] is True
    assert (line["cohort"], line["charged"], line["dropouts"]) == ([], [], {})


def test_a_silo_that_charges_a_job_otherwise_than_planned_is_left_out(tiny_file: Path, tmp_path: Path) -> None:
    """It says training's charge."""

    def fault(node: int, reply: Message) -> Message | None:
        if node != 2 or reply.metadata.message_type != wire.TRAIN:
            return reply
        answer = wire.read_train_reply(reply)
        if answer.round_number == 2:
            said.append(answer.charged)
        if answer.round_number == 3:
            changed = wire.TrainReply(3, said[0], answer.update_P, answer.head)
            reply.content = wire.train_reply(changed)
        return reply

    said: list[Any] = []
    scenario = counting(tiny_file)
    run_federation(FaultyGrid(scenario, tmp_path, fault), scenario, tmp_path, CPU)
    (line,) = besides(tmp_path)
    assert line["dropouts"] == {"north": "protocol-violated"}
    assert line["summed"] == 2


def test_a_silo_that_never_joined_is_not_asked(tiny_file: Path, tmp_path: Path) -> None:
    scenario = quick(counting(tiny_file))
    run_federation(FaultyGrid(scenario, tmp_path, without("west", only=wire.JOIN)), scenario, tmp_path, CPU)
    assert besides(tmp_path)[0]["cohort"] == ["north", "south"]
