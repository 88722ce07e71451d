"""The `fedmodel` command.

Exit status: 0 ok, 2 usage or refused, 4 a ledger invalid, 130 interrupted, 1 anything else. Answers go to standard
output, everything else to standard error. Figures of privacy are rounded up: what is printed is never
less than what was spent.

Heavy imports stand inside the commands that need them, so that `--help` and usage errors are quick.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

# Before anything of Flower is imported: a privacy tool does not phone home.
for _switch, _value in (
    ("FLWR_TELEMETRY_ENABLED", "0"),
    ("FLWR_DISABLE_UPDATE_CHECK", "1"),
    ("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1"),
):
    os.environ[_switch] = _value

import click
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from fedmodel.errors import FedmodelError

_INTERRUPTED = 130

app = typer.Typer(
    name="fedmodel",
    help="Federated learning with differential privacy that is refused rather than guessed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
budget_app = typer.Typer(help="What a plan costs in epsilon, and what noise a target needs.", no_args_is_help=True)
app.add_typer(budget_app, name="budget")

_out = Console()
_err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
SampleRate = Annotated[float, typer.Option(help="Poisson rate of every lot, in (0, 1].")]
Steps = Annotated[int, typer.Option(min=1, help="DP-SGD steps in all.")]
Delta = Annotated[float, typer.Option(help="Delta of the claim, in (0, 1).")]


@app.command()
def scenarios(as_json: Json = False) -> None:
    """List the built-in scenarios, a line each."""
    from fedmodel.config import builtin_scenarios, read_scenario

    summaries = {name: read_scenario(name).summary for name in builtin_scenarios()}
    if as_json:
        print(json.dumps(summaries))  # noqa: T201
        return
    table = Table.grid(padding=(0, 2))
    for name, summary in summaries.items():
        table.add_row(f"[bold]{name}[/bold]", summary)
    _out.print(table)


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
    out: Annotated[Path | None, typer.Option(help="The run's folder; new or empty. Default: under runs/.")] = None,
    as_json: Json = False,
) -> None:
    """Train a scenario's model over simulated silos on this machine."""
    from fedmodel.config import read_scenario

    resolved = read_scenario(scenario, settings or ())
    with _err.status("loading") if _err.is_terminal else nullcontext():
        from scenarios.progress import rounds_progress
        from scenarios.runner import check_scenario, resolve_device, run_folder
        from scenarios.runner import simulate as run

        where = resolve_device(device)
        parameters = check_scenario(resolved)
    with run_folder(resolved, out) as run_dir:
        watching = rounds_progress(_err, run_dir / "metrics.jsonl", resolved.rounds)
        try:
            summary = run(resolved, parameters, engine, where, run_dir, watching)
        except KeyboardInterrupt:
            _err.print(f"interrupted; what was spent stands in {run_dir / 'ledgers'}", soft_wrap=True, markup=False)
            raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        print(json.dumps(summary))  # noqa: T201
    else:
        _show(summary, run_dir)


@app.command()
def graph(
    silos: Annotated[int, typer.Option(help="Silos in a cohort, from 3.")],
    colluding: Annotated[int, typer.Option(help="Silos that may work with the server.")],
    dropping: Annotated[int, typer.Option(help="Silos that may vanish in a round.")],
    bits: Annotated[int, typer.Option(help="-log2 of the failure probability, above 300 silos.")] = 80,
    as_json: Json = False,
) -> None:
    """Say who masks with whom in secure aggregation, and how many shares bring a secret back."""
    from fedmodel.topology import plan_topology

    plan = plan_topology(silos, colluding, dropping, bits)
    answer = {
        "silos": plan.silos,
        "graph": "complete" if plan.complete else "ring",
        "neighbours": plan.degree,
        "threshold": plan.threshold,
        "failure": None if plan.complete else f"2^-{bits}",
    }
    surely = "with certainty" if plan.complete else f"but for a probability of 2^-{bits}"
    line = (
        f"threshold {plan.threshold}, {plan.degree} neighbours each ({answer['graph']}); no single update is learned"
        f" with up to {colluding} colluding, {surely}"
    )
    _answer(answer, line, as_json)


@budget_app.command("epsilon")
def budget_epsilon(
    noise_multiplier: Annotated[float, typer.Option(help="Noise over the clip.")],
    sample_rate: SampleRate,
    steps: Steps,
    delta: Delta,
    as_json: Json = False,
) -> None:
    """Say what epsilon a plan costs, by PLD under add/remove of one record."""
    from fedmodel import accounting
    from fedmodel.errors import ConfigError, LedgerError
    from fedmodel.mechanisms import DpSgdEvent

    try:
        event = DpSgdEvent(noise_multiplier, 1.0, sample_rate, steps, denominator=1)
    except LedgerError as error:
        raise ConfigError(str(error)) from error
    epsilon = accounting.epsilon([event], delta)
    if not math.isfinite(epsilon):
        raise ConfigError("no epsilon is computed for this plan: its noise is too small for its steps; raise it")
    answer = {"epsilon": epsilon, "delta": delta, "accountant": accounting.ACCOUNTANT}
    _answer(answer, f"epsilon {_up(epsilon)}", as_json)


