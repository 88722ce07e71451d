"""The ledgers in a report's folder: each verified, and read up to the entries that the report is of.

Guarantee: what `ledgers_of` returns are entries as the silo signed them, under the key that is known, all that a head
in the folder or in the report is of; and their root is the one that the report names.

Does NOT notice entries that are missing at the end of a ledger of which no head is here: it says so.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmodel.errors import ClaimRefuted, LedgerTampered
from fedmodel.ledger import Entry, Standing, merkle, verify_ledger
from fedmodel.system.counts import counted, one_or_more
from scenarios.report.verifier.figures import Held
from scenarios.report.verifier.keys import Keys


def ledgers_of(folder: Path, report: Mapping[str, Any], keys: Keys) -> Iterator[tuple[Held, str]]:
    """Verify every ledger that a report is of; go through what each holds, and how it was found.

    Raises:
        LedgerTampered: When one is not as it was written, is gone, or is not the one that the report is of.
    """
    start = tomllib.loads((folder / "scenario.toml").read_text(encoding="utf-8")).get("model", {}).get("init", {})
    goes_on = isinstance(start, dict) and start.get("trained_on") == "run"
    named = {head["silo"] for head in report["integrity"]["ledgers"]}
    for path in sorted((folder / "ledgers").glob("*.sqlite")):
        if path.stem not in named:
            raise LedgerTampered(f"{path}: is a ledger of which the report is not")
    for head in report["integrity"]["ledgers"]:
        silo = head["silo"]
        path = folder / "ledgers" / f"{silo}.sqlite"
        notes = {name: (folder / name).read_bytes() for name in _head_places(silo) if (folder / name).is_file()}
        kept = [] if head["head"] is None else [head["head"].encode()]
        known = keys.silos.get(silo)
        verified = verify_ledger(path, known or bytes.fromhex(head["key"]), [*notes.values(), *kept])
        entries = verified.entries[: head["entries"]]
        if len(entries) < head["entries"]:
            raise LedgerTampered(f"{path}: its newest entries are gone: the report is of {head['entries']}")
        standing, root = _up_to(entries)
        if root.hex() != head["root"] or standing.key.hex() != head["key"] or standing.silo != silo:
            raise LedgerTampered(f"{path}: is another ledger than the one that the report is of")
        data = report["scope"]["data_sets"][0]["name"]
        whose = "its key is known from outside" if silo in keys.anchored else "NOBODY outside vouches for its key"
        heads = len(notes) + len(kept)
        seen = (
            f"{counted(heads, 'signed head')} {one_or_more(heads, 'has', 'have')} no entry that is missing"
            if heads
            else "NO head is here"
        )
        told = f"{counted(len(entries), 'entry', 'entries')}, all as they were written; {whose}; {seen}"
        yield Held(silo, entries, standing, report["run"]["run"], data, goes_on), told


def check_newest(report: Mapping[str, Any], ledgers: Mapping[str, Held]) -> None:
    """Refuse a report of another run than the one of its scenario that the ledgers reserved last.

    A silo's copy names the run by the number that the server gave it, and any run of the scenario may be it.

    Raises:
        ClaimRefuted: When it is of another run, or of another scenario than its run.
    """
    scenario, number = report["integrity"]["scenario_hash"], report["run"]["run"]
    newest: dict[str, str] = {}  # by run, when it was reserved
    for held in ledgers.values():
        for name, run in held.standing.runs.items():
            if run.scenario == scenario:
                newest[name] = max(newest.get(name, ""), held.entries[run.sequence - 1].time)
            elif name == number:
                raise ClaimRefuted(f"integrity.scenario_hash: the ledger of {held.silo!r} has another for this run")
    last = max(newest, key=newest.__getitem__, default=None)
    if number not in newest or (report["run"].get("copy_for") is None and number != last):
        raise ClaimRefuted(f"run.run: {number} stands, and the newest run of this scenario in the ledgers is {last}")


def check_names(report: Mapping[str, Any], ledgers: Mapping[str, Held]) -> None:
    """Refuse a report that calls a run otherwise than the ledgers do; one from before calls none by a name.

    Raises:
        ClaimRefuted: When it does.
    """
    rows = [(one["silo"], run) for one in report["scope"]["budgets"] for run in one["runs"]]
    rows += [(silo, report["run"]) for silo, held in ledgers.items() if report["run"]["run"] in held.standing.runs]
    for silo, row in rows:
        known = ledgers[silo].standing.runs.get(row["run"]) if silo in ledgers else None
        if row.get("name") is not None and (known is None or row["name"] != known.name):
            raise ClaimRefuted(f"name: run {row['run']} has another in the ledger of {silo!r}")


def _head_places(silo: str) -> tuple[str, ...]:
    own = (f"silos/{silo}", f"kits/silos/{silo}")
    return (*(f"{place}/heads/{silo}" for place in ("server", "kits/server")), *(f"{one}/ledger.head" for one in own))


def _up_to(entries: Sequence[Entry]) -> tuple[Standing, bytes]:
    """Return where a ledger stood after some entries, and the root over them."""
    standing, nodes = Standing(), dict[tuple[int, int], bytes]()
    for entry in entries:
        standing.apply(entry)
        leaf = merkle.leaf_hash(entry.document)
        made = merkle.new_nodes(entry.sequence - 1, leaf, lambda level, position: nodes[level, position])
        nodes.update({(level, position): value for level, position, value in made})
    return standing, merkle.root(len(entries), lambda level, position: nodes[level, position])
