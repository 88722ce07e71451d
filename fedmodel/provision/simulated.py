"""A simulation's kits: every party's, made on one machine under a run's folder, and forgotten with it.

    server/   identity.key (0600), roster, administrator.pub
    silos/NAME/   silo.toml, identity.key (0600), roster, administrator.pub

The administrator's key signs the roster and is then forgotten: a roster is made once for a simulated run.

Does NOT encrypt identity keys: whoever reads a silo's folder can act for it. A deployed party's kit does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedmodel.config import BudgetConfig, Scenario, silo_file_to_toml
from fedmodel.crypto import SigningKey
from fedmodel.provision.kits import ADMINISTRATOR, IDENTITY, LAW, ROSTER, SIMULATED
from fedmodel.provision.laws import law_of
from fedmodel.secagg import Member, Roster


@dataclass(frozen=True)
class GoesOn:
    """With what a simulated silo goes on, whose ledger does.

    Attributes:
        secret: The seed of its key, which signed the ledger. Sensitive.
        budget: As the ledger has it, with the cap that is to hold.
    """

    secret: bytes = field(repr=False)
    budget: BudgetConfig


def provision(scenario: Scenario, folder: Path, going_on: Mapping[str, GoesOn] | None = None) -> None:
    """Make every party's kit for a simulated federation, keys and all, under a run's folder, and mark it as such.

    Args:
        scenario: Whose silos.
        folder: The run's.
        going_on: By silo, with what those go on whose ledgers are an earlier run's.
    """
    federation, kept = scenario.federation, going_on or {}
    administrator = SigningKey.generate()
    server = os.urandom(32)
    secrets = {silo: kept[silo].secret if silo in kept else os.urandom(32) for silo in federation.silos}
    members = tuple(Member(silo, SigningKey(secret).public) for silo, secret in secrets.items())
    roster = Roster(scenario.name, members).sign(administrator)
    for part, silo in [("server", None), *((f"silos/{silo}", silo) for silo in federation.silos)]:
        kit = folder / part
        kit.mkdir(parents=True, exist_ok=True)
        (kit / ROSTER).write_bytes(roster)
        (kit / ADMINISTRATOR).write_text(administrator.public.hex() + "\n", encoding="ascii")
        if silo is not None:
            law = law_of(scenario, silo, SigningKey(server).public)
            if silo in kept:
                law = law.model_copy(update={"budgets": {scenario.data.data_set: kept[silo].budget}})
            (kit / LAW).write_text(silo_file_to_toml(law), encoding="utf-8")
        _write_secret(kit / IDENTITY, server if silo is None else secrets[silo])
    (folder / SIMULATED).touch()


def _write_secret(path: Path, secret: bytes) -> None:
    """Write a secret in hexadecimal, readable by nobody else from the start."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret.hex() + "\n")
