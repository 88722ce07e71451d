"""A model of one's own made fit to be trained privately: a changed copy, and what was done, a line for each layer.

| Layer                                        | What becomes of it                                                    |
|----------------------------------------------|-----------------------------------------------------------------------|
| `BatchNorm2d`, `3d`, `SyncBatchNorm`         | `GroupNorm`, in as many groups as `groups_of` says                    |
| `BatchNorm1d`                                | `GroupNorm` in one group: features of a record that has no places     |
| `BatchNorm1d(1)`                             | taken out: one value has nothing to be normalised by                  |
| `InstanceNorm` with running statistics       | keeps none                                                            |
| `Dropout`                                    | `fedmodel.kinds.layers.Dropout`, of the same rate                     |
| `Dropout1d`, `2d`, `3d`                      | `fedmodel.kinds.layers.ChannelDropout`, of the same rate              |
| `MultiheadAttention`, `LSTM`, `GRU`, `RNN`   | their own dropout, which is inside of torch, is switched off          |
| anything with spectral norm                  | without it, and with the weights as they are                          |
| `Embedding`, `EmbeddingBag` with `max_norm`  | without it, and with the weights as they are                          |
| anything with `inplace = True`               | `inplace = False`                                                     |

Factors and shifts of a norm are kept, and whether they are trained; running statistics are dropped. A norm in another
place, or none, makes other outputs: a model that was trained before is to be trained on, or measured anew.

Does NOT look into a `forward`: what is written there, such as `x += y`, `functional.dropout` or a mean over a batch, is
found by running the model (`fedmodel.learning.refusals`), and refused by name.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from torch import nn
from torch.nn.utils import parametrize, remove_spectral_norm
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from fedmodel.errors import ConfigError
from fedmodel.kinds.layers import ChannelDropout, Dropout

_Module = TypeVar("_Module", bound=nn.Module)

_MOST_GROUPS: Final = 32
_LEAST_CHANNELS: Final = 4
_WHOLE_CHANNELS: Final = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@dataclass(frozen=True)
class Fixed(Generic[_Module]):
    """A model that was fixed.

    Attributes:
        model: The changed copy.
        changes: What was done, a line for each layer; empty where nothing was.
    """

    model: _Module
    changes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.changes) or "nothing was changed"


def fix(model: _Module) -> Fixed[_Module]:
    """Return a copy of a model, in which layers that cannot be private are replaced by ones that can; and say which.

    Args:
        model: Any model; it is left as it is.

    Returns:
        The copy in `model`, and what was done in `changes`. Printed, it says the changes.

    Raises:
        ConfigError: When it is no model, or cannot be copied.
    """
    given: object = model  # whatever a script hands over
    if not isinstance(given, nn.Module):
        found = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
        raise ConfigError(f"fix takes a torch.nn.Module that is made already, and was given {found}")
    try:
        changed = copy.deepcopy(model)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise ConfigError(f"the model cannot be copied to be fixed: {error}") from None
    changes: list[str] = []
    instead: dict[nn.Module, nn.Module] = {}  # a layer that stands in several places stays one
    for name, layer in list(changed.named_modules()):
        new, done = _fixed(layer)
        changes.extend(f"{name or 'the model'}: {one}" for one in done)
        if new is not layer:
            instead[layer] = new
    for parent in list(changed.modules()):
        for place, child in list(parent._modules.items()):  # noqa: SLF001 - named_children leaves second names out
            if child in instead:
                parent.register_module(place, instead[child])
    return Fixed(instead.get(changed, changed), tuple(changes))  # type: ignore[arg-type]


def groups_of(channels: int) -> int:
    """Return in how many groups channels are normalised: the most, up to 32, that leave each at least four of them.

    >>> [groups_of(channels) for channels in (3, 6, 16, 64, 128, 512)]
    [1, 1, 4, 16, 32, 32]
    """
    fitting = range(min(_MOST_GROUPS, channels // _LEAST_CHANNELS), 1, -1)
    return next((groups for groups in fitting if channels % groups == 0), 1)


def _fixed(layer: nn.Module) -> tuple[nn.Module, list[str]]:
    """Return what stands in a layer's place, the layer itself where it may stay, and what was done."""
    kind = type(layer).__name__
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001
        return _normalised(layer)
    if isinstance(layer, _WHOLE_CHANNELS) and 0 < layer.p < 1:
        return ChannelDropout(layer.p).train(layer.training), [f"{kind}({layer.p:g}) is our own ChannelDropout"]
    if type(layer) is nn.Dropout and 0 < layer.p < 1:
        return Dropout(layer.p).train(layer.training), [f"{kind}({layer.p:g}) is our own Dropout, of secret masks"]
    return layer, [
        *_without_statistics(layer),
        *_without_dropout(layer),
        *_without_spectral_norm(layer),
        *_without_max_norm(layer),
        *_not_in_place(layer),
    ]


