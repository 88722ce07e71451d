"""Silos that are shared out over the nodes of a Ray cluster: a worker for each core, asked by the run's own process.

    this process  --- a share of the silos, from which model --->  a worker on some node
                  <--- their updates, who failed ---------------   `Stacked` or `OneByOne`, in one thread

The cluster is begun and ended by Ray's own means, `ray start` on each machine; this process is on one of them. Rounds,
strategies and the book stay here (`scenarios.simulation.one_process`). A worker deals the records itself, from the
scenario: none travels. What travels is the model, once a round to each node, and every silo's update.

Guarantee: nobody is charged before every worker has said that its node has this process's code, Python and packages
(`scenarios.simulation.on_a_node`), and then that it was dealt this process's records. A worker that is lost in a round
costs the time of what it had: `scenarios.simulation.sharing` says why that is one release all the same. Ray is told
to do nothing again by itself. All workers end with the run, and whatever the cluster had before stays.

Does NOT encrypt what travels, nor keep a node from reading all of it: whoever reaches a Ray cluster's port runs code on
it, unless the cluster asks for its token. Does NOT go on where the cluster's head is lost, or this process: the run is
taken up again by the command that began it. A node that joins after a run began has no part in it.

Shapes: P parameters.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir, suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fedmodel.config import Scenario
from fedmodel.data.own_hash import records_hash
from fedmodel.errors import ConfigError, FedmodelError
from scenarios.simulation.on_a_node import Worker, installed
from scenarios.simulation.resuming import code_of
from scenarios.simulation.sharing import Sharing
from scenarios.simulation.stacked_trainer import why_not
from scenarios.simulation.stacks import Stacks
from scenarios.simulation.trainers import Trained

ADDRESS: Final = "FEDMODEL_RAY_ADDRESS"
"""The variable that names a cluster by its head, "host:port"; without it, it is the one that this machine is in."""
_ANSWERS_S: Final = 5.0
# A client's preface and empty settings, which any server of HTTP/2 answers with settings of its own. Asked of anything
# else, Ray would wait for minutes.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS: Final = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_BEGINS_S: Final = 600.0  # a worker imports torch, deals all records and measures the model
_LEAST: Final = 4  # silos for each worker: fewer are trained sooner than as many models are built and measured
_SHARES: Final = 4  # of silos that train one by one, for each worker: of unlike nodes the fast ones take more
_GOES_ON: Final = "the run goes on from its last whole round by the command that began it"

logger = logging.getLogger("server.over_nodes")


@dataclass(frozen=True)
class _Placed:
    """A worker and where it is."""

    number: int
    node_id: str
    node: str
    actor: Any


def check_answers() -> None:
    """Refuse an address at which nothing answers; nothing is begun.

    Raises:
        ConfigError: With the address, and what to do.
    """
    address = os.environ.get(ADDRESS)
    if address is None:
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"{ADDRESS}={address}: is no address; write the head's, as in 10.0.0.1:6379")
    try:
        with socket.create_connection((host, int(port)), timeout=_ANSWERS_S) as head:
            head.sendall(_PREFACE + _SETTINGS)
            found = head.recv(9)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"{ADDRESS}={address}: nothing answers there ({error}); begin a cluster by `ray start --head`"
        ) from None
    if found[3:4] != _SETTINGS[3:4]:
        raise ConfigError(
            f"{ADDRESS}={address}: what answers there is no head of a Ray cluster; name that, and its port"
        )


class OverNodes:
    """Trains silos on the nodes of a cluster.

    Args:
        scenario: What is done; it keeps no optimiser's state between rounds.
        told: What a worker is told, the scenario in it.
        parameters: Of the model.

    Raises:
        ConfigError: When there is no cluster, or a node has other code, packages or records.
    """

    def __init__(self, scenario: Scenario, told: Mapping[str, Any], parameters: int) -> None:
        self._scenario = scenario
        self._stacks = None if why_not(scenario) else Stacks(scenario, parameters, "cpu")
        self._workers: dict[int, _Placed] = {}
        self._signals = signal.getsignal(signal.SIGTERM)
        _connect()
        try:
            self._begin(told)
        except BaseException:
            self.close()
            raise

    def _begin(self, told: Mapping[str, Any]) -> None:
        """Begin a worker for each core of the cluster, and hold each to what is here."""
        scenario, threads = self._scenario, self._scenario.training.threads
        cores = 1 if threads == "auto" else threads
        # `max_restarts` and `max_task_retries` are zero: what is computed again is for this process to say.
        made = ray.remote(num_cpus=cores, max_restarts=0, max_task_retries=0)(Worker)
        for number, (node_id, name) in enumerate(_places(cores, len(scenario.federation.silos) // _LEAST)):
            there = NodeAffinitySchedulingStrategy(node_id, soft=False)
            self._workers[number] = _Placed(number, node_id, name, made.options(scheduling_strategy=there).remote())
        if not self._workers:
            raise ConfigError(f"no node of the Ray cluster has {cores} cores for a worker; add one by `ray start`")
        here = installed()
        self._all("installed", (), lambda node, found: _check_installed(node, found, here))
        hashes = {"code of a user's own": code_of(scenario), "records": records_hash(scenario)}
        self._all("told", (told,), lambda node, found: _check_same(node, found, hashes))
        self._all("built", (), lambda node, found: None)  # noqa: ARG005 - it has built, or raised
        nodes = len({one.node_id for one in self._workers.values()})
        logger.info("%d workers train silos, on %d nodes", len(self._workers), nodes)

    def _all(self, method: str, arguments: tuple[Any, ...], check: Callable[[str, Any], None]) -> None:
        """Have every worker do something before any training, and look at what each returns."""
        asked = {getattr(one.actor, method).remote(*arguments): one for one in self._workers.values()}
        _, late = ray.wait(list(asked), num_returns=len(asked), timeout=_BEGINS_S)
        if late:
            raise FedmodelError(
                f"node {asked[late[0]].node}: no worker began there within {_BEGINS_S:.0f} s; `ray status` says whether"
                " others have its cores"
            )
        for ref, one in asked.items():
            try:
                found = ray.get(ref)
            except ray.exceptions.RayError as error:
                raise _cause(error) or ConfigError(
                    f"node {one.node}: no worker can begin there ({_first_line(error)}); install this fedmodel there"
                ) from error
            check(one.node, found)

    def round(self, number: int, silos: Sequence[str], model_P: NDArray[np.float32], lineage: bytes) -> Trained:
        """Return the silos' updates, in the order in which they were asked.

        Raises:
            FedmodelError: When no worker is left, or too many were lost with the same silos.
        """
        model, sharing = ray.put(model_P), Sharing(self._shares(silos))
        asked: dict[Any, _Placed] = {}
        while True:
            busy = {one.number for one in asked.values()}
            idle = [one for one in self._workers.values() if one.number not in busy]
            while idle and sharing.open:
                one = idle.pop()
                asked[one.actor.round.remote(number, sharing.give(one.number), model, lineage)] = one
            if not asked:
                break
            ready, _ = ray.wait(list(asked), num_returns=1)
            one = asked.pop(ready[0])
            try:
                sharing.take(one.number, ray.get(ready[0]))
            except ray.exceptions.RayTaskError as error:
                raise _cause(error) or FedmodelError(f"node {one.node}: {_first_line(error)}") from error
            except ray.exceptions.RayError as error:
                for lost in self._strike_off(one, error):
                    sharing.lose(lost)
                asked = {ref: other for ref, other in asked.items() if other.number in self._workers}
        if sharing.open:
            raise FedmodelError(
                f"the last node of the Ray cluster is lost; {_GOES_ON}, on the nodes that there are then"
            )
        return sharing.whole(silos)

    def close(self) -> None:
        """End all workers, and leave the cluster."""
        while self._workers:
            _end(self._workers.popitem()[1])
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._signals)

    def _shares(self, silos: Sequence[str]) -> list[Sequence[str]]:
        """Cut a round's silos into what a worker is asked for at once."""
        if self._stacks is not None:
            return [stack for _, stack in self._stacks.of(silos)]
        each = max(1, -(-len(silos) // (_SHARES * max(1, len(self._workers)))))
        return [silos[start : start + each] for start in range(0, len(silos), each)]

    def _strike_off(self, lost: _Placed, error: Exception) -> list[int]:
        """Ask a node nothing more of which a worker is lost, and return its workers, which are ended if they are there.

        The others would be lost next, or have nothing to do that cannot be done elsewhere.
        """
        struck = [one for one in self._workers.values() if one.node_id == lost.node_id]
        for one in struck:
            del self._workers[one.number]
            _end(one)
        logger.warning(
            "node %s is lost (%s); what its workers had is trained anew, by the %d that are left",
            *(lost.node, type(error).__name__, len(self._workers)),
        )
        return [one.number for one in struck]


def _connect() -> None:
    """Become a process of the cluster.

    Raises:
        ConfigError: When there is none, or it does not take this process.
    """
    if ray.is_initialized():
        raise ConfigError(
            "this process is in a Ray cluster already; call `ray.shutdown()` before, or use another process"
        )
    try:
        # Workers look for modules in the folder that this process works in, and before all else.
        with TemporaryDirectory(prefix="fedmodel-") as empty, chdir(empty), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of cards, which no worker has
            ray.init(os.environ.get(ADDRESS, "auto"), configure_logging=False, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, AssertionError, OSError) as error:
        raise ConfigError(
            f"no Ray cluster takes this process ({_first_line(error)}); begin one by `ray start --head` here, or join"
            f" one by `ray start --address`; {ADDRESS} names one of several"
        ) from error


def _places(cores: int, most: int) -> list[tuple[str, str]]:
    """Return the node of each worker, by id and address: nodes in turn, until their cores or `most` are used up."""
    each = [
        [(node["NodeID"], node["NodeManagerAddress"])] * int(node["Resources"].get("CPU", 0) // cores)
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
    return [one for one in chain.from_iterable(zip_longest(*each)) if one is not None][: max(1, most)]


def _check_installed(node: str, there: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Refuse a node on which other code would train."""
    for name in here:
        if there.get(name) != here[name]:
            told = [str(one)[:16] for one in (there.get(name), here[name])]
            raise ConfigError(f"node {node} has {name} {told[0]}, and this process {told[1]}; install the same there")


def _check_same(node: str, found: Sequence[str], here: Mapping[str, str]) -> None:
    """Refuse a node that finds other code of a user's own, or other records, where the scenario says."""
    for what, there in zip(here, found, strict=True):
        if there != here[what]:
            raise ConfigError(f"node {node} has other {what} than this process; put the same files there")


def _end(worker: _Placed) -> None:
    """End a worker, wherever it is."""
    with suppress(ray.exceptions.RayError, ValueError):
        ray.kill(worker.actor)


def _cause(error: Exception) -> FedmodelError | None:
    """Return what a worker's code refused with, if it did."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, FedmodelError) else None


def _first_line(error: Exception) -> str:
    """Return what an error says first, without its trace."""
    cause = getattr(error, "cause", None) or error
    return ": ".join([type(cause).__name__, *str(cause).strip().splitlines()[:1]])[:300]
