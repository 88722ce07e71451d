"""Where records come from: a CSV or Parquet file, a folder of both, or a query (`fedmodel.data.databases`).

Of a folder of other files this says which there are, and `fedmodel.data.files` reads them.

What comes out is columns as the source has them, in the source's order: of a file its own; of a folder that of the
names of its files; of a query none that can be relied on, so `fedmodel.data.tables` puts its records into one.

What the readers say in their own errors quotes lines and values. None of it is passed on: an error from here names the
file, by the path that the silo's own file gave, and the rule.

Nothing is written: neither pyarrow nor the databases here keep a temporary file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fedmodel.config import CsvForm, TableSource
from fedmodel.config.same_source import address_of
from fedmodel.config.tables import SQLITE
from fedmodel.data.csv_forms import almost, check_begin, check_header, why_no_csv
from fedmodel.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

THE_QUERY = "the query"
_KINDS = (".csv", ".parquet")
_LONGEST_HEADER = 1 << 16


def tables(source: TableSource, columns: tuple[str, ...], *, others: bool = False) -> Iterator[tuple[str, pa.Table]]:
    """Yield the source's columns, a file at a time, each with where it is from: a path, or "the query". Sensitive.

    Args:
        source: With absolute paths.
        columns: Names of the columns that are declared; the source must have these.
        others: Whether it may have others, which are not looked at. Those that the silo's own file leaves out it may
            have in any case.

    Raises:
        ConfigError: When a package is missing, a database's account could write, or a declared column is left out.
        DataError: When it cannot be read, or has other columns than it may.
    """
    check_left_out(source, columns)
    if source.url is not None:
        from fedmodel.data.databases import query

        try:
            found = query(source, columns, others=not others)
            check_names(found.column_names, columns, THE_QUERY, source, others=others)
        except DataError as error:
            raise DataError(f"{database_of(source)}: {error}") from None
        yield THE_QUERY, found.select(list(columns))
        return
    for path in files_of(source):
        found = _file(path, columns, source)
        check_names(found.column_names, columns, str(path), source, others=others)
        yield str(path), found.select(list(columns))


def database_of(source: TableSource) -> str:
    """Return which database a query asks, without who asks."""
    if source.database == SQLITE:
        return source.sqlite_path
    host, _, name = address_of(source)
    return f"database {name!r} at {host or 'this machine'}"


def column(source: TableSource, name: str) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield one column of a source, whatever others it has, as `tables` does. Sensitive.

    Raises:
        ConfigError: When a package is missing, or a database's account could write.
        DataError: When it cannot be read, or has no such column.
    """
    if source.url is not None:
        from fedmodel.data.databases import query

        found = [(THE_QUERY, query(source, (name,)))]
    else:
        found = [(str(path), _file(path, (name,), source)) for path in files_of(source)]
    for where, table in found:
        if table.column_names.count(name) != 1:
            raise DataError(f"{where}: has no column {name!r}, or two; it must be there under this very name")
        yield where, table[name]


def chosen(path: Path, names: tuple[str, ...], form: CsvForm) -> pa.Table:
    """Return some columns of a file, whatever others it has; a CSV's as text. Sensitive.

    Raises:
        ConfigError: When a package is missing.
        DataError: When it cannot be read, or lacks one of them, or has it twice.
    """
    table = _file(path, names, form)
    for name in names:
        _is_there_once(name, table.column_names, str(path))
    return table.select(list(names))


def identity(source: TableSource, run: str = "") -> bytes:
    """Return 32 bytes that differ when what the source would give may differ.

    Args:
        source: Where it lies.
        run: The run. A database does not say when it changed, so what a query gives is of one run.

    Raises:
        DataError: When a file is not there.
    """
    files = [] if source.url is not None else [[str(path), *_stamp(path)] for path in files_of(source)]
    said = [source.model_dump(mode="json"), files, "" if source.url is None else run]
    return hashlib.sha256(json.dumps(said).encode()).digest()


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what of a file changes when it does; the time of its last change cannot be set back by its owner."""
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def files_of(source: TableSource) -> list[Path]:
    """Return the files to read, in order."""
    if source.files is not None:
        return walked(Path(source.files))
    if source.folder is None:
        return [Path(source.csv or source.parquet or "")]
    folder = Path(source.folder)
    try:
        found = listed(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    if not found:
        raise DataError(f"{folder}: has no file that ends in .csv or .parquet")
    return found


def walked(folder: Path) -> list[Path]:
    """Return every file of a folder and of the folders in it, in the order of their names.

    Raises:
        DataError: When it is no folder, cannot be read, or a folder in it is a link, behind which nobody would look.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    found: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=_unread):
        for name in folders:
            if Path(place, name).is_symlink():
                raise DataError(f"{Path(place, name)}: is a link to a folder; lay the files themselves there")
        found += [Path(place, name) for name in files]
    return sorted(found)


