"""One audited run: fix and enter the plan, run the scenario with canaries, and say what was found.

    plan      canaries into the scenario; guesses, significance and statistic fixed; power simulated
    enter     coins tossed; the plan's hash and the coins' into every silo's ledger, before its first charge
    run       the scenario, as `simulate` runs it: the same apps, ledgers, masks
    evaluate  from the run's folder alone, so that anybody who has it can do it again
    sign off  the hash of what was found into every silo's ledger

Guarantee: a verdict of "not-refuted" is given only where the plan's test did not refute, every gauge held, and the test
would have refuted half the noise with the plan's least power. It is no proof: it says that an attack as strong as the
mechanism allows found no more than was claimed.

Gauges are held to their own level, 10^-6 each; they are no part of the plan's significance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedmodel import accounting
from fedmodel.audit import observations
from fedmodel.audit.estimators import guess, lower_bounds
from fedmodel.audit.gauges import Gauge, gauges, unmeasured
from fedmodel.audit.observations import Observations, read_observations
from fedmodel.audit.plan import LEAST_POWER, SIGNIFICANCE, Plan, SiloCanaries, make_plan, plan_hash, score, with_power
from fedmodel.config import AuditConfig, Scenario
from fedmodel.crypto import digest
from fedmodel.durable import replace_file
from fedmodel.errors import ConfigError, LedgerTampered
from fedmodel.ledger import Ledger, Verified
from fedmodel.mechanisms import LEAST_NOISE, DpSgdEvent, realised_rate
from fedmodel.provision import read_kit, scenario_hash, scenario_policy
from fedmodel.seeds import derive_seed
from scenarios import officer

if TYPE_CHECKING:
    from torch import nn

PLAN_FILE: Final = "audit-plan.json"
AUDIT_FILE: Final = "audit.json"
PLAN_SUBJECT: Final = "audit-plan"
RESULT_SUBJECT: Final = "audit-result"
CANARIES: Final = (1_000, 2_000, 4_000)
"""Of all silos together: the first that gives power enough, or else the first."""

_RESULT: Final = b"fedmodel/v1/audit-result"
_TRIALS: Final = 5  # trained at less noise, to find what loss canaries could find

Kind = Literal["probe", "loss"]


def with_canaries(scenario: Scenario, canaries: int, kind: Kind) -> Scenario:
    """Return a scenario with so many canaries in all, as many at every silo.

    Raises:
        ConfigError: When it has canaries already, or these are too few for its silos.
    """
    if scenario.audit is not None:
        raise ConfigError("the scenario has an [audit] section already; leave it out, and say --canaries instead")
    each = canaries // len(scenario.federation.silos)
    if not 4 <= each <= 10_000:
        raise ConfigError(
            f"--canaries {canaries} makes {each} for each of {len(scenario.federation.silos)} silos, where 4 to 10,000"
            " are possible"
        )
    return scenario.model_copy(update={"audit": AuditConfig(canaries=kind, count=each)})


def plan_audit(scenario: Scenario, significance: float = SIGNIFICANCE) -> Plan:
    """Fix what will be tested in a run of a scenario with canaries.

    Raises:
        ConfigError: When noise is seeded, so that there is no claim to test, or no noise meets the target.
    """
    if scenario.audit is None:
        raise ConfigError("the scenario has no canaries; `fedmodel audit plan` puts them in")
    if scenario.privacy.noise == "seeded-unsafe":
        raise ConfigError(
            "privacy.noise = 'seeded-unsafe' claims nothing that could be refuted; audit a run whose noise is the"
            " operating system's"
        )
    silos = [_canaries(scenario, silo, scenario.audit.count) for silo in scenario.federation.silos]
    plan = make_plan(scenario_hash(scenario).hex(), scenario.audit.canaries, silos, significance)
    return _tried(scenario, plan) if plan.kind == "loss" else plan


def planned(scenario: Scenario, canaries: int | None, kind: Kind, significance: float) -> tuple[Scenario, Plan]:
    """Return a scenario with canaries, and the plan of its audit.

    Args:
        scenario: Without canaries.
        canaries: In all; None for the first number of `CANARIES` that gives power enough. Loss canaries are 1,000.
        kind: Of canaries.
        significance: Of the test.
    """
    numbers = (canaries,) if canaries is not None else CANARIES if kind == "probe" else CANARIES[:1]
    tried = []
    for number in numbers:
        with_them = with_canaries(scenario, number, kind)
        tried.append((with_them, plan_audit(with_them, significance)))
        if tried[-1][1].power >= LEAST_POWER:
            return tried[-1]
    return tried[0]


def enter_plan(plan: Plan, run_dir: Path) -> None:
    """Toss every silo's coins, and enter the plan with the commitment to them into its ledger.

    It is called when kits are made and nothing was charged yet.
    """
    replace_file(run_dir / PLAN_FILE, _json(plan.document()))
    for canaries in plan.silos:
        folder = run_dir / "silos" / canaries.silo
        coins = observations.toss(folder, canaries.canaries)
        _enter(run_dir, canaries.silo, {"subject": PLAN_SUBJECT, "plan": plan.hash, "coins": coins})


def evaluate(scenario: Scenario, run_dir: Path) -> dict[str, Any]:
    """Return what a run's canaries say of its claim; the same from the same folder.

    Args:
        scenario: As it was run, canaries and all.
        run_dir: The run's folder.

    Raises:
        LedgerTampered: When plan, coins or observations are not those that ledgers were told of before.
        LedgerError: When a ledger does not verify.
    """
    plan = read_plan(run_dir)
    if plan.scenario != scenario_hash(scenario).hex():
        raise LedgerTampered(f"{run_dir / PLAN_FILE}: is the plan of another scenario than this run's")
    ledgers = {one.silo: _verified(run_dir, one.silo) for one in plan.silos}
    for silo, ledger in ledgers.items():
        _check_entered(run_dir, silo, plan, ledger)
    seen = [read_observations(run_dir / "silos" / one.silo, one.silo) for one in plan.silos]
    scores_M, coins_M = _scores(scenario, plan, seen, run_dir)
    made = guess(scores_M, coins_M, plan.guesses)
    measured = gauges(
        [one for one in seen if len(one.round_R)],
        {silo: _event(ledger) for silo, ledger in ledgers.items() if ledger.standing.charged},
        weights={silo: scenario.federation.weight(silo) for silo in scenario.federation.silos},
        charges={silo: _charges(ledger) for silo, ledger in ledgers.items()},
        quantizer=None if scenario.encryption.secure_aggregation == "off" else scenario_policy(scenario).quantizer,
    )
    spent = {silo: _spent(scenario, silo, ledger) for silo, ledger in ledgers.items()}
    measured += _accounted(scenario, ledgers, spent)
    verdict, reasons = verdict_of(plan, made.correct, [one.explanation for one in measured if not one.passed])
    return {
        "plan": plan.document(),
        "plan_hash": plan.hash,
        "claimed_epsilon": max(spent.values()),
        "delta": plan.delta,
        "claimed_mu": plan.mu,
        "lower_bounds": _bounds(plan, scores_M, coins_M),
        "power": plan.power,
        "power_test": {"against": f"{plan.less_noise:g} of the noise", "least": plan.least_power, "runs": plan.runs},
        "gauges": [_finite(asdict(one)) for one in measured],
        "unmeasured": [{"name": name, "silo": silo} for name, silo in unmeasured(measured, [one.silo for one in seen])],
        "membership": _membership(scenario, run_dir),
        "scores": {
            "included": [round(float(one), 6) for one in scores_M[coins_M]],
            "excluded": [round(float(one), 6) for one in scores_M[~coins_M]],
        },
        "guesses": {**asdict(made), "needed": plan.needed},
        "verdict": verdict,
        "reasons": reasons,
    }  # fmt: skip


def sign_off(run_dir: Path, found: Mapping[str, Any]) -> None:
    """Write down what was found, and enter its hash, and that of all that was seen, into every silo's ledger."""
    replace_file(run_dir / AUDIT_FILE, _json(found))
    document = result_hash(run_dir)
    for one in found["plan"]["silos"]:
        seen = observations.observations_digest(run_dir / "silos" / one["silo"])
        _enter(run_dir, one["silo"], {"subject": RESULT_SUBJECT, "document": document, "observations": seen})


