"""Canaries in the real pipeline: a block of parameters that only they move, or made-up records that the model learns.

A probe canary is a record whose gradient is ten clips on one coordinate of its own, in a block of parameters beside the
model's, and nothing anywhere else; no real record has a gradient there. So a canary that is in the data adds exactly
one clip to its coordinate of every noised sum that it is drawn for, the most that the mechanism lets one record do,
while the model is trained by the real records alone, with the clip and the noise that it would have had. What an
observer sees of the coordinate is the Gaussian mechanism, as claimed, with nothing in between (Nasr et al. 2023,
section 4, name such canaries Dirac gradients).

One more record, always in the data, has a gradient that is not a number, on a coordinate of its own: it must add
nothing, and spoil nothing.

In training data a canary is told from a record by an array beside the others, `canary`, which the probed model alone
reads: 0 is a record, and `1 + i` canary i. No target tells one: a canary's target and features are zeros, and the
model's output for them is in no loss. Where rows have several lengths (`fedmodel.learning.lengths`), canary i is a
text of zeros that ends at one of them, each in turn, so that the clip at every length is measured, on as many canaries
of each.

A loss canary is a record like any other, of made-up features and label. What it does is seen by the model's loss on it.

Does NOT protect canaries: an audit says which of them were in the data.

Shapes: B batch, F features, K canaries, O outputs of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.config import Scenario
from fedmodel.data import Records
from fedmodel.data.named import each
from fedmodel.errors import DataError
from fedmodel.kinds.shape import ArrayShape
from fedmodel.learning.inputs import Inputs
from fedmodel.learning.lengths import Lengths
from fedmodel.learning.tasks import RecordLoss
from fedmodel.seeds import derive_seed

_FOLLOWED: Final = 500
_ALONE, _MARKS = "features", "canary"  # as `Probed.forward` has them
_CLIPS: Final = 10.0
"""What a canary's gradient is before the clip, in clips: far enough over one that a clip that is not there shows."""


