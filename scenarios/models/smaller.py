"""A trained model made smaller: weights set to zero, units taken out, weights as int8. All of it is post-processing.

    without_units    units of fully connected layers are taken out, and the layers are as much narrower
    pruned           the smallest weights of the model are set to zero
    quantised        weights of torch's own fully connected and convolutional layers are integers from -127 to 127, and
                     a scale for each output

They are done in this order, on a copy. Each looks at the model alone, which is released, so that none costs privacy.

Guarantees:
- `pruned` sets exactly the share of weights to zero that it was asked for, rounded to a whole number, and no weight
  that it leaves is smaller than one that it took (magnitude pruning, Han et al. 2015, section 3);
- `without_units` leaves the same computation without these units (Li et al. 2017, section 3.1, for units in place of
  filters: those whose incoming weights are shortest are taken); at least one unit stays in each layer;
- `quantised` gives integers and scales as torchao makes them, of weights alone: what goes into a layer stays float32.
  A convolution's are those of the matrix of its outputs by all the rest, so that each output has one scale. A layer of
  a class that is derived from torch's may compute something else, and stays as it is; one that is used at several
  places is integers at each.

Does NOT train the model again, which would take records. How much worse it is, is measured by whoever exports.

Shapes: O outputs of a layer, I inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.errors import ConfigError
from fedmodel.kinds.layers import Dropout
from fedmodel.kinds.standardised import Standardised
from fedmodel.system.kinds import not_known
from fedmodel.system.packages import missing
from fedmodel.system.quiet import quiet

WEIGHED: Final = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weights are pruned; biases and norms are few, and stay."""

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLVE: Final[dict[type[nn.Module], Callable[..., Tensor]]] = {
    nn.Conv1d: functional.conv1d, nn.Conv2d: functional.conv2d, nn.Conv3d: functional.conv3d,
}  # fmt: skip

_BETWEEN: Final = (nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid, nn.Identity, nn.Dropout, Dropout)
"""What acts on each unit by itself."""


@dataclass(frozen=True)
class Smaller:
    """What is to be done with a model.

    Attributes:
        prune: The share of weights that are set to zero, None for none.
        prune_units: The share of units of each hidden layer that are taken out, None for none.
        quantise: What weights of fully connected and convolutional layers become, "int8", None where they stay
            float32.

    Raises:
        ConfigError: When a share is not between 0 and 1.
    """

    prune: float | None = None
    prune_units: float | None = None
    quantise: str | None = None

    def __post_init__(self) -> None:
        for option, share in (("--prune", self.prune), ("--prune-units", self.prune_units)):
            if share is not None and not 0 < share < 1:
                raise ConfigError(f"{option} {share:g}: is a share of what there is, more than 0 and less than 1")
        if self.quantise not in (None, "int8"):
            raise ConfigError(f"--quantise: {not_known('kind of weights', self.quantise or '', ['int8'])}")

    @property
    def is_nothing(self) -> bool:
        """Whether the model stays as it is."""
        return self == WHOLE

    def of(self, module: nn.Module) -> nn.Module:
        """Return a smaller copy of a model, in evaluation.

        Raises:
            ConfigError: When the model has nothing that this could be done with, or torchao is missing.
        """
        if not self.is_nothing:
            _check_weights(module)
        made = copy.deepcopy(module).eval()
        if self.prune_units is not None:
            made = without_units(made, self.prune_units)
        if self.prune is not None:
            pruned(made, self.prune)
        if self.quantise is not None:
            made = quantised(made)
        return made

    def sentences(self) -> list[str]:
        """Say what was done, for the model's card."""
        told = []
        if self.prune_units is not None:
            told.append(
                f"{self.prune_units:.3g} of the units of each hidden layer were taken out, those whose incoming weights"
                " were shortest. `model.json` describes the network before that."
            )
        if self.prune is not None:
            told.append(
                f"{self.prune:.3g} of the weights, the smallest, were set to zero. The file has a place for each zero,"
                " so that it is smaller only once it is compressed."
            )
        if self.quantise is not None:
            told.append(
                "Weights of torch's own fully connected and convolutional layers were rounded to int8 by torchao, with"
                " a scale for each output; all other numbers, and all arithmetic, are float32."
            )
        return told


WHOLE: Final = Smaller()
"""Nothing is done."""


