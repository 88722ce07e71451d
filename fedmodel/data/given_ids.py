"""Ids of a user's own data set, as a script gives them: each in the normal form of `fedmodel.data.persons`.

A script has ids in whatever type its library made of them. pandas and numpy make real numbers of whole ones where one
is missing, and then an empty place is a NaN. All that are missing would be one person's, of whom only so many records
train: who left would let another's in, and a claim for persons is for one person's alone. So a missing id is refused,
and so is a number that its type does not tell from the next.

The form is "text", in which 7, 7.0 and "7" are one person, and "007" is another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from fedmodel.data.as_numbers import array_of
from fedmodel.data.persons import EXACT, NARROW, normal_id
from fedmodel.errors import DataError

_EXACT: Final[dict[type, int]] = {np.float16: NARROW["halffloat"], np.float32: NARROW["float"]}


def normal_given(given: Any, where: str, key: str) -> list[str]:
    """Return the normal form of whose each record is. Sensitive.

    Args:
        given: A column, an array, a tensor or a list, with an id for each record. Sensitive.
        where: What it is of, for errors.
        key: What the column is called.

    Raises:
        DataError: When an id is missing, or is neither text nor a whole number that its type tells from others; with
            the record's place and the rule, and no character of an id.

    >>> normal_given(np.array([7.0, 8.0]), "train", "id") == normal_given([7, "8"], "test", "id")
    True
    """
    known: dict[tuple[type, Any], str] = {}
    found: list[str] = []
    for place, one in enumerate(_each(given, where, key)):
        kind = type(one), one
        try:
            if kind not in known:
                known[kind] = _normal(one)
            found.append(known[kind])
        except TypeError:  # of what has no hash
            raise _refused(where, place, key, "is neither text nor a whole number") from None
        except DataError as error:
            raise _refused(where, place, key, str(error).partition(";")[0]) from None
    return found


def _refused(where: str, place: int, key: str, rule: str) -> DataError:
    """Return the refusal of an id."""
    return DataError(
        f"{where}: record {place}: {key!r}, which says whose it is, {rule}; give every record an id, as text or as a"
        " whole number, or leave such records out"
    )


def _each(given: Any, where: str, key: str) -> Iterator[Any]:
    """Yield each id in the type in which it was given."""
    if isinstance(given, list | tuple):
        found: Any = given
    else:
        array = array_of(given, f"{where}: {key!r}")
        if array.size != len(array):
            raise DataError(f"{where}: {key!r} has several values for a record; give one id for each")
        # numpy's own whole numbers and texts are slow one by one; Python has no narrow real numbers.
        found = array.reshape(-1).tolist() if array.dtype.kind in "biuUS" else array.reshape(-1)
    for one in found:
        is_array = hasattr(one, "__array__") and not isinstance(one, np.generic)
        yield array_of(one, f"{where}: {key!r}")[()] if is_array else one


def _normal(one: Any) -> str:
    """Return the normal form of an id."""
    if isinstance(one, float | np.floating):
        if np.isnan(one):
            raise DataError("is missing")
        if not float(one).is_integer() or abs(float(one)) >= _EXACT.get(type(one), EXACT):
            raise DataError("is a number with a fraction, or too large for its type to tell it apart from others")
        one = int(one)
    if isinstance(one, np.integer):
        one = int(one)
    if one is None:
        raise DataError("is missing")
    # What is of another type, as a UUID, is known by its text; pandas writes <NA> and NaT where there is none.
    return normal_id(one if isinstance(one, str | bytes | int) else str(one), "text")
