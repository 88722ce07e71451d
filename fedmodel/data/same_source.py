"""Whether two tables of one silo are the same source, by what lies there now.

Guarantee: `check_sources` passes only where no file that one budget's tables are read from is, at that moment, a file
that another budget's are: by whatever path, through symbolic or hard links, alone or in a folder, or as a copy of the
same bytes. It is called before anything is charged and again once a table was read, since a file can be put in place
of another meanwhile. Of a folder of images, IDX files or JSON lines those files count that can be read as such by their
names, in whatever folder in it, and listings that end in .csv. Where a folder lists such a file and it cannot be looked
at, nothing passes.

`marks` says by what a source is known again later, under another name: `clients.sources` keeps that in the ledger.

Of a folder with more than 256 files that are no tables, 256 are remembered, chosen by what they hold. One that lies
elsewhere later is known again by those of them that it has, whatever it and they are called: with a fiftieth of the
files, by five or so.

Does NOT see a copy of which one byte is another, or an export in another format; of a folder of other files, each file
by itself is such a copy. The silo's own people know these, and `docs/silo.md` says what to do.

Cost: a look at each file of the silo's tables; the content is read of files alone that are of exactly one size. What is
to be remembered of a folder with more than 256 files is chosen by a look at the beginning of each.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedmodel.config import SiloFile, TableSource
from fedmodel.config.same_source import (
    address_of,
    path_of,
    query_of,
    same_by_text,
    same_query,
    two_budgets,
)
from fedmodel.config.tables import POSTGRESQL
from fedmodel.data.files import may_hold_records
from fedmodel.data.sources import is_table, listed, walked
from fedmodel.errors import DataError, PolicyRefused

_END: Final = 65_536  # bytes at each end of a file
_BEGIN: Final = 4_096  # bytes of each file of a large folder, by which those that are remembered are chosen
_MOST_REMEMBERED: Final = 256  # of a folder of files that are no tables, of which there may be a hundred thousand
MARKS_OF_FILES: Final = 1 + 2 * _MOST_REMEMBERED
"""How many marks such a folder has at most: one of itself, and two of each file that is remembered."""


@dataclass(frozen=True, order=True)
class _File:
    """A file of a table, and which it is for the file system."""

    table: str
    path: Path
    place: tuple[int, int]
    size: int


def check_sources(law: SiloFile, home: Path) -> None:
    """Refuse to act where one source would be charged to two budgets.

    Args:
        law: The silo's own.
        home: The folder of `silo.toml`, from which relative paths begin.

    Raises:
        PolicyRefused: Which tables, and in which way they are the same.
        DataError: When a file cannot be looked at, so that nobody can tell.
    """
    tables = {name: source.under(home) for name, source in law.tables.items() if law.budget_name(name) is not None}
    for one, other in itertools.combinations(tables, 2):
        if law.budget_name(one) != law.budget_name(other) and (way := same_by_text(tables[one], tables[other])):
            raise PolicyRefused(two_budgets(one, other, way))
    files = [file for name, source in tables.items() for file in _files(name, source)]
    for way, alike in _alike(files):
        for one_file, other_file in itertools.combinations(alike, 2):
            one, other = one_file.table, other_file.table
            if law.budget_name(one) == law.budget_name(other):
                continue
            if tables[one].database and tables[other].database:
                said = same_query(tables[one], tables[other])
            else:
                said = f"{way}, {one_file.path} and {other_file.path}"
            if said is not None:
                raise PolicyRefused(two_budgets(one, other, said))


def marks(source: TableSource) -> tuple[list[bytes], list[bytes]]:
    """Return what is to be remembered of a source, so that it is known again under another name.

    Args:
        source: With absolute paths.

    Returns:
        Where it lies, what its files begin and end with, and its query; and those of them that no other budget may
        have: all, or the query alone where its silo's word is that it is disjoint from others. Sensitive: by them,
        whoever has a file could tell that it was read.
    """
    found: list[tuple[str, ...]] = []
    if (place := path_of(source)) is not None:
        found.append(("path", str(Path(place).resolve())))
        for file in _remembered(source):
            found.append(("path", str(file.path.resolve())))
            if file.size and _holds_records(file.path):
                found.append(("content", str(file.size), _ends(file)))
    if source.database == POSTGRESQL:
        found.append(("database", *address_of(source)))
    own = [("query", *found[0], query_of(source))] if source.database else []
    everything = [json.dumps(mark).encode() for mark in dict.fromkeys([*found, *own])]
    return everything, [json.dumps(mark).encode() for mark in own] if source.disjoint else everything


def _remembered(source: TableSource) -> list[_File]:
    """Return the files of a source that are remembered: all of a table's; of other files the first by a digest.

    The digest is of what files hold, and of no name, so that two folders with some files in common choose these alike:
    of a folder that has a share of another's files, about that share of these is chosen in both. Those that begin
    alike are told apart by their ends, and of copies one is chosen.
    """
    files = list(_files("", source))
    if source.files is None or len(files) <= _MOST_REMEMBERED:
        return files
    found: dict[tuple[int, str], _File] = {}
    for _, alike in itertools.groupby(sorted((_begins(one), one) for one in files), operator.itemgetter(0)):
        for key, file in sorted(((one.size, _ends(one)), one) for _, one in alike):
            found.setdefault(key, file)
        if len(found) >= _MOST_REMEMBERED:
            break
    return list(found.values())[:_MOST_REMEMBERED]


def _begins(file: _File) -> bytes:
    """Return a digest of a file's size and of what it begins with."""
    return hashlib.sha256(b"%d " % file.size + _read(file.path, 0, _BEGIN)).digest()


