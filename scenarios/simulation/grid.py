"""A Grid of Flower in this process: the very apps that are deployed, called directly instead of over a network.

`InProcessGrid` is a Flower Grid whose nodes are calls to a ClientApp in this process. Each node has its own context and
gets its own copy of every message, as if it had come over a wire. A client's exception becomes an error reply without
its text.

One run a process at a time: Flower keeps the identity of the running task in a class.

Does NOT isolate silos from each other: they share this process's memory. It is for simulation.
"""

from __future__ import annotations

import copy
import itertools
import secrets
from collections.abc import Iterable, Mapping

from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedmodel.ledger import kept_open
from fedmodel.system.durable import synced_together

_SERVER_NODE = 1
_CLIENT_CRASHED = 8  # Flower's ErrorCode.CLIENT_APP_CRASHED


class InProcessGrid(Grid):
    """A Grid over `nodes` calls to one ClientApp.

    Args:
        client_app: What every node runs.
        nodes: How many nodes there are; node i has partition-id i.
        run_config: The run's configuration, the same for every node.
    """

    def __init__(self, client_app: ClientApp, nodes: int, run_config: UserConfig) -> None:
        self._client_app = client_app
        # Flower keeps run ids in a signed 64-bit column.
        self._run = Run.create_empty(run_id=secrets.randbelow(2**63 - 1) + 1)
        self._contexts = {
            _SERVER_NODE + 1 + number: Context(
                run_id=self._run.run_id,
                node_id=_SERVER_NODE + 1 + number,
                node_config={"partition-id": number, "num-partitions": nodes},
                state=RecordDict(),
                run_config=run_config,
            )
            for number in range(nodes)
        }
        self._message_ids = itertools.count(1)
        self._replies: dict[str, Message] = {}
        TaskIdentity.run_id = self._run.run_id
        TaskIdentity.task_id = 1
        TaskIdentity.node_id = _SERVER_NODE

    def set_run(self, run: Run) -> None:
        """Set the run that this grid acts for."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that this grid acts for."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a new message from the server."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes, all of which are always there."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run each message through its node at once, and keep the reply for `pull_messages`.

        Guarantee: before any of the replies can be pulled, all that nodes wrote for them is on disk, as if each had
        seen to it by itself; they share one sync.
        """
        message_ids = []
        with synced_together():
            for message in messages:
                sent = delivered(message, self._next_id())
                self._replies[sent.metadata.message_id] = self._answer(sent)
                message_ids.append(sent.metadata.message_id)
        return message_ids

    def _next_id(self) -> str:
        """Return an id that no message of this grid has."""
        return str(next(self._message_ids))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages, each once."""
        return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, then pull; every reply is there at once, so no time-out can pass."""
        del timeout
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        """Call the ClientApp as one node."""
        context = self._contexts.get(message.metadata.dst_node_id)
        if context is None:
            return Message(Error(code=5, reason="no such node"), reply_to=message)
        try:
            return self._client_app(message, context)
        except Exception:  # whatever a client raises, as Flower does, save that its text goes nowhere
            return Message(Error(code=_CLIENT_CRASHED), reply_to=message)


def run_in_process(server_app: ServerApp, client_app: ClientApp, nodes: int, run_config: UserConfig) -> None:
    """Run a ServerApp over an in-process grid, to its end or its error."""
    with kept_open():
        serve(server_app, InProcessGrid(client_app, nodes, run_config), run_config)


def serve(server_app: ServerApp, grid: InProcessGrid, run_config: UserConfig) -> None:
    """Run a ServerApp over a grid, to its end or its error."""
    context = Context(
        run_id=grid.run.run_id, node_id=_SERVER_NODE, node_config={}, state=RecordDict(), run_config=run_config
    )
    server_app(grid, context)


def delivered(message: Message, message_id: str, *, copied: bool = True) -> Message:
    """Return the message as its receiver gets it: with an id, and a content of its own, unless a pipe copies it."""
    sent = message.metadata
    fields: Mapping[str, object] = {
        name: getattr(sent, name)
        for name in (
            "run_id",
            "src_node_id",
            "dst_node_id",
            "group_id",
            "created_at",
            "ttl",
            "message_type",
            "src_task_id",
        )
    }
    metadata = Metadata(message_id=message_id, reply_to_message_id="", **fields)  # type: ignore[arg-type]
    content = copy.deepcopy(message.content) if copied else message.content
    return Message(metadata=metadata, content=content)  # type: ignore[call-overload, no-any-return]
