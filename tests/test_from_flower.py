"""docs/from-flower.md: both scripts run as they stand there, and the tables have names that exist."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import flwr.simulation
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp, strategy
from flwr.supercore.task_identity import TaskIdentity
from typer.testing import CliRunner

from fedmodel.config import Scenario
from fedmodel.kinds import own_code
from fedmodel.system.environment import SWITCHES
from scenarios.cli.main import app as entry
from scenarios.drafts.flower import project_text
from scenarios.face.said import Objects

PAGE = (Path(__file__).parents[1] / "docs" / "from-flower.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def run(names: dict[str, Any], *blocks: str) -> dict[str, Any]:
    """Run blocks of the page as its reader would."""
    for block in blocks:
        exec(compile(block, "docs/from-flower.md", "exec", dont_inherit=True), names)  # noqa: S102 - our own page
    return names


def test_our_script_runs_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stays, _, ours = BLOCKS
    try:
        names = run({"__name__": "__main__"}, stays, ours)
    finally:
        own_code.close()
    assert names["run"].epsilon <= 8.0
    assert len(names["run"].privacy) == names["CLIENTS"]
    assert names["run"].figures["accuracy"] > 0.2  # chance is a tenth


def test_the_client_and_the_evaluation_of_flowers_script_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's runtime, which takes long to start, is left out: each function is called as it calls them."""
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    begun: list[tuple[ServerApp, ClientApp, int]] = []
    monkeypatch.setattr(flwr.simulation, "run_simulation", lambda *said: begun.append(said))
    names = run({"__name__": "__main__"}, *BLOCKS[:2])
    ((_, client, clients),) = begun
    assert clients == 3
    start = ArrayRecord(names["Net"]().state_dict())
    content = RecordDict({"arrays": start, "config": ConfigRecord()})
    context = Context(1, 1, {"partition-id": 0}, RecordDict(), {})
    reply = client(Message(content, dst_node_id=1, message_type="train"), context)
    trained = reply.content["arrays"]
    assert isinstance(trained, ArrayRecord)
    before, after = (float(names["evaluate"](0, arrays)["accuracy"]) for arrays in (start, trained))
    assert after > max(0.3, before)


@pytest.mark.slow
@pytest.mark.processes
def test_flowers_script_runs_under_flower(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("\n".join(BLOCKS[:2]), encoding="utf-8")
    words = [sys.executable, "script.py"]
    done = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, **SWITCHES}, capture_output=True, text=True, check=True
    )
    figures = re.findall(r"'accuracy': (\d\.\d+)", done.stdout.splitlines()[-1])
    assert len(figures) == 4
    assert float(figures[-1]) > 0.5


def test_the_page_says_every_key_that_flowers_command_is_given(tmp_path: Path) -> None:
    part = PAGE.partition("## By Flower's own command")[2].partition("\n## ")[0]
    keys = re.findall(r"^\| `(\w+)` \|", part, flags=re.MULTILINE)
    app = tomllib.loads(project_text("study", tmp_path, Path("study/study.toml")))["tool"]["flwr"]["app"]
    assert keys == list(app["config"])
    assert all(f"`{name}={value}`" in part for name, value in SWITCHES.items())
    line = re.search(r"^fedmodel (new .*)$", part, flags=re.MULTILINE)
    assert line is not None
    written = CliRunner().invoke(entry, line[1].replace("study", str(tmp_path / "study")).split())
    assert written.exit_code == 0, written.output
    assert (tmp_path / "study" / "pyproject.toml").is_file()


def test_the_table_has_names_of_flower_and_names_of_ours() -> None:
    part = PAGE.partition("## What carries over")[2].partition("## By Flower")[0]
    rows = [[re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:3]] for line in part.splitlines()]
    rows = [row for row in rows if len(row) == 2 and row[0]]
    theirs = set(strategy.__all__)
    for one in (strategy.FedAvg, strategy.FedAvg.start, strategy.FedProx):
        theirs |= set(inspect.signature(one).parameters)
    federation = Scenario.model_fields["federation"].annotation
    assert federation is not None
    ours = Objects.__annotations__.keys() | {f"federation.{key}" for key in federation.model_fields}
    assert len(rows) == 11
    assert {name for row in rows for name in row[0]} <= theirs
    assert {name for row in rows for name in row[1]} <= ours
    for name in ("QFedAvg", "FedXgbBagging", "FedXgbCyclic"):  # said to have no counterpart
        assert name in theirs
        assert f"`{name}`" in PAGE
