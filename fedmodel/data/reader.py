"""One column of one source, read as it is declared: each value held to its type, limits and categories, then scaled.

Guarantee: what a value becomes, and whether its record is dropped or refused for it, is a function of that value and of
what is declared, never of another record. So a part of a column is read as it would be within the whole.

Errors name a table, a file, a column and a rule, never a value: they end in logs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import ColumnConfig, PersonColumn
from fedmodel.data.persons import normal_ids
from fedmodel.data.records import onto_unit
from fedmodel.data.values import NOT_FINITE, places, typed
from fedmodel.errors import DataError
from fedmodel.kinds.sources.table import TableConfig

if TYPE_CHECKING:
    import pyarrow as pa


class ColumnReader:
    """One column of one file, and what is said when it breaks a rule."""

    def __init__(self, config: TableConfig, name: str, where: str, decimal: str) -> None:
        self._config, self._name, self._where, self._decimal = config, name, where, decimal

    def _refuse(self, rule: str) -> NoReturn:
        raise DataError(f"table {self._config.data_set!r}, {self._where}, column {self._name!r}: {rule}") from None

    def _typed(self, values: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
        """Return a column in the one form that its type has, whatever the source keeps it as."""
        try:
            return typed(values, kind, self._decimal)
        except DataError as error:
            self._refuse(f"{error}{self._header_again(values)}")

    def _header_again(self, values: pa.ChunkedArray) -> str:
        """Return what to say where the column's own name is a value, as in files that were put together."""
        import pyarrow as pa
        from pyarrow import compute, types

        if not (types.is_string(values.type) or types.is_large_string(values.type)):
            return ""
        again = compute.any(compute.equal(values.cast(pa.large_string()), self._name), min_count=0).as_py()
        return "; its own name stands among its values: the header is there twice" if again else ""

    def features(self, column: ColumnConfig, values: pa.ChunkedArray, keep_N: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return what the column becomes, and mark in `keep_N` which records are dropped for it."""
        from pyarrow import compute

        values = self._typed(values, column.type)
        if values.null_count and column.missing == "refuse":
            self._refuse('a value is missing; declare missing = "drop" or "fill", or leave such records out')
        given_N: NDArray[np.bool_] = values.is_valid().to_numpy()
        if column.missing == "drop":
            keep_N &= given_N
        if column.type == "category":
            filled = values if column.fill is None else compute.fill_null(values, column.fill)
            place_N = self._places(filled, column.categories, "categories", column.unknown, keep_N)
            if column.other is not None:
                place_N[(place_N < 0) & filled.is_valid().to_numpy()] = column.categories.index(column.other)
            one_hot_NC: NDArray[np.float32] = (place_N[:, None] == np.arange(len(column.categories))).astype(np.float32)
            return one_hot_NC
        # In a record that is dropped, any number will do.
        spare = {"boolean": False, "integer": 0, "float": 0.0}[column.type] if column.fill is None else column.fill
        raw_N: NDArray[np.float64] = compute.fill_null(values, spare).to_numpy().astype(np.float64)
        if not np.isfinite(raw_N).all():
            self._refuse(NOT_FINITE)
        if column.limits is not None and ((raw_N < column.limits[0]) | (raw_N > column.limits[1]))[given_N].any():
            self._refuse(f"a value is outside its declared limits {list(column.limits)}")
        low, high = (0.0, 1.0) if column.range is None else column.range
        return onto_unit(raw_N, low, high, self._config.feature_bound)[:, None]

    def labels(self, values: pa.ChunkedArray, keep_N: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the labels' places, and mark in `keep_N` which records are dropped for an unknown one."""
        values = self._typed(values, "category")
        if values.null_count:
            self._refuse("a value is missing; leave such records out")
        return self._places(values, self._config.labels, "labels", self._config.unknown_label, keep_N)

    def _places(
        self, values: pa.ChunkedArray, choices: tuple[str, ...], what: str, unknown: str, keep_N: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Return each value's place among the choices, -1 where it has none; each rule looks at one record alone."""
        place_N = places(values, choices, self._decimal)
        unknown_N: NDArray[np.bool_] = (place_N < 0) & values.is_valid().to_numpy()
        if unknown == "refuse" and unknown_N.any():
            key = 'unknown_label = "drop" under [data]' if what == "labels" else 'unknown = "drop" or "other"'
            self._refuse(
                f"a value is none of the declared {what}: {', '.join(choices)}; add it to them, or declare {key}"
                f"{self._header_again(values)}"
            )
        if unknown == "drop":
            keep_N &= ~unknown_N
        return place_N

    def ids(self, values: pa.ChunkedArray, person: PersonColumn) -> pa.ChunkedArray:
        """Return the normal form of every id."""
        try:
            return normal_ids(values, person.form, self._where)
        except DataError as error:
            raise DataError(f"table {self._config.data_set!r}, column {self._name!r}: {error}") from None