def result_hash(run_dir: Path) -> str:
    """Return the hash of what an audit found, in hexadecimal."""
    return digest(_RESULT, (run_dir / AUDIT_FILE).read_bytes()).hex()


def read_plan(run_dir: Path) -> Plan:
    """Return the plan of an audited run.

    Raises:
        ConfigError: When the run was not audited.
        LedgerTampered: When it is no plan.
    """
    path = run_dir / PLAN_FILE
    if not path.is_file():
        raise ConfigError(f"{run_dir}: this run was not audited; `fedmodel audit run` runs a scenario with canaries")
    try:
        document = json.loads(path.read_bytes())
        silos = tuple(SiloCanaries(**silo) for silo in document.pop("silos"))
        plan = Plan(silos=silos, **document)
    except (ValueError, TypeError, KeyError) as error:
        raise LedgerTampered(f"{path}: is not as it was written: {error}") from error
    if plan_hash(plan.document()) != plan_hash(json.loads(path.read_bytes())):
        raise LedgerTampered(f"{path}: is not as it was written")
    return plan


def _canaries(scenario: Scenario, silo: str, count: int) -> SiloCanaries:
    """Return what a silo's plan claims."""
    plan = scenario.plan(silo)
    noise = accounting.noise_multiplier(plan)
    event = DpSgdEvent(
        noise, plan.max_grad_norm, plan.sample_rate, plan.steps, plan.expected_batch_size, plan.noise,
        max_records=plan.max_records,
    )  # fmt: skip
    return SiloCanaries(
        silo=silo,
        canaries=count,
        noise_multiplier=noise,
        rate=realised_rate(plan.sample_rate, plan.noise),
        steps=plan.steps,
        max_records=plan.max_records,
        epsilon=accounting.epsilon([event], plan.delta),
        delta=plan.delta,
        mu=_mu(event),
    )


