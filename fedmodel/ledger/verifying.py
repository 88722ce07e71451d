"""Reading a ledger that may have been changed, and saying which entry is the first that is not as it was written.

Guarantee: the entries of a file that `verify_ledger` passes are what the holder of the key wrote by appending, and they
extend every head given. Entries, chain, signatures, totals, budgets and Merkle tree are recomputed; then the whole file
is built again from its entries, and compared, so that one flipped bit anywhere in it, whichever table, index or unused
corner it lies in, is refused.

Bytes that hold no entry are not compared while a process has the file open, nor where another version of SQLite says to
have written last, which may lay them out otherwise; `unused_compared` says so. Who rewrites both of the header's fields
about that can hide bytes there, and change nothing that is read.

Deleted newest entries leave a ledger that is whole: they are noticed by a head that was kept elsewhere, and by nothing
else. Without one, the answer says so.

Does NOT trust the file for the key: given none, it checks against the one that the first entry names, and says so. Does
NOT write to the file: one that nobody has open is read as it lies; one that is open, with SQLite's own locks beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from fedmodel.errors import FedmodelError, LedgerError, LedgerTampered
from fedmodel.ledger import merkle
from fedmodel.ledger.entries import Entry, origin_of
from fedmodel.ledger.heads import Head, open_head
from fedmodel.ledger.standing import Standing
from fedmodel.ledger.tables import APPLICATION, COLUMNS, PAGE_SIZE, SCHEMA, insert, prepare, sqlite_number

# Where SQLite's header counts changes and repeats the count; names what wrote it, which `user_version` repeats
# (https://sqlite.org/fileformat.html, section 1.3).
_MOST_LOOKS: Final = 10
Found = TypeVar("Found")
_COUNTER, _COUNTER_AGAIN = slice(24, 28), slice(92, 96)
_WRITER, _WRITER_AGAIN = slice(96, 100), slice(60, 64)
_VERSIONS, _KEEPS_A_LOG = slice(18, 20), b"\x02\x02"


@dataclass(frozen=True)
class Verified:
    """What a ledger was found to be.

    Attributes:
        standing: After all its entries.
        entries: All of them, oldest first.
        head: Size and root.
        heads: Sizes of the heads that it was found to extend.
        key_is_its_own: Whether the only key that vouches for it is the one that it names itself.
        unused_compared: Whether its unused bytes were compared too.
    """

    standing: Standing
    entries: tuple[Entry, ...]
    head: Head
    heads: tuple[int, ...]
    key_is_its_own: bool
    unused_compared: bool


def read_ledger(path: Path) -> Standing:
    """Return where a ledger stands by its entries, whose chain and order are checked, and nothing else.

    Raises:
        LedgerError: When the file is missing or is no ledger.
        LedgerTampered: When an entry cannot follow those before it.
    """
    return _steadily(path, _read)


def verify_ledger(
    path: Path, public: bytes | None = None, heads: Sequence[bytes] = (), *, unused: bool = True
) -> Verified:
    """Check everything about a ledger.

    Args:
        path: The file.
        public: The silo's key, from a source that is trusted.
        heads: Signed heads that others kept.
        unused: Compare bytes that hold no entry too.

    Raises:
        LedgerError: When the file is missing or is no ledger.
        LedgerTampered: When it is not as it was written; `sequence` is the first bad entry, where one is.
    """
    return _steadily(path, partial(_verify, public=public, heads=heads, unused=unused))


def ledger_image(path: Path) -> bytes:
    """Return the bytes of a ledger's file as of one moment, with what its write-ahead log holds, whoever appends to it.

    They are a ledger's file as this module verifies it; SQLite's own backup would change a counter in its header.

    Raises:
        LedgerError: When the file is missing or cannot be read.
    """
    return _steadily(path, lambda _, connection: connection.serialize())


def _read(_: Path, connection: sqlite3.Connection) -> Standing:
    standing = Standing()
    _check_schema(connection)
    for entry in _entries(connection):
        standing.apply(entry)
        standing.check_totals(entry)
    if standing.last is None:
        raise LedgerError("holds no entry, so it is no ledger")
    return standing


def _verify(
    path: Path, connection: sqlite3.Connection, public: bytes | None, heads: Sequence[bytes], unused: bool
) -> Verified:
    standing, entries = Standing(), []
    if heads and _holds_nothing(connection):
        raise LedgerTampered("all its entries are gone, and signed heads of them are kept", 1)
    _check_schema(connection)
    try:
        for entry in _entries(connection):
            standing.apply(entry)
            entry.check_signature(standing.key if public is None else public)
            standing.check_totals(entry)
            entries.append(entry)
    except sqlite3.Error as error:
        raise LedgerTampered(f"it cannot be read: {error}", len(entries) + 1) from error
    if not entries:
        raise LedgerTampered("holds no entry, so it is no ledger", 1)
    if public is not None and standing.key != public:
        raise LedgerTampered("it names another key than the silo's", 1)
    faults = [fault for (fault,) in connection.execute("PRAGMA integrity_check")]
    if faults != ["ok"]:
        raise LedgerTampered(f"the file is damaged: {str(faults[0]).splitlines()[-1]}")
    nodes = _check_nodes(connection, entries)
    sizes = tuple(_check_head(note, standing, nodes) for note in heads)
    _check_checkpoints(entries, nodes)
    compared = unused and _check_bytes(path, connection, entries, nodes)
    root = merkle.root(len(entries), lambda level, position: nodes[level, position])
    head = Head(origin_of(standing.silo), len(entries), root)
    return Verified(standing, tuple(entries), head, sizes, public is None, compared)


def _steadily(path: Path, look: Callable[[Path, sqlite3.Connection], Found]) -> Found:
    """Look at a file; once more if somebody wrote to it meanwhile, as what was found could be of two moments."""
    try:
        path = path.resolve()  # a write-ahead log lies beside the file, not beside a link to it
        if not path.is_file():
            raise LedgerError(f"{path}: no such ledger")
    except OSError as error:
        raise LedgerError(f"{path}: the ledger cannot be read: {error.strerror}") from error
    for _ in range(_MOST_LOOKS):
        before = _moment(path)
        try:
            with _opened(path) as connection, _named(path):
                return look(path, connection)
        except LedgerError:
            if _moment(path) == before:
                raise
    raise LedgerError(f"{path}: is written to all the time; verify it when it is not")


def _moment(path: Path) -> tuple[object, ...]:
    """Return what changes when a file, or the write-ahead log beside it, is written to."""
    found: list[object] = []
    for one in (path, path.with_name(path.name + "-wal")):
        try:
            status = one.stat()
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            found.append(None)
    return tuple(found)


def _check_head(note: bytes, standing: Standing, nodes: dict[tuple[int, int], bytes]) -> int:
    """Refuse a ledger that does not extend a signed head, and return its size."""
    head = open_head(note, origin_of(standing.silo), standing.key)
    if head.size > standing.size:
        raise LedgerTampered(
            f"its newest entries are gone: a signed head has {head.size}, and {standing.size} are left",
            standing.size + 1,
        )
    if merkle.root(head.size, lambda level, position: nodes[level, position]) != head.root:
        raise LedgerTampered(f"its first {head.size} entries are not those that a signed head is of")
    return head.size


def _check_schema(connection: sqlite3.Connection) -> None:
    """Refuse a file of other tables before any is read: one could be a query that never ends."""
    if _holds_nothing(connection):
        raise LedgerError("nothing was ever entered into it, so it is no ledger yet")
    if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION,):
        raise LedgerTampered("its header is not a ledger's")
    found = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")]
    if found != list(SCHEMA):
        raise LedgerTampered("its tables, indexes or triggers are not a ledger's")


def _holds_nothing(connection: sqlite3.Connection) -> bool:
    """Return whether a file is one into which nothing was entered: its process ended before, or all of it is gone."""
    asked = ("PRAGMA application_id", "SELECT count(*) FROM sqlite_schema")
    return all(connection.execute(sql).fetchone() == (0,) for sql in asked)


def _check_nodes(connection: sqlite3.Connection, entries: Sequence[Entry]) -> dict[tuple[int, int], bytes]:
    """Refuse a Merkle tree that is not that of the entries, and return it."""
    nodes: dict[tuple[int, int], bytes] = {}
    for entry in entries:
        leaf = merkle.leaf_hash(entry.document)
        made = merkle.new_nodes(entry.sequence - 1, leaf, lambda level, position: nodes[level, position])
        nodes.update({(level, position): value for level, position, value in made})
    found = {(level, position): value for level, position, value in connection.execute("SELECT * FROM nodes")}
    if found != nodes:
        bad = {at for at in nodes.keys() | found.keys() if nodes.get(at) != found.get(at)}
        # A node that no entry completes stands behind all of them.
        first = min((position + 1) << level if (level, position) in nodes else len(entries) for level, position in bad)
        raise LedgerTampered("a node of the Merkle tree that it completes is not what follows from the entries", first)
    return nodes


def _check_checkpoints(entries: Sequence[Entry], nodes: dict[tuple[int, int], bytes]) -> None:
    """Refuse an entry that says another head was given away than that of the entries before it."""
    for entry in entries:
        if entry.kind == "checkpoint":
            before = merkle.root(entry.sequence - 1, lambda level, position: nodes[level, position])
            if entry.content["root"] != before.hex():
                raise LedgerTampered("it says that another head was given than that of the entries", entry.sequence)


def _check_bytes(
    path: Path, connection: sqlite3.Connection, entries: Sequence[Entry], nodes: dict[tuple[int, int], bytes]
) -> bool:
    """Refuse a file that is not byte for byte what appending its entries makes.

    SQLite lays a file out by what is inserted, in order, whoever inserts it and in however many transactions.

    Returns:
        Whether that could be compared: another version of SQLite may lay a file out otherwise.
    """
    found = connection.serialize()
    if _is_open(path):
        return False
    if path.stat().st_size != len(found):
        raise LedgerTampered("the file is longer than what is in it")
    if found[_COUNTER] != found[_COUNTER_AGAIN] or found[_WRITER] != found[_WRITER_AGAIN]:
        raise LedgerTampered("its header contradicts itself")
    again = sqlite3.connect(":memory:", isolation_level=None)  # no disk that is full can make it look changed
    try:
        again.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        again.execute("BEGIN")
        prepare(again)
        for entry in entries:
            insert(again, entry, lambda level, position: nodes[level, position])
        again.execute("COMMIT")
        expected = bytearray(again.serialize())
    finally:
        again.close()
    expected[_VERSIONS] = _KEEPS_A_LOG  # what is in memory keeps none
    written, ours = int.from_bytes(found[_WRITER], "big"), sqlite_number()
    if _without_counters(found) == _without_counters(expected):
        return True
    if written != ours:
        return False
    place = next(
        (at for at, (one, other) in enumerate(zip(_without_counters(found), _without_counters(expected), strict=False))
         if one != other),
        min(len(found), len(expected)),
    )  # fmt: skip
    raise LedgerTampered(f"no entry is changed, but byte {place} of the file, which holds none, is")


def _without_counters(image: bytes | bytearray) -> bytes:
    """Return a file's bytes without the four fields that each differ between two files of the same content."""
    blanked = bytearray(image)
    for field in (_COUNTER, _COUNTER_AGAIN, _WRITER, _WRITER_AGAIN):
        blanked[field] = bytes(4)
    return bytes(blanked)