def _check_weights(module: nn.Module) -> None:
    """Refuse a model whose weights are computed as they are used: none of them would stay zero or an integer."""
    for name, layer in module.named_modules():
        if isinstance(layer, Standardised):
            raise ConfigError(
                "this model standardises its weights as they are used, and then no weight is zero or an integer; train"
                " it without model.weight_standardization to make it smaller"
            )
        if isinstance(layer, WEIGHED) and "weight" not in dict(layer.named_parameters(recurse=False)):
            raise ConfigError(
                f"the weights of layer {name} are computed from others as they are used, as weight_norm does, and then"
                " none is zero or an integer; train that layer without it to make the model smaller"
            )


def pruned(module: nn.Module, share: float) -> None:
    """Set the smallest weights of a model to zero, over all layers at once, in place.

    Args:
        module: The model.
        share: Of its weights.

    Raises:
        ConfigError: When the model has no weights of a known layer.
    """
    weights = [layer.weight.data for layer in module.modules() if isinstance(layer, WEIGHED)]
    if not weights:
        raise ConfigError("--prune: this model has no plain linear or convolutional layer whose weights could be zero")
    sizes = torch.cat([weight.abs().reshape(-1) for weight in weights])
    keeps = torch.ones(len(sizes), dtype=torch.bool)
    keeps[torch.argsort(sizes, stable=True)[: round(share * len(sizes))]] = False  # equal ones in the model's order
    for weight, kept in zip(weights, keeps.split_with_sizes([weight.numel() for weight in weights]), strict=True):
        weight *= kept.view_as(weight)


def without_units(module: nn.Module, share: float) -> nn.Module:
    """Return a chain of fully connected layers without the units whose incoming weights are shortest.

    Args:
        module: A chain: fully connected layers, and between them what acts on each unit by itself.
        share: Of the units of each hidden layer.

    Raises:
        ConfigError: When the model is no such chain, or has no hidden layer.
    """
    layers = list(module) if isinstance(module, nn.Sequential) else []
    flattens = 1 if layers and isinstance(layers[0], nn.Flatten) else 0
    # By exact types: a derived class may compute something else, and a plain layer would take its place.
    linear = {place: layer for place, layer in enumerate(layers) if type(layer) is nn.Linear}
    if len(linear) < 2 or not all(type(layer) in (nn.Linear, *_BETWEEN) for layer in layers[flattens:]):
        raise ConfigError(
            "--prune-units: units are taken out of fully connected hidden layers, with nothing but activations between"
            " them, and this model is no chain of these; --prune sets single weights of any model to zero"
        )
    kept_I: Tensor | None = None
    for place, layer in linear.items():
        is_last = place == max(linear)
        norm_O = layer.weight.detach().norm(dim=1)
        count = len(norm_O) if is_last else max(1, round((1 - share) * len(norm_O)))
        kept_O = torch.argsort(norm_O, descending=True, stable=True)[:count].sort().values
        layers[place] = _narrowed(layer, torch.arange(len(norm_O)) if is_last else kept_O, kept_I)
        kept_I = kept_O
    return nn.Sequential(*layers)


def _narrowed(layer: nn.Linear, kept_O: Tensor, kept_I: Tensor | None) -> nn.Linear:
    """Return a layer with some of its outputs and inputs."""
    weight_OI = layer.weight.detach()[kept_O]
    if kept_I is not None:
        weight_OI = weight_OI[:, kept_I]
    made = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=layer.bias is not None)
    with torch.no_grad():
        made.weight.copy_(weight_OI)
        if layer.bias is not None:
            made.bias.copy_(layer.bias[kept_O])
    return made


class WeightsRead(ConfigError, AttributeError):
    """A model reads the integers of a layer, as weights; also what Python asks for where an attribute is not there."""


class _OfIntegers(nn.Module):
    """A layer whose weights are integers: they are weights by its scale alone, so that nothing else may read them."""

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            raise WeightsRead(
                "--quantise: this model reads the weights of a layer itself, as float32, where it would have to call"
                " the layer; export it without"
            )
        return super().__getattr__(name)

    def _weight(self, like: Tensor) -> Tensor:
        """Return the integers, as numbers of a tensor's type."""
        weight: Tensor | None = self._buffers["weight"]
        assert weight is not None  # noqa: S101 - each registers it
        return weight.to(like.dtype)


