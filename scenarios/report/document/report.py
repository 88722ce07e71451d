"""The whole document, and its parts that are no section of their own.

Guarantee: a document is frozen, has no field that is not named here, no NaN and no infinity. An epsilon for which no
bound is computed is null, never a number.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import ConfigDict, Field

from scenarios.report.document.accounting import Accounting
from scenarios.report.document.audit import Audit
from scenarios.report.document.claim import Claim
from scenarios.report.document.forms import Questions
from scenarios.report.document.integrity import Integrity
from scenarios.report.document.mechanism import Mechanism
from scenarios.report.document.purpose import Purpose
from scenarios.report.document.scope import Scope
from scenarios.report.document.training import Training
from scenarios.report.document.trust import Trust
from scenarios.runs.parts import Hash, Moment, Part

FORMAT: Final = "fedmodel-report/3"
SCHEMA_ID: Final = "report.schema.json"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class Built(Part):
    """When and with what the report was made: taken as stored when it is verified, by its signature alone.

    Attributes:
        at: When.
        fedmodel: The version.
        python: The interpreter's version.
        libraries: Installed versions of what was computed and drawn with, by name.
        page: Over the code and templates that rendered the page: where they are the same, so is the page.
    """

    at: Moment
    fedmodel: str
    python: str
    libraries: dict[str, str]
    page: Hash


class RunFacts(Part):
    """Which run it is of.

    Attributes:
        scenario: Its name.
        summary: In a line.
        run: Its number in the ledgers; null where no silo entered one.
        name: What its server calls it; left out where it has no name.
        engine: What carried the run: "in-process", "flower", "vectorised", "ray" or "deployment".
        device: Where silos trained.
        parameters: Of the model.
        silos: Their names, in the scenario's order.
        seed: Of everything that is no secret.
        first_charge: When the first charge was entered.
        last_charge: When the last one was.
        seconds: It took in all.
        reported: Whether no ledger was at hand, so that figures are what silos reported to the server, which signs.
        booked: Whether a simulation kept no ledger, so that figures follow from the book of whoever ran it, who signs.
        copy_for: The silo whose copy this is: no other silo's figures are in it; null where it is no copy.
        rehearsal: Whether a deployment was rehearsed on one machine, where one account owned all tables.
        besides: Jobs that silos were asked to answer besides training, by name.
    """

    scenario: str
    summary: str
    run: str | None
    engine: str
    device: str
    parameters: int
    silos: tuple[str, ...]
    seed: int | None
    first_charge: Moment | None
    last_charge: Moment | None
    seconds: float
    # Left out of what is signed where they say nothing: a report from before them verifies as it was.
    name: str | None = Field(default=None, exclude_if=lambda name: name is None)
    reported: bool = Field(default=False, exclude_if=lambda reported: not reported)
    booked: bool = Field(default=False, exclude_if=lambda booked: not booked)
    copy_for: str | None = Field(default=None, exclude_if=lambda silo: silo is None)
    rehearsal: bool = Field(default=False, exclude_if=lambda rehearsal: not rehearsal)
    besides: tuple[str, ...] = Field(default=(), exclude_if=lambda jobs: not jobs)

    @property
    def without_ledgers(self) -> str:
        """Which words say that no ledger was at hand, and whose the figures are; empty where ledgers were."""
        return "booked" if self.booked else "reported" if self.reported else ""

    @property
    def setting(self) -> Literal["simulated", "rehearsed", "deployed"]:
        """How parties stood to one another: only in a deployment had each its own machine and people."""
        if self.engine != "deployment":
            return "simulated"
        return "rehearsed" if self.rehearsal else "deployed"


class NotProtected(Part):
    """What the claim does not cover in this run.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        statements: Plainly, those that apply.
    """

    nist: Questions = ("What does the guarantee not promise?", "Which hazards of deployment remain?")
    statements: tuple[str, ...]


class Approval(Part):
    """What a person found or signed off, as a ledger says.

    Attributes:
        silo: In whose ledger.
        entry: Number of the entry.
        time: When.
        subject: Of what.
        by: Who.
        digest: Of what was approved; null where the entry has none.
    """

    silo: str
    entry: int
    time: Moment
    subject: str
    by: str
    digest: str | None


class Limits(Part):
    """What this report does not say, and who stands behind the run.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        statements: What it does not say.
        approvals: In the ledgers.
        signature_lines: For whoever signs on paper: roles.
    """

    nist: Questions = ("What is left for a person to judge?", "Who approved it?")
    statements: tuple[str, ...]
    approvals: tuple[Approval, ...]
    signature_lines: tuple[str, ...]


class Report(Part):
    """The whole document."""

    model_config = ConfigDict(
        title="A report of fedmodel", json_schema_extra={"$id": SCHEMA_ID, "$schema": _DIALECT}
    )  # fmt: skip

    format: Literal["fedmodel-report/3"] = FORMAT
    built: Built
    run: RunFacts
    # Left out of what is signed where nothing was stated: a report from before it verifies as it was.
    purpose: Purpose | None = Field(default=None, exclude_if=lambda said: said is None)
    claim: Claim
    scope: Scope
    trust: Trust
    mechanism: Mechanism
    accounting: Accounting
    not_protected: NotProtected
    audit: Audit | None
    training: Training
    integrity: Integrity
    limits: Limits
