"""What this silo insists on, checked in its own process, from its own file, before any record is read.

A server can ask; it cannot loosen. Each function refuses with a reason that names what was found and the rule: the
reason stays in the silo's log, the code `policy-refused` goes to the server.

    who asks        its signature is by a key that `silo.toml` names        every message
    what is asked   the scenario and everything in it that the law limits   every message
    with what code  the packages installed here are ones that it names      every message
    whose code      what a scenario names is of a package that it lists     every message
    on which base   the one that a model is built on is one that it names   every message
    when            within its hours                                        joining and training
    how noisy       what will be charged is no looser than the law          joining and training
    noise at all    a run without it is a simulation's alone                every message
    among whom      a sum that is nearly one update is not opened           joining, training, commit and reveal

What the ledger allows is for `fedmodel.ledger`; what secure aggregation allows, for `fedmodel.secagg`.

What it says in sentences, for a person to sign off, is in `clients.sentences`.

Does NOT protect a silo whose operator changes this code: the hash that is compared is computed by the code that runs.
It tells an installation from another, not an honest one from a lying one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from fedmodel.config import BudgetConfig, HoursConfig, Scenario, SiloFile
from fedmodel.errors import AggregationRefused, ConfigError, PolicyRefused
from fedmodel.ledger import Scope, Standing
from fedmodel.privacy import accounting
from fedmodel.privacy.events import EXPERIMENT, Event, protects
from fedmodel.privacy.mechanisms import mechanism_of
from fedmodel.provision import check_based, check_even, check_levels, check_listed, policy_of, scenario_hash, unevenness
from fedmodel.secagg import Policy
from fedmodel.system.counts import counted
from fedmodel.system.packages import code_hash

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def check_admitted(law: SiloFile, scenario: Scenario) -> None:
    """Refuse a scenario that the law does not name, or that asks for more than it gives.

    Raises:
        PolicyRefused: Which rule it breaks.
    """
    if scenario_hash(scenario).hex() not in law.scenarios:
        raise PolicyRefused("silo.toml does not name the hash of the scenario that was sent; a person adds it, or not")
    if scenario.audit is not None and law.connection is not None:
        raise PolicyRefused(
            "an audited run keeps what its canaries saw in the open, and is simulated; this silo is not"
        )
    plan = scenario.plan(law.name)
    budget = law.budget_of(plan.data)
    if budget is None:
        raise PolicyRefused(f"data set {plan.data!r} has no budget in silo.toml, so nothing is trained on it")
    if (plan.unit, plan.max_records) != (budget.unit, budget.max_records or 1):
        raise PolicyRefused(
            f"privacy unit {plan.unit} of at most {counted(plan.max_records, 'record')} is not the budget's,"
            f" {budget.unit} of at most {budget.max_records or 1}; epsilons of different units are never added"
        )
    if plan.delta > budget.delta:
        raise PolicyRefused(f"delta {plan.delta} is over the budget's {budget.delta}")
    if plan.noise not in law.noise_sources:
        raise PolicyRefused(f"noise source {plan.noise!r} is none of this silo's: {', '.join(law.noise_sources)}")
    if plan.max_grad_norm > law.largest_clip:
        raise PolicyRefused(f"clip {plan.max_grad_norm:g} is over this silo's maximum {law.largest_clip:g}")
    if scenario.federation.min_silos < law.min_silos:
        raise PolicyRefused(
            f"a sum of {counted(scenario.federation.min_silos, 'silo')} is under this silo's minimum {law.min_silos}"
        )
    asked, ours = scenario.encryption.secure_aggregation, law.encryption.secure_aggregation
    if asked != ours:
        raise PolicyRefused(f"secure aggregation {asked!r} is asked for, where this silo's law says {ours!r}")
    check_cohort(law, scenario.federation.cohort_size)
    if ours != "off":
        _check_even(law, scenario)


def _check_even(law: SiloFile, scenario: Scenario) -> None:
    """Refuse a scenario by whose public figures one update could be nearly all of a whole cohort's sum."""
    try:
        check_even(scenario, law.least_effective_silos, aggregation_of(law).colluding)
    except ConfigError as error:
        raise PolicyRefused(str(error)) from error


