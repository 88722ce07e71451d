"""One source is charged to one budget: as things are now, and as they were when an earlier run began.

What a run's records are read from is remembered in the ledger, in an `audit` entry under the subject `source`, once a
reservation and before it is charged: where they lay, and what the files began and ended with. So a table that got
another name in `silo.toml`, or a file that was moved under another table's name, is known again. A run that joins again
after its reservation lapsed is remembered again: by then it may read something else.

A ledger is handed to others, and whoever has a file must not find out by it whether that file was read. So what is kept
is a pseudorandom function of each mark, HKDF under the silo's own key, cut. A reservation has one such entry, whatever
became of the files meanwhile: a server sees how many entries a ledger has, and not that the data changed. Of a table
an entry tells how many files it consists of. Of a folder of other files, where a file may be a record, each entry has
as many marks, drawn at random where there are fewer: it tells nothing of how many there are.

Does NOT know again what was changed and lies elsewhere, nor what was charged before ledgers kept marks. Nor a file that
took another's place in the middle of a run: before each round it is compared with what is remembered, and what it
begins and ends with is not remembered itself.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fedmodel.config import SiloFile
from fedmodel.crypto import SigningKey
from fedmodel.data import check_sources, marks
from fedmodel.data.same_source import MARKS_OF_FILES
from fedmodel.errors import PolicyRefused
from fedmodel.ledger import Ledger, Scope, Standing

_SUBJECT: Final = "source"
_LABEL: Final = b"fedmodel/v1/source-mark"
_SIZE: Final = 16  # bytes of a mark that are kept: of a million, two agree with a chance of 2^-88


@dataclass(frozen=True)
class Source:
    """What one run's records are read from.

    Attributes:
        law: The silo's own.
        home: The folder of `silo.toml`, from which relative paths begin.
        data: The data set that is asked for.
        scope: The budget that counts it.
        key: The silo's. Sensitive.
    """

    law: SiloFile
    home: Path
    data: str
    scope: Scope
    key: SigningKey = field(repr=False)

    def check(self, ledger: Ledger) -> None:
        """Refuse to charge a budget for what another budget counts, or was charged for.

        Raises:
            PolicyRefused: When it does, or was.
            DataError: When a file cannot be looked at, so that nobody can tell.
        """
        self.check_marks(self.look(), ledger, ledger.standing())

    def look(self) -> set[str]:
        """Return, after a look at all files, the marks of this source that no other budget may have.

        Raises:
            PolicyRefused: When another budget counts the same, as things are now.
            DataError: When a file cannot be looked at, so that nobody can tell.
        """
        check_sources(self.law, self.home)
        return self._marks()[1]

    def check_marks(self, telling: set[str], ledger: Ledger, standing: Standing) -> None:
        """Refuse what another budget was charged for, or can yet be, where the ledger stands so.

        Raises:
            PolicyRefused: When it was.
        """
        for entry in ledger.audits(_SUBJECT):
            other = entry["budget"]
            if other != self.scope.name and telling & set(entry["marks"].split()) and _matters(standing, other):
                name = other.partition("/")[0]
                raise PolicyRefused(
                    f"what tables.{self.data} is read from was charged to {other} before, and silo.toml counts it in"
                    f" {self.scope.name} now; a budget is of data, not of a name: let [budgets.{name}] cover"
                    f" {self.data!r}, or lay other records at another path"
                )

    def remember(self, ledger: Ledger, run: str) -> None:
        """Enter, once a reservation, what its budget is charged for: of a run's first by the run alone."""
        entries, reserved = ledger.audits(_SUBJECT), ledger.reservations(run)
        of = f"{run}/{reserved[-1]}" if len(reserved) > 1 else run
        if self.data not in self.law.tables or any(entry["of"] == of for entry in entries):
            return
        everything, _ = self._marks()
        known = {mark for entry in entries if entry["budget"] == self.scope.name for mark in entry["marks"].split()}
        fresh = everything - known
        if self.law.tables[self.data].files is not None:
            # A file is a record there: as many marks in every entry, so that a ledger tells nothing of how many.
            fresh |= {secrets.token_hex(_SIZE) for _ in range(MARKS_OF_FILES - len(fresh))}
        ledger.audit({"subject": _SUBJECT, "budget": self.scope.name, "of": of, "marks": " ".join(sorted(fresh))})

    def _marks(self) -> tuple[set[str], set[str]]:
        """Return all marks of the source as they are kept, and those that no other budget may have."""
        if self.data not in self.law.tables:
            return set(), set()
        found, telling = marks(self.law.tables[self.data].under(self.home))
        kept = {mark: self.key.derive(_LABEL, mark)[:_SIZE].hex() for mark in found}
        return set(kept.values()), {kept[mark] for mark in telling}


def _matters(standing: Standing, scope: str) -> bool:
    """Return whether anything was, or can yet be, released under a budget."""
    return any(run.matters for run in standing.of(scope))
