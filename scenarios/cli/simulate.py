"""The verb `simulate`. Thin: `scenarios.simulation` does the work."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from fedmodel.errors import ConfigError
from scenarios.cli.options import ScenarioName, Settings
from scenarios.cli.printing import Json, answer, err
from scenarios.cli.tables import report_on, show_run
from scenarios.cli.verbs import Verb


def simulate(
    scenario: ScenarioName,
    settings: Settings = None,
    engine: Annotated[
        Literal["in-process", "flower"], typer.Option(help="What carries messages: this process, or Flower's runtime.")
    ] = "in-process",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where silos train.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder: new, empty, or of a run that was cut short. Default: under runs/."),
    ] = None,
    report: Annotated[bool, typer.Option(help="Write the run's report.")] = True,
    as_json: Json = False,
) -> None:
    """Train a scenario's model over simulated silos on this machine."""
    from fedmodel.config import read_scenario
    from scenarios.cli.cut_short import command_of, told_what_stands
    from scenarios.simulation.resuming import begun_in, held_folder

    begun = begun_in(out)
    resolved = read_scenario(scenario, settings or (), None if begun is None else begun.seed)
    with err.status("loading") if err.is_terminal else nullcontext():
        from scenarios.cli.progress import rounds_progress
        from scenarios.simulation.simulate import check_scenario, default_folder, placed, resolve_device
        from scenarios.simulation.simulate import simulate as run

        if resolved.audit is not None:
            raise ConfigError("a scenario with [audit] is for `fedmodel audit run`, which writes that section itself")
        where, resolved = resolve_device(device), placed(resolved)
        parameters = check_scenario(resolved)
    folder = out or default_folder(resolved.name)
    again = command_of(scenario, settings or (), engine, device, folder, report=report, as_json=as_json)
    with (
        held_folder(resolved, folder, engine, where) as run_dir,
        told_what_stands(run_dir, again, report=report),
    ):
        watching = rounds_progress(err, run_dir / "metrics.jsonl", resolved.rounds)
        summary = run(resolved, parameters, engine, where, run_dir, watching)
        if as_json:
            answer(summary, "", as_json)
        else:
            show_run(summary, run_dir)
        if report:
            report_on(run_dir, as_json)


VERBS: Final = (Verb(10, "simulate", simulate),)
