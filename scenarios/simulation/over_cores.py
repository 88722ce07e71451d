"""Silos shared out over a processor's cores: a process for each, which keeps what was built before it was forked.

    this process  --- which silos, from which model --->  a process for each core
                  <--- who failed ----------------------   a trainer, which is asked as it is asked in one process
                  <=== their updates, in shared memory ==

Processes are forks, so that records, which were dealt out before, are in memory once, and so that code and objects of
the user's own are there. Updates lie in memory that all of them share, and through a pipe goes none. Silos that train
one by one are the same process's in every round: their optimisers' state stays where it is.

Guarantee: a silo's update is to the last bit what the trainer returns in this process, which is asked for it by the
same call: silos share nothing, and what noise is made of is drawn anew for each draw (`fedmodel.privacy.noise`). A
process that is gone fails the run, whatever it was about, and the others end with it. None outlives `close`, nor the
process that forked it, however that ends; and none holds this one's locks (`fedmodel.system.durable.held`) or pipes.

Does NOT take a scenario whose silos train with several threads, nor another device than a processor: a fork of a
process whose libraries run threads of their own would wait for these for ever.

Shapes: N silos, P parameters.
"""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.data import silo_records
from fedmodel.errors import FedmodelError
from fedmodel.learning.devices import cores, threads_of
from fedmodel.learning.models import parameters_of
from fedmodel.system.durable import failed
from scenarios.simulation.trainers import OneByOne, Trained, Trainer

_LEAST: Final = 4  # silos of each process: fewer are trained sooner than as many models are built and measured
_DIES_WITH_ITS_PARENT: Final = 1  # PR_SET_PDEATHSIG of prctl(2)
_GOES_ON: Final = "the run goes on from its last whole round by the command that began it"
_BEGINS_AGAIN: Final = "the state of silos' optimisers was in its memory, so that the run begins again in a new folder"

_Share = tuple[int, Sequence[str], NDArray[np.float32], bytes, int]
"""What a process is asked: a round, silos, the model, the lineage, and in which row their updates begin."""


def are_forked(device: torch.device) -> bool:
    """Return whether processes that train on a device are forked: on a processor, under Linux, by no daemon of Python.

    A worker of a `multiprocessing.Pool` is one, as of whoever sweeps over scenarios, and may have no processes.
    """
    daemon = multiprocessing.current_process().daemon
    return device.type == "cpu" and sys.platform.startswith("linux") and not daemon


