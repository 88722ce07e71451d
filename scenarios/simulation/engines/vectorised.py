"""The `vectorised` engine: all silos train together, in this process and forks of it, without messages, kits, ledgers.

What is charged is in one book of the run (`scenarios.runs.event_book`), and reports say that no ledger was kept.

Does NOT isolate silos from each other, nor rehearse what a deployment does: it is for many silos, and for experiments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedmodel.errors import ConfigError

if TYPE_CHECKING:
    from fedmodel.config import Scenario
    from scenarios.simulation.engines import Simulation


@dataclass(frozen=True)
class Vectorised:
    """Carries a run in this process and forks of it, all silos of a round at once."""

    name: str = "vectorised"
    one_process: bool = True
    keeps_ledgers: bool = False
    noise_added: str = "in the one process that simulated all silos together, or in forks of it, and no ledger was kept"
    records_read: str = (
        "Records of all silos were read in the one process that simulated them together, and forks of it had them all:"
        " nothing kept them apart."
    )

    def check(self, scenario: Scenario) -> None:
        """Refuse what only silos with ledgers, laws or messages can do.

        Raises:
            ConfigError: With the key, and what to do.
        """
        mode = scenario.encryption.secure_aggregation
        found = (
            (mode != "off", f'encryption.secure_aggregation = "{mode}"', "no update is sent that could be hidden"),
            (bool(scenario.budgets), "budgets", "they are caps of ledgers, and none is kept"),
            (scenario.goes_on, "model.init of a run", "its cost is in ledgers that would go on, and none is kept"),
            (bool(scenario.besides), "besides", "it trains, and asks silos for nothing else"),
            (bool(scenario.training.lots), "training.lots", "its book has one event for a silo, of one rate"),
        )
        for applies, key, why in found:
            if applies:
                raise ConfigError(
                    f"{key}: --engine {self.name} does not take it: {why}; leave it out, or take --engine in-process"
                )

    def carry(self, simulation: Simulation) -> None:
        """Return when the run has ended."""
        from scenarios.simulation.one_process import run_booked
        from scenarios.simulation.stacks_over_cores import trainer_of

        run_booked(simulation.scenario, simulation.run_dir, simulation.device, simulation.run, trainer_of)


ENGINE: Final = Vectorised()
