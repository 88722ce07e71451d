"""The noun `budget`: what a plan costs, what noise a target needs, what is spent and left.

Thin: `scenarios.runs.inspection` has the answers.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from fedmodel.errors import ConfigError
from fedmodel.privacy.rounding import down, noise, small, up
from fedmodel.system.counts import counted, one_or_more
from scenarios.cli.options import Ledger, ScenarioName, Settings
from scenarios.cli.printing import Json, answer, out
from scenarios.cli.verbs import Verb

_KNOWN_NOISE: Final = {"seeded-unsafe": "seeded", "experiment": "an experiment's"}
"""Sources of noise that whoever knows a seed can subtract."""

budget_app = typer.Typer(
    help="What a plan costs, what noise a target needs, what is spent and left.", no_args_is_help=True
)

SampleRate = Annotated[float, typer.Option(help="Poisson rate of every lot, in (0, 1].")]
Steps = Annotated[int, typer.Option(min=1, help="DP-SGD steps in all.")]
Delta = Annotated[float, typer.Option(help="Delta of the claim, in (0, 1).")]
Records = Annotated[int, typer.Option("--max-records", min=1, help="Most records of one person or client.")]
Fine = Annotated[bool, typer.Option("--fine", help="On the grid of 1e-4 instead of 1e-3: closer, and slower.")]


@budget_app.command("epsilon")
def budget_epsilon(
    noise_multiplier: Annotated[float, typer.Option(help="Noise over the clip.")],
    sample_rate: SampleRate,
    steps: Steps,
    delta: Delta,
    max_records: Records = 1,
    fine: Fine = False,
    as_json: Json = False,
) -> None:
    """Say what epsilon a plan costs, by PLD under add/remove of one record, or of one person with several."""
    from fedmodel.privacy import accounting
    from fedmodel.privacy.plan_figures import plan_of
    from scenarios.runs import inspection

    event = plan_of(noise_multiplier, sample_rate, steps, max_records)
    found = inspection.figures([event], delta, accounting.FINE_GRID if fine else accounting.COARSE_GRID)
    if not math.isfinite(found["epsilon"]):
        raise ConfigError("no epsilon is computed for this plan: its noise is too small for its steps; raise it")
    line = (
        f"epsilon {up(found['epsilon'])}; no attack's advantage is over {up(found['advantage'])}; {up(found['mu'])}-GDP"
        f" wherever delta is over {small(found['mu_floor'])}"
    )
    answer({**found, "delta": delta, "accountant": accounting.ACCOUNTANT}, line, as_json)


@budget_app.command("calibrate")
def budget_calibrate(
    epsilon: Annotated[float, typer.Option(help="The target, above 0.")],
    sample_rate: SampleRate,
    steps: Steps,
    delta: Delta,
    max_records: Records = 1,
    as_json: Json = False,
) -> None:
    """Say what noise multiplier keeps a plan at or under a target epsilon."""
    from fedmodel.privacy import accounting

    noise = accounting.calibrate(epsilon, delta, sample_rate, steps, max_records)
    found = {"noise_multiplier": noise, "epsilon": epsilon, "delta": delta, "accountant": accounting.ACCOUNTANT}
    answer(found, f"noise multiplier {up(noise)}", as_json)


@budget_app.command("show")
def budget_show(ledger: Ledger, as_json: Json = False) -> None:
    """Say what a silo has spent, holds for runs, and has left."""
    from scenarios.runs import inspection

    found = inspection.spent(inspection.LedgerFiles.meant(ledger).ledger)
    if as_json:
        answer(_finite(found), "", as_json)
        return
    for scope in found["scopes"]:
        _show_scope(found["silo"], scope)


@budget_app.command("forecast")
def budget_forecast(
    ledger: Ledger,
    scenario: ScenarioName,
    settings: Settings = None,
    silo: Annotated[str | None, typer.Option(help="The silo's name in the scenario. Default: the ledger's.")] = None,
    as_json: Json = False,
) -> None:
    """Say how many more runs of a scenario, or rounds of one, a silo's budget admits."""
    from fedmodel.config import read_scenario
    from fedmodel.privacy.events import EPSILON_IF_HIDDEN, IF_HIDDEN
    from scenarios.runs import inspection

    place = inspection.LedgerFiles.meant(ledger)
    found = inspection.forecast(place.ledger, read_scenario(scenario, settings or ()), silo)
    line = (
        f"{counted(found['runs'], 'whole run')} {one_or_more(found['runs'], 'fits', 'fit')}, or"
        f" {counted(found['rounds'], 'round')} of one (of {found['rounds_of_a_run']}), at noise"
        f" {up(found['noise_multiplier'])}; a whole run alone "
    )
    claim = f"at delta {small(found['delta'])} per {found['unit']}"
    if found["unit"] != "record":
        claim += f" of at most {counted(found['max_records'], 'record')}"
    if found["protects"]:
        line += f"costs epsilon {up(found['epsilon_of_a_run'])} {claim}"
    else:
        line += f"would cost epsilon {up(found[EPSILON_IF_HIDDEN])} {claim} {IF_HIDDEN}."
        line = f"{line} {_protects_nobody(found['noise_source'])}"
    answer(_finite(found), line, as_json)


