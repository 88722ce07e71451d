"""One array, or several by name: what a record is made of, whatever holds it.

Records of one array (a row of a table, an image) are that array, and a model is called with it: `model(x)`. Records of
several (tokens and their mask, an image and a row) are a mapping from names to arrays of one first dimension, and a
model is called with them by name: `model(tokens=..., mask=...)`. What is done to one array is done to each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from fedmodel.errors import DataError

T = TypeVar("T")
U = TypeVar("U")


def each(x: T | Mapping[str, T], change: Callable[[T], U]) -> U | Mapping[str, U]:
    """Return the array changed, or every array of several.

    >>> each(2, lambda one: one + 1), each({"a": 2, "b": 5}, lambda one: one + 1)
    (3, {'a': 3, 'b': 6})
    """
    if isinstance(x, Mapping):
        return {name: change(one) for name, one in x.items()}
    return change(x)


def together(parts: Sequence[T | Mapping[str, T]], join: Callable[[list[T]], U]) -> U | Mapping[str, U]:
    """Return what the arrays of all parts make, or those of each name.

    Raises:
        DataError: When the parts are not of the same names.

    >>> together([2, 5], sum), together([{"a": 2}, {"a": 5}], sum)
    (7, {'a': 7})
    """
    several = [part for part in parts if isinstance(part, Mapping)]
    if not several:
        return join([part for part in parts if not isinstance(part, Mapping)])
    if len(several) < len(parts) or any(part.keys() != several[0].keys() for part in several):
        raise DataError("records of other arrays do not go together: each needs the same ones, by the same names")
    return {name: join([part[name] for part in several]) for name in several[0]}


def arrays(x: T | Mapping[str, T]) -> Iterable[T]:
    """Return the array, or each of several.

    >>> list(arrays(2)), list(arrays({"a": 2, "b": 5}))
    ([2], [2, 5])
    """
    return x.values() if isinstance(x, Mapping) else (x,)
