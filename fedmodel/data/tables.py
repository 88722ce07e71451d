"""From a declared table to records: each value held to its column's type, limits and categories, then scaled.

What a record becomes is a function of that record and of what the scenario declares: ranges and constants that are
filled in are public, and whether a record is dropped hangs on its own missing values. So adding or removing a record
adds or removes one, at most, and changes no other.

| Type       | Read (`fedmodel.data.values`) from         | Becomes                                             |
|------------|--------------------------------------------|-----------------------------------------------------|
| `float`    | numbers; text that is one                  | its range mapped onto [-1, 1], bounded              |
| `integer`  | whole numbers, 64.0 too; text of them      | likewise                                            |
| `boolean`  | true, false; 0 and 1, 0.0 and 1.0; text    | -1 or 1                                             |
| `category` | text; whole numbers, true and false        | a feature for each category, in order, of 0 or 1    |
| `text`     | as a category                              | arrays `tokens` and `mask`, beside which the others |
|            |                                            | are `features` (`fedmodel.data.tokens`)             |
| label      | as a category                              | its place among `labels`                            |
|            | of `label_range`: as a float               | the range mapped onto [-1, 1], bounded to that      |
|            | of several: as booleans                    | 0 or 1 for each of them                             |
|            | of survival: as a boolean, or as one of    | with the time one number, of that record's interval |
|            | two `labels`                               | (`fedmodel.kinds.survival`)                         |
| time       | as a float from 0 on                       | likewise                                            |
| person     | text, bytes, whole numbers                 | a number that stands for that person here alone, by |
|            |                                            | the normal form of her id (`fedmodel.data.persons`) |

A missing value is a NULL, or nothing between two commas; "NA" is text, and NaN is no number.

Records of files keep the files' order. A query's are put into an order by their content: a database gives rows in any
order that it likes, and which of a person's records are used must hang on those records alone.

Whether a record is dropped for a category or a label that is not declared hangs on that value alone, too.

Errors name a table, a file, a column and a rule. Never a value, a line or how many there are: they end in logs. Of a
person's id that its form does not admit they name the row besides, without which nobody could mend it.

Does NOT hide that a table is refused: the silo drops out of the round, and the server sees that. So limits are for what
cannot be, not for what is rare.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import ColumnConfig, PersonColumn, TableSource
from fedmodel.data.cache import Cache
from fedmodel.data.holding_out import held_out_rows
from fedmodel.data.kept import read_or_kept
from fedmodel.data.persons import normal_ids
from fedmodel.data.reader import ColumnReader
from fedmodel.data.records import Records
from fedmodel.data.sources import database_of, identity, tables
from fedmodel.data.tokenizer import check_tokenizer
from fedmodel.data.tokens import inputs_of
from fedmodel.data.withdrawn import Withdrawn
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds import survival
from fedmodel.kinds.columns import text_column
from fedmodel.kinds.source import Source
from fedmodel.kinds.sources.table import TableConfig

if TYPE_CHECKING:
    import pyarrow as pa

# v1 grouped records by ids as spelled; v2 refused 64.0 for a whole number; v3 told "II " from "II"; v4 knew nobody who
# withdrew
_LABEL_FORM = b"fedmodel/v5/table-key"


def declared(config: Source) -> TableConfig:
    """Return the table that a scenario declares.

    Raises:
        ConfigError: When its records are no table's.
    """
    if not isinstance(config, TableConfig):
        raise ConfigError(f"data.source = {config.source!r} is not read from a table")
    return config


def table_records(
    config: TableConfig, source: TableSource, cache: Cache | None = None, withdrawn: Withdrawn | None = None
) -> Records:
    """Return a table's records, scaled. Sensitive.

    Args:
        config: Declares the table.
        source: Where it lies, with absolute paths.
        cache: Where it is kept, sealed, once read; None keeps it in memory alone. What was kept before somebody
            withdrew is not used.
        withdrawn: Persons whose rows are dropped.

    Returns:
        Records in an order that follows from the table's content, none where the table has none: no answer hangs on
        how many there are.

    Raises:
        ConfigError: When a package is missing, a database's account could write, or persons withdrew by another word
            on whose a row is than the silo's own file says now.
        DataError: When the table is not as declared: its name, a column and a rule, never a value.
    """
    run = "" if cache is None else cache.run
    flat = read_or_kept(
        f"table {config.data_set!r}",
        config.data_set,
        cache,
        lambda: _key(config, source, run, withdrawn),
        lambda: _read(config, source, withdrawn),
        len(config.shape.names),  # columns are kept side by side
        config.shape.targets,
    )
    return _arranged(config, flat)


def _key(config: TableConfig, source: TableSource, run: str, withdrawn: Withdrawn | None) -> bytes:
    """Return a digest of what is declared, of what the source is now, and of who withdrew."""
    check_text(config, source)
    declared = config.model_dump_json(exclude={"folder", "csv"}).encode()
    gone = bytes(32) if withdrawn is None else withdrawn.digest()
    return hashlib.sha256(_LABEL_FORM + hashlib.sha256(declared).digest() + identity(source, run) + gone).digest()


def check_text(config: TableConfig, source: TableSource) -> None:
    """Refuse the file of a tokenizer that the table's text is declared to need, where it is not there, or is another.

    Guarantee: the answer hangs on that file and on what is declared, and on no record: it may be told to a server.

    Raises:
        ConfigError: What is not there, or differs.
    """
    text = text_column(config.columns)
    if text is None or text.tokenizer is None or text.length is None:
        return
    if source.tokenizer is None:
        raise ConfigError(
            f"table {config.data_set!r}: the scenario reads column {text.name!r} by a tokenizer, and"
            f" [tables.{config.data_set}] does not say where its file lies; add tokenizer = PATH"
        )
    check_tokenizer(text.tokenizer, Path(source.tokenizer), text.length)


def names_of(config: TableConfig) -> tuple[str, ...]:
    """Return the columns that the source must have."""
    person = [config.person.column] if config.person else []
    return (*(column.name for column in config.columns), *config.predicted_as, *person)


def person_column(config: TableConfig, source: TableSource) -> PersonColumn | None:
    """Return which column says whose a record is, and in which form: the silo's own word goes before the scenario's.

    Raises:
        ConfigError: When the two name different columns.
    """
    if config.person is None or source.person is None:
        return config.person
    if config.person.column != source.person.column:
        raise ConfigError(
            f"table {config.data_set!r}: the scenario says by column {config.person.column!r} whose a record is, and"
            f" this party's own file by {source.person.column!r}; only its own holds"
        )
    return source.person


def _read(config: TableConfig, source: TableSource, withdrawn: Withdrawn | None) -> Records:
    """Read, check and scale, a file at a time, so that an error names the file."""
    import pyarrow as pa

    person = person_column(config, source)
    parts: list[Records] = []
    ids: list[pa.ChunkedArray] = []
    for place, table, normal in _rows(config, source, withdrawn, held_out=False):
        keep_N = np.ones(len(table), dtype=np.bool_)
        x_NF = np.empty((len(table), len(config.shape.names)), dtype=np.float32)
        at = 0
        for column in config.columns:
            width = len(column.features)
            with _named(config, column.name, place):
                x_NF[:, at : at + width] = ColumnReader(column.name, source, source.tokenizer).features(
                    column, table[column.name], keep_N, config.feature_bound
                )
            at += width
        targets = []
        for name in config.predicted_as:
            with _named(config, name, place):
                targets.append(target(config, name, ColumnReader(name, source), table[name], keep_N))
        y_N = _together(config, targets)
        if normal is not None:
            ids.append(normal.filter(pa.array(keep_N)))
        parts.append(Records(x_NF[keep_N], y_N[keep_N], np.arange(int(keep_N.sum()))))
    x_NF, y_N = (np.concatenate([getattr(part, key) for part in parts]) for key in ("x_NF", "y_N"))
    person_N = np.arange(len(y_N)) if person is None else _numbered(ids)
    records = Records(x_NF, y_N, person_N)
    return records if source.url is None else _by_content(records)


def _arranged(config: TableConfig, flat: Records) -> Records:
    """Return records whose columns stand side by side as a model takes them."""
    return Records(arranged(config.columns, config.features, flat.x_NF), flat.y_N, flat.person_N)


def arranged(
    columns: Sequence[ColumnConfig], features: tuple[int, ...], x_NF: NDArray[np.float32]
) -> NDArray[np.float32] | dict[str, NDArray[Any]]:
    """Return what columns became, side by side, as a model takes it: in the shape of the features, or by name.

    Args:
        columns: As they are declared.
        features: Shape of what all of them but a text become.
        x_NF: As they were read, shape `(N, features of all columns)`.
    """
    is_text_F = np.array([column.length is not None for column in columns for _ in column.features])
    text: dict[str, NDArray[Any]] = {}
    if is_text_F.any():
        said = text_column(columns)
        text = inputs_of(x_NF[:, is_text_F].astype(np.int64), None if said is None else said.tokenizer)
        if is_text_F.all():
            return text
    rest = x_NF[:, ~is_text_F].reshape(len(x_NF), *features)
    return text | {"features": rest} if text else rest


def target(
    config: TableConfig,
    name: str,
    reader: ColumnReader,
    values: pa.ChunkedArray,
    keep_N: NDArray[np.bool_],
    bound: float = 1.0,
) -> NDArray[Any]:
    """Return what a column that is predicted becomes, and mark in `keep_N` which records are dropped for it.

    Args:
        config: Says as what it is read.
        name: Of the column.
        reader: Of the column.
        values: What stands in it.
        keep_N: Which records are kept.
        bound: What a number is bounded to once its range is mapped onto [-1, 1].
    """
    read_as = config.predicted_as[name]
    if read_as == "time":
        return reader.times(values)
    if read_as == "boolean":
        return reader.truths(values)
    if config.label_range is not None:
        return reader.numbers(config.label_range, values, bound)
    return reader.labels(config.labels, config.unknown_label, values, keep_N)


def _together(config: TableConfig, found: list[NDArray[Any]]) -> NDArray[Any]:
    """Return records' targets, of what each column that is predicted became."""
    if config.time is not None:
        seen_N, time_N = found
        return survival.targets(time_N, seen_N, config.ends)
    return found[0] if len(found) == 1 else np.stack(found, axis=1)


