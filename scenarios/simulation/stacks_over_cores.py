"""Stacks of silos shared out over a processor's cores: a process for each, which takes stacks of its own.

    this process  --- stacks, from which model ------>  a process for each core: `Stacked`, in one thread
    measures that model, while they train
                  <--- updates -----------------------

Threads of one process would wait for each other: between two products each of them needs Python's one lock.

Guarantee: that of `Stacked`. This process holds its groups to their bounds at the model that a round trains from, as
`Stacked` does, and no update leaves `round` before. Those of a group at which the model is refused are dropped unseen.
Where it asks for other rows than silos were trained with, all of them are trained again with those rows, and the first
updates are dropped unseen. Both hang on the model and on made-up records alone, and on no silo's.

Does NOT take scenarios whose optimisers' state is kept: a stack's is in the memory of whatever process trained it.

Shapes: P parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.learning.devices import cores
from scenarios.simulation.forks import are_forked
from scenarios.simulation.over_cores import OverCores, one_by_one
from scenarios.simulation.stacked_trainer import Stacked, why_not
from scenarios.simulation.trainers import Trained, Trainer

logger = logging.getLogger("server.trainers")


def trainer_of(scenario: Scenario, device: torch.device) -> Trainer:
    """Return what trains a scenario's silos: side by side where that goes, else one by one, which is logged."""
    why = why_not(scenario)
    if why:
        logger.info("silos are trained one by one: %s", why)
        return one_by_one(scenario, device)
    if scenario.carries_state or not are_forked(device):
        return Stacked(scenario, device)
    stacked = Stacked(scenario, device, threads=1)
    processes = min(cores(), len(stacked.stacks.of(scenario.federation.silos)))
    return stacked if processes < 2 else StacksOverCores(scenario, stacked, processes)


class StacksOverCores:
    """Trains stacks of silos in several processes.

    Args:
        scenario: What is done; nothing of an optimiser is kept between rounds.
        stacked: What trains, on a processor, and has trained nothing yet: of its threads none was begun.
        processes: How many.
    """

    def __init__(self, scenario: Scenario, stacked: Stacked, processes: int) -> None:
        self._scenario, self._stacked, self._processes = scenario, stacked, processes
        self._fork()

    def _fork(self) -> None:
        """Begin the processes, which train with the rows that were measured last."""
        self._rows = self._stacked.rows
        self._over = OverCores(self._scenario, _AtRows(self._stacked), self._processes)

    def close(self) -> None:
        """End all processes, whatever they are at."""
        self._over.close()

    def round(self, number: int, silos: Sequence[str], model_P: NDArray[np.float32], lineage: bytes) -> Trained:
        """Return the silos' updates; where the model that is trained from is refused, none of a group has one.

        Raises:
            FedmodelError: When a process is gone; the others have ended then.
        """
        stacks = [stack for _, stack in self._stacked.stacks.of(silos)]
        dealt = [stacks[place :: self._processes] for place in range(self._processes)]
        shares = [[silo for stack in share for silo in stack] for share in dealt]
        while True:
            self._over.ask(number, shares, model_P, lineage)
            held = self._stacked.hold(silos, model_P)
            trained = self._over.answers()
            if all(rows == self._rows[key] for key, rows in held.rows.items()):
                return held.of(self._whole(silos, trained))
            self._over.close()
            self._fork()

    def _whole(self, silos: Sequence[str], trained: Trained) -> Trained:
        """Return the updates of groups of which no process failed, as in one process."""
        if not trained.failed:
            return trained
        failed = dict[str, str]()
        for alike in self._stacked.stacks.grouped(silos).values():
            codes = [trained.failed[silo] for silo in alike if silo in trained.failed]
            failed |= dict.fromkeys(alike, codes[0]) if codes else {}
        return Trained({silo: one for silo, one in trained.updates.items() if silo not in failed}, failed)


class _AtRows:
    """Trains silos with the rows that were measured before this process was forked.

    Args:
        stacked: Trains.
    """

    def __init__(self, stacked: Stacked) -> None:
        self._stacked, self._rows = stacked, stacked.rows

    def round(self, number: int, silos: Sequence[str], model_P: NDArray[np.float32], lineage: bytes) -> Trained:
        """Return the silos' updates, of which none leaves before the model was measured."""
        return self._stacked.train(number, silos, model_P, lineage, self._rows)

    def close(self) -> None:
        """Do nothing: the process ends by itself."""
