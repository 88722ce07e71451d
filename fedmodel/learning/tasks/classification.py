"""One of several classes. A classifier of two has one output, a logit; of K > 2, K logits.

The sigmoid or softmax of the classic network is part of its loss and of its answers, where it is computed without
overflow.

Shapes: B batch, K outputs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedmodel.errors import ConfigError
from fedmodel.learning.tasks._task import Figure, Measured, RecordLoss, Task

# Figures of two classes that are named with a number: how it is written, what it is, and an example.
_AT: Final[Mapping[str, tuple[str, str, str]]] = {
    "recall": (r"0\.[0-9]{1,6}", "recall at a share of alerts", "recall@0.05"),
    "cost": (r"(0|[1-9][0-9]{0,5})(\.[0-9]{1,6})?", "cost at a ratio of costs", "cost@5"),
}


def cross_entropy(output_BK: Tensor, label_B: Tensor) -> Tensor:
    """Return each record's cross-entropy, of one output binary, from its own row alone; shape `(B,)`."""
    if output_BK.shape[1] == 1:
        target_BK = label_B.to(output_BK.dtype)[:, None]
        return functional.binary_cross_entropy_with_logits(output_BK, target_BK, reduction="none")[:, 0]
    return functional.cross_entropy(output_BK, label_B, reduction="none")


def mse(output_BK: Tensor, label_B: Tensor) -> Tensor:
    """Return each record's squared error against 0 or 1, or a one-hot target, added up over K; shape `(B,)`."""
    if output_BK.shape[1] == 1:
        target_BK = label_B.to(output_BK.dtype)[:, None]
    else:
        classes_K = torch.arange(output_BK.shape[1], device=label_B.device)
        target_BK = (label_B[:, None] == classes_K).to(output_BK.dtype)  # one_hot looks at values, as vmap does not
    return functional.mse_loss(output_BK, target_BK, reduction="none").sum(dim=1)


def probabilities(loss: str, output_BK: Tensor) -> Tensor:
    """Return each record's class scores, shape `(B, classes)`, each in [0, 1]; rows sum to 1 but for "mse"."""
    if output_BK.shape[1] == 1:
        positive_B1 = output_BK.clamp(0, 1) if loss == "mse" else torch.sigmoid(output_BK)
        return torch.cat([1 - positive_B1, positive_B1], dim=1)
    return output_BK.clamp(0, 1) if loss == "mse" else torch.softmax(output_BK, dim=1)


def base_loss(loss: str, shares: list[float]) -> float | None:
    """Return the mean loss of the best answer that is the same for every record.

    >>> round(base_loss("cross-entropy", [0.5, 0.5]), 4), base_loss("mse", [0.25, 0.75])
    (0.6931, 0.1875)
    """
    if loss == "cross-entropy":
        return -sum(share * math.log(share) for share in shares if share)
    if loss != "mse":
        return None
    around_mean = [share * (1 - share) for share in shares]
    return around_mean[1] if len(shares) == 2 else sum(around_mean)  # of two classes there is one output


class Classification(Task):
    """Answers are the classes' scores, `(N, classes)`; the class that is predicted is the one of the highest."""

    name = "classification"
    losses: ClassVar[Mapping[str, RecordLoss]] = {"cross-entropy": cross_entropy, "mse": mse}
    default = ("accuracy", "recall", "precision", "f1", "auroc")
    reads_labels = True

    def answers(self, loss: str, output: Any) -> Tensor:
        """Return the classes' scores."""
        return probabilities(loss, output)

    def likelihoods(self, loss: str, output: Any, target_B: Tensor) -> Tensor:
        """Return the score of each record's own label."""
        return probabilities(loss, output).gather(1, target_B[:, None])[:, 0]

    def base_loss(self, loss: str, target_N: NDArray[Any]) -> float | None:
        """Return the loss of answering with the shares of the classes."""
        return base_loss(loss, (np.bincount(target_N, minlength=self.shape.classes) / len(target_N)).tolist())

    def known(self) -> Mapping[str, Figure]:
        """Return the figures that there are."""
        from fedmodel.learning.tasks._class_figures import FIGURES  # a silo trains without scikit-learn

        return FIGURES

    def figure(self, name: str) -> Figure:
        """Return the figure of a name, of two classes "recall@" with a share of alerts and "cost@" with a ratio too.

        Raises:
            ConfigError: When there is none of it.
        """
        kind, at, number = name.partition("@")
        if not at or kind not in _AT:
            return super().figure(name)
        from fedmodel.learning.tasks import _class_figures

        if self.shape.classes != 2:
            raise ConfigError(f"metrics: {name!r} is of two classes, and the data has {self.shape.classes}")
        pattern, what, example = _AT[kind]
        if not re.fullmatch(pattern, number) or not float(number):
            raise ConfigError(f"metrics: {name!r} is no {what}; write it as {example}")
        figure = {"recall": _class_figures.recall_at, "cost": _class_figures.cost_at}[kind]
        return partial(figure, float(number))

    def one_answer(self, found: Measured) -> str | None:
        """Return the name of the class that alone is predicted, where records of another are there."""
        predicted = np.unique(found.answer_N.argmax(axis=1))
        if len(predicted) > 1 or (found.target_N == predicted[0]).all():
            return None
        return self.shape.label_names[int(predicted[0])]


TASK: Final = Classification
