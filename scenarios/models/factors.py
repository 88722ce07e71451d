"""What a model's answer may hang on, by name: a column of a table with all features that it becomes, or a feature.

| Records                             | A factor is                                                                  |
|-------------------------------------|------------------------------------------------------------------------------|
| rows of declared columns            | a column: a number, a boolean, or a category with a feature for each choice  |
| features with names                 | a feature, from -1 to 1 as its public range is scaled                        |
| features without names              | likewise, called "feature 1" and so on                                       |
| several arrays                      | an array: all of its numbers together                                        |

Arrays, and the features of a user's own function, are taken as they are: no range is declared, so that they have no
curve, and records are not parted by them.

The baseline that attributions begin at is public, and no figure of any records: the middle of each number's public
range (0 of a number without one), neither of true and false, and all choices of a category alike. It is the
same at the server and at each silo.

Shapes: N records, F features in one row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import ColumnConfig
from fedmodel.kinds.shape import ArrayShape
from fedmodel.kinds.sources import names_taken
from fedmodel.learning.description import Description

POINTS: Final = 21
"""Values of a number's public range at which dependence is computed."""
_ENDS: Final = (-1.0, 1.0)
_QUARTERS: Final = (-0.5, 0.0, 0.5)


@dataclass(frozen=True)
class Factor:
    """Something that an answer may hang on.

    Attributes:
        name: Of the column or feature.
        begin: The first of its features, among those of a record in one row.
        kind: What its values are; "array" of numbers that no range is declared of, one or several.
        choices: Of a category, or of true and false.
        range: Of a number, in its own units: what -1 and 1 stand for.
        size: Of an array, how many numbers it has.
    """

    name: str
    begin: int
    kind: Literal["number", "boolean", "category", "array"]
    choices: tuple[str, ...] = ()
    range: tuple[float, float] = (-1.0, 1.0)
    size: int = 1

    @property
    def places(self) -> slice:
        """Where its features stand in a record's row."""
        return slice(self.begin, self.begin + (len(self.choices) if self.kind == "category" else self.size))

    @property
    def values_VC(self) -> NDArray[np.float32]:  # noqa: N802 - a shape, as everywhere
        """What its features are at each value at which dependence is computed, shape `(values, features)`."""
        if self.kind == "category":
            return np.eye(len(self.choices), dtype=np.float32)
        if self.kind == "boolean":
            return np.array([[-1.0], [1.0]], dtype=np.float32)
        return np.linspace(-1, 1, POINTS, dtype=np.float32)[:, None]

    @property
    def at(self) -> tuple[float, ...]:
        """The same of a number, in its own units."""
        if self.kind != "number":
            return ()
        return tuple(self._own(float(value)) for value in np.linspace(-1, 1, POINTS))

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the parts into which it divides records: its choices, or quarters of its public range."""
        if self.kind != "number":
            return self.choices
        cuts = [f"{self._own(cut):.6g}" for cut in _QUARTERS]
        between = [f"{low} to under {high}" for low, high in pairwise(cuts)]
        return (f"under {cuts[0]}", *between, f"{cuts[-1]} or more")

    def group_of(self, x_NF: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return each record's part, -1 of what is none of a category's choices.

        Args:
            x_NF: Scaled records in rows, shape `(N, F)`.
        """
        own_NC = x_NF[:, self.places]
        if self.kind == "category":
            return np.where(own_NC.any(axis=1), own_NC.argmax(axis=1), -1)
        found_N: NDArray[np.intp] = np.digitize(own_NC[:, 0], (0.0,) if self.kind == "boolean" else _QUARTERS)
        return found_N

    def parted(self, x_NF: NDArray[np.float32]) -> tuple[tuple[str, ...], NDArray[np.intp]]:
        """Return names of the parts into which some records are divided, and each record's part as `group_of` does.

        A number that is an end of its range in every record, as 0 and 1 are of a yes and no, has these two as parts:
        of its quarters two would always be empty.

        Args:
            x_NF: Scaled records in rows, shape `(N, F)`.
        """
        own_N = x_NF[:, self.begin]
        if self.kind != "number" or not bool(np.isin(own_N, _ENDS).all()):
            return self.groups, self.group_of(x_NF)
        return tuple(f"{self._own(end):.6g}" for end in _ENDS), (own_N > 0).astype(np.intp)

    def _own(self, scaled: float) -> float:
        """Return what a scaled number is in the column's own units."""
        low, high = self.range
        return (low + high) / 2 + scaled * (high - low) / 2


def factors(description: Description) -> tuple[Factor, ...]:
    """Return what a model's answer may hang on, in the order of its features."""
    if description.columns:
        return tuple(_of_columns(description.columns))
    if (inputs := description.data.inputs) is not None:
        return tuple(_of_arrays(inputs))
    count = int(np.prod(description.shape))
    names = description.features or tuple(f"feature {place + 1}" for place in range(count))
    # A data set with a name of its own that is no table's was made by a user's function, and is not scaled.
    kind: Literal["number", "array"] = "number" if description.source in names_taken() else "array"
    return tuple(Factor(name, place, kind) for place, name in enumerate(names))


def _of_arrays(inputs: Mapping[str, ArrayShape]) -> Iterator[Factor]:
    """Yield one for each array, in the order in which they stand in a row."""
    at = 0
    for name, one in inputs.items():
        size = math.prod(one.size)
        yield Factor(name, at, "array", size=size)
        at += size


def _of_columns(columns: Sequence[ColumnConfig]) -> list[Factor]:
    found, at = list[Factor](), 0
    for column in columns:
        match column.type:
            case "category":
                found.append(Factor(column.name, at, "category", column.categories))
            case "boolean":
                found.append(Factor(column.name, at, "boolean", ("false", "true")))
            case _:
                found.append(Factor(column.name, at, "number", range=column.range or (-1.0, 1.0)))
        at += len(column.features)
    return found


def baseline(found: Sequence[Factor]) -> NDArray[np.float32]:
    """Return the record in one row that attributions begin at, shape `(F,)`.

    >>> baseline([Factor("age", 0, "number"), Factor("stage", 1, "category", ("I", "II"))]).tolist()
    [0.0, 0.5, 0.5]
    """
    base_F = np.zeros(max(factor.places.stop for factor in found), dtype=np.float32)
    for factor in found:
        if factor.kind == "category":
            base_F[factor.places] = 1 / len(factor.choices)
    return base_F
