"""Kits: what each party of a federation is handed before it begins, and how a silo reads its own back.

    server/   identity.key (0600), roster, administrator.pub
    silos/NAME/   silo.toml, identity.key (0600), roster, administrator.pub

The administrator's key signs the roster and is then forgotten: a roster is made once for a simulated run. A silo reads
nothing but its own folder, so what its `silo.toml` says holds whatever a server sends.

In a simulation the scenario is the law: each silo's file allows what the scenario asks of it, to the last figure, and
nothing more. Its budget pays for one run, or, where the scenario says under `[budgets]`, for what it says.

Does NOT encrypt identity keys: whoever reads a silo's folder can act for it.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedmodel import accounting
from fedmodel.config import (
    MOST_EPSILON,
    BudgetConfig,
    EncryptionConfig,
    Scenario,
    SiloEncryptionConfig,
    SiloFile,
    SiloPlan,
    read_silo_file,
    silo_file_to_toml,
)
from fedmodel.crypto import SigningKey, Suite, digest
from fedmodel.errors import AggregationRefused, ConfigError
from fedmodel.mechanisms import DpSgdEvent
from fedmodel.packages import code_hash
from fedmodel.secagg import Member, Policy, Roster

SIMULATED: Final = "silos/.simulated"
_IDENTITY: Final = "identity.key"
_ROSTER: Final = "roster"
_ADMINISTRATOR: Final = "administrator.pub"
_LAW: Final = "silo.toml"


@dataclass(frozen=True)
class Kit:
    """What one silo holds. `identity` is sensitive."""

    law: SiloFile
    identity: SigningKey
    roster: Roster

    @property
    def policy(self) -> Policy:
        """What this silo insists on in secure aggregation."""
        return policy_of(self.law.encryption, self.law.min_silos, self.law.largest_roster)


def policy_of(encryption: EncryptionConfig, min_silos: int, largest_roster: int) -> Policy:
    """Return the policy of secure aggregation that a configuration says.

    Without numbers of its own, a third of the silos may collude and another third drop out.

    Raises:
        ConfigError: When it could protect nobody.
    """
    third = (largest_roster - 1) // 3
    return Policy(
        n_min=min_silos,
        colluding=third if encryption.colluding is None else encryption.colluding,
        dropping=third if encryption.dropping is None else encryption.dropping,
        bound=encryption.bound or 0.0,
        largest_roster=largest_roster,
        secrecy_bits=encryption.secrecy_bits,
        ring_bits=encryption.ring_bits,
        window=encryption.window,
        suite=Suite.POST_QUANTUM if encryption.post_quantum else Suite.CLASSIC,
        consistency=encryption.consistency,
    )


def scenario_policy(scenario: Scenario) -> Policy:
    """Return the policy that a scenario asks every silo to have.

    Raises:
        ConfigError: When it could protect nobody, or no cohort of the scenario can be hidden under it.
    """
    federation = scenario.federation
    if federation.cohort_size < 3:
        raise ConfigError(
            f"a cohort of {federation.cohort_size} is too few to hide an update among: of two, each learns the other's;"
            " name more silos, or turn encryption.secure_aggregation off"
        )
    policy = policy_of(scenario.encryption, federation.min_silos, len(federation.silos))
    try:
        policy.topology(federation.cohort_size)
    except AggregationRefused as error:
        raise ConfigError(f"secure aggregation cannot run as the scenario asks: {error}") from error
    return policy


def scenario_hash(scenario: Scenario) -> bytes:
    """Return the hash by which silos know a scenario: of all its keys, defaults too."""
    return digest(b"fedmodel/v1/scenario", scenario.model_dump_json().encode())


def provision(scenario: Scenario, folder: Path) -> None:
    """Make every party's kit for a simulated federation, keys and all, under a run's folder, and mark it as such."""
    federation = scenario.federation
    administrator = SigningKey.generate()
    server = os.urandom(32)
    secrets = {silo: os.urandom(32) for silo in federation.silos}
    members = tuple(Member(silo, SigningKey(secret).public) for silo, secret in secrets.items())
    roster = Roster(scenario.name, members).sign(administrator)
    for part, silo in [("server", None), *((f"silos/{silo}", silo) for silo in federation.silos)]:
        kit = folder / part
        kit.mkdir(parents=True, exist_ok=True)
        (kit / _ROSTER).write_bytes(roster)
        (kit / _ADMINISTRATOR).write_text(administrator.public.hex() + "\n", encoding="ascii")
        if silo is not None:
            law = law_of(scenario, silo, SigningKey(server).public)
            (kit / _LAW).write_text(silo_file_to_toml(law), encoding="utf-8")
        _write_secret(kit / _IDENTITY, server if silo is None else secrets[silo])
    (folder / SIMULATED).touch()


def law_of(scenario: Scenario, silo: str, server: bytes) -> SiloFile:
    """Return the law of a simulated silo: what the scenario asks of it, and nothing more.

    Args:
        scenario: The one that it takes part in.
        silo: Its name.
        server: The public key of the server that it answers.

    Raises:
        ConfigError: When no noise meets the scenario's target, or nothing could be hidden.
    """
    federation, plan = scenario.federation, scenario.plan(silo)
    noise = accounting.noise_multiplier(plan)
    threshold = 1
    if scenario.encryption.secure_aggregation == "on":
        policy = scenario_policy(scenario)
        # Of the smallest cohort that a round may have once silos have left.
        threshold = policy.topology(max(3, federation.min_silos)).threshold
    return SiloFile(
        name=silo,
        servers=(server.hex(),),
        scenarios=(scenario_hash(scenario).hex(),),
        code=(code_hash(),),
        noise_sources=(plan.noise,),
        least_noise_multiplier=noise,
        largest_clip=plan.max_grad_norm,
        smallest_cohort=federation.min_silos,
        smallest_threshold=threshold,
        min_silos=federation.min_silos,
        largest_roster=len(federation.silos),
        budgets={plan.data: _budget(scenario, plan, noise)},
        encryption=SiloEncryptionConfig(**scenario.encryption.model_dump()),
    )


def _budget(scenario: Scenario, plan: SiloPlan, noise: float) -> BudgetConfig:
    """Return what a silo may spend: what one run costs, or what the scenario says under `[budgets]`."""
    epsilon = scenario.budgets.get(plan.silo, plan.epsilon)
    if epsilon is None:
        event = DpSgdEvent(noise, plan.max_grad_norm, plan.sample_rate, plan.steps, 1, max_records=plan.max_records)
        spent = accounting.epsilon([event], plan.delta)
        if spent > MOST_EPSILON:
            raise ConfigError(f"silo {plan.silo!r} would spend epsilon {spent:g}, over {MOST_EPSILON}; raise its noise")
        epsilon = math.ceil(spent * 10_000) / 10_000
    return BudgetConfig(
        unit=plan.unit,
        max_records=None if plan.unit == "record" else plan.max_records,
        delta=plan.delta,
        epsilon=epsilon,
        partial_runs=plan.silo in scenario.budgets,
    )


def is_kit(folder: Path) -> bool:
    """Return whether a folder is a silo's kit."""
    return (folder / _LAW).is_file()


