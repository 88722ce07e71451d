"""`flwr run` on a folder that `fedmodel new --flower` made: Flower's own command, SuperLink and workers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from fedmodel.ledger import verify_ledger
from fedmodel.provision import read_identity
from scenarios.simulation.engines import flower

FEDMODEL = Path(sys.executable).parent / "fedmodel"
OWN = ("--data=own", "--task=classification", "--records=40:90", "--silos=a,b,c", "--epsilon=8")


def test_a_draft_runs_by_flowers_command_on_fewer_nodes_than_silos_and_goes_on_when_it_was_stopped(
    tmp_path: Path,
) -> None:
    """Flower simulates two nodes where nobody says how many; the SuperLink works in a folder that has nothing of it."""
    subprocess.run([str(FEDMODEL), "new", "--out", "study", "--flower", *OWN], cwd=tmp_path, check=True)
    study, empty, port = tmp_path / "study", tmp_path / "empty", flower.free_port()
    empty.mkdir()
    environment = flower.flower_environment(tmp_path / "home", port)
    command = ["run", ".", "--run-config", 'set="rounds=3"']
    with flower._superlink(port, empty, environment, tmp_path / "log"):
        run_dir = study / "runs" / str(flower.flwr_json(command, study, environment)["run-id"])
        deadline = time.monotonic() + 300
        while not (run_dir / "metrics.jsonl").exists():
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
    assert not (run_dir / "summary.json").exists()
    with flower._superlink(port, empty, environment, tmp_path / "log"):
        number = str(flower.flwr_json(command, study, environment)["run-id"])
        assert flower.follow(number, study, environment) == "finished:completed", (tmp_path / "log").read_text()
    assert [path.name for path in run_dir.parent.iterdir()] == [run_dir.name] != [number]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["engine"], summary["rounds_completed"]) == ("flower", 3)
    assert [row["silo"] for row in summary["privacy"]] == ["a", "b", "c"]
    assert all(row["protects"] and row["epsilon"] <= 8.0 for row in summary["privacy"])
    for silo in "abc":
        verify_ledger(run_dir / "ledgers" / f"{silo}.sqlite", read_identity(run_dir / "silos" / silo).public)
    assert (run_dir / "report.html").is_file()
    bundles = [path for path in (tmp_path / "home").rglob("*") if path.suffix in (".py", ".csv")]
    assert bundles == []  # code and records are read where they lie, and Flower has no copy
