"""Time until an event, of which some have not been seen: hazards of K intervals (Gensheimer and Narasimhan 2019).

A model has a logit for each interval: of having the event in it, for who had none before. A target is one whole number,
2 j + e: in interval j the event was seen (e = 1), or it was the last in which nobody looked any more (e = 0); j = K is
for who was still without it when the last interval ended. `fedmodel.kinds.shape.SURVIVAL` says the same to sources.

A record's loss is the negative log-likelihood of its own intervals, at most K terms. Who was lost sight of in interval
j counts as without the event in the intervals before, and says nothing of j itself.

Answers are survival curves: the chance to be without the event at the end of each interval. They never rise.

Does NOT correct for losing sight of people because of how they fare: as in Cox's model, that is taken to be chance.

Shapes: B batch, N records, K intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedmodel.learning.tasks._task import Figure, RecordLoss, Task


def hazards(output_BK: Tensor, target_B: Tensor) -> Tensor:
    """Return each record's negative log-likelihood, of its own row alone; shape `(B,)`.

    >>> hazards(torch.zeros(2, 3), torch.tensor([3, 2])) / torch.tensor(2.0).log()
    tensor([2., 1.])
    """
    interval_B1, seen_B1 = (target_B // 2)[:, None], (target_B % 2)[:, None]
    interval_K = torch.arange(output_BK.shape[1], device=output_BK.device)
    without_BK = (interval_K < interval_B1).to(output_BK.dtype)
    event_BK = ((interval_K == interval_B1) & (seen_B1 == 1)).to(output_BK.dtype)
    # log(1 - h) = -softplus(logit) and log h = -softplus(-logit), where neither overflows.
    each_BK = without_BK * functional.softplus(output_BK) + event_BK * functional.softplus(-output_BK)
    return each_BK.sum(dim=1)


class Survival(Task):
    """Answers are survival curves, `(N, K)`."""

    name = "survival"
    losses: ClassVar[Mapping[str, RecordLoss]] = {"hazards": hazards}
    default = ("concordance", "integrated-brier")
    knows_nothing = "one survival curve"

    def answers(self, loss: str, output: Any) -> Tensor:  # noqa: ARG002 - outputs are logits by any loss
        """Return the chance to be without the event at each interval's end."""
        # By its logarithm, since formats for export know sums over a row and no products.
        return torch.exp(torch.cumsum(functional.logsigmoid(-output), dim=1))

    def base_loss(self, loss: str, target_N: NDArray[Any]) -> float | None:
        """Return the loss of the hazards that all records have together, one for each interval."""
        if loss != "hazards":
            return None
        interval_N, seen_N = target_N // 2, target_N % 2
        total = 0.0
        for interval in range(self.shape.classes):
            events = int(((interval_N == interval) & (seen_N == 1)).sum())
            without = int((interval_N > interval).sum())
            for count in (events, without):
                if count:
                    total -= count * float(np.log(count / (events + without)))
        return total / len(target_N)

    def known(self) -> Mapping[str, Figure]:
        """Return the figures that there are."""
        from fedmodel.learning.tasks._survival_figures import FIGURES

        return FIGURES


TASK: Final = Survival
