"""An audit's plan for a scenario: how many canaries, what is tested, and what that could find.

What is tested is what will be charged if everybody does their part: a silo that is in some cohorts takes the steps of
those rounds alone. Cohorts follow from the scenario's seed, so that they are known beforehand.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

import numpy as np

from fedmodel import plans
from fedmodel.audit.guesses import guess, least_correct
from fedmodel.audit.plan import (
    LEAST_POWER,
    LESS_NOISE,
    MOST_SIGNIFICANCE,
    RUNS,
    SIGNIFICANCE,
    STATISTIC,
    Plan,
    SiloCanaries,
    make_plan,
    power_of,
    with_power,
)
from fedmodel.canaries import observations
from fedmodel.config import AuditConfig, Scenario
from fedmodel.errors import ConfigError, LedgerTampered
from fedmodel.privacy import accounting
from fedmodel.privacy.events import LEAST_NOISE, Event, is_secret
from fedmodel.provision import scenario_hash
from fedmodel.seeds import derive_seed
from scenarios.audit.black_box import final_model, loss_scores
from scenarios.runs import inspection
from server.aggregation import kind_of
from server.strategies import strategy_of, why_not_followed

CANARIES: Final = (1_000, 2_000, 4_000)
"""Of all silos together: the first that gives power enough, or else the first."""

CANARIES_OPTION: Final = "--canaries"
"""What says their number at the command line."""

_LEAST_EACH: Final = 20  # fewer coins of a silo could all fall alike
_TRIALS: Final = 5  # trained at less noise, to find what loss canaries could find
_RELATIVE: Final = 1e-6  # of figures that another machine computes
_LUCK: Final = 0.05  # of a simulated power, on a machine that rounds otherwise

Kind = Literal["probe", "loss"]


def with_canaries(scenario: Scenario, canaries: int, kind: Kind, said_by: str = CANARIES_OPTION) -> Scenario:
    """Return a scenario with so many canaries in all, as many at every silo; `said_by` is what says their number.

    Raises:
        ConfigError: When it has canaries already, or these are too few for its silos.
    """
    if scenario.audit is not None:
        raise ConfigError("the scenario has an [audit] section, which says how many canaries there are; leave one out")
    each = canaries // len(scenario.federation.silos)
    if not _LEAST_EACH <= each <= 10_000:
        raise ConfigError(
            f"{said_by} {canaries} makes {each} for each of {len(scenario.federation.silos)} silos, where 20 to"
            " 10,000 are possible"
        )
    return scenario.model_copy(update={"audit": AuditConfig(canaries=kind, count=each)})


def plan_audit(scenario: Scenario, significance: float = SIGNIFICANCE) -> Plan:
    """Fix what will be tested in a run of a scenario with canaries.

    Raises:
        ConfigError: When noise is seeded, so that there is no claim to test, no noise meets the target, or the strategy
            is none of means, or does not move each coordinate by itself: the audit could not follow it.
    """
    if scenario.audit is None:
        raise ConfigError("the scenario has no canaries; `fedmodel audit plan` puts them in")
    if scenario.privacy.baseline is not None:
        raise ConfigError(
            f"privacy.baseline = {scenario.privacy.baseline!r} claims nothing that could be refuted; audit a run that"
            " adds noise"
        )
    if not is_secret(scenario.privacy.noise):
        raise ConfigError(
            f"privacy.noise = {scenario.privacy.noise!r} claims nothing that could be refuted; audit a run whose noise"
            " is the operating system's"
        )
    if (reason := why_not_followed(strategy_of(scenario))) is not None:
        raise ConfigError(
            f"federation.strategy = {scenario.federation.strategy!r} {reason}; audit with 'fedavg' and without"
            " strategy_options: silos release, and are charged, as under any strategy"
        )
    silos = [_canaries(scenario, silo, scenario.audit.count) for silo in scenario.federation.silos]
    plan = make_plan(scenario_hash(scenario).hex(), scenario.audit.canaries, silos, significance)
    return _tried(scenario, plan) if plan.kind == "loss" else plan


def planned(
    scenario: Scenario, canaries: int | None, kind: Kind, significance: float, said_by: str = CANARIES_OPTION
) -> tuple[Scenario, Plan]:
    """Return a scenario with canaries, and the plan of its audit.

    Args:
        scenario: With canaries or, as usual, without.
        canaries: In all; None for those that it has, or for the first number of `CANARIES` that gives power enough.
            Loss canaries are 1,000.
        kind: Of canaries.
        significance: Of the test.
        said_by: What says the number of canaries, where the audit is asked for.
    """
    if scenario.audit is not None and canaries is None:
        return scenario, plan_audit(scenario, significance)
    numbers = (canaries,) if canaries is not None else CANARIES if kind == "probe" else CANARIES[:1]
    tried = []
    for number in numbers:
        with_them = with_canaries(scenario, number, kind, said_by)
        tried.append((with_them, plan_audit(with_them, significance)))
        if tried[-1][1].power >= LEAST_POWER:
            return tried[-1]
    return tried[0]


def check_plan(scenario: Scenario, plan: Plan) -> None:
    """Refuse a plan that does not follow from its scenario: one that could not refute, or says that it could.

    How many canaries are guessed about is the planner's choice; what that makes of the test is not. What loss canaries
    could find was found out by training, and is taken as it stands.

    Raises:
        LedgerTampered: When it does not.
    """
    if scenario.audit is None or plan.scenario != scenario_hash(scenario).hex() or plan.kind != scenario.audit.canaries:
        raise LedgerTampered("the audit's plan is of another scenario than this run's")
    ours = [_canaries(scenario, silo, scenario.audit.count) for silo in scenario.federation.silos]
    for theirs, follows in zip(plan.silos, ours, strict=False):
        figures = ("noise_multiplier", "rate", "epsilon", "delta", "mu")
        if any(not math.isclose(getattr(theirs, name), getattr(follows, name), rel_tol=_RELATIVE) for name in figures):
            raise LedgerTampered(f"the audit's plan claims other figures for silo {follows.silo} than the scenario")
    counted = [(one.silo, one.canaries, one.steps, one.max_records) for one in plan.silos]
    if counted != [(one.silo, one.canaries, one.steps, one.max_records) for one in ours]:
        raise LedgerTampered("the audit's plan has other silos, canaries or steps than the scenario")
    if plan.guesses % 2 or not 2 <= plan.guesses <= plan.canaries or not 0 < plan.significance <= MOST_SIGNIFICANCE:
        raise LedgerTampered(f"the audit's plan has {plan.guesses} guesses at significance {plan.significance:g}")
    needed = least_correct(plan.canaries, plan.guesses, plan.mu, plan.significance)
    said = (plan.needed, plan.less_noise, plan.least_power, plan.statistic)
    if said != (needed, LESS_NOISE, LEAST_POWER, STATISTIC):
        raise LedgerTampered(f"the audit's plan tests otherwise than is done here: {needed} right guesses refute it")
    if plan.runs != (RUNS if plan.kind == "probe" else _TRIALS):
        raise LedgerTampered(f"the audit's plan says {plan.runs} runs, from which its power was not found")
    if plan.kind == "probe" and plan.power > power_of(plan, plan.silos) + _LUCK:
        raise LedgerTampered(f"the audit's plan says a power of {plan.power:g}, which simulation does not find")


def _canaries(scenario: Scenario, silo: str, count: int) -> SiloCanaries:
    """Return what will be charged for a silo's canaries."""
    plan = scenario.plan(silo)
    steps = plan.steps_per_round * _rounds(scenario, silo)
    event = plans.private_event(plan).times(max(steps, 1))
    epsilon, mu = _claim(event, plan.delta)
    return SiloCanaries(
        silo=silo,
        canaries=count,
        noise_multiplier=event.noise_multiplier,
        rate=event.realised_sample_rate,
        steps=steps,
        max_records=plan.max_records,
        epsilon=epsilon,
        delta=plan.delta,
        mu=mu,
    )