class Probed(nn.Module):
    """A model with a block of parameters beside it: one a canary, and one for the record that is not a number.

    In evaluation it is the model.

    Args:
        model: Any model.
        canaries: K, those of one silo; silos share the block.
    """

    def __init__(self, model: nn.Module, canaries: int) -> None:
        super().__init__()
        self.model = model
        self.canaries = canaries
        # Of a constant input, so that a record's gradient on the block is what its loss asks of each output.
        self.block = nn.Linear(1, canaries + 1, bias=False)
        nn.init.zeros_(self.block.weight)

    def forward(
        self, features: Tensor | None = None, canary: Tensor | None = None, **named: Tensor
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Return the model's outputs; in training with the block's, `(B, K + 1)`, and which rows are canaries.

        Args:
            features: The records of a model that takes one array.
            canary: int64, shape `(B,)`: 0 of a record, `1 + i` of canary i; None where there are records alone.
            named: The records of a model that takes several.
        """
        if features is not None and named:
            named["features"] = features
        output_BO: Tensor = self.model(**named) if named else self.model(features)
        if not self.training:
            return output_BO
        if canary is None:
            canary = torch.zeros(len(output_BO), dtype=torch.int64, device=output_BO.device)
        return output_BO, self.block(output_BO.new_ones(len(output_BO), 1)), canary


def bare(module: nn.Module) -> nn.Module:
    """Return the model without a block."""
    return module.model if isinstance(module, Probed) else module


@dataclass(frozen=True)
class Block:
    """What a model is wrapped in for its canaries: their block of parameters, behind its own.

    Attributes:
        canaries: K, those of one silo.
    """

    canaries: int

    @property
    def parameters(self) -> int:
        """How many it has: one a canary, and one for the record that is not a number."""
        return self.canaries + 1

    def module(self, module: nn.Module) -> Probed:
        """Return the model with the block beside it."""
        return Probed(module, self.canaries)

    def losses(self, losses: RecordLoss, max_grad_norm: float) -> ProbedLoss:
        """Return what writes canaries to their coordinates, and is the model's own for records."""
        return ProbedLoss(losses, self.canaries, max_grad_norm)


def block_of(scenario: Scenario) -> Block | None:
    """Return the block that a scenario's canaries write to, None where it has none that do."""
    if scenario.audit is None or scenario.audit.canaries != "probe":
        return None
    return Block(scenario.audit.count)


class ProbedLoss:
    """The losses of a probed model: the model's own for records, and for canaries what writes their coordinate.

    Every row goes through the same operations, whatever the other rows are, and a row's loss is of that row alone.

    Args:
        losses: The model's own, a record each.
        canaries: K.
        max_grad_norm: The clip C.
    """

    def __init__(self, losses: RecordLoss, canaries: int, max_grad_norm: float) -> None:
        self._losses = losses
        self._canaries = canaries
        self._written = _CLIPS * max_grad_norm

    def __call__(self, outputs: tuple[Tensor, Tensor, Tensor], target_B: Tensor) -> Tensor:
        """Return a loss for each row of a probed model's outputs; its gradient, not its value, is what it is for."""
        output_BO, block_BK, canary_B = outputs
        is_record_B = canary_B == 0
        # Zeros for the outputs of canaries: where the model's are no numbers, theirs must stay out of the gradient.
        own_BO = torch.where(is_record_B.view(-1, *[1] * (output_BO.dim() - 1)), output_BO, 0.0)
        loss_B = self._losses(own_BO, target_B)
        written_B = block_BK.gather(1, (canary_B - 1).clamp(min=0)[:, None])[:, 0]
        slope_B = torch.where(canary_B == 1 + self._canaries, torch.nan, self._written)
        return torch.where(is_record_B, loss_B, slope_B * written_B)


def with_probes(
    x_N: Inputs, y_N: Tensor, coins_K: NDArray[np.bool_], copies: int, lengths: Lengths | None = None
) -> tuple[Inputs, Tensor]:
    """Return a silo's data with the canaries that are in it, and the record that is not a number, at its end.

    Args:
        x_N: The records, one tensor or several by name.
        y_N: Their targets, of any type and values.
        coins_K: Which canaries are in.
        copies: Records of each: as many as one privacy unit has at most.
        lengths: At which lengths rows are computed, where there are several: all copies of a canary end at one of them.

    Returns:
        The records by name, with what tells canaries from them, and the targets.

    Raises:
        DataError: When an array of the records has the name that tells canaries.
    """
    named = x_N if isinstance(x_N, Mapping) else {_ALONE: x_N}
    if _MARKS in named:
        raise DataError(f"an array of records is called {_MARKS!r}, as the canaries of an audit are; call it otherwise")
    more = [1 + int(canary) for canary in np.flatnonzero(coins_K) for _ in range(copies)] + [1 + len(coins_K)]
    marks = torch.tensor([0] * len(y_N) + more, device=y_N.device)

    def zeros(one: Tensor) -> Tensor:
        return one.new_zeros((len(more), *one.shape[1:]))

    more_x, more_y = {name: zeros(one) for name, one in named.items()}, zeros(y_N)
    if lengths is not None:
        more_x, more_y = lengths.ended(more_x, more_y, marks[len(y_N) :] - 1)
    with_x = {name: torch.cat([one, more_x[name]]) for name, one in named.items()}
    return {**with_x, _MARKS: marks}, torch.cat([y_N, more_y])


def loss_canaries(scenario: Scenario, silo: str) -> Records:
    """Return a silo's loss canaries, in or not: features uniform over the reference range, any target.

    Where rows have several lengths they are computed at the whole one nearly always: their masks are random too.
    They hang on the scenario's seed and the silo's name alone, and are no secret; which are in is.
    """
    if scenario.audit is None or scenario.seed is None:
        raise ValueError("only a scenario with [audit] and a seed has canaries")
    shape = scenario.data.shape
    rng = np.random.default_rng(derive_seed(scenario.seed, "loss-canaries", silo))
    count = scenario.audit.count

    def drawn(one: ArrayShape) -> NDArray[Any]:
        if one.below is None:
            return rng.uniform(-1.0, 1.0, (count, *one.size)).astype(np.float32)
        return rng.integers(0, one.below, (count, *one.size), dtype=np.int64)

    x_K = each(shape.arrays, drawn)
    return Records(x_K, drawn(shape.targets), -1 - np.arange(count))


def on_canaries(scenario: Scenario, vector_P: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a model or an update on the canaries' coordinates, `(K,)`: their block is last, and its last no canary's.

    Empty where canaries have no coordinates.
    """
    block = block_of(scenario)
    return vector_P[len(vector_P) - block.parameters : -1] if block else np.empty(0, dtype=np.float32)


def on_model(scenario: Scenario, vector_P: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a model or an update, with the canaries' block, on the coordinates of the model that an audit follows."""
    block = block_of(scenario)
    return vector_P[chosen_coordinates(scenario, len(vector_P) - (block.parameters if block else 0))]


def watched(scenario: Scenario, vector_P: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a model or an update wherever an audit looks: on the canaries' coordinates, and then on the model's."""
    return np.concatenate([on_canaries(scenario, vector_P), on_model(scenario, vector_P)])


def chosen_coordinates(scenario: Scenario, parameters: int) -> NDArray[np.intp]:
    """Return which coordinates of the model itself an audit follows into the sum: the same at every silo, ascending.

    Args:
        scenario: Its seed draws them.
        parameters: Of the model, without the canaries' block.
    """
    rng = np.random.default_rng(derive_seed(scenario.seed or 0, "audit-coordinates"))
    chosen_S: NDArray[np.intp] = np.sort(rng.choice(parameters, min(parameters, _FOLLOWED), replace=False))
    return chosen_S