def _unread(error: OSError) -> NoReturn:
    """Refuse a folder of which a part cannot be looked into: what lies there would be nobody's."""
    raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None


def listed(folder: Path) -> list[Path]:
    """Return the files of a folder that are read, in order."""
    return sorted(path for path in folder.iterdir() if is_table(path) and path.is_file())


def is_table(path: Path) -> bool:
    """Return whether a file is one of a table by its name."""
    return path.suffix.lower() in _KINDS


def _file(path: Path, columns: tuple[str, ...], form: CsvForm) -> pa.Table:
    """Read a file; a CSV's declared columns as text."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    with checked_file(path, lambda: why_no_csv(path, columns, form)):
        if is_parquet(path):
            with parquet.ParquetFile(path) as file:
                return file.read()
        table = csv.read_csv(
            _whole_lines(path, form),
            read_options=csv.ReadOptions(encoding=form.encoding),
            parse_options=csv.ParseOptions(newlines_in_values=True, delimiter=form.separator),
            convert_options=csv.ConvertOptions(
                column_types={name: pa.large_string() for name in columns},
                strings_can_be_null=True,
                null_values=["", *form.missing_values],
            ),
        )
        check_header(table.column_names, columns, form)
    return table


def is_parquet(path: Path) -> bool:
    """Return whether a file is read as Parquet, which its name says."""
    return path.suffix.lower() == ".parquet"


@contextmanager
def checked_file(path: Path, why: Callable[[], str]) -> Iterator[None]:
    """Refuse what is not a file, and say of what goes wrong with one its path and a rule, and nothing that is in it.

    Args:
        path: Of the file.
        why: Says why it is no CSV, as the end of a sentence about it.

    Raises:
        DataError: With the path and the rule.
    """
    import pyarrow as pa

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError("is not a file")
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (pa.ArrowException, ValueError):
        # Their words quote the line.
        raise DataError(f"{path}: {'is not a Parquet file' if is_parquet(path) else why()}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or 'it is damaged'}") from None


def _whole_lines(path: Path, form: CsvForm) -> str | io.BytesIO:
    """Return a CSV to read; a header alone without the end of a line, which pyarrow takes for no CSV, gets one.

    Raises:
        DataError: When the file is of another kind, or empty.
    """
    with path.open("rb") as file:
        begin = file.read(_LONGEST_HEADER + 1)
    check_begin(begin)
    end = "\n".encode(form.encoding.lower().removesuffix("-sig"))
    if len(begin) > _LONGEST_HEADER or b"\n" in begin or b"\r" in begin:
        return str(path)
    return io.BytesIO(begin + end)


def check_left_out(source: TableSource, columns: tuple[str, ...]) -> None:
    """Refuse to leave a declared column out.

    Raises:
        ConfigError: Which.
    """
    for name in source.leave_out:
        if name in columns:
            raise ConfigError(f"leave_out names column {name!r}, which the scenario declares; take it out of leave_out")


def check_names(found: list[str], columns: tuple[str, ...], where: str, source: TableSource, *, others: bool) -> None:
    """Refuse a source that lacks a declared column, or has others than it may.

    Such a one is not named: a file without a header has values there.

    Raises:
        DataError: Which rule it breaks.
    """
    for name in columns:
        _is_there_once(name, found, where)
    if not others and any(name not in columns and name not in source.leave_out for name in found):
        raise DataError(
            f"{where}: has a column that the scenario does not declare; leave it out of the source, or name it under"
            ' leave_out in the silo\'s own file, or let the scenario say other_columns = "ignore". Declared are'
            f" {', '.join(columns)}"
        )


def _is_there_once(name: str, found: list[str], where: str) -> None:
    """Refuse a source that lacks a column, or has it twice."""
    if name not in found:
        raise DataError(
            f"{where}: column {name!r} is missing; it must be there under this very name{almost(name, found)}"
        )
    if found.count(name) > 1:
        raise DataError(f"{where}: column {name!r} is there twice")
