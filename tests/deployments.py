"""A deployed federation with a run that has ended, for tests of what its parties make of it: no process was started.

A simulation is run under the keys of issued kits. What it leaves is laid out as a deployment does: each silo's ledger
and its head in its kit, and at the server a run's folder with a sealed model, what silos reported, and their heads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from fedmodel.config import read_scenario, scenario_to_toml, silo_file_to_toml
from fedmodel.crypto import SigningKey
from fedmodel.crypto.sealed import write_sealed
from fedmodel.ledger import read_ledger
from fedmodel.ledger.entries import by_part
from fedmodel.privacy.events import event_to_json
from fedmodel.provision.laws import law_of
from fedmodel.secagg import Member, Roster
from server.run_files import SEALED_MODEL
from tests.federations import Federation, issued
from tests.once import once
from tests.runs import MASKED, simulated

RUN = "tiny-1"
SILOS = ("north", "south", "west")
TEXT = MASKED.replace("min_silos = 2", "min_silos = 3")


def _deployed(folder: Path, settings: Sequence[str]) -> None:
    (folder / "said.toml").write_text(TEXT, encoding="utf-8")
    text = scenario_to_toml(read_scenario(str(folder / "said.toml"), settings)) if settings else TEXT
    federation = issued(folder, scenario=text)
    parties = {name: federation.unlock(name) for name in ("server", *SILOS)}
    scenario = read_scenario(str(folder / "tiny.toml"))

    def take_keys(run: Path) -> None:
        """Have the simulation run under the kits' keys."""
        administrator = SigningKey.generate()
        roster = Roster("tiny", tuple(Member(silo, parties[silo].identity.public) for silo in SILOS))
        for name, party in parties.items():
            kit = run / "server" if name == "server" else run / "silos" / name
            (kit / "identity.key").write_text(f"{party.seed.hex()}\n", encoding="ascii")
            (kit / "roster").write_bytes(roster.sign(administrator))
            (kit / "administrator.pub").write_text(f"{administrator.public.hex()}\n", encoding="ascii")
            if name != "server":
                law = law_of(scenario, name, parties["server"].identity.public)
                (kit / "silo.toml").write_text(silo_file_to_toml(law), encoding="utf-8")

    (folder / "simulation").mkdir()
    run = simulated(folder / "simulation", text, kits_ready=take_keys)
    home, place = federation.kit("server"), federation.kit("server") / "runs" / RUN
    (home / "heads").mkdir(exist_ok=True)
    place.mkdir(parents=True, mode=0o700)
    charges = {}
    for silo in SILOS:
        kit, ledger = federation.kit(silo), run / "ledgers" / f"{silo}.sqlite"
        (kit / "ledgers").mkdir(mode=0o700, exist_ok=True)
        shutil.copy2(ledger, kit / "ledgers" / ledger.name)
        shutil.copy2(run / "silos" / silo / "ledger.head", kit / "ledger.head")
        shutil.copy2(run / "server" / "heads" / silo, home / "heads" / silo)
        ((number, held),) = read_ledger(ledger).runs.items()
        charged = list(held.charges.values())
        rounds = by_part([sum(one.part == part for one in charged) for part in range(held.phases)])
        charges[silo] = {"event": event_to_json(held.plan.times(charged[0].steps)), "rounds": rounds}
    for name in ("metrics.jsonl", "model.json", "usefulness.json"):
        shutil.copy2(run / name, place / name)
    write_sealed(place / SEALED_MODEL, (run / "model.safetensors").read_bytes(), [parties["server"].recipient])
    (place / "scenario.toml").write_text(scenario_to_toml(scenario), encoding="utf-8")
    (place / "charges.json").write_text(json.dumps(charges, sort_keys=True) + "\n", encoding="utf-8")
    said = {"name": RUN, "run": number, "submitted": "2026-03-01T12:00:00Z"}
    (place / "run.json").write_text(json.dumps(said), encoding="utf-8")
    (place / "outcome.json").write_text('{"completed": true}', encoding="utf-8")


def deployed(factory: pytest.TempPathFactory, settings: Sequence[str] = ()) -> Federation:
    """Return a federation with a run, that nobody changes; of another scenario, where overrides are given."""
    name = "-".join(["deployed", *(f"{sum(one.encode())}" for one in settings)])
    folder = once(factory, name, lambda place: _deployed(place, settings))
    return Federation(folder / "out", None)  # type: ignore[arg-type]  # how it was issued is of no interest
