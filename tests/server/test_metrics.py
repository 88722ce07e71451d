"""Figures agree with their definitions; the log is whole lines; a model file is whole or not there."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from sklearn import metrics
from torch import nn

from fedmodel.data import Records
from fedmodel.errors import ProtocolError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.tasks import objective
from server.checkpoint import save_model
from server.metrics import MetricsLog, evaluate

CPU = torch.device("cpu")
TWO = objective(DataShape((1,), 2), "cross-entropy")
SEVERAL = objective(DataShape((3,), 3), "cross-entropy")


def threshold_at_zero() -> nn.Module:
    module = nn.Linear(1, 1)
    with torch.no_grad():
        module.weight.fill_(1.0)
        module.bias.fill_(0.0)
    return module


def test_binary_figures_by_hand() -> None:
    # Logits 2, 1, -1, 3, -2 and labels 1, 0, 1, 1, 0: TP 2, FP 1, FN 1, TN 1.
    x = np.array([[2.0], [1.0], [-1.0], [3.0], [-2.0]], dtype=np.float32)
    records = Records(x, np.array([1, 0, 1, 1, 0]), np.arange(5))
    figures = evaluate(threshold_at_zero(), TWO, records, CPU)
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert figures["precision"] == pytest.approx(2 / 3)
    assert figures["recall"] == pytest.approx(2 / 3)
    assert figures["f1"] == pytest.approx(2 / 3)
    # Of six pairs, the positive outranks the negative in five but (-1 over 1): 2>1, 2>-2, -1>-2, 3>1, 3>-2.
    assert figures["auroc"] == pytest.approx(5 / 6)
    softplus = [math.log1p(math.exp(v)) for v in (-2.0, 1.0, 1.0, -3.0, -2.0)]
    assert figures["loss"] == pytest.approx(sum(softplus) / 5, rel=1e-5)


class Adding(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x += 1
        return x


def test_a_model_that_writes_into_what_it_is_given_leaves_the_records_as_they_are() -> None:
    records = Records(np.zeros((3, 1), dtype=np.float32), np.array([0, 1, 1]), np.arange(3))
    found = [evaluate(Adding(), TWO, records, CPU) for _ in range(2)]
    assert found[0] == found[1]
    assert not np.asarray(records.x).any()


def test_multi_class_figures_are_macro_averages() -> None:
    module = nn.Identity()
    x = 5 * np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    figures = evaluate(module, SEVERAL, Records(x, np.array([0, 1, 2, 1]), np.arange(4)), CPU)
    assert figures["accuracy"] == pytest.approx(3 / 4)
    assert figures["recall"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert figures["precision"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert 0.5 < figures["auroc"] <= 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_diverged_is_said_to_have(value: float) -> None:
    module = threshold_at_zero()
    with torch.no_grad():
        module.weight.fill_(value)
    records = Records(np.ones((3, 1), dtype=np.float32), np.array([0, 1, 1]), np.arange(3))
    with pytest.raises(ProtocolError, match="diverged"):
        evaluate(module, TWO, records, CPU)


# Of logits and labels, what is defined; what is not, is left out and never 0.
@pytest.mark.parametrize(
    ("logits", "labels", "defined"),
    [
        pytest.param([-1, -2, -3], [0, 1, 0], {"recall": 0.0, "auroc": 0.5}, id="none predicted positive"),
        pytest.param([1, -2, 3], [0, 0, 0], {"precision": 0.0}, id="none positive"),
        pytest.param([-1, -2, -3], [0, 0, 0], {}, id="neither"),
        pytest.param([1, 2, 3], [1, 1, 1], {"precision": 1.0, "recall": 1.0, "f1": 1.0}, id="all positive"),
        pytest.param([1, 2, -3], [0, 0, 1], {"precision": 0.0, "recall": 0.0, "f1": 0.0, "auroc": 0.0}, id="all wrong"),
        pytest.param(
            [1, 2, 3], [1, 0, 1], {"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "auroc": 0.5}, id="one class"
        ),
        pytest.param([2], [1], {"precision": 1.0, "recall": 1.0, "f1": 1.0}, id="one record"),
    ],
)
def test_of_two_classes_what_is_not_defined_is_left_out(
    logits: list[int], labels: list[int], defined: dict[str, float]
) -> None:
    x = np.array(logits, dtype=np.float32)[:, None]
    records = Records(x, np.array(labels), np.arange(len(labels)))
    figures = evaluate(threshold_at_zero(), TWO, records, CPU)
    assert {name: value for name, value in figures.items() if name not in ("loss", "accuracy")} == pytest.approx(
        defined
    )
    assert figures["accuracy"] == np.mean((x[:, 0] > 0) == np.array(labels))


@pytest.mark.parametrize(
    ("predicted", "labels", "defined"),
    [
        ([0, 1, 1, 0], [0, 1, 2, 2], {"recall", "auroc"}),  # a class is predicted of no record
        ([0, 1, 2, 2], [0, 1, 1, 0], {"precision"}),  # a class has no record
        ([0, 1, 1, 0], [0, 1, 1, 0], set()),  # both, of the same class, and perfect on what there is
        ([1, 2, 0, 0], [0, 1, 2, 2], {"precision", "recall", "f1", "auroc"}),  # all there, and all wrong
    ],
)
def test_of_several_classes_an_average_is_of_all_of_them_or_left_out(
    predicted: list[int], labels: list[int], defined: set[str]
) -> None:
    x = 5 * np.eye(3, dtype=np.float32)[predicted]
    figures = evaluate(nn.Identity(), SEVERAL, Records(x, np.array(labels), np.arange(len(labels))), CPU)
    assert set(figures) - {"loss", "accuracy"} == defined


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_defined_figures_are_those_of_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    logits, labels = rng.normal(size=(200, classes)).astype(np.float32), rng.integers(0, classes, 200)
    figures = evaluate(nn.Identity(), SEVERAL, Records(logits, labels, np.arange(200)), CPU)
    average = "binary" if classes == 2 else "macro"
    theirs = metrics.precision_recall_fscore_support(labels, logits.argmax(axis=1), average=average)
    assert [figures[name] for name in ("precision", "recall", "f1")] == pytest.approx(theirs[:3], rel=1e-12)


def test_evaluation_switches_dropout_off_and_back_on() -> None:
    module = nn.Sequential(nn.Dropout(0.9), threshold_at_zero()).train()
    records = Records(
        np.linspace(-2, 2, 50, dtype=np.float32)[:, None], (np.linspace(-2, 2, 50) > 0).astype(np.int64), np.arange(50)
    )
    assert evaluate(module, TWO, records, CPU)["accuracy"] == 1.0
    assert module.training


def test_the_log_is_a_json_object_a_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for number in (1, 2):
        log.append({"round": number, "loss": 0.5})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line)["round"] for line in text.splitlines()] == [1, 2]
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append({"loss": math.nan})
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_a_model_is_saved_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    module = threshold_at_zero()
    save_model(module, path, {"round": "1"})
    assert safetensors.numpy.load_file(path)["weight"].tolist() == [[1.0]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_crash_while_saving_leaves_the_last_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_model(threshold_at_zero(), path, {})
    before = path.read_bytes()

    def crash(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="no space") as refused:
        save_model(nn.Linear(5, 5), path, {})
    assert refused.value.filename == str(path)  # the system's own error names no file
    assert path.read_bytes() == before
