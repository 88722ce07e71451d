"""The in-process grid over a processor's cores: each node is a call in one of several processes, always the same one.

    this process, with the server's app  --- messages --->  a fork for each core (`scenarios.simulation.forks`)
                                         <--- replies ----  `InProcessGrid`, of the same nodes in every exchange

What a node is asked, reads, checks, writes and answers is what it is in one process: the fork has the very grid, and
calls the very app. Messages that are alike in what they carry have that in common within a fork, where a grid in one
process copies it for each: an app that changed what it was sent would show its other nodes. Silos share nothing but
what is kept by its content, so that none of them notices which others are in its process.

Guarantee: before any of the replies of an exchange can be pulled, all that nodes wrote for them is on disk: each
process makes one sync before it hands replies over. A process that is gone fails the run, and the others end with it;
what is on disk by then is what is there after a run that was killed.

Does NOT isolate silos from each other: many share each process's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Final

from flwr.app import Message
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from clients import answering, carried, hiding  # which the app imports as it trains: once here, and not in each process
from fedmodel.config import Scenario
from fedmodel.data import silo_records
from fedmodel.ledger import kept_open
from fedmodel.system.durable import synced_together
from scenarios.simulation.forks import GOES_ON, Forks
from scenarios.simulation.grid import InProcessGrid, delivered, serve

LEAST: Final = 16
"""Silos of each process: fewer are asked sooner than as many models are built and measured."""

_ = answering, carried, hiding


class GridOverCores(InProcessGrid):
    """An in-process grid whose nodes are shared out over processes, which begin with it.

    Args:
        client_app: What every node runs.
        nodes: How many nodes there are; node i has partition-id i.
        run_config: The run's configuration, the same for every node.
        processes: How many.

    Raises:
        FedmodelError: When a process cannot begin.
    """

    def __init__(self, client_app: ClientApp, nodes: int, run_config: UserConfig, processes: int) -> None:
        super().__init__(client_app, nodes, run_config)
        self._count = processes
        self._forks = Forks(_acting(self) for _ in range(processes))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have each message answered by its node's process, and keep the replies for `pull_messages`.

        Raises:
            FedmodelError: When a process is gone.
            OSError: When something of what nodes wrote is not on disk.
        """
        shares: list[list[Message]] = [[] for _ in range(self._count)]
        message_ids = []
        for message in messages:
            sent = delivered(message, self._next_id(), copied=False)  # the pipe makes one for each process
            message_ids.append(sent.metadata.message_id)
            shares[sent.metadata.dst_node_id % self._count].append(sent)
        self._forks.put(shares, GOES_ON)
        for reply in chain.from_iterable(self._forks.answers()):
            self._replies[reply.metadata.reply_to_message_id] = reply
        return message_ids

    def answers(self, messages: Sequence[Message]) -> list[Message]:
        """Call the app for each message, in a fork."""
        with synced_together():
            return [self._answer(message) for message in messages]

    def end(self) -> None:
        """End the processes."""
        self._forks.end()


def run_over_cores(
    server_app: ServerApp, client_app: ClientApp, scenario: Scenario, run_config: UserConfig, processes: int
) -> None:
    """Run a ServerApp over a grid over the cores, to its end or its error; no process is left then."""
    silos = scenario.federation.silos
    silo_records(scenario, silos[0])  # dealt out here, and not in each process
    grid = GridOverCores(client_app, len(silos), run_config, processes)
    try:
        serve(server_app, grid, run_config)
    finally:
        grid.end()


@contextmanager
def _acting(grid: GridOverCores) -> Iterator[Callable[[Sequence[Message]], list[Message]]]:
    """A fork's life: ledgers of its nodes are kept open in it, and closed at its end."""
    with kept_open():
        yield grid.answers
