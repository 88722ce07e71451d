"""A silo whose budget ends leaves in good order, and one whose ledger went back is not listened to."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import DropoutError
from fedmodel.ledger import Ledger, origin_of, read_ledger, verify_ledger
from fedmodel.ledger.entries import COUNTERSIGNED
from fedmodel.ledger.heads import Head, open_head, sign_head
from fedmodel.privacy import accounting
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import read_identity, read_roster
from scenarios.runs.summary import outcome, read_metrics, rows_from_ledgers
from server.server_app import run_federation
from tests.fakes import FaultyGrid

MODES = {
    "off": [],
    "simulated": ["encryption.secure_aggregation=simulated", "encryption.bound=9.0"],
    "on": ["encryption.secure_aggregation=on", "encryption.bound=9.0", "encryption.window=2"],
}
SILOS = 'federation.silos=["north","south","west","east"]'


def cost_of(rounds: int) -> float:
    """Epsilon of so many rounds of the tiny scenario, rounded up."""
    return math.ceil(accounting.epsilon([DpSgdEvent(2.0, 1.0, 0.5, 2 * rounds, 10)], 1e-3) * 1e4) / 1e4


def scenario_with(tiny_file: Path, mode: str, *settings: str) -> Scenario:
    more = [SILOS, "rounds=5", "federation.min_silos=3", "encryption.colluding=1", "data.partition.min_records=10"]
    return read_scenario(str(tiny_file), [*more, *MODES[mode], *settings])


def run(scenario: Scenario, folder: Path) -> list[dict[str, Any]]:
    run_federation(FaultyGrid(scenario, folder), scenario, folder, torch.device("cpu"))
    return read_metrics(folder / "metrics.jsonl")


def summed(scenario: Scenario, folder: Path) -> dict[str, Any]:
    ledgers = {silo: folder / "ledgers" / f"{silo}.sqlite" for silo in scenario.federation.silos}
    return outcome(scenario, folder, 1.0, rows_from_ledgers(scenario, ledgers))


@pytest.mark.parametrize("mode", MODES)
def test_a_silo_whose_budget_ends_leaves_and_the_run_goes_on(mode: str, tiny_file: Path, tmp_path: Path) -> None:
    scenario = scenario_with(tiny_file, mode, f"budgets.north={cost_of(2)}")
    lines = run(scenario, tmp_path)
    assert [line["round"] for line in lines] == [1, 2, 3, 4, 5]
    assert not any("failed" in line for line in lines)
    left = {"north": {"round": 3, "code": "budget-exceeded"}}
    assert [line["withdrawn"] for line in lines] == [{}, {}, left, left, left]
    assert "north" not in lines[4]["cohort"]
    standing = verify_ledger(tmp_path / "ledgers" / "north.sqlite").standing
    events = standing.events("synthetic/record")
    assert sum(event.steps for event in events) == 4
    assert accounting.epsilon(events, 1e-3) <= standing.scopes["synthetic/record"].epsilon == cost_of(2)
    row = summed(scenario, tmp_path)["privacy"][0]
    # What its budget paid for is its plan, and it took all of that.
    assert (row["silo"], row["steps"], row["steps_reserved"]) == ("north", 4, 4)
    assert row["epsilon"] == row["epsilon_of_steps_taken"] == accounting.epsilon(events, 1e-3)
    for other in ("south", "west", "east"):
        assert len(read_ledger(tmp_path / "ledgers" / f"{other}.sqlite").events("synthetic/record")) == 5
    said = (tmp_path / "logs" / "north.log").read_text()
    assert "the budget pays for 4 of the 10 steps planned, and no more" in said
    assert "PrivacyBudgetExceeded: round 3 asks for 2 steps" in said


@pytest.mark.parametrize("mode", MODES)
def test_a_run_ends_early_with_the_last_good_model_when_too_few_are_left(
    mode: str, tiny_file: Path, tmp_path: Path
) -> None:
    scenario = scenario_with(tiny_file, mode, f"budgets={{north={cost_of(2)},south={cost_of(1)}}}")
    lines = run(scenario, tmp_path)
    assert [("failed" in line) for line in lines] == [False, False, True]
    assert set(lines[-1]["withdrawn"]) == {"north", "south"}
    assert '"round": "2"' in _about(tmp_path / "model.safetensors")
    summary = summed(scenario, tmp_path)
    assert (summary["rounds_completed"], summary["rounds_failed"]) == (2, 1)
    assert summary["ended_early"] == "2 silos withdrew, and fewer than 3 could go on"
    assert summary["withdrawn"] == [
        {"silo": "north", "round": 3, "code": "budget-exceeded"},
        {"silo": "south", "round": 2, "code": "budget-exceeded"},
    ]
    # That others left, and a round failed, may hang on what was released: who went on is charged by its whole plan.
    rows = {row["silo"]: (row["steps"], row["steps_reserved"], row["epsilon"]) for row in summary["privacy"]}
    whole = accounting.epsilon([DpSgdEvent(2.0, 1.0, 0.5, 10, 10)], 1e-3)
    assert rows["north"][:2] == (4, 4)
    assert rows["south"][:2] == (2, 2)
    assert rows["west"] == rows["east"] == (rows["west"][0], 10, whole)
    assert rows["west"][0] < 10


def test_a_masked_run_ends_in_good_order_where_two_are_left(tiny_file: Path, tmp_path: Path) -> None:
    """Two may end a round that three began, as `min_silos` says; they begin none, so the next would fail for ever."""
    three = ['federation.silos=["north","south","west"]', "federation.min_silos=2", "encryption.colluding=0"]
    scenario = scenario_with(tiny_file, "on", *three, f"budgets.north={cost_of(2)}")
    lines = run(scenario, tmp_path)
    assert [line["summed"] for line in lines] == [3, 3, 2, 2]  # to the end of the window that three dealt for
    summary = summed(scenario, tmp_path)
    assert (summary["rounds_completed"], summary["rounds_failed"]) == (4, 0)
    assert summary["ended_early"] == "1 silo withdrew, and fewer than 3 could go on"


def test_two_silos_that_leave_in_one_round_do_not_end_the_run(tiny_file: Path, tmp_path: Path) -> None:
    """The round that both were dealt into fails closed; the next is dealt anew among those that are left."""
    silos = 'federation.silos=["north","south","west","east","mid"]'
    budgets = f"budgets={{north={cost_of(2)},south={cost_of(2)}}}"
    lines = run(scenario_with(tiny_file, "on", silos, budgets, "encryption.window=5"), tmp_path)
    assert [("failed" in line) for line in lines] == [False, False, True, False, False]
    assert [line["summed"] for line in lines] == [5, 5, 0, 3, 3]
    assert lines[3]["cohort"] == lines[4]["cohort"] == ["east", "mid", "west"]
    assert lines[4]["dropouts"] == {}


def test_what_is_said_to_be_in_a_sum_is_what_was_in_it(tiny_file: Path, tmp_path: Path) -> None:
    """A window keeps its cohort: nobody comes in for one that left, and who left is asked no more."""
    settings = ['federation.silos=["north","south","west","east","mid"]', "federation.cohort=4", "encryption.window=5"]
    scenario = scenario_with(tiny_file, "on", *settings)
    (first, *_) = run(scenario, tmp_path / "whole")
    leaving = first["cohort"][0]
    scenario = scenario_with(tiny_file, "on", *settings, f"budgets={{{leaving}={cost_of(2)}}}")
    grid = FaultyGrid(scenario, tmp_path / "one-leaves")
    run_federation(grid, scenario, tmp_path / "one-leaves", torch.device("cpu"))
    lines = read_metrics(tmp_path / "one-leaves" / "metrics.jsonl")
    assert [line["summed"] for line in lines] == [4, 4, 3, 3, 3]
    assert [line["cohort"] for line in lines[3:]] == [first["cohort"][1:]] * 2
    summary = summed(scenario, tmp_path / "one-leaves")
    assert summary["encryption"]["least_silos_in_a_sum"] == 3
    said = (tmp_path / "one-leaves" / "logs" / f"{leaving}.log").read_text()
    assert said.count("PrivacyBudgetExceeded") == 1


def test_a_budget_that_pays_for_no_round_keeps_a_silo_out_from_the_start(tiny_file: Path, tmp_path: Path) -> None:
    lines = run(scenario_with(tiny_file, "off", "budgets.north=0.01"), tmp_path)
    assert lines[0]["withdrawn"] == {"north": {"round": 0, "code": "budget-exceeded"}}
    assert len(lines) == 5


def test_the_same_kit_pays_for_one_run(tiny_file: Path, tmp_path: Path) -> None:
    """However often a server starts a scenario again, under whatever run."""
    scenario = scenario_with(tiny_file, "off")
    run(scenario, tmp_path)
    spent = [read_ledger(path).size for path in sorted((tmp_path / "ledgers").iterdir())]
    for _ in range(3):
        with pytest.raises(DropoutError, match="0 silos are too few to begin"):
            run(scenario, tmp_path)
    assert [read_ledger(path).size for path in sorted((tmp_path / "ledgers").iterdir())] == spent


def test_the_server_keeps_the_newest_head_of_every_ledger(tiny_file: Path, tmp_path: Path) -> None:
    run(scenario_with(tiny_file, "on"), tmp_path)
    keys = {member.name: member.key for member in read_roster(tmp_path / "server").members}
    for silo, key in keys.items():
        note = (tmp_path / "server" / "heads" / silo).read_bytes()
        head = open_head(note, origin_of(silo), key)
        found = verify_ledger(tmp_path / "ledgers" / f"{silo}.sqlite", key, [note])
        assert head.size == found.head.size
        assert sum(entry.kind == "charge" for entry in found.entries) == 5
        assert found.entries[-1].content["subject"] == COUNTERSIGNED
        assert head.root == found.head.root


@pytest.mark.parametrize("mode", MODES)
def test_a_ledger_that_went_back_is_noticed_by_the_server_alone(mode: str, tiny_file: Path, tmp_path: Path) -> None:
    """Both the ledger and the head beside the silo's keys are put back; what the server keeps is newer."""
    scenario = scenario_with(tiny_file, mode)
    names = ("ledgers/north.sqlite", "silos/north/ledger.head")
    grid = FaultyGrid(scenario, tmp_path)

    def put_back(node: int, reply: Any) -> Any:
        metrics = tmp_path / "metrics.jsonl"
        done = metrics.read_text().count("\n") if metrics.exists() else 0
        backup = tmp_path / "backup"
        if done == 1 and not backup.exists():
            backup.mkdir()
            for name in names:
                shutil.copy(tmp_path / name, backup / Path(name).name)
        if done == 3 and backup.exists() and not (tmp_path / "restored").exists():
            for name in names:
                shutil.copy(backup / Path(name).name, tmp_path / name)
            (tmp_path / "restored").touch()
        return reply

    grid._fault = put_back
    run_federation(grid, scenario, tmp_path, torch.device("cpu"))
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert (tmp_path / "restored").exists()
    assert [line["dropouts"].get("north") for line in lines][-1] == "ledger-tampered"
    said = (tmp_path / "logs" / "north.log").read_text()
    assert "where the head that the server keeps has" in said
    assert "if a backup was put back, put the newest file in its place" in said


def test_the_server_refuses_a_silo_whose_head_does_not_follow(tiny_file: Path, tmp_path: Path) -> None:
    """A silo that does not look at what the server knows: its update is in no sum all the same."""
    scenario = scenario_with(tiny_file, "off", "rounds=1")
    folder = tmp_path / "run"
    grid = FaultyGrid(scenario, folder)
    # The head that the server keeps is of another ledger under the same key, as after a rollback and a new beginning.
    identity = read_identity(folder / "silos" / "north")
    (folder / "server" / "heads").mkdir()
    kept = sign_head(Head(origin_of("north"), 2, b"\1" * 32), identity)
    (folder / "server" / "heads" / "north").write_bytes(kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "check_extends", lambda *_: 2)
        run_federation(grid, scenario, folder, torch.device("cpu"))
    (line,) = read_metrics(folder / "metrics.jsonl")
    assert line["dropouts"] == {"north": "ledger-tampered"}
    assert (folder / "server" / "heads" / "north").read_bytes() == kept


def _about(path: Path) -> str:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return str(header["__metadata__"]["fedmodel"])
