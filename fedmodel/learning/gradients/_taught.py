"""Gradients of each record for layers of our own, as Opacus takes them.

Importing this registers them beside Opacus's own, so that every kind that looks a layer up there finds them by their
type. They are layers with standardised weights (`fedmodel.kinds.standardised`), and linear layers whose frozen matrix
is held in fewer bits (`fedmodel.kinds.held`). Of the first, each record's gradient by the weight as it is used is
Opacus's formula for the plain layer; the way back to the parameter is the same linear map for every record.

Shapes: B batch, I inputs, O outputs, W fan-in, L places of an image, T any further axes.
"""

from __future__ import annotations

import torch
from opacus.grad_sample import register_grad_sampler
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.kinds.held import HeldLinear
from fedmodel.kinds.standardised import StandardisedConv2d, StandardisedLinear


@register_grad_sampler(StandardisedLinear)  # type: ignore[untyped-decorator]
def linear(layer: StandardisedLinear, activations: list[Tensor], backprops_BTO: Tensor) -> dict[nn.Parameter, Tensor]:
    """Return the gradient of each record by weight and bias."""
    x_BTI = activations[0].to(backprops_BTO.dtype)
    grad_BOI = torch.einsum("n...i,n...j->nij", backprops_BTO, x_BTI)
    found = {layer.weight: layer.pulled_back(grad_BOI)}
    return found if layer.bias is None else {**found, layer.bias: torch.einsum("n...k->nk", backprops_BTO)}


@register_grad_sampler(StandardisedConv2d)  # type: ignore[untyped-decorator]
def conv2d(layer: StandardisedConv2d, activations: list[Tensor], backprops: Tensor) -> dict[nn.Parameter, Tensor]:
    """Return the gradient of each record by weight and bias."""
    backprops_BOL = backprops.flatten(2)
    x_BIHW = activations[0].to(backprops.dtype)
    x_BWL = functional.unfold(x_BIHW, layer.kernel_size, padding=layer.padding, stride=layer.stride)
    grad_BOW = layer.pulled_back(torch.einsum("nol,nwl->now", backprops_BOL, x_BWL))
    found = {layer.weight: grad_BOW.view(-1, *layer.weight.shape)}
    return found if layer.bias is None else {**found, layer.bias: backprops_BOL.sum(dim=2)}


@register_grad_sampler(HeldLinear)  # type: ignore[untyped-decorator]
def held(layer: HeldLinear, _: list[Tensor], backprops_BTO: Tensor) -> dict[nn.Parameter, Tensor]:
    """Return the gradient of each record by the bias, where that trains."""
    if layer.bias is None or not layer.bias.requires_grad:
        return {}
    return {layer.bias: torch.einsum("n...k->nk", backprops_BTO)}
