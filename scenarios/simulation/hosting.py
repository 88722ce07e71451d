"""Simulated silos on the nodes of a Flower run that somebody else began, whatever their number.

`flwr run` begins a run before anybody has read the scenario, on as many nodes as Flower's own configuration says: two,
where nobody said. So nodes are hosts here: silo i is answered for on node i modulo their number, and each message says
for which silo it is. What one silo keeps lies in the run's folder, and none of it in a node's own state, so that silos
on one node have nothing in common that silos of a simulation have not anyway.

Does NOT isolate silos from each other. A node that has a home, as a deployed silo's has, acts for that alone, by its
own law: `clients.silo` looks there first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedmodel.errors import ConfigError
from scenarios.simulation.engines.flower import Flower

if TYPE_CHECKING:
    from flwr.app.user_config import UserConfig

    from scenarios.simulation.engines import Simulation

_SILO: Final = "fedmodel.hosted"
_NUMBER: Final = "partition-id"


class HostingGrid(Grid):
    """A grid with a node for each silo, over one with as many as there are.

    Args:
        grid: Flower's.
        silos: How many nodes this has; node i + 1 is silo i.
        run_config: What the silos' app is told besides.
    """

    def __init__(self, grid: Grid, silos: int, run_config: UserConfig) -> None:
        self._grid, self._silos, self._run_config = grid, silos, run_config

    def set_run(self, run: Run) -> None:
        """Set the run that the grid beneath acts for."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that the grid beneath acts for."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a new message from the server."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return a node for each silo, as soon as there is one to answer for them."""
        return range(1, self._silos + 1) if list(self._grid.get_node_ids()) else []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send each message to the node that answers for its silo, with what the silo is to be told."""
        hosts = sorted(self._grid.get_node_ids())
        return self._grid.push_messages([self._for_host(message, hosts) for message in messages])

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send, and wait for replies as the grid beneath does."""
        hosts = sorted(self._grid.get_node_ids())
        return self._grid.send_and_receive([self._for_host(message, hosts) for message in messages], timeout=timeout)

    def _for_host(self, message: Message, hosts: list[int]) -> Message:
        """Return a message to a silo as one to the node that answers for it."""
        silo, sent = message.metadata.dst_node_id - 1, message.metadata
        told = ConfigRecord({**self._run_config, _NUMBER: silo})
        content = RecordDict({**message.content, _SILO: told})
        return Message(content, hosts[silo % len(hosts)], sent.message_type, ttl=sent.ttl, group_id=sent.group_id)


class HostedClient(ClientApp):
    """The silos' app, for the silo that a message is for."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as that silo; the content is as it was sent, since its signature is of all of it.

        Raises:
            ConfigError: When the message is for no silo: it is of another server's app.
        """
        from clients.client_app import app

        told = message.content.pop(_SILO, None)
        if not isinstance(told, ConfigRecord):
            raise ConfigError(f"a message without {_SILO!r} is none of this app's server; begin the run by `flwr run`")
        run_config: dict[str, Any] = dict(told)
        number = run_config.pop(_NUMBER)
        node = {**context.node_config, _NUMBER: number}
        return app(message, Context(context.run_id, context.node_id, node, context.state, run_config))


@dataclass(frozen=True)
class Hosted(Flower):
    """Carries a run over the nodes of a Flower run that has begun.

    Attributes:
        grid: Flower's.
        node_id: The server's own, in Flower.
    """

    grid: Grid | None = None
    node_id: int = 0

    def carry(self, simulation: Simulation) -> None:
        """Return when the run has ended."""
        from server.server_app import app

        if self.grid is None:
            raise ConfigError("a run is carried over Flower's grid, and there is none")
        told = simulation.run_config
        grid = HostingGrid(self.grid, len(simulation.scenario.federation.silos), told)
        app(grid, Context(grid.run.run_id, self.node_id, {}, RecordDict(), told))
