"""The section on integrity: what the figures were computed from, so that another can compute them again."""

from __future__ import annotations

from scenarios.report.document.forms import Questions
from scenarios.runs.parts import Hash, LedgerHead, Moment, Part


class FileHash(Part):
    """A file of the run's folder.

    Attributes:
        name: Of the file.
        sha256: Of its bytes.
    """

    name: str
    sha256: Hash


class Override(Part):
    """A person's change of a budget's cap.

    Attributes:
        silo: In whose ledger.
        scope: Of which budget.
        entry: Number of the entry.
        time: When.
        epsilon: The new cap.
        by: Who.
        reason: Why.
    """

    silo: str
    scope: str
    entry: int
    time: Moment
    epsilon: float
    by: str
    reason: str


class Integrity(Part):
    """What the figures were computed from, so that another party can compute them again.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        signer: The public key of who signs the report: the run's server, or the silo whose copy it is.
        ledgers: What each ledger was.
        not_countersigned: Silos of the run that did not countersign its end.
        code_hash: Over the code that ran.
        scenario_hash: By which silos know the scenario.
        dependencies: Installed versions, name==version, sorted.
        dependencies_hash: SHA-256 over those lines.
        files: Of the run's folder. On the page, the hash of the page itself and of the registry entry are left out.
        overrides: In the ledgers.
    """

    nist: Questions = (
        "Can the claim be checked by another party?",
        "Which code and which libraries ran?",
        "Who changed what may be spent?",
    )
    signer: Hash
    ledgers: tuple[LedgerHead, ...]
    not_countersigned: tuple[str, ...]
    code_hash: Hash
    scenario_hash: Hash
    dependencies: tuple[str, ...]
    dependencies_hash: Hash
    files: tuple[FileHash, ...]
    overrides: tuple[Override, ...]
