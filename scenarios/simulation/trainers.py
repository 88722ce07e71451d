"""What trains the silos of one process in a round: all that a silo is there is its records, its noise and its state.

Guarantee: an update depends on a silo's records only through the releases that its event describes, as with
`fedmodel.learning.jobs.training`, which the trainer here asks once for each silo. It takes every model, loss, unit and
optimiser that a deployed silo takes, at the same cost.

Shapes: P parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel import plans
from fedmodel.config import Scenario
from fedmodel.data import silo_records
from fedmodel.errors import FedmodelError
from fedmodel.learning.jobs import Carried, Question, Site
from fedmodel.learning.jobs.training import Answering
from fedmodel.secagg import FRESH

logger = logging.getLogger("server.trainers")


@dataclass(frozen=True)
class Trained:
    """What a round of training came to.

    Attributes:
        updates: By silo, float32 of shape `(P,)`.
        failed: Codes of the silos that made none.
    """

    updates: Mapping[str, NDArray[np.float32]]
    failed: dict[str, str] = field(default_factory=dict)


class Trainer(Protocol):
    """Trains silos that were charged, until it is closed by whoever had it made."""

    def round(self, number: int, silos: Sequence[str], model_P: NDArray[np.float32], lineage: bytes) -> Trained:
        """Return the silos' updates, which the next round may write over.

        Args:
            number: The round.
            silos: Who trains.
            model_P: From which model.
            lineage: What optimisers' state they all begin from; `FRESH` where they begin anew.
        """

    def close(self) -> None:
        """End what trains besides this thread, also where a round was broken off; a second time, do nothing."""


class OneByOne:
    """Trains one silo after the other, as a deployed one trains.

    Args:
        scenario: What is done.
        device: Where.
    """

    def __init__(self, scenario: Scenario, device: torch.device) -> None:
        self._scenario, self._device = scenario, str(device)
        self._carried: dict[str, Carried] = {}

    def round(self, number: int, silos: Sequence[str], model_P: NDArray[np.float32], lineage: bytes) -> Trained:
        """Return the silos' updates; one whose training fails has a code, and its reason is logged."""
        updates, failed = {}, {}
        for silo in silos:
            state = {} if lineage == FRESH else self._carried.pop(silo, {})
            try:
                updates[silo] = self._update(silo, Question(number, model_P), state)
            except FedmodelError as error:
                logger.warning("silo %s: %s", silo, error)  # its records are those of whoever simulates
                failed[silo] = error.code
            else:
                if self._scenario.carries_state:
                    self._carried[silo] = state
        return Trained(updates, failed)

    def close(self) -> None:
        """Do nothing: only this thread trains."""

    def _update(self, silo: str, question: Question, state: Carried) -> NDArray[np.float32]:
        """Return one silo's update; whatever its code raises costs it its part."""
        plan = self._scenario.plan(silo)
        event, job = plans.planned_event(plan), Answering(Site(silo, self._scenario, self._device, simulated=True))
        try:
            job.check(question, event)
            records = silo_records(self._scenario, silo)
            return job.answer(question, lambda: records, event.times(plan.steps_per_round), state)
        except FedmodelError:
            raise
        except Exception as error:  # of a model or a loss of the user's own
            raise FedmodelError(f"its training failed: {type(error).__name__}") from error
