"""`import fedmodel`, as a researcher's script meets it."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fedmodel as fm
from fedmodel import errors
from fedmodel.data import held_out_records
from fedmodel.learning.tasks.classification import probabilities
from fedmodel.privacy import accounting
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent

ROOT = Path(__file__).parents[2]


def test_every_name_of_the_face_is_there_and_is_what_it_is_called() -> None:
    for name in fm.__all__:
        assert getattr(fm, name).__name__ == name
    assert set(fm.__all__) <= set(dir(fm))
    assert fm.ConfigError is errors.ConfigError


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'fit'; it offers .*simulate"):
        fm.fit  # noqa: B018


def test_importing_it_imports_nothing_else() -> None:
    told = "import sys; before = set(sys.modules); import fedmodel; print(*sorted(set(sys.modules) - before))"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, cwd="/")
    assert [name for name in found.stdout.split() if name.split(".")[0] not in sys.stdlib_module_names] == ["fedmodel"]


def test_budget_figures_are_those_of_the_accountant_that_claims_are_made_by() -> None:
    plan = {"sample_rate": 0.1, "steps": 100, "delta": 1e-5}
    event = DpSgdEvent(1.5, 1.0, 0.1, 100, denominator=1, max_records=2)
    found = fm.epsilon(noise_multiplier=1.5, max_records=2, **plan)
    assert found == accounting.epsilon([event], 1e-5, accounting.COARSE_GRID)
    noise = fm.noise_multiplier(epsilon=found, max_records=2, **plan)
    assert noise <= 1.5 * (1 + 1e-3)
    assert fm.epsilon(noise_multiplier=noise, max_records=2, **plan) <= found * (1 + 1e-2)


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"noise_multiplier": 0.0}, "noise"), ({"sample_rate": 2.0}, "sample"), ({"steps": 0}, "steps")],
)
def test_a_figure_out_of_range_is_one_line(changed: dict[str, float], said: str) -> None:
    plan = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 100, "delta": 1e-5}
    with pytest.raises(fm.ConfigError, match=said):
        fm.epsilon(**{**plan, **changed})  # type: ignore[arg-type]


def test_a_run_from_python_is_a_run_of_the_command(tiny_file: Path, tmp_path: Path) -> None:
    run = fm.simulate(tiny_file, ["rounds=1"], out=tmp_path / "run")
    assert run.folder == (tmp_path / "run").resolve()
    assert set(run.epsilon) == {"north", "south", "west"}
    plan = run.scenario.plan("north")
    bound = fm.epsilon(noise_multiplier=2.0, sample_rate=plan.sample_rate, steps=plan.steps, delta=plan.delta)
    assert 0 < run.epsilon["north"] <= bound
    held_out = held_out_records(run.scenario)
    with torch.no_grad():
        chance_BK = probabilities(run.scenario.training.loss, run.model()(torch.from_numpy(held_out.x_NF)))
    told_B = chance_BK.argmax(dim=1).numpy()
    assert float(np.mean(told_B == held_out.y_N)) == pytest.approx(run.metrics["accuracy"])
    again = fm.Run.read(run.folder)
    assert (again.summary, again.epsilon) == (run.summary, run.epsilon)
    with pytest.raises(fm.ConfigError, match="has ended"):
        fm.simulate(tiny_file, ["rounds=1"], out=run.folder)


def test_a_scenario_that_was_read_runs_as_it_is(tiny_file: Path, tmp_path: Path) -> None:
    scenario = fm.read_scenario(str(tiny_file), ["rounds=1", "privacy.baseline=no-noise"])
    with pytest.raises(fm.ConfigError, match="already says its own"):
        fm.simulate(scenario, ["rounds=2"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = fm.simulate(scenario, out=tmp_path / "run")
    assert set(run.epsilon.values()) == {math.inf}


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(fm.ConfigError, match="no run has ended here"):
        fm.Run.read(tmp_path)


def test_the_readmes_snippet_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    told = [line.split("# ", 1)[1] for line in snippet.splitlines() if line.startswith("print(") and "# " in line]
    assert len(told) >= 2
    for line, shape in zip(done.stdout.splitlines(), told, strict=True):
        assert re.sub(r"\d+\.\d+", "N", line) == re.sub(r"\d+\.\d+", "N", shape)