def held_out_part(config: TableConfig, source: TableSource, withdrawn: Withdrawn | None) -> pa.Table:
    """Return the rows that the silo holds out, as the source has them, with a number in place of each id. Sensitive.

    Args:
        config: Declares the table: other columns are left behind.
        source: Where it lies, with absolute paths, and which share is held out.
        withdrawn: Persons whose rows are dropped.

    Raises:
        ConfigError: As `table_records` does, or when nothing is held out.
        DataError: As `table_records` does, or when its files differ in the types of their columns.
    """
    import pyarrow as pa

    if source.held_out is None:
        raise ConfigError(f"[tables.{config.data_set}] of silo.toml does not say held_out, so no row may be handed out")
    parts, numbers = [], dict[str, str]()
    for _, table, normal in _rows(config, source, withdrawn, held_out=True):
        part = table.select(list(names_of(config)))
        if config.person is not None and normal is not None:
            found = [numbers.setdefault(one, str(len(numbers) + 1)) for one in normal.to_pylist()]
            at = part.column_names.index(config.person.column)
            part = part.set_column(at, config.person.column, pa.array(found, pa.large_string()))
        parts.append(part)
    try:
        return pa.concat_tables(parts)
    except pa.ArrowException:
        raise DataError(f"table {config.data_set!r}: its files differ in types; make one file of them") from None


