"""What tells one object of a script from another: its text, where Python finds that, and what it was compiled to.

Text alone does not do: of a cell's or a function's own class Python finds none, or that of another of the same name.

| Of                    | Looked at                                                                                  |
|-----------------------|--------------------------------------------------------------------------------------------|
| a function            | text, code, constants, names, defaults, what it closes over, functions and classes it names |
| a class               | text, each of its methods, plain values, classes that it is derived from                     |
| a `functools.partial` | the function and its arguments                                                             |
| a module of torch's   | how it shows itself, the classes of all modules in it, their plain values and its buffers  |
| plain values          | themselves                                                                                 |

Code that is installed, Python's own too, is told by its name.

Does NOT notice other values of a script's global variables, nor other parameters of a network: these are the start.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))
_OF_A_CLASS = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__annotations__"})


def told_apart(thing: object) -> bytes:
    """Return what is the same for the same object of a script, in each process of one Python."""
    return "\n".join(_of(thing, set())).encode()


def _of(thing: Any, seen: set[int]) -> Iterator[str]:
    """Yield what an object is, each function and class once."""
    if isinstance(thing, MethodType | staticmethod | classmethod):
        thing = thing.__func__
    if isinstance(thing, functools.partial):
        yield "partial"
        for part in (thing.func, thing.args, thing.keywords):
            yield from _of(part, seen)
    elif isinstance(thing, property):
        for accessor in (thing.fget, thing.fset, thing.fdel):
            yield from _of(accessor, seen)
    elif isinstance(thing, FunctionType | type):
        yield f"{thing.__module__}:{thing.__qualname__}"
        if id(thing) not in seen and not is_installed(thing):
            seen.add(id(thing))
            yield _text(thing)
            yield from _of_function(thing, seen) if isinstance(thing, FunctionType) else _of_class(thing, seen)
    elif hasattr(thing, "state_dict") and hasattr(thing, "modules"):
        yield repr(thing)
        for module in thing.modules():
            yield from _of(type(module), seen)
            yield from (f"{name} {value!r}" for name, value in sorted(vars(module).items()) if type(value) in _PLAIN)
        for name, buffer in thing.named_buffers():
            yield f"{name} {buffer.tolist()}"
    else:
        yield from _of_value(thing, seen)


def _of_function(function: FunctionType, seen: set[int]) -> Iterator[str]:
    yield from _of_code(function.__code__)
    for part in (function.__defaults__, function.__kwdefaults__):
        yield from _of(part, seen)
    for cell in function.__closure__ or ():
        try:
            yield from _of(cell.cell_contents, seen)
        except ValueError:  # it is not filled yet
            yield "empty"
    for name in sorted(names_in(function.__code__)):
        if isinstance(named := function.__globals__.get(name), FunctionType | type):
            yield from _of(named, seen)


def _of_class(made: type, seen: set[int]) -> Iterator[str]:
    for base in made.__bases__:
        yield from _of(base, seen)
    for name, value in sorted(vars(made).items()):
        if name not in _OF_A_CLASS:
            yield name
            yield from _of(value, seen)


def _of_code(code: CodeType) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {code.co_flags}"
    for constant in code.co_consts:
        yield from _of_code(constant) if isinstance(constant, CodeType) else _of_value(constant, set())


def _of_value(value: Any, seen: set[int]) -> Iterator[str]:
    """Yield a plain value, or the kind of what is none: how another shows itself may be another each time."""
    kind = type(value)
    yield kind.__name__
    if kind in _PLAIN:
        yield repr(value)
    elif kind in (tuple, list, dict) and id(value) not in seen:
        seen.add(id(value))  # for as long as this takes: it may hold itself, and another may lie there afterwards
        for part in value.items() if kind is dict else value:
            yield from _of(part, seen)
        seen.remove(id(value))
    elif kind in (set, frozenset):
        yield from sorted("\n".join(_of(part, seen)) for part in value)


def names_in(code: CodeType) -> set[str]:
    """Return the names that code looks up, with those of the functions in it."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= names_in(constant)
    return found


def is_installed(thing: FunctionType | type) -> bool:
    """Return whether a function or class is of an installed package or of Python itself."""
    module = sys.modules.get(thing.__module__)
    if module is None or thing.__module__ == "__main__":
        return False
    if thing.__module__.partition(".")[0] in sys.stdlib_module_names:
        return True
    return "site-packages" in Path(getattr(module, "__file__", None) or "").parts


def _text(thing: FunctionType | type) -> str:
    """Return the text of a function or class, nothing where Python does not find it."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return ""