def one_by_one(scenario: Scenario, device: torch.device) -> Trainer:
    """Return what trains a scenario's silos one by one: over the cores, where that goes and there are silos enough."""
    processes = min(cores(), len(scenario.federation.silos) // _LEAST)
    alone = OneByOne(scenario, device)
    if processes < 2 or not are_forked(device) or threads_of(scenario.training.threads) > 1:
        return alone
    return OverCores(scenario, alone, processes)


class OverCores:
    """Trains silos in several processes.

    Args:
        scenario: What is done.
        trainer: What trains in each of them, on a processor.
        processes: How many.

    Attributes:
        processes: How many.
    """

    def __init__(self, scenario: Scenario, trainer: Trainer, processes: int) -> None:
        silos, self.processes = scenario.federation.silos, processes
        silo_records(scenario, silos[0])  # dealt out here, and not in each process
        self._goes_on = not scenario.carries_state
        self._whose = {silo: place % processes for place, silo in enumerate(silos)}
        self._ends: list[Connection] = []
        self._processes: list[ForkProcess] = []
        self._asked: Sequence[Sequence[str]] = ()
        try:
            self._update_NP = _shared(len(silos), parameters_of(scenario.model, scenario.data.shape))
            for _ in range(processes):
                self._begin(trainer)
        except OSError as error:
            self.close()
            raise FedmodelError(f"a process that trains silos could not begin: {failed(error)}") from error
        except BaseException:
            self.close()
            raise

    def _begin(self, trainer: Trainer) -> None:
        """Fork a process."""
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        self._ends.append(here)
        with there:  # closed here, so that the end is seen where the process is gone
            told = (there, tuple(self._ends), os.getpid(), trainer, self._update_NP)
            process = context.Process(target=_train, args=told, daemon=True)
            process.start()
            self._processes.append(process)

    def close(self) -> None:
        """End all processes, whatever they are at."""
        for process in self._processes:
            process.kill()
        while self._processes:
            self._processes[-1].join()
            self._processes.pop().close()
        while self._ends:
            self._ends.pop().close()

    def round(self, number: int, silos: Sequence[str], model_P: NDArray[np.float32], lineage: bytes) -> Trained:
        """Return the silos' updates, in the order in which they were asked.

        Raises:
            FedmodelError: When a process is gone; the others have ended then.
        """
        shares: list[list[str]] = [[] for _ in self._ends]
        for silo in silos:
            shares[self._whose[silo]].append(silo)
        self.ask(number, shares, model_P, lineage)
        trained = self.answers()
        return Trained(
            {silo: trained.updates[silo] for silo in silos if silo in trained.updates},
            {silo: trained.failed[silo] for silo in silos if silo in trained.failed},
        )

    def ask(self, number: int, shares: Sequence[Sequence[str]], model_P: NDArray[np.float32], lineage: bytes) -> None:
        """Have each process train silos, a share of them each, and wait for none; `answers` comes next.

        Raises:
            FedmodelError: As `round`.
        """
        self._asked, self._number, row = shares, number, 0
        try:
            for end, share in zip(self._ends, shares, strict=True):
                end.send((number, share, model_P, lineage, row))
                row += len(share)
        except OSError as error:
            raise self._gone() from error

    def answers(self) -> Trained:
        """Return the updates of the silos that were asked, a share's after another's.

        Raises:
            FedmodelError: As `round`.
        """
        try:
            codes: list[dict[str, str]] = [end.recv() for end in self._ends]
        except (EOFError, OSError) as error:
            raise self._gone() from error
        silos = [silo for share in self._asked for silo in share]
        fallen = {silo: code for one in codes for silo, code in one.items()}
        return Trained({silo: self._update_NP[row] for row, silo in enumerate(silos) if silo not in fallen}, fallen)

    def _gone(self) -> FedmodelError:
        """End all processes where one is gone, and return what to raise."""
        self.close()
        return FedmodelError(
            "a process that trained silos ended, as one does that the system kills for want of memory; "
            + (_GOES_ON if self._goes_on or self._number == 1 else _BEGINS_AGAIN)
        )


def _shared(silos: int, parameters: int) -> NDArray[np.float32]:
    """Return memory of shape `(N, P)` that a fork shares; it takes none before it is written to.

    Raises:
        OSError: When the system has no such memory.
    """
    size = max(1, 4 * silos * parameters)
    file = os.memfd_create("updates")  # of a file, of which the system reserves nothing
    try:
        os.ftruncate(file, size)
        return np.frombuffer(mmap.mmap(file, size), np.float32, silos * parameters).reshape(silos, parameters)
    finally:
        os.close(file)


def _train(
    end: Connection,
    others: Sequence[Connection],
    parent: int,
    trainer: Trainer,
    update_NP: NDArray[np.float32],
) -> None:
    """Train what is asked for until nobody asks any more: a process's whole life.

    Args:
        end: Of its pipe.
        others: Ends that it inherited; it would wait for itself if it had that of its own pipe too.
        parent: Who forked it.
        trainer: Trains.
        update_NP: Takes the updates, and is shared with who forked it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the run's to end, and this ends with it
    ctypes.CDLL(None).prctl(_DIES_WITH_ITS_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before it could be said
        return
    for other in others:
        other.close()
    torch.set_num_threads(1)
    while True:
        try:
            number, silos, model_P, lineage, first = _asked(end)
        except EOFError:
            return
        trained = trainer.round(number, silos, model_P, lineage)
        for row, silo in enumerate(silos, start=first):
            if silo not in trained.failed:
                update_NP[row] = trained.updates[silo]
        end.send(trained.failed)


def _asked(end: Connection) -> _Share:
    """Return what comes through a pipe."""
    share: _Share = end.recv()
    return share
