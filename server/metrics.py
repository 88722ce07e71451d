"""What the server measures, on records of its own that no silo trained on, and the file it writes them to.

No figure here comes from a silo's records except through the differentially private model.

Shapes: B batch, P parameters.
"""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn import metrics
from torch import nn

from fedmodel.data import Records
from fedmodel.errors import ProtocolError
from fedmodel.models import Loss, loss_sum, probabilities

_BATCH = 4096


def evaluate(module: nn.Module, loss: Loss, records: Records, device: torch.device) -> dict[str, float]:
    """Return loss, accuracy, precision, recall, F1 and AUROC on held-out records.

    For two classes, precision, recall and F1 are those of the positive class, label 1. For more they are macro
    averages, and AUROC is one against the rest.

    Args:
        module: The model, on the device.
        loss: Name of the loss; reported as a mean over records.
        records: Held-out records.
        device: Where the model is.

    Returns:
        The six figures, all finite. AUROC is left out where a class is missing from the records.

    Raises:
        ProtocolError: When an output or the loss is not finite.
    """
    total = 0.0
    parts = []
    training = module.training
    module.eval()
    with torch.no_grad():
        for start in range(0, len(records), _BATCH):
            x_BF = torch.from_numpy(records.x_NF[start : start + _BATCH]).to(device)
            y_B = torch.from_numpy(records.y_N[start : start + _BATCH]).to(device)
            output = module(x_BF)
            total += float(loss_sum(loss, output, y_B))
            parts.append(probabilities(loss, output).cpu().numpy())
    module.train(training)
    score = np.concatenate(parts)
    if not (math.isfinite(total) and np.isfinite(score).all()):
        raise ProtocolError("the model diverged: its outputs or its loss are not finite; lower learning_rate")
    predicted = score.argmax(axis=1)
    binary = score.shape[1] == 2
    average = "binary" if binary else "macro"
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        records.y_N, predicted, average=average, zero_division=0.0
    )
    figures = {
        "loss": total / len(records),
        "accuracy": float(metrics.accuracy_score(records.y_N, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }
    if len(np.unique(records.y_N)) == score.shape[1]:
        figures["auroc"] = float(_auroc(records, score, binary=binary))
    return figures


def _auroc(records: Records, score: np.ndarray[Any, np.dtype[np.float32]], *, binary: bool) -> float:
    """Area under the ROC curve, one class against the rest and averaged where there are more than two."""
    if binary:
        return float(metrics.roc_auc_score(records.y_N, score[:, 1]))
    one_hot = np.eye(score.shape[1], dtype=np.int64)[records.y_N]
    return float(metrics.roc_auc_score(one_hot, score, average="macro"))


class MetricsLog:
    """`metrics.jsonl`: one JSON object a round, on disk before the next round begins.

    A reader never sees half a line that ends in a newline: each is written in one call and flushed to disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def mend(self, line: dict[str, object]) -> None:
        """Bring the file up to a checkpoint's line: cut off what a kill left half written, and add what it lost."""
        whole = self._path.read_bytes() if self._path.exists() else b""
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.truncate(self._path, end)
        if line["round"] not in {_round_of(one) for one in whole[:end].splitlines()}:
            self.append(line)

    def append(self, line: dict[str, object]) -> None:
        """Write one line."""
        text = json.dumps(line, sort_keys=True, allow_nan=False) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if os.write(descriptor, text.encode()) != len(text.encode()):
                raise OSError(errno.ENOSPC, f"{self._path}: a line was not written whole")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _round_of(line: bytes) -> int | None:
    """Return the round of a line, None where it is no line of ours."""
    try:
        number: int = json.loads(line)["round"]
    except (ValueError, KeyError, TypeError):
        return None
    return number
