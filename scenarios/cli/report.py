"""The verbs of a report. Thin: `scenarios.report.build` has the answers, and `scenarios.report.verifier` a program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from fedmodel.crypto.openers import ask_opener
from fedmodel.errors import ClaimRefuted, LedgerError
from fedmodel.system.inert import inert
from scenarios.cli.options import BaseFolder
from scenarios.cli.printing import Json, answer, out
from scenarios.cli.unlocking import KeyFile, PassphraseFile, typed
from scenarios.cli.verbs import Verb

if TYPE_CHECKING:
    from scenarios.report.build import Checked
    from scenarios.report.diff import Difference

report_app = typer.Typer(
    help="A run's report: make it, verify it, compare two, print its schema.", no_args_is_help=True
)  # fmt: skip

NOT_VOUCHED_FOR = 6
"""The exit status of a folder that agrees with itself, and of which not all was checked against what is outside it."""
_LONGEST = 64  # of a value that is printed: a key in hexadecimal

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]


@report_app.command("build")
def report_build(
    run: RunFolder,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    dpia: Annotated[
        bool, typer.Option("--dpia", help="Write dpia.md besides, a draft of a data protection impact assessment.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a run's report.html, registry.yaml and report.json, signed by the run's server."""
    from fedmodel.provision import is_sealed, unlock
    from scenarios.cli.tables import show_claim
    from scenarios.report import build
    from scenarios.report.dpia import check_absent, write_draft
    from scenarios.report.gather import read_run
    from scenarios.report.page.render import render

    if dpia:
        check_absent(run)
    kit = build.server_kit(run)
    if is_sealed(kit):
        unlock(kit, ask_opener(key_file, passphrase_file, lambda: typed("the server")))
    build.build(run, render)
    more = {}
    if dpia:
        stored = build.read_report(run).report
        more["dpia"] = str(write_draft(run, read_run(run, stored), stored))
        if not as_json:
            line = inert(f"Draft of a DPIA, not verified, for people to finish: {more['dpia']}")
            out.print(line, soft_wrap=True, highlight=False, markup=False)
    show_claim(run, as_json, **more)


