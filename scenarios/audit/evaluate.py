"""What an audited run's canaries say of its claim: bounds, gauges, a verdict, from the run's folder alone.

    plan       canaries into the scenario; what is tested, and what it could find     `scenarios.audit.planning`
    enter      plan and coins into every ledger, before its first charge              `scenarios.runs.audit_entries`
    run        the scenario, as `simulate` runs it: the same apps, ledgers, masks
    enter      what was seen, before anybody evaluates it
    evaluate   here; whoever has the folder can do it again
    sign off   what was found

Guarantee: a verdict of "not-refuted" is given only where the plan's test did not refute, no gauge failed, those that
every run can give were measured, and the test would have refuted half the noise with the least power that is asked
for, in the steps that were really taken. It is no proof: it says that an attack as strong as the mechanism allows found
no more than was claimed.

A gauge that fails refutes the claim, but for those of the server's own step (`OF_SERVER`): no epsilon hangs on what is
made of a mean that is private already. A run whose model did not move as its strategy says is none that was declared,
so its verdict is "inconclusive", with that gauge as the reason.

The claim that is attacked is the run's: epsilon of the whole plan that each silo reserved, which holds wherever the run
ended. The plan's test is of the steps that the scenario gives each silo, never more, so it refutes no claim that is
true of a run that ended early; what it could find is told for the steps that were really taken.

Gauges are held to a level of their own, 10^-6 for each name of one; they are no part of the plan's significance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.audit.estimators import lower_bounds
from fedmodel.audit.exposure import exposure
from fedmodel.audit.gauges import OF_SERVER, Gauge, gauges, unmeasured
from fedmodel.audit.guesses import guess
from fedmodel.audit.measured import gauge
from fedmodel.audit.plan import LEAST_POWER, Plan, power_of, score
from fedmodel.canaries.means import read_means
from fedmodel.canaries.observations import Observations, read_observations
from fedmodel.config import LEAST_EFFECTIVE, Scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import NEXT
from fedmodel.ledger import Verified
from fedmodel.ledger.entries import reserved_parts
from fedmodel.privacy import accounting
from fedmodel.privacy.events import Event, bounded
from fedmodel.privacy.rounding import down
from fedmodel.provision import scenario_policy
from scenarios.audit.black_box import final_model, first_model, loss_scores, membership
from scenarios.audit.planning import check_plan
from scenarios.runs import inspection
from scenarios.runs.audit_entries import check_entered, read_plan, run_of
from scenarios.runs.claims import claim_in
from scenarios.runs.summary import read_metrics, sums_worth
from server.strategies import strategy_of

_ESSENTIAL: Final = (
    "noise_everywhere", "lot_rate", "finite", "charged_before_release", "charged_steps", "update_explained",
)  # fmt: skip
_OF_PROBES: Final = ("noise_std", "canary_mean", "poison")


def evaluate(scenario: Scenario, run_dir: Path, *, infers: bool = True) -> dict[str, Any]:
    """Return what a run's canaries say of its claim; the same from the same folder.

    Args:
        scenario: As it was run, canaries and all.
        run_dir: The run's folder.
        infers: Whether membership is inferred, which needs the records and the model.

    Raises:
        ConfigError: When the run was not audited.
        LedgerTampered: When the plan is none of this scenario, or plan, coins or observations are not those that
            ledgers were told of in time.
        LedgerError: When a ledger does not verify.
    """
    plan = read_plan(run_dir)
    check_plan(scenario, plan)
    ledgers = {one.silo: _verified(run_dir, one.silo) for one in plan.silos}
    for silo, ledger in ledgers.items():
        check_entered(run_dir, silo, plan, ledger)
    seen = [read_observations(run_dir / "silos" / one.silo, one.silo) for one in plan.silos]
    scores_M, coins_M = _scores(scenario, plan, seen, run_dir)
    made = guess(scores_M, coins_M, plan.guesses)
    runs = {silo: run_of(plan, ledger) for silo, ledger in ledgers.items()}
    opened = read_means(run_dir / "server")
    measured = _gauges(scenario, seen, opened, ledgers, runs) + _accounted(scenario, ledgers) + _even(scenario, run_dir)
    missing = unmeasured(measured, [one.silo for one in seen if len(one.round_R)], opened=bool(opened))
    power = _power(plan, seen)
    failed = [one.explanation for one in measured if not one.passed and one.name not in OF_SERVER]
    unfit = [*_strayed(measured), *_unfit(plan, seen, missing)]
    verdict, reasons = verdict_of(plan, made.correct, failed, power=power, unfit=unfit, void=_void(plan, seen))
    return {
        "plan": plan.document(),
        "plan_hash": plan.hash,
        "claimed_epsilon": max(_claimed(scenario, ledger, runs[silo]) for silo, ledger in ledgers.items()),
        "delta": plan.delta,
        "claimed_mu": plan.mu,
        "lower_bounds": _bounds(plan, scores_M, coins_M),
        "power": power,
        "power_test": {"against": "half the noise", "least": plan.least_power, "runs": plan.runs},
        "gauges": [_finite(asdict(one)) for one in measured],
        "unmeasured": [{"name": name, "silo": silo} for name, silo in missing],
        "membership": membership(scenario, run_dir) if infers else None,
        **_exposed(scenario, plan, scores_M, coins_M, run_dir),
        "scores": {
            "included": [round(float(one), 6) for one in scores_M[coins_M]],
            "excluded": [round(float(one), 6) for one in scores_M[~coins_M]],
        },
        "guesses": {**asdict(made), "needed": plan.needed},
        "verdict": verdict,
        "reasons": reasons,
    }  # fmt: skip


def _gauges(
    scenario: Scenario,
    seen: Sequence[Observations],
    opened: Mapping[int, NDArray[np.float32]],
    ledgers: Mapping[str, Verified],
    runs: Mapping[str, str | None],
) -> list[Gauge]:
    """Return every gauge that can be measured of the silos that released something."""
    return gauges(
        [one for one in seen if len(one.round_R)],
        {silo: _event(ledger, run) for silo, ledger in ledgers.items() if (run := runs[silo]) is not None},
        weights={silo: scenario.federation.weight(silo) for silo in scenario.federation.silos},
        charges={silo: _charges(ledger, runs[silo]) for silo, ledger in ledgers.items()},
        quantizer=None if scenario.encryption.secure_aggregation == "off" else scenario_policy(scenario).quantizer,
        opened=opened,
        apply=strategy_of(scenario).apply,
    )


def _even(scenario: Scenario, run_dir: Path) -> list[Gauge]:
    """Say whether every sum that the server opened, or would have, was of enough silos by their public weights."""
    whole = [line for line in read_metrics(run_dir / "metrics.jsonl") if "failed" not in line]
    if scenario.encryption.secure_aggregation == "off" or not whole:
        return []
    number, worth = min(sums_worth(scenario, whole), key=lambda one: one[1])
    told = (
        f"of {len(whole)} sums that were opened the one whose weights are least even, in round {number}, is worth"
        f" {down(worth, 2)} equal silos, where {LEAST_EFFECTIVE:g} are asked for"
    )
    most = len(scenario.federation.silos)
    return [gauge("effective_silos", None, worth, most, (LEAST_EFFECTIVE, max(most, LEAST_EFFECTIVE)), told)]


def _power(plan: Plan, seen: Sequence[Observations]) -> float:
    """Return the power of the plan's test in the steps that were really taken, never over what was planned."""
    taken = [replace(silo, steps=len(one.lots_T)) for silo, one in zip(plan.silos, seen, strict=True)]
    if plan.needed > plan.guesses:
        return 0.0
    if plan.kind == "loss":  # it was found by training, and is the planner's word
        return plan.power
    return min(plan.power, power_of(plan, taken))


