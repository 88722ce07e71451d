"""The verb `simulate`. Thin: `scenarios.simulation` does the work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Final

import click
import typer

from scenarios.cli.loading import loading
from scenarios.cli.options import ScenarioName, Settings
from scenarios.cli.printing import Json, answer, err
from scenarios.cli.verbs import Verb
from scenarios.simulation.engines import KINDS, MANY


def simulate(
    scenario: ScenarioName,
    settings: Settings = None,
    engine: Annotated[
        str | None,
        typer.Option(
            click_type=click.Choice(list(KINDS)),
            help=f"What carries the run. Default: in-process; from {MANY} silos on vectorised, which keeps no ledgers.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where silos train: auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder: new, empty, or of a run that was cut short. Default: under runs/."),
    ] = None,
    show_partition: Annotated[
        bool,
        typer.Option("--show-partition", help="Run nothing: show what each silo would get; --out names a PNG file."),
    ] = False,
    report: Annotated[bool, typer.Option(help="Write the run's report.")] = True,
    every: Annotated[
        bool, typer.Option("--all", help="Print a row for each silo; by default, of many, equal rows are one.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a scenario's model over simulated silos on this machine."""
    from scenarios.cli.cut_short import command_of, told_that_nothing_was_spent, told_what_stands

    if show_partition:
        _show_partition(scenario, settings or (), out, as_json)
        return
    with err.status("loading") if err.is_terminal else nullcontext():
        with loading():
            from scenarios.cli.tables import report_on, show_run
            from scenarios.runs.progress import claimed, rounds_progress
            from scenarios.runs.usefulness import told_of
            from scenarios.simulation.prepared import prepare

        with told_that_nothing_was_spent():
            prepared = prepare(scenario, settings or (), engine, device, out)
    again = command_of(scenario, settings or (), engine, device, prepared.folder, report=report, as_json=as_json)
    with (
        prepared.held() as run_dir,
        told_what_stands(run_dir, again, report=report),
    ):
        rounds, claim = prepared.scenario.rounds, claimed(prepared.scenario)
        summary = prepared.run(run_dir, rounds_progress(err, run_dir / "metrics.jsonl", rounds, claim))
        if as_json:
            answer({**summary, "usefulness": told_of(run_dir)}, "", as_json)
        else:
            show_run(summary, run_dir, every=every)
        if report:
            report_on(run_dir, as_json)


def _show_partition(scenario: str, settings: Sequence[str], picture: Path | None, as_json: bool) -> None:
    """Show what each silo would get of a scenario's data."""
    with err.status("dealing") if err.is_terminal else nullcontext():
        from scenarios.cli.shares import show_shares
        from scenarios.simulation.prepared import open_own_code, resolve
        from scenarios.simulation.simulate import placed

        resolved = resolve(scenario, settings)
        open_own_code(resolved, scenario)
        resolved = placed(resolved)
    show_shares(resolved, picture, as_json)


VERBS: Final = (Verb(10, "simulate", simulate),)