@report_app.command("verify")
def report_verify(
    run: RunFolder,
    key: Annotated[
        str | None, typer.Option(help="The server's public key, in hexadecimal. Default: the silos' laws'.")
    ] = None,
    authority: Annotated[
        str | None,
        typer.Option(help="The authority's fingerprint, as `authority show` prints it; or its public key. An anchor."),
    ] = None,
    silo_key: Annotated[
        list[str] | None, typer.Option("--silo-key", metavar="NAME=HEX", help="A silo's public key. An anchor.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="The model, opened, where the folder has it sealed.")] = None,
    base: BaseFolder = None,
    as_json: Json = False,
) -> None:
    """Compute a report again from the ledgers, and check every figure, file and signature; name the first that fails.

    Whoever makes up a folder makes up its keys too: an anchor comes from a source that you trust, and not from the
    folder.

    Exit status: 0 all of it is vouched for by an anchor and countersigned by every silo, 3 a figure does not follow,
    4 a ledger, a file or a signature is not as it was written, or not of the anchor, or the page could run something, 6
    the folder agrees with itself, and not all of it was checked: no anchor, no countersignature of a silo, a sealed
    model, a page that was not rendered again, or an audit that was not evaluated again.
    """
    from scenarios.report import build
    from scenarios.report.anchors import Anchors
    from scenarios.report.page.render import render

    anchors = Anchors.of(authority, silo_key or ())
    try:
        checked = build.verify(run, key, render, anchors, model, base)
    except (ClaimRefuted, LedgerError) as error:
        if as_json:
            answer({"valid": False, "code": error.code, "reason": str(error)}, "", as_json)
        raise
    if as_json:
        items = [{"item": item, "found": found} for item, found in checked.items]
        signer = checked.report.integrity.signer
        told = {
            "valid": True,
            "anchored": not checked.not_anchored,
            "not_anchored": list(checked.not_anchored),
            "not_countersigned": list(checked.not_countersigned),
            "model_compared": checked.model_compared,
            "signer": signer,
            "key_given": checked.outside,
            "page_rendered": checked.rendered,
            "audit_evaluated": checked.evaluated,
        }
        answer({**told, "checked": items}, "", as_json)
        raise typer.Exit(0 if checked.whole else NOT_VOUCHED_FOR)
    out.print(_standing(checked), style="bold", soft_wrap=True, highlight=False)
    out.print(_found(checked.items), highlight=False)
    line = f"{inert(str(run))}: every figure of its report follows from the folder"
    line += "".join(f". {gap[0].upper()}{gap[1:]}" for gap in _signed_alone(checked))
    line += "".join(f". {told}" for told in _signer(checked))
    out.print(line, soft_wrap=True, highlight=False, markup=False)
    raise typer.Exit(0 if checked.whole else NOT_VOUCHED_FOR)


def _found(items: Iterable[tuple[str, str]]) -> Table:
    """Return what was found of each item: a key, or a silo's name, is folded where it has no room, and never cut."""
    table = Table.grid(padding=(0, 2))
    for _ in ("item", "found"):
        table.add_column(overflow="fold")
    for item, found in items:
        table.add_row(Text(item, "bold"), inert(found))
    return table


def _signer(checked: Checked) -> list[str]:
    """Say what was not checked of whoever signed a report, what that means, and which option would check it."""
    key = checked.report.integrity.signer
    if checked.report.run.booked:
        who = (
            f"Who ran it was NOT checked: it is signed with the key {key}; compare that with the key of whoever ran it,"
            " or give theirs with --key"
        )
        return [who] * (not checked.outside)
    if not checked.anchored:
        return [
            "Who made the folder was NOT checked: only --authority, or --silo-key for each silo, does that. --key"
            f" checks no more than the signature: compare {key} with the server's key"
        ]
    server = (
        f"It is signed with the key {key}, of which nothing outside this folder says that it is the server's. Figures"
        " of privacy do not rest on that; how good the model is does. --key checks it"
    )
    return [server] * (not checked.outside)


def _signed_alone(checked: Checked) -> list[str]:
    """Say what is the word of whoever signed the report, and what would be needed to check it."""
    page = "the page was NOT rendered again and may say anything: read report.json, or verify with the versions named"
    return [page] * (not checked.rendered) + [f"the audit was {checked.not_evaluated}"] * bool(checked.not_evaluated)


def _standing(checked: Checked) -> str:
    """Say in a line what of a folder is vouched for from outside it."""
    if checked.report.run.booked:
        none = "Simulated, and no ledger was kept: nothing outside this folder vouches for any charge in it"
        return "; ".join([none, *_signed_alone(checked)])
    if not checked.anchored:
        nobody = (
            "NOT checked against anything outside this folder: whoever makes up a folder makes up its keys too. Give"
            " --authority, or --silo-key for each silo, from a source that you trust"
        )
        return "; ".join([nobody, *_signed_alone(checked)])
    gaps = [f"nothing from outside vouches for the key of silo {silo}" for silo in checked.not_anchored]
    gaps += [f"no countersignature of silo {silo}" for silo in checked.not_countersigned]
    gaps += [] if checked.model_compared else ["the model lies here sealed, and was not compared: give --model"]
    gaps += _signed_alone(checked)
    if gaps:
        return f"NOT all of it is vouched for from outside this folder: {'; '.join(gaps)}"
    if checked.report.run.copy_for:
        silo = checked.report.run.copy_for
        return f"The ledger of silo {silo} is of a key known from outside this folder, and it countersigned this run"
    return "Every ledger is of a key known from outside this folder, and every silo countersigned this run and model"


@report_app.command("diff")
def report_diff(run: RunFolder, other: RunFolder, as_json: Json = False) -> None:
    """Say what changed from one run's report to another's, by section.

    Each is held to its signature and the key that it names, and to nothing else: `report verify` checks figures.
    """
    from scenarios.report import build

    found = build.diff(run, other)
    if as_json:
        rows = [{"section": one.section, "path": one.path, "one": one.one, "other": one.other, "by": one.by}
                for one in found]  # fmt: skip
        answer({"changes": rows}, "", as_json)
        return
    signers = [(one.one, one.other) for one in found if one.path == "integrity.signer"]
    for one, other in signers:
        out.print(f"two servers signed them: {one} and {other}", soft_wrap=True, highlight=False, markup=False)
    for section, changed in groupby(found, key=lambda one: one.section):
        out.print(section, style="bold")
        for line in _lines(changed):
            out.print(f"  {line}", highlight=False, markup=False)
    if not found:
        out.print("nothing differs")


@report_app.command("verifier")
def report_verifier(
    to: Annotated[Path, typer.Option("--out", help="The file.")] = Path("fedmodel-verify.pyz"), as_json: Json = False
) -> None:
    """Write the verifier that needs neither torch nor Flower: one file that Python runs.

    It needs cryptography, numpy, scipy and dp-accounting, says what it does not compute again, and ends with 6 at best.
    The same version of fedmodel always writes the same bytes.
    """
    from hashlib import sha256

    from scenarios.report.verifier.zipped import write_verifier

    write_verifier(to)
    digest = sha256(to.read_bytes()).hexdigest()
    answer({"verifier": str(to), "sha256": digest}, f"{digest}  {inert(str(to))}", as_json)


@report_app.command("schema")
def report_schema() -> None:
    """Print the JSON schema of what report.json has under `report`."""
    from scenarios.report.page.schema import schema_text

    print(schema_text(), end="")  # noqa: T201


def _lines(rows: Iterator[Difference]) -> Iterator[str]:
    """Return changes in words, a line each."""
    for row in rows:
        name = row.path.partition(".")[2] or row.path
        by = "" if row.by is None else f" ({row.by:+.6g})"
        one, other = _shown(row.one), _shown(row.other)
        if one == other:  # the beginning of a text does not tell them apart
            one, other = repr(row.one), repr(row.other)
        yield f"{inert(name)}: {one} -> {other}{by}"


def _shown(value: Any) -> str:
    text = "none" if value is None else inert(str(value)).removesuffix(".0")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


VERBS: Final = (Verb(70, "report", report_app),)
