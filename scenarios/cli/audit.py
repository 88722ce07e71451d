"""The verb `audit`: attack the real pipeline, and say what was found. Thin: `scenarios.audit` has the answers.

Exit status: 0 not refuted, 3 refuted, 5 inconclusive.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.table import Table
from rich.text import Text

from fedmodel.errors import ClaimRefuted, FedmodelError, Inconclusive
from fedmodel.privacy.rounding import down, small, up
from fedmodel.system.counts import counted
from scenarios.cli.options import ScenarioName, Settings
from scenarios.cli.printing import INTERRUPTED, Json, answer, err, out
from scenarios.cli.verbs import Verb

if TYPE_CHECKING:
    from fedmodel.audit.plan import Plan
    from fedmodel.config import Scenario

audit_app = typer.Typer(
    help="Attack the real pipeline: is the claim refuted, and would a false one have been?", no_args_is_help=True
)

_NAMES: Final = {
    "steinke": "Steinke et al. 2023",
    "fdp": "f-DP, Mahloujifar et al. 2024",
    "clopper_pearson": "Clopper-Pearson",
    "gaussian": "Gaussian score model",
}

Canaries = Annotated[
    int | None,
    typer.Option(help="Of all silos together. Default: 1,000, or up to 4,000 where fewer would find too little."),
]
Kind = Annotated[
    Literal["probe", "loss"],
    typer.Option(help="probe: in a block of parameters of their own (white box). loss: made-up records (black box)."),
]
Significance = Annotated[float, typer.Option(help="Chance to refute a claim that holds.")]


@audit_app.command("plan")
def audit_plan(
    scenario: ScenarioName,
    settings: Settings = None,
    canaries: Canaries = None,
    kind: Kind = "probe",
    significance: Significance = 0.05,
    as_json: Json = False,
) -> None:
    """Say what an audit would test, and what it could find; run nothing."""
    _, plan = _planned(scenario, settings, canaries, kind, significance)
    from scenarios.audit.carrying import check_power

    answer({**plan.document(), "hash": plan.hash, "epsilon": plan.epsilon, "mu": plan.mu}, _told(plan), as_json)
    check_power(plan)


@audit_app.command("run")
def audit_run(
    scenario: ScenarioName,
    settings: Settings = None,
    canaries: Canaries = None,
    kind: Kind = "probe",
    significance: Significance = 0.05,
    device: Annotated[str, typer.Option(help="Where silos train: auto, cpu, cuda or cuda:N.")] = "auto",
    folder: Annotated[
        Path | None, typer.Option("--out", help="The run's folder; new or empty. Default: under runs/.")
    ] = None,
    report: Annotated[bool, typer.Option(help="Write the run's report.")] = True,
    as_json: Json = False,
) -> None:
    """Run a scenario with canaries among its records, and try to refute its claim."""
    if folder is not None:
        from scenarios.simulation.simulate import refuse_taken

        refuse_taken(folder)  # before the plan, which takes a while
    resolved, plan = _planned(scenario, settings, canaries, kind, significance)
    with err.status("loading") if err.is_terminal else nullcontext():
        from scenarios.audit.carrying import carried, check_power
        from scenarios.cli.tables import report_on, show_run
        from scenarios.runs.progress import claimed, rounds_progress
        from scenarios.simulation.simulate import check_scenario, resolve_device, run_folder

        where = resolve_device(device)
        parameters = check_scenario(resolved)
    if not as_json:
        out.print(_told(plan), highlight=False)
    check_power(plan)
    with run_folder(resolved, folder) as run_dir:
        watching = rounds_progress(err, run_dir / "metrics.jsonl", resolved.rounds, claimed(resolved))
        attacking = err.status("attacking") if err.is_terminal else nullcontext()
        try:
            summary, found = carried(resolved, parameters, plan, where, run_dir, watching, attacking)
        except KeyboardInterrupt:
            err.print(
                f"interrupted; what was spent stands in {run_dir / 'ledgers'}. An audit is not taken up again: begin it"
                " anew, in another folder",
                soft_wrap=True,
                markup=False,
                highlight=False,
            )
            raise typer.Exit(INTERRUPTED) from None
    if as_json:
        answer({"run": str(run_dir), **found}, "", as_json)
    else:
        show_run(summary, run_dir)
        show_audit(found)
    if report:
        report_on(run_dir, as_json)
    raise typer.Exit(exit_status(found["verdict"]))


@audit_app.command("selftest")
def audit_selftest(as_json: Json = False) -> None:
    """Plant faults in the real pipeline, one after the other, and see that the audit catches each."""
    with err.status("loading") if err.is_terminal else nullcontext():
        from scenarios.runs.progress import steps_progress
        from scenarios.selftest import faults, selftest
    try:
        with steps_progress(err, selftest.audits(faults.FAULTS)) as watching:
            found = selftest.suite(faults.FAULTS, watching)
    except KeyboardInterrupt:
        err.print("interrupted; nothing is left behind")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        answer(found, "", as_json)
    else:
        show_selftest(found)
    wrong = selftest.missed(found)
    if wrong is not None:
        raise ClaimRefuted(f"the audit does not do what it claims: {wrong}")


def show_selftest(found: dict[str, Any]) -> None:
    """Print which check caught which fault, for a person."""
    table = Table(title="Faults planted in the real pipeline", title_justify="left")
    for heading in ("fault", "caught by", "figure"):
        table.add_column(heading, justify="right" if heading == "figure" else "left", overflow="fold")
    for row in found["faults"]:
        caught = row["check"] if row["caught"] else Text(f"NOT by {row['check']}", "bold red")
        table.add_row(row["fault"], caught, "-" if row["figure"] is None else f"{row['figure']:.4g}")
    out.print(table)
    for row in found["faults"]:
        if not row["caught"]:
            out.print(f"{row['fault']}: {row['explanation']}", style="red", highlight=False)
    caught, correct = sum(row["caught"] for row in found["faults"]), found["correct"]
    passed = ("passes", "") if correct["passed"] else (f"does not pass {', '.join(correct['failed'])} of", "bold red")
    out.print(
        Text.assemble(
            f"{caught} of {len(found['faults'])} faults caught; correct code ",
            passed,
            f" all {correct['gauges']} gauges. {found['seconds']:.0f} seconds.",
        ),
        highlight=False,
    )


def exit_status(verdict: str) -> int:
    """Return the exit status of a verdict."""
    kinds: dict[str, type[FedmodelError]] = {"refuted": ClaimRefuted, "inconclusive": Inconclusive}
    return kinds[verdict].exit_status if verdict in kinds else 0


def show_audit(found: dict[str, Any]) -> None:
    """Print what an audit found, for a person."""
    table = Table(title="Lower bounds on epsilon, each with its own confidence", title_justify="left")
    for heading in ("estimator", "epsilon at least", "confidence", "assumption"):
        is_figure = heading in ("epsilon at least", "confidence")
        table.add_column(heading, justify="right" if is_figure else "left", overflow="fold")
    for name, bound in found["lower_bounds"].items():
        table.add_row(_NAMES[name], down(bound["epsilon"]), f"{bound['confidence']:.0%}", bound["assumption"])
    out.print(table)
    gauges = found["gauges"]
    failed = [gauge for gauge in gauges if not gauge["passed"]]
    names = len({gauge["name"] for gauge in gauges})
    out.print(f"{len(gauges) - len(failed)} of {len(gauges)} gauges held ({names} kinds).", highlight=False)
    for gauge in failed:
        where = f" at {gauge['silo']}" if gauge["silo"] else ""
        out.print(f"{gauge['name']}{where}: {gauge['explanation']}", style="red", highlight=False)
    colour = {"not-refuted": "green", "refuted": "bold red", "inconclusive": "yellow"}[found["verdict"]]
    about = (
        f": claimed epsilon {up(found['claimed_epsilon'])} at delta {small(found['delta'])};"
        f" {'; '.join(found['reasons'])}."
    )
    out.print(Text.assemble((found["verdict"], colour), about), highlight=False)


def _planned(
    scenario: str, settings: list[str] | None, canaries: int | None, kind: Literal["probe", "loss"], significance: float
) -> tuple[Scenario, Plan]:
    """Return a scenario with canaries, and the plan of its audit."""
    from fedmodel.config import read_scenario

    resolved = read_scenario(scenario, settings or ())
    with err.status("planning") if err.is_terminal else nullcontext():
        from scenarios.audit.planning import planned
        from scenarios.simulation.prepared import open_own_code
        from scenarios.simulation.simulate import placed

        open_own_code(resolved, scenario)
        return planned(placed(resolved), canaries, kind, significance)


def _told(plan: Plan) -> str:
    """Return a plan in words."""
    refute = f"{plan.needed} right refute" if plan.needed <= plan.guesses else "no number that is right could refute"
    return (
        f"Plan {plan.hash[:16]}: {counted(plan.canaries, f'{plan.kind} canary', f'{plan.kind} canaries')},"
        f" {counted(plan.guesses, 'guess', 'guesses')}, of which {refute} epsilon {up(plan.epsilon)} at delta"
        f" {small(plan.delta)} at significance {plan.significance:g}. Were the"
        f" noise {plan.less_noise:g} of the claimed, it would be refuted with probability {down(plan.power, 3)}"
        f" ({counted(plan.runs, 'simulated run')})."
    )


VERBS: Final = (Verb(60, "audit", audit_app),)
