"""What a few of a ledger's rows say, read and checked as they are used: what a run reserved, and what it took of it.

Between two full readings, rows are checked as they are used: whatever decides about a charge is signed, stands in the
Merkle tree where its number says, adds up to the totals, and no row is missing. Whoever can write the file and has no
key can still hide entries from both their run and their scope, and have rounds charged past the plan until the next
full reading, which names the first such entry: a silo reads all of it once a run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from fedmodel.errors import LedgerTampered
from fedmodel.ledger.entries import Entry, canonical, figures_of, is_lapse, progress_of, reserved_parts
from fedmodel.ledger.file import LedgerFile
from fedmodel.ledger.runs import Run
from fedmodel.ledger.scope import Scope
from fedmodel.privacy.events import Event
from fedmodel.secagg.progress import Progress

_RESERVATIONS: Final = "WHERE scope = ? AND kind = 'reserve'"


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
        """The first part: what the run is for, or the first phase of that, where lots grow."""
        return self.parts[0]


class LedgerRows(LedgerFile):
    """A ledger's open file, asked about one run, one budget or one charge."""

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

    def audits(self, subject: str) -> list[dict[str, Any]]:
        """Return what was entered under a subject, oldest first, each after checking that the silo signed it."""
        found = []
        where = "WHERE kind = 'audit' AND run IS NULL AND instr(body, ?) ORDER BY sequence"
        for entry in self._entries(where, canonical({"subject": subject})[1:-1]):
            if entry.content["subject"] == subject:
                entry.check_signature(self._identity.public)
                found.append(entry.content)
        return found

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
