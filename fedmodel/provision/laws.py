"""Writes a silo's law from the scenarios that it takes part in; the law admits nothing that they do not ask for.

In a simulation, one scenario gives the law: a silo's file allows exactly what the scenario asks of it. Its budget pays
for one run, or for what the scenario states under `[budgets]`. A deployed silo may take part in several scenarios: see
`joint_law`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fedmodel import plans
from fedmodel.config import (
    LEAST_EFFECTIVE,
    BudgetConfig,
    Scenario,
    SiloEncryptionConfig,
    SiloFile,
)
from fedmodel.crypto import digest
from fedmodel.errors import AggregationRefused, ConfigError
from fedmodel.kinds.models.hf import HfConfig
from fedmodel.privacy import accounting
from fedmodel.privacy.events import EXPERIMENT, MOST_EPSILON
from fedmodel.privacy.plan import SiloPlan
from fedmodel.privacy.rounding import raised
from fedmodel.provision.influence import check_even, check_levels
from fedmodel.provision.kits import policy_of
from fedmodel.secagg import Policy
from fedmodel.secagg.topology import LEAST_SILOS
from fedmodel.system.distributions import owner
from fedmodel.system.packages import code_hash

# A budget is above zero, even if delta alone covers what a run spends: with much noise, or with hardly any record
# drawn.
_LEAST_BUDGET: Final = 1e-4


def scenario_policy(scenario: Scenario) -> Policy:
    """Return the policy that a scenario asks every silo to have.

    Raises:
        ConfigError: When it could protect nobody, no cohort of the scenario can be hidden under it, or one silo's
            update could be nearly all of a sum.
    """
    federation = scenario.federation
    if federation.cohort_size < LEAST_SILOS:
        raise ConfigError(
            f"a cohort of {federation.cohort_size} is too few to hide an update among: of two, each learns the other's;"
            " name more silos, or turn encryption.secure_aggregation off"
        )
    policy = policy_of(scenario.encryption, federation.min_silos, len(federation.silos))
    try:
        policy.topology(federation.cohort_size)
    except AggregationRefused as error:
        raise ConfigError(f"secure aggregation cannot run as the scenario asks: {error}") from error
    check_even(scenario, LEAST_EFFECTIVE, policy.colluding)
    return policy


def least_silos(scenario: Scenario) -> int:
    """Return the fewest silos that may begin a round: `min_silos`, or the least cohort under secure aggregation.

    Raises:
        ConfigError: As `scenario_policy` does.
    """
    if scenario.encryption.secure_aggregation == "on":
        return scenario_policy(scenario).least_cohort
    return scenario.federation.min_silos


def scenario_hash(scenario: Scenario) -> bytes:
    """Return the hash by which silos know a scenario: over all its keys, defaults included.

    Raises:
        ConfigError: When it begins from a file, or is built on a base, without stating its hash
            (`fedmodel.learning.starts.resolved`).
    """
    if isinstance(scenario.model, HfConfig) and scenario.model.sha256 is None:
        raise ConfigError(f"scenario {scenario.name!r} is built on a base that was not read; write its sha256 into it")
    if scenario.start is not None and scenario.start.sha256 is None:
        raise ConfigError(f"scenario {scenario.name!r} begins from a file that was not read; write its sha256 into it")
    return digest(b"fedmodel/v1/scenario", scenario.json_text.encode())


def check_deployable(scenario: Scenario) -> None:
    """Refuse to deploy a scenario that is for simulations only.

    Raises:
        ConfigError: When the scenario leaves noise out, or its noise is an experiment's.
    """
    if scenario.privacy.noise == EXPERIMENT:
        raise ConfigError(
            f'{scenario.name}: privacy.noise = "experiment" protects nobody, and no deployed silo takes part in it;'
            " leave it out, or use `fedmodel simulate`"
        )
    if scenario.privacy.baseline is not None:
        raise ConfigError(
            f"{scenario.name}: privacy.baseline = {scenario.privacy.baseline!r} protects nobody, and no deployed silo"
            " takes part in it; leave it out, or use `fedmodel simulate`"
        )


def law_of(scenario: Scenario, silo: str, server: bytes, code: str | None = None) -> SiloFile:
    """Return the law of a simulated silo: what the scenario asks of it, and nothing more.

    Args:
        scenario: The one that it takes part in.
        silo: Its name.
        server: The public key of the server that it answers.
        code: The hash of a silo's code; by default as it is installed here now.

    Raises:
        ConfigError: When no noise meets the scenario's target, or nothing could be hidden.
    """
    federation, plan = scenario.federation, scenario.plan(silo)
    parts = plans.private_parts(scenario, silo)
    noise = parts[0].noise_multiplier
    threshold = 1
    if scenario.encryption.secure_aggregation != "off":
        policy = scenario_policy(scenario)
        check_levels(scenario, silo, noise, policy.quantizer)
        if scenario.encryption.secure_aggregation == "on":
            # Of the smallest cohort that a round may have once silos have left.
            threshold = policy.topology(policy.least_cohort).threshold
    return SiloFile(
        name=silo,
        servers=(server.hex(),),
        scenarios=(scenario_hash(scenario).hex(),),
        code=(code_hash() if code is None else code,),
        mechanisms=tuple(dict.fromkeys(part.mechanism for part in parts)),
        noise_sources=(plan.noise,),
        least_noise_multiplier=min(part.noise_multiplier for part in parts),
        largest_clip=plan.max_grad_norm,
        smallest_cohort=federation.min_silos,
        smallest_threshold=threshold,
        min_silos=federation.min_silos,
        largest_roster=len(federation.silos),
        budgets={plan.data: _budget(scenario, plan)},
        bases=bases_of(scenario),
        encryption=SiloEncryptionConfig(**scenario.encryption.model_dump()),
    )


def _budget(scenario: Scenario, plan: SiloPlan) -> BudgetConfig:
    """Return what a silo may spend: what one run costs, or what the scenario says under `[budgets]`."""
    epsilon = scenario.budgets.get(plan.silo, plan.epsilon)
    if epsilon is None:
        spent = accounting.epsilon(plans.private_parts(scenario, plan.silo), plan.delta)
        if spent > MOST_EPSILON:
            raise ConfigError(f"silo {plan.silo!r} would spend epsilon {spent}, over {MOST_EPSILON}; raise its noise")
        epsilon = max(raised(spent), _LEAST_BUDGET)
    return BudgetConfig(
        unit=plan.unit,
        max_records=None if plan.unit == "record" else plan.max_records,
        delta=plan.delta,
        epsilon=epsilon,
        partial_runs=plan.silo in scenario.budgets,
    )


def bases_of(scenario: Scenario) -> dict[str, str]:
    """Return the base that a scenario is built on by its hash, and the folder of a kit that it is put into."""
    model = scenario.model
    if not isinstance(model, HfConfig) or model.sha256 is None:
        return {}
    return {model.sha256: f"bases/{model.sha256[:16]}"}


def check_based(scenario: Scenario, bases: Mapping[str, str]) -> None:
    """Refuse a scenario that is built on a base which a party's own file does not name.

    Raises:
        ConfigError: Which base it is, and what to write.
    """
    for sha256 in bases_of(scenario):
        if sha256 not in bases:
            raise ConfigError(
                f"{scenario.name}: the model is built on the base of SHA-256 {sha256[:16]}..., which is none of those"
                f' under [bases]; a person who approves of it enters "{sha256}" = "FOLDER" there, or not'
            )


def check_listed(scenario: Scenario, packages: Mapping[str, str]) -> None:
    """Refuse a scenario that names code of no package that is listed: a silo would not import it.

    Raises:
        ConfigError: Which key names it; or when a package that is listed cannot be had as it is listed.
    """
    for key, use in scenario.silos_code.items():
        if owner(use.partition(":")[0], packages) is None:
            raise ConfigError(
                f"{scenario.name}: {key} = {use!r} is code of no package that is listed under [packages]"
                f" ({', '.join(packages) or 'none is'}): a silo imports that of installed packages alone, which a"
                " person lists with their version"
            )


def joint_law(
    scenarios: Sequence[Scenario], silo: str, server: bytes, packages: Mapping[str, str] | None = None
) -> SiloFile:
    """Return the law of a silo that takes part in several scenarios: each figure is the loosest that one of them needs.

    The law admits each of these scenarios by its hash, and no other. The figures beside the hashes admit a little more
    than each single scenario needs. Budgets of one data set are added up, so that every run has room under the filter.

    Args:
        scenarios: The federation's; those that do not name the silo are ignored.
        silo: Its name.
        server: The public key of the server that it answers.
        packages: Those of others that scenarios may name code of, by name and version, installed here too.

    Raises:
        ConfigError: When no scenario names it, one leaves noise out or names code of no package that is listed, two ask
            for other encryption, or two count one data set's budget in different units or deltas: figures that cannot
            be added.
    """
    named = [scenario for scenario in scenarios if silo in scenario.federation.silos]
    if not named:
        raise ConfigError(
            f"silo {silo!r} is in none of the scenarios ({', '.join(one.name for one in scenarios)}); name it under"
            " federation.silos of one, or take it out of the federation"
        )
    listed = dict(packages or {})
    for scenario in named:
        check_deployable(scenario)
        check_listed(scenario, listed)
    code = code_hash()
    laws = [law_of(scenario, silo, server, code) for scenario in named]
    for scenario, law in zip(named[1:], laws[1:], strict=True):
        _check_alike(named[0], laws[0], scenario, law)
    return laws[0].model_copy(
        update={
            "scenarios": tuple(law.scenarios[0] for law in laws),
            "code": (code_hash(listed),),
            "packages": listed,
            "bases": {sha256: folder for law in laws for sha256, folder in law.bases.items()},
            "mechanisms": tuple(sorted({name for law in laws for name in law.mechanisms})),
            "noise_sources": tuple(sorted({source for law in laws for source in law.noise_sources})),
            "least_noise_multiplier": min(law.least_noise_multiplier for law in laws),
            "largest_clip": max(law.largest_clip for law in laws),
            "smallest_cohort": min(law.smallest_cohort for law in laws),
            "smallest_threshold": min(law.smallest_threshold for law in laws),
            "min_silos": min(law.min_silos for law in laws),
            "least_effective_silos": min(law.least_effective_silos for law in laws),
            "largest_roster": max(law.largest_roster for law in laws),
            "budgets": _budgets(silo, laws),
        }
    )


def _check_alike(first: Scenario, law: SiloFile, second: Scenario, other: SiloFile) -> None:
    """Refuse two scenarios under which a silo would have to mask in two ways, because it has one policy."""
    both = f"scenarios {first.name!r} and {second.name!r}"
    if law.encryption != other.encryption:
        raise ConfigError(f"{both} differ under [encryption], and a silo has one policy; make them alike")
    masks = law.encryption.secure_aggregation == "on"
    if masks and (law.min_silos, law.largest_roster) != (other.min_silos, other.largest_roster):
        raise ConfigError(
            f"{both} differ in min_silos or in how many silos they name ({law.min_silos} of {law.largest_roster},"
            f" {other.min_silos} of {other.largest_roster}), from which keys of secure aggregation follow; make them"
            " alike"
        )


def _budgets(silo: str, laws: Sequence[SiloFile]) -> dict[str, BudgetConfig]:
    """Return what may be spent of each data set, over all scenarios."""
    found: dict[str, BudgetConfig] = {}
    for law in laws:
        for data, budget in law.budgets.items():
            known = found.get(data)
            if known is None:
                found[data] = budget
                continue
            if (known.unit, known.max_records, known.delta) != (budget.unit, budget.max_records, budget.delta):
                raise ConfigError(
                    f"two scenarios spend silo {silo!r}'s budget of {data!r} in figures that do not add up:"
                    f" per {known.unit} at delta {known.delta}, and per {budget.unit} at delta {budget.delta};"
                    " make unit, max_records and delta alike"
                )
            epsilon = raised(known.epsilon, budget.epsilon)
            if epsilon > MOST_EPSILON:
                raise ConfigError(f"silo {silo!r} would spend epsilon {epsilon} of {data!r}, over {MOST_EPSILON}")
            partial = known.partial_runs or budget.partial_runs
            found[data] = known.model_copy(update={"epsilon": epsilon, "partial_runs": partial})
    return found
