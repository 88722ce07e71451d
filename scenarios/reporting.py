"""A run's report: gathered from its folder, built and signed, verified by computing it again, compared with another's.

    report.html      a page for people (`fedmodel.report.page`)
    registry.yaml    an entry for a registry of deployments
    report.json      the document, signed by the run's server; written last, so a folder that has it has all three

Guarantee: `verify` passes a folder only if every ledger in it is as it was written, every figure of privacy in the
report follows from them, every other figure from the folder's files, every file is the one that the report is of, and
the run's server, whose key the silos' laws name or the caller gives, signed the document.

What a machine says of itself when it builds a report (`Built`, and installed versions) is taken as stored: nobody can
compute it again, and the signature alone vouches for it.

Does NOT show that a ledger tells what happened: it shows that the report tells what the ledgers do.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any, Final

from fedmodel.crypto import SigningKey
from fedmodel.durable import replace_file
from fedmodel.errors import ClaimRefuted, ConfigError, LedgerTampered
from fedmodel.packages import code_hash
from fedmodel.provision import read_identity
from fedmodel.report import registry, signing
from fedmodel.report.document import Built, FileHash, NotProtected, Report
from scenarios import sections, statements
from scenarios.audited import attack_again, audit
from scenarios.differences import Difference, changes, differences
from scenarios.gathering import METRICS, SCENARIO, SUMMARY, Gathered, file_hash, read_run
from scenarios.rendering import page_hash
from scenarios.summary import rows_from_ledgers

PAGE: Final = "report.html"
_LIBRARIES: Final = ("dp-accounting", "jinja2", "matplotlib", "numpy", "opacus", "scipy", "torch")
_MADE: Final = (registry.NAME, PAGE)
# A cap that a person changes after the run is no fault of the summary's, which tells the one of its time.
_LATER: Final = ("budget",)


@dataclass(frozen=True)
class Checked:
    """What `verify` found to hold.

    Attributes:
        report: The document.
        items: What was checked, a line each: what it was, and what was found.
    """

    report: Report
    items: tuple[tuple[str, str], ...]


def gather(run_dir: Path, stored: Report | None = None, signer: bytes | None = None) -> Report:
    """Compute a report from a run's folder.

    Args:
        run_dir: The folder.
        stored: The report that is verified: it says up to which entry ledgers are read, and what a machine said of
            itself. None for a new one, which has neither page nor registry entry among its files yet.
        signer: The key that signs, where the silos' laws are not at hand.

    Raises:
        ConfigError: When it is no run's folder, or nothing says whose key signs.
        ClaimRefuted: When `summary.json` tells another figure of privacy than the ledgers.
        LedgerTampered: When a ledger, or an audit, is not as it was written.
    """
    return _compute(read_run(run_dir, stored), stored, signer)


def build(run_dir: Path, render: Callable[[Report], str], key: SigningKey | None = None) -> Path:
    """Write a run's report, and return where the page lies.

    Args:
        run_dir: The folder of a run that has ended.
        render: Makes the page; what it is given lacks the hashes of page and registry entry alone.
        key: The run's server's; by default that of its kit in the folder.

    Raises:
        ConfigError: When it is no run's folder, or the key is not the one that the silos' laws name.
        ClaimRefuted: When a figure of privacy in the folder does not follow from the ledgers.
        LedgerTampered: When a ledger, or an audit, is not as it was written.
    """
    identity = read_identity(server_kit(run_dir)) if key is None else key
    report = gather(run_dir, signer=identity.public)
    if report.integrity.signer != identity.public.hex():
        raise ConfigError(f"{run_dir}: the silos' laws name another server than whose key is to sign; its kit signs")
    made = {PAGE: render(report), registry.NAME: registry.to_yaml(report)}
    for name, text in made.items():
        replace_file(run_dir / name, text.encode())
    hashes = tuple(FileHash(name=name, sha256=file_hash(run_dir / name)) for name in _MADE)
    whole = report.integrity.model_copy(update={"files": report.integrity.files + hashes})
    replace_file(run_dir / signing.NAME, signing.seal(report.model_copy(update={"integrity": whole}), identity))
    return run_dir / PAGE


def server_kit(run_dir: Path) -> Path:
    """Return where the kit of a run's server lies: a rehearsal's among all kits, a simulation's in the folder.

    Raises:
        ConfigError: When it is not there.
    """
    for folder in (run_dir / "server", run_dir / "kits" / "server"):
        if any((folder / name).exists() for name in ("identity.key", "identity.age")):
            return folder
    raise ConfigError(f"{run_dir}: holds no server's kit, whose key signs a report; is it a run's folder?")


def read_report(run_dir: Path) -> signing.Signed:
    """Read a run's `report.json`, whose signature is not checked.

    Raises:
        ConfigError: When there is none.
        LedgerTampered: When it is no report.
    """
    path = run_dir / signing.NAME
    try:
        return signing.open_report(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; `fedmodel report build {run_dir}` makes one"
        ) from None


def verify(run_dir: Path, key: str | None = None) -> Checked:
    """Compute a run's report again, and hold everything to it.

    Args:
        run_dir: The folder.
        key: The public key of the run's server in hexadecimal, from a source that is trusted; by default the one that
            the silos' laws in the folder name.

    Raises:
        ConfigError: When there is no report, or nothing says whose key signs.
        ClaimRefuted: When a figure does not follow; the first that does not is named.
        LedgerTampered: When a ledger, a file or the signature is not as it was written.
    """
    signed = read_report(run_dir)
    stored, given = signed.report, _public(key)
    gathered = read_run(run_dir, stored)
    if gathered.signer is None and given is None:
        raise ConfigError(f"{run_dir}: holds no silo's law, which would name the server's key; give --key")
    if given is not None and gathered.signer not in (None, given):
        raise LedgerTampered(f"{run_dir}: the silos' laws name another server's key than --key")
    for difference in _integrity(gathered, stored, given):
        raise LedgerTampered(f"{signing.NAME}: {_told(difference)}")
    follows = signing.plain(_compute(gathered, stored, given))
    for difference in differences(signing.plain(stored), follows):
        raise ClaimRefuted(f"{signing.NAME}: {_told(difference)} {_source(difference.path, stored)}")
    attacked = attack_again(gathered)
    if signed.key.hex() != stored.integrity.signer:
        raise LedgerTampered(f"{signing.NAME}: is signed by another key than that of the run's server")
    signed.check()
    _check_registry(run_dir, stored)
    return Checked(stored, tuple(_items(gathered, stored, given, attacked=attacked)))


def diff(run_a: Path, run_b: Path) -> list[Difference]:
    """Return what changed from one run's report to another's, in the order of the document.

    Raises:
        ConfigError: When a run has no report.
        LedgerTampered: When a report is not as its key signed it.
    """
    one, other = read_report(run_a), read_report(run_b)
    one.check()
    other.check()
    return list(changes(signing.plain(one.report), signing.plain(other.report)))


def _compute(gathered: Gathered, stored: Report | None, given: bytes | None) -> Report:
    """Compute the document, and hold the summary to it."""
    signer = gathered.signer or given
    if signer is None:
        raise ConfigError(f"{gathered.run_dir}: holds no silo's law, which would name the server's key")
    _check_summary(gathered)
    told = sections.told_of(gathered)
    mechanism, counted = sections.mechanism(gathered, told), sections.counted(gathered)
    return Report(
        built=_built() if stored is None else stored.built,
        run=sections.run_facts(gathered),
        claim=sections.claim(gathered, mechanism, counted),
        scope=sections.scope(gathered),
        trust=sections.trust(gathered, told),
        mechanism=mechanism,
        accounting=counted,
        not_protected=NotProtected(statements=statements.not_protected(gathered)),
        audit=audit(gathered),
        training=sections.training(gathered, told),
        integrity=sections.integrity(gathered, signer, _dependencies(stored), _files(gathered, stored)),
        limits=sections.limits(gathered),
    )


def _integrity(gathered: Gathered, stored: Report, given: bytes | None) -> Iterator[Difference]:
    """Go through what of ledgers, files and keys is not what the report is of."""
    signer = gathered.signer or given or b""
    follows = sections.integrity(gathered, signer, _dependencies(stored), _files(gathered, stored))
    one, other = stored.integrity.model_dump(mode="json"), follows.model_dump(mode="json")
    # Files by name: one that is gone should not make all that stand behind it look changed.
    for part in (one, other):
        part["files"] = {file["name"]: file["sha256"] for file in part["files"]}
    yield from differences(one, other, "integrity")


def _files(gathered: Gathered, stored: Report | None) -> dict[str, str]:
    """Return the folder's files by name; with those that a report is made of, where it was."""
    made = _MADE if stored is not None else ()
    found = gathered.files()
    return found | {name: file_hash(gathered.run_dir / name) for name in made if (gathered.run_dir / name).is_file()}


