"""Tasks on sequences: at each position one of several tokens or labels, or nothing that counts.

A model returns `(B, T, V)`, and targets are `(B, T)`, whole numbers from 0 to V - 1, or `IGNORED` where a position does
not count: padding, or what is given and not to be learnt. A record's loss is the mean over its own positions that
count, so that a long record weighs no more than a short one, and 0 where none does.

Does NOT hide from a model what it should not see: that the next token is no input is for the model's own mask.

Shapes: B batch, N records, T positions, V tokens or labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import IGNORED
from fedmodel.learning.tasks._task import Figure, Measured, RecordLoss, Task


def cross_entropy(output_BTV: Any, target_BT: Tensor) -> Tensor:
    """Return each record's cross-entropy, averaged over its own positions that count; shape `(B,)`.

    Raises:
        ConfigError: When a model returns no outputs for each position.
    """
    if output_BTV.dim() != 3 or output_BTV.shape[:2] != target_BT.shape:
        raise ConfigError(
            f"a task on sequences needs outputs for each of {'x'.join(map(str, target_BT.shape))} positions, and the"
            f" model returns {'x'.join(map(str, output_BTV.shape)) or 'a single number'}"
        )
    counts_BT = target_BT != IGNORED
    own_BT = -torch.log_softmax(output_BTV, dim=2).gather(2, target_BT.clamp(min=0)[:, :, None])[:, :, 0]
    return torch.where(counts_BT, own_BT, 0.0).sum(dim=1) / counts_BT.sum(dim=1).clamp(min=1)


class Positions(Task):
    """Answers are the token or label that is held for the likeliest at each position, `(N, T)`."""

    losses: ClassVar[Mapping[str, RecordLoss]] = {"cross-entropy": cross_entropy}
    knows_nothing = "the shares of all tokens"

    def answers(self, loss: str, output: Any) -> Tensor:  # noqa: ARG002 - outputs are logits by any loss
        """Return the likeliest at each position."""
        found: Tensor = output.argmax(dim=2)
        return found

    def base_loss(self, loss: str, target_N: NDArray[Any]) -> float | None:
        """Return the loss of answering with the shares, a record's positions counting as one record together."""
        if loss != "cross-entropy":
            return None
        counts_NT = target_N != IGNORED
        weight_NT = counts_NT / np.maximum(counts_NT.sum(axis=1, keepdims=True), 1)
        share_V = np.bincount(target_N[counts_NT], weights=weight_NT[counts_NT])
        share_V = share_V[share_V > 0]
        return float(-(share_V * np.log(share_V / share_V.sum())).sum() / len(target_N))

    def known(self) -> Mapping[str, Figure]:
        """Return the figures that there are."""
        return {"perplexity": _perplexity, "token-accuracy": _token_accuracy}


def _perplexity(found: Measured) -> float | None:
    """Return e to the mean cross-entropy of all positions that count, each counting as much as any other.

    It is left out where none counts, or the loss is another.
    """
    counted_N = (found.target_N != IGNORED).sum(axis=1)
    if found.loss != "cross-entropy" or not counted_N.any():
        return None
    mean = float((found.loss_N.astype(np.float64) * counted_N).sum() / counted_N.sum())
    return math.exp(mean) if mean < 700 else None  # no float64 holds what is larger


def _token_accuracy(found: Measured) -> float | None:
    """Return the share of positions that count at which the answer is right, left out where none counts."""
    counts_NT = found.target_N != IGNORED
    return float((found.answer_N == found.target_N)[counts_NT].mean()) if counts_NT.any() else None
