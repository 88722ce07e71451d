"""Kinds of task, a file each: what is learnt of a record, by which losses, and how good an answer is.

Which task a scenario has follows from its data (`DataShape.task`). A task has losses and figures by name, in which what
a scenario says is looked up; nothing that it names is imported. Its answers are what a person reads of a model: of a
classifier probabilities, of a regression values in the label's own units.

Guarantee of each loss here: a record's loss is a function of its own outputs and its own target, whatever stands beside
it in the batch. `fedmodel.learning.preflight` measures it all the same before training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from fedmodel.config import Scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.tasks._task import Measured, RecordLoss, Task
from fedmodel.system.kinds import kinds, not_known

__all__ = ["TASKS", "Measured", "Objective", "RecordLoss", "Task", "figures_of", "objective", "task_of"]

TASKS: Final[dict[str, Callable[[DataShape], Task]]] = {name: module.TASK for name, module in kinds(__name__).items()}


@dataclass(frozen=True)
class Objective:
    """What a scenario trains on, by its data and by one name.

    Attributes:
        task: Of the data.
        loss: The name.
        losses: The loss of that name, of each record by itself and not weighed by class.
    """

    task: Task
    loss: str
    losses: RecordLoss

    def answers(self, output: Any) -> Tensor:
        """Return what a model answers, a row for each record, by what it returns."""
        return self.task.answers(self.loss, output)


def task_of(shape: DataShape) -> Task:
    """Return the task of data that look so.

    Raises:
        ConfigError: When no file has it.
    """
    if shape.task not in TASKS:
        raise ConfigError(f"data.task: {not_known('task', shape.task, TASKS)}")
    return TASKS[shape.task](shape)


def figures_of(scenario: Scenario) -> tuple[str, ...]:
    """Return the figures that a scenario asks for besides the loss: those that it names, or the task's own."""
    return scenario.metrics or task_of(scenario.data.shape).default


def objective(shape: DataShape, loss: str) -> Objective:
    """Return what is trained on such data by the loss of a name.

    Raises:
        ConfigError: When the task of the data has no such loss.
    """
    task = task_of(shape)
    return Objective(task, loss, task.loss(loss))
