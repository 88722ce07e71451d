"""What an object of a user's own holds, told by values, so that a call which changed something is found out.

A loss that keeps something from one call to the next lets a record reach the gradients of others, in later batches and
later rounds. A model is put back after every pass (`fedmodel.learning.keeping`). A loss is any object of Python, so it
is looked at before and after it was given made-up records, and refused by name where the two differ
(`fedmodel.learning.refusals`).

| Of                                   | Looked at                                                                   |
|--------------------------------------|-----------------------------------------------------------------------------|
| a function                           | its attributes, defaults, what it closes over, global variables that it or a |
|                                      | function in it names, and functions among these                              |
| a method, a `functools.partial`      | its object; its function and its arguments                                   |
| a module of torch's                  | parameters, buffers, attributes, and those of all modules in it              |
| a class, any other object            | its own attributes, in a dict or in slots                                    |
| lists, dicts, tuples, queues         | what is in them, in order                                                    |
| sets                                 | how many are in them; which, of plain values and tuples of these             |
| tensors, arrays, bytes, plain values | their values, type and shape                                                 |
| generators of Python, NumPy, torch   | their state                                                                  |

Code that is installed is not gone into, but for objects of its classes.

Does NOT find what is kept in memory that Python does not show, such as an iterator's place or what `lru_cache` keeps,
in a file, in an object that is a member of a set, or in a variable of another module, installed ones among them; nor
what only some records make a loss keep.
"""

from __future__ import annotations

import functools
import hashlib
import random
from array import array
from collections import deque
from collections.abc import Iterator
from logging import Logger
from types import BuiltinFunctionType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from fedmodel.kinds.own_objects import is_installed, names_in

_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None), type(...))
_MOST_DEEP: Final = 12
_OF_TORCH: Final = ("_parameters", "_buffers", "_modules")  # whose names are told without these
# Of which nothing is told: code, and what notes down that it was asked at all.
_OPAQUE: Final = (ModuleType, CodeType, BuiltinFunctionType, Logger)
_OF_A_CLASS: Final = ("__dict__", "__weakref__", "__doc__", "__module__")

State = dict[str, str]
"""By a path that leads there, what lies there."""


def state_of(thing: object) -> State:
    """Return what an object holds, by where it lies: of large values a hash."""
    found: dict[str, str] = {}
    for path, value in _held(thing, "", {}, 0):  # several may lie where no name tells them apart
        found[path] = f"{found[path]}; {value}" if path in found else value
    return found


def changed(before: State, after: State) -> str | None:
    """Return where two states of an object differ first, None where they do not.

    >>> before = {"seen": "int 0", "rate": "float 0.5"}
    >>> changed(before, {"seen": "int 1", "rate": "float 0.5"}), changed(before, dict(before))
    ('seen', None)
    """
    for path in {**before, **after}:
        if before.get(path) != after.get(path):
            return path
    return None


def _held(thing: Any, path: str, seen: dict[int, object], deep: int) -> Iterator[tuple[str, str]]:
    """Yield what a thing holds, each object once."""
    kind = type(thing)
    if kind in _PLAIN:
        yield path, f"{kind.__name__} {thing!r}"
        return
    if id(thing) in seen or deep > _MOST_DEEP:
        return
    seen[id(thing)] = thing  # which keeps it alive, so that no other gets its number
    if (value := _value(thing)) is not None:
        yield path, value
        return
    yield path, kind.__name__
    for name, part in _parts(thing):
        inner = f"{path}.{name}" if path and name else path or name
        yield from _held(part, inner, seen, deep + 1)


def _value(thing: Any) -> str | None:
    """Return what is told of a thing as a whole, None of one that has parts."""
    if isinstance(thing, Tensor):
        if thing.layout is not torch.strided or thing.is_meta:
            return repr(thing)
        return f"{thing.dtype} {tuple(thing.shape)} {_digest(thing)}"
    if isinstance(thing, np.ndarray) and not thing.dtype.hasobject:
        return f"{thing.dtype} {thing.shape} {hashlib.sha256(np.ascontiguousarray(thing).tobytes()).hexdigest()}"
    if isinstance(thing, np.generic):
        return f"{thing.dtype} {thing!r}"
    if isinstance(thing, random.Random):
        return f"state {hash(thing.getstate())}"
    if isinstance(thing, np.random.Generator | np.random.RandomState):
        inner = thing.bit_generator.state if isinstance(thing, np.random.Generator) else thing.get_state(legacy=False)
        return f"state {inner!r}"
    if isinstance(thing, torch.Generator):
        return f"state {_digest(thing.get_state())}"
    if isinstance(thing, torch.dtype | torch.device):
        return repr(thing)
    if isinstance(thing, array | bytearray | memoryview):
        return hashlib.sha256(bytes(thing)).hexdigest()
    return "" if isinstance(thing, _OPAQUE) else None


def _digest(one: Tensor) -> str:
    """Return a hash of a tensor's bytes."""
    flat = one.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"").hexdigest()


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a thing by name."""
    if isinstance(thing, MethodType):
        yield from (("", thing.__self__), ("", thing.__func__))
    elif isinstance(thing, functools.partial):
        yield from (("", thing.func), ("arguments", thing.args), ("arguments", thing.keywords))
    elif isinstance(thing, FunctionType):
        yield from _of_function(thing)
    elif isinstance(thing, type):
        if not is_installed(thing):
            yield from ((name, one) for name, one in vars(thing).items() if name not in _OF_A_CLASS)
            yield from (("", base) for base in thing.__bases__)
    elif isinstance(thing, dict):
        yield "its length", len(thing)
        yield from ((str(key) if type(key) in _PLAIN else type(key).__name__, one) for key, one in thing.items())
    elif isinstance(thing, list | tuple | deque):
        yield "its length", len(thing)
        yield from ((str(place), one) for place, one in enumerate(thing))
    elif isinstance(thing, set | frozenset):
        yield "its members", " ".join(sorted(repr(one) for one in thing if _is_plain(one)))
        yield "its length", len(thing)
    elif isinstance(thing, np.ndarray):
        yield "", thing.ravel().tolist()
    else:
        yield from _attributes(thing)


def _is_plain(thing: Any) -> bool:
    """Tell whether what is shown of a thing is all of it."""
    return type(thing) in _PLAIN or (type(thing) is tuple and all(map(_is_plain, thing)))


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function of the user's own looks at, nothing of one that is installed."""
    if is_installed(function):
        return
    yield from vars(function).items()
    yield from (("a default", function.__defaults__), ("a default", function.__kwdefaults__))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it is not filled yet
            yield name, "empty"
    names = names_in(function.__code__)
    yield from ((name, one) for name, one in function.__globals__.items() if name in names)


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an object, and its class, whose own it may have written into."""
    yield "", type(thing)
    attributes = getattr(thing, "__dict__", {})
    for name, one in attributes.items():
        if isinstance(thing, nn.Module) and name in _OF_TORCH:
            yield from one.items()
        else:
            yield name, one
    slots = [one for kind in type(thing).__mro__ for one in vars(kind).items()]
    for name, slot in slots:
        if isinstance(slot, MemberDescriptorType):
            try:
                yield name, slot.__get__(thing, type(thing))
            except AttributeError:
                yield name, "empty"
