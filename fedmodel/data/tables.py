"""From a declared table to records: each value held to its column's type, limits and categories, then scaled.

What a record becomes is a function of that record and of what the scenario declares: ranges and constants that are
filled in are public, and whether a record is dropped hangs on its own missing values. So adding or removing a record
adds or removes one, at most, and changes no other.

| Type       | Read from                                  | Becomes                                             |
|------------|--------------------------------------------|-----------------------------------------------------|
| `float`    | numbers; text that is one                  | its range mapped onto [-1, 1], bounded              |
| `integer`  | whole numbers; text of digits              | likewise                                            |
| `boolean`  | true, false; whole numbers 0 and 1; text   | -1 or 1                                             |
| `category` | text; whole numbers, true and false        | a feature for each category, in order, of 0 or 1    |
| label      | as a category                              | its place among `labels`                            |
| person     | text, bytes, whole numbers                 | a number that stands for that person here alone, by |
|            |                                            | the normal form of her id (`fedmodel.data.persons`) |

A missing value is a NULL, or nothing between two commas; "NA" is text, and NaN is no number.

Records of files keep the files' order. A query's are put into an order by their content: a database gives rows in any
order that it likes, and which of a person's records are used must hang on those records alone.

Errors name a table, a column and a rule. Never a value, a line or how many there are: they end in logs. Of a person's
id that its form does not admit they name the file and the row besides, without which nobody could mend it.

Does NOT hide that a table is refused: the silo drops out of the round, and the server sees that. So limits are for what
cannot be, not for what is rare.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import ColumnConfig, DataConfig, PersonColumn, TableSource
from fedmodel.data.cache import Cache
from fedmodel.data.persons import normal_ids
from fedmodel.data.records import Records, data_shape, onto_unit
from fedmodel.data.sources import identity, needs, tables
from fedmodel.errors import ConfigError, DataError, FedmodelError

if TYPE_CHECKING:
    import pyarrow as pa

_LABEL_FORM = b"fedmodel/v2/table-key"  # v1 grouped records by ids as they were spelled


def table_records(config: DataConfig, source: TableSource, cache: Cache | None = None) -> Records:
    """Return a table's records, scaled. Sensitive.

    Args:
        config: Declares the table.
        source: Where it lies, with absolute paths.
        cache: Where it is kept, sealed, once read; None keeps it in memory alone.

    Returns:
        Records in an order that follows from the table's content, none where the table has none: no answer hangs on
        how many there are.

    Raises:
        ConfigError: When the scenario declares no table, a package is missing, or a database's account could write.
        DataError: When the table is not as declared: its name, a column and a rule, never a value.
    """
    if config.source != "table":
        raise ConfigError(f"data.source = {config.source!r} is not read from a table")
    run = "" if cache is None else cache.run
    try:
        key = _key(config, source, run)
        if cache is not None:
            kept = cache.get(config.data_set, key, data_shape(config).features[0])
            if kept is not None:
                return kept
        records = _read(config, source)
        # What changed while it was read may be half of one state and half of another.
        if _key(config, source, run) != key:
            raise DataError(f"table {config.data_set!r}: changed while it was read; rename whole files into place")
    except FedmodelError:
        raise
    except MemoryError:
        # Its own words say for how many records.
        raise DataError(f"table {config.data_set!r}: does not fit into this machine's memory") from None
    except Exception as error:
        # Whatever it is, its words and its trace could quote a value.
        raise DataError(f"table {config.data_set!r}: cannot be read ({type(error).__name__})") from None
    if cache is not None:
        cache.put(config.data_set, key, records)
    return records


def _key(config: DataConfig, source: TableSource, run: str) -> bytes:
    """Return a digest of what is declared and of what the source is now."""
    declared = config.model_dump_json(exclude={"folder"}).encode()
    return hashlib.sha256(_LABEL_FORM + hashlib.sha256(declared).digest() + identity(source, run)).digest()


def _names(config: DataConfig) -> tuple[str, ...]:
    """Return the columns that the source must have."""
    person = [config.person.column] if config.person else []
    return (*(column.name for column in config.columns), str(config.label), *person)


def person_column(config: DataConfig, source: TableSource) -> PersonColumn | None:
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


def _typed(config: DataConfig, person: PersonColumn | None, where: str, table: pa.Table) -> pa.Table:
    """Return a source's columns, each in the one form that its declared type has."""
    import pyarrow as pa

    kinds = {column.name: str(column.type) for column in config.columns}
    kinds[str(config.label)] = "category"
    typed = {name: _Reader(config, name).typed(table[name], kind) for name, kind in kinds.items()}
    if person is not None:
        typed[person.column] = _Reader(config, person.column).ids(table[person.column], person, where)
    return pa.table(typed)


def _read(config: DataConfig, source: TableSource) -> Records:
    """Read, check and scale."""
    try:
        import pyarrow as pa
    except ImportError:
        raise needs("pyarrow") from None

    person = person_column(config, source)
    whole = pa.concat_tables([_typed(config, person, where, table) for where, table in tables(source, _names(config))])
    label = str(config.label)
    keep_N = np.ones(len(whole[label]), dtype=np.bool_)
    x_NF = np.empty((len(keep_N), *data_shape(config).features), dtype=np.float32)
    at = 0
    for column in config.columns:
        reader, width = _Reader(config, column.name), len(column.features)
        x_NF[:, at : at + width] = reader.features(column, whole[column.name], keep_N)
        at += width
    y_N = _Reader(config, label).places(whole[label], config.labels, "labels")
    person_N = np.arange(len(keep_N))
    if person is not None:
        person_N = _Reader(config, person.column).persons(whole[person.column])
    records = Records(x_NF[keep_N], y_N[keep_N], person_N[keep_N])
    return records if source.url is None else _by_content(records)


