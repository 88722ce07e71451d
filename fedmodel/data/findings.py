"""What a run would find in a silo's own table, all of it at once, for the silo's own eyes.

A run stops at the first thing that is wrong, and names neither value nor row, since its errors end in logs
(`fedmodel.data.tables`). Here the same table is read by the same reader, value by value, and everything is told with
its rows. What is found is sensitive: it is for the screen of whoever owns the table, and neither for a log nor for a
message. Nothing here writes it anywhere, and no `repr` says any of it.

Guarantee: `Findings.refused` is true if and only if a run refuses the table. Each value is read by `ColumnReader` and
each id by `normal_id`, as in a run; and where nothing was found that refuses the table, it is read by `table_records`
itself, whose error is then a finding. What is dropped is what a run drops, so that `records` is what a run has.

Rows are counted from 1 within a file, its header not counted; of a query, in the order of its answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import PersonColumn, PersonForm, TableSource
from fedmodel.data.columnwise import Broken, Read, read_apart
from fedmodel.data.headers import headers
from fedmodel.data.lines import rows_in_the_way
from fedmodel.data.persons import EXACT, NARROW, normal_id, normal_ids
from fedmodel.data.reader import ColumnReader
from fedmodel.data.records import Records
from fedmodel.data.seen import kind_seen
from fedmodel.data.settling import looks_like, settled_by
from fedmodel.data.sources import THE_QUERY, check_left_out, check_names, chosen, database_of, files_of
from fedmodel.data.tables import check_text, names_of, person_column, table_records, target
from fedmodel.errors import DataError
from fedmodel.kinds.sources.table import TableConfig

if TYPE_CHECKING:
    import pyarrow as pa

_NAMED: Final = 10  # rows, and values, of one finding
_EDGE: Final = 1.0 + 1e-6  # of a scaled range, past the rounding of float32


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know. Sensitive.

    Attributes:
        what: The rule that is broken, or what is noticed; never a value.
        settled_by: Which keys, in which file, settle it, or what else does.
        refuses: Whether a run refuses the table for it.
        where: A file, or the query; "" of the whole table.
        column: Of which column.
        rows: Numbers of the first rows.
        count: How many rows there are, at least.
        values: Some of the values, for the owner's screen.
    """

    what: str
    settled_by: str
    refuses: bool = True
    where: str = ""
    column: str | None = None
    rows: tuple[int, ...] = ()
    count: int = 0
    values: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "Finding(...)"  # a repr ends up in logs


@dataclass(frozen=True)
class Line:
    """What stands in one column of one file. Sensitive.

    Attributes:
        where: The file, or the query.
        column: Its name.
        declared: As what it is declared.
        seen: What its values look like (`fedmodel.data.seen`).
        missing: Rows without a value.
        outside: Rows whose number is outside of the public range: used, and bounded where it is far outside.
        left_out: Rows whose record is left out for this column.
        refused: Rows for which a run refuses the table.
    """

    where: str
    column: str
    declared: str
    seen: str
    missing: int
    outside: int
    left_out: int
    refused: int

    def __repr__(self) -> str:
        return "Line(...)"


@dataclass(frozen=True)
class Findings:
    """Everything about one table. Sensitive.

    Attributes:
        lines: A line for each column of each file.
        found: What a person should know, in the order of files and columns.
        rows: How many rows there are.
        person_N: Whose each record is that a run has, as numbers alike where persons are.
        absent: Classes that are declared, and that no record has which a run has; none where it has no record.
    """

    lines: tuple[Line, ...]
    found: tuple[Finding, ...]
    rows: int
    person_N: NDArray[np.int64]
    absent: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether a run refuses the table."""
        return any(one.refuses for one in self.found)

    @property
    def records(self) -> int:
        """How many records a run has, before a unit's are capped."""
        return len(self.person_N)

    def __repr__(self) -> str:
        return "Findings(...)"


