"""One column of one source, read as it is declared: each value held to its type, limits and categories, then scaled.

Guarantee: what a value becomes, and whether its record is dropped or refused for it, is a function of that value and of
what is declared, never of another record. So a part of a column is read as it would be within the whole.

Errors say a rule and never a value: they end in logs. Whoever reads says of which table, file and column.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import ColumnConfig, CsvForm
from fedmodel.data.records import onto_unit
from fedmodel.data.tokens import coded
from fedmodel.data.values import NOT_FINITE, places, typed
from fedmodel.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


class ColumnReader:
    """One column of one file, and the rules that it is held to.

    Args:
        name: Of the column.
        form: How its text is written: the sign before a fraction, and the words for true and false.
        tokenizer: Where a tokenizer's file lies, of a text that is declared to need one.
    """

    def __init__(self, name: str, form: CsvForm, tokenizer: str | None = None) -> None:
        self._name, self._decimal, self._truths = name, form.decimal, form.truths
        self._tokenizer = None if tokenizer is None else Path(tokenizer)

    def _typed(self, values: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
        """Return a column in the one form that its type has, whatever the source keeps it as."""
        try:
            return typed(values, kind, self._decimal, self._truths)
        except DataError as error:
            raise DataError(f"{error}{self._header_again(values)}") from None

    def _header_again(self, values: pa.ChunkedArray) -> str:
        """Return what to say where the column's own name is a value, as in files that were put together."""
        import pyarrow as pa
        from pyarrow import compute, types

        if not (types.is_string(values.type) or types.is_large_string(values.type)):
            return ""
        again = compute.any(compute.equal(values.cast(pa.large_string()), self._name), min_count=0).as_py()
        return "; its own name stands among its values: the header is there twice" if again else ""

    def features(
        self, column: ColumnConfig, values: pa.ChunkedArray, keep_N: NDArray[np.bool_], bound: float
    ) -> NDArray[np.float32]:
        """Return what the column becomes within a bound, and mark in `keep_N` which records are dropped for it."""
        from pyarrow import compute

        values = self._typed(values, column.read_as)
        if values.null_count and column.missing == "refuse":
            raise DataError('a value is missing; declare missing = "drop" or "fill", or leave such records out')
        given_N: NDArray[np.bool_] = values.is_valid().to_numpy()
        if column.missing == "drop":
            keep_N &= given_N
        if column.length is not None:
            texts = values if column.fill is None else compute.fill_null(values, column.fill)
            codes_NT = coded(texts.to_pylist(), column.length, column.tokenizer, self._tokenizer)
            return codes_NT.astype(np.float32)  # which holds every code as it is
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
            raise DataError(NOT_FINITE)
        if column.limits is not None and ((raw_N < column.limits[0]) | (raw_N > column.limits[1]))[given_N].any():
            raise DataError(f"a value is outside its declared limits {list(column.limits)}")
        low, high = (0.0, 1.0) if column.range is None else column.range
        return onto_unit(raw_N, low, high, bound)[:, None]

    def labels(
        self, labels: tuple[str, ...], unknown: str, values: pa.ChunkedArray, keep_N: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Return the labels' places, and mark in `keep_N` which records are dropped for an unknown one."""
        values = self._typed(values, "category")
        if values.null_count:
            raise DataError("a value is missing; leave such records out")
        return self._places(values, labels, "labels", unknown, keep_N)

    def numbers(self, range_: tuple[float, float], values: pa.ChunkedArray, bound: float) -> NDArray[np.float32]:
        """Return numbers with their public range mapped onto [-1, 1], and bounded; none may be missing."""
        return onto_unit(self._finite(values), *range_, bound)

    def times(self, values: pa.ChunkedArray) -> NDArray[np.float64]:
        """Return for how long each was looked at; none may be missing or below 0."""
        raw_N = self._finite(values)
        if (raw_N < 0).any():
            raise DataError("a time is below 0; count it from when each was first looked at, or leave such records out")
        return raw_N

    def _finite(self, values: pa.ChunkedArray) -> NDArray[np.float64]:
        """Return numbers, of which none may be missing."""
        values = self._typed(values, "float")
        if values.null_count:
            raise DataError("a value is missing; leave such records out")
        raw_N: NDArray[np.float64] = values.to_numpy().astype(np.float64)
        if not np.isfinite(raw_N).all():
            raise DataError(NOT_FINITE)
        return raw_N

    def truths(self, values: pa.ChunkedArray) -> NDArray[np.int64]:
        """Return 1 where a value is true and 0 where it is false; none may be missing."""
        values = self._typed(values, "boolean")
        if values.null_count:
            raise DataError("a value is missing; leave such records out")
        return np.asarray(values.to_numpy(), dtype=np.int64)

    def _places(
        self, values: pa.ChunkedArray, choices: tuple[str, ...], what: str, unknown: str, keep_N: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Return each value's place among the choices, -1 where it has none; each rule looks at one record alone."""
        place_N = places(values, choices, self._decimal)
        unknown_N: NDArray[np.bool_] = (place_N < 0) & values.is_valid().to_numpy()
        if unknown == "refuse" and unknown_N.any():
            key = 'unknown_label = "drop" under [data]' if what == "labels" else 'unknown = "drop" or "other"'
            raise DataError(
                f"a value is none of the declared {what}: {', '.join(choices)}; add it to them, or declare {key}"
                f"{self._header_again(values)}"
            )
        if unknown == "drop":
            keep_N &= ~unknown_N
        return place_N
