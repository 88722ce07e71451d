"""The noun `ledger`: whether one is whole, and what a person enters into it.

Thin: `scenarios.runs.inspection` has the answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from fedmodel.errors import LedgerError
from fedmodel.privacy.rounding import up
from fedmodel.system.counts import counted
from fedmodel.system.inert import inert
from scenarios.cli.options import KitOption, Ledger, said
from scenarios.cli.printing import Json, answer, json_line
from scenarios.cli.unlocking import KeyFile, PassphraseFile, unlocked
from scenarios.cli.verbs import Verb

ledger_app = typer.Typer(help="Whether a ledger is whole, and what a person enters into it.", no_args_is_help=True)

Reason = Annotated[str, typer.Option(help="Why; it is entered.")]


@ledger_app.command("verify")
def ledger_verify(
    ledger: Ledger,
    head: Annotated[list[Path] | None, typer.Option("--head", help="A signed head that somebody kept.")] = None,
    key: Annotated[
        str | None, typer.Option(help="The silo's public key, in hexadecimal. Default: the roster's.")
    ] = None,
    kit: KitOption = None,
    as_json: Json = False,
) -> None:
    """Check every entry, signature, total and byte of a ledger, and that it extends every head that is known."""
    from scenarios.runs import inspection

    try:
        place = inspection.LedgerFiles.meant(ledger, kit, head or ())
        found = inspection.verify(place, head or [], key)
    except LedgerError as error:
        if as_json:
            answer(inspection.refused(error), "", as_json)
        raise
    document = inspection.told(found)
    line = inert(str(place.ledger if ledger.is_dir() else ledger))
    line += f": {counted(document['entries'], 'entry', 'entries')} of silo {document['silo']}, all as they were written"
    if found.heads:
        newest = counted(max(found.heads), "entry", "entries")
        line += f"; extends {counted(len(found.heads), 'signed head')}, the newest of {newest}"
    else:
        line += "; NO signed head is known, so deleted newest entries would not show"
    if found.key_is_its_own:
        line += "; NOBODY ELSE vouches for its key: give --key"
    if not found.unused_compared:
        line += "; its unused bytes were laid out by another version of SQLite and were not compared"
    answer(document, line, as_json)


@ledger_app.command("checkpoint")
def ledger_checkpoint(
    ledger: Ledger,
    to: Annotated[str, typer.Option(help="Who gets it; it is entered.")],
    kit: KitOption = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Print a signed head of a ledger, for somebody else to keep."""
    from scenarios.runs import inspection

    place = unlocked(inspection.LedgerFiles.meant(ledger, kit), key_file, passphrase_file)
    with place.open() as opened:
        note = opened.checkpoint(said(to, "--to")).decode()
    answer({"head": note}, note.rstrip(), as_json)


@ledger_app.command("export")
def ledger_export(ledger: Ledger, kit: KitOption = None, as_json: Json = False) -> None:
    """Verify a ledger, and print its entries: a JSON object a line, or one object with --json."""
    from scenarios.runs import inspection

    documents = inspection.entries(inspection.verify(inspection.LedgerFiles.meant(ledger, kit), [], None))
    answer({"entries": documents}, "\n".join(map(json_line, documents)), as_json)


@ledger_app.command("copy")
def ledger_copy(
    ledger: Ledger,
    to: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, or an older copy, which is replaced.")],
    kit: KitOption = None,
    as_json: Json = False,
) -> None:
    """Verify a ledger, and copy it as it is at one moment, while its silo goes on: for a backup, or an auditor."""
    from scenarios.runs import inspection

    entries = inspection.copy(inspection.LedgerFiles.meant(ledger, kit), to)
    answer(
        {"copy": str(to), "entries": entries},
        f"{to}: a copy of {counted(entries, 'entry', 'entries')}, verified",
        as_json,
    )


@ledger_app.command("void")
def ledger_void(
    ledger: Ledger,
    run: Annotated[str, typer.Argument(help="A run that `budget show` lists, by its name or its number.")],
    reason: Reason,
    round_number: Annotated[
        int | None, typer.Option("--round", help="The newest charge's round. Default: all that is not taken.")
    ] = None,
    kit: KitOption = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give back what a run holds and will not take, or the newest charge if nothing of it left."""
    from scenarios.runs import inspection

    place = unlocked(inspection.LedgerFiles.meant(ledger, kit), key_file, passphrase_file)
    done = inspection.give_back(place, run, round_number, said(reason, "--reason"))
    answer({"done": done}, done, as_json)


@ledger_app.command("override")
def ledger_override(
    ledger: Ledger,
    scope: Annotated[str, typer.Argument(help="A budget that `budget show` lists, as breast-cancer/record.")],
    epsilon: Annotated[float, typer.Option(help="The new cap.")],
    reason: Reason,
    by: Annotated[str, typer.Option(help="Who decides; it is entered.")],
    kit: KitOption = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Change a budget's cap. Until silo.toml says the same, the silo refuses to train."""
    from scenarios.runs import inspection

    place = unlocked(inspection.LedgerFiles.meant(ledger, kit), key_file, passphrase_file)
    inspection.override(place, scope, epsilon, said(reason, "--reason"), said(by, "--by"))
    answer({"scope": scope, "epsilon": epsilon}, f"{scope}: the cap is epsilon {up(epsilon)}, by {by}", as_json)


VERBS: Final = (Verb(20, "ledger", ledger_app),)