def read_law(folder: Path) -> SiloFile:
    """Read the law of a silo's kit, for which nothing has to be unlocked.

    Raises:
        ConfigError: When there is none or it is not acceptable.
    """
    return read_silo_file(folder / _LAW)


def read_kit(folder: Path) -> Kit:
    """Read a silo's kit.

    Raises:
        ConfigError: When it is not all there.
        AggregationRefused: When the roster is not the administrator's.
    """
    return Kit(read_law(folder), read_identity(folder), read_roster(folder))


def read_identity(folder: Path) -> SigningKey:
    """Read the key of a kit, a silo's or the server's. Sensitive.

    Raises:
        ConfigError: When there is none.
    """
    try:
        return SigningKey(bytes.fromhex((folder / _IDENTITY).read_text(encoding="ascii").strip()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: holds no {_IDENTITY} of 32 bytes in hexadecimal") from error


def read_roster(folder: Path) -> Roster:
    """Read the roster of a kit, under the administrator's key beside it.

    Raises:
        ConfigError: When one of the two is missing.
        AggregationRefused: When the roster is not the administrator's.
    """
    try:
        administrator = bytes.fromhex((folder / _ADMINISTRATOR).read_text(encoding="ascii").strip())
        return Roster.open((folder / _ROSTER).read_bytes(), administrator)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: holds no roster with the administrator's key beside it") from error


def _write_secret(path: Path, secret: bytes) -> None:
    """Write a secret in hexadecimal, readable by nobody else from the start."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret.hex() + "\n")
