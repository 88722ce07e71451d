"""What parties hand each other of a deployed run's report: the server a copy to each silo, a silo its own, signed.

    runs/RUN/                 the server's run: its report, and what that follows from (`scenarios.report.deployed`)
    runs/RUN/copies/NAME/     what the server hands to a silo: the same, of that silo alone
    KIT/reports/NUMBER/       a silo's own: what the server handed over, its report as `server-report.json`, a copy of
                              the silo's ledger, and the silo's report of it, which the silo's key signs

A copy names no silo but the one that it is for: rows, reported charges and heads of others are left out, and a round's
line has of them how many there were. What a silo knows all the same, from the scenario, is who may take part and what
is planned.

Guarantee: what `check_server_report` passes, the server signed for this silo and this run, and every figure of it
follows from the files here. The silo's signature covers that report, whose hash is among its files: it countersigns it.

Does NOT hide from a silo how many silos were in a sum.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fedmodel.config import Scenario
from fedmodel.crypto.signed_roster import AUTHORITY, AUTHORITY_POST_QUANTUM
from fedmodel.errors import ClaimRefuted, LedgerTampered
from fedmodel.privacy.events import EPSILON_IF_HIDDEN
from fedmodel.provision.kits import ROSTER_FILE
from fedmodel.system.durable import replace_file
from scenarios.report.compute import changed_integrity, compute
from scenarios.report.diff import differences, in_words
from scenarios.report.gather import METRICS, SCENARIO, SERVER_REPORT, SUMMARY, Gathered, read_run
from scenarios.report.page import signing
from scenarios.runs.summary import COPY_FOR, OTHERS, read_metrics, sums_worth
from server.metrics import BESIDES
from server.run_files import CHARGES
from server.runs import RUN
from server.usefulness import USEFULNESS

ANCHORS: Final = (ROSTER_FILE, AUTHORITY, AUTHORITY_POST_QUANTUM)
"""The roster, and what it is verified under."""
_BOUNDS: Final = ("epsilon", EPSILON_IF_HIDDEN)
_WHOLE: Final = (SCENARIO, RUN, USEFULNESS)
OF_A_COPY: Final = (*_WHOLE, SUMMARY, METRICS, BESIDES, CHARGES)
"""The files that the report of a copy is of."""


def lay_out_copy(run_dir: Path, scenario: Scenario, silo: str, folder: Path) -> None:
    """Write what a silo may see of a deployed run, without a report."""
    for name in ("", "server", "server/heads"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = [*_WHOLE, *(f"server/{name}" for name in ANCHORS), f"server/heads/{silo}"]
    for name in kept:
        if (run_dir / name).is_file():
            replace_file(folder / name, (run_dir / name).read_bytes())
    summary, charges = (json.loads((run_dir / name).read_bytes()) for name in (SUMMARY, CHARGES))
    for section in ("privacy", "dropouts", "withdrawn"):
        summary[section] = [row for row in summary[section] if row["silo"] == silo]
    replace_file(folder / SUMMARY, _json({**summary, COPY_FOR: silo}))
    replace_file(folder / CHARGES, _json({name: said for name, said in charges.items() if name == silo}))
    for name in (METRICS, BESIDES):
        lines = [_line_for(scenario, line, silo) for line in read_metrics(run_dir / name)]
        if lines:
            replace_file(folder / name, b"".join(json.dumps(line, sort_keys=True).encode() + b"\n" for line in lines))


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def _line_for(scenario: Scenario, line: Mapping[str, Any], silo: str) -> dict[str, Any]:
    """Return a round's line without the names of other silos."""
    masked = "failed" not in line and scenario.encryption.secure_aggregation == "on"
    found = {
        **line,
        "cohort": [name for name in line["cohort"] if name == silo],
        OTHERS: {
            "asked": len(line["cohort"]),
            "gone": len(line["withdrawn"]),
            "worth": sums_worth(scenario, [dict(line)])[0][1] if masked else None,
        },
    }
    if "charged" in line:
        found["charged"] = [name for name in line["charged"] if name == silo]
    for name in ("dropouts", "withdrawn", *_BOUNDS):
        if name in _BOUNDS and isinstance(line.get(name), list):  # of many silos, and names none
            found[name] = {}
        elif name in line:
            found[name] = {one: said for one, said in line[name].items() if one == silo}
    return found


def check_server_report(run_dir: Path, gathered: Gathered, given: bytes | None) -> None:
    """Hold the report that a server signed for a silo to what lies in the silo's folder.

    Args:
        run_dir: The silo's folder.
        gathered: What it says, by the silo's ledger.
        given: The server's key, where it is known from elsewhere; by default the one that the roster names.

    Raises:
        LedgerTampered: When the server did not sign it, or it is of another run, silo or file.
        ClaimRefuted: When a figure of it does not follow.
    """
    if SERVER_REPORT not in gathered.later:
        raise LedgerTampered(f"{signing.NAME}: is of no {SERVER_REPORT}, so that the silo did not sign that")
    signed = signing.open_report((run_dir / SERVER_REPORT).read_bytes())
    stored, silo = signed.report, str(gathered.copy_for)
    if not stored.run.reported or stored.run.copy_for != silo:
        raise LedgerTampered(f"{SERVER_REPORT}: is not the copy that a server made for silo {silo}")
    reported = read_run(run_dir, stored)
    if signed.key.hex() != stored.integrity.signer or signed.key != (given or reported.signer):
        raise LedgerTampered(f"{SERVER_REPORT}: is signed by another key than the server's")
    signed.check()
    for difference in changed_integrity(reported, stored, signed.key, made=()):
        raise LedgerTampered(f"{SERVER_REPORT}: {in_words(difference)}")
    follows = signing.plain(compute(reported, stored, signed.key))
    follows["integrity"]["files"] = signing.plain(stored)["integrity"]["files"]  # held to above; the page is not here
    for difference in differences(signing.plain(stored), follows):
        raise ClaimRefuted(f"{SERVER_REPORT}: {in_words(difference)} from what silo {silo} reported")
