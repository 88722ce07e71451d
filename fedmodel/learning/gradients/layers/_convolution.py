"""Convolutions in one, two and three dimensions: a linear layer at each place, of what its window sees.

A place of the output is a position. Windows of a record are up to as many times the record as a kernel has entries, so
that they are computed of a few records at once, and not saved.

Shapes: B rows of a physical batch, C channels, G groups of them, T places of the output, p outputs and c inputs of a
group, d = c times the kernel's size.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from fedmodel.learning.gradients.layers.parts import Kept, Outer, Part

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def parts(layer: nn.Module, given: Tensor, grad: Tensor) -> list[Part]:
    """Return what records add to kernel and bias."""
    assert isinstance(layer, _Convolution)  # noqa: S101 - as `LAYERS` has it
    grad_BCT = grad.flatten(2)
    found: list[Part] = []
    if layer.weight.requires_grad:
        left_BGTp = grad_BCT.unflatten(1, (layer.groups, -1)).mT
        found.append(Outer(layer.weight, left_BGTp, partial(_windows, layer, given), [given]))
    if layer.bias is not None and layer.bias.requires_grad:
        found.append(Kept(layer.bias, grad_BCT.sum(dim=2)))
    return found


def _windows(layer: _Convolution, given: Tensor, some: slice) -> Tensor:
    """Return what the windows of some records see, `(B, G, T, d)`."""
    dimensions = len(layer.kernel_size)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    # What torch itself pads with, whether sizes or "same" were asked for.
    seen = functional.pad(given[some], layer._reversed_padding_repeated_twice, mode=mode)  # noqa: SLF001
    if prod(layer.kernel_size) == 1:
        strided = seen[(..., *(slice(None, None, step) for step in layer.stride))]
        return strided.flatten(2).unflatten(1, (layer.groups, -1)).mT
    if dimensions < 3:
        flat = seen if dimensions == 2 else seen[:, :, None]
        one = (1,) * (2 - dimensions)
        columns_BdT = functional.unfold(
            flat,
            kernel_size=one + layer.kernel_size,
            dilation=one + layer.dilation,
            stride=one + layer.stride,
        )
        return columns_BdT.unflatten(1, (layer.groups, -1)).mT
    for place, (size, step, apart) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        seen = seen.unfold(2 + place, (size - 1) * apart + 1, step)[..., ::apart]
    seen_BCTk = seen.flatten(2, 1 + dimensions).flatten(3)
    return seen_BCTk.unflatten(1, (layer.groups, -1)).transpose(2, 3).flatten(3)


LAYERS: Final = dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), parts)