def inspect(config: TableConfig, source: TableSource) -> Findings:
    """Read a table as a run would, and return all that is to be said of it.

    Args:
        config: Declares the table.
        source: Where it lies, with absolute paths.

    Raises:
        ConfigError: When a package is missing, a database's account could write, or the silo's own file contradicts
            the scenario.
    """
    person = person_column(config, source)
    check_left_out(source, names_of(config))
    check_text(config, source)
    found: list[Finding] = []
    lines: list[Line] = []
    ids: list[str] = []
    rows = 0
    for place, part in _parts(source, found):
        table = _opened(config, part, place, found)
        if table is None:
            continue
        keep_N = np.ones(len(table), dtype=np.bool_)
        for name in table.column_names:
            reading = _reading(config, part, person, name)
            line, wrong, kept_N = _column(config, name, table[name], place, reading)
            lines.append(line)
            found += wrong
            keep_N &= kept_N
        rows += len(table)
        ids += _kept_ids(table, person, keep_N, rows)
    absent: tuple[str, ...] = ()
    if not any(one.refuses for one in found):
        try:
            absent = _absent(config, table_records(config, source))
        except DataError as error:
            found.append(Finding(str(error), settled_by(str(error), config.data_set)))
    numbers: dict[str, int] = {}
    person_N = np.array([numbers.setdefault(one, len(numbers)) for one in ids], dtype=np.int64)
    return Findings(tuple(lines), tuple(found), rows, person_N, absent)


def _absent(config: TableConfig, records: Records) -> tuple[str, ...]:
    """Return the classes that no record has; none of what is no classification, and of no record."""
    if config.time is not None or not isinstance(config.label, str) or not len(records):
        return ()
    there = set(np.unique(records.y_N).tolist())
    return tuple(name for label, name in enumerate(config.labels) if label not in there)


def _parts(source: TableSource, found: list[Finding]) -> Iterator[tuple[str, TableSource]]:
    """Yield each file of a source as a source, so that what is wrong with one keeps no other from being read."""
    if source.url is not None:
        yield f"{THE_QUERY} of {database_of(source)}", source
        return
    try:
        paths = files_of(source)
    except DataError as error:
        found.append(Finding(str(error), settled_by(str(error), "")))
        return
    for path in paths:
        kind = "parquet" if path.suffix.lower() == ".parquet" else "csv"
        yield str(path), source.model_copy(update={"csv": None, "parquet": None, "folder": None, kind: str(path)})


def _opened(config: TableConfig, part: TableSource, place: str, found: list[Finding]) -> pa.Table | None:
    """Return those of the declared columns that are there, None where nothing can be read, and say what is wrong."""
    columns = names_of(config)
    try:
        asked = _asked(config, part, columns)
        names = next(headers(part, columns))[1] if asked is None else asked.column_names
        for name in columns:
            try:
                check_names(names, (name,), place, part, others=True)
            except DataError as error:
                found.append(_of_table(config, error, place, name))
        others = tuple(name for name in names if name not in (*columns, *part.leave_out))
        if others and config.other_columns == "refuse":
            what = f"columns that are not declared by the scenario: {len(others)}"
            found.append(Finding(what, settled_by(what, config.data_set), where=place, values=others))
        there = tuple(name for name in columns if names.count(name) == 1)
        return asked.select(list(there)) if asked is not None else _read(config, part, there, len(names), found)
    except DataError as error:
        found.append(_of_table(config, error, place))
        return None


def _asked(config: TableConfig, part: TableSource, columns: tuple[str, ...]) -> pa.Table | None:
    """Return what a query gives, as a run asks it; None of a file."""
    if part.url is None:
        return None
    from fedmodel.data.databases import query

    return query(part, columns, others=config.other_columns == "refuse")


def _read(
    config: TableConfig, part: TableSource, there: tuple[str, ...], fields: int, found: list[Finding]
) -> pa.Table | None:
    """Return some columns of a file, None where it cannot be read, and say which rows keep it from being read."""
    path = Path(part.csv or part.parquet or "")
    try:
        return chosen(path, there, part)
    except DataError as error:
        wrong = _of_table(config, error, str(path))
        uneven, strange = ([], []) if part.csv is None else rows_in_the_way(path, part, fields)
        rows = strange if "is not text in" in wrong.what else uneven
        found.append(replace(wrong, rows=tuple(rows[:_NAMED]), count=len(rows)))
        return None


