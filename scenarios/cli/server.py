"""The noun `server`: start one, hand in a run and follow it, and how it stands.

Thin: `server.party` and `scenarios.deployment.runs` do the work.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Any, Final, Literal

import typer
from rich.table import Table
from rich.text import Text

from scenarios.cli.options import PartyKit, ScenarioName, Settings
from scenarios.cli.printing import INTERRUPTED, Json, answer, err, out
from scenarios.cli.unlocking import KeyFile, PassphraseFile, typed
from scenarios.cli.verbs import Verb

_OTHERS: Final = 40  # columns of a terminal, for what stands beside a run's name
server_app = typer.Typer(help="The federation's server.", no_args_is_help=True)


@server_app.command("start")
def server_start(kit: PartyKit, key_file: KeyFile = None, passphrase_file: PassphraseFile = None) -> None:
    """Serve a federation until interrupted; exit status 2 when the kit is refused."""
    from fedmodel.crypto.openers import ask_opener
    from fedmodel.provision.in_use import leave
    from server.party import serve

    opener = ask_opener(key_file, passphrase_file, lambda: typed("the server's kit"))
    leave(serve(kit, opener))


@server_app.command("submit")
def server_submit(kit: PartyKit, scenario: ScenarioName, settings: Settings = None, as_json: Json = False) -> None:
    """Hand in a scenario and follow its run; the exit status says whether it completed."""
    from fedmodel.config import read_scenario
    from fedmodel.learning import starts
    from scenarios.cli.tables import show_run
    from scenarios.runs.usefulness import told_of

    resolved = starts.resolved(read_scenario(scenario, settings or ()))
    with err.status("loading") if err.is_terminal else nullcontext():
        from scenarios.deployment import runs
        from scenarios.runs.progress import claimed, rounds_progress

        runs.check_server_runs(kit)
        run, parameters = runs.submit(kit, resolved)
    started = time.monotonic()
    watching = rounds_progress(err, run.folder / "metrics.jsonl", resolved.rounds, claimed(resolved))
    try:
        runs.follow(run, watching, partial(runs.check_server_runs, kit))
    except KeyboardInterrupt:
        err.print(f"not followed any more; the run goes on in {run.folder}", soft_wrap=True, markup=False)
        raise typer.Exit(INTERRUPTED) from None
    summary = runs.summary_of(run, resolved, parameters, time.monotonic() - started)
    if as_json:
        answer({**summary, "usefulness": told_of(run.folder)}, "", as_json)
    else:
        show_run(summary, run.folder)


@server_app.command("report")
def server_report(
    kit: PartyKit,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run that has ended, as `server status` names it.")],
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Write a run's report into its folder, signed by the server, and a copy for each silo to hand over."""
    from fedmodel.crypto.openers import ask_opener
    from fedmodel.provision import unlock
    from scenarios.cli.tables import show_claim
    from scenarios.report import deployed
    from scenarios.report.page.render import render

    deployed.check_server_kit(kit)
    unlock(kit, ask_opener(key_file, passphrase_file, lambda: typed("the server")))
    page = deployed.server_report(kit, run, render)
    copies = page.parent / deployed.COPIES
    show_claim(page.parent, as_json, copies=str(copies))
    if not as_json:
        err.print(
            f"Hand each silo its own folder of {copies}; it runs: fedmodel silo report KIT FOLDER",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


@server_app.command("status")
def server_status(kit: PartyKit, as_json: Json = False) -> None:
    """Show silos, when they were last seen, their ledgers' heads, and the runs."""
    from scenarios.deployment.runs import status_of

    found = status_of(kit)
    if as_json:
        answer(found, "", as_json)
        return
    _show_status(found)


def _figure(run: dict[str, Any]) -> str:
    """Return what a run came to so far, by the figure's name: tasks differ in which they have."""
    from scenarios.runs import words

    said = {"accuracy": run["accuracy"]} if run["accuracy"] is not None else run["metrics"] or {}
    return next((f"{name} {words.metric(value)}" for name, value in said.items()), "-")


def _show_status(found: dict[str, Any]) -> None:
    """Print how a server stands for a person."""
    up = "runs" if found["running"] else "does NOT run"
    roster = found["roster"]
    about = f": its server {up}; roster {roster['serial']}, good until {roster['expires'][:10]}"
    out.print(Text.assemble((found["federation"], "bold"), about), highlight=False)
    silos = Table(title="Silos", title_justify="left")
    for heading in ("silo", "state", "last seen (UTC)", "ledger entries"):
        silos.add_column(heading, justify="right" if heading == "ledger entries" else "left", overflow="fold")
    for silo in found["silos"]:
        seen = (silo["last_seen"] or "-")[:19].replace("T", " ")
        entries = silo["ledger_entries"]
        silos.add_row(silo["silo"], silo["state"], seen, "-" if entries is None else str(entries))
    out.print(silos)
    if found["runs"]:
        table = Table(title="Runs", title_justify="left")
        for heading in ("run", "state", "rounds", "figure"):
            side: Literal["left", "right"] = "right" if heading in ("rounds", "figure") else "left"
            # `server report` takes a run by its name: that is in one line, to be copied, where there is room.
            whole = heading == "run" and max(len(run["run"]) for run in found["runs"]) + _OTHERS <= out.width
            table.add_column(heading, justify=side, overflow="fold", no_wrap=whole)
        for run in found["runs"]:
            table.add_row(run["run"], run["state"], f"{run['rounds']}/{run['rounds_planned']}", _figure(run))
        out.print(table)
    for run in found["runs"]:
        if run["usefulness"] is not None:
            told = f"run {run['run']}: {run['usefulness']}"
            out.print(told, style="yellow", soft_wrap=True, highlight=False)
    for line in found["warnings"]:
        out.print(line, style="yellow", soft_wrap=True, highlight=False)


VERBS: Final = (Verb(40, "server", server_app),)
