"""Several labels at once, each of which a record has or has not: a logit and a target of 0 or 1 for each.

Shapes: B batch, N records, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedmodel.learning.tasks._numbers import side_by_side
from fedmodel.learning.tasks._task import Figure, RecordLoss, Task


def cross_entropy(output: Any, target_BL: Tensor) -> Tensor:
    """Return each record's binary cross-entropy, added up over its own labels; shape `(B,)`."""
    logit_BL, of_BL = side_by_side("multi-label", output, target_BL)
    return functional.binary_cross_entropy_with_logits(logit_BL, of_BL, reduction="none").sum(dim=1)


class MultiLabel(Task):
    """Answers are the probability of each label, `(N, L)`; a record is said to have those over one half."""

    name = "multi-label"
    losses: ClassVar[Mapping[str, RecordLoss]] = {"cross-entropy": cross_entropy}
    default = ("label-accuracy", "f1", "auroc")
    knows_nothing = "the share of each label"

    def answers(self, loss: str, output: Any) -> Tensor:  # noqa: ARG002 - outputs are logits by any loss
        """Return the probability of each label."""
        return torch.sigmoid(output)

    def base_loss(self, loss: str, target_N: NDArray[Any]) -> float | None:
        """Return the loss of answering with the share of each label."""
        if loss != "cross-entropy":
            return None
        share_L = target_N.mean(axis=0)
        shares = np.stack([share_L, 1 - share_L])
        return float(-(shares * np.log(shares, out=np.zeros_like(shares), where=shares > 0)).sum())

    def known(self) -> Mapping[str, Figure]:
        """Return the figures that there are."""
        from fedmodel.learning.tasks._label_figures import FIGURES  # a silo trains without scikit-learn

        return FIGURES


TASK: Final = MultiLabel
