"""What this silo insists on, checked in its own process, from its own file, before any record is read.

A server can ask; it cannot loosen. Each function refuses with a reason that names what was found and the rule: the
reason stays in the silo's log, the code `policy-refused` goes to the server.

    who asks        its signature is by a key that `silo.toml` names        every message
    what is asked   the scenario and everything in it that the law limits   every message
    with what code  the packages installed here are ones that it names      every message
    whose code      what a scenario names is of a package that it lists     every message
    when            within its hours                                        joining and training
    how noisy       what will be charged is no looser than the law          joining and training
    noise at all    a run without it is a simulation's alone                every message
    among whom      a sum that is nearly one update is not opened           joining, training, commit and reveal

What the ledger allows is for `fedmodel.ledger`; what secure aggregation allows, for `fedmodel.secagg`.

Does NOT protect a silo whose operator changes this code: the hash that is compared is computed by the code that runs.
It tells an installation from another, not an honest one from a lying one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from fedmodel.config import BudgetConfig, HoursConfig, Scenario, SiloFile, TableSource
from fedmodel.errors import AggregationRefused, ConfigError, PolicyRefused
from fedmodel.ledger import Scope, Standing
from fedmodel.privacy import accounting
from fedmodel.privacy.events import Event, protects
from fedmodel.privacy.mechanisms import mechanism_of
from fedmodel.privacy.rounding import down, small, up
from fedmodel.provision import check_even, check_levels, check_listed, policy_of, scenario_hash, unevenness
from fedmodel.secagg import Policy
from fedmodel.secagg.topology import COMPLETE_UP_TO
from fedmodel.system.packages import code_hash

_FORMS: Final = {
    "text": "ids are one person's if they are alike but for outer space, width and Unicode's ways to write a letter",
    "caseless": "ids are one person's if they are alike but for case, outer space, width and Unicode's ways to write a"
    " letter",
    "digits": "ids are one person's if they are the same whole number, leading zeros or not",
}
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
            f"privacy unit {plan.unit} of at most {plan.max_records} records is not the budget's, {budget.unit} of at"
            f" most {budget.max_records or 1}; epsilons of different units are never added"
        )
    if plan.delta > budget.delta:
        raise PolicyRefused(f"delta {plan.delta} is over the budget's {budget.delta}")
    if plan.noise not in law.noise_sources:
        raise PolicyRefused(f"noise source {plan.noise!r} is none of this silo's: {', '.join(law.noise_sources)}")
    if plan.max_grad_norm > law.largest_clip:
        raise PolicyRefused(f"clip {plan.max_grad_norm:g} is over this silo's maximum {law.largest_clip:g}")
    if scenario.federation.min_silos < law.min_silos:
        raise PolicyRefused(
            f"a sum of {scenario.federation.min_silos} silos is under this silo's minimum {law.min_silos}"
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
        check_even(scenario, law.least_effective_silos, _aggregation(law).colluding)
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
    found = unevenness(scenario, silos, law.least_effective_silos, _aggregation(law).colluding)
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
        check_levels(scenario, law.name, event.noise_multiplier, _aggregation(law).quantizer)
    except ConfigError as error:
        raise PolicyRefused(str(error)) from error


def _aggregation(law: SiloFile) -> Policy:
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
        threshold = _aggregation(law).topology(cohort).threshold
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


def check_hours(law: SiloFile, now: datetime) -> None:
    """Refuse to join or train outside the law's hours.

    Args:
        law: The silo's.
        now: By the silo's own clock, in its own time zone.

    Raises:
        PolicyRefused: When it is outside.
    """
    if law.hours is not None and not _within(law.hours, now):
        raise PolicyRefused(f"{_DAYS[now.weekday()]} {now:%H:%M} is outside this silo's hours: {_hours(law.hours)}")


def check_baseline(scenario: Scenario, *, simulated: bool) -> None:
    """Refuse a run without noise at any silo but a simulated one.

    Guarantee: a deployed silo refuses it whatever its law says. It is no rule of the law, and no key of `silo.toml` can
    allow it.

    Args:
        scenario: What is asked.
        simulated: Whether the silo is a simulation's own: its keys lie open in a run's folder that is marked as one.

    Raises:
        PolicyRefused: When it is not, and something is left out.
    """
    if scenario.privacy.baseline is not None and not simulated:
        raise PolicyRefused(
            f"privacy.baseline = {scenario.privacy.baseline!r} protects nobody, and runs in a simulation alone: this"
            " silo is deployed, and no key of silo.toml allows it"
        )


def check_event(law: SiloFile, event: Event, *, simulated: bool = False) -> None:
    """Refuse a mechanism that the law does not name, an event that is looser than its limits, and one without noise.

    Each mechanism holds its own event to the law's limits (`fedmodel.privacy.mechanisms`). One without noise is let
    in at a simulation's own silos alone, whatever the law says.

    Raises:
        PolicyRefused: Which rule it breaks.
    """
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
    return _scope(name, law.budgets[name])


def _scope(name: str, budget: BudgetConfig) -> Scope:
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


def sentences(law: SiloFile) -> list[str]:
    """Return the law in sentences for a person to sign off, one for each rule."""
    hidden = {
        "on": f"Updates leave masked: a server opens sums of at least {law.min_silos} silos, and no single update.",
        "simulated": "Updates leave UNMASKED: the server sees each one. Secure aggregation is only simulated.",
        "off": "Updates leave UNMASKED: the server sees each one.",
    }[law.encryption.secure_aggregation]
    said = [
        f"This is the law of silo {law.name}. No server can loosen it.",
        _listed("It answers servers that sign with", law.servers, "It answers no server: none is named."),
        _listed("It takes part in the scenarios with hash", law.scenarios, "It takes part in no scenario."),
        _listed("It trains with the code with hash", law.code, "It trains with no code: none is named."),
        *_packages(law),
        *(_budget(law, name) for name in law.budgets),
        "No other data set is trained on.",
        *(
            line
            for name, source in law.tables.items()
            for line in [_table(name, source), *_person(law, name, source), *_held_out(name, source)]
        ),
        *_disjoint(law),
        f"Every release is by {', '.join(law.mechanisms)}, with noise of at least {down(law.least_noise_multiplier)}"
        f" times the clip, and a clip of at most {up(law.largest_clip)}.",
        _noise(law),
        f"It takes part only where at least {law.smallest_cohort} silos are asked in a round and at least"
        f" {law.min_silos} are in a sum, of at most {law.largest_roster} in the federation."
        + ("" if law.encryption.secure_aggregation == "on" else " Unmasked, that is the scenario's word alone."),
        hidden,
    ]
    if law.encryption.secure_aggregation == "on":
        policy = _aggregation(law)
        said.append(
            f"No sum is opened whose weights are worth fewer than {law.least_effective_silos:.10g} equal silos, nor one"
            f" in which, less any {policy.colluding} silos that work with the server, one update could outweigh the"
            " others by the public weights, batches and steps. Noise of every silo is at least a level of the"
            " quantiser."
        )
        said.append(
            f"That holds as long as no more than {policy.colluding} of the silos work with the server (above"
            f" {COMPLETE_UP_TO} silos, but for a probability of 2^-{policy.secrecy_bits}); at least"
            f" {law.smallest_threshold} silos are needed to bring a secret back."
        )
        if law.encryption.consistency == "quorum":
            said.append("It does NOT hold against a server that shows silos different lists.")
    said.append(_figures(law))
    said.append("It works at any hour." if law.hours is None else f"It joins and trains {_hours(law.hours)}.")
    return said


def _figures(law: SiloFile) -> str:
    """Say which figures of records leave: none, or noised sums that a job besides training may be asked for."""
    if "gaussian" in law.mechanisms:
        return (
            "No metric leaves: no loss, no count of records but with noise, charged as a release, and no text of an"
            " error."
        )
    return "No metric leaves: no loss, no count of records, no text of an error."


def _packages(law: SiloFile) -> list[str]:
    """Say whose code it runs besides its own."""
    if not law.packages:
        return []
    listed = " and ".join(f"{name} {version}" for name, version in law.packages.items())
    return [
        f"A scenario may name code of {listed}, as installed here: it runs with all the rights of this silo, and what"
        " is claimed of a run holds for code that is not written to cheat. Every file of it is in the hash of the"
        " code, but for its installer's notes and scripts."
    ]


def _noise(law: SiloFile) -> str:
    """Say where noise comes from."""
    if "seeded-unsafe" in law.noise_sources:
        return "Noise may be SEEDED: whoever knows the seed can remove it, and no epsilon protects anybody."
    if law.noise_sources:
        return "Noise is drawn from the operating system."
    return "It trains nothing: no source of noise is named."


def _budget(law: SiloFile, name: str) -> str:
    """Say what may be spent on a data set, or on several together."""
    budget = law.budgets[name]
    scope = _scope(name, budget)
    whose = {
        "record": "one record",
        "person": f"one person, of whom at most {scope.max_records} records are used",
        "client": f"this whole silo, of which at most {scope.max_records} records are used",
    }[scope.unit]
    whole = "A run that it does not pay to its end is refused"
    if budget.partial_runs:
        whole = "A run that it does not pay to its end is taken part in for as long as it does"
    order = "an order fixed with the ledger" if budget.order is None else f"order {scope.order}"
    data = " and ".join(budget.covers or (name,)) + (" together" if len(budget.covers or ()) > 1 else "")
    return (
        f"On {data}, at most epsilon {up(scope.epsilon)} at delta {small(scope.delta)} is ever spent, for the presence"
        f" of {whose}; runs chosen one after the other are held to it by a Rényi filter of {order}. {whole}."
    )


def _table(name: str, source: TableSource) -> str:
    """Say where a data set lies; of a database the query alone, which is what is read."""
    where = {
        "csv": f"the CSV file {source.csv}",
        "parquet": f"the Parquet file {source.parquet}",
        "folder": f"the CSV and Parquet files in {source.folder}",
        "files": f"the files in {source.files}, which are images, IDX files or JSON lines, as the scenario says",
        "url": f"a {source.database} database, by an account that can only read: {source.query}",
    }
    form = ""
    if not source.is_plain:
        form = f", as CSV separated by {source.separator!r}, with decimal {source.decimal!r}, in {source.encoding}"
        if source.missing_values:
            form += f", where {', '.join(map(repr, source.missing_values))} stands for a missing value"
    return f"{name} is read from {next(where[key] for key in where if getattr(source, key) is not None)}{form}."


def _person(law: SiloFile, name: str, source: TableSource) -> list[str]:
    """Say when two records of a table are one person's, where that matters or is said."""
    budget = law.budget_of(name)
    if source.person is None and (budget is None or budget.unit != "person"):
        return []
    column, form = "the column that the scenario names", "text"
    if source.person is not None:
        column, form = f"column {source.person.column!r}", source.person.form
    return [f"Whose record of {name} it is, is said by {column}: {_FORMS[form]}."]


def _held_out(name: str, source: TableSource) -> list[str]:
    """Say what becomes of the persons whom the silo holds out."""
    if source.held_out is None:
        return []
    return [
        f"Of {name}, a share of {source.held_out:.10g} of its persons is HELD OUT: their records do not train, and are"
        " handed to the server's operator as they are. Figures measured on them leave without noise, and no epsilon"
        f" covers these persons. Once they are handed over, {name} is read by no other column or form of ids than today"
        " and with no smaller share."
    ]


def _disjoint(law: SiloFile) -> list[str]:
    """Say what rests on the operator's word."""
    names = [name for name, source in law.tables.items() if source.disjoint]
    if not names:
        return []
    return [
        f"That the queries of {', '.join(names)} give nobody's record whom another of them of the same database gives"
        " is this silo's own word: no program checks it, and their budgets are counted apart."
    ]


def _listed(words: str, values: tuple[str, ...], none: str) -> str:
    return f"{words} {' or '.join(f'{value[:16]}...' for value in values)}." if values else none


def _hours(hours: HoursConfig) -> str:
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
