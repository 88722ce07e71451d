"""What was given as arrays of numbers: float32 or int64, each value finite, and targets as they are asked for.

Errors name where a data set is from, the place of a record and the rule, never a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.keys import Keys
from fedmodel.data.taken import by_record
from fedmodel.errors import DataError

_MOST_AXES: Final = 9
_NARROW: Final = 2  # bytes of a real number
_HALF: Final = "torch.float16"  # which numpy has


def array_of(value: Any, where: str) -> NDArray[Any]:
    """Return a tensor, an array, a column or numbers as an array of numpy's, of the type that they have.

    Tensors of bfloat16 or fewer bits, which numpy does not have, become float32.

    Raises:
        DataError: When it masks some of its values, behind which numpy has whatever was there before.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DataError(f"{where} lacks a value; fill it in by a public constant, or leave such records out")
    with own_code(where):
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            narrow = value.is_floating_point() and value.element_size() <= _NARROW and str(value.dtype) != _HALF
            value = value.float() if narrow else value
        return np.asarray(value)


def type_of(values: NDArray[Any]) -> type[np.float32 | np.int64]:
    """Return the type that values are kept in."""
    return np.float32 if values.dtype.kind == "f" else np.int64


def values_of(given: Any, where: str, name: str) -> NDArray[Any]:
    """Return an array as float32 or int64, or refuse the first record whose part of it is no number."""
    found = array_of(given, f"{where}: {name}")
    if found.dtype.kind not in "biuf":
        raise DataError(f"{where}: {name} {is_no_number(found)}")
    if not found.ndim:
        raise DataError(f"{where}: {name} is one number; give a row for each record")
    if 0 in found.shape[1:] or found.ndim > _MOST_AXES:
        raise DataError(f"{where}: {name} of a record has shape {list(found.shape[1:])}, which no model takes")
    if found.dtype.kind == "u" and found.itemsize == 8 and found.size and int(found.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{where}: {name} holds whole numbers that 64 bits with a sign do not")
    with np.errstate(over="ignore"):
        taken = found.astype(type_of(found))
    if taken.dtype == np.float32 and not (finite := np.isfinite(taken)).all():
        place = int(np.argmin(by_record(finite).all(axis=1)))
        raise DataError(
            f"{where}: record {place}: a value of {name} is NaN, infinite or beyond float32; clean it before it is used"
        )
    return taken


def is_no_number(found: NDArray[Any]) -> str:
    """Say what values are that are none, as the end of a sentence."""
    flat = found.reshape(-1).tolist() if found.dtype.kind == "O" else []
    if found.dtype.kind in "US" or any(isinstance(one, str | bytes) for one in flat):
        return "holds text, which no model takes; turn it into numbers, or leave it out"
    shapes = {np.shape(one) for one in flat if isinstance(one, list | tuple) or hasattr(one, "shape")}
    if len(shapes) > 1:
        several = " and ".join(str(list(one)) for one in sorted(shapes)[:2])
        return f"has rows of several shapes, such as {several}; crop or pad"
    if any(one is None for one in flat):
        return "lacks a value; fill it in by a public constant, or leave such records out"
    kind = type(flat[0]).__name__ if flat else found.dtype.name
    return f"is of type {kind}, and not of numbers; turn it into an array"


def targets_of(given: Any, where: str, keys: Keys) -> NDArray[Any]:
    """Return targets: real numbers where these are asked for, and else whole ones, by name where labels have names."""
    found = array_of(given, f"{where}: its label")
    if found.ndim > 1 and found.shape[1:] == (1,):
        found = found[:, 0]
    if found.dtype.kind not in "biuf" and keys.labels:
        places = {name: place for place, name in enumerate(keys.labels)}
        y_N = np.array([places.get(str(one), -1) for one in found.reshape(-1).tolist()], dtype=np.int64)
        if (y_N < 0).any():
            raise DataError(
                f"{where}: record {int(np.argmax(y_N < 0))}: its label is none of data.labels: {', '.join(keys.labels)}"
            )
        return y_N.reshape(found.shape)
    if found.dtype.kind not in "biuf":
        text = is_no_number(found)
        hint = ", or name the classes in order as data.labels" if text.startswith("holds text") else ""
        raise DataError(f"{where}: its label {text}{hint}")
    taken = values_of(found, where, "its label")
    if keys.real:
        return taken.astype(np.float32)
    whole_N = by_record(taken == np.round(taken)).all(axis=1)
    if not whole_N.all():
        raise DataError(f"{where}: record {int(np.argmin(whole_N))}: its label is not a whole number, as a class is")
    return taken.astype(np.int64)


@contextmanager
def own_code(doing: str) -> Iterator[None]:
    """Say of what somebody's own code raised its type alone: its words may hold a value."""
    try:
        yield
    except DataError:
        raise
    except (Exception, SystemExit) as error:
        raise DataError(f"{doing} raised {type(error).__name__}; run it alone to see its own words") from None
