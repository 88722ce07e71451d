"""Records as tensors: one, or several by name; put on a device, made up from what is public, padded, given to a model.

Half of several made-up records end early, as texts and series do that were padded: from a random place in their first
half on they are zeros, along their first axis or their last, in all of a record's arrays alike. A model that crops a
batch to its longest record couples records, which would not show among records of one length.

Shapes: B rows of a physical batch, R of them records, N records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from fedmodel.data import Records
from fedmodel.data.named import arrays, each
from fedmodel.kinds.shape import IGNORED, ArrayShape, DataShape

_UNLIKE: Final = (1.0, -4.0, 0.25, 64.0, -1.0)
_MOST_ROWS: Final = 4_096
_MOST_NUMBERS: Final = 2**26  # that a layer holds of a batch of texts: 256 MB in float32
_WIDEST: Final = 4_096  # numbers that a layer has for a token, as is supposed of any model

Inputs = Tensor | Mapping[str, Tensor]
"""What a model is given of records: tensors of one first dimension."""


def tensors(records: Records, device: torch.device) -> tuple[Inputs, Tensor]:
    """Return records and their targets on a device. Sensitive."""
    return each(records.x, lambda one: torch.from_numpy(one).to(device)), torch.from_numpy(records.y_N).to(device)


def rows_at_once(shape: DataShape) -> int:
    """Return how many records a model that learns nothing of them is given at once: fewer of long texts.

    >>> from fedmodel.kinds.shape import ArrayShape
    >>> rows_at_once(DataShape((10,), 2)), rows_at_once(DataShape((512,), 2, below=30_000))
    (4096, 32)
    """
    of_each = shape.outputs if shape.targets.size else 0
    return max(1, min(_MOST_ROWS, _MOST_NUMBERS // max(1, tokens_in(shape) * max(_WIDEST, of_each))))


def tokens_in(shape: DataShape) -> int:
    """Return how many tokens, or other whole numbers, a record's longest array has; 0 where it has real numbers alone.

    >>> tokens_in(DataShape((512,), 2, below=30_000)), tokens_in(DataShape((10,), 2))
    (512, 0)
    """
    return max((math.prod(one.size) for one in arrays(shape.arrays) if one.below is not None), default=0)


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

    Half of the records end early. Of a target that may ignore positions, some are ignored.
    """
    x_B, y_B, _ = made_up_short(shape, count, generator)
    return x_B, y_B


def made_up_targets(shape: DataShape, count: int, generator: torch.Generator) -> Tensor:
    """Return targets of records that nobody has."""
    return _drawn(shape.targets, count, generator)


def made_up_short(shape: DataShape, count: int, generator: torch.Generator) -> tuple[Inputs, Tensor, Tensor]:
    """Return records and targets as `made_up` does, and which of the records end early: half of them, at random."""
    x_B, y_B = scaled(shape, count, generator, 1.0), made_up_targets(shape, count, generator)
    short_B = torch.zeros(count, dtype=torch.bool)
    short_B[torch.randperm(count, generator=generator)[: count // 2]] = True
    return ended(x_B, short_B, generator), y_B, short_B


def ended(x_B: Inputs, short_B: Tensor, generator: torch.Generator) -> Inputs:
    """Return made-up records of which those chosen end early: in zeros, and of whole numbers with none before."""
    end_B = torch.rand(len(short_B), generator=generator) / 2
    last_B = torch.rand(len(short_B), generator=generator) < 0.5

    def cut(own_B: Tensor) -> Tensor:
        for axis, chosen_B in ((1, ~last_B), (own_B.dim() - 1, last_B)):
            if own_B.dim() == 1 or own_B.shape[axis] == 1:
                continue
            width, sizes = own_B.shape[axis], [1] * own_B.dim()
            sizes[0], sizes[axis] = own_B.shape[0], own_B.shape[axis]
            begun_BK = torch.arange(width) < (1 + (end_B * width).floor())[:, None]
            cut_B = (short_B & chosen_B).view(-1, *[1] * (own_B.dim() - 1))
            least = 1 if not own_B.is_floating_point() and bool(own_B.any()) else None
            whole_B = own_B if least is None else own_B.clamp(min=least)
            own_B = torch.where(cut_B, torch.where(begun_BK.view(sizes), whole_B, 0), own_B)
        return own_B

    return each(x_B, cut)


def scaled(shape: DataShape, count: int, generator: torch.Generator, scale: float) -> Inputs:
    """Return records that nobody has, without targets, real numbers of them multiplied with a scale."""
    return each(shape.arrays, lambda one: _drawn(one, count, generator) * (1 if one.below else scale))


def unlike(x_R: Inputs, views: int) -> Inputs:
    """Return so many views of each made-up record, side by side: larger, smaller and opposite ones, each of it alone.

    Whole numbers stay as they are, since no augmentation changes them.

    >>> unlike(torch.tensor([[1.0], [3.0]]), 2).tolist()
    [[1.0], [-4.0], [3.0], [-12.0]]
    """

    def viewed(one_R: Tensor) -> Tensor:
        one_V = one_R.repeat_interleave(views, dim=0)
        if not one_R.is_floating_point():
            return one_V
        factor_K = one_R.new_tensor([_UNLIKE[place % len(_UNLIKE)] for place in range(views)])
        return one_V * factor_K.repeat(len(one_R)).view(-1, *[1] * (one_R.dim() - 1))

    return each(x_R, viewed)


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
