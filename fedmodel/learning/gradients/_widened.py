"""What a layer computed with, in float32: bf16 values are float32 values, so that nothing is rounded.

A layer that multiplies in bf16 (`fedmodel.learning.precision`) rounds what it is given, and the gradient at what comes
out is bf16 by itself. Norms and sums of the values that it was given would be of another function than it computed;
norms of one and sums of the other would bound nothing. So both come from here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def widened(given: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a layer computed with and the gradient at what came out, in float32 where either is bf16.

    Args:
        given: What went in; where what came out is bf16 it is rounded to that, as a linear layer and a convolution do
            themselves. Whole numbers stay.
        grad: Of the loss, at what came out.

    >>> given, grad = torch.tensor([1 + 2.0**-12]), torch.tensor([0.5], dtype=torch.bfloat16)
    >>> widened(given, grad), widened(given, grad.float())[0] == given
    ((tensor([1.]), tensor([0.5000])), tensor([True]))
    """
    if torch.bfloat16 not in (given.dtype, grad.dtype):
        return given, grad
    if given.is_floating_point():
        given = given.to(grad.dtype).float()
    return given, grad.float()
