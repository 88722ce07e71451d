"""How good a model is for parts of the records: for each choice of a column, or each quarter of its public range.

A number that is 0 or 1 in every record, or else at one of the two ends of its range, is parted by these two.

Figures are those of the model's task. A part with fewer records than are asked for has none, and is counted: figures of
a few records are chance, and tell of each of them. A record that is none of a category's choices is in no part.

Does NOT keep what was left out from being worked out: where one part of a column is left out, its count, and roughly
its figures, follow from those of all records less those of the other parts.

Shapes: N records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel.errors import ConfigError
from fedmodel.learning.tasks import Measured, Objective
from fedmodel.system.kinds import not_known
from scenarios.models.factors import Factor
from scenarios.runs.explanation import Group


def chosen(found: Sequence[Factor], names: Sequence[str]) -> list[Factor]:
    """Return the columns by which records are parted: those of some names, or all that have choices.

    Raises:
        ConfigError: When there is none of a name, or no public range of its numbers is declared.
    """
    by_name = {factor.name: factor for factor in found}
    for name in names:
        if name not in by_name:
            raise ConfigError(f"--by: {not_known('column', name, by_name)}")
        if by_name[name].kind == "array":
            raise ConfigError(
                f"--by: {name} is {_numbers(by_name[name].size)}, of which no public range is declared, so that it has"
                " no quarters by which records could be parted; leave it out"
            )
    return [by_name[name] for name in dict.fromkeys(names)] if names else [one for one in found if one.choices]


def _numbers(count: int) -> str:
    """Say how many numbers an array has."""
    return f"an array of {count} numbers" if count > 1 else "a number"


def figures(aim: Objective, output_N: NDArray[np.float32], target_N: NDArray[Any]) -> dict[str, float]:
    """Return the loss and the task's figures of some records, those that are defined there.

    Args:
        aim: The model's task and loss.
        output_N: What the model returns for them.
        target_N: Their targets.
    """
    output, target = torch.from_numpy(output_N), torch.from_numpy(target_N)
    loss_N = aim.losses(output, target).numpy()
    loss = float(loss_N.mean())
    found = Measured(aim.answers(output).numpy(), aim.task.targets(target_N), loss_N, loss, aim.loss)
    return {"loss": loss, **aim.task.figures(aim.task.default, found)}


def groups(
    aim: Objective,
    columns: Sequence[Factor],
    x_NF: NDArray[np.float32],
    output_N: NDArray[np.float32],
    target_N: NDArray[Any],
    least: int,
) -> tuple[tuple[Group, ...], dict[str, int]]:
    """Return the parts that have enough records, and how many of each column have not.

    Args:
        aim: The model's task and loss.
        columns: By which records are parted.
        x_NF: Scaled records in rows.
        output_N: What the model returns for them.
        target_N: Their targets.
        least: How many records a part needs, one at least.
    """
    found, left_out = [], dict[str, int]()
    for column in columns:
        names, part_N = column.parted(x_NF)
        for place, name in enumerate(names):
            own_N = part_N == place
            if (count := int(own_N.sum())) < max(1, least):
                left_out[column.name] = left_out.get(column.name, 0) + 1
                continue
            own = figures(aim, output_N[own_N], target_N[own_N])
            found.append(Group(column=column.name, group=name, records=count, figures=own))
    return tuple(found), left_out
