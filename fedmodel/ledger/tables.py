"""A ledger's SQLite file: its tables, what they refuse by themselves, and how an entry and its node are inserted."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fedmodel.errors import LedgerError
from fedmodel.ledger import merkle
from fedmodel.ledger.entries import KINDS, Entry

APPLICATION: Final = 0x464D4C47  # "FMLG", in the file's header
PAGE_SIZE: Final = 4096
COLUMNS: Final = (
    "sequence", "time", "scope", "run", "round", "kind", "key", "body", "cap", "reserved", "spent", "previous",
    "signature",
)  # fmt: skip
INSERT_ENTRY: Final = f"INSERT INTO entries VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - of constants
INSERT_NODE: Final = "INSERT INTO nodes VALUES (?, ?, ?)"
_KINDS = ", ".join(f"'{kind}'" for kind in KINDS)
SCHEMA: Final = (
    f"""CREATE TABLE entries (
    sequence  INTEGER PRIMARY KEY,
    time      TEXT NOT NULL,
    scope     TEXT,
    run       TEXT,
    round     INTEGER,
    kind      TEXT NOT NULL CHECK (kind IN ({_KINDS})),
    key       TEXT UNIQUE,
    body      TEXT NOT NULL,
    cap       INTEGER NOT NULL,
    reserved  INTEGER NOT NULL CHECK (reserved <= cap),
    spent     INTEGER NOT NULL CHECK (0 <= spent AND spent <= reserved),
    previous  BLOB NOT NULL CHECK (length(previous) = 32),
    signature BLOB NOT NULL CHECK (length(signature) = 64)
) STRICT""",
    "CREATE INDEX entries_of_run ON entries (run, kind)",
    "CREATE INDEX entries_of_scope ON entries (scope, kind)",
    """CREATE TABLE nodes (
    level    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    hash     BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, position)
) STRICT, WITHOUT ROWID""",
    """CREATE TRIGGER entries_follow BEFORE INSERT ON entries
WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM entries)
OR EXISTS (SELECT 1 FROM entries WHERE key = NEW.key)
BEGIN SELECT RAISE(ABORT, 'an entry follows the newest one, under a key of its own'); END""",
    # Without it, INSERT OR REPLACE would delete what is there, and no trigger of a DELETE would see it.
    """CREATE TRIGGER nodes_are_new BEFORE INSERT ON nodes
WHEN EXISTS (SELECT 1 FROM nodes WHERE level = NEW.level AND position = NEW.position)
BEGIN SELECT RAISE(ABORT, 'a ledger is only appended to'); END""",
    *(
        f"CREATE TRIGGER {table}_never_{verb.lower()} BEFORE {verb} ON {table}\n"
        "BEGIN SELECT RAISE(ABORT, 'a ledger is only appended to'); END"
        for table in ("entries", "nodes")
        for verb in ("UPDATE", "DELETE")
    ),
)


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables of a ledger."""
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    for statement in SCHEMA:
        connection.execute(statement)


def insert(connection: sqlite3.Connection, entry: Entry, node: merkle.Node) -> None:
    """Write an entry, and the nodes of the Merkle tree that it completes.

    The file's `user_version` repeats the SQLite that wrote last, so that no byte of the header stands alone.
    """
    connection.execute(f"PRAGMA user_version = {sqlite_number()}")
    connection.execute(INSERT_ENTRY, [getattr(entry, column) for column in COLUMNS])
    leaf = merkle.leaf_hash(entry.document)
    connection.executemany(INSERT_NODE, merkle.new_nodes(entry.sequence - 1, leaf, node))


def sqlite_number() -> int:
    """Return the version of SQLite as it writes it into headers."""
    major, minor, patch = sqlite3.sqlite_version_info
    return major * 1_000_000 + minor * 1_000 + patch


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Say which ledger could not be used, and why."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        is_full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        why = os.strerror(errno.ENOSPC) if is_full else error  # as everything else says it
        raise LedgerError(f"{path}: the ledger cannot be used: {why}; nothing was released") from error
    except OSError as error:
        raise LedgerError(f"{path}: the ledger cannot be used: {error.strerror}; nothing was released") from error