def _normalised(layer: nn.modules.batchnorm._BatchNorm) -> tuple[nn.Module, list[str]]:
    """Return a norm of each record by itself, with the factors and shifts of one over a batch."""
    kind, channels = type(layer).__name__, layer.num_features
    in_rows = isinstance(layer, nn.BatchNorm1d)
    if in_rows and channels == 1:
        return nn.Identity(), [f"{kind}(1) was taken out: one value has nothing to be normalised by"]
    groups = 1 if in_rows else groups_of(channels)
    new = nn.GroupNorm(groups, channels, eps=layer.eps, affine=layer.affine).train(layer.training)
    if layer.affine:
        new.weight, new.bias = layer.weight, layer.bias
    dropped = ", and its running statistics are dropped" if layer.track_running_stats else ""
    return new, [f"{kind}({channels}) is GroupNorm({groups}, {channels}){dropped}"]


def _without_statistics(layer: nn.Module) -> list[str]:
    """Have an InstanceNorm keep nothing of records."""
    if not isinstance(layer, nn.modules.instancenorm._InstanceNorm) or not layer.track_running_stats:  # noqa: SLF001
        return []
    layer.track_running_stats = False
    layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return [f"{type(layer).__name__}({layer.num_features}) keeps no running statistics"]


def _without_dropout(layer: nn.Module) -> list[str]:
    """Switch off what torch drops inside of a layer."""
    if not isinstance(layer, nn.MultiheadAttention | nn.RNNBase) or not layer.dropout:
        return []
    rate, layer.dropout = layer.dropout, 0.0
    return [f"{type(layer).__name__} drops nothing any more, where it dropped {rate:g} with masks that can be guessed"]


def _without_spectral_norm(layer: nn.Module) -> list[str]:
    """Take spectral norm out of a layer, with weights as they are."""
    done = []
    for name, listed in list(getattr(layer, "parametrizations", {}).items()):
        if all(isinstance(one, _SpectralNorm) for one in listed):
            listed.eval()  # or looking at the weight would move what its norm is estimated by
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
            done.append(f"spectral norm of {name!r} was taken out")
    for hook in list(layer._forward_pre_hooks.values()):  # noqa: SLF001 - as torch's own removal looks for them
        if isinstance(hook, SpectralNorm):
            remove_spectral_norm(layer, hook.name)
            done.append(f"spectral norm of {hook.name!r} was taken out")
    return done


def _without_max_norm(layer: nn.Module) -> list[str]:
    """Have an embedding leave its weights as they are when records look them up."""
    if not isinstance(layer, nn.Embedding | nn.EmbeddingBag) or layer.max_norm is None:
        return []
    longest, layer.max_norm = layer.max_norm, None
    return [f"{type(layer).__name__} no longer shortens its weights to {longest:g} as records pass"]


def _not_in_place(layer: nn.Module) -> list[str]:
    """Have a layer make a new tensor."""
    if getattr(layer, "inplace", None) is not True:
        return []
    layer.inplace = False  # type: ignore[assignment]
    return [f"{type(layer).__name__} no longer works in place"]
