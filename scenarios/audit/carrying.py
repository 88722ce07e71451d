"""An audited run, from its plan to its signed result: the command's and a script's alike."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fedmodel.audit.plan import Plan
from fedmodel.config import Scenario
from fedmodel.errors import Inconclusive
from fedmodel.privacy.rounding import down
from scenarios.audit import evaluate
from scenarios.audit.planning import CANARIES_OPTION
from scenarios.runs import audit_entries
from scenarios.simulation.simulate import simulate


def check_power(plan: Plan, canaries: str = CANARIES_OPTION) -> None:
    """End as inconclusive where the audit could find too little, before anything is run.

    Args:
        plan: Of the audit.
        canaries: What says their number, where the audit was asked for.

    Raises:
        Inconclusive: With its power, and what to do.
    """
    if plan.power < plan.least_power:
        raise Inconclusive(
            f"an audit with {plan.canaries} canaries would find half the noise with probability"
            f" {down(plan.power, 3)}, under the {plan.least_power:g} that is asked for, so its pass would mean nothing;"
            f" raise {canaries}, or where more of them change nothing take larger lots in fewer rounds"
        )


def carried(
    scenario: Scenario,
    parameters: int,
    plan: Plan,
    device: str,
    run_dir: Path,
    watching: AbstractContextManager[object],
    attacking: AbstractContextManager[object],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a scenario with canaries, attack it, enter what was found into the ledgers, and return summary and finding.

    Args:
        scenario: With canaries; checked by `scenarios.simulation.simulate.check_scenario`.
        parameters: What that returned.
        plan: Of `scenarios.audit.planning.planned`.
        device: "cpu", "cuda" or "cuda:N".
        run_dir: New, with the scenario in it.
        watching: Open while it trains.
        attacking: Open while it is attacked.
    """
    summary = simulate(
        scenario, parameters, "in-process", device, run_dir, watching, lambda: audit_entries.enter_plan(plan, run_dir)
    )
    with attacking:
        audit_entries.enter_seen(run_dir)
        found = evaluate.evaluate(scenario, run_dir)
        audit_entries.sign_off(run_dir, found)
    return summary, found