def _of_table(config: TableConfig, error: DataError, place: str, column: str | None = None) -> Finding:
    """Return a finding about a whole file, or about a column that is not there."""
    what = str(error).removeprefix(f"{place}: ").removeprefix(f"{THE_QUERY}: ")
    if column is not None:
        what = what.removeprefix(f"column {column!r} ")
    return Finding(what.partition("; ")[0], settled_by(what, config.data_set), where=place, column=column)


@dataclass(frozen=True)
class _Reading:
    """How one column is read: as what it is declared, with its choices, and whether it has a public range."""

    declared: str
    read: Read
    choices: tuple[str, ...] = ()
    has_range: bool = False


def _reading(config: TableConfig, part: TableSource, person: PersonColumn | None, name: str) -> _Reading:
    """Return how a column is read: as a run reads it."""
    reader = ColumnReader(name, part, part.tokenizer)
    if person is not None and name == person.column:
        return _Reading("id", lambda some, _: _ids(some, person.form))
    if name in config.predicted_as:
        return _Reading(
            "time" if name == config.time else "label",
            lambda some, keep: target(config, name, reader, some, keep, config.feature_bound),
            config.labels,
            config.label_range is not None,
        )
    column = next(one for one in config.columns if one.name == name)
    return _Reading(
        column.type,
        lambda some, keep: reader.features(column, some, keep, config.feature_bound),
        column.categories,
        column.range is not None,
    )


def _column(
    config: TableConfig, name: str, values: pa.ChunkedArray, place: str, reading: _Reading
) -> tuple[Line, list[Finding], NDArray[np.bool_]]:
    """Return a column's line, what is wrong with it, and which rows are kept for it."""
    result = read_apart(values, reading.read, _NAMED)
    found = [_of_values(config, broken, name, place, reading.choices) for broken in result.broken]
    given_N = values.is_valid().to_numpy() & result.keep_N
    outside = int((np.abs(result.x_N[given_N].astype(np.float64)) > _EDGE).sum()) if reading.has_range else 0
    refused = sum(one.count for one in found)
    unseen = any(broken.more for broken in result.broken)
    dropped = 0 if unseen else int((~result.keep_N).sum()) - refused
    seen = kind_seen(values)
    line = Line(place, name, reading.declared, seen, values.null_count, outside, dropped, refused)
    return line, found, result.keep_N


def _ids(some: pa.ChunkedArray, form: PersonForm) -> NDArray[np.generic]:
    """Read ids, and return nothing of them."""
    exact = NARROW.get(str(some.type), EXACT)
    normal_ids(some.slice(0, 0), form, "")  # of another type they are refused whole
    for value in some.to_pylist():
        if value is None:
            raise DataError("whose a record is, is missing; leave such records out")
        try:
            normal_id(value, form, exact)
        except DataError as error:
            raise DataError(f'an id {error} (form = "{form}")') from None
    return np.zeros(len(some))


def _of_values(config: TableConfig, broken: Broken, name: str, place: str, choices: tuple[str, ...]) -> Finding:
    """Return a finding about values that break one rule."""
    near = looks_like(broken.values, choices)
    more = " (and others, which were not looked at any more)" if broken.more else ""
    return Finding(
        broken.rule.partition("; ")[0] + near + more,
        settled_by(broken.rule, config.data_set),
        where=place,
        column=name,
        rows=tuple(int(row) + 1 for row in broken.row_N[:_NAMED]),
        count=len(broken.row_N),
        values=tuple(one for one in broken.values if one),
    )


def _kept_ids(table: pa.Table, person: PersonColumn | None, keep_N: NDArray[np.bool_], after: int) -> list[str]:
    """Return whose each kept record is; where nobody says, each is somebody else's."""
    import pyarrow as pa

    if person is None or person.column not in table.column_names:
        return [f"{after}/{row}" for row in np.flatnonzero(keep_N)]
    ids: list[str] = normal_ids(table[person.column].filter(pa.array(keep_N)), person.form, "").to_pylist()
    return ids
