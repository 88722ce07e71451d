"""Measured before training: one outlier moves the clipped sum by at most the clip.

A validator that reads layer names can be wrong, and Opacus 1.6's is: it accepts batch normalisation without affine
parameters, ghost clipping with losses of shape (B, 1), and adaptive clipping that never clips. So the real pipeline,
with the real model and loss, is run on made-up records with and without one outlier, and the difference is measured.
What breaks the bound on any of the probes is refused.

Once a process, and first, that a kind whose sums are rounded clips to so much less that two of them still differ by at
most the clip, as it says itself. Then at the parameters that it was built with, at random and at hostile ones: that
records are treated alike (`fedmodel.learning.conformance`, which makes the physical batch smaller where they are not),
that every physical batch has its one shape, that sums lie on their grid, and that one record moves them by at most the
clip, in lots of sizes around a physical batch's, records whose positions cancel and factors of 1e20 and 1e-20 among
them (`fedmodel.learning.cancelling`). Where rows have several lengths (`fedmodel.learning.lengths`), all of this at
each of them, and in lots of all, whose records end at each, as the odd one does. What a sum is rounded by is in the
clip that a kind clips to, so that the bound has no tolerance. Then, for every model that is received, at that model.

Guarantee: a pipeline that passes met the bound on every probe. It is a test, not a proof: a pipeline built to recognise
the probes would pass. It reads no record of the silo and draws nothing from a secret source, so it costs no privacy.

Shapes: B batch, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fedmodel.data.named import each, together
from fedmodel.errors import PrivacyError
from fedmodel.kinds.layers import without_dropout
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.cancelling import Hostile, hostile_to_positions, opposed
from fedmodel.learning.conformance import hostile, of_one_shape, settle
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.inputs import Inputs, ended, ends, made_up, scaled
from fedmodel.learning.lengths import Lengths
from fedmodel.learning.precision import is_rounded
from fedmodel.privacy import grid

_COUPLED: Final = 1e-3  # of the clip: rounding between shapes is far under it at ordinary parameters, coupling over it
_COUPLED_BF16: Final = 2.0**-3  # likewise, where it is of values of eight bits
# Far outside, beyond what float32 can square, and not a number at all.
_OUTLIERS: Final = (1.0, 1e4, 1e25, math.inf, math.nan)
_FEW_OUTLIERS: Final = (1.0, math.nan)


@dataclass(frozen=True)
class Odd:
    """A made-up record that could move a sum far.

    Attributes:
        called: What it is, in a refusal.
        x_1: The record.
        y_1: Its target.
    """

    called: str
    x_1: Inputs
    y_1: Tensor


OddOnes = Callable[[torch.Generator], Iterable[Odd]]


def preflight(gradients: ClippedSum, shape: DataShape, max_grad_norm: float) -> int:
    """Refuse a pipeline in which one record can move the clipped sum by more than the clip.

    Dropout is switched off meanwhile, since its masks differ between any two batches: what is measured is the bound for
    fixed masks. That it then holds for random ones rests on masks being secret, as `fedmodel.learning.jobs.training`
    says and does. Parameters and modes are put back whatever happens.

    Args:
        gradients: The pipeline as it will train; its `rows` is set to what conforms.
        shape: What records look like.
        max_grad_norm: The clip that is charged, which the pipeline is held to, whatever it says of itself.

    Returns:
        Rows of every physical batch.

    Raises:
        PrivacyError: When the bound is broken, or the model changes a parameter or a buffer as records pass.
    """
    if any(isinstance(layer, _DropoutNd) and layer.p > 0 for layer in gradients.module.modules()):
        raise PrivacyError(
            "the model takes dropout masks from torch's generator, which can be guessed; use kinds.layers.Dropout"
        )
    device = gradients.parameters[0].device
    check_room(gradients, max_grad_norm)
    tolerance = _COUPLED_BF16 if is_rounded(gradients.module) else _COUPLED
    with without_dropout(gradients.module), _restored(gradients.parameters) as own:
        # At ordinary parameters, where coupling is told from rounding.
        for outliers, _ in zip((_OUTLIERS, _FEW_OUTLIERS), _tried(gradients, own), strict=False):
            for one in gradients.shapes(shape):
                check_sensitivity(gradients.flat, one, max_grad_norm, device, outliers=outliers, tolerance=tolerance)
        _at_each_length(gradients, shape, partial(_measure, gradients, own, max_grad_norm))
        if gradients.lengths is not None:
            next(_tried(gradients, own))  # at hostile parameters a record may add nothing
            _check_lots_of_all(gradients, gradients.lengths, shape, max_grad_norm)
    return gradients.rows


def _measure(gradients: ClippedSum, own: Sequence[Tensor], max_grad_norm: float, shape: DataShape) -> None:
    """Measure a pipeline at one shape of rows, at its own parameters and at hostile ones."""
    size = settle(gradients, shape, partial(_tried, gradients, own), thorough=2)
    for number, _ in enumerate(_tried(gradients, own)):
        lots = (size - 1,) if number else sorted({1, 2, 7, 8, size - 1, size, size + 1, 2 * size + 3})
        check_sums(gradients, shape, max_grad_norm, _FEW_OUTLIERS, lots)
    check_positions(gradients, shape, max_grad_norm)


def _at_each_length(gradients: ClippedSum, shape: DataShape, measure: Callable[[DataShape], None]) -> None:
    """Measure a pipeline at each length of rows, and anew where one of them conforms at fewer rows than another did."""
    shapes, before = gradients.shapes(shape), 0
    while gradients.rows != before:
        before = gradients.rows
        for one in shapes:
            measure(one)
        if len(shapes) == 1:
            return


def _check_lots_of_all(gradients: ClippedSum, lengths: Lengths, shape: DataShape, max_grad_norm: float) -> None:
    """Refuse a pipeline that one record moves by over the clip in a lot of several lengths, wherever it ends."""
    generator = torch.Generator().manual_seed(0)

    def ended_at(x_B: Inputs, y_B: Tensor, turn_B: Tensor) -> tuple[Inputs, Tensor]:
        assert isinstance(x_B, Mapping)  # noqa: S101 - records that have lengths are texts
        return lengths.ended(x_B, y_B, turn_B)

    def odd_ones() -> Iterator[Odd]:
        for odd in _outliers(shape, _FEW_OUTLIERS[:1], generator):
            for turn, length in enumerate(lengths.every):
                yield Odd(f"of {length} tokens", *ended_at(odd.x_1, odd.y_1, torch.tensor([turn])))

    count = len(lengths.every)
    # All end first, or last, so that the outlier may be longer or shorter than any other; or everywhere.
    turns = torch.zeros(2, dtype=torch.long), torch.full((2,), count - 1), torch.arange(max(gradients.rows, count))
    lots = [ended_at(*made_up(shape, len(turn_B), generator), turn_B) for turn_B in turns]
    cut = partial(gradients.flat, whole=False)
    _largest_movement(cut, lots, odd_ones, max_grad_norm, gradients.parameters[0].device, 0.0)


def check_positions(gradients: ClippedSum, shape: DataShape, max_grad_norm: float, seed: int = 1) -> float:
    """Refuse a pipeline that a record moves by over the clip whose positions cancel, with factors of 1e20 and 1e-20.

    Parameters are left as the last set of hostile ones has them.

    Args:
        gradients: The pipeline, dropout switched off.
        shape: What records look like.
        max_grad_norm: The clip C.
        seed: Decides parameters and records.

    Returns:
        The largest movement seen over C, at most 1.

    Raises:
        PrivacyError: As `check_sums`.
    """

    def odd_ones(hostile_to: Hostile, generator: torch.Generator) -> Iterator[Odd]:
        called = f"whose positions cancel, of scale {hostile_to.scale:g},"
        for x_1 in opposed(shape, generator, hostile_to):
            # Where units are on, a loss may have no slope at one of its ends.
            for y_1 in ends(shape, 1.0)[: 2 if hostile_to.bias else 1]:
                yield Odd(called, x_1, y_1)

    companions = (max(1, gradients.rows - 1),)
    return max(
        _check(gradients, shape, max_grad_norm, companions, partial(odd_ones, hostile_to), seed + number)
        for number, hostile_to in enumerate(hostile_to_positions(gradients.parameters, shape, seed))
    )


def check_room(gradients: ClippedSum, max_grad_norm: float) -> None:
    """Refuse a pipeline that clips to so much that the rounding of two sums, which it says itself, passes the clip.

    Args:
        gradients: The pipeline.
        max_grad_norm: The clip that is charged.

    Raises:
        PrivacyError: When they could differ by more than the clip, of as many records as are let in.
    """
    records = int(min(gradients.most_records, grid.MOST_STEPS * gradients.unit / max_grad_norm))
    most = gradients.clip + 2 * gradients.rounding(records)
    if not most <= max_grad_norm:
        raise PrivacyError(
            f"one record moves the clipped sum by up to {most / max_grad_norm} times the clip, with what sums of"
            f" {records} records are rounded by, where at most 1 is allowed"
        )


def check_received(gradients: ClippedSum, shape: DataShape, max_grad_norm: float) -> int:
    """Hold a pipeline that passed the preflight to the bound at the parameters that it holds, which a server sent.

    Args:
        gradients: The pipeline; its `rows` is made smaller where these parameters ask for it.
        shape: What records look like.
        max_grad_norm: The clip that is charged.

    Returns:
        Rows of every physical batch.

    Raises:
        PrivacyError: When the bound is broken, or the model changes a parameter or a buffer as records pass.
    """
    with without_dropout(gradients.module):

        def measure(one: DataShape) -> None:
            settle(gradients, one, lambda: iter([None]))
            check_sums(gradients, one, max_grad_norm, _FEW_OUTLIERS[:1], (gradients.rows,))

        _at_each_length(gradients, shape, measure)
    return gradients.rows


def check_sums(
    gradients: ClippedSum,
    shape: DataShape,
    max_grad_norm: float,
    outliers: Sequence[float],
    companions: Sequence[int],
    seed: int = 0,
) -> float:
    """Refuse physical batches of another shape, sums off their grid, and one record that moves a sum by over the clip.

    Args:
        gradients: The pipeline at the parameters that it holds, dropout switched off.
        shape: What records look like.
        max_grad_norm: The clip C.
        outliers: Scales of the record that is added.
        companions: How many others there are; each number is tried.
        seed: Decides the records.

    Returns:
        The largest movement seen over C, at most 1.

    Raises:
        PrivacyError: When one of the three is found.
    """
    return _check(gradients, shape, max_grad_norm, companions, partial(_outliers, shape, outliers), seed)


def _check(
    gradients: ClippedSum,
    shape: DataShape,
    max_grad_norm: float,
    companions: Sequence[int],
    odd_ones: OddOnes,
    seed: int,
) -> float:
    """Refuse as `check_sums`, of any odd ones."""

    def on_grid(x_B: Inputs, y_B: Tensor) -> Tensor:
        sum_P = gradients.flat(x_B, y_B)
        if not bool((torch.trunc(sum_P / gradients.unit) * gradients.unit == sum_P).all()):
            raise PrivacyError(
                f"a clipped sum is no multiple of {gradients.unit:g}, so that it is rounded as it is added up"
            )
        return sum_P

    device, generator = gradients.parameters[0].device, torch.Generator().manual_seed(seed)
    lots = _lots(shape, companions, generator)
    with of_one_shape(gradients):
        return _largest_movement(on_grid, lots, partial(odd_ones, generator), max_grad_norm, device, 0.0)


def check_sensitivity(
    clipped_sum: Callable[[Inputs, Tensor], Tensor],
    shape: DataShape,
    max_grad_norm: float,
    device: torch.device,
    *,
    companions: Sequence[int] = (2, 8),
    outliers: Sequence[float] = _OUTLIERS,
    tolerance: float = 0.0,
    seed: int = 0,
) -> float:
    """Measure how far one made-up outlier moves the sum, and refuse more than the clip.

    Args:
        clipped_sum: From records and their targets to the clipped sum `(P,)`, noise left out.
        shape: What records look like.
        max_grad_norm: The clip C.
        device: Where the pipeline runs.
        companions: How many others there are; each number is tried.
        outliers: Scales of the record that is added.
        tolerance: What is let pass over 1: nothing, where sums are exact.
        seed: Decides the records.

    Returns:
        The largest movement seen over C, at most 1 and the tolerance.

    Raises:
        PrivacyError: When some movement exceeds that or is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    odd_ones = partial(_outliers, shape, outliers, generator)
    lots = _lots(shape, companions, generator)
    return _largest_movement(clipped_sum, lots, odd_ones, max_grad_norm, device, tolerance)