@lru_cache(maxsize=64)
def _mu(event: DpSgdEvent) -> float:
    """Return the least mu for which the event is mu-GDP; silos that plan alike ask alike."""
    return accounting.gdp_mu([event], officer.MU_FLOOR)


def _enter(run_dir: Path, silo: str, finding: dict[str, str]) -> None:
    """Append an entry of an audit to a simulated silo's ledger."""
    folder = run_dir / "silos" / silo
    path = run_dir / "ledgers" / f"{silo}.sqlite"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with Ledger(path, silo, read_kit(folder).identity, folder / "ledger.head") as ledger:
        ledger.audit(finding)


def _verified(run_dir: Path, silo: str) -> Verified:
    return officer.verify(officer.Place.of(run_dir / "ledgers" / f"{silo}.sqlite"), [], None)


def _check_entered(run_dir: Path, silo: str, plan: Plan, ledger: Verified) -> None:
    """Refuse a plan or coins that the ledger was not told of before its first charge."""
    entered = [entry for entry in ledger.entries if entry.kind == "audit" and entry.content["subject"] == PLAN_SUBJECT]
    first = next((entry.sequence for entry in ledger.entries if entry.kind == "charge"), None)
    if len(entered) != 1 or (first is not None and entered[0].sequence > first):
        raise LedgerTampered(f"silo {silo}: its ledger was told of no plan, or not of one before its first charge")
    if entered[0].content["plan"] != plan.hash:
        raise LedgerTampered(f"{run_dir / PLAN_FILE}: is not the plan that silo {silo}'s ledger was told of")
    if entered[0].content["coins"] != observations.commitment(run_dir / "silos" / silo):
        raise LedgerTampered(f"silo {silo}: its coins are not those that its ledger was told of")
    told = [entry for entry in ledger.entries if entry.kind == "audit" and entry.content["subject"] == RESULT_SUBJECT]
    seen = observations.observations_digest(run_dir / "silos" / silo)
    if any(entry.content["observations"] != seen for entry in told):
        raise LedgerTampered(f"silo {silo}: what its audit saw is not what its ledger was told of afterwards")


def _charges(ledger: Verified) -> list[tuple[str, int]]:
    """Return when what was charged, in the ledger's order."""
    return [(one.time, int(one.content["event"]["steps"])) for one in ledger.entries if one.kind == "charge"]


def _event(ledger: Verified) -> DpSgdEvent:
    """Return what the run of a simulated silo's ledger, which has one, was charged, all rounds together."""
    (run,) = ledger.standing.runs.values()
    return replace(run.plan, steps=run.taken)


def _spent(scenario: Scenario, silo: str, ledger: Verified) -> float:
    return accounting.epsilon(_events(ledger), scenario.plan(silo).delta)


def _events(ledger: Verified) -> list[DpSgdEvent]:
    """Return all that a ledger was charged."""
    return [event for scope in ledger.standing.scopes for event in ledger.standing.events(scope)]


def _accounted(scenario: Scenario, ledgers: Mapping[str, Verified], spent: Mapping[str, float]) -> list[Gauge]:
    """Hold each silo's claim against other accountants."""
    from fedmodel.audit.accountants import accountants

    return [
        accountants(silo, _events(ledger), spent[silo], scenario.plan(silo).delta)
        for silo, ledger in ledgers.items()
        if ledger.standing.charged
    ]


