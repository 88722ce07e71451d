"""The `in-process` engine: the two apps in this process, over a Grid whose nodes are calls.

Does NOT isolate silos from each other: they share this process's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fedmodel.config import Scenario
    from scenarios.simulation.engines import Simulation


@dataclass(frozen=True)
class InProcess:
    """Carries a run in this process, one message after the other."""

    one_process: bool = True
    keeps_ledgers: bool = True
    noise_added: str = "in the one process that all silos and the server shared"
    records_read: str = (
        "Records of all silos were read in the one process that they and the server shared: its code, and nothing else,"
        " kept them apart."
    )

    def check(self, scenario: Scenario) -> None:
        """Refuse nothing: it carries messages to the very apps that are deployed."""

    def carry(self, simulation: Simulation) -> None:
        """Return when the run has ended."""
        from clients.client_app import app as client_app
        from scenarios.simulation.grid import run_in_process
        from server.server_app import app as server_app

        nodes = len(simulation.scenario.federation.silos)
        run_in_process(server_app, client_app, nodes, simulation.run_config)


ENGINE: Final = InProcess()
