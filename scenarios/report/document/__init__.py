"""What a report says, as one document: claim, scope, trust, mechanism, accounting, what is not protected, audit, more.

The page and the registry entry are made from this document and from nothing else, and `report verify` computes it again
and compares every field. Its JSON schema is published with the page (`report.schema.json`).

Sections follow what NIST SP 800-226 (Guidelines for Evaluating Differential Privacy Guarantees, 2025) says one has to
ask of a claim; each names, in `nist`, the questions that it answers.

Does NOT say that a figure is true: `scenarios.report` computes figures from ledgers, and compares them again.
"""

from __future__ import annotations

from scenarios.report.document.accounting import Accounting, CurvePoint, Method, SiloAccounting
from scenarios.report.document.audit import (
    Attack,
    Audit,
    AuditGuesses,
    Exposure,
    ExposureBefore,
    Gauge,
    LowerBound,
    Membership,
    PlanEntry,
    Power,
    Scores,
    Unmeasured,
)
from scenarios.report.document.claim import Claim, Odometer, SiloClaim
from scenarios.report.document.forms import Epsilon
from scenarios.report.document.integrity import FileHash, Integrity, Override
from scenarios.report.document.mechanism import Dropout, Mechanism, PhaseMechanism, SiloMechanism, Withdrawal
from scenarios.report.document.purpose import Answerable, Purpose
from scenarios.report.document.report import FORMAT, SCHEMA_ID, Approval, Built, Limits, NotProtected, Report, RunFacts
from scenarios.report.document.scope import DataSet, LedgerRun, RunPart, Scope, SiloBudget
from scenarios.report.document.training import BudgetLine, BudgetPoint, RoundFigures, Training
from scenarios.report.document.trust import SecureAggregation, Seen, Trust

__all__ = [
    "FORMAT",
    "SCHEMA_ID",
    "Accounting",
    "Answerable",
    "Approval",
    "Attack",
    "Audit",
    "AuditGuesses",
    "BudgetLine",
    "BudgetPoint",
    "Built",
    "Claim",
    "CurvePoint",
    "DataSet",
    "Dropout",
    "Epsilon",
    "Exposure",
    "ExposureBefore",
    "FileHash",
    "Gauge",
    "Integrity",
    "LedgerRun",
    "Limits",
    "LowerBound",
    "Mechanism",
    "Membership",
    "Method",
    "NotProtected",
    "Odometer",
    "Override",
    "PhaseMechanism",
    "PlanEntry",
    "Power",
    "Purpose",
    "Report",
    "RoundFigures",
    "RunFacts",
    "RunPart",
    "Scope",
    "Scores",
    "SecureAggregation",
    "Seen",
    "SiloAccounting",
    "SiloBudget",
    "SiloClaim",
    "SiloMechanism",
    "Training",
    "Trust",
    "Unmeasured",
    "Withdrawal",
]
