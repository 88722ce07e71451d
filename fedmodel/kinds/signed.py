"""The layer of a score card (`fedmodel.kinds.models.scorecard`): linear, with weights of declared signs.

Whoever imports this imports torch.

Shapes: B batch, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Signed(nn.Module):
    """A linear layer with one output.

    Guarantee: `weights` has no value below 0 where the sign is 1, and none above 0 where it is -1, whatever the
    parameters are.

    Args:
        signs: Of each feature: 1, -1, or 0 where the weight may have either sign.
    """

    def __init__(self, signs: Sequence[int]) -> None:
        super().__init__()
        bound = 1 / math.sqrt(len(signs))
        self.weight = nn.Parameter(torch.empty(len(signs)).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(1).uniform_(-bound, bound))
        self.signs = tuple(signs)  # no buffer, of which Opacus computes no gradients beside

    def weights(self) -> Tensor:
        """Return the weights that are used, `(F,)`; their gradients are those of the parameters, one to one."""
        wrong_F = self.weight * self.weight.new_tensor(self.signs) < 0
        return self.weight - self.weight.detach() * wrong_F

    def forward(self, x_BF: Tensor) -> Tensor:
        """Return logits of the second class, `(B, 1)`."""
        return (x_BF @ self.weights() + self.bias)[:, None]