def _lots(shape: DataShape, companions: Sequence[int], generator: torch.Generator) -> Iterator[tuple[Inputs, Tensor]]:
    """Yield lots of so many made-up records; all of every other lot end early, and the outlier is one that does not."""
    for number, others in enumerate(companions):
        x_B, y_B = made_up(shape, others, generator)
        yield ended(x_B, torch.ones(others, dtype=torch.bool), generator) if number % 2 else x_B, y_B


def _outliers(shape: DataShape, scales: Sequence[float], generator: torch.Generator) -> Iterator[Odd]:
    """Yield records of each scale, with each target that is an end."""
    for scale in scales:
        x_1 = scaled(shape, 1, generator, scale)
        yield from (Odd(f"of scale {scale:g}", x_1, y_1) for y_1 in ends(shape, scale))


def _largest_movement(
    clipped_sum: Callable[[Inputs, Tensor], Tensor],
    lots: Iterable[tuple[Inputs, Tensor]],
    odd_ones: Callable[[], Iterable[Odd]],
    max_grad_norm: float,
    device: torch.device,
    tolerance: float,
) -> float:
    """Return how far an odd record moves the sum of a lot at most, and refuse more than the clip."""
    largest = 0.0

    def to_device(one: Tensor) -> Tensor:
        return one.to(device)

    for x_B, y_B in lots:
        without_P = clipped_sum(each(x_B, to_device), y_B.to(device)).double()
        for odd in odd_ones():
            # First, so that it shares a physical batch with companions whatever the size of one.
            with_x = together([odd.x_1, x_B], lambda parts: torch.cat(parts).to(device))
            with_y = torch.cat([odd.y_1, y_B]).to(device)
            moved = float((clipped_sum(with_x, with_y).double() - without_P).norm()) / max_grad_norm
            if not moved <= 1 + tolerance:  # a NaN is not at most anything
                raise PrivacyError(
                    f"one record {odd.called} moves the clipped sum by {_times(moved)} times the clip,"
                    " where at most 1 is allowed; the model couples records (batch normalisation?)"
                    " or its gradients are not clipped"
                )
            largest = max(largest, moved)
    return largest


def _times(moved: float) -> str:
    """Return a movement in clips, with so many figures that one over 1 does not look like 1."""
    return f"{moved:.3g}" if moved >= 1.01 else f"{moved:.9g}"


def _tried(gradients: ClippedSum, own: Sequence[Tensor]) -> Iterator[None]:
    """Put the pipeline's own parameters in, and then hostile ones, one set after the other."""
    for parameter, value in zip(gradients.parameters, own, strict=True):
        parameter.data.copy_(value)
    yield
    for _ in hostile(gradients.parameters, seed=1):
        yield


@contextmanager
def _restored(parameters: list[nn.Parameter]) -> Iterator[list[Tensor]]:
    """Put parameters back bit for bit; what they were is yielded."""
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        yield kept
    finally:
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.data.copy_(value)
