"""What ledgers are told of an audit, when, and whether that still is what lies in the run's folder.

Of each silo, in this order, each once:

    audit    "audit-plan": the plan's hash, and the commitment to the silo's coins       before the first charge
    charge   ...
    audit    "audit-seen": the hash of everything that the silo's audit saw, and of      before anybody evaluates it
             the means that the server opened
    audit    "audit-result": the hash of `audit.json`                                    when it was evaluated

Guarantee: plan, coins and observations that `check_entered` passes are those that the ledger was told of at these
times.

Does NOT bind whoever holds the silo's key, as who simulates does: such a one can write the whole run anew, or make ten
and keep one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fedmodel.audit.plan import Plan, SiloCanaries, plan_hash
from fedmodel.canaries import means, observations
from fedmodel.crypto import digest
from fedmodel.errors import ConfigError, LedgerError, LedgerTampered
from fedmodel.ledger import Entry, Ledger, Verified, verify_ledger
from fedmodel.provision import read_kit
from fedmodel.system.durable import replace_file

PLAN_FILE: Final = "audit-plan.json"
AUDIT_FILE: Final = "audit.json"
PLAN_SUBJECT: Final = "audit-plan"
SEEN_SUBJECT: Final = "audit-seen"
RESULT_SUBJECT: Final = "audit-result"

_RESULT: Final = b"fedmodel/v1/audit-result"
_SEEN: Final = b"fedmodel/v1/audit-seen"


def enter_plan(plan: Plan, run_dir: Path) -> None:
    """Toss every silo's coins, and enter the plan with the commitment to them into its ledger.

    It is called when kits are made and nothing was charged yet.
    """
    replace_file(run_dir / PLAN_FILE, _json(plan.document()))
    for canaries in plan.silos:
        coins = observations.toss(_folder(run_dir, canaries.silo), canaries.canaries)
        _enter(run_dir, canaries.silo, {"subject": PLAN_SUBJECT, "plan": plan.hash, "coins": coins})


def enter_seen(run_dir: Path) -> None:
    """Enter the hash of all that a silo's audit, and the server's, saw. It is called when the run ends, and once."""
    for canaries in read_plan(run_dir).silos:
        _enter(run_dir, canaries.silo, {"subject": SEEN_SUBJECT, "observations": _seen(run_dir, canaries.silo)})


def sign_off(run_dir: Path, found: Mapping[str, Any]) -> None:
    """Write down what was found, and enter its hash into every silo's ledger.

    Raises:
        LedgerError: When a result is entered already; then nothing is written.
    """
    for canaries in read_plan(run_dir).silos:
        entries = verify_ledger(run_dir / "ledgers" / f"{canaries.silo}.sqlite", unused=False).entries
        if any(entry.kind == "audit" and entry.content["subject"] == RESULT_SUBJECT for entry in entries):
            raise LedgerError(f"silo {canaries.silo}: its ledger has an audit's result already; a run is audited once")
    replace_file(run_dir / AUDIT_FILE, _json(found))
    document = result_hash(run_dir)
    for canaries in read_plan(run_dir).silos:
        _enter(run_dir, canaries.silo, {"subject": RESULT_SUBJECT, "document": document})


def result_hash(run_dir: Path) -> str:
    """Return the hash of what an audit found, in hexadecimal."""
    return digest(_RESULT, (run_dir / AUDIT_FILE).read_bytes()).hex()


def read_plan(run_dir: Path) -> Plan:
    """Return the plan of an audited run.

    Raises:
        ConfigError: When the run was not audited.
        LedgerTampered: When it is no plan.
    """
    path = run_dir / PLAN_FILE
    if not path.is_file():
        raise ConfigError(f"{run_dir}: this run was not audited; `fedmodel audit run` runs a scenario with canaries")
    try:
        document = json.loads(path.read_bytes())
        silos = tuple(SiloCanaries(**silo) for silo in document.pop("silos"))
        plan = Plan(silos=silos, **document)
        is_whole = plan_hash(plan.document()) == plan_hash(json.loads(path.read_bytes()))
    except (ValueError, TypeError, KeyError) as error:
        raise LedgerTampered(f"{path}: is not as it was written: {error}") from error
    if not is_whole:
        raise LedgerTampered(f"{path}: is not as it was written")
    return plan


def check_entered(run_dir: Path, silo: str, plan: Plan, ledger: Verified) -> None:
    """Refuse a plan, coins or observations that the ledger was not told of in time.

    Raises:
        LedgerTampered: When it was not.
    """
    run = run_of(plan, ledger)
    charges = [entry.sequence for entry in ledger.entries if entry.kind == "charge" and entry.run == run]
    told = _only(ledger, PLAN_SUBJECT)
    if told is None or (charges and told.sequence > charges[0]):
        raise LedgerTampered(f"silo {silo}: its ledger was told of no plan, or not of one before its first charge")
    if told.content["plan"] != plan.hash:
        raise LedgerTampered(f"{run_dir / PLAN_FILE}: is not the plan that silo {silo}'s ledger was told of")
    if told.content["coins"] != observations.commitment(_folder(run_dir, silo)):
        raise LedgerTampered(f"silo {silo}: its coins are not those that its ledger was told of")
    seen = _only(ledger, SEEN_SUBJECT)
    if seen is None or (charges and seen.sequence < charges[-1]):
        raise LedgerTampered(f"silo {silo}: its ledger was not told once, after the run, of what its audit saw")
    if seen.content["observations"] != _seen(run_dir, silo):
        raise LedgerTampered(
            f"silo {silo}: what its audit saw, or what the server opened, is not what its ledger was told of"
        )


def run_of(plan: Plan, ledger: Verified) -> str | None:
    """Return the run of a plan's scenario that a ledger reserved last; None where none was."""
    runs = [name for name, run in ledger.standing.runs.items() if run.scenario == plan.scenario]
    return runs[-1] if runs else None


def _only(ledger: Verified, subject: str) -> Entry | None:
    """Return the one entry of a subject, None where there is none or are several."""
    found = [entry for entry in ledger.entries if entry.kind == "audit" and entry.content["subject"] == subject]
    return found[0] if len(found) == 1 else None


def _seen(run_dir: Path, silo: str) -> str:
    """Return the hash of what a silo's audit saw and of what the server opened, in hexadecimal.

    Of a run that kept nothing of the latter, which one from before it was kept did not, it is the silo's alone.
    """
    own, opened = observations.observations_digest(_folder(run_dir, silo)), means.means_digest(run_dir / "server")
    return own if opened is None else digest(_SEEN, bytes.fromhex(own), opened).hex()


def _folder(run_dir: Path, silo: str) -> Path:
    return run_dir / "silos" / silo


def _enter(run_dir: Path, silo: str, finding: dict[str, str]) -> None:
    """Append an entry of an audit to a simulated silo's ledger."""
    with _ledger(run_dir, silo) as ledger:
        ledger.audit(finding)


def _ledger(run_dir: Path, silo: str) -> Ledger:
    folder, path = _folder(run_dir, silo), run_dir / "ledgers" / f"{silo}.sqlite"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    return Ledger(path, silo, read_kit(folder).identity, folder / "ledger.head")


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
