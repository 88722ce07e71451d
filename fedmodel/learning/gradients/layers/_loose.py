"""Parameters outside of layers, such as a class token or a table of positions: a row of them for each record.

A model's own code uses them as it likes. While records pass, it finds a tensor in a parameter's place that knows how it
is used: where it is added to records or multiplied with them, or given to each, every record gets a copy of its own,
and the gradient at a copy is that of its record. Cuts and turns of it are followed by the places of their entries.

| A parameter p, and x with a row for each record      | What happens                                              |
|------------------------------------------------------|-----------------------------------------------------------|
| x + p, x - p, x * p, x / p, and the other way round  | a copy for each record, where p has no dimension of theirs |
| p.expand(B, ...), p.repeat(B, ...), p.expand_as(x)   | the same                                                  |
| x @ p, linear(x, p)                                  | the same, of a p of two dimensions                        |
| p[:, :n], p.T, p.view(...), p.chunk(...) and the like | followed                                                  |
| its shape, its type, a number of it                  | answered                                                  |
| anything else, and what has no row for each record   | `PrivacyError`, by the parameter's name                   |

Copies are kept: they are B times the parameter in memory, as a gradient of each record is.

Shapes: B rows of a physical batch, P entries of a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.errors import PrivacyError
from fedmodel.kinds.layers import Dropout
from fedmodel.learning.gradients.layers._linear import Note
from fedmodel.learning.gradients.layers.parts import Kept, Part

_BESIDE: Final = {
    *("add", "__add__", "__radd__", "sub", "__sub__", "__rsub__", "rsub", "mul", "__mul__", "__rmul__"),
    *("div", "true_divide", "__truediv__", "__rtruediv__"),
}
_CUTS: Final = {
    *("__getitem__", "unsqueeze", "squeeze", "view", "reshape", "flatten", "unflatten", "transpose", "swapaxes"),
    *("permute", "t", "T", "mT", "narrow", "select", "chunk", "split", "unbind", "contiguous"),
}
_GIVEN: Final = {"expand", "expand_as", "repeat"}
_PRODUCTS: Final = {"matmul", "__matmul__", "linear"}
_SAME: Final = {"to", "float", "type_as"}
_ANSWERED: Final = {
    *("shape", "size", "dim", "ndim", "ndimension", "numel", "nelement", "__len__", "stride", "dtype", "device"),
    *("is_floating_point", "is_cuda", "is_contiguous", "requires_grad", "layout", "item", "tolist", "__hash__"),
}


@dataclass(frozen=True)
class _Source:
    """What a tensor in a parameter's place is of.

    Attributes:
        name: The parameter's.
        parameter: Itself.
        rows: Of a physical batch.
        note: Notes each record's copy.
    """

    name: str
    parameter: nn.Parameter
    rows: int
    note: Note


class Loose(Tensor):
    """What stands in a parameter's place while records pass, or a part of it.

    Attributes:
        source: What it is of.
        place: Which of the parameter's entries each of its own is, int64 of its shape.
    """

    source: _Source
    place: Tensor

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what was asked for, with a copy for each record where records are in it."""
        kwargs = kwargs or {}
        # What reads an attribute is called "__get__", and the attribute by its own name.
        name = func.__self__.__name__ if func.__name__ == "__get__" else func.__name__
        own = next((one for one in args if isinstance(one, Loose)), None)
        if own is None or any(isinstance(one, Loose) for one in kwargs.values()) or "out" in kwargs:
            raise _refused(own, name)
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - torch documents no other way
            if name in _BESIDE | _PRODUCTS:
                return _beside(func, name, own, args, kwargs)
            if name in _GIVEN:
                return _given(func, name, own, args, kwargs)
            if name in _CUTS:
                return _cut(func, name, own, args, kwargs)
            found = func(*args, **kwargs) if name in _ANSWERED | _SAME else None
        if name in _ANSWERED or (name in _SAME and args[0] is not own):
            return found
        if found is not None and (found.dtype, found.device) == (own.dtype, own.device):
            return own
        raise _refused(own, name)


def are_loose(layer: nn.Module) -> bool:
    """Tell whether a layer's own trained parameters are used by its own code, beside layers that it holds.

    A layer that holds a dropout counts too: run a second time it would draw other masks than those that records had.
    """
    own = dict(layer.named_parameters(recurse=False))
    holds = (
        isinstance(layer, nn.ParameterList | nn.ParameterDict)
        or len(own) < len(dict(layer.named_parameters()))
        or any(isinstance(one, Dropout) for one in layer.modules())
    )
    return holds and any(one.requires_grad for one in own.values())


