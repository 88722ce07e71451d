"""Convolutions in one, two and three dimensions: a linear layer at each place, of what its window sees.

A place of the output is a position. Windows are up to as many times a record as a kernel has entries, so that they are
made of a few records at once. A record's gradient is a product of its windows. Where places are many, and channels fill
the blocks that torch's own kernel works in, that one costs less: a few records are given to it side by side, as groups
of channels of one record, so that each has a gradient of its own.

Shapes: B rows of a physical batch, C channels, G groups of them, T places of the output, p outputs and c inputs of a
group, d = c times the kernel's size.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.learning.gradients.layers.parts import CACHED, Family, Kept, Part
from fedmodel.learning.gradients.layers.products import Factors, Outer

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_MANY: Final = 1 << 8  # places
_LANES: Final = 16  # channels of a block


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
    """Return the gradients of some records, `(B, P)`: each a product, or groups of channels, of its own."""
    if not _is_blocked(layer, grad):
        groups, few = layer.groups, max(1, CACHED // (grad[0, 0].numel() * layer.groups * layer.weight[0].numel()))
        start, stop, _ = some.indices(len(grad))
        pieces = [slice(at, min(at + few, stop)) for at in range(start, stop, few)]
        products = [
            torch.bmm(grad[one].reshape((one.stop - one.start) * groups, -1, grad[0, 0].numel()), seen_NTd)
            for one, seen_NTd in ((one, _windows(layer, given, one).flatten(0, 1)) for one in pieces)
        ]
        return (products[0] if len(products) == 1 else torch.cat(products)).view(stop - start, -1)
    seen, grad = _padded(layer, given[some]), grad[some]
    records, flat = len(seen), [0] * len(layer.kernel_size)
    # Torch reads the weight's shape alone.
    weight = layer.weight.detach().repeat(records, *[1] * (layer.weight.dim() - 1))
    grads: Tensor = torch.ops.aten.convolution_backward(
        *(one.reshape(1, -1, *one.shape[2:]) for one in (grad, seen)), weight, None, layer.stride, flat,
        layer.dilation, False, flat, records * layer.groups, (False, True, False),
    )[1]  # fmt: skip
    return grads.reshape(records, -1)


def _is_blocked(layer: _Convolution, grad: Tensor) -> bool:
    """Tell whether torch's kernel takes one record after another in one call, for less than products cost."""
    outputs, inputs = layer.weight.shape[0] // layer.groups, layer.weight.shape[1]
    return grad[0, 0].numel() >= _MANY and outputs % _LANES == 0 and inputs % _LANES == 0


def _windows(layer: _Convolution, given: Tensor, some: slice) -> Tensor:
    """Return what the windows of some records see, `(B, G, T, d)`."""
    seen = _padded(layer, given[some])
    dimensions = len(layer.kernel_size)
    for place, (size, step, apart) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        seen = seen.unfold(2 + place, (size - 1) * apart + 1, step)[..., ::apart]
    # Places go last, where those beside each other are so in memory.
    ordered = seen.permute(0, 1, *range(2 + dimensions, 2 + 2 * dimensions), *range(2, 2 + dimensions))
    return ordered.reshape(len(seen), layer.groups, layer.weight[0].numel(), -1).mT


LAYERS: Final[dict[type[nn.Module], Family]] = dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), parts)
