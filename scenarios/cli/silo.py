"""The noun `silo`: start one, and what it insists on.

Thin: `clients.start` and `scenarios.runs.inspection` do the work.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from fedmodel.crypto.openers import ask_opener
from fedmodel.errors import FedmodelError
from fedmodel.system.counts import counted
from fedmodel.system.inert import inert
from scenarios.cli.options import PartyKit, ScenarioName, Settings, said
from scenarios.cli.printing import Json, answer, err, out
from scenarios.cli.unlocking import KeyFile, PassphraseFile, typed, unlocked
from scenarios.cli.verbs import Verb

silo_app = typer.Typer(help="A silo: start it, and what it insists on.", no_args_is_help=True)

_MOST_GROUPS: Final = 20


@silo_app.command("policy")
def silo_policy(
    kit: Annotated[Path, typer.Argument(help="A silo's kit, as silos/NAME.")],
    by: Annotated[str | None, typer.Option("--sign-off", metavar="NAME", help="Enter that NAME approves it.")] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Read the tables, for ids that look like one person's.")] = False,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    code: Annotated[
        bool, typer.Option("--code", help="List the files of the code installed here that a silo runs, by hash.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say in plain sentences what a silo insists on, for a person to approve."""
    from scenarios.runs import inspection

    law, sentences = inspection.law_of(kit)
    if by is not None:
        place = unlocked(
            inspection.LedgerFiles(inspection.ledger_of(kit, law.name), kit.resolve()), key_file, passphrase_file
        )
        inspection.sign_off(place, law, said(by, "--sign-off"))
        sentences = [*sentences, f"Approved by {by}; the ledger says so."]
    document: dict[str, Any] = {"silo": law.name, "sentences": sentences, "policy": law.model_dump(mode="json")}
    if ids:
        document["lookalikes"] = found = inspection.lookalikes_of(kit, law)
        sentences = [*sentences, *(line for name, groups in found.items() for line in _lookalikes(name, groups))]
        document["sentences"] = sentences
    listed: list[str] = []
    if code:
        document["code"] = installed = _code(law.code, law.packages)
        listed = [*(f"{digest}  {name}" for name, digest in installed["files"].items()), installed["sentence"]]
    if as_json:
        answer(document, "", as_json)
        return
    for sentence in sentences:
        out.print(f"- {sentence}", highlight=False, markup=False)
    for line in listed:  # whole, to be copied
        out.print(line, highlight=False, soft_wrap=True)


def _code(named: Collection[str], packages: Mapping[str, str]) -> dict[str, Any]:
    """Return which files a silo could run here, their hash, and whether the law names it."""
    from fedmodel.system.packages import code_files, code_hash

    found, files = code_hash(packages), code_files(packages)
    law = "names" if found in named else "does NOT name, so that nothing is answered with it"
    sentence = (
        f"The code that it would run here is {counted(len(files), 'file')} with hash {found}, which silo.toml {law}."
    )
    return {"hash": found, "named": found in named, "files": files, "sentence": sentence}


def _lookalikes(table: str, groups: list[tuple[str, ...]]) -> list[str]:
    """Say where ids of a table look alike, as many as a person reads."""
    if not groups:
        return [f"No two ids of {table} look alike."]
    more = f" The first {_MOST_GROUPS} follow; --json has all." if len(groups) > _MOST_GROUPS else ""
    return [
        f"Some ids of {table} are several persons' by the form declared, and differ in case, leading zeros, spaces,"
        f" punctuation or width alone; groups of such ids: {len(groups)}.{more}",
        *(f"They look like one person's: {', '.join(places)}." for places in groups[:_MOST_GROUPS]),
    ]


