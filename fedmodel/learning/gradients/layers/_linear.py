"""Linear layers, on any number of positions: y = x W' + b.

Shapes: B rows of a physical batch, T positions, d inputs, p outputs.
"""

from __future__ import annotations

from typing import Final

from opacus.layers.dp_rnn import RNNLinear
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fedmodel.learning.gradients.layers.parts import Kept, Outer, Part


def parts(layer: nn.Module, given: Tensor, grad: Tensor) -> list[Part]:
    """Return what records add to weight and bias."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, nn.Parameter)  # noqa: S101 - as torch has it
    return of_product(weight, bias if isinstance(bias, nn.Parameter) else None, given, grad)


def of_product(
    weight: nn.Parameter, bias: nn.Parameter | None, given: Tensor, grad: Tensor, rows: slice = slice(None)
) -> list[Part]:
    """Return what records add to a weight and a bias, or to some rows of them.

    Args:
        weight: Of which y = x W' was computed.
        bias: What was added, None where nothing was.
        given: x, `(B, ..., d)`.
        grad: The gradient at y, `(B, ..., p)`.
        rows: Which rows of both were used.
    """
    grad_BTp, given_BTd = (one.reshape(len(one), -1, one.shape[-1]) for one in (grad, given))
    found: list[Part] = []
    if weight.requires_grad:
        given_BGTd = given_BTd[:, None]
        found.append(Outer(weight, grad_BTp[:, None], given_BGTd.__getitem__, [given_BTd], rows))
    if bias is not None and bias.requires_grad:
        found.append(Kept(bias, grad_BTp[:, 0] if grad_BTp.shape[1] == 1 else grad_BTp.sum(dim=1), rows))
    return found


LAYERS: Final = dict.fromkeys((nn.Linear, NonDynamicallyQuantizableLinear, RNNLinear), parts)
