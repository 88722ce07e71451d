"""The app that `flwr run` starts: what it is told, where it writes, and what it refuses before it does."""

from __future__ import annotations

import json
import logging
import tomllib
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.cli.config_utils import load_and_validate
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.object_ref import load_app

from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.kinds import own_code
from fedmodel.system.durable import held
from scenarios.face.flower_app import client, server
from scenarios.simulation.grid import InProcessGrid
from scenarios.simulation.resuming import LOCK
from tests.scenarios.cli.test_main import Run
from tests.scenarios.face.test_run import interrupted

OWN = ("--data=own", "--task=regression", "--records=40:90", "--silos=a,b,c", "--epsilon=8", "--flower")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> dict[str, Any]:
    """What the file that a draft has tells the app."""
    assert Run(monkeypatch, capsys, tmp_path)("new", "--out", "9-study", *OWN) == 0
    config, warnings = load_and_validate(tmp_path / "9-study" / "pyproject.toml")
    assert warnings == ['Recommended property "license" missing in [project]']  # whose it is, is the owner's to say
    app = config["tool"]["flwr"]["app"]
    assert isinstance(load_app(app["components"]["serverapp"], ValueError), ServerApp)
    assert isinstance(load_app(app["components"]["clientapp"], ValueError), ClientApp)
    return dict(app["config"])


def carried(told: dict[str, Any], number: int = 77) -> None:
    """Call the app as Flower does, in another folder than the scenario's paths begin in."""
    try:
        server(InProcessGrid(client, 2, {}), Context(number, 1, {}, RecordDict(), told))
    finally:
        own_code.close()


def test_the_run_lies_beside_the_scenario_under_flowers_number(
    told: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told["folder"] == str(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    carried({**told, "set": "rounds=1 privacy.epsilon=2.0"})
    run_dir = tmp_path / "9-study" / "runs" / "77"
    scenario = tomllib.loads((run_dir / "scenario.toml").read_text())
    assert (scenario["rounds"], scenario["privacy"]["epsilon"]) == (1, 2.0)
    assert (run_dir / "report.html").is_file()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    with pytest.raises(ConfigError, match="holds a run that has ended"):
        carried({**told, "set": "rounds=1 privacy.epsilon=2.0"})


def lines(run_dir: Path) -> list[int]:
    return [json.loads(line)["round"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_that_was_stopped_goes_on_by_the_same_command(
    told: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the folder that it began in, with the seed that it drew, under another number of Flower's."""
    runs, said = tmp_path / "9-study" / "runs", {**told, "set": "rounds=2 seed="}
    for number, words in ((71, said), (72, {**told, "set": "rounds=2 seed= privacy.epsilon=4.0"})):
        with monkeypatch.context() as patch:
            interrupted(patch, 1)
            with pytest.raises(KeyboardInterrupt):
                carried(words, number)
    (runs / "odd").mkdir()
    (runs / "odd" / "run.json").write_text("{}", encoding="utf-8")
    begun = (runs / "71" / "run.json").read_bytes()
    with caplog.at_level(logging.INFO, logger="flwr"):
        carried(said, 73)
    assert f"Goes on with the run that was cut short in {runs / '71'}" in caplog.text
    assert (runs / "71" / "run.json").read_bytes() == begun
    assert lines(runs / "71") == [1, 2]
    summary = json.loads((runs / "71" / "summary.json").read_text(encoding="utf-8"))
    assert {row["steps"] for row in summary["privacy"]} == {row["steps_reserved"] for row in summary["privacy"]}
    assert lines(runs / "72") == [1]
    assert sorted(path.name for path in runs.iterdir()) == ["71", "72", "odd"]
    carried(said, 74)  # which has ended, so that a new one begins
    assert lines(runs / "74") == [1, 2]


def test_a_run_that_another_command_runs_now_is_left_to_it(
    told: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, said = tmp_path / "9-study" / "runs", {**told, "set": "rounds=1 seed=3"}
    with monkeypatch.context() as patch:
        interrupted(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            carried(said, 71)
    with held(runs / "71" / LOCK, "held"):
        carried(said, 72)
    assert not (runs / "71" / "summary.json").exists()
    assert (runs / "72" / "summary.json").exists()


def test_made_up_tables_are_read_where_the_scenarios_paths_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ward.csv").write_text("age,outcome\n50,home\n60,ward\n")
    said = ("--label=outcome", "--labels=home,ward", "--person=record", "--range=age=18:90", *OWN[2:])
    run = Run(monkeypatch, capsys, tmp_path)
    assert run("new", "--from", "ward.csv", "--out", "study", *said) == 0, run.err
    assert "flwr run study --stream" in run.out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = (tmp_path / "study" / "pyproject.toml").read_text()
    assert "/ward" not in text
    carried({**tomllib.loads(text)["tool"]["flwr"]["app"]["config"], "set": "rounds=1"}, 78)
    assert (tmp_path / "study" / "runs" / "78" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ({"folder": "/nowhere/at/all"}, r"folder = '/nowhere/at/all' in the folder's pyproject.toml.*was it moved\?"),
        ({"folder": "."}, "folder = '.' in .* is no folder, said from the root"),
        ({"folder": ""}, "folder = '' in"),
        ({"scenario": "study.toml"}, "scenario = 'study.toml' in .* is no file in"),
        ({"scenario": ""}, "scenario = '' in"),
        ({"device": "gpu"}, 'device = \'gpu\' in .*say "cpu" or "cuda"'),
        ({"set": "privacy.delta=0.5"}, "delta"),
        ({"set": "model.width=many"}, "model.use = 'model:net' raised TypeError"),
        ({"set": "rounds"}, "expected key=value"),
        ({"set": 'rounds="'}, "set = 'rounds=\"' in .*quotation"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(
    said: dict[str, str], refused: str, told: dict[str, Any], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FedmodelError, match=refused) as raised:
        carried(told | said)
    assert "\n" not in str(raised.value)
    assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts] == before
