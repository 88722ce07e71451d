"""What is asked of a task: losses and figures by name, answers, and how good it is to know nothing.

Shapes: B batch, N records; what follows is of one record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.tasks._own import is_own, own_figure, own_loss
from fedmodel.system.kinds import not_known

RecordLoss = Callable[[Any, Tensor], Tensor]
"""From what a model returns for B records, mostly outputs `(B, K)`, and their targets to each one's own loss, `(B,)`.
"""


@dataclass(frozen=True)
class Measured:
    """What figures are computed from: of the server's own held-out records, never of a silo's.

    Attributes:
        answer_N: What the model answers, `Task.answers`, a row for each record.
        target_N: The records' targets, told as answers are (`Task.targets`).
        loss_N: Each record's loss, in the model's own precision.
        mean_loss: Their mean.
        loss: The name of the loss.
    """

    answer_N: NDArray[Any]
    target_N: NDArray[Any]
    loss_N: NDArray[np.floating[Any]]
    mean_loss: float
    loss: str


Figure = Callable[[Measured], float | None]
"""A figure, None where it is not defined on these records."""


class Task(ABC):
    """A task on data of one shape.

    Attributes:
        name: As the data say it.
        losses: By the name that `training.loss` says; each gives a record the loss of its own row.
        default: The figures of a scenario that names none, in order.
        reads_labels: Whether a target is one of several classes, by which a loss may be weighed.
        knows_nothing: What the best answer is that is one for all records, in words.
    """

    name: ClassVar[str]
    losses: ClassVar[Mapping[str, RecordLoss]]
    default: ClassVar[tuple[str, ...]]
    reads_labels: ClassVar[bool] = False
    knows_nothing: ClassVar[str] = "the shares of the classes"

    def __init__(self, shape: DataShape) -> None:
        self.shape = shape

    def loss(self, name: str) -> RecordLoss:
        """Return the loss of a name, one of the task's or, as "package.module:function", one of the user's own.

        Raises:
            ConfigError: When the task has none of it.
        """
        if is_own(name):
            return own_loss(name)
        if name not in self.losses:
            raise ConfigError(f"training.loss: {not_known('loss', name, self.losses)} (the task is {self.name})")
        return self.losses[name]

    @abstractmethod
    def answers(self, loss: str, output: Any) -> Tensor:
        """Return what a person reads of a model's outputs, a row for each record.

        Args:
            loss: By which it was trained.
            output: What the model returns.
        """

    def targets(self, target_N: NDArray[Any]) -> NDArray[Any]:
        """Return targets as answers are told."""
        return target_N

    @abstractmethod
    def known(self) -> Mapping[str, Figure]:
        """Return the figures that there are, by name; whoever only trains does not ask."""

    def figure(self, name: str) -> Figure:
        """Return the figure of a name.

        Raises:
            ConfigError: When the task has none of it.
        """
        known = self.known()
        if name not in known:
            raise ConfigError(f"metrics: {not_known('figure', name, known)} (the task is {self.name})")
        return known[name]

    @abstractmethod
    def base_loss(self, loss: str, target_N: NDArray[Any]) -> float | None:
        """Return the mean loss of the best answer that is one for all records, None of a loss that is not on board."""

    def likelihoods(self, loss: str, output: Any, target_B: Tensor) -> Tensor:
        """Return how likely a model holds each record's own target to be, `(B,)`, in (0, 1] or as its losses are."""
        return torch.exp(-self.loss(loss)(output, target_B))

    def one_answer(self, found: Measured) -> str | None:  # noqa: ARG002 - of a task that has classes
        """Return the one answer that a model gives to all records, where it is a class and some are of another."""
        return None

    def figures(self, names: tuple[str, ...], found: Measured) -> dict[str, float]:
        """Return the figures of some names that are defined, in order.

        Raises:
            ConfigError: When the task has none of a name.
        """
        of = {
            name: own_figure(name)(found.answer_N, found.target_N) if is_own(name) else self.figure(name)(found)
            for name in names
        }
        return {name: float(value) for name, value in of.items() if value is not None}
