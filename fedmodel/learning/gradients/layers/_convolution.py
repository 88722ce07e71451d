"""Convolutions in one, two and three dimensions: a linear layer at each place, of what its window sees.

A place of the output is a position. Windows are up to as many times a record as a kernel has entries, so that they are
made for Gram matrices and products alone, and gradients come from torch's own kernel, for one record after another.
Where a record's windows are few, starting a kernel for each record costs more than they do: then gradients are products
of windows, of all records at once.

Shapes: B rows of a physical batch, C channels, G groups of them, T places of the output, p outputs and c inputs of a
group, d = c times the kernel's size.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from fedmodel.learning.gradients.layers.parts import Family, Kept, Part
from fedmodel.learning.gradients.layers.products import Factors, Outer

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_WEIGHTS: Final[tuple[Any, ...]] = (conv1d_weight, conv2d_weight, conv3d_weight)
_FEW: Final = 1 << 14  # values that a record's windows see, 64 KB in float32


def parts(layer: nn.Module, given: Tensor, grad: Tensor) -> list[Part]:
    """Return what records add to kernel and bias."""
    assert isinstance(layer, _Convolution)  # noqa: S101 - as `LAYERS` has it
    grad_BCT = grad.flatten(2)
    found: list[Part] = []
    if layer.weight.requires_grad:
        left_BGTp = torch.unflatten(grad_BCT, 1, (layer.groups, -1)).mT
        right, grads = partial(_windows, layer, given), partial(_gradients, layer, given, grad)
        found.append(Outer(layer.weight, Factors(left_BGTp, right, grads, (given,), layer.weight[0].numel())))
    if layer.bias is not None and layer.bias.requires_grad:
        found.append(Kept(layer.bias, grad_BCT.sum(dim=2)))
    return found


def _padded(layer: _Convolution, given: Tensor) -> Tensor:
    """Return what a layer sees of its input, as torch pads it, whether sizes, "same" or a mode were asked for."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(given, layer._reversed_padding_repeated_twice, mode=mode)  # noqa: SLF001


def _gradients(layer: _Convolution, given: Tensor, grad: Tensor, some: slice) -> Tensor:
    """Return the gradients of some records, `(B, P)`: each a product, or of a batch, of its own."""
    if grad[0, 0].numel() * layer.groups * layer.weight[0].numel() <= _FEW:
        left_BGTp = torch.unflatten(grad[some].flatten(2), 1, (layer.groups, -1)).mT
        return torch.matmul(left_BGTp.mT, _windows(layer, given, some)).flatten(1)
    seen, grad = _padded(layer, given[some]), grad[some]
    kernel = _WEIGHTS[len(layer.kernel_size) - 1]
    how = {"stride": layer.stride, "padding": 0, "dilation": layer.dilation, "groups": layer.groups}
    grads = [
        kernel(seen[place : place + 1], layer.weight.shape, grad[place : place + 1], **how)
        for place in range(len(grad))
    ]
    return (grads[0][None] if len(grads) == 1 else torch.stack(grads)).flatten(1)


def _windows(layer: _Convolution, given: Tensor, some: slice) -> Tensor:
    """Return what the windows of some records see, `(B, G, T, d)`."""
    seen = _padded(layer, given[some])
    if prod(layer.kernel_size) == 1:
        strided = seen
        for place, step in enumerate(layer.stride):
            strided = strided[(slice(None),) * (2 + place) + (slice(None, None, step),)]
        return torch.unflatten(strided.flatten(2), 1, (layer.groups, -1)).mT
    if (dimensions := len(layer.kernel_size)) < 3:
        flat, one = (seen, ()) if dimensions == 2 else (seen[:, :, None], (1,))
        columns_BdT = functional.unfold(
            flat,
            kernel_size=(*one, *layer.kernel_size),
            dilation=(*one, *layer.dilation),
            stride=(*one, *layer.stride),
        )
        return torch.unflatten(columns_BdT, 1, (layer.groups, -1)).mT
    for place, (size, step, apart) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        seen = seen.unfold(2 + place, (size - 1) * apart + 1, step)[..., ::apart]
    seen_BCTk = seen.flatten(2, 1 + dimensions).flatten(3)
    return torch.unflatten(seen_BCTk, 1, (layer.groups, -1)).transpose(2, 3).flatten(3)


LAYERS: Final[dict[type[nn.Module], Family]] = dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), parts)
