"""Rows of a file that a model is to score, read as a silo's table is: the same types, spellings, limits and categories.

A row that a silo would refuse or leave out is refused by its number, and the others are read: what a value becomes is a
function of that value alone (`fedmodel.data.reader`), so a column that is refused whole is halved until what remains is
read or is one row. Columns that no feature comes from, such as a label or an id, are not looked at.

| Refused whole                                   | Refused by row                                        |
|-------------------------------------------------|-------------------------------------------------------|
| a column is missing, twice, or of another type  | a value that its column's rules refuse                |
| what is no CSV, Parquet or JSON lines, or cut   | a value whose record a silo would leave out           |
| short                                           |                                                       |
| more than `MOST_REFUSED` rows of one column     |                                                       |

Rows are counted from 1, the header not counted. What is said of one never holds a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import ColumnConfig, CsvForm
from fedmodel.data.halving import refused_places
from fedmodel.data.json_lines import is_lines
from fedmodel.data.line_columns import columns_of_lines
from fedmodel.data.reader import ColumnReader
from fedmodel.data.sources import chosen
from fedmodel.data.values import typed
from fedmodel.errors import DataError, FedmodelError
from fedmodel.kinds import survival

if TYPE_CHECKING:
    import pyarrow as pa

MOST_REFUSED: Final = 1_000
"""Rows of one column: of a file with more, something is wrong with the file and not with its rows."""


@dataclass(frozen=True)
class Rows:
    """A file's rows, scaled. Sensitive.

    Attributes:
        x_NF: float32, shape `(N, features)`, in the file's order; of refused rows it means nothing.
        refused: By place from 0, the first column's rule that a row breaks.
        ids: What stands in the column of ids, as text and as it is written; None where none was asked for.
    """

    x_NF: NDArray[np.float32]
    refused: dict[int, str]
    ids: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return "Rows(...)"  # a repr ends up in logs


def read_rows(
    path: Path,
    columns: Sequence[ColumnConfig],
    bound: float,
    form: CsvForm,
    id_column: str | None = None,
    tokenizer: str | None = None,
) -> Rows:
    """Read the rows of a CSV, Parquet or JSON lines file.

    Args:
        path: Of the file.
        columns: What is declared of those that features come from.
        bound: What scaled features are bounded by, plus and minus.
        form: How a CSV is written.
        id_column: The column by which a row is known again, kept as it is written; no row is refused for it.
        tokenizer: Where a tokenizer's file lies, of a text that is declared to need one.

    Raises:
        ConfigError: When the tokenizer is not there, or is another.
        DataError: When the file is refused whole.
    """
    try:
        names = [*(column.name for column in columns), *([] if id_column is None else [id_column])]
        asked = tuple(dict.fromkeys(names))
        table = columns_of_lines(path, asked) if is_lines(path) else chosen(path, asked, form)
        x_NF = np.empty((len(table), sum(len(column.features) for column in columns)), dtype=np.float32)
        refused: dict[int, str] = {}
        at = 0
        for column in columns:
            try:
                found = _column(column, table[column.name], bound, form, tokenizer)
            except DataError as error:
                raise DataError(f"{path}: column {column.name!r}: {error}") from None
            width = len(column.features)
            x_NF[:, at : at + width] = found.x_NF
            at += width
            refused = {row: f"column {column.name!r}: {rule}" for row, rule in found.refused.items()} | refused
    except FedmodelError:
        raise
    except MemoryError:
        raise DataError(f"{path}: does not fit into this machine's memory") from None
    except Exception as error:
        # Whatever it is, its words and its trace could quote a value.
        raise DataError(f"{path}: cannot be read ({type(error).__name__})") from None
    return Rows(x_NF, dict(sorted(refused.items())), None if id_column is None else _texts(table[id_column]))


def _texts(values: pa.ChunkedArray) -> tuple[str, ...]:
    """Return values as text; a missing one is empty."""
    return tuple("" if value is None else str(value) for value in values.to_pylist())


def _column(column: ColumnConfig, values: pa.ChunkedArray, bound: float, form: CsvForm, tokenizer: str | None) -> Rows:
    """Read a column, and say which rows break its rules."""
    typed(values.slice(0, 0), column.read_as, form.decimal)  # of another type it is refused whole, whatever is in it
    reader, dropped = ColumnReader(column.name, form, tokenizer), dict[int, str]()
    x_NC = np.zeros((len(values), len(column.features)), dtype=np.float32)

    def read(start: int, end: int) -> None:
        keep_N = np.ones(end - start, dtype=np.bool_)
        x_NC[start:end] = reader.features(column, values.slice(start, end - start), keep_N, bound)
        dropped.update(dict.fromkeys((start + np.flatnonzero(~keep_N)).tolist(), _left_out(column)))

    broken = refused_places(len(values), read, MOST_REFUSED)
    # What follows a semicolon tells the scenario's author what to declare.
    refused = dropped | {row: rule.partition(";")[0] for row, rule in broken.items()}
    if len(refused) > MOST_REFUSED:
        first = min(refused)
        raise DataError(f"more than {MOST_REFUSED} rows are refused; the first is row {first + 1}: {refused[first]}")
    return Rows(x_NC, refused)


def _left_out(column: ColumnConfig) -> str:
    """Say why a silo leaves a record out."""
    unknown = " or is none of its categories" if column.unknown == "drop" else ""
    return f"a value is missing{unknown}, and such records were left out of training"


def read_targets(
    path: Path,
    label: str | None,
    labels: tuple[str, ...],
    label_range: tuple[float, float] | None,
    form: CsvForm,
    timed: tuple[str, tuple[float, ...]] | None = None,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read what a file's rows say of what a model predicts, as a silo's table is read.

    Args:
        path: Of the file.
        label: The column that is predicted; None where each of `labels` is one, true or false.
        labels: The classes, in order; none of a number. Of survival, what stands for no event and for one, none where
            these are truths.
        label_range: Of a number: its public range.
        form: How a CSV is written.
        timed: Of survival: the column of times, and when each interval ends.

    Returns:
        The targets, and which rows have one: a label that is none of the classes is none.

    Raises:
        DataError: When a column is missing, or a value in it, or one is of another type.
    """
    names = (*(labels if label is None else (label,)), *([] if timed is None else timed[:1]))
    table = columns_of_lines(path, names) if is_lines(path) else chosen(path, names, form)
    keep_N, targets = np.ones(len(table), dtype=np.bool_), list[NDArray[Any]]()
    for name in names:
        reader = ColumnReader(name, form)
        try:
            if timed is not None and name == timed[0]:
                targets.append(reader.times(table[name]))
            elif label is None or (timed is not None and not labels):
                targets.append(reader.truths(table[name]))
            elif label_range is not None:
                targets.append(reader.numbers(label_range, table[name], 1.0))
            else:
                targets.append(reader.labels(labels, "drop", table[name], keep_N))
        except DataError as error:
            raise DataError(f"{path}: column {name!r}: {error}") from None
    if timed is not None:
        seen_N, time_N = targets
        return survival.targets(time_N, seen_N, timed[1]), keep_N
    return (targets[0] if label is not None else np.stack(targets, axis=1)), keep_N