def _ends(file: _File) -> str:
    """Return a digest of a file's beginning and end: two files that agree in them and in size are copies."""
    begin, end = (_read(file.path, at, _END) for at in (0, max(0, file.size - _END)))
    return hashlib.sha256(begin + end).hexdigest()


def _read(path: Path, at: int, size: int) -> bytes:
    """Return a part of a file."""
    try:
        with path.open("rb") as opened:
            opened.seek(at)
            return opened.read(size)
    except OSError as error:
        raise _unseen(path, error) from None


def _files(name: str, source: TableSource) -> Iterator[_File]:
    """Yield the files that a table would be read from now; none where there are none yet."""
    if (said := path_of(source)) is None:
        return
    place = Path(said)
    try:
        paths = _paths(source, place)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unseen(place, error) from None
    for path in paths:
        try:
            found = path.stat()
        except OSError as error:
            if path == place and isinstance(error, FileNotFoundError | NotADirectoryError):
                return
            raise _unseen(path, error) from None  # a folder listed it, so that it is something
        yield _File(name, path, (found.st_dev, found.st_ino), found.st_size)


def _paths(source: TableSource, place: Path) -> list[Path]:
    """Return the files of a table by their paths; of a folder of others those that a reader takes, and listings."""
    if source.files is not None:
        found = walked(place) if place.exists() else []
        return [one for one in found if may_hold_records(one) or (is_table(one) and not one.name.startswith("."))]
    return listed(place) if source.folder else [place]


def _alike(files: list[_File]) -> Iterator[tuple[str, list[_File]]]:
    """Yield files that are one, or copies of one, with a word for it; of tables of two names or more."""
    by_size: dict[int, list[_File]] = {}
    for file in files:
        by_size.setdefault(file.size, []).append(file)
    for size, alike in by_size.items():
        if len({file.table for file in alike}) < 2:
            continue
        by_place: dict[tuple[int, int], list[_File]] = {}
        for file in alike:
            by_place.setdefault(file.place, []).append(file)
        yield from (("one file", group) for group in by_place.values())
        by_content: dict[bytes, list[_File]] = {}
        for file in alike:
            if size and _holds_records(file.path):
                by_content.setdefault(_digest(file.path), []).append(file)
        yield from (("copies of one file", group) for group in by_content.values())


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise _unseen(path, error) from None


def _holds_records(path: Path) -> bool:
    """Return whether a file is more than the header of a CSV, which tables of one schema may have alike."""
    if path.suffix.lower() != ".csv":
        return True
    try:
        with path.open("rb") as file:
            return any(line.strip() for line in itertools.islice(file, 1, None))
    except OSError as error:
        raise _unseen(path, error) from None


def _unseen(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: cannot be read ({error.strerror}), so that nobody can tell whether it is another table's file too"
    )
