"""Linear layers, on any number of positions: y = x W' + b.

A product of a few columns whose inner dimension is no multiple of four rounds the last rows of a batch otherwise than
those before, on a processor that was tried: a record's gradient then hangs on its place, and no batch of more than one
row conforms (`fedmodel.learning.conformance`). So such a layer is computed with zeros behind its inputs and outputs,
up to a multiple of four. It is the same layer but for rounding, and it is measured as any other.

Shapes: B rows of a physical batch, T positions, d inputs, p outputs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fedmodel.kinds.held import HeldLinear
from fedmodel.learning.gradients.layers.parts import Family, Kept, Part
from fedmodel.learning.gradients.layers.products import Factors, Outer

Note = Callable[[Family, Tensor, Tensor], None]
"""Notes what went into a projection and what came out, both with a row for each record, and how its parts follow."""


def parts(layer: nn.Module, given: Tensor, grad: Tensor) -> list[Part]:
    """Return what records add to weight and bias."""
    assert isinstance(layer, nn.Linear | HeldLinear)  # noqa: S101 - as `LAYERS` has it
    return of_product(layer.weight, layer.bias, given, grad)


def of_product(
    weight: Tensor, bias: Tensor | None, given: Tensor, grad: Tensor, rows: slice = slice(None)
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

        def right(some: slice) -> Tensor:
            return given_BTd[some, None]

        def grads(some: slice) -> Tensor:
            return torch.bmm(grad_BTp[some].mT, given_BTd[some]).flatten(1)

        factors = Factors(grad_BTp[:, None], right, grads, (given_BTd,), given_BTd.shape[2])
        found.append(Outer(weight, factors, rows))
    if bias is not None and bias.requires_grad:
        found.append(Kept(bias, grad_BTp[:, 0] if grad_BTp.shape[1] == 1 else grad_BTp.sum(dim=1), rows))
    return found


_UP_TO: Final = 4  # what the dimensions of a product are filled up to
_FEW: Final = 12  # from so many columns on, rows were alike at any inner dimension


def filled_up(layer: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return what computes a layer with zeros behind inputs and outputs; None where rows are alike without them.

    Its way forward is a product of p columns over d, its way back one of d columns over p. One column is summed alike
    in all rows, and so are up to four terms.
    """
    if type(layer) is not nn.Linear or "forward" in vars(layer):
        return None
    weight = layer.weight
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    pairs = (layer.in_features, layer.out_features), (layer.out_features, layer.in_features)
    is_odd = any(inner > _UP_TO and inner % _UP_TO and 1 < columns < _FEW for inner, columns in pairs)
    return partial(_filled_up, layer) if is_odd else None


def _filled_up(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return `layer(x)`, but for rounding; no view, which would leave its place in the graph when it is changed."""
    outputs, inputs = -layer.out_features % _UP_TO, -layer.in_features % _UP_TO
    weight = functional.pad(layer.weight, (0, inputs, 0, outputs))
    bias = None if layer.bias is None else functional.pad(layer.bias, (0, outputs))
    output = functional.linear(functional.pad(x, (0, inputs)), weight, bias)
    return output[..., : layer.out_features].clone() if outputs else output


def noted(note: Note, weight: Tensor, bias: Tensor | None, given: Tensor) -> Tensor:
    """Return what a weight and a bias make of what went in, and note how their parts follow."""
    output = functional.linear(given, weight, bias)
    note(partial(_of_noted, weight, bias), given, output)
    return output


def _of_noted(weight: Tensor, bias: Tensor | None, _: nn.Module, given: Tensor, grad: Tensor) -> list[Part]:
    """Return what records add to a weight and a bias."""
    return of_product(weight, bias, given, grad)


LAYERS: Final[dict[type[nn.Module], Family]] = dict.fromkeys(
    (nn.Linear, NonDynamicallyQuantizableLinear, HeldLinear), parts
)


def of_opacus() -> dict[type[nn.Module], Family]:
    """Return the linear layers of Opacus's recurrent ones; a model has one only where whoever made it imported them."""
    found = getattr(sys.modules.get("opacus.layers.dp_rnn"), "RNNLinear", None)
    return {} if found is None else {found: parts}
