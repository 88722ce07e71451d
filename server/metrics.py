"""What the server measures, on records of its own that no silo trained on, and the file it writes them to.

No figure here comes from a silo's records except through the differentially private model.

Shapes: B batch, P parameters.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import metrics
from torch import nn

from fedmodel.data import Records
from fedmodel.errors import ProtocolError
from fedmodel.learning.inputs import called, tensors
from fedmodel.learning.models import Loss, loss_sum, probabilities
from fedmodel.system.durable import naming

METRICS: Final = "metrics.jsonl"
BESIDES: Final = "besides.jsonl"
_BATCH = 4096


def evaluate(module: nn.Module, loss: Loss, records: Records, device: torch.device) -> dict[str, float]:
    """Return loss, accuracy, precision, recall, F1 and AUROC on held-out records, those that are defined there.

    For two classes, precision, recall and F1 are those of the positive class, label 1. For more they are macro
    averages over all classes, and AUROC is one against the rest. The loss is not weighed by class, whatever weights
    silos train with, so that it is the same figure for all of them.

    | A figure  | Is left out where                                                       |
    |-----------|-------------------------------------------------------------------------|
    | precision | the positive class, or of several any, was predicted of no record       |
    | recall    | the positive class, or of several any, has no record                    |
    | F1        | precision or recall is: it is their harmonic mean, and 0 where both are |
    | AUROC     | a class has no record                                                   |

    A figure of a class that is there is kept, however bad: of a model that predicts the negative class alone, recall is
    0.

    Args:
        module: The model, on the device.
        loss: Name of the loss; reported as a mean over records.
        records: Held-out records.
        device: Where the model is.

    Returns:
        What is defined of the six figures, all finite; loss and accuracy always are.

    Raises:
        ProtocolError: When an output or the loss is not finite.
    """
    total = 0.0
    parts = []
    training = module.training
    module.eval()
    with torch.no_grad():
        for start in range(0, len(records), _BATCH):
            x_B, y_B = tensors(records.take(slice(start, start + _BATCH)), device)
            output = called(module, x_B)
            total += float(loss_sum(loss, output, y_B))
            parts.append(probabilities(loss, output).cpu().numpy())
    module.train(training)
    score = np.concatenate(parts)
    if not (math.isfinite(total) and np.isfinite(score).all()):
        raise ProtocolError("the model diverged: its outputs or its loss are not finite; lower learning_rate")
    return {
        "loss": total / len(records),
        "accuracy": float(metrics.accuracy_score(records.y_N, score.argmax(axis=1))),
        **_by_class(records.y_N, score.argmax(axis=1), score.shape[1]),
        **({"auroc": _auroc(records, score)} if len(np.unique(records.y_N)) == score.shape[1] else {}),
    }


def _by_class(label_N: NDArray[np.int64], predicted_N: NDArray[np.intp], classes: int) -> dict[str, float]:
    """Return precision, recall and F1, each where it is defined."""
    counted = metrics.confusion_matrix(label_N, predicted_N, labels=range(classes))
    reported = slice(1, 2) if classes == 2 else slice(None)
    found, there, right = (each[reported] for each in (counted.sum(axis=0), counted.sum(axis=1), counted.diagonal()))
    figures = {}
    if found.all():
        figures["precision"] = float(np.mean(right / found))
    if there.all():
        figures["recall"] = float(np.mean(right / there))
    if found.all() and there.all():
        figures["f1"] = float(np.mean(2 * right / (found + there)))
    return figures


def _auroc(records: Records, score: NDArray[np.float32]) -> float:
    """Area under the ROC curve, one class against the rest and averaged where there are more than two."""
    if score.shape[1] == 2:
        return float(metrics.roc_auc_score(records.y_N, score[:, 1]))
    one_hot = np.eye(score.shape[1], dtype=np.int64)[records.y_N]
    return float(metrics.roc_auc_score(one_hot, score, average="macro"))


class MetricsLog:
    """`metrics.jsonl`, or another file: one JSON object a round, on disk before the next round begins.

    A reader never sees half a line that ends in a newline: each is written in one call and flushed to disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def mend(self, line: Mapping[str, object]) -> None:
        """Bring the file up to a checkpoint's line: cut off what a kill left half written, and add what it lost."""
        whole = self._path.read_bytes() if self._path.exists() else b""
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.truncate(self._path, end)
        if line["round"] not in {_round_of(one) for one in whole[:end].splitlines()}:
            self.append(line)

    def append(self, line: Mapping[str, object]) -> None:
        """Write one line."""
        text = json.dumps(dict(line), sort_keys=True, allow_nan=False) + "\n"
        with naming(self._path):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                if os.write(descriptor, text.encode()) != len(text.encode()):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # half a line; `mend` cuts it off
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class Logs:
    """Both logs of a run: `metrics.jsonl`, of the rounds of training, and `besides.jsonl`, of those of other jobs.

    Args:
        run_dir: The run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self._training, self._besides = MetricsLog(run_dir / METRICS), MetricsLog(run_dir / BESIDES)

    def append(self, line: Mapping[str, object]) -> None:
        """Write a round's line where it belongs."""
        self._of(line).append(line)

    def mend(self, line: Mapping[str, object]) -> None:
        """Bring the file that a checkpoint's line belongs to up to it."""
        self._of(line).mend(line)

    def _of(self, line: Mapping[str, object]) -> MetricsLog:
        return self._besides if "job" in line else self._training


def _round_of(line: bytes) -> int | None:
    """Return the round of a line, None where it is no line of ours."""
    try:
        number: int = json.loads(line)["round"]
    except (ValueError, KeyError, TypeError):
        return None
    return number
