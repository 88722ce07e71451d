"""The document, computed from what a run's folder says: for a new report, and again for one that is verified.

What a machine says of itself when it builds a report (`Built`, and installed versions) is taken as stored: nobody can
compute it again, and the signature alone vouches for it.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from typing import Any, Final

from fedmodel.errors import ConfigError
from scenarios.report import sections, sentences
from scenarios.report.audited import audit
from scenarios.report.diff import Difference, differences
from scenarios.report.document import Built, NotProtected, Report
from scenarios.report.gather import METRICS, SCENARIO, SUMMARY, Gathered, file_hash
from scenarios.report.page import registry, signing
from scenarios.report.page_check import PAGE, page_hash
from scenarios.report.summary_check import check_summary
from scenarios.runs.event_book import BOOK
from scenarios.runs.explanation import EXPLANATION

MADE: Final = (registry.NAME, PAGE)
_LIBRARIES: Final = ("dp-accounting", "jinja2", "kiwisolver", "matplotlib", "numpy", "opacus", "scipy", "torch")


def compute(gathered: Gathered, stored: Report | None, given: bytes | None) -> Report:
    """Compute the document, and hold the summary to it.

    Args:
        gathered: What the folder says.
        stored: The report that is verified, None for a new one.
        given: The key that signs, where the silos' laws are not at hand.

    Raises:
        ConfigError: When nothing says whose key signs.
        ClaimRefuted: When a figure of privacy in the folder does not follow from the ledgers.
        LedgerError: When the folder does not say what a report is made from.
    """
    signer = gathered.signer or given
    if signer is None:
        raise ConfigError(f"{gathered.run_dir}: holds no silo's law, which would name the server's key")
    check_summary(gathered)
    told = sections.told_of(gathered)
    named = stored is None or _names_runs(stored)
    mechanism, counted = (
        sections.mechanism(gathered, told),
        sections.counted(gathered, None if stored is None else stored.accounting),
    )
    return Report(
        built=_built() if stored is None else stored.built,
        run=sections.run_facts(gathered, named=named),
        purpose=sections.purpose(gathered, None if stored is None else stored.purpose),
        claim=sections.claim(gathered, mechanism, counted),
        scope=sections.scope(gathered, named=named),
        trust=sections.trust(gathered, told, None if stored is None else stored.trust),
        mechanism=mechanism,
        accounting=counted,
        not_protected=NotProtected(statements=sentences.not_protected(gathered)),
        audit=audit(gathered),
        training=sections.training(gathered, told, named=stored is None or stored.training.used is not None),
        integrity=sections.integrity(gathered, signer, _dependencies(stored), _files(gathered, stored)),
        limits=sections.limits(gathered),
    )


def _names_runs(stored: Report) -> bool:
    """Return whether a report says what servers call runs: one from before did not, and verifies as it was."""
    names = [run.name for budget in stored.scope.budgets for run in budget.runs]
    return any(name is not None for name in (stored.run.name, *names))


def changed_integrity(
    gathered: Gathered, stored: Report, given: bytes | None, made: Sequence[str] = MADE
) -> Iterator[Difference]:
    """Go through what of ledgers, files and keys is not what the report is of.

    Args:
        gathered: What the folder says.
        stored: The report.
        given: As for `compute`.
        made: Of what was made from the report, what lies in the folder.
    """
    signer = gathered.signer or given or b""
    follows = sections.integrity(gathered, signer, _dependencies(stored), _files(gathered, stored))
    one, other = stored.integrity.model_dump(mode="json"), follows.model_dump(mode="json")
    # Files by name: one that is gone should not make all that stand behind it look changed.
    for part in (one, other):
        part["files"] = {
            file["name"]: file["sha256"] for file in part["files"] if file["name"] in made or file["name"] not in MADE
        }
    yield from differences(one, other, "integrity")


def _files(gathered: Gathered, stored: Report | None) -> dict[str, str]:
    """Return the folder's files by name; with those that a report is made of, where it was."""
    made = MADE if stored is not None else ()
    found = gathered.files()
    return found | {name: file_hash(gathered.run_dir / name) for name in made if (gathered.run_dir / name).is_file()}


def _dependencies(stored: Report | None) -> list[str]:
    """Return what is installed, or what was when a stored report was made."""
    if stored is not None:
        return list(stored.integrity.dependencies)
    found = (one.metadata for one in distributions())  # each parsed anew wherever it is asked for
    return sorted({f"{one['Name'].lower().replace('_', '-')}=={one['Version']}" for one in found})


def _built() -> Built:
    return Built(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        fedmodel=version("fedmodel"),
        python=platform.python_version(),
        libraries={name: version(name) for name in _LIBRARIES},
        page=page_hash(),
    )


def source_of(path: str, stored: Report) -> str:
    """Say from what a field follows."""
    section, _, rest = path.partition(".")
    if path.startswith("training.explanation"):
        return f"from {EXPLANATION}"
    if section == "training" and not rest.startswith("budgets"):
        return f"from {METRICS}"
    if section == "audit":
        return "from audit.json"
    part: Any = signing.plain(stored)
    silo = None
    for step in path.replace("[", ".[").split("."):
        try:
            part = part[int(step[1:-1])] if step.startswith("[") else part[step]
        except (KeyError, IndexError, TypeError):
            break
        if isinstance(part, dict) and "silo" in part:
            silo = part["silo"]
    if stored.run.booked:
        return f"from {BOOK}, {SCENARIO} and {SUMMARY}"
    if silo is not None:
        return f"from the ledger of {silo!r}"
    return f"from the ledgers, {SCENARIO} and {SUMMARY}"
