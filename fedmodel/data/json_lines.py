"""Text from files of JSON lines: an object in each line (`fedmodel.data.texts` says what becomes of it)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fedmodel.data.fields import Told, object_of, text_of
from fedmodel.data.places import At
from fedmodel.data.reading import Reading
from fedmodel.data.taken import Taken
from fedmodel.data.texts import taken_of
from fedmodel.data.whose import Whose
from fedmodel.kinds.sources.json_lines import JsonLinesConfig


def read_json_lines(config: JsonLinesConfig, folder: Path, reading: Reading) -> Taken:
    """Return the texts of all `*.jsonl` of a folder, in the order of files and lines. Sensitive.

    Raises:
        DataError: Which line of which file breaks which rule; never what stands there.
    """
    return taken_of(config, lines_told(folder, reading), reading, folder)


def lines_told(folder: Path, reading: Reading) -> Iterator[Told]:
    """Yield the lines that are read; of one that is not for whose it is nothing else is looked at. Sensitive.

    Raises:
        DataError: Which line of which file is no object, or does not say whose it is.
    """
    for path in line_files(folder):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                told = None
                if line.strip():
                    with reading.record():
                        told = _told(line, At(path, number), reading.whose)
                if told is not None:
                    yield told


def _told(line: bytes, at: At, whose: Whose) -> Told | None:
    """Return what a line says, None where it is not to be read."""
    found, person = object_of(line, at), ""
    if whose.column is not None:
        known = whose.of(text_of(found, whose.column, at), at)
        if known is None:
            return None
        person = known
    return Told(found, person, at)


def line_files(folder: Path) -> list[Path]:
    """Return the files that `read_json_lines` reads, in order: none of a folder in this one."""
    return sorted(path for path in folder.iterdir() if is_lines(path) and path.is_file())


def is_lines(path: Path) -> bool:
    """Return whether a file is one of JSON lines by its name."""
    return path.suffix.lower() == ".jsonl" and not path.name.startswith(".")
