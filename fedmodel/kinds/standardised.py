"""Layers whose weights are standardised before they are used: weight standardisation, after Qiao et al. 2019.

De et al. 2022 (section 3) found it to help DP-SGD beside GroupNorm. Unlike a normalisation of activations it looks at
weights alone, which are the same for all records, so it couples none.

Each output has weights of mean 0 and variance 1/fan-in, up to the small constant of Qiao et al., whatever the
parameters are: w_hat = (w - mean(w)) / sqrt((var(w) + 1e-5) fan_in). Division by the root of the fan-in is of Brock et
al. 2021 (section 2): without it, layers that no GroupNorm follows would blow activations up.

They are no subclasses of torch's layers: what computes gradients by a layer's type must not take them for those, whose
gradients are others. Opacus is taught theirs by `fedmodel.learning.gradients._taught`, which every use of Opacus
here imports first, and so does `fedmodel.learning.beside_opacus`. Whoever imports this imports torch.

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
        bias: Whether there is one.

    Raises:
        ConfigError: Where an output has one input, whose weight would be 0 for ever.
    """

    bias: nn.Parameter | None

    def __init__(self, *size: int, bias: bool = True) -> None:
        super().__init__()
        fan_in = math.prod(size[1:])
        if fan_in < 2:
            raise ConfigError(
                "model.weight_standardization sets the mean of an output's weights to 0, so that the weight of one"
                " input would be 0; leave it out, or give the first layer more inputs"
            )
        self.weight = nn.Parameter(torch.empty(size))
        self.bias = nn.Parameter(torch.empty(size[0])) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
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

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(outputs, inputs, bias=bias)

    def forward(self, x_BI: Tensor) -> Tensor:
        """Return the outputs, of shape `(B, ..., O)`."""
        return functional.linear(x_BI, self.standardised(), self.bias)


class StandardisedConv2d(Standardised):
    """A convolution; by default one of step 1 that leaves height and width as they are.

    Args:
        inputs: Channels.
        outputs: Channels.
        kernel_size: Height and width of the kernel; odd, where no padding is said.
        stride: Of steps.
        padding: Zeros at each edge; half of the kernel by default.
        bias: Whether there is one.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | None = None,
        bias: bool = True,
    ) -> None:
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        super().__init__(outputs, inputs, height, width, bias=bias)
        self.kernel_size, self.stride = (height, width), stride
        self.padding = (height // 2, width // 2) if padding is None else padding

    def forward(self, x_BIHW: Tensor) -> Tensor:
        """Return the outputs, of shape `(B, O, H, W)`."""
        return functional.conv2d(x_BIHW, self.standardised(), self.bias, stride=self.stride, padding=self.padding)


def standardised(model: nn.Module) -> nn.Module:
    """Return a model with the weights of all its plain linear layers and 2-D convolutions but the last standardised.

    Parameters keep their names and values. The last one is that which the model names last, from which its outputs are
    taken to come. Layers of other types, subclasses of these two too, are left as they are.

    Args:
        model: It is changed.

    Raises:
        ConfigError: When it has no such layer but the last, or a convolution in groups, of steps between the places of
            its kernel, or with other values than zeros beside an image.
    """
    plain = {name: layer for name, layer in model.named_modules() if type(layer) in (nn.Linear, nn.Conv2d)}
    hidden = list(plain.items())[:-1]
    if not hidden:
        raise ConfigError(
            "model.weight_standardization is of plain linear layers and 2-D convolutions before the last one, and the"
            " model has none; leave it out"
        )
    instead = {layer: _in_place_of(name, layer) for name, layer in hidden}
    for parent in list(model.modules()):
        for place, child in list(parent._modules.items()):  # noqa: SLF001 - named_children leaves second names out
            if child in instead:
                parent.register_module(place, instead[child])
    return model


def _in_place_of(name: str, layer: nn.Module) -> Standardised:
    """Return a layer with the same parameters, whose weights are standardised."""
    new: Standardised
    assert isinstance(layer, nn.Linear | nn.Conv2d)  # noqa: S101 - the types that are looked for
    if isinstance(layer, nn.Conv2d):
        zeros = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        if layer.groups != 1 or any(step != 1 for step in layer.dilation) or not zeros:
            raise ConfigError(
                f"model.weight_standardization does not take the layer {name!r}, a convolution in groups, with dilation"
                " or with padding that is no number of zeros; leave it out, or write that layer otherwise"
            )
        new = StandardisedConv2d(
            layer.in_channels,
            layer.out_channels,
            (layer.kernel_size[0], layer.kernel_size[1]),
            stride=(layer.stride[0], layer.stride[1]),
            padding=(layer.padding[0], layer.padding[1]),  # type: ignore[arg-type]  # numbers, as was looked at
            bias=layer.bias is not None,
        )
    else:
        new = StandardisedLinear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    for own, parameter in layer.named_parameters(recurse=False):
        new.register_parameter(own, parameter)
    return new.train(layer.training)


def _standardised(weight_OW: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights as they are used, and what they were multiplied with, of shape `(O, 1)`."""
    centred_OW = weight_OW - weight_OW.mean(dim=1, keepdim=True)
    variance_O1 = centred_OW.square().mean(dim=1, keepdim=True)
    scale_O1 = ((variance_O1 + _LEAST_VARIANCE) * weight_OW.shape[1]).rsqrt()
    return centred_OW * scale_O1, scale_O1
