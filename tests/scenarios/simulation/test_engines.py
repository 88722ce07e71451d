"""Engines: found by their files, given a run as a whole, and said of in the report by their own words."""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

import fedmodel as fm
from fedmodel.config import Scenario
from fedmodel.errors import ConfigError
from scenarios.cli.main import app
from scenarios.simulation import engines
from scenarios.simulation.engines import KINDS, Simulation, engine_of
from scenarios.simulation.prepared import prepare
from scenarios.simulation.simulate import simulate


class Elsewhere:
    """An engine without a message: it hands the run to another one, and notes what it was given."""

    one_process = True
    noise_added = "elsewhere"
    records_read = "Records were read elsewhere."

    def __init__(self) -> None:
        self.given: list[Simulation] = []

    def carry(self, simulation: Simulation) -> None:
        self.given.append(simulation)
        engine_of("in-process").carry(simulation)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """One engine more, as its file would make it."""
    module = ModuleType("elsewhere")
    module.ENGINE = engine = Elsewhere()  # type: ignore[attr-defined]
    monkeypatch.setitem(KINDS, "elsewhere", module)
    return engine


def test_an_engine_is_given_the_run_as_a_whole(tiny: Scenario, tmp_path: Path, elsewhere: Elsewhere) -> None:
    prepared = prepare(tiny, (), "elsewhere", "cpu", tmp_path / "r")
    with prepared.held() as run_dir:
        summary = prepared.run(run_dir, nullcontext())
    (given,) = elsewhere.given
    assert (given.scenario, given.run_dir, given.device) == (prepared.scenario, run_dir, "cpu")
    assert given.run_config["run"] == given.run != ""
    assert summary["engine"] == "elsewhere"
    assert summary["rounds_completed"] == tiny.rounds


def test_an_engine_that_is_not_known_is_refused_before_anything_is_written(tiny: Scenario, tmp_path: Path) -> None:
    for ask in (
        lambda: prepare(tiny, (), "in-proces", "cpu", tmp_path / "r"),
        lambda: fm.simulate(tiny, engine="in-proces", out=tmp_path / "r"),
        lambda: simulate(tiny, 1, "in-proces", "cpu", tmp_path / "r", nullcontext()),
    ):
        with pytest.raises(ConfigError, match=r"^--engine: unknown engine 'in-proces'; did you mean 'in-process'\?$"):
            ask()
    assert not (tmp_path / "r").exists()
    done = CliRunner().invoke(app, ["simulate", "quickstart", "--engine", "in-proces"])
    assert done.exit_code == 2
    assert all(name in done.output for name in KINDS)


def test_each_engine_says_for_the_report_where_noise_is_added_and_who_reads_records() -> None:
    for name in KINDS:
        engine = engine_of(name)
        assert engine.records_read.endswith(".")
        assert engine.noise_added == engine.noise_added.strip(" .")


def test_to_list_engines_imports_neither_flower_nor_torch() -> None:
    listing = f"import sys, {engines.__name__}; print({{'flwr', 'torch', 'ray'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_script_prints_nothing_that_it_did_not_ask_for(tmp_path: Path) -> None:
    """Opacus sets up everybody's logging as it is imported, where nobody else did."""
    own = 'model={kind="own", use="torch.nn:Linear", in_features=10, out_features=1}'
    words = f"import fedmodel, logging; fedmodel.simulate('quickstart', ['rounds=1', {own!r}], out='r')"
    told = "print(logging.getLogger().handlers)"
    done = subprocess.run(
        [sys.executable, "-c", f"{words}; {told}"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_logging_that_a_script_set_up_is_left_alone(tiny: Scenario, tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers)
    prepare(tiny, (), "in-process", "cpu", tmp_path / "r")
    assert logging.getLogger().handlers == before
