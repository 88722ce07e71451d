"""An audit's place in the ledgers: its plan before the run's first charge, its result after; and what it says, read.

Of each silo that was charged, in this order (`scenarios.runs.audit_entries` enters them):

    audit    subject "audit-plan", with the plan's hash: one, and no other since another run was charged
    charge   the run's first
    audit    subject "audit-seen", after the run's last; `attack_again` holds what was seen to it
    audit    subject "audit-result", with the hash of `audit.json`: one

Guarantee: `audit` passes an `audit.json` only if every charged silo's ledger says that its plan was fixed before, and
that it is the result; a result that is entered and not there is refused, so that none that displeases is left away.

`attack_again` evaluates the audit anew, from what the silos' folders keep of the run, and holds every figure to that.
Where those are not at hand, as in a folder that was handed on without them, the ledgers alone vouch for it. What is
found in the model needs the records too, and the base where it stands on one: of that likewise. Code of somebody's own
is never run to read a report.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from pydantic import ValidationError

from fedmodel.audit.plan import plan_hash
from fedmodel.canaries import observations
from fedmodel.errors import ClaimRefuted, ConfigError, LedgerTampered
from scenarios.audit.black_box import why_not_here
from scenarios.audit.evaluate import evaluate
from scenarios.report import document
from scenarios.report.diff import ATTACKED_AGAIN, differences
from scenarios.report.gather import Gathered
from scenarios.runs.audit_entries import AUDIT_FILE, PLAN_SUBJECT, RESULT_SUBJECT, result_hash
from scenarios.runs.ledgers import SiloLedger

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
            for entry in ledger.audits(RESULT_SUBJECT):
                raise LedgerTampered(
                    f"{AUDIT_FILE} is missing: silo {ledger.silo}'s ledger has its result at entry {entry.sequence}"
                )
        return None
    plan = found.get("plan")
    if not isinstance(plan, dict) or found.get("plan_hash") != plan_hash(plan):
        raise LedgerTampered(f"{AUDIT_FILE}: its plan_hash is not the hash of its plan")
    result = result_hash(gathered.run_dir)
    entered = [
        _entered(ledger, found["plan_hash"], result)
        for ledger in gathered.ledgers.values()
        if ledger.own is not None and ledger.own.charges
    ]
    section = _read(found, entered)
    _check_claim(gathered, section)
    return section


def _check_claim(gathered: Gathered, section: document.Audit) -> None:
    """Refuse an audit that attacked another claim than the report's: another epsilon, or one at another delta."""
    claims = []
    for ledger in gathered.ledgers.values():
        if ledger.own is None or ledger.scope is None:
            continue
        delta = ledger.scope.delta
        claims.append(ledger.claim(delta)["epsilon"])
        if section.delta != delta:
            raise ClaimRefuted(f"audit.delta: {section.delta} stands, {delta} follows from the ledger of {ledger.silo}")
    if not math.isclose(section.claimed_epsilon, max(claims), rel_tol=_TOLERANCE):
        raise ClaimRefuted(
            f"audit.claimed_epsilon: {section.claimed_epsilon} stands, {max(claims)} follows from the ledgers"
        )


def attack_again(gathered: Gathered) -> str:
    """Evaluate an audit anew, and hold what it said to that.

    Returns:
        What of it was not evaluated, and why; empty where all was, or there was none.

    Raises:
        ClaimRefuted: When a figure does not follow; the first is named.
        LedgerTampered: When plan, coins or observations are not those that ledgers were told of.
    """
    silos = gathered.scenario.federation.silos
    seen = [(gathered.run_dir / "silos" / silo / observations.FOLDER).is_dir() for silo in silos]
    if gathered.audit is None:
        return ""
    if not any(seen):
        return "NOT evaluated again: whoever ran it can, by silos/NAME/audit in the run's own folder"
    lacking = why_not_here(gathered.scenario, gathered.run_dir)
    if lacking is not None and gathered.scenario.audit is not None and gathered.scenario.audit.canaries == "loss":
        return f"NOT evaluated again: {lacking}"
    try:
        follows = json.loads(json.dumps(evaluate(gathered.scenario, gathered.run_dir, infers=lacking is None)))
    except ConfigError as error:
        raise LedgerTampered(f"what the silos' audits saw is not as it was kept: {error}") from None
    found = gathered.audit if lacking is None else {**gathered.audit, "membership": None}
    for difference in differences(found, follows, tolerances=ATTACKED_AGAIN):
        raise ClaimRefuted(
            f"{AUDIT_FILE}: {difference.path}: {difference.one!r} stands, {difference.other!r} follows from what the"
            " silos' audits saw"
        )
    return "" if lacking is None else f"evaluated again, but NOT what it inferred of membership: {lacking}"


def _entered(ledger: SiloLedger, plan: str, result: str) -> dict[str, Any]:
    """Find plan, first charge and result in a ledger, in this order."""
    charges = [(entry.sequence, entry.run) for entry in ledger.entries if entry.kind == "charge"]
    first = next(sequence for sequence, run in charges if run == ledger.run)
    before = max((sequence for sequence, _ in charges if sequence < first), default=0)
    plans = [entry for entry in ledger.audits(PLAN_SUBJECT) if before < entry.sequence < first]
    if [entry.content.get("plan") for entry in plans] != [plan]:
        raise LedgerTampered(
            f"silo {ledger.silo}'s ledger does not hold the audit's plan ({plan[:16]}...), and no other, before its"
            f" first charge, entry {first}; what is planned afterwards can be chosen to pass"
        )
    results = [entry for entry in ledger.audits(RESULT_SUBJECT) if entry.sequence > first]
    if [entry.content.get("document") for entry in results] != [result]:
        raise LedgerTampered(
            f"silo {ledger.silo}'s ledger does not hold this {AUDIT_FILE} ({result[:16]}...), and no other, as the"
            " result"
        )
    return {
        "silo": ledger.silo,
        "plan_entry": plans[0].sequence,
        "first_charge_entry": first,
        "result_entry": results[-1].sequence,
    }


def _read(found: dict[str, Any], entered: list[dict[str, Any]]) -> document.Audit:
    try:
        told = {**found, "entered": entered, "power": {"power": found["power"], **found["power_test"]}}
        del told["power_test"]
        return document.Audit.model_validate_json(json.dumps(told))
    except (KeyError, TypeError) as error:
        raise LedgerTampered(f"{AUDIT_FILE}: says nothing of the audit's power ({error})") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise LedgerTampered(f"{AUDIT_FILE}: {where}: {first['msg']}") from None
