"""The `fedmodel` command.

Exit status: 0 ok, 2 usage or refused, 3 a claim refuted, 4 a ledger invalid, 5 inconclusive, 6 a report that nothing
outside its folder vouches for in whole, 130 interrupted, 1 anything else. Answers go to standard
output, everything else to standard error. Figures of privacy are rounded up: what is printed is never
less than what was spent.

Heavy imports stand inside the commands that need them, so that `--help` and usage errors are quick.
"""

from __future__ import annotations

import io
import logging
import math
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

from fedmodel.system.environment import SWITCHES

os.environ.update(SWITCHES)  # before anything of Flower is imported

import click
import typer
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.privacy.rounding import down
from fedmodel.system.durable import failed
from fedmodel.system.inert import InertFormatter, inert, inert_lines
from scenarios.cli.audit import audit_app
from scenarios.cli.demo import demo_app
from scenarios.cli.ledger import GROUPS
from scenarios.cli.printing import INTERRUPTED, Json, answer, err, out, show_crash
from scenarios.cli.provision import authority_app, provision
from scenarios.cli.report import report_app
from scenarios.cli.report_page import write_report
from scenarios.cli.server import deploy_local
from scenarios.cli.silo import server_group
from scenarios.cli.tables import show_report, show_run

_TRIED = 2**50  # orders that a hostile server looks at

app = typer.Typer(
    name="fedmodel",
    help="Federated learning with differential privacy that is refused rather than guessed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)
app.add_typer(audit_app, name="audit")
app.add_typer(authority_app, name="authority")
app.add_typer(demo_app, name="demo")
app.add_typer(report_app, name="report")
app.add_typer(server_group, name="server")
app.command("deploy-local")(deploy_local)
app.command()(provision)


@app.command()
def scenarios(as_json: Json = False) -> None:
    """List the built-in scenarios, a line each."""
    from fedmodel.config import builtin_scenarios, read_scenario

    summaries = {name: read_scenario(name).summary for name in builtin_scenarios()}
    if as_json:
        answer(summaries, "", as_json)
        return
    table = Table.grid(padding=(0, 2))
    for name, summary in summaries.items():
        table.add_row(Text(name, "bold"), summary)
    out.print(table)


@app.command()
def simulate(
    scenario: Annotated[str, typer.Argument(help="A TOML file, or the name of a built-in scenario.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in privacy.epsilon=2.")
    ] = None,
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
            show_report(write_report(run_dir), as_json)


@app.command()
def graph(
    silos: Annotated[int, typer.Option(help="Silos in a cohort, from 3.")],
    colluding: Annotated[int, typer.Option(help="Silos that may work with the server.")],
    dropping: Annotated[int, typer.Option(help="Silos that may vanish in a round.")],
    bits: Annotated[int, typer.Option(help="-log2 of a dealing's failure probability, above 300 silos.")] = 80,
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="Rounds of a run.")] = 1,
    window: Annotated[int, typer.Option(min=1, max=256, help="Rounds that one dealing serves.")] = 8,
    as_json: Json = False,
) -> None:
    """Say who masks with whom in secure aggregation, and how many shares bring a secret back."""
    from fedmodel.secagg.topology import log2_of_run, plan_topology

    plan = plan_topology(silos, colluding, dropping, bits)
    dealings = math.ceil(rounds / window)
    left = [max(0.0, -log2_of_run(bits, orders)) for orders in (dealings, dealings + _TRIED)]
    of_run, ground = (f"2^-{down(bits_left, 1)}" for bits_left in left)
    found = {
        "silos": plan.silos,
        "graph": "complete" if plan.complete else "ring",
        "neighbours": plan.degree,
        "threshold": plan.threshold,
        "failure": None if plan.complete else f"2^-{bits}",
        "failure_of_run": None if plan.complete else of_run,
        "failure_after_2^50_tries": None if plan.complete else ground,
        "false_shares_found": plan.decoded,
    }
    surely = "with certainty"
    if not plan.complete:
        surely = (
            f"but for a probability of 2^-{bits} a window, of {of_run} in a run of {rounds} rounds, and of {ground}"
            " against a server that looks for a graph among 2^50"
        )
    line = (
        f"threshold {plan.threshold}, {plan.degree} neighbours each ({found['graph']}); no single update is learned"
        f" with up to {colluding} colluding, {surely}; up to {plan.decoded} false shares of a secret are found, while"
        " no share is missing"
    )
    answer(found, line, as_json)


def main() -> None:
    """Run the command; a user's mistake ends in one line and an exit status, never in a traceback."""
    sys.excepthook = show_crash
    handler = RichHandler(console=err, show_time=False, show_path=False, show_level=False)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(InertFormatter("%(message)s"))
    logging.raiseExceptions = False  # a log that cannot be written is no traceback on a person's terminal
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it could keep its fonts is nothing to be told
    try:
        sys.exit(app(standalone_mode=False))
    except FedmodelError as error:
        _say_error(str(error))
        sys.exit(error.exit_status)
    except BrokenPipeError:  # whoever read standard output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _say_error(failed(error))
        sys.exit(1)
    except MemoryError:
        _say_error("not enough memory for this scenario; make the data or the model smaller")
        sys.exit(1)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(file=said)
        sys.stderr.write(inert_lines(said.getvalue()))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        err.print("interrupted")
        sys.exit(INTERRUPTED)


def _say_error(reason: str) -> None:
    """Print why the command ends, in one line."""
    err.print(Text.assemble(("error:", "bold red"), " ", inert(reason)), soft_wrap=True, highlight=False)
