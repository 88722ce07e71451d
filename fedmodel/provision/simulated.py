"""A simulation's kits: those of all parties, made on one machine under a run's folder, and erased with it.

    server/   identity.key (0600), roster, administrator.pub
    silos/NAME/   silo.toml, identity.key (0600), roster, administrator.pub

The administrator's key signs the roster and is then forgotten: a roster is made once for a simulated run.

Does NOT encrypt identity keys, as a deployed party's kit does: whoever can read a silo's folder can act as that silo.
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
from fedmodel.system.packages import code_hash


@dataclass(frozen=True)
class GoesOn:
    """What a simulated silo continues with, if its ledger continues an earlier run's.

    Attributes:
        secret: The seed of its key, which signed the ledger. Sensitive.
        budget: The ledger's budget, with the cap that is to hold from now on.
    """

    secret: bytes = field(repr=False)
    budget: BudgetConfig


def provision_server(folder: Path) -> None:
    """Make the kit of a simulation without silos of their own: the key that signs its report, and the mark.

    Args:
        folder: The run's.
    """
    kit = folder / "server"
    kit.mkdir(parents=True, exist_ok=True)
    replace_file(kit / IDENTITY, f"{os.urandom(32).hex()}\n".encode("ascii"))
    mark = folder / SIMULATED
    mark.parent.mkdir(exist_ok=True)
    replace_file(mark, b"")


def provision(scenario: Scenario, folder: Path, going_on: Mapping[str, GoesOn] | None = None) -> None:
    """Make every party's kit for a simulated federation, keys and all, under a run's folder, and mark it as such.

    The mark is written last, when everything else is on disk, so kits under a marked folder are whole.

    Args:
        scenario: Names the silos.
        folder: The run's.
        going_on: For each silo whose ledger continues an earlier run's, what it continues with.
    """
    federation, kept = scenario.federation, going_on or {}
    administrator = SigningKey.generate()
    server = os.urandom(32)
    public = SigningKey(server).public
    secrets = {silo: kept[silo].secret if silo in kept else os.urandom(32) for silo in federation.silos}
    members = tuple(Member(silo, SigningKey(secret).public) for silo, secret in secrets.items())
    roster = Roster(scenario.name, members).sign(administrator)
    code = code_hash()
    for part, silo in [("server", None), *((f"silos/{silo}", silo) for silo in federation.silos)]:
        kit = folder / part
        kit.mkdir(parents=True, exist_ok=True)
        replace_file(kit / ROSTER, roster)
        replace_file(kit / ADMINISTRATOR, f"{administrator.public.hex()}\n".encode("ascii"))
        if silo is not None:
            law = law_of(scenario, silo, public, code)
            if silo in kept:
                law = law.model_copy(update={"budgets": {scenario.data.data_set: kept[silo].budget}})
            replace_file(kit / LAW, silo_file_to_toml(law).encode())
        replace_file(kit / IDENTITY, f"{(server if silo is None else secrets[silo]).hex()}\n".encode("ascii"))
    replace_file(folder / SIMULATED, b"")
