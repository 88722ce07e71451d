"""Records as tensors: one, or several by name; put on a device, made up from what is public, padded, given to a model.

Shapes: B rows of a physical batch, R of them records, N records.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedmodel.data import Records
from fedmodel.data.named import each
from fedmodel.kinds.shape import IGNORED, ArrayShape, DataShape

Inputs = Tensor | Mapping[str, Tensor]
"""What a model is given of records: tensors of one first dimension."""


def tensors(records: Records, device: torch.device) -> tuple[Inputs, Tensor]:
    """Return records and their targets on a device. Sensitive."""
    return each(records.x, lambda one: torch.from_numpy(one).to(device)), torch.from_numpy(records.y_N).to(device)


def called(module: nn.Module, x_B: Inputs) -> Tensor:
    """Return what a model makes of a batch: called with the one tensor that there is, or with several by name.

    Raises:
        RuntimeError: When the model's own code asks the process to end, which is not a model's to do.
    """
    try:
        output: Tensor = module(**x_B) if isinstance(x_B, Mapping) else module(x_B)
    except SystemExit:
        raise RuntimeError("its code asked the process to end") from None
    return output


def taken(x_N: Inputs, index: Tensor) -> Inputs:
    """Return the chosen records."""
    return each(x_N, lambda one: one[index])


def padded(values_R: Tensor, size: int) -> Tensor:
    """Return a physical batch of so many rows: the records, then zeros."""
    filled_B = values_R.new_zeros((size, *values_R.shape[1:]))
    filled_B[: len(values_R)] = values_R
    return filled_B


def made_up(shape: DataShape, count: int, generator: torch.Generator) -> tuple[Inputs, Tensor]:
    """Return records that nobody has, and targets: normal where numbers are real, uniform where they are whole.

    Of a target that may ignore positions, some are ignored.
    """
    return scaled(shape, count, generator, 1.0), made_up_targets(shape, count, generator)


def made_up_targets(shape: DataShape, count: int, generator: torch.Generator) -> Tensor:
    """Return targets of records that nobody has."""
    return _drawn(shape.targets, count, generator)


def scaled(shape: DataShape, count: int, generator: torch.Generator, scale: float) -> Inputs:
    """Return records that nobody has, without targets, real numbers of them multiplied with a scale."""
    return each(shape.arrays, lambda one: _drawn(one, count, generator) * (1 if one.below else scale))


def ends(shape: DataShape, scale: float) -> tuple[Tensor, ...]:
    """Return the least and the greatest target of one record, and one of which nothing counts, where there may be one.

    Of real numbers they are minus and plus the scale.
    """
    size, below = (1, *shape.targets.size), shape.targets.below
    low, high = (-scale, scale) if below is None else (0, below - 1)
    nothing = [torch.full(size, IGNORED)] if shape.targets.ignores else []
    return (torch.full(size, low), torch.full(size, high), *nothing)


def _drawn(shape: ArrayShape, count: int, generator: torch.Generator) -> Tensor:
    size = (count, *shape.size)
    if not shape.below:
        return torch.randn(size, generator=generator)
    drawn = torch.randint(shape.below, size, generator=generator)
    if not shape.ignores:
        return drawn
    # From records of which all counts to such of which hardly anything does.
    share = torch.rand((count, *[1] * len(shape.size)), generator=generator)
    return torch.where(torch.rand(size, generator=generator) < share, IGNORED, drawn)
