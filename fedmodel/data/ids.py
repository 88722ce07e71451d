"""The ids in a party's own source, for its own eyes: who is looked for, and whose ids look like another's.

No scenario is needed for it: a table has a column, and in a folder of files the field of that name is looked for in
each line of each `*.jsonl`, the column in each listing (a CSV with a column `file`), and in a saved data set. So a
folder's ids are found under every scenario that reads it by that field.

Does NOT find the id of a record that a scenario reads by another name, nor one in a line that is no object: such a file
is not read at all, and nobody knows then who is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fedmodel.config import PersonColumn, TableSource
from fedmodel.data import saved
from fedmodel.data.fields import object_of, text_of
from fedmodel.data.files import guarded
from fedmodel.data.images import listing_rows
from fedmodel.data.json_lines import line_files
from fedmodel.data.persons import normal_ids
from fedmodel.data.places import At
from fedmodel.data.sources import column
from fedmodel.data.whose import Whose
from fedmodel.errors import DataError


def ids_in(source: TableSource, person: PersonColumn) -> Iterator[tuple[str, str]]:
    """Yield the normal form of the id of each record of a source, with where it stands. Sensitive.

    Args:
        source: With absolute paths.
        person: By which column, and in which form.

    Raises:
        ConfigError: When a package is missing, or a database's account could write.
        DataError: When the source cannot be read, says of no record whose it is, or has an id that its form does not
            admit.
    """
    if source.files is not None:
        folder = Path(source.files)
        yield from guarded(folder, lambda: list(_of_folder(folder, person)))
        return
    for where, values in column(source, person.column):
        for row, normal in enumerate(normal_ids(values, person.form, where).to_pylist(), start=1):
            yield normal, f"row {row} of {where}"


def _of_folder(folder: Path, person: PersonColumn) -> Iterator[tuple[str, str]]:
    """Yield the ids of all files of a folder that say whose a record is."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    places, whose = 0, Whose(person.column, person.form)
    for path in line_files(folder):
        places += 1
        yield from _of_lines(path, whose)
    for path in sorted(folder.glob("*.csv")):
        if _is_listing(path, person.column):
            places += 1
            yield from _of_listing(path, whose)
    if (folder / saved.STATE).exists():
        for path in saved.saved_files(folder):
            places += 1
            for row, normal in enumerate(saved.ids_of(path, person), start=1):
                yield normal, str(At(path, row, "row"))
    if not places:
        raise DataError(
            f"{folder}: has no *.jsonl, no listing with a column {person.column!r} and no saved data set, so nothing"
            " says whose its records are"
        )


def _of_lines(path: Path, whose: Whose) -> Iterator[tuple[str, str]]:
    """Yield the ids of a file of JSON lines."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                at = At(path, number)
                normal = whose.of(text_of(object_of(line, at), str(whose.column), at), at)
                if normal is not None:
                    yield normal, str(at)


def _is_listing(path: Path, name: str) -> bool:
    """Return whether a CSV is a listing that says whose an image is."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = [one.strip().strip('"') for one in file.readline().split(",")]
    return "file" in header and name in header


def _of_listing(path: Path, whose: Whose) -> Iterator[tuple[str, str]]:
    """Yield the ids of a listing of images."""
    for at, line in listing_rows(path, whose.column):
        normal = whose.of(line[str(whose.column)] or "", at)
        if normal is not None:
            yield normal, str(at)
