"""The `ray` engine: all silos of a run train together, as by `vectorised`, on the nodes of a Ray cluster.

The cluster is begun by `ray start`, on this machine and on others. Rounds, and the one book of what is charged, are in
this process; only training is elsewhere (`scenarios.simulation.over_nodes`).

Does NOT isolate silos from each other: each node's workers deal all records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedmodel.errors import ConfigError
from scenarios.simulation.engines.vectorised import Vectorised

if TYPE_CHECKING:
    from fedmodel.config import Scenario
    from scenarios.simulation.engines import Simulation


@dataclass(frozen=True)
class Ray(Vectorised):
    """Carries a run in this process, whose silos train on the nodes of a cluster."""

    name: str = "ray"
    one_process: bool = False
    noise_added: str = (
        "in processes on the nodes of one Ray cluster, none of them one silo's own, and no ledger was kept"
    )
    records_read: str = (
        "Records of all silos were read by each process that trained some of them, on the nodes of one Ray cluster:"
        " nothing kept them apart."
    )

    def check(self, scenario: Scenario) -> None:
        """Refuse what `vectorised` refuses, what would be lost with a node, and a cluster that does not answer.

        Raises:
            ConfigError: With the key, and what to do.
        """
        from scenarios.simulation.over_nodes import check_answers

        super().check(scenario)
        if scenario.carries_state:
            raise ConfigError(
                "training.keep_optimizer_state: --engine ray does not take it: the state of a silo's optimiser would be"
                " lost with its node; leave it out, or take --engine vectorised"
            )
        check_answers()

    def carry(self, simulation: Simulation) -> None:
        """Return when the run has ended."""
        from fedmodel.learning.models import parameters_of
        from scenarios.simulation.one_process import run_booked
        from scenarios.simulation.over_nodes import OverNodes

        scenario = simulation.scenario
        if simulation.device != "cpu":
            raise ConfigError(f"--device {simulation.device}: --engine ray trains on processors; take --device cpu")
        parameters = parameters_of(scenario.model, scenario.data.shape)
        run_booked(
            scenario,
            simulation.run_dir,
            simulation.device,
            simulation.run,
            lambda _, __: OverNodes(scenario, simulation.run_config, parameters),
        )


ENGINE: Final = Ray()
