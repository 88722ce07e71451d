"""Which silo this process acts for, and where its own things are.

The scenario comes with the run's configuration, which is the server's word. What the silo insists on is in its kit,
`silo.toml`: the hash of the scenario that it takes part in, whether updates leave in the clear or masked, and under
which policy. Any other scenario is refused before anything is done for it.

Where a silo's things lie is its node's word: `home` in the node's configuration, which its own operator starts it with.
A simulated node, one of a number of partitions, has none, and takes the run's folder; any other node is refused without
it, since a folder that the server names could hold another law.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Self

from flwr.app import Context

from clients.vault import protocol
from fedmodel.config import Scenario, SiloPlan, scenario_from_json
from fedmodel.data import Records, silo_records
from fedmodel.errors import ConfigError, FedmodelError, PolicyRefused
from fedmodel.ledger import Ledger, Scope
from fedmodel.provision import Kit, read_kit, scenario_hash
from fedmodel.secagg import Silo as Protocol


@dataclass(frozen=True)
class Silo:
    """One silo in one run.

    Attributes:
        name: The silo's name in the scenario.
        scenario: What is to be done.
        run: The run's identifier, as the ledger keeps it.
        device: "cpu" or "cuda".
        home: The folder under which the silo's kit, ledger and log lie.
    """

    name: str
    scenario: Scenario
    run: str
    device: str
    home: Path

    @classmethod
    def from_context(cls, context: Context) -> Self:
        """Read who this is from the configuration of run and node.

        Raises:
            ConfigError: When the configuration does not say, or there is no kit.
            PolicyRefused: When the scenario is not the one that this silo's law names.
        """
        run_dir, device = (context.run_config.get(key) for key in ("run-dir", "device"))
        home = context.node_config.get("home")
        if not home and "num-partitions" not in context.node_config:
            raise ConfigError("this node's configuration names no home; start it with home=FOLDER, its own")
        run_dir = home or run_dir
        if not run_dir or device not in ("cpu", "cuda"):
            raise ConfigError("the run's configuration names no run-dir and device; start it with `fedmodel simulate`")
        scenario = scenario_from_json(str(context.run_config.get("scenario")))
        names = scenario.federation.silos
        number = context.node_config.get("partition-id")
        if not isinstance(number, int) or not 0 <= number < len(names):
            raise ConfigError(f"this node's partition-id is {number!r}; the scenario has silos 0 to {len(names) - 1}")
        silo = cls(names[number], scenario, str(context.run_id), str(device), Path(str(run_dir)))
        if silo.kit.law.scenario != scenario_hash(scenario).hex():
            raise PolicyRefused("silo.toml names the hash of another scenario than the one that was sent")
        return silo

    @cached_property
    def kit(self) -> Kit:
        """What this silo was handed before the run began.

        Raises:
            ConfigError: When it is missing, or is another silo's.
        """
        kit = read_kit(self._folder)
        if kit.law.name != self.name:
            raise ConfigError(f"{self._folder}: the kit is silo {kit.law.name!r}'s, not {self.name!r}'s")
        return kit

    @contextmanager
    def protocol(self) -> Iterator[Protocol]:
        """Open this silo's side of secure aggregation; what became of it is on disk when the block ends.

        Raises:
            PolicyRefused: When the silo's own law has secure aggregation off.
        """
        if self.kit.law.encryption.secure_aggregation != "on":
            raise PolicyRefused("silo.toml has secure aggregation off, so no stage of it is taken part in")
        with protocol(self.kit, self._folder, int(self.run) % 2**64) as silo:
            yield silo

    @property
    def _folder(self) -> Path:
        return self.home / "silos" / self.name

    @property
    def plan(self) -> SiloPlan:
        """What this silo is asked to do."""
        return self.scenario.plan(self.name)

    def records(self) -> Records:
        """Return this silo's records. Sensitive.

        How many there are is compared with nothing that the server chooses: an answer that hung on it would be a free
        comparison of a private count. The divisor of the sums is public and need not bound it.
        """
        return silo_records(self.scenario, self.name)

    def ledger(self) -> Ledger:
        """Open this silo's ledger."""
        path = self.home / "ledgers" / f"{self.name}.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        plan = self.plan
        return Ledger(path, Scope(self.name, plan.unit, plan.delta, plan.epsilon))

    def log(self, action: str, error: Exception) -> None:
        """Write what went wrong into this silo's own log."""
        # A refusal's message says it all; anything else needs its trace.
        told = str(error) if isinstance(error, FedmodelError) else "".join(traceback.format_exception(error))
        self.note(action, f"{type(error).__name__}: {told}")

    def note(self, action: str, found: str) -> None:
        """Write a line into this silo's own log, a file that nothing else writes to.

        Python's logging is not used: its handlers print what they cannot write to standard error, which Flower's
        simulation shows on the server's side.
        """
        path = self.home / "logs" / f"{self.name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{time} {action}: {found}\n")
