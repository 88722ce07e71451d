"""A run's report: gathered from its folder, built and signed, verified by computing it again, compared with another's.

    report.html      a page for people (`scenarios.report.page.render`)
    pictures.json    what it shows besides, where it shows pictures
    registry.yaml    an entry for a registry of deployments
    report.json      the document, signed by the run's server

An earlier `report.json` is taken away before the first of them is written, and the new one is written last: a folder
that has one has all that it is of, whenever the process ended.

Guarantee: `verify` passes a folder only if every ledger in it is as it was written, every update in a sum was charged
for, every figure of privacy in the report follows from the ledgers, every other figure from the folder's files, every
file is the one that the report is of, page and registry entry follow from the document, and the run's server, whose key
the silos' laws name or the caller gives, signed it. What could not be checked, it says. Where `Checked.whole` is true,
every silo's ledger is besides of a key that is known from outside the folder, and has the silo's own entry that the run
has ended, for the model that lies here; the page was rendered again, and the audit, where there was one, evaluated
again: whoever has the server's key alone can neither write such a ledger, nor leave
away what it holds of the run, nor use it for a model of which the server told the silo nothing.

Does NOT show that a ledger tells what happened: it shows that the report tells what the ledgers do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from fedmodel.config import SiloFile
from fedmodel.crypto import SigningKey
from fedmodel.errors import ClaimRefuted, ConfigError, LedgerError, LedgerTampered
from fedmodel.provision import read_identity
from fedmodel.system.durable import replace_file
from scenarios.models.trained import find_base
from scenarios.report.anchors import Anchors, hold
from scenarios.report.audited import attack_again
from scenarios.report.compute import MADE, changed_integrity, compute, source_of
from scenarios.report.copies import check_server_report
from scenarios.report.countersigned import check_models
from scenarios.report.diff import FILES, Difference, changes, differences, in_words
from scenarios.report.document import FileHash, Report
from scenarios.report.gather import SCENARIO, file_hash, read_run
from scenarios.report.page import registry, signing
from scenarios.report.page_check import NOT_RENDERED, PAGE, PICTURES, Render, check_page, read_pictures
from scenarios.report.summary_check import check_summary
from scenarios.report.verification import items
from scenarios.runs.files import first_fault


@dataclass(frozen=True)
class Checked:
    """What `verify` found to hold.

    Attributes:
        report: The document.
        items: What was checked, a line each: what it was, and what was found.
        outside: Whether the server's key came from outside the folder.
        rendered: Whether the page was rendered again, and is the same.
        evaluated: Whether the audit was evaluated again; None where there was none.
        not_evaluated: What of it was not, and why; empty where all was, or there was none.
        anchored: Silos whose keys are known from outside the folder.
        not_anchored: Silos of the run whose keys are not.
        not_countersigned: Silos of the run that did not countersign its end.
        model_compared: Whether the model is known to be the one that silos countersigned for.
    """

    report: Report
    items: tuple[tuple[str, str], ...]
    outside: bool
    rendered: bool
    evaluated: bool | None
    not_evaluated: str
    anchored: tuple[str, ...]
    not_anchored: tuple[str, ...]
    not_countersigned: tuple[str, ...]
    model_compared: bool

    @property
    def whole(self) -> bool:
        """Whether all of it is vouched for from outside the folder, and nothing in it is the signer's word alone."""
        vouched = not self.not_anchored and not self.not_countersigned and self.model_compared
        return vouched and self.rendered and self.evaluated is not False


def gather(
    run_dir: Path, stored: Report | None = None, signer: bytes | None = None, law: SiloFile | None = None
) -> Report:
    """Compute a report from a run's folder.

    Args:
        run_dir: The folder.
        stored: The report that is verified: it says up to which entry ledgers are read, and what a machine said of
            itself. None for a new one, which has neither page nor registry entry among its files yet.
        signer: The key that signs, where the silos' laws are not at hand.
        law: The law of the silo whose own report it is: it states who answers for its records.

    Raises:
        ConfigError: When it is no run's folder, or nothing says whose key signs.
        ClaimRefuted: When `summary.json` tells another figure of privacy than the ledgers, or a server's report for a
            silo does not follow.
        LedgerTampered: When a ledger, an audit or a server's report for a silo is not as it was written.
    """
    gathered = read_run(run_dir, stored)
    if law is not None:
        gathered = replace(gathered, laws={**gathered.laws, law.name: law})
    if gathered.by_silo:
        check_server_report(run_dir, gathered, None)
    return compute(gathered, stored, signer)


