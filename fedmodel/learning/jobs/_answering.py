"""What a job is given at a silo: where it is, what it is asked, and what may look on.

Shapes: N records, F features, P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.config import Scenario
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.inputs import Inputs
from fedmodel.learning.tasks import RecordLoss
from fedmodel.privacy.events import Event

Vector = NDArray[np.float32]
Carried = dict[str, dict[str, NDArray[Any]]]
"""What a job carries from one round into the next at a silo: arrays by name, by what they are of."""


@dataclass(frozen=True)
class Site:
    """A silo, as a job knows it.

    Attributes:
        silo: Its name.
        scenario: What it is asked to do.
        device: "auto", "cpu", "cuda" or "cuda:N" (`fedmodel.learning.devices`).
        simulated: Whether it is a simulation's own, at which noise may be left out.
        processes: In how many processes it trains (`fedmodel.learning.ranks`).
    """

    silo: str
    scenario: Scenario
    device: str
    simulated: bool
    processes: int = 1


@dataclass(frozen=True)
class Question:
    """What a round asks: its number, from 1, and a vector, float32 of shape `(P,)`."""

    number: int
    vector_P: Vector


class Wrapper(Protocol):
    """What an observer puts around a model that is trained. Equal ones wrap alike, and have one hash."""

    def module(self, module: nn.Module) -> nn.Module:
        """Return the model in its wrapping."""

    def losses(self, losses: RecordLoss, max_grad_norm: float) -> RecordLoss:
        """Return the losses of the wrapped model, from the model's own and the clip."""

    def __hash__(self) -> int: ...


class Observer(Protocol):
    """Looks on while a silo trains in one round, and may put records of its own among the silo's.

    The loop tells every observer the same, in this order, and hears nothing back but the records:

        ready    before anything is charged; it may refuse
        begin    after the charge, before any record is read; with the figures that the pipeline was built with
        add      to the silo's records
        watch    the pipeline, before the first step
        drew     each lot, before its step
        end      the update, as it leaves

    Attributes:
        wrapper: What the model is wrapped in for it; None where it needs nothing.
    """

    @property
    def wrapper(self) -> Wrapper | None: ...

    def ready(self) -> None: ...

    def begin(self, event: Event) -> None: ...

    def add(self, x_N: Inputs, y_N: Tensor) -> tuple[Inputs, Tensor]: ...

    def watch(self, sgd: DpSgd) -> None: ...

    def drew(self, lot: NDArray[np.intp]) -> None: ...

    def end(self, update_P: Vector) -> None: ...