def _void(plan: Plan, seen: Sequence[Observations]) -> str:
    """Say why a run's guesses test nothing: more may have been spent than the claim that was to be tested."""
    for silo, one in zip(plan.silos, seen, strict=True):
        if len(one.lots_T) > silo.steps:
            return (
                f"silo {one.silo} took {len(one.lots_T)} steps, where the plan that was to be tested has {silo.steps}"
            )
    return ""


def _strayed(measured: Sequence[Gauge]) -> list[str]:
    """Say where the server's step is not the declared one, which refutes nothing and is never a pass."""
    return [
        "the server's step is not that of the declared strategy, on which no epsilon hangs, but which was to be"
        f" audited: {one.explanation}"
        for one in measured
        if one.name in OF_SERVER and not one.passed
    ]


def _unfit(plan: Plan, seen: Sequence[Observations], missing: Sequence[tuple[str, str | None]]) -> list[str]:
    """Say why nothing may be passed in a run: nothing was released, or what every run shows could not be measured."""
    rounds = {int(number) for one in seen for number in one.round_R}
    if not rounds:
        return ["no silo released anything"]
    due = _ESSENTIAL + (_OF_PROBES if plan.kind == "probe" else ())
    lacking = sorted({name for name, silo in missing if silo is not None and name in due})
    if ("noise_shares", None) in missing and len(rounds) > 1:
        lacking.append("noise_shares")
    return [f"gauges without which nothing is passed could not be measured: {', '.join(lacking)}"] if lacking else []


