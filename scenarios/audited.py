"""An audit's place in the ledgers: its plan before the run's first charge, its result after; and what it says, read.

Of each silo that was charged, in this order: an `audit` entry of subject "audit-plan" whose `digest` is the plan's
hash, the run's first charge, an `audit` entry of subject "audit-result" whose `digest` is the SHA-256 of `audit.json`.

Guarantee: `audit` passes an `audit.json` only if every charged silo's ledger says that its plan was fixed before, and
that it is the result; a result that is entered and not there is refused, so that none that displeases is left away.
"""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import ValidationError

from fedmodel import accounting
from fedmodel.audit.plan import plan_hash
from fedmodel.errors import ClaimRefuted, LedgerTampered
from fedmodel.report import document
from scenarios.gathering import AUDIT, Gathered, SiloLedger, file_hash

PLAN: Final = "audit-plan"
RESULT: Final = "audit-result"
_TOLERANCE: Final = 1e-6


def audit(gathered: Gathered) -> document.Audit | None:
    """Return what `audit.json` says, held to the ledgers; None where there was no audit.

    Raises:
        LedgerTampered: When the ledgers hold another plan or result, or none, or the plan came after a charge.
        ClaimRefuted: When it attacked another claim than follows from the ledgers.
    """
    found = gathered.audit
    if found is None:
        for ledger in gathered.ledgers.values():
            for entry in ledger.audits(RESULT):
                raise LedgerTampered(
                    f"{AUDIT} is missing: silo {ledger.silo}'s ledger has its result at entry {entry.sequence}"
                )
        return None
    plan = found.get("plan")
    if not isinstance(plan, dict) or found.get("plan_hash") != plan_hash(plan):
        raise LedgerTampered(f"{AUDIT}: its plan_hash is not the hash of its plan")
    result = file_hash(gathered.run_dir / AUDIT)
    entered = [
        _entered(ledger, found["plan_hash"], result)
        for ledger in gathered.ledgers.values()
        if ledger.own is not None and ledger.own.charges
    ]
    section = _read(found, entered)
    _check_claimed(gathered, section.claimed_epsilon)
    return section


def _entered(ledger: SiloLedger, plan: str, result: str) -> dict[str, Any]:
    """Find plan, first charge and result in a ledger, in this order."""
    first = next(entry.sequence for entry in ledger.entries if entry.kind == "charge" and entry.run == ledger.run)
    plans = [entry for entry in ledger.audits(PLAN) if entry.content.get("digest") == plan and entry.sequence < first]
    if not plans:
        raise LedgerTampered(
            f"silo {ledger.silo}'s ledger does not hold the audit's plan ({plan[:16]}...) before its first charge,"
            f" entry {first}; what is planned afterwards can be chosen to pass"
        )
    results = [entry for entry in ledger.audits(RESULT) if entry.sequence > first]
    if not results or results[-1].content.get("digest") != result:
        raise LedgerTampered(f"silo {ledger.silo}'s ledger does not hold this {AUDIT} ({result[:16]}...) as the result")
    return {
        "silo": ledger.silo,
        "plan_entry": plans[-1].sequence,
        "first_charge_entry": first,
        "result_entry": results[-1].sequence,
    }


def _read(found: dict[str, Any], entered: list[dict[str, Any]]) -> document.Audit:
    try:
        return document.Audit.model_validate_json(json.dumps({**found, "entered": entered}))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise LedgerTampered(f"{AUDIT}: {where}: {first['msg']}") from None


def _check_claimed(gathered: Gathered, claimed: float) -> None:
    """Refuse an audit of another claim than that of the plans which the ledgers reserved."""
    runs = [(ledger, ledger.own) for ledger in gathered.ledgers.values() if ledger.own is not None]
    whole = [(run.plan, ledger.standing.scopes[run.scope].delta) for ledger, run in runs]
    low = max(accounting.epsilon([plan], delta) for plan, delta in whole)
    high = max(accounting.epsilon([plan], delta, accounting.COARSE_GRID) for plan, delta in whole)
    if not low * (1 - _TOLERANCE) <= claimed <= high * (1 + _TOLERANCE):
        raise ClaimRefuted(f"audit.claimed_epsilon: {claimed} stands, {low} follows from the ledgers' reservations")
