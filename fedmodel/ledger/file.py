"""The file: entries in SQLite, appended under one lock, synced before anything is told, with a signed head kept apart.

Guarantee: when what appends returns, its entry is on disk (write-ahead log, `synchronous=FULL`), so that a crash
afterwards can lose a release but never the record of one; inside `fedmodel.system.durable.synced_together`, when that
block ends. Whichever processes append at once, each entry follows
the one before (`BEGIN IMMEDIATE`), and a scope's totals stay within its cap: `fedmodel.ledger.standing` decides, and
CHECKs and triggers of the file refuse what a fault in that would let pass. Nothing is ever updated or deleted.

The head, a signed note with size and root of the Merkle tree, is written beside the silo's keys after every entry. A
ledger that does not extend it, because rows were deleted, or last week's backup was put back, is not opened. Whoever
puts both back is noticed by whoever else keeps a head: the server gets one each round.

Does NOT protect against whoever has the silo's key and can write all its files, and meets nobody who keeps a head. Does
NOT re-read every entry when it is opened, which would make each round slower than the last: `verify_ledger` does, and
a silo calls it once a run.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from fedmodel.crypto import SigningKey, random_bytes
from fedmodel.errors import LedgerError, LedgerTampered, ProtocolError
from fedmodel.ledger import clock, merkle
from fedmodel.ledger.entries import NOTHING_BEFORE, Entry, Kind, entry_of, genesis, origin_of
from fedmodel.ledger.head_file import HeadFile
from fedmodel.ledger.heads import Head, Proven, open_head, sign_head
from fedmodel.ledger.standing import Standing
from fedmodel.ledger.tables import APPLICATION, COLUMNS, PAGE_SIZE, insert, prepare, sqlite_errors
from fedmodel.system.counts import counted
from fedmodel.system.durable import is_put_off, put_off

_SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM entries"  # noqa: S608 - of constants
_LOCK_S: Final = 30
_WAY_OUT: Final = (
    "if a backup was put back, put the newest file in its place; if that is lost, what it had spent is unknown, so the"
    " data set's budget counts as spent, and a person decides on a new kit and a new budget"
)


@dataclass(frozen=True)
class Draft:
    """An entry before its place is known."""

    kind: Kind
    body: str
    scope: str | None = None
    run: str | None = None
    round: int | None = None
    key: str | None = None


class LedgerFile:
    """A ledger's open file; use it as a context manager.

    Args:
        path: The file; it is made where neither it nor a head exists.
        silo: Whose ledger it is.
        identity: The silo's key, which signs entries and heads.
        head: The file of the newest head, in another folder.

    Attributes:
        path: The file.

    Raises:
        LedgerError: When the file cannot be opened or is another silo's.
        LedgerTampered: When it does not extend the head.
    """

    def __init__(self, path: Path, silo: str, identity: SigningKey, head: Path) -> None:
        self.path, self._silo, self._identity = path, silo, identity
        self._head = HeadFile(head, origin_of(silo), identity.public)
        kept = self._head.read()
        with sqlite_errors(path):
            if kept is not None and not (path.exists() and path.stat().st_size):
                raise LedgerTampered(f"{path}: is gone, and its head of {kept.size} entries is kept; {_WAY_OUT}")
            # Readable by its owner alone from the start; the write-ahead log takes after it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=_LOCK_S)
            try:
                self._begin()
                if (
                    kept is None
                ):  # another process may have made the ledger meanwhile, and whoever makes it keeps a head
                    kept = self._head.read()
                if kept is not None:
                    self._check_extends(kept, "the head kept beside its keys")
                elif self._size() > 1:
                    raise LedgerTampered(
                        f"{path}: has {counted(self._size(), 'entry', 'entries')}, and {head} with its newest head is"
                        " missing, so that nobody can tell whether newer ones are gone; put it back, or the one that"
                        " the server keeps"
                    )
                else:
                    self._head.keep(self.head)
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what its log holds goes into it."""
        self._connection.close()

    def standing(self) -> Standing:
        """Return where the ledger stands, from all its entries.

        Raises:
            LedgerTampered: When one of them cannot follow those before it.
        """
        standing = Standing()
        for entry in self._entries(""):
            standing.apply(entry)
            entry.check_signature(self._identity.public)
        return standing

    def head(self) -> bytes:
        """Return the signed head of all entries."""
        size = self._size()
        return sign_head(Head(origin_of(self._silo), size, merkle.root(size, self._node)), self._identity)

    def proven(self, since: int) -> Proven:
        """Return the signed head with the proof that it extends the ledger's first `since` entries.

        Raises:
            LedgerError: When there are fewer.
        """
        with self._transaction():  # head and proof are of one size
            size = self._size()
            return Proven(self.head(), since, merkle.consistency_proof(since, size, self._node))

    def check_extends(self, note: bytes, holder: str) -> int:
        """Check the ledger against a head that somebody kept, and return the head's size.

        Raises:
            ProtocolError: When it is no head of this silo's.
            LedgerTampered: When it is, and the ledger does not extend it.
        """
        try:
            head = open_head(note, origin_of(self._silo), self._identity.public)
        except LedgerTampered as error:
            raise ProtocolError(f"what {holder} keeps is no head of this silo's ledger: {error}") from error
        self._check_extends(head, f"the head that {holder} keeps")
        return head.size

    def _begin(self) -> None:
        """Set the connection up, and make or recognise the file."""
        application = self._application()
        # Asked twice: another process may make the ledger between the two questions.
        if not application and self._query("SELECT count(*) FROM sqlite_schema") != [(0,)]:
            application = self._application() or -1
        if application not in (0, APPLICATION):
            raise LedgerError(f"{self.path}: is a database of something else, not a ledger")
        self._query(f"PRAGMA page_size = {PAGE_SIZE}")
        self._keep_a_log()
        # Put off, a commit is synced with all else at the end: in the log it is whole, whatever is lost before.
        self._query(f"PRAGMA synchronous = {'NORMAL' if is_put_off() else 'FULL'}")
        if not application:
            with self._appending():
                if not self._is_made():  # by another process, meanwhile
                    prepare(self._connection)
                    body = genesis(self._silo, self._identity.public, random_bytes(16))
                    self._append(Draft("create", body), Standing())
        first = next(iter(self._entries("WHERE sequence = 1")), None)
        if first is None or (first.content.get("silo"), first.content.get("key")) != (
            self._silo,
            self._identity.public.hex(),
        ):
            raise LedgerError(f"{self.path}: is not the ledger of silo {self._silo!r} under its key; use another file")
        first.check_signature(self._identity.public)

    def _application(self) -> int:
        ((application,),) = self._query("PRAGMA application_id")
        return int(application)

    def _keep_a_log(self) -> None:
        """Have the file keep a write-ahead log. SQLite does not wait for others that say so at the same moment."""
        deadline = time.monotonic() + _LOCK_S
        while True:
            try:
                kept = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                continue
            if kept != ("wal",):
                raise LedgerError(f"{self.path}: the file cannot keep a write-ahead log; put it on a local disk")
            return

    @contextmanager
    def _appending(self) -> Iterator[None]:
        """Run a block under the write lock; sync it to disk, or undo all of it; then keep the new head."""
        with self._transaction():
            before = self._size() if self._is_made() else 0
            yield
            after = self._size()
        if after > before:
            self._head.keep(self.head)

    @contextmanager
    def _transaction(self, *, undone: bool = False) -> Iterator[None]:
        with sqlite_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("ROLLBACK" if undone else "COMMIT")
                put_off(self.path)
                put_off(self.path.with_name(f"{self.path.name}-wal"))  # where a commit lies first
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _append(self, draft: Draft, standing: Standing) -> None:
        """Append what follows from where the ledger stands, by the rules that every reader applies.

        Raises:
            LedgerError: When the rules refuse it.
        """
        # The totals after an entry hang on its body alone, so it can be tried without them.
        trial = self._signed(draft, (0, 0, 0))
        try:
            standing.apply(trial)
        except LedgerTampered as refused:
            raise LedgerError(f"nothing was entered: {refused.found}") from refused
        totals = (0, 0, 0) if draft.scope is None else standing.totals(draft.scope)
        entry = replace(trial, cap=totals[0], reserved=totals[1], spent=totals[2]).sign(self._identity)
        self._insert(entry)
        standing.last = entry  # what the next one of this transaction is chained to

    def _signed(self, draft: Draft, totals: tuple[int, int, int]) -> Entry:
        last = self._one("ORDER BY sequence DESC LIMIT 1")
        sequence, previous = (1, NOTHING_BEFORE) if last is None else (last.sequence + 1, last.hash)
        moment = clock.time_after("" if last is None else last.time, draft.kind)
        entry = Entry(
            sequence, moment, draft.scope, draft.run, draft.round, draft.kind, draft.key, draft.body, *totals, previous
        )
        return entry.sign(self._identity)

    def _insert(self, entry: Entry) -> None:
        insert(self._connection, entry, self._node)

    def _query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what a query gives.

        Raises:
            LedgerError: When the file cannot be read as it must be.
        """
        with sqlite_errors(self.path):
            return self._connection.execute(sql, values).fetchall()

    def _size(self) -> int:
        ((size,),) = self._query("SELECT coalesce(max(sequence), 0) FROM entries")
        return int(size)

    def _is_made(self) -> bool:
        return self._query("SELECT count(*) FROM sqlite_schema WHERE name = 'entries'") == [(1,)]

    def _node(self, level: int, position: int) -> bytes:
        found = self._query("SELECT hash FROM nodes WHERE level = ? AND position = ?", level, position)
        if len(found) != 1 or type(found[0][0]) is not bytes or len(found[0][0]) != merkle.HASH_SIZE:
            raise LedgerTampered(
                f"{self.path}: a node of its Merkle tree is missing, or none; `fedmodel ledger verify` says more"
            )
        return bytes(found[0][0])

    def _entries(self, where: str, *values: str) -> Iterator[Entry]:
        for row in self._query(f"{_SELECT} {where}", *values):
            entry = entry_of(row)
            entry.check_types()
            if merkle.leaf_hash(entry.document) != self._node(0, entry.sequence - 1):
                raise LedgerTampered(f"{self.path}: it is not what the Merkle tree has in its place", entry.sequence)
            yield entry

    def _one(self, where: str, *values: str) -> Entry | None:
        """Return the one row that is asked for, after checking that the silo signed it."""
        entry = next(iter(self._entries(where, *values)), None)
        if entry is not None:
            entry.check_signature(self._identity.public)
        return entry

    def _check_complete(self) -> None:
        """Refuse a file in which a row is missing."""
        ((count,),) = self._query("SELECT count(*) FROM entries")
        if count != self._size():
            raise LedgerTampered(f"{self.path}: {self._size() - count} entries are missing")

    def _check_extends(self, head: Head, what: str) -> None:
        size = self._size()
        if size < head.size:
            raise LedgerTampered(
                f"{self.path}: has {counted(size, 'entry', 'entries')} where {what} has {head.size}: newer ones are"
                f" gone; {_WAY_OUT}"
            )
        if merkle.root(head.size, self._node) != head.root:
            raise LedgerTampered(
                f"{self.path}: is not what {what} is of: its first {head.size} entries are others; {_WAY_OUT}"
            )