def _dependencies(stored: Report | None) -> list[str]:
    """Return what is installed, or what was when a stored report was made."""
    if stored is not None:
        return list(stored.integrity.dependencies)
    return sorted({f"{one.metadata['Name'].lower().replace('_', '-')}=={one.version}" for one in distributions()})


def _built() -> Built:
    return Built(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        fedmodel=version("fedmodel"),
        python=platform.python_version(),
        libraries={name: version(name) for name in _LIBRARIES},
        page=page_hash(),
    )


def _check_summary(gathered: Gathered) -> None:
    """Refuse a summary that tells another figure of privacy than the ledgers."""
    ledgers = {
        silo: gathered.run_dir / "ledgers" / f"{silo}.sqlite" for silo in gathered.scenario.federation.silos
    }  # fmt: skip
    if any(ledger.newer for ledger in gathered.ledgers.values()):
        return  # it is of an earlier time; the report's own figures are of the entries of then
    told, follows = (
        [{name: value for name, value in row.items() if name not in _LATER} for row in privacy]
        for privacy in (gathered.summary["privacy"], rows_from_ledgers(gathered.scenario, ledgers))
    )
    for difference in differences(told, follows, "privacy"):
        raise ClaimRefuted(f"{SUMMARY}: {_told(difference)} from the ledgers")


