"""A column read value by value, as a run reads it whole: what is refused and by which rule, what is dropped.

What a value becomes is a function of that value (`fedmodel.data.reader`), so each different value is read once, and
what is said of it holds of all its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.halving import refused_places
from fedmodel.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_VALUES: Final = 500
"""Different values of one column that are refused one by one: with more, the column is wrong and not its values."""
Read = Callable[["pa.ChunkedArray", NDArray[np.bool_]], NDArray[np.generic]]
"""Reads values, marks in a mask which records are dropped for them, and returns what they become."""


@dataclass(frozen=True)
class Broken:
    """Values that break one rule. Sensitive.

    Attributes:
        rule: As a run would say it.
        row_N: Places of their rows, from 0.
        values: Some of them, as text; a missing one is "".
        more: Whether others of the column were not looked at any more.
    """

    rule: str
    row_N: NDArray[np.intp]
    values: tuple[str, ...]
    more: bool

    def __repr__(self) -> str:
        return "Broken(...)"  # a repr ends up in logs


@dataclass(frozen=True)
class Column:
    """A column, read. Sensitive.

    Attributes:
        broken: What of it is refused.
        keep_N: Which rows are neither refused nor dropped for it, and were looked at.
        x_N: What the rows' values become; of those that are not kept it means nothing.
    """

    broken: tuple[Broken, ...]
    keep_N: NDArray[np.bool_]
    x_N: NDArray[np.generic]

    def __repr__(self) -> str:
        return "Column(...)"


def read_apart(values: pa.ChunkedArray, read: Read, named: int) -> Column:
    """Read each different value of a column.

    Args:
        values: The column. Sensitive.
        read: Reads some of them, as a run does.
        named: How many values of a rule are named.
    """
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    try:
        x_0 = read(values.slice(0, 0), np.ones(0, dtype=np.bool_))
    except DataError as error:  # of another type it is refused whole
        none_N = np.zeros(len(values), dtype=np.bool_)
        whole = Broken(str(error), np.arange(len(values)), (), more=False)
        return Column((whole,), none_N, np.zeros(len(values)))
    coded = values.combine_chunks().dictionary_encode()
    different = pa.chunked_array([coded.dictionary, pa.nulls(1, coded.dictionary.type)])
    place_N = coded.indices.fill_null(len(coded.dictionary)).to_numpy(zero_copy_only=False)
    count = len(different) - (0 if values.null_count else 1)
    keep_D, x_D = np.ones(len(different), dtype=np.bool_), np.zeros((len(different), *x_0.shape[1:]), dtype=x_0.dtype)

    def part(start: int, end: int) -> None:
        kept = np.ones(end - start, dtype=np.bool_)
        x_D[start:end] = read(different.slice(start, end - start), kept)
        keep_D[start:end] = kept

    refused = refused_places(count, part, MOST_VALUES)
    keep_D[list(refused)] = False
    if len(refused) > MOST_VALUES:
        keep_D[max(refused) :] = False  # what was not looked at any more is not known to be read
    by_rule: dict[str, list[int]] = {}
    for place, rule in refused.items():
        by_rule.setdefault(rule, []).append(place)
    broken = tuple(
        Broken(
            rule,
            np.flatnonzero(np.isin(place_N, places)),
            tuple("" if (one := different[place].as_py()) is None else str(one) for place in places[:named]),
            more=len(refused) > MOST_VALUES,
        )
        for rule, places in by_rule.items()
    )
    return Column(broken, keep_D[place_N], x_D[place_N])
