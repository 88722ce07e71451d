"""A data set as arrays of one first dimension, and whose each record is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Taken:
    """A data set as arrays of one first dimension. Sensitive.

    Attributes:
        x: One array, float32 or int64, or several by name.
        y_N: Targets, int64, or float32 where they are real numbers.
        person_N: Whose each record is, by numbers that rise from 0 and skip none; everyone has one where nobody says.
        where: What it is of, for errors.
        group_N: What each record says in the column by which records are dealt.
        persons: The normal forms of all whose records these are; nothing where nobody says.
    """

    x: NDArray[Any] | Mapping[str, NDArray[Any]]
    y_N: NDArray[Any]
    person_N: NDArray[np.int64]
    where: str
    group_N: NDArray[Any] | None = None
    persons: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.y_N)

    def __repr__(self) -> str:
        return "Taken(...)"  # a repr ends up in logs


def by_record(values: NDArray[Any]) -> NDArray[Any]:
    """Return values with a row for each record, whatever their shape.

    >>> by_record(np.zeros((2, 3, 4))).shape, by_record(np.zeros(0)).shape
    ((2, 12), (0, 1))
    """
    return values.reshape(len(values), math.prod(values.shape[1:]))


def numbered(given: Any, count: int) -> NDArray[np.int64]:
    """Return numbers that are alike where ids are, in the order in which each comes first; all differ where None."""
    if given is None:
        return np.arange(count)
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(one, len(numbers)) for one in _texts(given)], dtype=np.int64)


def persons_of(ids: Sequence[str] | None) -> frozenset[str]:
    """Return all ids, of which each is in its normal form; nothing where nobody says whose records are."""
    return frozenset(ids or ())


def _texts(ids: Any) -> list[str]:
    """Return ids as text each by itself: an array of text would have as much room for each as the longest needs."""
    if isinstance(ids, list) and any(isinstance(one, str) for one in ids):
        return [str(one) for one in ids]
    found = np.asarray(ids).reshape(-1)
    if found.dtype.kind == "O":
        return [str(one) for one in found]
    texts: list[str] = found.astype(str).tolist()
    return texts