@contextmanager
def in_place_of(layer: nn.Module, called: str, rows: int, note: Note) -> Iterator[None]:
    """Put tensors in the place of a layer's own trained parameters meanwhile.

    Args:
        layer: The layer.
        called: Its name.
        rows: Of a physical batch.
        note: Notes each record's copy.
    """
    held: dict[str, Any] = layer._parameters  # noqa: SLF001 - where a name is looked up, and nothing checks types
    own = {name: one for name, one in held.items() if one is not None and one.requires_grad}
    try:
        for name, parameter in own.items():
            source = _Source(f"{called}.{name}" if called else name, parameter, rows, note)
            place = torch.arange(parameter.numel(), device=parameter.device).view(parameter.shape)
            held[name] = _loose(parameter.detach(), source, place)
        yield
    finally:
        held.update(own)


def _loose(value: Tensor, source: _Source, place: Tensor) -> Loose:
    """Return a tensor that knows of which entries it is."""
    found = value.as_subclass(Loose)
    found.source, found.place = source, place
    return found


def _cut(func: Callable[..., Any], name: str, own: Loose, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return a part of a parameter, or several, each with its places."""
    if args[0] is not own or any(isinstance(one, Loose) for one in args[1:]):
        raise _refused(own, name)
    value, place = (func(one, *args[1:], **kwargs) for one in (own.as_subclass(Tensor), own.place))
    if isinstance(value, Tensor):
        return _loose(value, own.source, place)
    return tuple(_loose(one, own.source, where) for one, where in zip(value, place, strict=True))


def _beside(
    func: Callable[..., Tensor], name: str, own: Loose, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """Return what comes of records and a parameter, of which each record has a copy."""
    one, other, *more = args
    records = other if one is own else one
    if isinstance(records, Loose) or not isinstance(records, Tensor) or any(isinstance(some, Loose) for some in more):
        raise _refused(own, name)
    if name not in _PRODUCTS:
        shape = torch.broadcast_shapes(own.shape, records.shape)  # type: ignore[no-untyped-call]
        if not shape or records.dim() < len(shape) or records.shape[0] != own.source.rows:
            raise _refused(own, name)
        copies = _copies(own, len(shape), name)
        return func(*(copies if some is own else some for some in args), **kwargs)
    if one is own or own.dim() != 2 or records.dim() < 2 or records.shape[0] != own.source.rows:
        raise _refused(own, name)
    copies_BdP = _copies(own, 3, name)
    found = records.flatten(1, -2) if records.dim() > 2 else records[:, None]
    found = torch.matmul(found, copies_BdP.mT if func is functional.linear else copies_BdP)
    found = found.view(*records.shape[:-1], found.shape[-1])
    bias = more[0] if more else kwargs.get("bias")
    return found if bias is None else found + bias


def _given(func: Callable[..., Tensor], name: str, own: Loose, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return a copy of a parameter for each record, as many of them as were asked for."""
    wanted = func(own.as_subclass(Tensor), *args[1:], **kwargs)
    if args[0] is not own or not wanted.dim() or wanted.shape[0] != own.source.rows:
        raise _refused(own, name)
    copies = _copies(own, wanted.dim(), name)
    if name == "repeat":
        return copies.repeat(1, *(size // copy for size, copy in zip(wanted.shape[1:], copies.shape[1:], strict=True)))
    return copies.expand(wanted.shape)


def _copies(own: Loose, dimensions: int, name: str) -> Tensor:
    """Return a copy for each record, of so many dimensions, and note it."""
    shape = (*(1,) * (dimensions - own.dim()), *own.shape)
    if len(shape) > dimensions or shape[0] != 1:
        raise _refused(own, name)
    copies = own.as_subclass(Tensor).detach().reshape(shape).expand(own.source.rows, *shape[1:])
    own.source.note(partial(_parts, own.source.parameter, own.place.flatten()), copies, copies)
    return copies


def _parts(parameter: nn.Parameter, place_K: Tensor, _: nn.Module, __: Tensor, grad: Tensor) -> list[Part]:
    """Return what records add to the entries that they had copies of."""
    grad_BP = grad.new_zeros(len(grad), parameter.numel())
    return [Kept(parameter, grad_BP.index_add_(1, place_K, grad.flatten(1)))]


def _refused(own: Loose | None, name: str) -> PrivacyError:
    """Return the refusal of a use."""
    which = "a parameter" if own is None else f"the parameter {own.source.name!r}"
    return PrivacyError(
        f"{which} is used outside of a layer by {name!r}, where book-keeping does not know what is of which record; add"
        " it to records or multiply them with it, or expand it to one for each record first"
    )
