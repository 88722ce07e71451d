"""Layers whose weights are standardised before they are used: weight standardisation, after Qiao et al. 2019.

De et al. 2022 (section 3) found it to help DP-SGD beside GroupNorm. Unlike a normalisation of activations it looks at
weights alone, which are the same for all records, so it couples none.

Each output has weights of mean 0 and variance 1/fan-in, up to the small constant of Qiao et al., whatever the
parameters are: w_hat = (w - mean(w)) / sqrt((var(w) + 1e-5) fan_in). Division by the root of the fan-in is of Brock et
al. 2021 (section 2): without it, layers that no GroupNorm follows would blow activations up.

They are no subclasses of torch's layers: what computes gradients by a layer's type must not take them for those, whose
gradients are others. Opacus is taught theirs by `fedmodel.learning.gradients._standardised`. Whoever imports this
imports torch.

Shapes: B batch, O outputs or channels, I inputs or channels, K height and width of a kernel, W fan-in.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.errors import ConfigError

_LEAST_VARIANCE: Final = 1e-5


class Standardised(nn.Module):
    """What both layers have: a weight and a bias, drawn as torch's own layers draw theirs.

    Args:
        size: Of the weight; outputs come first.

    Raises:
        ConfigError: Where an output has one input, whose weight would be 0 for ever.
    """

    def __init__(self, *size: int) -> None:
        super().__init__()
        fan_in = math.prod(size[1:])
        if fan_in < 2:
            raise ConfigError(
                "model.weight_standardization sets the mean of an output's weights to 0, so that the weight of one"
                " input would be 0; leave it out, or give the first layer more inputs"
            )
        self.weight = nn.Parameter(torch.empty(size))
        self.bias = nn.Parameter(torch.empty(size[0]))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        nn.init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def standardised(self) -> Tensor:
        """Return the weight as it is used, of the weight's shape."""
        used_OW, _ = _standardised(self.weight.flatten(1))
        return used_OW.view(self.weight.shape)

    def pulled_back(self, grad_BOW: Tensor) -> Tensor:
        """Return the gradient by the weight, from that by the weight as it is used, of each record by itself.

        With s the standardised weights before the root of the fan-in and e their deviation, it is
        (g - mean(g) - s mean(g s)) / (e sqrt(fan_in)), means over one output's weights.

        Args:
            grad_BOW: Of shape `(B, O, W)`. Sensitive.
        """
        with torch.no_grad():
            used_OW, scale_O1 = _standardised(self.weight.flatten(1))
            s_OW = used_OW * math.sqrt(used_OW.shape[1])
            along_BO1 = (grad_BOW * s_OW).mean(dim=2, keepdim=True)
            return (grad_BOW - grad_BOW.mean(dim=2, keepdim=True) - s_OW * along_BO1) * scale_O1


class StandardisedLinear(Standardised):
    """A fully connected layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(outputs, inputs)

    def forward(self, x_BI: Tensor) -> Tensor:
        """Return the outputs, of shape `(B, ..., O)`."""
        return functional.linear(x_BI, self.standardised(), self.bias)


class StandardisedConv2d(Standardised):
    """A convolution of step 1 that leaves height and width as they are.

    Args:
        inputs: Channels.
        outputs: Channels.
        kernel_size: Height and width of the kernel, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int) -> None:
        super().__init__(outputs, inputs, kernel_size, kernel_size)
        self.kernel_size, self.padding = kernel_size, kernel_size // 2

    def forward(self, x_BIHW: Tensor) -> Tensor:
        """Return the outputs, of shape `(B, O, H, W)`."""
        return functional.conv2d(x_BIHW, self.standardised(), self.bias, padding=self.padding)


def _standardised(weight_OW: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights as they are used, and what they were multiplied with, of shape `(O, 1)`."""
    centred_OW = weight_OW - weight_OW.mean(dim=1, keepdim=True)
    variance_O1 = centred_OW.square().mean(dim=1, keepdim=True)
    scale_O1 = ((variance_O1 + _LEAST_VARIANCE) * weight_OW.shape[1]).rsqrt()
    return centred_OW * scale_O1, scale_O1