def _verified(run_dir: Path, silo: str) -> Verified:
    return inspection.verify(inspection.LedgerFiles.of(run_dir / "ledgers" / f"{silo}.sqlite"), [], None)


def _charges(ledger: Verified, run: str | None) -> list[tuple[str, int]]:
    """Return when what was charged for the audited run, in the ledger's order."""
    return [
        (one.time, int(one.content["event"]["steps"]))
        for one in ledger.entries
        if one.kind == "charge" and one.run == run
    ]


def _event(ledger: Verified, name: str) -> Event:
    """Return what the audited run was charged in a silo's ledger, all rounds together."""
    run = ledger.standing.runs[name]
    return _noised([run.plan])[0].times(max(run.taken, 1))


def _noised(events: Sequence[Event]) -> list[Event]:
    """Return events that all add noise, or refuse to audit what claims nothing."""
    if bounded(events) is None:
        raise ConfigError("a run without noise claims nothing that could be refuted; audit a run that adds noise")
    return list(events)


def _claimed(scenario: Scenario, ledger: Verified, name: str | None) -> float:
    """Return what is claimed of the audited run at a simulated silo, as the report claims it; 0 where there is none."""
    standing = ledger.standing
    run = None if name is None else standing.runs[name]
    if run is None:
        return 0.0
    delta = standing.scopes[run.scope].delta
    return float(claim_in(standing, run.scope, run, delta, goes_on=scenario.goes_on)["epsilon"])


def _by_plan(scenario: Scenario, silo: str, ledger: Verified) -> float:
    """Return what our accountant says of all that a ledger holds, by whole plans: no cap stands in for it."""
    events = [event for scope in ledger.standing.scopes for event in ledger.standing.claimed(scope)]
    return accounting.epsilon(events, scenario.plan(silo).delta)


def _reserved(ledger: Verified) -> list[Event]:
    """Return the plans of all runs of which a charge stands, from the entries: what a claim has to be of."""
    charged = {ledger.entries[sequence - 1].run for sequence in ledger.standing.charged}
    # A run's newest: what lapsed before it was charged for nothing.
    newest = {one.run: one for one in ledger.entries if one.kind == "reserve" and one.run in charged}
    return _noised([event for entry in newest.values() for event in reserved_parts(entry.content)])


def _accounted(scenario: Scenario, ledgers: Mapping[str, Verified]) -> list[Gauge]:
    """Hold our accountant against others, who read a silo's plans from its entries, and at its edges."""
    from fedmodel.audit.accountants import accountants, extremes

    return [
        extremes(),
        *(
            accountants(silo, _reserved(ledger), _by_plan(scenario, silo, ledger), scenario.plan(silo).delta)
            for silo, ledger in ledgers.items()
            if ledger.standing.charged
        ),
    ]


