"""Many models of one architecture side by side: the clipped sum of each one's own records, by a few large products.

For models of fully connected layers, whose parameters are stacked: one batched product passes the records of S silos
through S models, and another one back. The gradient of record i in a layer is an outer product of b_i, the gradient of
the loss at what came out, and a_i, what went in with a one for the bias. So its squared norm is |b_i|^2 |a_i|^2, and
the clipped sum of a silo is one product of matrices, of which no record's gradient is computed.

It is book-keeping (`fedmodel.learning.gradients.book_keeping`), with each record at one position, and the proof there
holds as it stands: what is saved of a record is its own, which the same conformance test measures here, at the shape of
a stack; its norm is a norm of products in float64; factors are no larger; the sum of a physical batch is computed in
float64, of fewer than `CHAIN` pieces, and rounded to the grid once a lot, by what is carried from batch to batch. So a
record of a silo moves that silo's sum by at most C, and another silo's sum not at all. No lot is refused.

| Edge case                                   | What happens                                                        |
|---------------------------------------------|---------------------------------------------------------------------|
| a silo's lot is empty                       | its sum is zero                                                      |
| lots are of unequal sizes                   | rows that fill a batch up have a factor of 0                         |
| a lot is larger than a physical batch       | all silos pass as many batches as the largest lot asks for           |
| a record's gradient is NaN or infinite      | it adds zero; no other record, and no other silo, is touched         |
| the clip is infinite, as in a baseline      | each factor is 1, sums are in the model's own precision              |

Does NOT hide how large lots were: how many batches pass hangs on the largest.

Shapes: S silos, B rows of a physical batch of each, R of them records, d inputs and p outputs of a layer, K outputs of
the model, P parameters, N records of all silos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.data.named import each
from fedmodel.errors import PrivacyError
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.gradients.layers.parts import CHAIN, hashed, put_together
from fedmodel.learning.inputs import Inputs, padded
from fedmodel.learning.tasks import RecordLoss

MOST_ROWS: Final = CHAIN - 2  # of a physical batch, with what is carried into its sum
_SLACK: Final = 2.0**-20  # of a factor, for what is computed of norms and of the factor itself
_BACK: Final[Mapping[type[nn.Module], Callable[[Tensor, Tensor], Tensor]]] = {
    nn.ReLU: lambda grad, output: torch.ops.aten.threshold_backward.grad_input(grad, output, 0, grad_input=grad),
    nn.Tanh: lambda grad, output: torch.ops.aten.tanh_backward.grad_input(grad, output, grad_input=grad),
}  # from the gradient at what a layer put out, in whose place it is put, and from what that was
_IN_PLACE: Final[Mapping[type[nn.Module], Callable[[Tensor], Tensor]]] = {nn.ReLU: torch.relu_, nn.Tanh: torch.tanh_}
_BETWEEN: Final = (nn.Flatten, *_BACK)


def why_not_stacked(module: nn.Module) -> str:
    """Return why a model's silos are not trained side by side, empty where they are."""
    if type(module) is not nn.Sequential:
        return f"the model is {type(module).__name__}, and layers in a row are stacked"
    for place, layer in enumerate(module):
        if type(layer) is nn.Linear:
            if layer.bias is None or not all(one.requires_grad for one in layer.parameters()):
                return "a layer has no bias, or is not trained"
        elif type(layer) not in _BETWEEN or (type(layer) is nn.Flatten) != (place == 0):
            return f"the model has {type(layer).__name__} in it, and fully connected layers are stacked"
    return ""