@silo_app.command("report")
def silo_report(
    kit: PartyKit,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that the server's operator handed over.")],
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Write the silo's own report of a run: the server's, held to the silo's ledger, and signed by the silo.

    Exit status: 3 a figure of the server's does not follow, or the ledger says another; 4 a file, a signature or the
    ledger is not as it was written; 2 it is for another silo, or of a server that silo.toml does not name.
    """
    from scenarios.cli.tables import show_claim
    from scenarios.report import deployed
    from scenarios.report.page.render import render
    from scenarios.runs import inspection

    law = deployed.check_silo_kit(kit)
    unlocked(inspection.LedgerFiles(inspection.ledger_of(kit, law.name), kit.resolve()), key_file, passphrase_file)
    page = deployed.silo_report(kit, run, render)
    show_claim(page.parent, as_json)


@silo_app.command("withdraw")
def silo_withdraw(
    kit: Annotated[Path, typer.Argument(help="A silo's kit, a folder of its own.")],
    ids: Annotated[Path, typer.Argument(help="A file with the ids of who withdraws, one a line, as the table has it.")],
    table: Annotated[str | None, typer.Option(help="The one table that they withdraw from. Default: all.")] = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Enter persons whose records no later step reads. What was released before stays as it is.

    The list is sealed in the kit. Nothing is told to the server, and the budget gets nothing back.
    """
    from fedmodel.provision import unlock
    from scenarios.runs.withdrawing import check_withdrawable, withdraw

    check_withdrawable(kit, table)
    unlock(kit, ask_opener(key_file, passphrase_file, lambda: typed("the silo's kit")))
    done = withdraw(kit, ids, table)
    document = {
        "tables": list(done.tables),
        "not_found": dict(done.not_found),
        "not_read": dict(done.not_read),
        "left_out": list(done.left_out),
        "handed_out": list(done.handed_out),
    }
    line = (
        f"Entered. No later step of this silo reads these persons' records in {', '.join(done.tables)}; remove {ids}"
        " now."
    )
    answer(document, inert(line), as_json)
    for name in done.left_out:
        told = f"{name}: they did not withdraw from it, by --table; their records there, if any, are read."
        err.print(told, style="yellow", highlight=False, soft_wrap=True)
    for name in done.handed_out:
        told = (
            f"{name}: rows that are held out may be theirs, and the server measures each model on those it was handed;"
            " hand out again by `silo hold-out`, and have the server's old file replaced."
        )
        err.print(told, style="yellow", highlight=False, soft_wrap=True)
    for name, lines in done.not_found.items():
        told = f"{name}: has no record now of the ids in lines {', '.join(map(str, lines))}; are they written right?"
        err.print(told, style="yellow", highlight=False, soft_wrap=True)
    for name, why in done.not_read.items():
        told = f"{name}: could not be read, so nobody knows whether it has these ids: {why}"
        err.print(told, style="yellow", highlight=False, soft_wrap=True)


@silo_app.command("hold-out")
def silo_hold_out(
    kit: Annotated[Path, typer.Argument(help="A silo's kit, a folder of its own.")],
    scenario: ScenarioName,
    file: Annotated[Path, typer.Argument(help="What is written: a new .csv or .parquet, or a new folder.")],
    settings: Settings = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Write the rows or files that silo.toml holds out, for the server's operator to measure on. They never train.

    They are not protected in any way: whoever has the file reads them.
    """
    from fedmodel.config import read_scenario
    from fedmodel.provision import unlock
    from scenarios.deployment.silo_tables import section
    from scenarios.runs.handing_out import check_hands_out, hand_out

    read = read_scenario(scenario, settings or ())
    check_hands_out(kit, read)
    unlock(kit, ask_opener(key_file, passphrase_file, lambda: typed("the silo's kit")))
    done = hand_out(kit, read, file)
    said = section(f"tables.{done.table}", {done.kind: file.name, **done.keys})
    line = f"Written: {inert(str(file))}. Whoever has it reads these persons' records. In server.toml:\n{said.rstrip()}"
    answer({"file": str(done.file), "table": done.table, "keys": done.keys}, line, as_json)


@silo_app.command("schema")
def silo_schema() -> None:
    """Print the JSON schema of silo.toml."""
    from fedmodel.config import SiloFile

    print(json.dumps(SiloFile.model_json_schema(), indent=2))  # noqa: T201


@silo_app.command("start")
def silo_start(kit: PartyKit, key_file: KeyFile = None, passphrase_file: PassphraseFile = None) -> None:
    """Take part with a silo until interrupted; exit status 2 when kit or server refuses, for good.

    Before it is online its tables are looked at, as `fedmodel data check` does. What is found is said here alone, and
    keeps no silo from starting: whether it is there would tell of values.
    """
    from clients.start import command

    _look_at_tables(kit)
    _become(command(kit, key_file, passphrase_file))


def _look_at_tables(kit: Path) -> None:
    """Say what a run would find in the silo's tables, to a person at a terminal.

    What goes to a log instead, as a service's words do, is no more than a server may be told, and no record is read.
    """
    from fedmodel.provision import read_law
    from scenarios.cli.data import ready_lines, said_of
    from scenarios.deployment import tables

    try:
        law = read_law(kit)
    except FedmodelError:
        return  # the silo's own program says what is wrong with its kit
    try:
        found, missing = tables.tables_at_start(kit, law)
        for name in missing:
            _say(f"Table {name} is not looked at: {kit}/scenarios has no scenario of it that the law names.")
        for scenario, table in found:
            if _is_watched():
                for line in said_of(tables.check(table)):
                    _say(line)
            else:
                _say(f"Table {table.config.data_set}: `fedmodel data check` says at a terminal what is in it.")
            for line in ready_lines(tables.why_not_ready(scenario, kit)):
                _say(line)
    except FedmodelError as error:
        _say(f"The silo's tables could not be looked at: {error}")
    except Exception as error:  # whatever it is, it keeps no silo from starting, and its words could quote a value
        _say(f"The silo's tables could not be looked at ({type(error).__name__}).")


def _is_watched() -> bool:
    """Return whether a person sees what is said on standard error, and no log keeps it."""
    return sys.stderr.isatty()


def _say(line: str) -> None:
    err.print(line, highlight=False, soft_wrap=True)


def _become(words: list[str]) -> NoReturn:
    """Turn this process into another program: a silo runs none of the command's code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(words[0], words)  # noqa: S606 - this very Python, no shell


VERBS: Final = (Verb(30, "silo", silo_app),)
