"""A silo's own record of what was done to its data: one SQLite file, one row an entry, append-only by interface.

The rows hold events, never an epsilon: epsilon is derived by replay (`fedmodel.accounting`). A run writes

    create    once a file: the scope (silo, unit, adjacency, delta) that every later row is about
    reserve   once a run: the whole plan, with the noise multiplier that was calibrated for it
    charge    once a round, BEFORE any record is read for training: what the round will do

Guarantee: when `charge` returns, the entry is on disk (`synchronous=EXTRA`: the folder's entry of
the journal too), so a crash after it can lose a release but
never the record of one. A round that fails after its charge stays charged. A run's charges never
exceed its reservation.

Does NOT protect against whoever can write the file: entries are neither signed nor chained.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from fedmodel.errors import LedgerError, PrivacyBudgetExceeded
from fedmodel.mechanisms import DpSgdEvent, event_from_json, event_to_json

Kind = Literal["create", "reserve", "charge"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY,
    time     TEXT NOT NULL,
    run      TEXT,
    round    INTEGER,
    kind     TEXT NOT NULL CHECK (kind IN ('create', 'reserve', 'charge')),
    body     TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True)
class Scope:
    """What every entry of a ledger is about.

    Attributes:
        silo: Whose data.
        unit: The privacy unit.
        delta: The delta of the claim.
        target_epsilon: The epsilon that the noise was calibrated to, or None where the noise was declared.
        adjacency: How neighbouring data sets differ.
    """

    silo: str
    unit: str
    delta: float
    target_epsilon: float | None
    adjacency: Literal["add-or-remove-one"] = "add-or-remove-one"


class Ledger:
    """An open ledger; use it as a context manager.

    Args:
        path: The file, created with its first entry where it does not exist.
        scope: What the ledger is about. An existing file must be about the same.

    Raises:
        LedgerError: When the file cannot be opened, or is about something else.
    """

    def __init__(self, path: Path, scope: Scope) -> None:
        with _sqlite_errors(path):
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._path = path
        body = _canonical(asdict(scope))
        with self._transaction():
            self._connection.execute(_SCHEMA)
            row = self._connection.execute("SELECT body FROM entries WHERE kind = 'create'").fetchone()
            if row is None:
                self._append("create", None, None, body)
            elif row[0] != body:
                raise LedgerError(
                    f"{path}: the ledger is about {row[0]}, not {body}; use another file for another scope"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def reservation(self, run: str) -> DpSgdEvent | None:
        """Return the run's whole plan, or None where none was made."""
        bodies = self._bodies("reserve", run)
        return event_from_json(bodies[0]) if bodies else None

    def reserve(self, run: str, plan: DpSgdEvent) -> None:
        """Enter the whole plan of a run, once.

        Raises:
            LedgerError: When the run has one already.
        """
        with self._transaction():
            if self._bodies("reserve", run):
                raise LedgerError(f"run {run} is reserved already; a plan is made once")
            self._append("reserve", run, None, event_to_json(plan))

    def charge(self, run: str, round_number: int, steps: int) -> DpSgdEvent:
        """Enter what a round is about to do. Call it before the records are read for training.

        Args:
            run: The run, reserved before.
            round_number: The round, from 1.
            steps: DP-SGD steps that the round will take.

        Returns:
            The event charged: the plan's figures with these steps.

        Raises:
            LedgerError: When the run was never reserved.
            PrivacyBudgetExceeded: When the steps do not fit into what is left of the plan. Nothing is entered.
        """
        with self._transaction():
            plan = self.reservation(run)
            if plan is None:
                raise LedgerError(f"run {run} has no reservation; a silo joins a run before it trains in it")
            taken = sum(event_from_json(body).steps for body in self._bodies("charge", run))
            if taken + steps > plan.steps:
                raise PrivacyBudgetExceeded(
                    f"round {round_number} asks for {steps} steps;"
                    f" run {run} has taken {taken} of the {plan.steps} planned"
                )
            event = replace(plan, steps=steps)
            self._append("charge", run, round_number, event_to_json(event))
        return event

    def _bodies(self, kind: Kind, run: str) -> list[str]:
        with _sqlite_errors(self._path):
            rows = self._connection.execute(
                "SELECT body FROM entries WHERE kind = ? AND run = ? ORDER BY sequence", (kind, run)
            )
            return [body for (body,) in rows]

    def _append(self, kind: Kind, run: str | None, round_number: int | None, body: str) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._connection.execute(
            "INSERT INTO entries (time, run, round, kind, body) VALUES (?, ?, ?, ?, ?)",
            (time, run, round_number, kind, body),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run a block under the write lock; commit it to disk, or undo all of it."""
        with _sqlite_errors(self._path):
            self._connection.execute("PRAGMA synchronous = EXTRA")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def read_ledger(path: Path) -> tuple[Scope, list[DpSgdEvent]]:
    """Return a ledger's scope and every charge in it, oldest first, without writing to the file.

    Raises:
        LedgerError: When the file is missing, is no ledger, or holds an entry that cannot be read.
    """
    if not path.is_file():
        raise LedgerError(f"{path}: no such ledger")
    with _sqlite_errors(path):
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
        try:
            rows = connection.execute("SELECT kind, body FROM entries ORDER BY sequence").fetchall()
        finally:
            connection.close()
    scopes = [body for kind, body in rows if kind == "create"]
    if len(scopes) != 1:
        raise LedgerError(f"{path}: {len(scopes)} scopes where a ledger has exactly one")
    try:
        scope = Scope(**json.loads(scopes[0]))
    except (TypeError, json.JSONDecodeError) as error:
        raise LedgerError(f"{path}: its scope cannot be read: {error}") from error
    return scope, [event_from_json(body) for kind, body in rows if kind == "charge"]


def _canonical(document: dict[str, object]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    """Say which ledger could not be used, and why."""
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: the ledger cannot be used: {error}; nothing was released") from error
