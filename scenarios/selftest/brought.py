"""A model, records, a loss and a figure as a user brings them, for runs in which faults of such code are planted.

Nothing of it is on board: a number is learnt of records of its own, by a network of its own, and the scenario names all
of it by `package.module:function`. A fault stands in place of `each` or of `Net.forward`, which the named code calls.

Shapes: B batch, N records, F features.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_RECORDS: Final = 150
_SLOPES_F: Final = (1.0, -0.5, 0.25)
_SEED: Final = 7


def records() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return features of shape `(N, F)` and a number for each record, nearly linear in them."""
    rng = np.random.default_rng(_SEED)
    x_NF = rng.uniform(-1.0, 1.0, (_RECORDS, len(_SLOPES_F))).astype(np.float32)
    y_N = x_NF @ np.array(_SLOPES_F, dtype=np.float32) + rng.normal(0.0, 0.05, _RECORDS)
    return x_NF, np.clip(y_N, -2.0, 2.0).astype(np.float32)


class Net(nn.Module):
    """A bent line."""

    def __init__(self) -> None:
        super().__init__()
        self.within, self.out = nn.Linear(len(_SLOPES_F), 4), nn.Linear(4, 1)

    def forward(self, x_BF: Tensor) -> Tensor:
        """Return a number for each record, `(B, 1)`."""
        found: Tensor = self.out(torch.tanh(self.within(x_BF)))
        return found


def each(answer_B: Tensor, target_B: Tensor) -> Tensor:
    """Return the squared error of each record, `(B,)`."""
    return (answer_B.reshape(len(target_B)) - target_B) ** 2


def loss(answer_B: Tensor, target_B: Tensor) -> Tensor:
    """Return what is learnt by: a number for each record, `(B,)`."""
    return each(answer_B, target_B)


def farthest(answer_N: NDArray[Any], target_N: NDArray[Any]) -> float:
    """Return the largest error of all records."""
    return float(np.abs(answer_N.reshape(-1) - target_N).max())
