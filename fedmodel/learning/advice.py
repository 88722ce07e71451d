"""How a refusal speaks of a layer: by its name and type, and with what to put in its place."""

from __future__ import annotations

from typing import Final

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

_LONGEST: Final = 300  # characters of an error's words

_FIX: Final = "; fedmodel.fix(model) does it"
FUNCTIONAL: Final = 'set training.gradients = "functional"'
ONE_BY_ONE: Final = 'set training.gradients = "one-by-one"'
_ADVICE: Final[tuple[tuple[tuple[type[nn.Module], ...], str], ...]] = (
    ((nn.modules.batchnorm._BatchNorm,), f"put GroupNorm in its place{_FIX}"),  # noqa: SLF001
    ((nn.modules.instancenorm._InstanceNorm,), f"set track_running_stats = False{_FIX}"),  # noqa: SLF001
    ((nn.AlphaDropout, nn.FeatureAlphaDropout), "put fedmodel.kinds.layers.Dropout in its place, or take it out"),
    ((_DropoutNd,), f"put fedmodel.kinds.layers.Dropout in its place{_FIX}"),
    ((nn.RNNBase, nn.MultiheadAttention), f"set its dropout to 0{_FIX}"),
    ((nn.utils.parametrizations._SpectralNorm,), f"take spectral norm out{_FIX}"),  # noqa: SLF001
)


def said(module: nn.Module, name: str) -> str:
    """Return a layer by its name and type, as refusals say it.

    >>> said(nn.Sequential(nn.Linear(1, 1)), "0")
    "the layer '0' (Linear)"
    """
    layer = module.get_submodule(name)
    return f"the layer {name!r} ({type(layer).__name__})" if name else f"the model's own code ({type(layer).__name__})"


def advice(module: nn.Module, name: str, otherwise: str) -> str:
    """Return what to put in a layer's place, after a semicolon."""
    layer = module.get_submodule(name)
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.max_norm is not None:
        return f"; set max_norm = None{_FIX}"
    if isinstance(layer, nn.RNNBase) and not layer.dropout:
        return "; its batch_first has to say which dimension of what it is given is that of records"
    return f"; {next((words for types, words in _ADVICE if isinstance(layer, types)), otherwise)}"


def told(error: Exception) -> str:
    """Return an exception's type and words in one line: it was raised on made-up records, which are nobody's."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST]}"


def out_of_place(layer: nn.Module) -> str:
    """Return how an operation in place is taken out."""
    if getattr(layer, "inplace", False):
        return f"set inplace = False{_FIX}"
    return "write x = x + y for x += y, and leave out the underscore of add_, relu_ and their like"
