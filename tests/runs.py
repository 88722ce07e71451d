"""Finished runs for tests of what is said about one: small, with every silo in each sum."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from fedmodel.config import read_scenario
from scenarios.simulation.simulate import check_scenario, run_folder, simulate
from tests.conftest import TINY
from tests.once import once

MASKED = TINY + '\n[encryption]\nsecure_aggregation = "on"\nbound = 4.0\ncolluding = 1\n'
SILOS = ("north", "south", "west")


def simulated(folder: Path, text: str, *settings: str, kits_ready: Callable[[Path], None] = lambda run: None) -> Path:
    """Run a scenario in a folder, and return the run's own folder."""
    (folder / "scenario.toml").write_text(text, encoding="utf-8")
    scenario = read_scenario(str(folder / "scenario.toml"), ["federation.min_silos=3", *settings])
    with run_folder(scenario, folder / "run") as run_dir:
        ready = partial(kits_ready, run_dir)
        simulate(scenario, check_scenario(scenario), "in-process", "cpu", run_dir, nullcontext(), ready)
    return run_dir


def copied(run: Path, to: Path) -> Path:
    """Return another of the same run, to be changed."""
    return Path(shutil.copytree(run, to))


@pytest.fixture(scope="session")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under masks, without a report, that nobody changes."""
    return once(tmp_path_factory, "masked", lambda folder: simulated(folder, MASKED)) / "run"


@pytest.fixture(scope="session")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, whose north has a cap that leaves room for other runs."""
    return once(tmp_path_factory, "roomy", lambda folder: simulated(folder, MASKED, "budgets.north=9.0")) / "run"


PURPOSE = """
[purpose]
statement = "Find masses for a second reading."
controller = "North Trust <b>"
"""


@pytest.fixture(scope="session")
def stated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under masks whose scenario says what it is for, and of whose silos north's law says who answers."""

    def made(folder: Path) -> None:
        run = simulated(folder, MASKED + PURPOSE)
        with (run / "silos" / "north" / "silo.toml").open("a", encoding="utf-8") as law:
            law.write('\n[controller]\nname = "North Trust"\nretention = "ten years"\n')

    return once(tmp_path_factory, "stated", made) / "run"
