"""The file: entries in SQLite, appended under one lock, synced before anything is told, with a signed head kept apart.

Guarantee: when a method that appends returns, its entry is on disk (write-ahead log, `synchronous=FULL`), so that a
crash afterwards can lose a release but never the record of one. Whichever processes append at once, each entry follows
the one before (`BEGIN IMMEDIATE`), and a scope's totals stay within its cap: `fedmodel.ledger.standing` decides, and
CHECKs and triggers of the file refuse what a fault in that would let pass. Nothing is ever updated or deleted.

The head, a signed note with size and root of the Merkle tree, is written beside the silo's keys after every entry. A
ledger that does not extend it, because rows were deleted, or last week's backup was put back, is not opened. Whoever
puts both back is noticed by whoever else keeps a head: the server gets one each round.

Between two full readings, rows are checked as they are used: whatever decides about a charge is signed, stands in the
Merkle tree where its number says, adds up to the totals, and no row is missing. Whoever can write the file and has no
key can still hide entries from both their run and their scope, and have rounds charged past the plan until the next
full reading, which names the first such entry: a silo reads all of it once a run.

Does NOT protect against whoever has the silo's key and can write all its files, and meets nobody who keeps a head. Does
NOT re-read every entry when it is opened, which would make each round slower than the last: `verify_ledger` does, and
a silo calls it once a run.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from fedmodel.crypto import SigningKey, random_bytes
from fedmodel.errors import LedgerError, LedgerTampered, PrivacyBudgetExceeded, ProtocolError
from fedmodel.ledger import merkle
from fedmodel.ledger.entries import (
    NOTHING_BEFORE,
    Entry,
    Kind,
    by_part,
    canonical,
    charge_body,
    countersigned_body,
    figures_of,
    genesis,
    is_lapse,
    lapse_body,
    origin_of,
    progress_body,
    progress_of,
    reserve_body,
    reserved_parts,
    scope_body,
    told_time,
    void_body,
)
from fedmodel.ledger.head_file import HeadFile
from fedmodel.ledger.heads import Head, Proven, open_head, sign_head
from fedmodel.ledger.runs import Run, share
from fedmodel.ledger.scope import Scope
from fedmodel.ledger.standing import Standing
from fedmodel.ledger.tables import APPLICATION, COLUMNS, PAGE_SIZE, insert, prepare, sqlite_errors
from fedmodel.privacy.events import MOST_EPSILON, Event
from fedmodel.secagg.progress import Progress

_SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM entries"  # noqa: S608 - of constants
# From the newest backwards: the plus keeps SQLite from sorting all of a scope by its index.
_NEWEST_OF_SCOPE: Final = "WHERE +scope = ? ORDER BY sequence DESC LIMIT 1"
_RESERVATIONS: Final = "WHERE scope = ? AND kind = 'reserve'"
_LOCK_S: Final = 30
# Clocks are corrected by moments all the time; within one, an entry takes the time of the one before.
_MOMENT: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class Charge:
    """A charge: what was charged, and the number of its entry."""

    event: Event
    sequence: int


@dataclass(frozen=True)
class Reservation:
    """What a run may be charged for.

    Attributes:
        parts: All that it may do, as reserved: the plan, then what else it may release.
        scope: The scope's name.
        scenario: Hash of the scenario that the plan is of.
    """

    parts: tuple[Event, ...]
    scope: str
    scenario: str

    @property
    def plan(self) -> Event:
        """The first part: what the run is for."""
        return self.parts[0]


class Ledger:
    """An open ledger; use it as a context manager.

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
                        f"{path}: has {self._size()} entries, and {head} with its newest head is missing, so that"
                        " nobody can tell whether newer ones are gone; put it back, or the one that the server keeps"
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
        self._connection.close()

    # What stands

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

    def reservation(self, run: str) -> Reservation | None:
        """Return what a run reserved, or None where it did not, or its rest was given back."""
        entry = self._reserved(run)
        if entry is None:
            return None
        return Reservation(reserved_parts(entry.content), str(entry.scope), str(entry.content["scenario"]))

    def reservations(self, run: str) -> list[int]:
        """Return the numbers of a run's reservations, oldest first: it has another after each that lapsed."""
        found = self._entries("WHERE run = ? AND kind = 'reserve' ORDER BY sequence", run)
        return [entry.sequence for entry in found]

    def knows(self, run: str) -> bool:
        """Return whether a run was ever reserved, also where its rest was given back."""
        return self._one("WHERE run = ? AND kind = 'reserve'", run) is not None

    def scope(self, name: str) -> Scope | None:
        """Return a scope as it stands now, or None where it was never created."""
        created = self._one("WHERE scope = ? AND kind = 'create'", name)
        if created is None:
            return None
        newest = "WHERE scope = ? AND kind = 'override' ORDER BY sequence DESC LIMIT 1"
        changed = self._one(newest, name)
        scope = Scope(**created.content)
        return scope if changed is None else replace(scope, epsilon=float(changed.content["epsilon"]))

    def progress(self, run: str) -> Progress:
        """Return how far the silo came in a run's secure aggregation, by the newest entry about it.

        Raises:
            LedgerTampered: When an entry is missing: it could be that one.
        """
        self._check_complete()
        told = "WHERE run = ? AND kind = 'audit' AND round IS NOT NULL ORDER BY sequence DESC LIMIT 1"  # not its end
        newest = self._one(told, run)
        if newest is None:
            return Progress()
        try:
            return progress_of(newest)
        except ValueError as error:
            raise LedgerTampered(f"{self.path}: it tells of no secure aggregation: {error}", newest.sequence) from error

    def newest_round(self, run: str) -> int:
        """Return the highest round of a run that was charged, whether or not that stands; 0 where none was."""
        ((newest,),) = self._query("SELECT coalesce(max(round), 0) FROM entries WHERE run = ? AND kind = 'charge'", run)
        return int(newest)

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

    # What is appended

    def check_scope(self, scope: Scope) -> None:
        """Refuse a scope that is not as the ledger has it now.

        Raises:
            LedgerError: When it has other figures: a budget is made once, and changed by an override.
        """
        if self.scope(scope.name) == scope:
            return
        known = {other.data: other for other in self.standing().scopes.values()}.get(scope.data)
        if known is None:
            raise LedgerError(f"{self.path}: has no budget for data set {scope.data!r}")
        raise LedgerError(_differs(self.path, known, scope))

    def open_scope(self, scope: Scope) -> None:
        """Create a scope where its data set has none yet.

        Raises:
            LedgerError: When the data set has another: a budget is made once, and changed by an override.
        """
        if self.scope(scope.name) == scope:
            return
        with self._appending():
            self._enter_scope(scope, self.standing())

    def reserve(
        self,
        scope: str | Scope,
        run: str,
        plan: Event,
        steps_per_round: int,
        *,
        scenario: str = "",
        partial: bool = False,
        besides: Sequence[Event] = (),
        held: timedelta | None = None,
        name: str = "",
        check: Callable[[Standing], None] | None = None,
    ) -> Event:
        """Reserve all that a run may do, once; and give back what other runs reserved, and lapsed.

        A run whose own reservation lapsed reserves again, as any other run does.

        Args:
            scope: The scope's name; or the scope, which is created in the same step where its data set has none yet.
            run: The run.
            plan: All of its steps.
            steps_per_round: Of which a round takes so many.
            scenario: Hash of the scenario that the plan is of.
            partial: Reserve the first rounds of the plan where the budget does not pay all of them.
            besides: What else the run may release, in order; each in full, or nothing is reserved.
            held: For how long it is held while nothing is charged for the run; None for ever.
            name: What the run's server calls it; asked again, the first one stays.
            check: Refuses by where the ledger stands once what lapsed is given back, in the same step.

        Returns:
            What was reserved, the plan or its first rounds; asked again, the same.

        Raises:
            LedgerError: When the run reserved another plan, or a person gave its rest back.
            PrivacyBudgetExceeded: When it does not fit. Nothing is entered.
        """
        asked = Asked(run, plan, steps_per_round, scenario, partial, tuple(besides), held, name, check)
        with self._appending():
            standing = self.standing()
            if isinstance(scope, Scope):
                self._enter_scope(scope, standing)
                scope = scope.name
            return self._enter_reservation(scope, asked, standing)

    def check_reserves(
        self,
        scope: Scope,
        run: str,
        plan: Event,
        steps_per_round: int,
        *,
        scenario: str = "",
        partial: bool = False,
        besides: Sequence[Event] = (),
        held: timedelta | None = None,
        check: Callable[[Standing], None] | None = None,
    ) -> Event:
        """Refuse what `reserve` would refuse now, and return what it would reserve.

        It is tried, and undone. Guarantee: nothing is entered, whatever comes of it.
        """
        asked = Asked(run, plan, steps_per_round, scenario, partial, tuple(besides), held, check=check)
        with self._transaction(undone=True):
            standing = self.standing()
            self._enter_scope(scope, standing)
            return self._enter_reservation(scope.name, asked, standing)

    def charge(self, run: str, round_number: int, steps: int, key: str, part: int = 0) -> Charge:
        """Enter what a round is about to do. Call it before the records are read for training.

        Every call is a charge, and pays for one release. A request whose update is still in hand is answered with that,
        and not charged; one whose update is not, whatever became of it, is charged again.

        Args:
            run: The run, reserved before.
            round_number: The round, from 1.
            steps: Steps that the round will take.
            key: Of what is asked. Charged again, the entry's key says how often: `key.2`.
            part: Of the reservation, on which it draws: 0 is the plan, and then come those beside it.

        Returns:
            What was charged: the part's figures with these steps.

        Raises:
            LedgerError: When the run has no reservation, or reserved no such part.
            PrivacyBudgetExceeded: When the steps do not fit into what is left of the part. Nothing is entered.
        """
        with self._appending():
            self._check_complete()
            reserved = self._reserved(run)
            if reserved is None:
                raise LedgerError(f"run {run} has no reservation; a silo joins a run before it trains in it")
            if (end := self._one("WHERE run = ? AND kind = 'audit' AND round IS NULL", run)) is not None:
                raise LedgerError(
                    f"run {run} has ended, as entry {end.sequence} says; no round of it is charged any more"
                )
            parts = reserved_parts(reserved.content)
            if not 0 <= part < len(parts):
                raise LedgerError(f"run {run} reserved {len(parts)} parts, and none of number {part}; nothing is done")
            drawn = list(self._drawn(reserved))
            plan, taken = parts[part], drawn[part]
            if taken + steps > plan.steps:
                raise PrivacyBudgetExceeded(
                    f"round {round_number} asks for {steps} steps;"
                    f" run {run} has taken {taken} of the {plan.steps} that its budget pays for"
                )
            before = self._one(_NEWEST_OF_SCOPE, str(reserved.scope)) or reserved
            self._check_totals(before)
            cost = figures_of(reserved.content["cost"], len(parts))[part]
            more = share(cost, taken + steps, plan.steps) - share(cost, taken, plan.steps)
            event = plan.times(steps)
            totals = (before.cap, before.reserved, min(before.reserved, before.spent + more))
            drawn[part] += steps
            body = charge_body(event, by_part(drawn), part)
            draft = Draft("charge", body, reserved.scope, run, round_number, self._unused(key))
            entry = self._signed(draft, totals)
            self._insert(entry)
        return Charge(event, entry.sequence)

    def is_charged(self, key: str) -> bool:
        """Return whether something was charged under a key."""
        return self._one("WHERE key = ?", key) is not None

    def newest_charge(self, key: str) -> int | None:
        """Return the number of the newest charge of the whole ledger, or None if it is not under this key, or is void.

        Raises:
            LedgerTampered: When an entry is missing: it could be the void.
        """
        self._check_complete()
        newest = self._one("WHERE kind = 'charge' ORDER BY sequence DESC LIMIT 1")
        if newest is None or str(newest.key).partition(".")[0] != key:
            return None
        return None if newest.sequence in self._voided(str(newest.run)) else newest.sequence

    def was_charged(self) -> bool:
        """Return whether anything was ever charged, whether or not it stands."""
        return self._query("SELECT EXISTS (SELECT 1 FROM entries WHERE kind = 'charge')") == [(1,)]

    def void_charge(self, run: str, round_number: int, reason: str) -> None:
        """Take back the newest charge of the whole ledger. The caller knows that nothing noised for it left.

        Raises:
            LedgerError: When that is not of this round of this run, or an update was masked since in that round.
        """
        with self._appending():
            standing = self.standing()
            found = standing.runs.get(run)
            newest = standing.charged[-1] if standing.charged else None
            charge = found.charges.get(newest) if found is not None and newest is not None else None
            if found is None or newest is None or charge is None or charge.round != round_number:
                raise LedgerError(
                    f"the newest charge of the ledger is not of round {round_number} of run {run}, and no other is"
                    " voided: of any before it an update may have left"
                )
            if standing.may_have_left(run, newest):
                raise LedgerError(
                    f"an update of round {round_number} of run {run} was masked, and may have left; its charge stands"
                )
            left = [drawn - charge.steps * (part == charge.part) for part, drawn in enumerate(found.drawn)]
            body = void_body(newest, reason, by_part(left))
            self._append(Draft("void", body, found.scope, run, round_number), standing)

    def release(self, run: str, reason: str) -> None:
        """Give back what a run reserved and did not take. No round of it is charged any more.

        Raises:
            LedgerError: When there is nothing to give back, or the run took the whole budget.
        """
        with self._appending():
            standing = self.standing()
            found = standing.runs.get(run)
            if found is None or found.closed:
                raise LedgerError(f"run {run} holds no reservation")
            if found.admitted == "plan" and found.charges:
                raise LedgerError(
                    f"run {run} was admitted as the one plan of {found.scope}, and took the whole budget: what follows"
                    " would have been chosen after seeing its releases, which is not accounted for"
                )
            body = void_body(found.sequence, reason, by_part(found.drawn))
            self._append(Draft("void", body, found.scope, run), standing)

    def override(self, scope: str, epsilon: float, reason: str, by: str) -> None:
        """Change a scope's cap: a person's deed, with a name. It is entered whatever the clock says.

        Raises:
            LedgerError: When there is no such scope, or runs hold more than the new cap.
        """
        if not 0 < epsilon <= MOST_EPSILON:
            raise LedgerError(f"a cap of epsilon {epsilon} is none; it is over 0, and at most {MOST_EPSILON}")
        with self._appending():
            standing = self.standing()
            if scope not in standing.scopes:
                known = ", ".join(standing.scopes) or "none"
                raise LedgerError(f"{self.path}: has no scope {scope!r}; known: {known}")
            changed = replace(standing.scopes[scope], epsilon=float(epsilon))
            if changed.epsilon < standing.scopes[scope].epsilon:
                standing.check_lowered(changed)  # a reader bears with other last digits; whoever writes does not
            self._append(
                Draft("override", canonical({"by": by, "epsilon": epsilon, "reason": reason}), scope), standing
            )

    def checkpoint(self, to: str) -> bytes:
        """Enter to whom the head is given, and return it: of all entries but this one."""
        with self._appending():
            standing = self.standing()
            head, root = self.head(), merkle.root(standing.size, self._node)
            self._append(
                Draft("checkpoint", canonical({"root": root.hex(), "size": standing.size, "to": to})), standing
            )
        return head

    def audits(self, subject: str) -> list[dict[str, Any]]:
        """Return what was entered under a subject, oldest first, each after checking that the silo signed it."""
        found = []
        where = "WHERE kind = 'audit' AND run IS NULL AND instr(body, ?) ORDER BY sequence"
        for entry in self._entries(where, canonical({"subject": subject})[1:-1]):
            if entry.content["subject"] == subject:
                entry.check_signature(self._identity.public)
                found.append(entry.content)
        return found

    def audit(self, finding: dict[str, str]) -> None:
        """Enter what somebody found or signed off, under a `subject`."""
        with self._appending():
            self._append(Draft("audit", canonical(finding)), self.standing())

    def advance(self, run: str, progress: Progress) -> None:
        """Enter how far the silo came in a run's secure aggregation, once; call it before a message says so.

        Raises:
            LedgerError: When another list of survivors was signed in that round, or the run is past it. Nothing is
                entered, and nothing may leave.
        """
        if not progress.is_something or self.progress(run) == progress:
            return
        with self._appending():
            known = self.progress(run)
            if not progress.covers(known):
                raise LedgerError(
                    f"{self.path}: in run {run}, something else was done in round {known.round} than what would be"
                    " entered now: a state of secure aggregation was put back while another process acted"
                )
            draft = Draft("audit", progress_body(progress), run=run, round=progress.round)
            self._insert(self._signed(draft, (0, 0, 0)))

    def countersign(self, run: str, scenario: str, model: str, code: str) -> None:
        """Enter that a run has ended, for one model: from then on nothing of it is charged, or voided, any more.

        Asked again for the same model, it stands as it is.

        Args:
            run: The run, of which a charge stands.
            scenario: Hash of the scenario that it is of, in hexadecimal.
            model: SHA-256 of the model, in hexadecimal, as the run's server names it.
            code: Hash of the code that runs here.

        Raises:
            LedgerError: When the ledger does not know the run, knows it for another scenario, has no charge of it that
                stands, or has countersigned its end for another model.
        """
        with self._appending():
            standing = self.standing()
            found = standing.runs.get(run)
            if found is None or found.scenario != scenario:
                raise LedgerError(f"run {run} has no reservation for this scenario, so its end is not countersigned")
            if not found.charges:
                raise LedgerError(
                    f"nothing that was charged for run {run} stands, so its end is not countersigned: this silo gave"
                    " nothing to the model"
                )
            if found.ended and found.model != model:
                raise LedgerError(
                    f"the end of run {run} was countersigned for model {found.model[:16]}..., and is not for another"
                )
            if not found.ended:
                self._append(Draft("audit", countersigned_body(scenario, model, code), run=run), standing)

    # Below: what is entered under the lock

    def _enter_scope(self, scope: Scope, standing: Standing) -> None:
        """Create a scope where its data set has none yet."""
        scope.check()
        known = {other.data: other for other in standing.scopes.values()}.get(scope.data)
        if known is None:
            self._append(Draft("create", scope_body(scope), scope.name), standing)
        elif known != scope:
            raise LedgerError(_differs(self.path, known, scope))

    def _enter_reservation(self, scope: str, asked: Asked, standing: Standing) -> Event:
        """Reserve what is asked, unless it is reserved, and return what is."""
        if not 1 <= asked.steps_per_round <= asked.plan.steps:
            raise LedgerError(f"a round of {asked.steps_per_round} steps is none of a plan of {asked.plan.steps}")
        known = standing.runs.get(asked.run)
        if known is None or known.lapsed:
            known = None
            self._enter_lapses(standing)
        if asked.check is not None:
            asked.check(standing)
        if known is not None:
            return _as_known(known, scope, asked)
        found = standing.scopes.get(scope)
        if found is None:
            raise LedgerError(f"{self.path}: has no scope {scope}")
        plan, steps, besides = asked.plan, asked.steps_per_round, asked.besides
        rounds = standing.rounds_fitting(found, plan, steps, besides) if asked.partial else 0
        fitting = plan.times(rounds * steps) if rounds else plan
        costs = [found.cost(part) for part in (fitting, *besides)]
        admitted = standing.admit(found, (fitting, *besides), sum(costs))
        until = "" if asked.held is None else told_time(_now() + asked.held)
        body = reserve_body(fitting, asked.scenario, admitted, by_part(costs), besides, until, asked.name)
        self._append(Draft("reserve", body, scope, asked.run), standing)
        return fitting

    def _enter_lapses(self, standing: Standing) -> None:
        """Give back every reservation that lapsed, at the time that entries have now."""
        now = _time_after("" if standing.last is None else standing.last.time, "void")
        for name in standing.lapsed(now):
            run = standing.runs[name]
            body = lapse_body(run.sequence, run.until, by_part(run.drawn))
            self._append(Draft("void", body, run.scope, name), standing)

    # Below: the file

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
        self._query("PRAGMA synchronous = FULL")
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
        moment = _time_after("" if last is None else last.time, draft.kind)
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
            entry = Entry(*row)
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

    def _check_totals(self, newest: Entry) -> None:
        """Refuse a file in which an entry was hidden from its run: their sums are not what a scope's newest says."""
        entries = self._entries(_RESERVATIONS, str(newest.scope))
        runs = [self._as_reserved(entry) for entry in entries if not self._is_lapsed(entry)]
        reserved = min(newest.cap, sum(run.reserved for run in runs))
        if (newest.reserved, newest.spent) != (reserved, min(reserved, sum(run.spent for run in runs))):
            raise LedgerTampered(f"{self.path}: what its runs hold and took is not what its newest entries say")

    def _as_reserved(self, entry: Entry) -> Run:
        """Return what a reservation holds and took, by the newest entries of its run."""
        content, run = entry.content, str(entry.run)
        parts = reserved_parts(content)
        return Run(
            str(entry.scope),
            parts,
            figures_of(content["cost"], len(parts)),
            content["admitted"],
            content["scenario"],
            entry.sequence,
            list(self._drawn(entry)),
            closed=entry.sequence in self._voided(run),
        )

    def _reserved(self, run: str) -> Entry | None:
        """Return a run's newest reservation, unless its rest was given back."""
        entry = self._one("WHERE run = ? AND kind = 'reserve' ORDER BY sequence DESC LIMIT 1", run)
        return None if entry is None or entry.sequence in self._voided(run) else entry

    def _unused(self, key: str) -> str:
        """Return a key that no entry has: this one, or this one with how often it is charged."""
        times, unused = 1, key
        while self.is_charged(unused):
            times, unused = times + 1, f"{key}.{times + 1}"
        return unused

    def _drawn(self, reserved: Entry) -> tuple[int, ...]:
        """Return the steps taken of each part of a run's newest reservation: the newest charge or void says so."""
        parts, since = len(reserved_parts(reserved.content)), reserved.sequence
        newest = [
            self._one("WHERE run = ? AND kind = ? ORDER BY sequence DESC LIMIT 1", str(reserved.run), kind)
            for kind in ("charge", "void")
        ]
        told = [entry for entry in newest if entry is not None and entry.sequence > since]
        last = max(told, key=lambda entry: entry.sequence, default=None)
        return (0,) * parts if last is None else figures_of(last.content["taken"], parts)

    def _voided(self, run: str) -> set[int]:
        return {entry.content["of"] for entry in self._entries("WHERE run = ? AND kind = 'void'", run)}

    def _is_lapsed(self, reserved: Entry) -> bool:
        """Return whether a reservation lapsed: it holds nothing, took nothing, and its run may have another."""
        for void in self._entries("WHERE run = ? AND kind = 'void'", str(reserved.run)):
            if is_lapse(void.content) and void.content["of"] == reserved.sequence:
                void.check_signature(self._identity.public)
                return True
        return False

    # Below: what it extends

    def _check_extends(self, head: Head, what: str) -> None:
        size = self._size()
        if size < head.size:
            raise LedgerTampered(
                f"{self.path}: has {size} entries where {what} has {head.size}: newer ones are gone; {_WAY_OUT}"
            )
        if merkle.root(head.size, self._node) != head.root:
            raise LedgerTampered(
                f"{self.path}: is not what {what} is of: its first {head.size} entries are others; {_WAY_OUT}"
            )


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