class Int8Linear(_OfIntegers):
    """A fully connected layer whose weights are integers, by operations that every runtime has.

    torchao's own layer computes the same, with a tensor that only torchao reads from a file.

    Args:
        weight_OI: int8.
        scale_O: float32, what an integer of each output stands for.
        bias_O: float32, or None.
    """

    def __init__(self, weight_OI: Tensor, scale_O: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight_OI)
        self.register_buffer("scale", scale_O)
        self.register_buffer("bias", bias_O)

    def forward(self, x_BI: Tensor) -> Tensor:
        """Return what the layer makes of its inputs."""
        found_BO = functional.linear(x_BI, self._weight(x_BI)) * self.get_buffer("scale")
        return found_BO if self.bias is None else found_BO + self.get_buffer("bias")


class Int8Conv(_OfIntegers):
    """A convolution whose weights are integers, likewise; its stride, padding, dilation and groups are the layer's.

    Args:
        layer: The convolution, of one, two or three axes.
        weight_OI: int8, its weights as a matrix of outputs by all the rest.
        scale_O: float32, what an integer of each output stands for.
    """

    def __init__(self, layer: Convolution, weight_OI: Tensor, scale_O: Tensor) -> None:
        super().__init__()
        apart = (-1, *(1 for _ in layer.kernel_size))  # along the axis of outputs, whatever the place
        self.register_buffer("weight", weight_OI.view_as(layer.weight))
        self.register_buffer("scale", scale_O.view(apart))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone().view(apart))
        self._convolve = _CONVOLVE[type(layer)]
        self._how = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
        pads_zeros = layer.padding_mode == "zeros"
        self._padding = layer.padding if pads_zeros else 0
        self._beside = None if pads_zeros else (layer._reversed_padding_repeated_twice, layer.padding_mode)  # noqa: SLF001

    def forward(self, x_B: Tensor) -> Tensor:
        """Return what the layer makes of its inputs."""
        if self._beside is not None:
            x_B = functional.pad(x_B, self._beside[0], mode=self._beside[1])
        found_B = self._convolve(x_B, self._weight(x_B), padding=self._padding, **self._how) * self.get_buffer("scale")
        return found_B if self.bias is None else found_B + self.get_buffer("bias")


def quantised(module: nn.Module) -> nn.Module:
    """Give the fully connected and convolutional layers of a model int8 weights, as torchao rounds them, in place.

    Raises:
        ConfigError: When there is none, a layer above them reads their weights itself, or torchao is not installed.
    """
    try:
        with quiet():
            from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError:
        raise missing("torchao", "int8 weights", "compress") from None
    holder = nn.Sequential(module)  # so that a model that is one layer has somewhere to be replaced
    if any(isinstance(layer, nn.TransformerEncoderLayer) for layer in holder.modules()):
        raise ConfigError(
            "--quantise: nn.TransformerEncoderLayer reads the weights of its layers itself, as float32; export this"
            " model without it"
        )
    places = dict[nn.Linear | Convolution, list[str]]()  # modules hash by identity
    for name, layer in holder.named_modules(remove_duplicate=False):
        if _is_plain(layer):
            places.setdefault(layer, []).append(name)
    if not places:
        raise ConfigError(
            "--quantise: this model has no plain linear or convolutional layer whose weights could be int8"
        )
    for layer, names in places.items():
        matrix = nn.Sequential(_as_matrix(layer))
        with quiet():
            quantize_(matrix, Int8WeightOnlyConfig())
        weight: Any = matrix[0].weight  # torchao's tensor
        weight_OI, scale_O = weight.qdata.detach().clone(), weight.scale.detach().float().reshape(-1).clone()
        made: nn.Module
        if isinstance(layer, nn.Linear):
            made = Int8Linear(weight_OI, scale_O, None if layer.bias is None else layer.bias.detach().clone())
        else:
            made = Int8Conv(layer, weight_OI, scale_O)
        for name in names:
            above, _, own = name.rpartition(".")
            setattr(holder.get_submodule(above), own, made)
    return holder[0]


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Linear | Convolution]:
    """Whether a layer is torch's own, and none that computes something else by its name."""
    return type(layer) is nn.Linear or type(layer) in _CONVOLVE


def _as_matrix(layer: nn.Linear | Convolution) -> nn.Linear:
    """Return the weights of a layer as those of one that has an input for each weight of an output."""
    weight_OI = layer.weight.detach().reshape(len(layer.weight), -1)
    made = nn.Linear(weight_OI.shape[1], len(weight_OI), bias=False)
    made.weight = nn.Parameter(weight_OI.clone(), requires_grad=False)
    return made
