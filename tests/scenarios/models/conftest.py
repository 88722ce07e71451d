"""A finished run on tables, made once, and the command, for tests of what is done with a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.once import once
from tests.runs import simulated
from tests.scenarios.cli.test_main import Run
from tests.scenarios.models.tables import SCENARIO, rows, write_table


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return Run(monkeypatch, capsys, tmp_path)


def _make(folder: Path) -> None:
    for number, party in enumerate(("north", "south", "west", "held-out")):
        write_table(folder / f"{party}.csv", rows(60, number))
    simulated(folder, SCENARIO.replace("FOLDER", str(folder)))


@pytest.fixture(scope="session")
def tabled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on tables that nobody changes; they lie above it."""
    return once(tmp_path_factory, "tabled", _make) / "run"
