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
from torch import nn

from fedmodel.data import Records
from fedmodel.errors import ProtocolError
from server.checkpoint import save_model
from server.metrics import MetricsLog, evaluate

CPU = torch.device("cpu")


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
    figures = evaluate(threshold_at_zero(), "cross-entropy", records, CPU)
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert figures["precision"] == pytest.approx(2 / 3)
    assert figures["recall"] == pytest.approx(2 / 3)
    assert figures["f1"] == pytest.approx(2 / 3)
    # Of six pairs, the positive outranks the negative in five but (-1 over 1): 2>1, 2>-2, -1>-2, 3>1, 3>-2.
    assert figures["auroc"] == pytest.approx(5 / 6)
    softplus = [math.log1p(math.exp(v)) for v in (-2.0, 1.0, 1.0, -3.0, -2.0)]
    assert figures["loss"] == pytest.approx(sum(softplus) / 5, rel=1e-5)


def test_multi_class_figures_are_macro_averages() -> None:
    module = nn.Identity()
    x = 5 * np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    figures = evaluate(module, "cross-entropy", Records(x, np.array([0, 1, 2, 1]), np.arange(4)), CPU)
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
        evaluate(module, "cross-entropy", records, CPU)


def test_auroc_is_left_out_where_a_class_is_missing() -> None:
    figures = evaluate(
        threshold_at_zero(),
        "mse",
        Records(np.ones((3, 1), dtype=np.float32), np.ones(3, dtype=np.int64), np.arange(3)),
        CPU,
    )
    assert "auroc" not in figures
    assert figures["accuracy"] == 1.0


def test_evaluation_switches_dropout_off_and_back_on() -> None:
    module = nn.Sequential(nn.Dropout(0.9), threshold_at_zero()).train()
    records = Records(
        np.linspace(-2, 2, 50, dtype=np.float32)[:, None], (np.linspace(-2, 2, 50) > 0).astype(np.int64), np.arange(50)
    )
    assert evaluate(module, "cross-entropy", records, CPU)["accuracy"] == 1.0
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