def _rounds(scenario: Scenario, silo: str) -> int:
    """Return in how many rounds a silo is asked, were nobody ever lost."""
    strategy, kind = strategy_of(scenario), kind_of(scenario)
    numbers = [kind.cohort_round(scenario, number) for number in range(1, scenario.rounds + 1)]
    cohorts = [strategy.choose(scenario.federation.silos, number) for number in numbers]
    return sum(silo in cohort for cohort in cohorts)


@lru_cache(maxsize=64)
def _claim(event: Event, delta: float) -> tuple[float, float]:
    """Return the epsilon of an event at a delta, and the least mu for which it is mu-GDP.

    Silos that plan alike ask alike. What a process planned with, it checks a plan with: the claim that is held against
    other accountants is the ledger's.
    """
    return accounting.epsilon([event], delta), accounting.gdp_mu([event], inspection.MU_FLOOR)


def _tried(scenario: Scenario, plan: Plan) -> Plan:
    """Return a plan of loss canaries with its power: the scenario is trained at less noise, and attacked."""
    from scenarios.simulation.simulate import check_scenario, run_folder, simulate

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
            correct.append(guess(loss_scores(tried, final_model(tried, run_dir)), coins_M, plan.guesses).correct)
    return with_power(plan, correct)


def _toss_all(scenario: Scenario, run_dir: Path) -> None:
    for silo in scenario.federation.silos:
        observations.toss(run_dir / "silos" / silo, scenario.audit.count if scenario.audit else 0)
