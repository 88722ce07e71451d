"""A run as a script reads it: one that has ended, and one that was cut short and goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedmodel as fm
from fedmodel.data import held_out_records
from fedmodel.learning.tasks.classification import probabilities
from scenarios.report.build import verify
from server.metrics import MetricsLog


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> fm.Run:
    """A run of one round, that nothing is changed of."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("face")
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    return fm.simulate(folder / "tiny.toml", ["rounds=1"], out=folder / "run")


def test_a_run_from_python_is_a_run_of_the_command(run: fm.Run) -> None:
    assert set(run.privacy.index) == {"north", "south", "west"}
    plan = run.scenario.plan("north")
    bound = fm.epsilon(noise_multiplier=2.0, sample_rate=plan.sample_rate, steps=plan.steps, delta=plan.delta)
    assert 0 < run.epsilon <= bound
    assert run.epsilon == max(run.privacy["epsilon"])
    assert list(run.metrics.index) == [1]
    assert run.metrics.loc[1, "loss"] == run.figures["loss"]
    again = fm.Run.read(run.folder)
    assert (again.summary, again.epsilon, again.ended) == (run.summary, run.epsilon, True)
    assert again.scenario == run.scenario
    with pytest.raises(fm.ConfigError, match="has ended"):
        fm.simulate(run.scenario, out=run.folder)


def test_its_model_is_the_one_whose_figures_it_tells(run: fm.Run) -> None:
    held_out = held_out_records(run.scenario)
    assert not run.model.training
    with torch.no_grad():
        chance_BK = probabilities(run.scenario.training.loss, run.model(torch.from_numpy(held_out.x_NF)))
    told_B = chance_BK.argmax(dim=1).numpy()
    assert float(np.mean(told_B == held_out.y_N)) == pytest.approx(run.figures["accuracy"])


def test_what_is_shown_of_it_says_its_claim_and_runs_nothing(run: fm.Run) -> None:
    for shown in (repr(run), run._repr_html_()):
        assert "1 of 1 round, 3 silos" in shown
        assert "per record, at each silo" in shown
    assert "<script" not in run._repr_html_()
    assert run.plot()._repr_png_().startswith(b"\x89PNG")


def test_its_report_is_made_when_it_is_asked_for_and_a_copy_of_it_all_verifies(run: fm.Run, tmp_path: Path) -> None:
    assert run.report == run.folder / "report.html"
    assert run.report.is_file()
    copy = run.save(tmp_path / "kept")
    verify(copy.folder)
    assert fm.Run.read(tmp_path / "kept").summary == run.summary
    assert copy.report.is_file()
    with pytest.raises(fm.ConfigError, match="is not an empty folder"):
        run.save(tmp_path / "kept")


def test_a_baseline_is_infinite_and_says_that_it_protects_nobody(tiny_file: Path, tmp_path: Path) -> None:
    scenario = fm.Scenario.read(tiny_file, ["rounds=1", "privacy.baseline=no-noise"])
    with pytest.raises(fm.ConfigError, match="already says its own"):
        fm.simulate(scenario, ["rounds=2"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = fm.simulate(scenario, out=tmp_path / "run")
    assert run.epsilon == math.inf
    assert "protects nobody" in run._repr_html_()
    assert "Nothing is claimed" in repr(run)


def interrupted(monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    """Have Ctrl-C come right after so many rounds are written."""
    append = MetricsLog.append

    def then_stop(self: MetricsLog, line: Any) -> None:
        append(self, line)
        if line["round"] == rounds:
            raise KeyboardInterrupt

    monkeypatch.setattr(MetricsLog, "append", then_stop)


def test_an_interrupted_run_can_be_looked_at_and_the_same_call_goes_on(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simulate() -> fm.Run:
        return fm.simulate(tiny_file, ["rounds=3", "seed="], out=tmp_path / "run")

    with monkeypatch.context() as patch:
        interrupted(patch, 2)
        with pytest.raises(KeyboardInterrupt, match="interrupted after 2 whole rounds"):
            simulate()
    cut = fm.Run.read(tmp_path / "run")
    assert not cut.ended
    assert list(cut.metrics.index) == [1, 2]
    assert cut.summary["rounds_completed"] == 2
    assert cut.figures["loss"] == cut.metrics.loc[2, "loss"]
    assert set(cut.privacy["steps"]) == {4}
    assert set(cut.privacy["steps_reserved"]) == {6}
    assert cut.epsilon > 0
    for shown in (cut._repr_html_(), repr(cut)):
        assert "2 of 3 rounds, 3 silos" in shown
    assert "cut short" in cut._repr_html_()
    for asked in (lambda: cut.model, lambda: cut.report):
        refused(asked)
    run = simulate()
    assert run.ended
    assert list(run.metrics.index) == [1, 2, 3]
    assert run.scenario.seed == cut.scenario.seed
    assert run.epsilon == cut.epsilon
    assert set(run.privacy["steps"]) == {6}


def refused(asked: Callable[[], object]) -> None:
    with pytest.raises(fm.ConfigError, match="the run has not ended"):
        asked()


def test_a_run_that_was_cut_short_before_anything_was_charged_cost_nothing(tiny_file: Path, tmp_path: Path) -> None:
    scenario = fm.Scenario.read(tiny_file)
    scenario.write(tmp_path / "scenario.toml")
    cut = fm.Run.read(tmp_path)
    assert (cut.ended, cut.epsilon, cut.figures) == (False, 0.0, {})
    assert cut.metrics.empty
    assert "0 of 2 rounds" in cut._repr_html_()


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(fm.ConfigError, match="no run began here"):
        fm.Run.read(tmp_path)


def test_a_damaged_summary_is_said(run: fm.Run, tmp_path: Path) -> None:
    copy = run.save(tmp_path / "copy")
    (copy.folder / "summary.json").write_text("{", encoding="utf-8")
    with pytest.raises(fm.ConfigError, match="it is damaged"):
        fm.Run.read(copy.folder)
    assert json.loads((run.folder / "summary.json").read_text(encoding="utf-8")) == run.summary
