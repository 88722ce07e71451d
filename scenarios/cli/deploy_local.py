"""The verb `deploy-local`: a rehearsal of a deployment. Thin: `scenarios.deployment` does the work."""

from __future__ import annotations

import shlex
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
    tables: Annotated[
        Path | None,
        typer.Option(
            help="The parties' tables: NAME.csv or .parquet of each silo, held-out.csv or .parquet of the server; of"
            " images, IDX files or JSON lines a folder NAME of each, and held-out. Default: data.folder."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; new or empty. Default: under runs/.")] = None,
    apart: Annotated[
        bool | None,
        typer.Option(
            "--namespaces/--loopback",
            help="A network namespace for each party, or all on loopback. Default: namespaces where that is allowed.",
        ),
    ] = None,
    report: Annotated[bool, typer.Option(help="Write the run's report.")] = True,
    as_json: Json = False,
) -> None:
    """Rehearse a deployment on this machine: a real server, real silos, TLS, keys; then end all of it."""
    from fedmodel.config import read_scenario
    from fedmodel.learning import starts
    from scenarios.cli.tables import show_run
    from scenarios.runs.usefulness import told_of

    resolved = starts.resolved(read_scenario(scenario, settings or ()))
    with err.status("loading") if err.is_terminal else nullcontext():
        from fedmodel.data.access import check_read_by_silos
        from fedmodel.provision import check_deployable
        from scenarios.deployment.own_tables import own_tables
        from scenarios.deployment.rehearsal import packages_of, rehearse
        from scenarios.runs.progress import claimed, rounds_progress
        from scenarios.simulation.prepared import open_own_code
        from scenarios.simulation.simulate import check_scenario, run_folder
        from scenarios.simulation.starting import refuse_rehearsal

        refuse_rehearsal(resolved)
        check_read_by_silos(resolved.data)
        check_deployable(resolved)
        packages = packages_of(resolved)
        open_own_code(resolved, resolved)
        with_tables, places = own_tables(resolved, tables)
        parameters = check_scenario(with_tables)
    with run_folder(resolved, out) as run_dir:

        def watching(metrics: Path) -> Any:
            return rounds_progress(err, metrics, resolved.rounds, claimed(resolved))

        try:
            summary = rehearse(resolved, parameters, run_dir, watching, places, apart=apart, packages=packages)
            if as_json:
                answer({**summary, "usefulness": told_of(run_dir)}, "", as_json)
            else:
                show_run(summary, run_dir)
            _tell(run_dir, report=report, as_json=as_json)
            if not as_json:
                folder = None if tables is None else tables.absolute()
                told = f"Audit the same in a simulation: {audit_of(scenario, settings, folder)}"
                err.print(told, soft_wrap=True, highlight=False, markup=False)
        except KeyboardInterrupt:
            err.print(f"interrupted; all that was started has ended, and left {run_dir}", soft_wrap=True, markup=False)
            raise typer.Exit(INTERRUPTED) from None


def audit_of(scenario: str, settings: list[str] | None, tables: Path | None) -> str:
    """Return the command that audits what was rehearsed: in a simulation, since no canary enters a silo's table.

    >>> audit_of("hospitals", ["rounds=3"], Path("/data/own tables"))
    "fedmodel audit run hospitals --set rounds=3 --set 'data.folder=/data/own tables'"
    """
    more = [*(settings or ()), *(() if tables is None else (f"data.folder={tables}",))]
    return shlex.join(["fedmodel", "audit", "run", scenario, *(word for one in more for word in ("--set", one))])


def opening_of(run_dir: Path) -> str:
    """Return the command by which the age tool opens a rehearsal's model, for a shell, whatever the folder is called.

    >>> opening_of(Path("first run")).partition(" | ")[0]
    "age -d -i 'first run/kits/keys/server.key' 'first run/kits/server/identity.age'"
    """
    kits = run_dir / "kits"
    identity = shlex.join(["age", "-d", "-i", str(kits / "keys" / "server.key"), str(kits / "server" / "identity.age")])
    model = shlex.join(["age", "-d", "-i", "-", str(run_dir / "model.safetensors.age")])
    return f"{identity} | {model} > model.safetensors"


def _tell(run_dir: Path, *, report: bool, as_json: bool) -> None:
    """Say how the model is opened, and write the report where it is asked for; the server's key lies in the folder."""
    kit, key = run_dir / "kits" / "server", run_dir / "kits" / "keys" / "server.key"
    if not as_json:
        err.print("The model is sealed to the server; the ordinary age tool opens it:", highlight=False)
        err.print(f"  {opening_of(run_dir)}", soft_wrap=True, highlight=False, markup=False)
    if report:
        from fedmodel.crypto.sealed import opener_from_key_file
        from fedmodel.provision import unlock
        from scenarios.cli.tables import report_on

        unlock(kit, opener_from_key_file(key))
        report_on(run_dir, as_json)


VERBS: Final = (Verb(40, "deploy-local", deploy_local),)
