"""What a model holds, as it was before a pass: put back afterwards, or compared, to refuse a model that writes there.

A forward pass is any code. One that writes into a trainable parameter, as `nn.Embedding(max_norm=...)` does, would
release what it wrote without noise; one that keeps something in a buffer would let a record move the gradients of
others, later on. Both are refused on made-up records. Since other records may reach other branches, in training all is
put back after every physical batch too, silently: a refusal there would tell of the records.

Guarantee: after `undone`, all that is listed here is bit for bit what it was before, so that a physical batch leaves
nothing behind in it and every one begins with the same:

- parameters and buffers, trained and frozen, under their names too: what was put in their place, added or removed;
- every attribute of every module, its `__slots__` too: numbers, flags and tensors in plain attributes among them;
- what lies in lists, dicts, sets, tuples and deques there, at any depth, and in numpy arrays.

Of a tensor and of an array that is its values, and how they lie in memory: shape, strides, type and storage, and
whether an array may be written into. A transpose in place leaves the memory as it was, and is another matrix.

Does NOT put back what is kept elsewhere: in other objects of Python that a module holds, in globals, in a class or a
closure, in an attribute of a tensor, or in a generator's state. What passes keep there is found if it shows in the
preflight, and not otherwise. Nor what a loss of the user's own keeps: one that made-up records change is refused
(`fedmodel.learning.states`).
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from operator import is_
from types import MemberDescriptorType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.errors import PrivacyError

_Layout = tuple[torch.Size, tuple[int, ...], torch.dtype]
_Named = dict[str, tuple[Tensor, int | None, _Layout]]
_Many = dict[Any, Any] | list[Any] | set[Any] | deque[Any]
_HOLDERS: Final = (dict, list, set, deque)
_ABSENT: Final = object()
_LOOKED_INTO: Final = (*_HOLDERS, tuple, Tensor, np.ndarray, nn.Module)


class Kept:
    """A copy of what a model holds.

    Args:
        module: The model, no pass of it under way.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._begin()

    def _begin(self) -> None:
        """Find all that the model holds, and copy it."""
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}
        self._arrays: list[tuple[NDArray[Any], NDArray[Any], tuple[int, ...], bool]] = []
        self._holders: list[tuple[_Many, _Many]] = []
        self._slots: list[tuple[nn.Module, MemberDescriptorType, object]] = []
        self._seen: dict[int, object] = {}  # which keeps them alive, so that no other gets one's number
        self.name()
        self._copy(self._module)
        self._filled = [(holder, values) for holder, values in self._holders if values]
        self._empty = [holder for holder, values in self._holders if not values]
        self._owners = [one for one, _ in self._tensors.values()]
        self._data = [one.data for one in self._owners]  # in which writing counts for no version
        self._places = [_place(one) for one in self._owners]
        self._overlap = any(map(_overlaps, self._owners))
        self._memory = [_memory(one) if _overlaps(one) else one for one in self._data]
        self._values = [
            memory.clone() if _overlaps(one) else value
            for memory, (one, value) in zip(self._memory, self._tensors.values(), strict=True)
        ]

    def again(self) -> Kept:
        """Copy what the model holds by now, and return itself; of `changed`, `name` has to be called after it."""
        if self._is_built_as_before() and not self._arrays and not self._slots and not self._overlap:
            torch._foreach_copy_(self._values, self._data)
        else:
            self._begin()
        return self

    def name(self) -> None:
        """Note anew which parameters and buffers there are, and how they lie, for `changed` alone."""
        self._named: dict[str, tuple[Tensor, int | None, _Layout]] = {
            name: (one, _version(one), _layout(one)) for name, one in _named(self._module)
        }

    def _is_built_as_before(self) -> bool:
        """Tell whether the same objects are in the same holders, and tensors where they were."""
        return (
            not any(self._empty)
            and all(_has_the_same(holder, values) for holder, values in self._filled)
            and self._are_in_place()
        )

    def _are_in_place(self) -> bool:
        """Tell whether no tensor was given another storage, shape, type or order in memory."""
        return [_place(one) for one in self._owners] == self._places

    def changed(self) -> str | None:
        """Return the name of a parameter or a buffer that is not what it was, None where all are.

        A trained parameter that was written into counts as changed, whatever was written, and so does one that lies in
        memory in another order, or a buffer. What stands newly under a name is none of them.
        """
        now = dict(_named(self._module))
        for name, (one, version, layout) in self._named.items():
            after, value = now.get(name), self._tensors[id(one)][1]
            if after is None or not all(_same(each, value) and _layout(each) == layout for each in (after, one)):
                return name
            if _version(one) != version:
                return name
        return None

    def put_back(self) -> None:
        """Make the model what it was."""
        for holder in self._empty if any(self._empty) else ():
            holder.clear()
        for holder, values in self._filled:
            if not _has_the_same(holder, values):
                holder.clear()
                holder.extend(values) if isinstance(holder, list | deque) else holder.update(values)
        for module, slot, was in self._slots:
            if was is not _ABSENT:
                slot.__set__(module, was)
            elif _held(module, slot) is not _ABSENT:
                slot.__delete__(module)
        if not self._are_in_place():
            for one, data, place in zip(self._owners, self._data, self._places, strict=True):
                if data.untyped_storage().nbytes() < place[-1]:
                    data.untyped_storage().resize_(place[-1])
                one.data = data
        torch._foreach_copy_(self._memory, self._values)
        self._put_arrays_back()

    def _put_arrays_back(self) -> None:
        """Make the arrays what they were."""
        # An array after what it is a view of, without which it cannot be made writeable.
        writeable = [_opened(array) for array, *_ in reversed(self._arrays)][::-1]
        for (array, was, strides, _), is_writeable in zip(self._arrays, writeable, strict=True):
            _lay(array, was, strides)
            if is_writeable:  # of others nothing was ever written
                array[...] = was
        for array, _, _, was_writeable in self._arrays:
            if array.flags.writeable != was_writeable:
                array.flags.writeable = was_writeable

    def _copy(self, value: Any) -> None:
        """Copy what a value holds, in whatever it is."""
        if id(value) in self._seen:
            return
        if isinstance(value, Tensor):
            self._tensors[id(value)] = (value, value.detach().clone())
        elif isinstance(value, np.ndarray):
            self._arrays.append((value, value.copy(), value.strides, value.flags.writeable))
        elif isinstance(value, _HOLDERS):
            plain = dict if isinstance(value, dict) else set if isinstance(value, set) else list
            self._holders.append((value, plain(value)))
        elif isinstance(value, nn.Module):
            self._slots += [(value, slot, _held(value, slot)) for slot in _slots_of(value)]
        self._seen[id(value)] = value
        for one in _within(value):
            if isinstance(one, _LOOKED_INTO):
                self._copy(one)