def _rows(
    config: TableConfig, source: TableSource, withdrawn: Withdrawn | None, *, held_out: bool
) -> Iterator[tuple[str, pa.Table, pa.ChunkedArray | None]]:
    """Yield the rows that are held out, or those that are not, of nobody who withdrew; no other value was looked at.

    Each comes with where it is from and, where the scenario is of persons, the normal form of whose each row is.
    """
    from pyarrow import compute

    person = person_column(config, source)
    gone = None if withdrawn is None else _normal(config, source, withdrawn)
    told = [one for one in (withdrawn and withdrawn.person, source.person if source.held_out else None) if one]
    # Asked for by nobody else, and so maybe left out.
    more = tuple({one.column: None for one in told if one.column not in names_of(config)})
    left = tuple(name for name in source.leave_out if name not in more)
    reading, names = source.model_copy(update={"leave_out": left}), (*names_of(config), *more)
    for where, table in tables(reading, names, others=config.other_columns == "ignore"):
        place = where if source.url is None else f"{where} of {database_of(source)}"
        # Of all rows, since what is said of an id says its row; the place stands there too.
        normal = None if person is None else _ids(config, person, table, place)
        drops: list[pa.ChunkedArray] = []
        if withdrawn is not None:
            known = normal if withdrawn.person == person else _ids(config, withdrawn.person, table, place)
            drops.append(compute.is_in(known, value_set=gone))
        if source.held_out is not None and source.person is not None:
            known = normal if source.person == person else _ids(config, source.person, table, place)
            held_N = held_out_rows(known, source.held_out)
            drops.append(compute.invert(held_N) if held_out else held_N)
        if drops:
            stays_N = compute.invert(reduce(compute.or_, drops))
            table, normal = table.filter(stays_N), None if normal is None else normal.filter(stays_N)
        yield place, table, normal