def build(
    run_dir: Path,
    render: Render,
    key: SigningKey | None = None,
    pictures: Mapping[str, str] | None = None,
    law: SiloFile | None = None,
) -> Path:
    """Write a run's report, and return where the page lies.

    Args:
        run_dir: The folder of a run that has ended.
        render: Makes the page; what it is given lacks the hashes of page and registry entry alone.
        key: The run's server's; by default that of its kit in the folder.
        pictures: That the page shows, SVG by caption; by default those that an earlier page showed.
        law: The law of the silo whose own report it is, which states who answers for its records.

    Raises:
        ConfigError: When it is no run's folder, cannot be written, or the key is not the one that the silos' laws name.
        ClaimRefuted: When a figure of privacy in the folder does not follow from the ledgers.
        LedgerError: When a file, a ledger or an audit is not as it was written.
    """
    identity = read_identity(server_kit(run_dir)) if key is None else key
    with _in_a_line(run_dir):
        report = gather(run_dir, signer=identity.public, law=law)
        if report.integrity.signer != identity.public.hex():
            named = "its ledger is of another silo" if report.run.copy_for else "the silos' laws name another server"
            raise ConfigError(f"{run_dir}: {named} than whose key is to sign; its kit signs")
        shown = read_pictures(run_dir) if pictures is None else pictures
        kept = {} if pictures is None else {PICTURES: (json.dumps(dict(pictures), indent=2) + "\n").encode()}
        report = _of_files(report, kept)
        made = {registry.NAME: registry.to_yaml(report).encode(), PAGE: render(report, shown).encode()}
        signed = signing.seal(_of_files(report, made), identity)
    _write(run_dir, {**kept, **made}, signed)
    return run_dir / PAGE


def _of_files(report: Report, files: Mapping[str, bytes]) -> Report:
    """Return a report that is of these files besides, or in place of those of their names."""
    hashes = {file.name: file.sha256 for file in report.integrity.files}
    hashes |= {name: sha256(data).hexdigest() for name, data in files.items()}
    listed = tuple(FileHash(name=name, sha256=value) for name, value in hashes.items())
    return report.model_copy(update={"integrity": report.integrity.model_copy(update={"files": listed})})