def _by_content(records: Records) -> Records:
    """Put records into the one order that their labels and features have; equal ones are alike in any order."""
    keys: list[NDArray[Any]] = [records.x_NF[:, feature] for feature in reversed(range(records.x_NF.shape[1]))]
    return records.take(np.lexsort([*keys, records.y_N]))


class _Reader:
    """One column, and what is said when it breaks a rule."""

    def __init__(self, config: DataConfig, name: str) -> None:
        self._config, self._name = config, name

    def _refuse(self, rule: str) -> NoReturn:
        raise DataError(f"table {self._config.data_set!r}, column {self._name!r}: {rule}") from None

    def typed(self, values: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
        """Return a column in the one form that its type has, whatever the source keeps it as."""
        import pyarrow as pa
        from pyarrow import compute, types

        if types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        found = values.type
        text = types.is_string(found) or types.is_large_string(found) or types.is_string_view(found)
        whole = types.is_integer(found)
        number = whole or types.is_floating(found) or types.is_decimal(found)
        target, allowed, rule = {
            "float": (pa.float64(), number or text, "a value is not a number"),
            "integer": (pa.int64(), whole or text, "a value is not a whole number"),
            "boolean": (pa.bool_(), types.is_boolean(found) or whole or text, "a value is neither true nor false"),
            "category": (pa.large_string(), text or whole or types.is_boolean(found), "a value is not text"),
        }[kind]
        if types.is_null(found):
            return values.cast(target)
        if not allowed:
            self._refuse(f"its values are not of the declared type, {kind}: {rule}")
        if text:
            values = values.cast(pa.large_string())
        if (text and kind == "integer" and not _all(compute.match_substring_regex(values, "^-?[0-9]+$"))) or (
            whole and kind == "boolean" and not _all(compute.is_in(values, pa.array([0, 1], found)))
        ):
            self._refuse(rule)
        try:
            return values.cast(target)
        except (pa.ArrowException, ValueError):
            self._refuse(rule)

    def features(self, column: ColumnConfig, values: pa.ChunkedArray, keep_N: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return what the column becomes, and mark in `keep_N` which records are dropped for it."""
        from pyarrow import compute

        if values.null_count and column.missing == "refuse":
            self._refuse('a value is missing; declare missing = "drop" or "fill", or leave such records out')
        if column.missing == "drop":
            keep_N &= values.is_valid().to_numpy()
        if column.type == "category":
            filled = values if column.fill is None else compute.fill_null(values, column.fill)
            place_N = self.places(filled, column.categories, "categories", missing=column.missing == "drop")
            one_hot_NC: NDArray[np.float32] = (place_N[:, None] == np.arange(len(column.categories))).astype(np.float32)
            return one_hot_NC
        # In a record that is dropped, any number will do.
        spare = {"boolean": False, "integer": 0, "float": 0.0}[column.type] if column.fill is None else column.fill
        raw_N: NDArray[np.float64] = compute.fill_null(values, spare).to_numpy().astype(np.float64)
        given_N: NDArray[np.bool_] = values.is_valid().to_numpy()
        if not np.isfinite(raw_N).all():
            self._refuse("a value is NaN or infinite")
        if column.limits is not None and ((raw_N < column.limits[0]) | (raw_N > column.limits[1]))[given_N].any():
            self._refuse(f"a value is outside its declared limits {list(column.limits)}")
        low, high = (0.0, 1.0) if column.range is None else column.range
        return onto_unit(raw_N, low, high, self._config.feature_bound)[:, None]

    def places(
        self, values: pa.ChunkedArray, choices: tuple[str, ...], what: str, *, missing: bool = False
    ) -> NDArray[np.int64]:
        """Return each value's place among the choices, -1 where it is missing and may be."""
        import pyarrow as pa
        from pyarrow import compute

        if values.null_count and not missing:
            self._refuse("a value is missing; leave such records out")
        place = compute.index_in(values, value_set=pa.array(choices, pa.large_string()), skip_nulls=True)
        if place.null_count > values.null_count:
            self._refuse(f"a value is none of the declared {what}: {', '.join(choices)}")
        place_N: NDArray[np.int64] = compute.fill_null(place, -1).to_numpy().astype(np.int64)
        return place_N

    def ids(self, values: pa.ChunkedArray, person: PersonColumn, where: str) -> pa.ChunkedArray:
        """Return the normal form of every id."""
        try:
            return normal_ids(values, person.form, where)
        except DataError as error:
            self._refuse(str(error))

    def persons(self, values: pa.ChunkedArray) -> NDArray[np.int64]:
        """Return numbers that are alike where persons are; no two persons share one, as they could with a hash."""
        person_N = values.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
        return np.asarray(person_N, dtype=np.int64)


def _all(truths: pa.ChunkedArray) -> bool:
    """Return whether all are true that are not missing."""
    from pyarrow import compute

    return compute.all(truths, min_count=0).as_py() is not False
