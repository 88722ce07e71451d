"""A simulation of records of the user's own, as the page on data shows it: run, read again, refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedmodel.config import CsvForm, read_scenario
from fedmodel.data import held_out_records
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds import own_code
from scenarios.cli.main import app
from scenarios.models.predict import predict
from scenarios.models.trained import read_model
from scenarios.simulation.prepared import prepare
from tests.conftest import TINY

DOCS = Path(__file__).parents[3] / "docs" / "data.md"


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    own_code.close()


def lay(folder: Path, data: str, module: str) -> Path:
    """Write a scenario and the module that it names into a folder."""
    (folder / "mine.py").write_text(module, encoding="utf-8")
    (folder / "s.toml").write_text(TINY.partition("[data]")[0] + data, encoding="utf-8")
    return folder / "s.toml"


def test_the_pages_example_is_run_and_its_shape_stands_in_the_runs_folder(tmp_path: Path) -> None:
    page = DOCS.read_text(encoding="utf-8")
    module = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    data = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0]
    prepared = prepare(lay(tmp_path, data, module), (), "in-process", "cpu", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with prepared.held() as folder:
        summary = prepared.run(folder, nullcontext())
    resolved = read_scenario(str(folder / "scenario.toml"))
    assert resolved == prepared.scenario
    assert resolved.data.shape.features == (4,)
    assert resolved.data.shape.classes == 2
    assert len(held_out_records(resolved)) == 120  # a fifth of the 600 that the scenario asks for
    assert summary["metrics"]["accuracy"] > 0.5
    assert json.loads((folder / "model.json").read_text())["shape"] == [4]


TASKS = """
import numpy as np
from torch import nn

RNG = np.random.default_rng(1)
X = RNG.normal(size=(240, 3)).astype(np.float32)
TOKENS = RNG.integers(0, 9, (240, 1)) + np.arange(7) * 2


def numbers():
    return X, 50 + 10 * X[:, 0]


def tokens():
    found = TOKENS % 9
    return found[:, :-1], found[:, 1:]


def speaker():
    return nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9))
"""


@pytest.mark.parametrize(
    ("data", "model", "loss", "figures"),
    [
        ('use = "mine:numbers"\ntask = "regression"\ntarget_range = [20.0, 80.0]\nheld_out = 0.2',
         'kind = "mlp"', "mse", {"loss", "rmse", "mae", "r2"}),
        ('use = "mine:tokens"\ntask = "next-token"\nheld_out = 0.2\npartition = {kind = "iid"}',
         'use = "mine:speaker"', "cross-entropy", {"loss", "perplexity", "token-accuracy"}),
    ],
)  # fmt: skip
def test_a_task_of_a_users_own_records_is_trained_and_measured(
    data: str, model: str, loss: str, figures: set[str], tmp_path: Path
) -> None:
    scenario = lay(tmp_path, f"[data]\n{data}\n", TASKS)
    text = scenario.read_text().replace('kind = "mlp"', model).replace('"cross-entropy"', f'"{loss}"')
    scenario.write_text(text)
    prepared = prepare(scenario, (), "in-process", "cpu", tmp_path / "run")
    with prepared.held() as folder:
        summary = prepared.run(folder, nullcontext())
    assert set(summary["metrics"]) == figures
    described = read_model(folder).description
    assert described.data == prepared.scenario.data.shape
    with pytest.raises(ConfigError, match=f"a record of 'own' is {described.record} without names"):
        predict(read_model(folder), tmp_path / "none.csv", CsvForm())
    assert read_scenario(str(folder / "scenario.toml")) == prepared.scenario


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("def load(): raise RuntimeError('hidden-word')", "data.use = 'mine:load': raised RuntimeError"),
        ("def load(): raise SystemExit(0)", "data.use = 'mine:load': raised SystemExit"),
        (
            "class Leaving:\n    def __len__(self): return 60\n    def __getitem__(self, place): raise SystemExit(0)\n"
            "load = Leaving",
            "raised SystemExit; run it alone",
        ),
        ("def load(): return [[], [], []]", "data.use = 'mine:load', silo north: holds no record"),
        ("import numpy\ndef load(): return numpy.full((60, 2), numpy.nan), numpy.arange(60) % 2", "record 0: a value"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_no_folder(module: str, why: str, tmp_path: Path) -> None:
    scenario = lay(tmp_path, '[data]\nuse = "mine:load"\nheld_out = 0.2\n', module)
    with pytest.raises((ConfigError, DataError), match=re.escape(why)) as refused:
        prepare(scenario, (), "in-process", "cpu", tmp_path / "run")
    assert "hidden-word" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_rehearsal_refuses_before_anything_is_written(tmp_path: Path) -> None:
    scenario = lay(tmp_path, '[data]\nuse = "mine:load"\nheld_out = 0.2\n', "def load(): raise SystemExit(1)")
    ended = CliRunner().invoke(app, ["deploy-local", str(scenario), "--out", str(tmp_path / "out")])
    assert isinstance(ended.exception, ConfigError)
    assert "no program sees what a function reads" in str(ended.exception)
    assert not (tmp_path / "out").exists()