def _entries(connection: sqlite3.Connection) -> Iterator[Entry]:
    """Yield the rows, in order, as they are: their types are part of what the signature covers."""
    for row in connection.execute(f"SELECT {', '.join(COLUMNS)} FROM entries ORDER BY sequence"):  # noqa: S608 - constants
        yield Entry(*row)


def _is_open(path: Path) -> bool:
    """Return whether a write-ahead log holds part of the file: somebody has it open, or was killed with it open."""
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for reading alone, and leave nothing beside it."""
    if not path.is_file():
        raise LedgerError(f"{path}: no such ledger")
    # Without a write-ahead log nobody has it open, and SQLite needs none beside it either.
    mode = "mode=ro" if _is_open(path) else "mode=ro&immutable=1"
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, timeout=30, isolation_level=None)
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        _check_reads(path, error)
        raise LedgerTampered(f"{path}: the file cannot be read as a ledger: {error}") from error


def _check_reads(path: Path, found: Exception) -> None:
    """Refuse to say anything about a file that the system does not read, rather than that it was changed."""
    try:
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass
    except OSError as error:
        raise LedgerError(f"{path}: the ledger cannot be read: {error.strerror}") from error
    if getattr(found, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        raise LedgerError(f"{path}: the ledger cannot be read: {found}") from found


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say in which file something was found."""
    try:
        yield
    except LedgerTampered as error:
        raise error.inside(path) from error
    except LedgerError as error:
        raise LedgerError(f"{path}: {error}") from error
    except FedmodelError as error:
        raise LedgerTampered(f"{path}: {error}") from error
