"""Book-keeping: norms of records' gradients from one backward pass, and one weighted product for each layer.

After Bu et al. 2023 (arXiv 2210.00038), with the mixed ghost norm of Bu et al. 2022 (arXiv 2205.10683). One forward
pass and one backward pass to the layers' outputs leave what went into each layer and the gradient of what came out of
it. Their squared norms for each record follow from these (`fedmodel.learning.gradients.layers`), then the factors, and
the clipped sum is one product for each layer. No record's gradient is computed but where that is the cheaper way.

Why one record moves the sum by at most the clip C, exactly. Write g_i for the gradient that follows from what was saved
of record i, in real numbers, and A_i for its reach, the L2 norm over parameters of sum over positions of |L_t| |R_t|.

1. What is saved of a record is its own, bit for bit, and so is its factor: `prints` hashes both, and
   `fedmodel.learning.conformance` measures it.
2. Its factor is f_i = min(1, C'' / n_i, kappa C'' / A_i) with C'' = C' (1 - 2^-20), and 0 where n_i or A_i is no
   number. n_i is a norm's upper bound, and what is computed is within 2^-21 of it, so that a factor of 1 is given to
   what is no longer than C' alone. So |f_i g_i| <= C' and f_i A_i <= kappa C'. The last cap makes rounding public: a
   record whose positions cancel by more than kappa = 2^8 is clipped harder, whatever they are, and no other way is
   taken for it. Of a model's 64 positions at random the ratio is 8, of 1,024 it is 32.
3. The sum of a physical batch is computed in float64, within CHAIN 2^-53 times the sum of f_i A_i. It is rounded to the
   grid once a lot: what rounding leaves over is carried to the next batch, and at the end less than half a step of each
   coordinate is dropped. So the S of N records is within N e + sqrt(P) unit / 2 of the sum of f_i g_i, where
   e = CHAIN 2^-53 kappa C' (1 + 2^-10).
4. Two lots that differ in a record have sums that differ by at most C' + 2 N e + sqrt(P) unit. With N the most records
   that are let in (`most_records`), C' is what makes that C:

       C' = (C - sqrt(P) unit) / (1 + rho),    rho = 2 N CHAIN 2^-53 kappa (1 + 2^-10)

   The clip is shrunk, by less than 2^-8 of it, so that noise, ledger and mechanism are what they are for C.

| Edge case                                   | What happens                                                        |
|---------------------------------------------|---------------------------------------------------------------------|
| positions of a record cancel, or are of     | bounded by 2, with no branch: neither time nor memory tells of it    |
| sizes from 1e-20 to 1e20                    |                                                                     |
| what is saved of a record is not finite     | its factor is 0, and what is not finite is taken for 0              |
| a physical batch of more than 3 million     | `PrivacyError`: its sum would be rounded too often                   |
| positions in one layer                      |                                                                     |
| more than `most_records` records at a silo  | `DataError` as it joins, of all that it holds: no lot decides       |
| the clip leaves no room for the rounding    | `PrivacyError`                                                      |

All else is as `fedmodel.learning.gradients` has it, and layers as `fedmodel.learning.gradients.layers` does.

Does NOT rest on how a kernel orders a sum, but on IEEE 754's products and sums in float64: a device that computes them
from parts, as some emulate float64, is not covered.

Shapes: B rows of a physical batch, R of them records, V rows of their views, P parameters.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from fedmodel.data.named import each
from fedmodel.errors import PrivacyError
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.gradients.layers import packing
from fedmodel.learning.gradients.layers.parts import CHAIN, Share, put_together
from fedmodel.learning.gradients.layers.recording import Recorder
from fedmodel.learning.inputs import Inputs, called, padded
from fedmodel.learning.tasks import RecordLoss
from fedmodel.privacy import grid

_KAPPA: Final = 2.0**8
_SLACK: Final = 2.0**-20  # of a factor, for what is computed of norms and reaches, and of the factor itself
_ERROR: Final = CHAIN * 2.0**-53 * _KAPPA * (1 + 2.0**-10)  # of a sum for each record in it, over C'
_LARGEST_SHARE: Final = 2.0**-8  # of the clip that rounding may take

log = logging.getLogger(__name__)


class BookKeeping(ClippedSum):
    """Clipped sums from what went into layers and the gradients of what came out."""

    most_records = grid.MOST_RECORDS

    def __init__(self, module: nn.Module, losses: RecordLoss, *, max_grad_norm: float, unit: float, rows: int) -> None:
        super().__init__(module, losses, max_grad_norm=max_grad_norm, unit=unit, rows=rows)
        self._recorder = Recorder(module, self.parameters)
        self._count = sum(parameter.numel() for parameter in self.parameters)
        _ = self.clip  # which refuses
        self._told = False
        self._rounded_P: Tensor | None = None
        self._pending_P: Tensor | None = None

    def summed(self, x_V: Inputs, y_R: Tensor) -> Tensor:
        """Pass a physical batch through the model and back, and return its weighted sum."""
        parts = self._parts(x_V, y_R)
        return packing.summed(parts, self._factors(parts, len(y_R)))

    def put(self, sum_P: Tensor) -> None:
        """Add a batch's sum to what is left over of those before it, which are rounded to the grid."""
        if self._pending_P is not None:
            sum_P += self._carried()
        self._pending_P = sum_P

    def take(self) -> list[Tensor]:
        """Return the sum, zeros where nothing was added, and forget it."""
        if self._pending_P is not None:
            self._carried()
        sum_P = self._rounded_P
        if sum_P is None:
            sum_P = self.parameters[0].new_zeros(self._count, dtype=torch.float64)
        self.forget()
        sizes = [parameter.numel() for parameter in self.parameters]
        return [part.view(one.shape) for part, one in zip(torch.split(sum_P, sizes), self.parameters, strict=True)]

    def forget(self) -> None:
        """Forget sums and what was saved."""
        self._rounded_P = self._pending_P = None

    def prints(self, x_V: Inputs, y_R: Tensor, multipliers_P: Tensor) -> Tensor:
        """Return a hash of what was saved of each record and of its factor, with the two zeros taken as one."""
        self.forget()
        parts = self._parts(x_V, y_R)
        factor_B = self._factors(parts, len(y_R))
        found_B = put_together([factor_B.view(torch.int64), *(part.hashed(multipliers_P) for part in parts)])
        return torch.where(factor_B > 0, found_B, 0)[: len(y_R)]

    def rounding(self, records: int) -> float:
        """Return how far a sum of so many records may be from that of their clipped gradients, in L2."""
        return records * _ERROR * self.clip + math.sqrt(self._count) * self.unit / 2

    @property
    def clip(self) -> float:
        """C', so that a sum moves by at most C as it is computed.

        Raises:
            PrivacyError: When it is much less than C.
        """
        clip = self.max_grad_norm
        if math.isinf(clip):
            return clip
        records = min(self.most_records, grid.MOST_STEPS * self.unit / clip)  # past which sums leave the grid
        shrunk = (clip - math.sqrt(self._count) * self.unit) / (1 + 2 * records * _ERROR) * (1 - 2.0**-50)
        if not shrunk >= clip * (1 - _LARGEST_SHARE):
            raise PrivacyError(
                f"rounding would take more than 1/256 of the clip at {self._count} parameters and a grid of"
                f" {self.unit:g}; lower privacy.noise_multiplier, or take fewer parameters"
            )
        return shrunk

    def _parts(self, x_V: Inputs, y_R: Tensor) -> list[Share]:
        """Return what records, and what fills the batch up, add to each parameter, in order."""
        whole_V = each(x_V, lambda one: padded(one, self.rows * self.views))
        y_B = padded(y_R, self.rows)
        parts = self._recorder.parts(self.rows, self.views, lambda: self.losses_of(called(self.module, whole_V), y_B))
        if not self._told:
            self._told = True
            self._tell(parts)
        return parts

    def _factors(self, parts: list[Share], records: int) -> Tensor:
        """Return what each row's gradient is multiplied with, float64 of shape `(B,)`: zero of what fills up."""
        factor_B = clip_factors(parts, self.clip)
        if records < len(factor_B):
            factor_B[records:] = 0.0
        return factor_B

    def _carried(self) -> Tensor:
        """Round what is pending to the grid, add it to the sum, and return what that leaves over."""
        assert self._pending_P is not None  # noqa: S101 - whoever calls has looked
        steps_P = (self._pending_P / self.unit).round_().mul_(self.unit)
        left_P = self._pending_P.sub_(steps_P)
        self._rounded_P = steps_P if self._rounded_P is None else self._rounded_P.add_(steps_P)
        return left_P

    def _tell(self, parts: list[Share]) -> None:
        """Log once how the gradients of layers are computed, and which way was the cheaper: a line for those alike."""
        ways = {id(one): type(part).__name__ for part in parts for one in part.parameters}
        alike = dict[str, list[str]]()
        for name, layer in self.module.named_modules():
            if name in self._recorder.families:
                said = {key: ways[id(one)] for key, one in layer.named_parameters(recurse=False) if id(one) in ways}
                told = f"({type(layer).__name__}): {said}; {self._recorder.families[name]}"
                alike.setdefault(told, []).append(name)
        for told, (first, *others) in alike.items():
            log.info("%s%s %s", first, f" and {len(others)} like it" if others else "", told)


def clip_factors(parts: Sequence[Share], clip: float) -> Tensor:
    """Return what each row's gradient is multiplied with so that it is no longer than a clip: float64, `(B,)`.

    It is 0 where what is saved of a row is not finite, and less than the clip asks for where positions cancel by more
    than kappa.

    Args:
        parts: Of each trained parameter.
        clip: C'.
    """
    square_B, reach_B = packing.squares(parts)
    largest_B = square_B if square_B is reach_B else torch.maximum(square_B, reach_B / _KAPPA**2)
    factor_B = (clip * (1 - _SLACK) / largest_B.sqrt()).clamp_(max=1.0)
    return torch.where(largest_B.isfinite(), factor_B, 0.0)


KIND: Final = BookKeeping
