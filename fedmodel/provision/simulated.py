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
from fedmodel.system.durable import replace_file


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

    The mark comes last, when all else is on disk: kits under it are whole.

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
        replace_file(kit / ROSTER, roster)
        replace_file(kit / ADMINISTRATOR, f"{administrator.public.hex()}\n".encode("ascii"))
        if silo is not None:
            law = law_of(scenario, silo, SigningKey(server).public)
            if silo in kept:
                law = law.model_copy(update={"budgets": {scenario.data.data_set: kept[silo].budget}})
            replace_file(kit / LAW, silo_file_to_toml(law).encode())
        replace_file(kit / IDENTITY, f"{(server if silo is None else secrets[silo]).hex()}\n".encode("ascii"))
    replace_file(folder / SIMULATED, b"")
