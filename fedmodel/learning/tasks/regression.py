"""A number, or several, in a public range: mapped onto [-1, 1] and bounded to it, so that no record's is larger.

Losses are of the mapped numbers, averaged over those of one record. Answers and figures are in the label's own units,
answers bounded to the public range as targets are. A label outside of the range was learnt, and is counted, as the end
of the range.

Shapes: B batch, N records, K numbers of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedmodel.learning.tasks._numbers import side_by_side
from fedmodel.learning.tasks._task import Figure, RecordLoss, Task

_HALVINGS: Final = 60  # of an interval of at most 2, to under what float32 tells apart


def mse(output: Any, target_B: Tensor) -> Tensor:
    """Return each record's squared error, averaged over its own numbers; shape `(B,)`."""
    return functional.mse_loss(*side_by_side("regression", output, target_B), reduction="none").mean(dim=1)


def mae(output: Any, target_B: Tensor) -> Tensor:
    """Return each record's absolute error, averaged over its own numbers; shape `(B,)`."""
    return functional.l1_loss(*side_by_side("regression", output, target_B), reduction="none").mean(dim=1)


def huber(output: Any, target_B: Tensor) -> Tensor:
    """Return each record's Huber loss, linear from an error of half the range on (delta = 1); shape `(B,)`."""
    return functional.huber_loss(*side_by_side("regression", output, target_B), reduction="none").mean(dim=1)


class Regression(Task):
    """Answers are numbers in the label's own units, `(N,)` or as targets are."""

    name = "regression"
    losses: ClassVar[Mapping[str, RecordLoss]] = {"mse": mse, "mae": mae, "huber": huber}
    default = ("rmse", "mae", "r2")
    knows_nothing = "one number"

    def answers(self, loss: str, output: Any) -> Tensor:  # noqa: ARG002 - a number is one by any loss
        """Return the numbers in their own units, bounded to the public range where there is one."""
        found: Tensor = output.reshape(-1, *self.shape.targets.size)
        if self.shape.target_range is None:
            return found
        low, high = self.shape.target_range
        return found.clamp(-1, 1) * ((high - low) / 2) + (low + high) / 2

    def targets(self, target_N: NDArray[Any]) -> NDArray[Any]:
        """Return targets in their own units."""
        told: NDArray[Any] = target_N.astype(np.float64)
        if self.shape.target_range is None:
            return told
        low, high = self.shape.target_range
        return told * ((high - low) / 2) + (low + high) / 2

    def base_loss(self, loss: str, target_N: NDArray[Any]) -> float | None:
        """Return the loss of the best number, or of the best of each, that is the same for all records."""
        columns = target_N.reshape(len(target_N), -1).astype(np.float64).T
        least = {"mse": _least_mse, "mae": _least_mae, "huber": _least_huber}.get(loss)
        return None if least is None else float(np.mean([least(column) for column in columns]))

    def known(self) -> Mapping[str, Figure]:
        """Return the figures that there are."""
        from fedmodel.learning.tasks._number_figures import FIGURES  # a silo trains without scikit-learn

        return FIGURES


def _least_mse(target_N: NDArray[np.float64]) -> float:
    return float(target_N.var())


def _least_mae(target_N: NDArray[np.float64]) -> float:
    return float(np.abs(target_N - np.median(target_N)).mean())


def _least_huber(target_N: NDArray[np.float64]) -> float:
    """Return the least mean Huber loss of one number; its slope rises, and where it is 0 is found by halving."""
    low, high = float(target_N.min()), float(target_N.max())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if np.clip(middle - target_N, -1, 1).sum() > 0 else (middle, high)
    error_N = np.abs(target_N - (low + high) / 2)
    return float(np.where(error_N <= 1, error_N**2 / 2, error_N - 0.5).mean())


TASK: Final = Regression
