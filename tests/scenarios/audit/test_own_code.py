"""An audited run of a model, records, a loss and a figure of the user's own, as the command makes it of two files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fedmodel.errors import PrivacyError
from fedmodel.kinds import own_code
from scenarios.cli.main import app

pytestmark = pytest.mark.usefixtures("same_bytes")

SCENARIO = """
name = "prices"
summary = "numbers of the user's own"
rounds = 2
seed = 4
metrics = ["mine:farthest"]

[federation]
silos = ["north", "south", "west"]
min_silos = 2

[encryption]
secure_aggregation = "simulated"
bound = 16.0

[model]
use = "mine:Net"
width = 4

[training]
loss = "mine:huber"
optimizer = "sgd"
learning_rate = 0.2
local_steps = 2

[privacy]
unit = "record"
noise_multiplier = 3.0
delta = 1e-3
max_grad_norm = 1.0
sample_rate = 1.0
expected_batch_size = 40

[data]
use = "mine:records"
task = "regression"
target_range = [-2.0, 2.0]
held_out = 0.2
partition = {kind = "iid"}
"""
MODULE = """
import numpy as np
import torch
from torch import nn


def records():
    x = np.random.default_rng(1).uniform(-1, 1, (150, 3)).astype(np.float32)
    return x, x @ np.array([1.0, -0.5, 0.25], dtype=np.float32)


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.within, self.out = nn.Linear(3, width), nn.Linear(width, 1)

    def forward(self, x):
        return self.out(torch.tanh(self.within(x)))


def huber(answers, targets):
    return nn.functional.huber_loss(answers[:, 0], targets, reduction="none")


def farthest(answers, targets):
    return float(np.abs(answers.reshape(-1) - targets).max())
"""


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    own_code.close()


def audit(folder: Path, module: str) -> Result:
    (folder / "mine.py").write_text(module, encoding="utf-8")
    (folder / "prices.toml").write_text(SCENARIO, encoding="utf-8")
    words = ["audit", "run", str(folder / "prices.toml"), "--canaries", "600", "--out", str(folder / "run"), "--json"]
    return CliRunner().invoke(app, words)


def test_a_correct_one_is_not_refuted_with_every_gauge_measured(tmp_path: Path) -> None:
    ended = audit(tmp_path, MODULE)
    assert ended.exit_code == 0, ended.exception
    found = json.loads((tmp_path / "run" / "audit.json").read_text(encoding="utf-8"))
    assert found["verdict"] == "not-refuted"
    assert [one["name"] for one in found["gauges"] if not one["passed"]] == []
    # Lots are full, so that nothing can be said of how they vary.
    assert {one["name"] for one in found["unmeasured"]} <= {"denominator", "lot_dispersion", "draw_dispersion"}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["metrics"]) >= {"loss", "mine:farthest"}
    assert {row["key"] for row in summary["own_code"]} == {"model.use", "training.loss", "data.use", "metrics[0]"}


@pytest.mark.parametrize(
    ("line", "fault", "told"),
    [
        ('targets, reduction="none")', 'targets, reduction="none") / answers.std()', "training.loss = 'mine:huber'"),
        ("torch.tanh(self.within(x))", "torch.tanh(self.within(x - x.mean(0)))", "the model's own code"),
    ],
    ids=["loss", "model"],
)
def test_one_that_couples_records_is_refused_by_its_name_and_nothing_is_run(
    line: str, fault: str, told: str, tmp_path: Path
) -> None:
    assert line in MODULE
    ended = audit(tmp_path, MODULE.replace(line, fault))
    assert isinstance(ended.exception, PrivacyError)
    assert told in str(ended.exception)
    assert "couples records" in str(ended.exception)
    assert not (tmp_path / "run").exists()