def check_survivors(law: SiloFile, scenario: Scenario, silos: Collection[str]) -> None:
    """Refuse to sign, or to open, a sum that could be nearly one silo's update.

    Args:
        law: This silo's.
        scenario: Whose public figures count.
        silos: In the sum.

    Raises:
        PolicyRefused: When they are worth too few equal ones.
    """
    found = unevenness(scenario, silos, law.least_effective_silos, aggregation_of(law).colluding)
    if found is not None:
        raise PolicyRefused(f"a sum of {len(silos)} silos could be nearly one silo's update: {found}")


def check_noise_levels(law: SiloFile, scenario: Scenario, event: Event) -> None:
    """Refuse what would quantise this silo's update to nothing, noise and all.

    Args:
        law: The silo's.
        scenario: Whose public figures count.
        event: What the pipeline is built with (`fedmodel.plans.pipeline_event`).

    Raises:
        PolicyRefused: When noise of one step is less than a level.
    """
    if law.encryption.secure_aggregation == "off":
        return
    try:
        check_levels(scenario, law.name, event.noise_multiplier, aggregation_of(law).quantizer)
    except ConfigError as error:
        raise PolicyRefused(str(error)) from error


def aggregation_of(law: SiloFile) -> Policy:
    """Return what the law insists on in secure aggregation."""
    return policy_of(law.encryption, law.min_silos, law.largest_roster)


def check_cohort(law: SiloFile, cohort: int) -> None:
    """Refuse a cohort among which too few could hide.

    Without secure aggregation a silo never sees who else is asked, and the scenario's word is all there is.

    Args:
        law: The silo's.
        cohort: Silos asked: as the scenario says, and, where shares are dealt, as they are.

    Raises:
        PolicyRefused: When it, or the threshold that follows from it, is under the law's minimum.
    """
    if cohort < law.smallest_cohort:
        raise PolicyRefused(f"cohort {cohort} is under this silo's minimum {law.smallest_cohort}")
    if law.encryption.secure_aggregation != "on":
        return
    try:
        threshold = aggregation_of(law).topology(cohort).threshold
    except AggregationRefused as error:
        raise PolicyRefused(f"secure aggregation by this silo's law cannot be: {error}") from error
    if threshold < law.smallest_threshold:
        raise PolicyRefused(f"threshold {threshold} is under this silo's minimum {law.smallest_threshold}")


def check_code(law: SiloFile) -> None:
    """Refuse to act with code that the law does not name.

    Raises:
        PolicyRefused: When the packages installed here are others.
    """
    try:
        found = own_code(law.packages)
    except ConfigError as error:
        raise PolicyRefused(str(error)) from error
    if found not in law.code:
        raise PolicyRefused(
            f"the code installed here has hash {found[:16]}..., which silo.toml does not name; `fedmodel silo policy"
            " KIT --code` lists its files, and a person who approves of it enters the hash under `code`"
        )


def check_own_code(law: SiloFile, scenario: Scenario, *, simulated: bool) -> None:
    """Refuse a scenario that names code of a package that the law does not list.

    A simulation's silo has no law of its own making, and its process is the user's.

    Raises:
        PolicyRefused: Which key names it.
    """
    if simulated:
        return
    try:
        check_listed(scenario, law.packages)
    except ConfigError as error:
        raise PolicyRefused(str(error)) from error


def check_base(law: SiloFile, scenario: Scenario) -> None:
    """Refuse a scenario that is built on a base which the law does not name.

    Raises:
        PolicyRefused: Which one it is.
    """
    try:
        check_based(scenario, law.bases)
    except ConfigError as error:
        raise PolicyRefused(str(error)) from error


def check_hours(law: SiloFile, now: datetime) -> None:
    """Refuse to join or train outside the law's hours.

    Args:
        law: The silo's.
        now: By the silo's own clock, in its own time zone.

    Raises:
        PolicyRefused: When it is outside.
    """
    if law.hours is not None and not _within(law.hours, now):
        raise PolicyRefused(f"{_DAYS[now.weekday()]} {now:%H:%M} is outside this silo's hours: {hours_told(law.hours)}")


def check_baseline(scenario: Scenario, *, simulated: bool) -> None:
    """Refuse a run without noise, or with an experiment's, at any silo but a simulated one.

    Guarantee: a deployed silo refuses it whatever its law says. It is no rule of the law, and no key of `silo.toml` can
    allow it.

    Args:
        scenario: What is asked.
        simulated: Whether the silo is a simulation's own: its keys lie open in a run's folder that is marked as one.

    Raises:
        PolicyRefused: When it is not, and something is left out or an experiment's.
    """
    if scenario.privacy.noise == EXPERIMENT and not simulated:
        raise PolicyRefused(
            'privacy.noise = "experiment" protects nobody, and runs in a simulation alone: this silo is deployed, and'
            " no key of silo.toml allows it"
        )
    if scenario.privacy.baseline is not None and not simulated:
        raise PolicyRefused(
            f"privacy.baseline = {scenario.privacy.baseline!r} protects nobody, and runs in a simulation alone: this"
            " silo is deployed, and no key of silo.toml allows it"
        )