def verdict_of(
    plan: Plan, correct: int, failed: Sequence[str], *, power: float, unfit: Sequence[str] = (), void: str = ""
) -> tuple[str, list[str]]:
    """Return the verdict, and why.

    Args:
        plan: Of the audit.
        correct: Guesses that were right.
        failed: What each gauge that failed says, of those that an epsilon hangs on.
        power: Of the test, for the steps that were really taken.
        unfit: Why nothing may be passed in this run.
        void: Why its guesses test nothing, empty where they do.
    """
    reasons = [f"a gauge failed: {explanation}" for explanation in failed]
    if correct >= plan.needed and not void:
        reasons.insert(0, f"{correct} of {plan.guesses} guesses were right, where {plan.needed} refute the claim")
    if reasons:
        return "refuted", reasons
    if void or unfit:
        return "inconclusive", [*([void] if void else []), *unfit]
    if power < LEAST_POWER:
        return "inconclusive", [
            f"the audit would have found half the noise with a chance of {down(power, 2)} in the steps that were taken,"
            f" where {LEAST_POWER:g} is asked for; take more canaries, or let the run go to its end"
        ]
    return "not-refuted", [
        f"{correct} of {plan.guesses} guesses were right, where {plan.needed} would refute the claim; every gauge that"
        " could be measured held"
    ]


def _scores(
    scenario: Scenario, plan: Plan, seen: Sequence[Observations], run_dir: Path
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return all canaries' scores and coins, silo after silo, shape `(M,)`."""
    coins_M = np.concatenate([one.coins_K for one in seen])
    if plan.kind == "loss":
        return loss_scores(scenario, final_model(scenario, run_dir)), coins_M
    clip = scenario.privacy.max_grad_norm
    # A silo that released nothing tells nothing, and what is no number tells nothing here: the gauge `finite` fails.
    scores_M = np.concatenate(
        [
            score(one, silo, clip) if len(one.sums_TK) else np.zeros(len(one.coins_K))
            for one, silo in zip(seen, plan.silos, strict=True)
        ]
    )
    return np.nan_to_num(scores_M, nan=0.0, posinf=0.0, neginf=0.0), coins_M


def _bounds(plan: Plan, scores_M: NDArray[np.float64], coins_M: NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
    """Return the lower bounds by estimator; none where scores do not vary, of which gauges of noise say why."""
    try:
        bounds = lower_bounds(scores_M, coins_M, plan.guesses, plan.delta, plan.significance)
    except ConfigError:
        return {}
    rows = {name: asdict(bound) for name, bound in bounds.items()}
    for row in rows.values():
        del row["name"]
    return rows


def _exposed(
    scenario: Scenario, plan: Plan, scores_M: NDArray[np.float64], coins_M: NDArray[np.bool_], run_dir: Path
) -> dict[str, dict[str, Any]]:
    """Return how exposed canaries are that a model of next tokens was trained on as records; of others nothing.

    Beside it stands how exposed the very same ones were before the run, in the model that it began with, where that
    is at hand: how exposed they are now is told in any case.
    """
    if plan.kind != "loss" or scenario.data.learnt != NEXT:
        return {}
    try:
        found = exposure(scores_M[coins_M], scores_M[~coins_M])
    except ConfigError:
        return {}
    try:
        first_M = loss_scores(scenario, first_model(scenario, run_dir))
        before = exposure(first_M[coins_M], first_M[~coins_M])
    except ConfigError:
        return {"exposure": asdict(found)}
    return {"exposure": {**asdict(found), "before": {"mean": before.mean, "largest": before.largest}}}


def _finite(gauge: dict[str, Any]) -> dict[str, Any]:
    """Return a gauge with None for what is no finite number, which JSON does not have; it did not pass."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in gauge.items()
    }
