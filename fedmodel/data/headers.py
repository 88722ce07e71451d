"""Whether a source has the columns that are declared, told by its header alone.

Guarantee: what `check_columns` says is a function of what is declared, of the silo's own file, and of the names of the
source's columns: of a CSV its first line, of Parquet its schema, of a query what it would give. No record is read, so
the answer hangs on no value and not on how many records there are; there may be none. So it may be told to a server
as "ready" or "not ready", where an error of `fedmodel.data.tables` may not.

| Source  | What is read                                                                                |
|---------|---------------------------------------------------------------------------------------------|
| CSV     | its bytes up to the end of its first line that is not empty; what cannot be decoded in that |
|         | line refuses it, and what cannot behind it does not. A header over several lines is refused |
| Parquet | the schema in its footer                                                                    |
| folder  | each of its files                                                                           |
| query   | the database is asked for no row of it                                                      |

Does NOT say that a run can read the table: a value may be none of its column's (`fedmodel.data.findings`). A database
may answer a query with no row, and fail at one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fedmodel.config import CsvForm, TableSource
from fedmodel.data.csv_forms import check_begin, check_header
from fedmodel.data.sources import (
    THE_QUERY,
    check_left_out,
    check_names,
    checked_file,
    database_of,
    files_of,
    is_parquet,
)
from fedmodel.errors import DataError
from fedmodel.kinds.sources.table import TableConfig

_BEGIN: Final = 1 << 10


def check_columns(config: TableConfig, source: TableSource, columns: tuple[str, ...]) -> None:
    """Refuse a source that cannot be opened, or has other columns than are declared.

    Args:
        config: Declares the table.
        source: Where it lies, with absolute paths.
        columns: Names of the columns that are declared.

    Raises:
        ConfigError: When a package is missing, a database's account could write, or a declared column is left out.
        DataError: When it cannot be opened, or has other columns than it may.
    """
    check_left_out(source, columns)
    for where, found in headers(source, columns):
        check_names(found, columns, where, source, others=config.other_columns == "ignore")


def headers(source: TableSource, columns: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """Yield the names of a source's columns, a file at a time, each with where it is from.

    Raises:
        ConfigError: When a package is missing, or a database's account could write.
        DataError: When it cannot be opened.
    """
    if source.url is not None:
        from fedmodel.data.databases import names

        try:
            yield THE_QUERY, names(source)
        except DataError as error:
            raise DataError(f"{database_of(source)}: {error}") from None
        return
    for path in files_of(source):
        yield str(path), _of_file(path, columns, source)


def _of_file(path: Path, columns: tuple[str, ...], form: CsvForm) -> list[str]:
    """Return the names of a file's columns."""
    from pyarrow import parquet

    with checked_file(path, lambda: "does not begin with a header that can be read"):
        if is_parquet(path):
            with parquet.ParquetFile(path) as file:
                found: list[str] = file.schema_arrow.names
        else:
            found = _of_csv(path, form)
            check_header(found, columns, form)
    return found


def _of_csv(path: Path, form: CsvForm) -> list[str]:
    """Return the names in a CSV's header, split as the reader of its records splits it."""
    from pyarrow import csv

    with path.open("rb") as file:
        begin = file.read(_BEGIN)
    check_begin(begin)
    with path.open(encoding=form.encoding, errors="replace", newline="") as text:
        line = next((line for line in text if line.strip("\ufeff\r\n")), "").strip("\r\n")
    if "\ufffd" in line:
        raise DataError(f'is not text in {form.encoding.upper()}; declare its encoding, as in encoding = "cp1252"')
    if line.count('"') % 2:
        raise DataError("has a header with a quotation mark that is not closed on its line")
    header = csv.read_csv(
        io.BytesIO((line + "\n").encode("utf-8", "surrogatepass")),
        parse_options=csv.ParseOptions(delimiter=form.separator),
    )
    names: list[str] = header.column_names
    return names