def _normal(config: TableConfig, source: TableSource, withdrawn: Withdrawn) -> pa.Array:
    """Return the normal ids of who withdrew; refuse where rows would be told apart by another word than theirs."""
    import pyarrow as pa

    if source.person is not None and source.person != withdrawn.person:
        raise ConfigError(
            f"table {config.data_set!r}: persons withdrew by column {withdrawn.person.column!r} in form ="
            f' "{withdrawn.person.form}", and silo.toml says otherwise now; run `silo withdraw` again, so that the list'
            " is by the word of today"
        )
    return pa.array(withdrawn.normal(), pa.large_string())


def _ids(config: TableConfig, person: PersonColumn, table: pa.Table, place: str) -> pa.ChunkedArray:
    """Return the normal form of whose each row is."""
    with _named(config, person.column):
        return normal_ids(table[person.column], person.form, place)


@contextmanager
def _named(config: TableConfig, column: str, place: str | None = None) -> Iterator[None]:
    """Say of which table, file and column a broken rule is."""
    try:
        yield
    except DataError as error:
        where = "" if place is None else f" {place},"
        raise DataError(f"table {config.data_set!r},{where} column {column!r}: {error}") from None


def _numbered(ids: list[pa.ChunkedArray]) -> NDArray[np.int64]:
    """Return numbers that are alike where persons are; no two persons share one, as they could with a hash."""
    import pyarrow as pa

    everyone = pa.chunked_array([chunk for part in ids for chunk in part.chunks], pa.large_string())
    person_N = everyone.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return np.asarray(person_N, dtype=np.int64)


def _by_content(records: Records) -> Records:
    """Put records into the one order that their labels and features have; equal ones are alike in any order."""
    keys: list[NDArray[Any]] = [records.x_NF[:, feature] for feature in reversed(range(records.x_NF.shape[1]))]
    targets_NK = records.y_N.reshape(len(records), math.prod(records.y_N.shape[1:]))
    return records.take(np.lexsort([*keys, *targets_NK.T]))
