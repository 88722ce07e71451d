"""Kits: what each party of a federation is handed before it begins, and how a silo reads its own back.

    server/   roster, administrator.pub
    silos/NAME/   silo.toml, identity.key (0600), roster, administrator.pub

The administrator's key signs the roster and is then forgotten: a roster is made once for a simulated run. A silo reads
nothing but its own folder, so what its `silo.toml` says holds whatever a server sends: which scenario it takes part in,
by its hash, and how its updates are masked.

Does NOT encrypt the identity key: whoever reads a silo's folder can act for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedmodel.config import EncryptionConfig, Scenario, SiloFile, read_silo_file, silo_file_to_toml
from fedmodel.crypto import SigningKey, Suite, digest
from fedmodel.errors import AggregationRefused, ConfigError
from fedmodel.secagg import Member, Policy, Roster

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
    """Make every party's kit for a simulated federation, keys and all, under a run's folder."""
    federation = scenario.federation
    administrator = SigningKey.generate()
    secrets = {silo: os.urandom(32) for silo in federation.silos}
    members = tuple(Member(silo, SigningKey(secret).public) for silo, secret in secrets.items())
    roster = Roster(scenario.name, members).sign(administrator)
    for part, silo in [("server", None), *((f"silos/{silo}", silo) for silo in federation.silos)]:
        kit = folder / part
        kit.mkdir(parents=True, exist_ok=True)
        (kit / _ROSTER).write_bytes(roster)
        (kit / _ADMINISTRATOR).write_text(administrator.public.hex() + "\n", encoding="ascii")
        if silo is not None:
            law = SiloFile(
                name=silo,
                scenario=scenario_hash(scenario).hex(),
                min_silos=federation.min_silos,
                largest_roster=len(federation.silos),
                encryption=scenario.encryption,
            )
            (kit / _LAW).write_text(silo_file_to_toml(law), encoding="utf-8")
            _write_secret(kit / _IDENTITY, secrets[silo])


def read_kit(folder: Path) -> Kit:
    """Read a silo's kit.

    Raises:
        ConfigError: When it is not all there.
        AggregationRefused: When the roster is not the administrator's.
    """
    try:
        identity = SigningKey(bytes.fromhex((folder / _IDENTITY).read_text(encoding="ascii").strip()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: holds no {_IDENTITY} of 32 bytes in hexadecimal") from error
    return Kit(read_silo_file(folder / _LAW), identity, read_roster(folder))


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
