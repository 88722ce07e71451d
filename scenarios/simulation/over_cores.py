"""Silos that train one by one, shared out over a processor's cores: a process for each, which keeps what it built.

    this process  --- which silos, from which model --->  a process for each core
                  <--- their updates, who failed -------   `OneByOne`, of the same silos in every round

Processes are forks, so that records, which were dealt out before, are in memory once, and so that code and objects of
the user's own are there. A silo is the same process's in every round: its optimiser's state stays where it is.

Guarantee: a silo's update is to the last bit what `OneByOne` returns in this process, which is asked for it by the same
call: silos share nothing, and what noise is made of is drawn anew for each draw (`fedmodel.privacy.noise`). A process
that is gone fails the run, whatever it was about, and the others end with it. None outlives `close`, nor the process
that forked it, however that ends; and none holds this one's locks (`fedmodel.system.durable.held`) or pipes.

Does NOT take a scenario whose silos train with several threads, nor another device than a processor: a fork of a
process whose libraries run threads of their own would wait for these for ever.

Shapes: P parameters.
"""

from __future__ import annotations

import ctypes
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
from fedmodel.system.durable import failed
from scenarios.simulation.trainers import OneByOne, Trained, Trainer

_LEAST: Final = 4  # silos of each process: fewer are trained sooner than as many models are built and measured
_DIES_WITH_ITS_PARENT: Final = 1  # PR_SET_PDEATHSIG of prctl(2)
_GOES_ON: Final = "the run goes on from its last whole round by the command that began it"
_BEGINS_AGAIN: Final = "the state of silos' optimisers was in its memory, so that the run begins again in a new folder"

_Share = tuple[int, list[str], NDArray[np.float32], bytes]


def one_by_one(scenario: Scenario, device: torch.device) -> Trainer:
    """Return what trains a scenario's silos one by one: over the cores, where that goes and there are silos enough."""
    processes = min(cores(), len(scenario.federation.silos) // _LEAST)
    alone = device.type != "cpu" or threads_of(scenario.training.threads) > 1 or not sys.platform.startswith("linux")
    return OneByOne(scenario, device) if alone or processes < 2 else OverCores(scenario, device, processes)


class OverCores:
    """Trains silos in several processes.

    Args:
        scenario: What is done.
        device: A processor.
        processes: How many.
    """

    def __init__(self, scenario: Scenario, device: torch.device, processes: int) -> None:
        silos = scenario.federation.silos
        silo_records(scenario, silos[0])  # dealt out here, and not in each process
        self._goes_on = not scenario.carries_state
        self._whose = {silo: place % processes for place, silo in enumerate(silos)}
        self._ends: list[Connection] = []
        self._processes: list[ForkProcess] = []
        try:
            for _ in range(processes):
                self._begin(OneByOne(scenario, device))
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
            told = (there, tuple(self._ends), os.getpid(), trainer)
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
        try:
            for end, share in zip(self._ends, shares, strict=True):
                end.send((number, share, model_P, lineage))
            found: list[Trained] = [end.recv() for end in self._ends]
        except (EOFError, OSError) as error:
            self.close()
            raise FedmodelError(
                "a process that trained silos ended, as one does that the system kills for want of memory; "
                + (_GOES_ON if self._goes_on or number == 1 else _BEGINS_AGAIN)
            ) from error
        updates = {silo: update for one in found for silo, update in one.updates.items()}
        codes = {silo: code for one in found for silo, code in one.failed.items()}
        return Trained(
            {silo: updates[silo] for silo in silos if silo in updates},
            {silo: codes[silo] for silo in silos if silo in codes},
        )


def _train(end: Connection, others: Sequence[Connection], parent: int, trainer: Trainer) -> None:
    """Train what is asked for until nobody asks any more: a process's whole life.

    Args:
        end: Of its pipe.
        others: Ends that it inherited; it would wait for itself if it had that of its own pipe too.
        parent: Who forked it.
        trainer: Trains.
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
            share: _Share = end.recv()
        except EOFError:
            return
        end.send(trainer.round(*share))