class Stack(nn.Module):
    """S models of the architecture of one.

    Args:
        module: The one, of which `why_not_stacked` says nothing.
        silos: S.
        dtype: Of its parameters; float64 is for comparing.
    """

    def __init__(self, module: nn.Module, silos: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        assert isinstance(module, nn.Sequential)  # noqa: S101 - `why_not_stacked` has looked
        self._layers = list(module)
        # In a list of Python's: a `ParameterList` takes as long to be made as a step's products.
        self.stacked = [
            nn.Parameter(one.detach().to(dtype).expand(silos, *one.shape).clone()) for one in module.parameters()
        ]
        for place, parameter in enumerate(self.stacked):
            self.register_parameter(f"stacked_{place}", parameter)
        self._wide = dict[int, Tensor]()

    def take(self, module: nn.Module) -> None:
        """Give every silo the parameters that the one has now."""
        with torch.no_grad():
            for parameter, one in zip(self.stacked, module.parameters(), strict=True):
                parameter.copy_(one.expand_as(parameter))

    def load(self, model_P: Tensor) -> None:
        """Give every silo the same parameters."""
        offset = 0
        with torch.no_grad():
            for parameter in self.stacked:
                size = parameter[0].numel()
                parameter.copy_(model_P[offset : offset + size].view(parameter.shape[1:]))
                offset += size

    def flat(self) -> Tensor:
        """Return every silo's parameters, `(S, P)`."""
        return torch.cat([one.detach().flatten(1) for one in self.stacked], dim=1)

    @torch.no_grad()
    def factors(self, x_SB: Tensor, y_SB: Tensor, losses: RecordLoss, counts_SB: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return of each layer the gradient of each record's loss at what came out, and what went in.

        The way back is written out, in the kernels that autograd would call, whose own cost is a fifth of a pass.

        Args:
            x_SB: Records of each silo, `(S, B, ...)`. Sensitive.
            y_SB: Their targets. Sensitive.
            losses: Of each record.
            counts_SB: Which rows are records; the losses of others weigh nothing.

        Returns:
            `(S, B, p)` and `(S, B, d)` for each layer, in order; for the bias, a one stands behind what went in.
        """
        inputs, came_by = list[Tensor](), list[tuple[type[nn.Module], Tensor]]()
        values = iter(self.stacked)
        hidden = x_SB.to(self.stacked[0].dtype).flatten(2)
        for layer in self._layers:
            if type(layer) is nn.Linear:
                weight_Spd, bias_Sp = next(values).detach(), next(values).detach()
                inputs.append(hidden)
                hidden = torch.baddbmm(bias_Sp[:, None], hidden, weight_Spd.mT)
                came_by.append((nn.Linear, weight_Spd))
            elif type(layer) is not nn.Flatten:
                # What a product put out is nobody else's; what another layer did, the way back asks for.
                hidden = (_IN_PLACE[type(layer)] if came_by and came_by[-1][0] is nn.Linear else layer)(hidden)
                came_by.append((type(layer), hidden))
        grad, grads = _at_the_end(hidden, y_SB, losses, counts_SB), list[Tensor]()
        for kind, value in reversed(came_by):
            if kind is not nn.Linear:
                grad = _BACK[kind](grad, value)
                continue
            grads.append(grad)
            if len(grads) == len(inputs):
                break
            grad = torch.bmm(grad, value)
        return list(zip(reversed(grads), inputs, strict=True))

    def widened(self, layers: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Return what `factors` returned in float64; what went in lies where that of the batch before did.

        Memory of this size comes from the system anew each time, at ten times the cost of the copy.
        """
        found = list[tuple[Tensor, Tensor]]()
        for place, (left_SBp, right_SBd) in enumerate(layers):
            wide = self._wide.get(place)
            if wide is None or wide.shape != right_SBd.shape:
                wide = self._wide[place] = torch.empty_like(right_SBd, dtype=torch.float64)
            found.append((left_SBp.double(), wide.copy_(right_SBd)))
        return found


def _at_the_end(output_SBK: Tensor, y_SB: Tensor, losses: RecordLoss, counts_SB: Tensor) -> Tensor:
    """Return the gradient of each record's loss at what the model made of it, `(S, B, K)`."""
    output_NK = output_SBK.flatten(0, 1).requires_grad_()
    with torch.enable_grad():
        loss_N = losses(output_NK, y_SB.flatten(0, 1))
    if loss_N.shape != output_NK.shape[:1]:
        raise PrivacyError(f"the loss has shape {tuple(loss_N.shape)}, where each record needs one of its own")
    (grad_NK,) = torch.autograd.grad(loss_N, output_NK, counts_SB.flatten().to(loss_N.dtype))
    return grad_NK.view(output_SBK.shape)


def clip_factors(layers: Sequence[tuple[Tensor, Tensor]], clip: float, counts_SB: Tensor) -> Tensor:
    """Return what each record's gradient is multiplied with, float64 of shape `(S, B)`: zero of what fills up.

    Args:
        layers: Of `Stack.factors`; in float64, of `Stack.widened`, several times as fast.
        clip: C', to which a record is clipped.
        counts_SB: Which rows are records.
    """
    square_SB = torch.zeros(counts_SB.shape, dtype=torch.float64, device=counts_SB.device)
    for left_SBp, right_SBd in layers:
        # In float64: squares of float32 values are exact there, and none is too small or too large for it.
        left_SB = torch.linalg.vector_norm(left_SBp, dim=2, dtype=torch.float64)
        right_SB = torch.linalg.vector_norm(right_SBd, dim=2, dtype=torch.float64)
        square_SB.addcmul_(left_SB.square_(), right_SB.square_().add_(1.0))
    factor_SB = (clip * (1 - _SLACK) / square_SB.sqrt()).clamp_(max=1.0)
    return torch.where(square_SB.isfinite() & counts_SB, factor_SB, 0.0)


def weighed(layers: Sequence[tuple[Tensor, Tensor]], factor_SB: Tensor) -> list[Tensor]:
    """Return each silo's sum of records' gradients times their factors, float64, a tensor for each of the parameters.

    Args:
        layers: Of `Stack.factors`, or in float64 of `Stack.widened`: then rows of the factor 0 may be zeroed in it.
        factor_SB: Of `clip_factors`.
    """
    factor_SB1 = factor_SB[..., None]
    sides = [(left_SBp * factor_SB1, right_SBd.double()) for left_SBp, right_SBd in layers]
    sums = _products(sides)
    if _are_finite(sums):  # then a record with the factor 0 added zero
        return sums
    # Zero times infinity is NaN, so both sides of such a record are zeroed.
    none_SB1 = factor_SB1 == 0
    return _products([(left.masked_fill_(none_SB1, 0.0), right.masked_fill_(none_SB1, 0.0)) for left, right in sides])


def unclipped(layers: Sequence[tuple[Tensor, Tensor]], counts_SB: Tensor) -> list[Tensor]:
    """Return each silo's sum of gradients that nothing bounds, in their own precision: of a baseline alone."""
    sums = _products(layers)
    if _are_finite(sums):
        return sums
    return weighed(layers, clip_factors(layers, math.inf, counts_SB))  # without the records that are not finite


def _products(layers: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Return each silo's sum of its records' outer products, and that of their left sides, for each layer."""
    sums = []
    for left_SBp, right_SBd in layers:
        # The longer side last: a product of few columns takes up to four times as long.
        longer = left_SBp.shape[2] > right_SBd.shape[2]
        sums += [(right_SBd.mT @ left_SBp).mT if longer else left_SBp.mT @ right_SBd, left_SBp.sum(dim=1)]
    return sums


def _are_finite(sums: Sequence[Tensor]) -> bool:
    """Tell whether all numbers are finite: a sum over them is not where one is not."""
    return bool(torch.stack([one.sum() for one in sums]).isfinite().all())


def sums_of(
    stack: Stack, batches: Iterator[tuple[Tensor, Tensor, Tensor]], losses: RecordLoss, clip: float, unit: float
) -> list[Tensor]:
    """Return each silo's clipped sum, a tensor `(S, ...)` for each parameter; zeros where nothing passes.

    Args:
        stack: The models.
        batches: Records, targets, and which rows are records, `(S, B, ...)` each. Sensitive.
        losses: Of each record.
        clip: C'; infinite in a baseline that clips nothing.
        unit: What the sums are rounded to multiples of.

    Raises:
        PrivacyError: When a physical batch has `MOST_ROWS` rows or more, whatever is in them.
    """
    pending: list[Tensor] = []
    rounded: list[Tensor] = []
    for x_SB, y_SB, counts_SB in batches:
        if x_SB.shape[1] > MOST_ROWS:
            raise PrivacyError(
                f"a physical batch has {x_SB.shape[1]} rows, and {MOST_ROWS} are added up exactly enough"
            )
        layers = stack.factors(x_SB, y_SB, losses, counts_SB)
        if math.isinf(clip):
            sums = unclipped(layers, counts_SB)
        else:
            layers = stack.widened(layers)
            sums = weighed(layers, clip_factors(layers, clip, counts_SB))
            rounded = _carried(pending, rounded, unit)
        pending = [one.add_(left) for one, left in zip(sums, pending, strict=True)] if pending else sums
    if not pending:
        return [torch.zeros_like(one, dtype=torch.float64) for one in stack.stacked]
    return pending if math.isinf(clip) else _carried(pending, rounded, unit, last=True)


def _carried(pending: list[Tensor], rounded: list[Tensor], unit: float, *, last: bool = False) -> list[Tensor]:
    """Return the sums with what is pending, rounded to the grid; what that leaves over stays pending, unless it ends.

    Args:
        pending: Nothing before the first batch. Changed in place.
        rounded: The sums of before; nothing until something was pending. Changed in place.
        unit: A power of two.
        last: Whether this is the lot's end, where what is left over is rounded away.
    """
    steps = [(left if last else left.clone()).mul_(1 / unit).round_().mul_(unit) for left in pending]
    if not last:
        for left, step in zip(pending, steps, strict=True):
            left.sub_(step)
    return [sum_.add_(step) for sum_, step in zip(rounded, steps, strict=True)] if rounded else steps


class OfOneSilo(BookKeeping):
    """The clipped sum of one silo in a stack, others beside it: what the preflight measures of a stack.

    As any kind of gradients it has the model's own parameters, which the stack is given at each pass.

    Attributes:
        silos: S, as it trains: which kernels run follows from it.
    """

    silos = 1
    _passes = 0
    _room: tuple[Stack, Tensor] | None = None

    def summed(self, x_V: Inputs, y_R: Tensor) -> Tensor:
        """Pass a physical batch through the stack, and return the silo's weighted sum."""
        _, wide, factor_SB = self._passed(x_V, y_R)
        return torch.cat([one[self._place].reshape(-1) for one in weighed(wide, factor_SB)])

    def prints(self, x_V: Inputs, y_R: Tensor, multipliers_P: Tensor) -> Tensor:
        """Return a hash of what was saved of each record of the silo, and of its factor."""
        self.forget()
        layers, _, factor_SB = self._passed(x_V, y_R)
        factor_B = factor_SB[self._place]
        saved = [hashed(one[self._place], multipliers_P) for layer in layers for one in layer]
        found_B = put_together([factor_B.view(torch.int64), *saved])
        return torch.where(factor_B > 0, found_B, 0)[: len(y_R)]

    def _passed(
        self, x_V: Inputs, y_R: Tensor
    ) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]], Tensor]:
        """Pass the silo's records with others' beside them: return the layers, the same in float64, and the factors."""
        x_B, y_B = each(x_V, lambda one: padded(one, self.rows)), padded(y_R, self.rows)
        if not isinstance(x_B, Tensor) or self.views != 1:
            raise PrivacyError("a stack takes records of one array, one view each")
        stack, x_SB = self._room_for(x_B)
        # Others have other records in each pass, which nothing of the silo may hang on.
        self._passes += 1
        generator = torch.Generator().manual_seed(self._passes)
        x_SB.copy_(torch.randn(x_B.shape, generator=generator).mul_(4.0 ** (self._passes % 5)))
        x_SB *= 1 + torch.arange(self.silos, device=x_B.device).view(-1, *[1] * x_B.dim())
        turned_SB = torch.arange(self.rows) - torch.arange(self.silos)[:, None] - self._passes
        y_SB = y_B[(turned_SB % self.rows).to(y_B.device)]
        x_SB[self._place], y_SB[self._place] = x_B, y_B
        counts_SB = torch.arange(self.rows, device=x_B.device).expand(self.silos, -1) < len(y_R)
        layers = stack.factors(x_SB, y_SB, self.losses, counts_SB)
        wide = stack.widened(layers)
        return layers, wide, clip_factors(wide, self.clip, counts_SB)

    def _room_for(self, x_B: Tensor) -> tuple[Stack, Tensor]:
        """Return a stack of the model as it is now, and memory for all silos' records, which the last pass had too."""
        room = self._room
        if room is None or room[1].shape[1:] != x_B.shape or room[1].device != x_B.device:
            room = self._room = Stack(self.module, self.silos), x_B.new_empty((self.silos, *x_B.shape))
        room[0].take(self.module)
        return room

    @property
    def _place(self) -> int:
        """Which of the silos it is."""
        return self.silos // 2