@dataclass(frozen=True)
class Asked:
    """What is asked to be reserved, as `Ledger.reserve` says."""

    run: str
    plan: Event
    steps_per_round: int
    scenario: str
    partial: bool
    besides: tuple[Event, ...]
    held: timedelta | None
    name: str = ""
    check: Callable[[Standing], None] | None = None


def _as_known(known: Run, scope: str, asked: Asked) -> Event:
    """Return what a run reserved, where it is what is asked.

    Raises:
        LedgerError: When it is not, or a person gave it back.
    """
    plan = asked.plan
    wanted = ((plan.times(known.plan.steps), *asked.besides), scope, asked.scenario)
    as_long = known.plan.steps == plan.steps or (asked.partial and known.plan.steps < plan.steps)
    if known.closed or not as_long or (known.parts, known.scope, known.scenario) != wanted:
        raise LedgerError(f"run {asked.run} reserved another plan, or gave it back; a plan is made once")
    return known.plan


def _time_after(before: str, kind: Kind) -> str:
    """Return the time of an entry: now, or that of the entry before where the clock was set back by a moment.

    Raises:
        LedgerError: When it was set back by more, unless a person overrides.
    """
    now = _now()
    told = told_time(now)
    if told >= before or kind == "override":
        return told
    if datetime.fromisoformat(before) - now <= _MOMENT:
        return before
    raise LedgerError(
        f"the clock says {told}, before the newest entry's {before}; set the clock right, or enter an override if that"
        " entry's time is the wrong one"
    )


def _now() -> datetime:
    return datetime.now(UTC)


def _differs(path: Path, known: Scope, asked: Scope) -> str:
    """Say how two scopes of one data set differ."""
    names = [name for name in known.__dataclass_fields__ if getattr(known, name) != getattr(asked, name)]
    found = ", ".join(f"{name} {getattr(known, name)} where {getattr(asked, name)} is asked" for name in names)
    return (
        f"{path}: the budget of {known.data} was made with {found}; a budget is made once: `fedmodel ledger override`"
        " changes its cap, and nothing else is changed"
    )
