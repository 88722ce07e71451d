"""A run's folder: made for a run that begins, and none where it is refused before anything lies in it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch

from fedmodel.config import Scenario
from fedmodel.errors import ConfigError
from scenarios.deployment import rehearsal
from scenarios.simulation.simulate import check_scenario, run_folder
from tests.scenarios.cli.test_main import Run


def refused(scenario: Scenario, out: Path | None, leaves: str = "") -> None:
    """Have a run refused in its folder."""
    with suppress(ConfigError), run_folder(scenario, out) as folder:
        if leaves:
            (folder / leaves).touch()
        raise ConfigError("refused, as asked")


def test_a_run_that_is_refused_at_once_leaves_no_folder(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for out in (None, Path("one"), Path("one", "two")):
        refused(tiny, out)
        assert list(Path.cwd().iterdir()) == []
    Path("runs", "another").mkdir(parents=True)
    refused(tiny, None)
    assert [path.name for path in Path("runs").iterdir()] == ["another"]
    (tmp_path / "there").mkdir()
    refused(tiny, tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_what_came_to_lie_there_stays(tiny: Scenario, tmp_path: Path) -> None:
    refused(tiny, tmp_path / "run", leaves="metrics.jsonl")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"metrics.jsonl", "scenario.toml"}


def test_a_rehearsal_that_is_refused_before_it_starts_anybody_leaves_no_folder(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(monkeypatch, capsys, tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def submit(*_: object) -> None:
        raise ConfigError("refused, as asked")

    monkeypatch.setattr(rehearsal.runs, "submit", submit)
    for more in ((), ("--out", "deployed")):
        assert run("deploy-local", str(tiny_file), "--loopback", "--no-report", *more) == 2
        assert "refused, as asked" in run.err
        assert sorted(tmp_path.rglob("*")) == before


def test_a_model_is_checked_with_the_threads_that_train(tiny: Scenario) -> None:
    """More of them wait for each other in loops: of digits they took an eighth of a whole run's CPU time."""
    torch.set_num_threads(2)
    try:
        check_scenario(tiny)
        assert torch.get_num_threads() == tiny.training.threads == 1
    finally:
        torch.set_num_threads(1)