def _check_registry(run_dir: Path, stored: Report) -> None:
    """Refuse a report without a page or an entry, and an entry that does not follow from it."""
    missing = set(_MADE) - {file.name for file in stored.integrity.files}
    if missing:
        raise LedgerTampered(f"{signing.NAME}: is of no {min(missing)}, and a report is made with one")
    if (run_dir / registry.NAME).read_text(encoding="utf-8") != registry.to_yaml(stored):
        raise ClaimRefuted(f"{registry.NAME}: is not the entry that follows from the report")


def _public(key: str | None) -> bytes | None:
    try:
        public = None if key is None else bytes.fromhex(key)
    except ValueError:
        public = b""
    if public is not None and len(public) != 32:
        raise ConfigError("--key is a public key: 32 bytes in hexadecimal")
    return public


def _told(difference: Difference) -> str:
    """Return a difference in words: what it is, what stands, what follows."""
    one, other = ("nothing" if value is None else _short(value) for value in (difference.one, difference.other))
    return f"{difference.path}: {one} stands, {other} follows"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _source(path: str, stored: Report) -> str:
    """Say from what a field follows."""
    section, _, rest = path.partition(".")
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
    if silo is not None:
        return f"from the ledger of {silo!r}"
    return f"from the ledgers, {SCENARIO} and {SUMMARY}"


def _items(gathered: Gathered, stored: Report, given: bytes | None, *, attacked: bool) -> Iterator[tuple[str, str]]:
    """Say what was checked."""
    for ledger, head in zip(gathered.ledgers.values(), stored.integrity.ledgers, strict=True):
        whose = "its key is the roster's" if head.key_from == "roster" else "NOBODY ELSE vouches for its key"
        newer = f"; {ledger.newer} newer entries are not in the report" if ledger.newer else ""
        yield f"ledger {ledger.silo}", f"{head.entries} entries, all as they were written; {whose}{newer}"
    silos = len(stored.accounting.silos)
    yield "epsilon", f"PLD, PRV, RDP and the curve of {silos} silos follow from their ledgers"
    yield (
        "summary.json",
        "its figures of privacy follow from the ledgers"
        if not any(ledger.newer for ledger in gathered.ledgers.values())
        else "is the file that the report is of; ledgers have grown since",
    )
    yield "files", ", ".join(file.name for file in stored.integrity.files)
    if stored.audit is not None:
        entries = ", ".join(f"{row.silo} {row.plan_entry} < {row.first_charge_entry}" for row in stored.audit.entered)
        again = "found again from what it saw" if attacked else "NOT evaluated again: what it saw is not here"
        yield "audit", f"{stored.audit.verdict}; {again}; its plan was entered before the first charge ({entries})"
    here = code_hash() == stored.integrity.code_hash
    yield "code", f"{stored.integrity.code_hash[:16]}..., {'as' if here else 'NOT what is'} installed here"
    whose = "--key gives" if given is not None else "the silos' laws name"
    yield "signature", f"of the run's server, {stored.integrity.signer[:16]}..., whose key {whose}"