def check_event(law: SiloFile, event: Event, *, simulated: bool = False) -> None:
    """Refuse a mechanism that the law does not name, an event that is looser than its limits, and one without noise.

    Each mechanism holds its own event to the law's limits (`fedmodel.privacy.mechanisms`). One without noise is let
    in at a simulation's own silos alone, whatever the law says, and so is one with an experiment's noise.

    Raises:
        PolicyRefused: Which rule it breaks.
    """
    if EXPERIMENT in (event.drawn_from, event.noise_source) and not simulated:
        raise PolicyRefused("noise of an experiment protects nobody: this silo is deployed, and draws none")
    if not protects(event):
        if not simulated:
            raise PolicyRefused("a release without noise protects nobody: this silo is deployed, and makes none")
        return  # a simulated law is written for the private run that the baseline is compared with
    if event.mechanism not in law.mechanisms:
        raise PolicyRefused(f"mechanism {event.mechanism!r} is none of this silo's: {', '.join(law.mechanisms)}")
    mechanism_of(event).check(event, law)


def budget_scope(law: SiloFile, data: str) -> Scope:
    """Return the scope of the ledger that a data set's budget is; of one that counts several data sets, one for all.

    Raises:
        PolicyRefused: When the data set has none.
    """
    name = law.budget_name(data)
    if name is None:
        raise PolicyRefused(f"data set {data!r} has no budget in silo.toml, so nothing is trained on it")
    return scope_of(name, law.budgets[name])


def scope_of(name: str, budget: BudgetConfig) -> Scope:
    """Return the scope of the ledger that a budget of this name is."""
    # Where the law does not say, the ledger's order holds once there is one.
    order = accounting.filter_order(budget.epsilon, budget.delta) if budget.order is None else budget.order
    return Scope(name, budget.unit, budget.max_records or 1, budget.delta, budget.epsilon, order, budget.adjacency)


def check_nothing_is_forgotten(law: SiloFile, standing: Standing) -> None:
    """Refuse a budget that counts a data set on which the ledger holds runs under a budget of its own.

    Raises:
        PolicyRefused: When what they spent would be forgotten.
    """
    for scope in standing.scopes.values():
        name = law.budget_name(scope.data)
        if name not in (None, scope.data) and any(run.matters for run in standing.of(scope.name)):
            raise PolicyRefused(
                f"budget {name!r} counts data set {scope.data!r}, and the ledger holds runs on it under {scope.name}, a"
                f" budget of its own, which would be forgotten; call the budget {scope.data!r}, or make a new kit and"
                " decide on its budget knowing what was spent"
            )


def hours_told(hours: HoursConfig) -> str:
    """Return a law's hours in words, as a part of a sentence."""
    days = "every day" if len(hours.days) == len(_DAYS) else "on " + ", ".join(hours.days)
    if hours.start == hours.end:
        return days
    return f"{days} from {hours.start} until {hours.end}" + (" of the day after" if hours.end < hours.start else "")


def _within(hours: HoursConfig, now: datetime) -> bool:
    """Return whether a moment is in the hours; what began before midnight belongs to the day that it began on."""
    clock, today, yesterday = f"{now:%H:%M}", _DAYS[now.weekday()], _DAYS[now.weekday() - 1]
    if hours.start < hours.end:
        return today in hours.days and hours.start <= clock < hours.end
    if hours.start == hours.end:
        return today in hours.days
    return (today in hours.days and clock >= hours.start) or (yesterday in hours.days and clock < hours.end)


def own_code(packages: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the hash of a silo's code as it was installed here when this process first asked.

    Args:
        packages: Those that its law lists, whose files are in it.

    Raises:
        ConfigError: When one of them cannot be had as it is listed.
    """
    return _hashed(tuple(sorted(packages.items())))


@lru_cache(maxsize=8)
def _hashed(packages: tuple[tuple[str, str], ...]) -> str:
    return code_hash(dict(packages))
