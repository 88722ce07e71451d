"""The `in-process` engine: the two apps in this process, over a Grid whose nodes are calls.

Many silos are shared out over the cores: then the calls are made in forks of this process, many silos' in each.

Does NOT isolate silos from each other: they share this process's memory, or a fork's.
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
    noise_added: str = "in the one process that all silos and the server shared, or in forks of it"
    records_read: str = (
        "Records of all silos were read in the one process that they and the server shared, or in forks of it: its"
        " code, and nothing else, kept them apart."
    )

    def check(self, scenario: Scenario) -> None:
        """Refuse nothing: it carries messages to the very apps that are deployed."""

    def carry(self, simulation: Simulation) -> None:
        """Return when the run has ended."""
        import torch

        from clients.client_app import app as client_app
        from scenarios.simulation.forks import processes_for
        from scenarios.simulation.grid import run_in_process
        from scenarios.simulation.grid_over_cores import LEAST, run_over_cores
        from server.server_app import app as server_app

        scenario, told = simulation.scenario, simulation.run_config
        processes = processes_for(scenario, torch.device(simulation.device), LEAST)
        if processes > 1:
            run_over_cores(server_app, client_app, scenario, told, processes)
        else:
            run_in_process(server_app, client_app, len(scenario.federation.silos), told)


ENGINE: Final = InProcess()
