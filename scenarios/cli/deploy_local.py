"""The verb `deploy-local`: a rehearsal of a deployment. Thin: `scenarios.deployment.rehearsal` does the work."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from scenarios.cli.options import ScenarioName, Settings
from scenarios.cli.printing import INTERRUPTED, Json, answer, err
from scenarios.cli.verbs import Verb


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
    from scenarios.runs.usefulness import told_of

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
        answer({**summary, "usefulness": told_of(run_dir)}, "", as_json)
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


VERBS: Final = (Verb(40, "deploy-local", deploy_local),)
