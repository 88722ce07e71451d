"""Where an answer of a draft DPIA rests: an entry of a silo's ledger, or a line of its law or of the scenario.

Guarantee: an entry that is cited is one of the ledger that was verified, of the kind that is named; a line is the one
on which the key stands in the file as it lies there. What is not there is not cited.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from fedmodel.ledger import Entry
from fedmodel.provision.kits import LAW
from scenarios.report.gather import SCENARIO, Gathered, kits_of
from scenarios.report.page.catalogue import Catalogue
from scenarios.runs.event_book import BOOK
from scenarios.runs.ledgers import SiloLedger
from server.run_files import CHARGES

_TABLE: Final = re.compile(r"^\s*\[(\[?[^\[\]]+\]?)\]\s*(#.*)?$")  # one of several keeps its brackets, and is no table
_KEY: Final = re.compile(r"""^\s*("[^"]+"|'[^']+'|[A-Za-z0-9_-]+)\s*=""")


class Citations:
    """What a run's folder can be cited for."""

    def __init__(self, gathered: Gathered, said: Catalogue) -> None:
        self._gathered, self._said = gathered, said
        silos = gathered.scenario.federation.silos
        self._laws = {silo: folder / LAW for silo, folder in kits_of(gathered.run_dir, silos)}

    def entries(self, which: Callable[[SiloLedger, Entry], bool]) -> list[str]:
        """Cite the first entry of each ledger that is one of these."""
        found: dict[tuple[int, str], list[str]] = {}
        for silo, ledger in self._gathered.ledgers.items():
            entry = next((entry for entry in ledger.entries if which(ledger, entry)), None)
            if entry is not None:
                found.setdefault((entry.sequence, entry.kind), []).append(silo)
        if self._gathered.without_ledgers:
            return self.file(BOOK if self._gathered.booked else CHARGES)
        return [self._entry(silos, number, kind) for (number, kind), silos in found.items()]

    def reserved(self) -> list[str]:
        """Cite where each ledger reserved the run's whole plan."""
        return self.entries(lambda ledger, entry: entry.kind == "reserve" and entry.run == ledger.run)

    def charged(self) -> list[str]:
        """Cite each ledger's first charge for the run."""
        return self.entries(lambda ledger, entry: entry.kind == "charge" and entry.run == ledger.run)

    def created(self) -> list[str]:
        """Cite where each ledger created the budget that the run is charged to."""
        return self.entries(
            lambda ledger, entry: (
                entry.kind == "create" and ledger.scope is not None and entry.scope == ledger.scope.name
            )
        )

    def entry(self, silo: str, sequence: int) -> list[str]:
        """Cite one entry of a ledger by its number."""
        return [self._entry([silo], sequence, self._gathered.ledgers[silo].entries[sequence - 1].kind)]

    def law(self, key: str, silos: Collection[str] | None = None) -> list[str]:
        """Cite the line of each law at hand on which a key stands, "budgets.NAME.epsilon" for instance.

        Args:
            key: With its tables.
            silos: Whose laws; by default all.
        """
        found: dict[int, list[str]] = {}
        for silo, path in self._laws.items():
            line = _line(path, key) if silos is None or silo in silos else None
            if line is not None:
                found.setdefault(line, []).append(silo)
        return [
            self._said.plain("dpia.law", silos=self._said.few(names), line=line, key=key)
            for line, names in found.items()
        ]

    def scenario(self, key: str) -> list[str]:
        """Cite the line of the scenario on which a key stands."""
        line = _line(self._gathered.run_dir / SCENARIO, key)
        return [] if line is None else [self._said.plain("dpia.line", file=SCENARIO, line=line, key=key)]

    def file(self, name: str) -> list[str]:
        """Cite a file of the run's folder."""
        return [self._said.plain("dpia.file", file=name)] if (self._gathered.run_dir / name).is_file() else []

    def _entry(self, silos: Sequence[str], number: int, kind: str) -> str:
        return self._said.plain("dpia.entry", silos=self._said.few(silos), entry=number, kind=kind)


def _line(path: Path, key: str) -> int | None:
    """Return on which line of a file a key stands."""
    return line_of(path.read_text(encoding="utf-8").splitlines(), key)


def line_of(lines: Sequence[str], key: str) -> int | None:
    """Return the number of the line on which a key of TOML stands, from 1; None where no line begins with it.

    >>> line_of(["a = 1", "[b.c]", "# d", "d = 2"], "b.c.d"), line_of(["a = {b = 1}"], "a.b")
    (4, None)
    """
    table, _, name = key.rpartition(".")
    inside = ""
    for number, line in enumerate(lines, start=1):
        if header := _TABLE.match(line):
            inside = ".".join(part.strip().strip("\"'") for part in header[1].split("."))
        elif (found := _KEY.match(line)) and inside == table and found[1].strip("\"'") == name:
            return number
    return None