@contextmanager
def undone(
    module: nn.Module, *, refuse: bool = False, kept: Kept | None = None, as_kept: bool = False
) -> Iterator[None]:
    """Put a model back to what it was, whatever happens meanwhile.

    Args:
        module: The model.
        refuse: Whether to refuse a change of a parameter or a buffer, or any writing into a trained parameter. On
            made-up records alone: on a silo's own, a refusal would tell of them.
        kept: What was kept of it before, whose places are used again; None for a new one.
        as_kept: Whether the model is just what was kept, as after a pass that was undone.

    Raises:
        PrivacyError: With the name of what was changed.
    """
    before = Kept(module) if kept is None else kept if as_kept else kept.again()
    if refuse:
        before.name()
    try:
        yield
        if refuse and (name := before.changed()) is not None:
            raise PrivacyError(
                f"the model changes {name!r} as records pass, where no noise is added; keep nothing there"
            )
    finally:
        before.put_back()


def _named(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _version(one: Tensor) -> int | None:
    """Return how often a trained parameter was written into in place, as torch counts; None of what is not trained."""
    return one._version if one.requires_grad else None  # noqa: SLF001


def _has_the_same(holder: _Many, values: _Many) -> bool:
    """Tell whether a holder has the very objects of another, in the same order."""
    return (
        len(holder) == len(values)
        and all(map(is_, holder, values))
        and (not isinstance(holder, dict) or all(map(is_, holder.values(), values.values())))  # type: ignore[union-attr]
    )


def _layout(one: Tensor) -> _Layout:
    """Return how what a tensor's memory has is read."""
    return one.shape, one.stride(), one.dtype


def _place(one: Tensor) -> tuple[Any, ...]:
    """Return where and how a tensor lies in memory; last how many bytes its storage has."""
    return one.data_ptr(), *_layout(one), one.untyped_storage().nbytes()


def _overlaps(one: Tensor) -> bool:
    """Tell whether two places of a tensor may be one of its memory, as of an expanded one."""
    return torch._debug_has_internal_overlap(one) != 0  # noqa: SLF001


def _memory(one: Tensor) -> Tensor:
    """Return all of the memory that a tensor lies in, from its first place to its last, in a row."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(one.shape, one.stride(), strict=True))
    return one.as_strided((extent,), (1,))


def _opened(array: NDArray[Any]) -> bool:
    """Make an array writeable, and tell whether it could be."""
    try:
        array.flags.writeable = True
    except ValueError:  # memory that Python never writes into
        return False
    return True


def _lay(array: NDArray[Any], was: NDArray[Any], strides: tuple[int, ...]) -> None:
    """Give an array the type, size, shape and strides back that it had."""
    if (array.dtype, array.shape, array.strides) == (was.dtype, was.shape, strides):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there is no other way to do it in place
        if array.dtype != was.dtype:
            array.dtype = was.dtype  # type: ignore[misc]  # which numpy lets be set, and its types do not say
        if array.size != was.size:
            array.resize(was.shape, refcheck=False)
        array.shape = was.shape
        array.strides = strides


def _slots_of(module: nn.Module) -> list[MemberDescriptorType]:
    """Return where a module keeps attributes that are not in its dict."""
    places = [one for kind in type(module).__mro__ for one in vars(kind).values()]
    return [one for one in places if isinstance(one, MemberDescriptorType)]


def _held(module: nn.Module, slot: MemberDescriptorType) -> object:
    """Return what lies in a slot."""
    try:
        return slot.__get__(module, type(module))
    except AttributeError:
        return _ABSENT


def _within(value: Any) -> list[Any]:
    """Return what lies in a holder or in a module."""
    if isinstance(value, nn.Module):
        return [vars(value), *(_held(value, slot) for slot in _slots_of(value))]
    if isinstance(value, Tensor):
        return []
    if isinstance(value, np.ndarray):
        return [value.base, *(value.ravel().tolist() if value.dtype.hasobject else ())]
    return list(value.values() if isinstance(value, dict) else value)


def _same(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors have the same values; NaN is as NaN."""
    return torch.equal(one, other) or (
        one.shape == other.shape
        and one.dtype == other.dtype
        and one.is_floating_point()
        and torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
    )