def _show_scope(silo: str, scope: dict[str, Any]) -> None:
    """Print one budget for a person."""
    from fedmodel.privacy.events import EPSILON_IF_HIDDEN, IF_HIDDEN

    divergence, whole = scope["divergence"], scope["taken_whole"]
    about = f", {scope['scope']}: budget epsilon {up(scope['budget'])} at delta {small(scope['delta'])}"
    out.print(Text.assemble((silo, "bold"), about), highlight=False)
    table = Table(title="By run", title_justify="left")
    for heading in ("run", "rounds", "steps", "held", "noise", "epsilon", "of steps taken", "admitted by"):
        # A run is known by its name: it is folded, and never cut.
        table.add_column(heading, justify="left" if heading in ("run", "admitted by") else "right", overflow="fold")
    for run in scope["runs"]:
        would = run.get(EPSILON_IF_HIDDEN)
        epsilon = up(run["epsilon"]) if would is None else f"{up(would)} {IF_HIDDEN}"
        table.add_row(
            run["name"] or run["run"], str(run["rounds"]), str(run["steps"]), str(run["held_steps"]),
            noise(run["noise_multiplier"]), epsilon, up(run["epsilon_of_steps_taken"]), run["admitted"],
        )  # fmt: skip
    out.print(table)
    for run in scope["runs"]:
        if run["held_until"]:
            out.print(
                f"Run {run['name'] or run['run']} was charged nothing: what it holds is given back once another run"
                f" asks for it after {run['held_until'][:19].replace('T', ' ')} UTC.",
                highlight=False,
            )
    if scope["without_noise"]:
        from scenarios.runs.claims import NO_NOISE

        out.print(NO_NOISE, style="bold red", highlight=False)
        return
    if whole:
        left = "One plan, fixed in advance, took the whole budget: nothing is left for another."
    else:
        left = (
            f"Of {down(divergence['cap'])} of Rényi divergence of order {scope['order']}: spent"
            f" {up(divergence['spent'])}, held {up(divergence['reserved'] - divergence['spent'])}, left"
            f" {down(divergence['left'])}."
        )
    out.print(left, highlight=False)
    if EPSILON_IF_HIDDEN in scope:
        out.print(
            f"Nothing bounds what all of it tells whoever knows a seed. Epsilon would be {up(scope[EPSILON_IF_HIDDEN])}"
            f" {IF_HIDDEN}, and the budget is charged as if it were.",
            highlight=False,
        )
        for source in _KNOWN_NOISE:
            if source in scope["noise_sources"]:
                out.print(_protects_nobody(source), style="bold red", highlight=False)
        return
    out.print(
        f"However plans were chosen and wherever they ended, all of it is within epsilon {up(scope['epsilon'])}; of"
        f" each run the whole plan counts. Of the steps taken it would be {up(scope['epsilon_of_steps_taken'])}, had"
        " every plan and its length been fixed in advance.",
        highlight=False,
    )
    if scope["raised"]:
        out.print("A person raised the cap since: that holds if they did not choose it by looking.", highlight=False)
    if scope["advantage"] is not None:
        points = ", ".join(f"{up(epsilon)}: {small(delta)}" for epsilon, delta in scope["curve"])
        out.print(
            f"All plans in full, had each been fixed in advance (PLD): epsilon {up(scope['epsilon_of_plans'])}; no"
            f" attack tells presence from absence with an advantage over {up(scope['advantage'])};"
            f" {up(scope['mu'])}-GDP wherever delta is over {small(scope['mu_floor'])}; delta at epsilon {points}.",
            highlight=False,
        )


def _protects_nobody(source: str) -> str:
    """Say what noise from a seed is worth."""
    return f"Noise is {_KNOWN_NOISE[source]}: whoever knows the seed can remove it. No figure here protects anybody."


def _finite(document: Any) -> Any:
    """Return a document with null for every figure that is not finite: JSON has no infinity."""
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


VERBS: Final = (Verb(10, "budget", budget_app),)