def batches_of(
    lot_L: NDArray[np.intp], owner_L: NDArray[np.intp], silos: int, rows: int, *, fitted: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut lots of several silos into physical batches.

    Args:
        lot_L: Indices of the records drawn, a silo's after another's. Sensitive.
        owner_L: Whose each is, from 0. Sensitive.
        silos: S.
        rows: B.
        fitted: Whether there are no more rows than the largest lot fills: at a shape that nobody measured, as in a
            baseline, of which nothing is claimed.

    Yields:
        Indices, `(S, B)`, and which of them are records.
    """
    count_S = np.bincount(owner_L, minlength=silos)
    place_L = np.arange(len(lot_L)) - (np.cumsum(count_S) - count_S)[owner_L]
    most = int(count_S.max(initial=0))
    rows = min(rows, most) if fitted else rows
    for start in range(0, most, rows or 1):
        here_L = (place_L >= start) & (place_L < start + rows)
        index_SB, counts_SB = np.zeros((silos, rows), dtype=np.intp), np.zeros((silos, rows), dtype=bool)
        index_SB[owner_L[here_L], place_L[here_L] - start] = lot_L[here_L]
        counts_SB[owner_L[here_L], place_L[here_L] - start] = True
        yield torch.from_numpy(index_SB), torch.from_numpy(counts_SB)