@budget_app.command("calibrate")
def budget_calibrate(
    epsilon: Annotated[float, typer.Option(help="The target, above 0.")],
    sample_rate: SampleRate,
    steps: Steps,
    delta: Delta,
    as_json: Json = False,
) -> None:
    """Say what noise multiplier keeps a plan at or under a target epsilon."""
    from fedmodel import accounting

    noise = accounting.calibrate(epsilon, delta, sample_rate, steps)
    answer = {"noise_multiplier": noise, "epsilon": epsilon, "delta": delta, "accountant": accounting.ACCOUNTANT}
    _answer(answer, f"noise multiplier {_up(noise)}", as_json)


def main() -> None:
    """Run the command; a user's mistake ends in one line and an exit status, never in a traceback."""
    handler = RichHandler(console=_err, show_time=False, show_path=False, show_level=False)
    handler.setLevel(logging.WARNING)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    try:
        sys.exit(app(standalone_mode=False))
    except FedmodelError as error:
        _err.print(f"[bold red]error:[/bold red] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(error.exit_status)
    except MemoryError:
        _err.print(
            "[bold red]error:[/bold red] not enough memory for this scenario; make the data or the model smaller"
        )
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        _err.print("interrupted")
        sys.exit(_INTERRUPTED)


def _answer(answer: dict[str, Any], line: str, as_json: bool) -> None:
    print(json.dumps(answer) if as_json else line)  # noqa: T201


def _up(figure: float) -> str:
    """Return a figure to four decimals, rounded up: noise that suffices, an epsilon that holds."""
    return f"{math.ceil(figure * 10_000) / 10_000:.4f}"


def _seen_by_server(encryption: dict[str, Any]) -> str:
    """Say in a sentence what the server could see of updates."""
    match encryption["secure_aggregation"]:
        case "on":
            least, threshold = encryption["least_silos_in_a_sum"], encryption["threshold"]
            lies = " and it shows all silos one list" if encryption["consistency"] == "quorum" else ""
            return (
                f"The server saw sums of at least {least} silos' updates and no single one, as long as no more than"
                f" {encryption['colluding_tolerated']} of the silos work with it{lies} (threshold {threshold},"
                f" {encryption['suite']} keys, {encryption['bits']}-bit words)."
            )
        case "simulated":
            return "The server saw each silo's noised update: secure aggregation was simulated, without its masks."
        case _:
            return "The server saw each silo's noised update: updates are not aggregated under encryption."


def _show(summary: dict[str, Any], run_dir: Path) -> None:
    """Print a run's outcome for a person."""
    timing, metrics = summary["timing"], summary["metrics"]
    _out.print(
        f"[bold]{summary['scenario']}[/bold]: {summary['rounds_completed']} rounds, {summary['clients']} silos,"
        f" {summary['parameters']} parameters, {timing['seconds_total']:.1f} s on {summary['device']}"
    )
    figures = Table(title="On the server's held-out records", title_justify="left")
    for name in metrics:
        figures.add_column(name, justify="right")
    figures.add_row(*(f"{value:.4f}" for value in metrics.values()))
    _out.print(figures)

    rows = summary["privacy"]
    table = Table(title=f"Spent by each silo, per {rows[0]['unit']}", title_justify="left")
    for heading in ("silo", "epsilon", "delta", "noise", "sample rate", "steps"):
        table.add_column(heading, justify="left" if heading == "silo" else "right")
    for row in rows:
        spent = row["steps"] > 0
        table.add_row(
            row["silo"],
            _up(row["epsilon"]),
            f"{row['delta']:g}",
            _up(row["noise_multiplier"]) if spent else "-",
            f"{row['sample_rate']:g}" if spent else "-",
            str(row["steps"]),
        )
    _out.print(table)
    if any(row["noise_source"] == "seeded-unsafe" for row in rows):
        _out.print(
            "[bold red]Noise was seeded: whoever knows the seed can remove it. These epsilons protect nobody.[/]"
        )
    for dropout in summary["dropouts"]:
        _out.print(f"[yellow]{dropout['silo']} dropped out of {dropout['rounds']} rounds: {dropout['code']}[/yellow]")
    if summary["rounds_failed"]:
        _out.print(f"[yellow]{summary['rounds_failed']} rounds failed closed; the model stayed as it was.[/yellow]")
    _out.print(_seen_by_server(summary["encryption"]))
    _out.print(f"Run folder: {run_dir}", soft_wrap=True, highlight=False, markup=False)