def verdict_of(plan: Plan, correct: int, failed: Sequence[str]) -> tuple[str, list[str]]:
    """Return the verdict, and why.

    Args:
        plan: Of the audit.
        correct: Guesses that were right.
        failed: What each gauge that failed says.
    """
    reasons = [f"a gauge failed: {explanation}" for explanation in failed]
    if correct >= plan.needed:
        reasons.insert(0, f"{correct} of {plan.guesses} guesses were right, where {plan.needed} refute the claim")
    if reasons:
        return "refuted", reasons
    if plan.power < LEAST_POWER:
        return "inconclusive", [
            f"the audit would have found half the noise with a chance of {plan.power:.2f}, where {LEAST_POWER:g} is"
            " asked for; take more canaries"
        ]
    return "not-refuted", [
        f"{correct} of {plan.guesses} guesses were right, where {plan.needed} would refute the claim; every gauge held"
    ]


def _scores(
    scenario: Scenario, plan: Plan, seen: Sequence[Observations], run_dir: Path
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return all canaries' scores and coins, silo after silo, shape `(M,)`."""
    coins_M = np.concatenate([one.coins_K for one in seen])
    if plan.kind == "loss":
        return _loss_scores(scenario, run_dir), coins_M
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


def _loss_scores(scenario: Scenario, run_dir: Path) -> NDArray[np.float64]:
    """Return minus the final model's loss on every loss canary, silo after silo."""
    from fedmodel.audit.membership import record_losses
    from fedmodel.audit.probes import loss_canaries

    module = final_model(scenario, run_dir)
    losses = [
        record_losses(module, scenario.training.loss, loss_canaries(scenario, silo))
        for silo in scenario.federation.silos
    ]
    return -np.concatenate(losses).astype(np.float64)


def final_model(scenario: Scenario, run_dir: Path) -> nn.Module:
    """Return the model that a simulated run ended with.

    Raises:
        ConfigError: When there is none, or it is sealed.
    """
    import safetensors.torch

    from fedmodel.data import data_shape
    from fedmodel.models import build_model
    from server.place import MODEL

    path = run_dir / MODEL
    if not path.is_file():
        raise ConfigError(f"{path}: there is no model to attack; a deployed server's is sealed")
    module = build_model(scenario.model, data_shape(scenario.data), seed=0)
    module.load_state_dict(safetensors.torch.load(path.read_bytes()))
    return module.eval()


def _membership(scenario: Scenario, run_dir: Path) -> dict[str, Any] | None:
    """Return what membership inference on the final model finds, None where there are too few records to try."""
    from fedmodel.audit.membership import NOTE, attacks
    from fedmodel.data import Records, held_out_records, silo_records

    parts = [silo_records(scenario, silo) for silo in scenario.federation.silos]
    members = Records(
        np.concatenate([part.x_NF for part in parts]),
        np.concatenate([part.y_N for part in parts]),
        np.concatenate([part.person_N for part in parts]),
    )
    try:
        found = attacks(final_model(scenario, run_dir), scenario, members, held_out_records(scenario))
    except ConfigError:
        return None
    rows = {one.name.replace("-", "_"): {**asdict(one)} for one in found}
    for row in rows.values():
        del row["name"]
    return {**rows, "note": NOTE}


def _tried(scenario: Scenario, plan: Plan) -> Plan:
    """Return a plan of loss canaries with its power: the scenario is trained at less noise, and attacked."""
    from scenarios.runner import check_scenario, run_folder, simulate

    noises = {one.silo: max(LEAST_NOISE, plan.less_noise * one.noise_multiplier) for one in plan.silos}
    loud = max(noises.values())
    privacy = scenario.privacy.model_copy(update={"epsilon": None, "noise_multiplier": loud, "silo": {}})
    encryption = scenario.encryption.model_copy(update={"secure_aggregation": "off"})
    correct = []
    for trial in range(_TRIALS):
        seed = derive_seed(scenario.seed or 0, "audit-trial", trial)
        tried = scenario.model_copy(
            update={"privacy": privacy, "encryption": encryption, "budgets": {}, "faults": None, "seed": seed}
        )
        with TemporaryDirectory() as folder, run_folder(tried, Path(folder) / "run") as run_dir:
            kits_ready = partial(_toss_all, tried, run_dir)
            simulate(tried, check_scenario(tried), "in-process", "cpu", run_dir, nullcontext(), kits_ready)
            coins_M = np.concatenate([observations.coins(run_dir / "silos" / one.silo) for one in plan.silos])
            correct.append(guess(_loss_scores(tried, run_dir), coins_M, plan.guesses).correct)
    return with_power(plan, correct)


def _toss_all(scenario: Scenario, run_dir: Path) -> None:
    for silo in scenario.federation.silos:
        observations.toss(run_dir / "silos" / silo, scenario.audit.count if scenario.audit else 0)


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def _finite(gauge: dict[str, Any]) -> dict[str, Any]:
    """Return a gauge with None for what is no finite number, which JSON does not have; it did not pass."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in gauge.items()
    }
