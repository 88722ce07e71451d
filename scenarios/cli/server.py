"""The verbs of a federation's operator: `server submit`, `server status` and `deploy-local`.

Thin: `scenarios.deployment.runs` and `scenarios.deployment.rehearsal` do the work. Importing this adds the first two to
the group.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from scenarios.cli.printing import INTERRUPTED, Json, answer, err, out
from scenarios.cli.silo import Kit, server_group

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in privacy.epsilon=2.")
]
ScenarioName = Annotated[str, typer.Argument(help="A TOML file, or the name of a built-in scenario.")]


@server_group.command("submit")
def server_submit(kit: Kit, scenario: ScenarioName, settings: Settings = None, as_json: Json = False) -> None:
    """Hand in a scenario and follow its run; the exit status says whether it completed."""
    from fedmodel.config import read_scenario
    from fedmodel.learning import starts
    from scenarios.cli.tables import show_run

    resolved = starts.resolved(read_scenario(scenario, settings or ()))
    with err.status("loading") if err.is_terminal else nullcontext():
        from scenarios.cli.progress import rounds_progress
        from scenarios.deployment import runs

        runs.check_server_runs(kit)
        run, parameters = runs.submit(kit, resolved)
    started = time.monotonic()
    watching = rounds_progress(err, run.folder / "metrics.jsonl", resolved.rounds)
    try:
        runs.follow(run, watching, partial(runs.check_server_runs, kit))
    except KeyboardInterrupt:
        err.print(f"not followed any more; the run goes on in {run.folder}", soft_wrap=True, markup=False)
        raise typer.Exit(INTERRUPTED) from None
    summary = runs.summary_of(run, resolved, parameters, time.monotonic() - started)
    if as_json:
        answer(summary, "", as_json)
    else:
        show_run(summary, run.folder)


@server_group.command("status")
def server_status(kit: Kit, as_json: Json = False) -> None:
    """Show silos, when they were last seen, their ledgers' heads, and the runs."""
    from scenarios.deployment.runs import status_of

    found = status_of(kit)
    if as_json:
        answer(found, "", as_json)
        return
    _show_status(found)


def deploy_local(
    scenario: ScenarioName,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; new or empty. Default: under runs/.")] = None,
    apart: Annotated[
        bool | None,
        typer.Option(
            "--namespaces/--loopback",
            help="A network namespace for each party, or all on loopback. Default: namespaces where that is allowed.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Rehearse a deployment on this machine: a real server, real silos, TLS, keys; then end all of it."""
    from fedmodel.config import read_scenario
    from fedmodel.learning import starts
    from scenarios.cli.tables import show_run

    resolved = starts.resolved(read_scenario(scenario, settings or ()))
    with err.status("loading") if err.is_terminal else nullcontext():
        from fedmodel.provision import check_deployable
        from scenarios.cli.progress import rounds_progress
        from scenarios.deployment.rehearsal import rehearse
        from scenarios.simulation.simulate import check_scenario, run_folder
        from scenarios.simulation.starting import refuse_rehearsal

        refuse_rehearsal(resolved)
        check_deployable(resolved)
        parameters = check_scenario(resolved)
    with run_folder(resolved, out) as run_dir:

        def watching(metrics: Path) -> Any:
            return rounds_progress(err, metrics, resolved.rounds)

        try:
            summary = rehearse(resolved, parameters, run_dir, watching, apart=apart)
        except KeyboardInterrupt:
            err.print(f"interrupted; all that was started has ended, and left {run_dir}", soft_wrap=True, markup=False)
            raise typer.Exit(INTERRUPTED) from None
    if as_json:
        answer(summary, "", as_json)
        return
    show_run(summary, run_dir)
    key, identity = run_dir / "kits" / "keys" / "server.key", run_dir / "kits" / "server" / "identity.age"
    err.print("The model is sealed to the server; the ordinary age tool opens it:", highlight=False)
    err.print(
        f"  age -d -i {key} {identity} | age -d -i - {run_dir / 'model.safetensors.age'} > model.safetensors",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _show_status(found: dict[str, Any]) -> None:
    """Print how a server stands for a person."""
    up = "runs" if found["running"] else "does NOT run"
    roster = found["roster"]
    about = f": its server {up}; roster {roster['serial']}, good until {roster['expires'][:10]}"
    out.print(Text.assemble((found["federation"], "bold"), about), highlight=False)
    silos = Table(title="Silos", title_justify="left")
    for heading in ("silo", "state", "last seen (UTC)", "ledger entries"):
        silos.add_column(heading, justify="right" if heading == "ledger entries" else "left")
    for silo in found["silos"]:
        seen = (silo["last_seen"] or "-")[:19].replace("T", " ")
        entries = silo["ledger_entries"]
        silos.add_row(silo["silo"], silo["state"], seen, "-" if entries is None else str(entries))
    out.print(silos)
    if found["runs"]:
        table = Table(title="Runs", title_justify="left")
        for heading in ("run", "state", "rounds", "accuracy"):
            table.add_column(heading, justify="right" if heading in ("rounds", "accuracy") else "left", overflow="fold")
        for run in found["runs"]:
            accuracy = "-" if run["accuracy"] is None else f"{run['accuracy']:.4f}"
            table.add_row(run["run"], run["state"], f"{run['rounds']}/{run['rounds_planned']}", accuracy)
        out.print(table)
    for line in found["warnings"]:
        out.print(line, style="yellow", soft_wrap=True, highlight=False)
