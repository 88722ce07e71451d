"""Where a run's things lie at the server, and whether they lie there sealed.

start.safetensors, .age    what the run begins from, where that is a file; sealed at a deployed server
model.safetensors          a simulation's model
model.safetensors.age      a deployed server's, which it and the escrow can open
model.json                 what others need to use the model, in the open: it follows from the scenario
usefulness.json            whether the model is of use, in the open, at the run's end (`server.usefulness`)
charges.json               what silos say they charged, at a deployed server, which has no ledger of theirs
checkpoint.age, ...        what a run is taken up from (`server.journal`); a simulation's is `checkpoint`, and open
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from torch import nn

from fedmodel.config import Scenario
from fedmodel.crypto import SigningKey
from fedmodel.crypto.postquantum import PostQuantumKey
from fedmodel.crypto.sealed import open_bytes, opener_from_secret
from fedmodel.data import Records, held_out_records, held_out_table, table_source
from fedmodel.errors import ConfigError
from fedmodel.learning.description import DESCRIPTION, describe
from fedmodel.learning.fitting import fit
from fedmodel.learning.starts import START
from fedmodel.ledger.entries import ByPart
from fedmodel.privacy.events import Event, event_to_json
from fedmodel.provision import read_identity, read_server_law, scenario_hash, unlocked
from fedmodel.system.durable import replace_file
from server.checkpoint import save_model
from server.journal import Journal, Seal, forget
from server.usefulness import USEFULNESS

CHARGES: Final = "charges.json"
MODEL: Final = "model.safetensors"
SEALED_MODEL: Final = "model.safetensors.age"
SEALED_START: Final = f"{START}.age"
SERVING: Final = "serving.lock"
"""Held by the server of a simulated run, in whatever process that is."""
BEING_RUN: Final = "--out {}: is being run by another process now; wait for that, or end it"


@dataclass(frozen=True)
class RunFiles:
    """Where a run's things lie, and whether they lie there sealed.

    Attributes:
        run_dir: The run's folder.
        home: The server's kit.
        sealed: A deployed server seals what it writes; a simulation's folder is its researcher's own.
    """

    run_dir: Path
    home: Path
    sealed: bool

    def keys(self) -> tuple[SigningKey, PostQuantumKey | None]:
        """Return what the server signs its questions with. Sensitive."""
        if not self.sealed:
            return read_identity(self.home), None
        own = unlocked(self.home)
        return own.identity, own.post_quantum

    def journal(self, run: int | None, scenario: Scenario) -> Journal | None:
        """Return the run's journal, None in a simulation that is not taken up again: its run has no number of its own.

        Raises:
            ConfigError: When a deployed server's run has no number of its own.
        """
        if run is None:
            if not self.sealed:
                return None
            raise ConfigError("a deployed server's run has a number; hand it in with `fedmodel server submit`")
        newest = self.home / "heads" / f"{run}.round"  # no silo's name has a dot
        return Journal(self.run_dir, self._seal(), run, scenario_hash(scenario), newest)

    def _seal(self) -> Seal | None:
        """Return what the journal is sealed with. Sensitive."""
        if not self.sealed:
            return None
        own = unlocked(self.home)
        return Seal(own.recipient, opener_from_secret(own.age_secret))

    def held_out(self, scenario: Scenario) -> Records:
        """Return the server's own test records."""
        if not self.sealed or not scenario.data.is_own:
            return held_out_records(scenario)
        source = table_source(scenario.data, read_server_law(self.home).tables, self.home, "server.toml")
        return held_out_table(scenario.data, source)

    def begin(self, module: nn.Module, scenario: Scenario) -> None:
        """Put the file that a scenario begins from into its model, held to the scenario's hash; nothing without one.

        Raises:
            ConfigError: When it is gone, another, or does not fit.
        """
        if scenario.start is None:
            return
        copy = self.run_dir / (SEALED_START if self.sealed else START)
        try:
            data = copy.read_bytes()
        except OSError as error:
            raise ConfigError(f"{copy}: the run begins from it, and it cannot be read: {error.strerror}") from error
        if self.sealed:
            data = open_bytes(data, opener_from_secret(unlocked(self.home).age_secret))
        if sha256(data).hexdigest() != scenario.start.sha256:
            raise ConfigError(f"{copy}: is not the file that the scenario begins from, by its hash")
        fit(module, data, str(copy))

    def save(self, module: nn.Module, scenario: Scenario, round_number: int) -> None:
        """Write the model, whole or not at all, and before the first what others need to use it."""
        description = self.run_dir / DESCRIPTION
        if not description.exists():
            replace_file(description, describe(scenario, scenario_hash(scenario)).written())
        about = {
            "scenario": scenario.name,
            "scenario_hash": scenario_hash(scenario).hex(),
            "round": str(round_number),
            "noise": scenario.privacy.noise_name,
        }
        if scenario.training.ema_decay is not None:
            about["ema_decay"] = str(scenario.training.ema_decay)
        if not self.sealed:
            save_model(module, self._model, about)
            return
        recipients = (unlocked(self.home).recipient, *read_server_law(self.home).escrow)
        save_model(module, self._model, about, recipients)

    def judge(self, found: Mapping[str, object]) -> None:
        """Write down at a run's end whether its model is of use (`server.usefulness`), where there is a model."""
        if self._model.exists():
            told = json.dumps(found, sort_keys=True, allow_nan=False) + "\n"
            replace_file(self.run_dir / USEFULNESS, told.encode())

    @property
    def _model(self) -> Path:
        """Where the model lies."""
        return self.run_dir / (SEALED_MODEL if self.sealed else MODEL)

    def model_hash(self) -> bytes | None:
        """Return the SHA-256 of the model's file, opened where it lies sealed; None where no round was whole."""
        if not self._model.exists():
            return None
        data = self._model.read_bytes()
        if self.sealed:
            data = open_bytes(data, opener_from_secret(unlocked(self.home).age_secret))
        return sha256(data).digest()

    def clear_up(self) -> None:
        """Erase what a run that has ended does not need."""
        forget(self.run_dir)

    def report(self, charges: Mapping[str, Event], charged: Mapping[str, ByPart]) -> None:
        """Write down what silos say they charged: a deployed server has no ledger of theirs to sum up from.

        Args:
            charges: By silo, for a round; of the first phase, where lots grow, from which the others follow.
            charged: By silo, in how many rounds; of each phase, where lots grow.
        """
        if self.sealed:
            said = {
                silo: {"rounds": charged.get(silo, 0), "event": event_to_json(event)} for silo, event in charges.items()
            }
            replace_file(self.run_dir / CHARGES, (json.dumps(said, sort_keys=True) + "\n").encode())