def _write(run_dir: Path, files: Mapping[str, bytes], signed: bytes) -> None:
    """Put a report into its folder: an earlier one is taken away first, so that none stands beside another's page."""
    try:
        (run_dir / signing.NAME).unlink(missing_ok=True)
        for name, data in files.items():
            replace_file(run_dir / name, data)
        replace_file(run_dir / signing.NAME, signed)
    except OSError as error:
        raise ConfigError(f"{run_dir}: the report cannot be written there: {error.strerror}") from None


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
        ConfigError: When there is none, or a file is named in place of its folder.
        LedgerTampered: When it is no report.
    """
    if run_dir.is_file():
        raise ConfigError(f"{run_dir}: is a file, and a report is read as a whole folder; name that: {run_dir.parent}")
    path = run_dir / signing.NAME
    try:
        return signing.open_report(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; `fedmodel report build {run_dir}` makes one"
        ) from None


def verify(
    run_dir: Path,
    key: str | None = None,
    render: Render | None = None,
    anchors: Anchors | None = None,
    model: Path | None = None,
    base: Path | None = None,
) -> Checked:
    """Compute a run's report again, and hold everything to it.

    Args:
        run_dir: The folder.
        key: The public key of the run's server in hexadecimal, from a source that is trusted; by default the one that
            the silos' laws in the folder name.
        render: Makes the page again; without it the page is held to its hash alone.
        anchors: What is known from outside the folder.
        model: The model, opened, where the folder has it sealed.
        base: The folder of the base that the model was trained on, which an audit is evaluated again with.

    Raises:
        ConfigError: When there is no report, nothing says whose key signs, or the base is another.
        ClaimRefuted: When a figure does not follow; the first that does not is named.
        LedgerError: When a ledger, a file or the signature is not as it was written, or a page could run something.
    """
    signed = read_report(run_dir)
    stored, given = signed.report, _public(key)
    with _in_a_line(run_dir):
        _check_files(run_dir, stored)
        gathered = read_run(run_dir, stored)
        if base is not None:
            find_base(gathered.scenario.model, base, run_dir / SCENARIO)
        if model is not None:
            check_models(run_dir, gathered.ledgers, _opened_hash(model))
        held = hold(run_dir, gathered.scenario, gathered.ledgers, anchors or Anchors())
        if held.server is not None and given not in (None, held.server):
            raise LedgerTampered(f"{run_dir}: the authority's roster names another server's key than --key")
        outside, given = given is not None, given or held.server
        if gathered.by_silo:
            check_server_report(run_dir, gathered, given)
            given = None  # the silo signs
        elif gathered.signer is None and given is None:
            raise ConfigError(f"{run_dir}: holds no silo's law, which would name the server's key; give --key")
        elif given is not None and gathered.signer not in (None, given):
            raise LedgerTampered(f"{run_dir}: the silos' laws name another server's key than --key")
        for difference in changed_integrity(gathered, stored, given):
            raise LedgerTampered(f"{signing.NAME}: {in_words(difference)}")
        follows = signing.plain(compute(gathered, stored, given))
        for difference in differences(signing.plain(stored), follows):
            raise ClaimRefuted(f"{signing.NAME}: {in_words(difference)} {source_of(difference.path, stored)}")
        not_attacked, fewer = attack_again(gathered), check_summary(gathered)
        _check_signature(signed)
        page = _check_made(run_dir, stored, render)
    compared = gathered.model is not None or model is not None or gathered.by_silo
    found = items(
        gathered, stored, held=held, given=outside, compared=compared, not_attacked=not_attacked, page=page, fewer=fewer
    )
    return Checked(
        report=stored,
        items=tuple(found),
        outside=outside or held.server is not None,
        rendered=not page.startswith(NOT_RENDERED),
        evaluated=None if gathered.audit is None else not not_attacked,
        not_evaluated=not_attacked,
        anchored=held.silos,
        not_anchored=tuple(silo for silo in gathered.silos if silo not in held.silos),
        not_countersigned=stored.integrity.not_countersigned,
        model_compared=compared,
    )


def diff(run_a: Path, run_b: Path) -> list[Difference]:
    """Return what changed from one run's report to another's, in the order of the document.

    Raises:
        ConfigError: When a run has no report.
        LedgerTampered: When a report is not as its key signed it, or names another signer.
    """
    one, other = read_report(run_a), read_report(run_b)
    _check_signature(one)
    _check_signature(other)
    return list(changes(signing.plain(one.report), signing.plain(other.report)))


def _check_signature(signed: signing.Signed) -> None:
    """Refuse a report that the server whom it names did not sign."""
    if signed.key.hex() != signed.report.integrity.signer:
        raise LedgerTampered(f"{signing.NAME}: is signed by another key than that of the run's server")
    signed.check()


@contextmanager
def _in_a_line(run_dir: Path) -> Iterator[None]:
    """Say in a line what of a folder cannot be read, or is of no form that a run writes."""
    try:
        yield
    except OSError as error:
        raise LedgerError(f"{error.filename or run_dir}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise LedgerTampered(f"{run_dir}: its files are not as a run writes them: {first_fault(error)}") from None


def _check_files(run_dir: Path, stored: Report) -> None:
    """Refuse a folder of which a file is not the one that a report is of, before any is read as what it should be."""
    for file in stored.integrity.files:
        path = run_dir / file.name
        found = file_hash(path) if path.parent == run_dir and path.is_file() else None
        if found != file.sha256:
            raise LedgerTampered(in_words(Difference(f"{FILES}{file.name}", file.sha256, found)))


def _check_made(run_dir: Path, stored: Report, render: Render | None) -> str:
    """Refuse a report without a page or an entry, or of which one does not follow; say what of the page was found."""
    missing = set(MADE) - {file.name for file in stored.integrity.files}
    if missing:
        raise LedgerTampered(f"{signing.NAME}: is of no {min(missing)}, and a report is made with one")
    files = tuple(file for file in stored.integrity.files if file.name not in MADE)
    given = stored.model_copy(update={"integrity": stored.integrity.model_copy(update={"files": files})})
    follow = [registry.to_yaml(given, before=before).encode() for before in (False, True)]
    if (run_dir / registry.NAME).read_bytes() not in follow:
        raise ClaimRefuted(f"{registry.NAME}: is not the entry that follows from the report")
    return check_page(run_dir, given, render)


def _opened_hash(model: Path) -> str:
    try:
        return file_hash(model)
    except OSError as error:
        raise ConfigError(f"--model {model}: cannot be read: {error.strerror}") from None


def _public(key: str | None) -> bytes | None:
    try:
        public = None if key is None else bytes.fromhex(key)
    except ValueError:
        public = b""
    if public is not None and len(public) != 32:
        raise ConfigError("--key is a public key: 32 bytes in hexadecimal")
    return public
