"""Silos shared out over a processor's cores: a process for each, which keeps what was built before it was forked.

    this process  --- which silos, from which model --->  a process for each core
                  <--- who failed ----------------------   a trainer, which is asked as it is asked in one process
                  <=== their updates, in shared memory ==

Processes are forks (`scenarios.simulation.forks`) of one that dealt the records out. Updates lie in memory that all of
them share, and through a pipe goes none. Silos that train one by one are the same process's in every round: their
optimisers' state stays where it is.

Guarantee: a silo's update is to the last bit what the trainer returns in this process, which is asked for it by the
same call: silos share nothing, and what noise is made of is drawn anew for each draw (`fedmodel.privacy.noise`). A
process that is gone fails the run, whatever it was about, and the others end with it.

Shapes: N silos, P parameters.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.data import silo_records
from fedmodel.errors import FedmodelError
from fedmodel.learning.models import parameters_of
from fedmodel.system.durable import failed
from scenarios.simulation.forks import COULD_NOT_BEGIN, GOES_ON, Forks, processes_for
from scenarios.simulation.trainers import OneByOne, Trained, Trainer

_LEAST: Final = 4  # silos of each process: fewer are trained sooner than as many models are built and measured
_BEGINS_AGAIN: Final = "the state of silos' optimisers was in its memory, so that the run begins again in a new folder"

_Share = tuple[int, Sequence[str], NDArray[np.float32], bytes, int]
"""What a process is asked: a round, silos, the model, the lineage, and in which row their updates begin."""


def one_by_one(scenario: Scenario, device: torch.device) -> Trainer:
    """Return what trains a scenario's silos one by one: over the cores, where that goes and there are silos enough."""
    processes = processes_for(scenario, device, _LEAST)
    alone = OneByOne(scenario, device)
    return alone if processes < 2 else OverCores(scenario, alone, processes)


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
        self._asked: Sequence[Sequence[str]] = ()
        try:
            self._update_NP = _shared(len(silos), parameters_of(scenario.model, scenario.data.shape))
        except OSError as error:
            raise FedmodelError(f"{COULD_NOT_BEGIN}: {failed(error)}") from error
        self._forks = Forks(nullcontext(_training(trainer, self._update_NP)) for _ in range(processes))

    def close(self) -> None:
        """End all processes, whatever they are at."""
        self._forks.close()

    def round(self, number: int, silos: Sequence[str], model_P: NDArray[np.float32], lineage: bytes) -> Trained:
        """Return the silos' updates, in the order in which they were asked.

        Raises:
            FedmodelError: When a process is gone; the others have ended then.
        """
        shares: list[list[str]] = [[] for _ in range(self.processes)]
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
        first = [sum(map(len, shares[:place])) for place in range(len(shares))]
        asked: list[_Share] = [(number, share, model_P, lineage, row) for share, row in zip(shares, first, strict=True)]
        self._asked = shares
        self._forks.put(asked, GOES_ON if self._goes_on or number == 1 else _BEGINS_AGAIN)

    def answers(self) -> Trained:
        """Return the updates of the silos that were asked, a share's after another's.

        Raises:
            FedmodelError: As `round`.
        """
        codes: list[dict[str, str]] = self._forks.answers()
        silos = [silo for share in self._asked for silo in share]
        fallen = {silo: code for one in codes for silo, code in one.items()}
        return Trained({silo: self._update_NP[row] for row, silo in enumerate(silos) if silo not in fallen}, fallen)


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


def _training(trainer: Trainer, update_NP: NDArray[np.float32]) -> Callable[[_Share], dict[str, str]]:
    """Return what answers a share of a round: codes of silos that failed; the others' updates are in their rows."""

    def answer(share: _Share) -> dict[str, str]:
        number, silos, model_P, lineage, first = share
        trained = trainer.round(number, silos, model_P, lineage)
        for row, silo in enumerate(silos, start=first):
            if silo not in trained.failed:
                update_NP[row] = trained.updates[silo]
        return dict(trained.failed)

    return answer
