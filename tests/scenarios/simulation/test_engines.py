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
from scenarios.simulation.engines import KINDS, Simulation, engine_of, flower
from scenarios.simulation.prepared import prepare
from scenarios.simulation.simulate import simulate


class Elsewhere:
    """An engine without a message: it hands the run to another one, and notes what it was given."""

    one_process = True
    keeps_ledgers = True
    noise_added = "elsewhere"
    records_read = "Records were read elsewhere."

    def __init__(self) -> None:
        self.given: list[Simulation] = []

    def check(self, scenario: Scenario) -> None:
        """Refuse nothing."""

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


@pytest.mark.parametrize(
    ("nodes", "threads", "cores", "cards", "cpus", "gpus"),
    [
        (10, 1, 8, 0, 1, 0.0),
        (10, 1, 8, 1, 1, 0.125),
        (3, 1, 8, 1, 1, 0.333),
        (10, 4, 8, 2, 4, 1.0),
        (10, 64, 8, 1, 8, 1.0),
        (2, 1, 8, 4, 1, 1.0),
    ],
)
def test_flower_gives_all_silos_whose_turn_it_is_room(
    nodes: int, threads: int, cores: int, cards: int, cpus: int, gpus: float
) -> None:
    """No silo asks for more than there is, and cards do not keep one waiting that a core is free for."""
    told = flower.shared_out(nodes, threads, cores, cards)
    assert told == f"num-supernodes={nodes} client-resources-num-cpus={cpus} client-resources-num-gpus={gpus}"
    assert gpus * min(nodes, cores // cpus) <= cards


@pytest.mark.parametrize(
    ("device", "visible", "cards", "told"),
    [
        ("cpu", "", [], "cpu"),
        ("cuda", "", ["0", "1"], "cuda"),
        ("cuda:1", "", ["1"], "cuda"),
        ("cuda:1", "GPU-a,GPU-b", ["GPU-b"], "cuda"),
    ],
)
def test_flowers_workers_see_the_cards_that_were_asked_for(
    device: str, visible: str, cards: list[str], told: str, tiny: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[object, ...]] = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(flower, "run_under_flower", lambda *words: given.append(words))
    engine_of("flower").carry(Simulation(tiny, Path("r"), device, ""))
    ((config, _, federation, seen),) = given
    assert (config["device"], seen) == (told, cards)  # type: ignore[index]
    assert ("num-gpus=0.0" in str(federation)) == (not cards)


def test_a_run_that_names_no_engine_is_with_ledgers_or_of_many_silos_without_and_that_is_said(
    tiny_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare(tiny_file, (), None, "cpu", tmp_path / "r").engine == "in-process"
    monkeypatch.setattr(engines, "MANY", 3)
    assert caplog.text == ""
    assert prepare(tiny_file, (), None, "cpu", tmp_path / "r").engine == "vectorised"
    assert "3 silos train together, by --engine vectorised, and no ledger is kept" in caplog.text
    assert prepare(tiny_file, (), "in-process", "cpu", tmp_path / "r").engine == "in-process"
    budget = ["budgets.north=9.0"]  # of which the one without ledgers knows nothing
    assert prepare(tiny_file, budget, None, "cpu", tmp_path / "r").engine == "in-process"
