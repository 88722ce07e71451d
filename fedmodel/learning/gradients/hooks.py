"""The gradient of each record in memory, from Opacus's `GradSampleModule`; the clip, the cut and the sum are our own.

Why no clipped gradient is longer than C: squares of float32 values are exact in float64, and of 2^30 of them the
computed norm n is the true one but for a factor within 1 +- 2^-23. A gradient is multiplied by
f = min(1, C (1 - 2^-22) / n), so what comes out, each product rounded by at most 2^-53 of itself, is under C.

Opacus's own optimiser is not used: one NaN spoils its sum, and its float32 sums are rounded. Neither are its ghost and
adaptive clipping: in Opacus 1.6 ghost clipping bounds nothing for losses of shape (B, 1), and adaptive ghost clipping
does not clip at all.

Shapes: B rows of a physical batch, R of them records, V rows of their views, P parameters, L parameter tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from fedmodel.data.named import each
from fedmodel.errors import PrivacyError
from fedmodel.kinds.recomputed import is_recomputed
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.inputs import Inputs, called, padded
from fedmodel.learning.tasks import RecordLoss

# Opacus hooks the first layer, whose input needs no gradient; torch warns of that on every run, and it is as intended.
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)

_SLACK: Final = 2.0**-22  # of the clip, for the rounding of a norm; see the module's docstring
_BLOCK: Final = 1 << 18  # float64 values at once while gradients are cut: 2 MB, which a core's cache holds


class PerSample(ClippedSum):
    """Per-record gradients of a whole physical batch at once, B times the model in memory."""

    def __init__(self, module: nn.Module, losses: RecordLoss, *, max_grad_norm: float, unit: float, rows: int) -> None:
        from fedmodel.learning.gradients._hooked import InFloat32  # Opacus, which other kinds do without

        super().__init__(module, losses, max_grad_norm=max_grad_norm, unit=unit, rows=rows)
        if is_recomputed(module):
            raise PrivacyError(
                'model.gradient_checkpointing passes records through layers twice, which "hooks" would take for two'
                ' uses; set training.gradients to "book-keeping"'
            )
        try:
            self._per_record = InFloat32(module, loss_reduction="sum", strict=True)
        except NotImplementedError:  # what Opacus raises of a layer that it does not know
            own = {name: layer for name, layer in module.named_modules() if [*layer.parameters(recurse=False)]}
            found = next((name for name, layer in own.items() if [*layer.buffers()]), "")
            where = f"the layer {found!r}" if found else "the model"
            raise PrivacyError(
                f'{where} has parameters of its own and a buffer in it, of which "hooks" computes no gradients'
            ) from None
        self._sum_P: Tensor | None = None

    def summed(self, x_V: Inputs, y_R: Tensor) -> Tensor:
        """Differentiate, clip and cut a physical batch, and return its sum."""
        self._differentiate(x_V, y_R)
        factor_R = self._factors()[: len(y_R)]
        sum_P = torch.cat(
            [_cut_sum(_flat(_gradients(parameter)[: len(y_R)]), factor_R, self.unit) for parameter in self.parameters]
        )
        self._clear()
        return sum_P

    def put(self, sum_P: Tensor) -> None:
        """Add a batch's sum, which is exact in whatever order."""
        self._sum_P = sum_P if self._sum_P is None else self._sum_P.add_(sum_P)

    def take(self) -> list[Tensor]:
        """Return the sum, zeros where nothing was added, and forget it."""
        sizes = [parameter.numel() for parameter in self.parameters]
        nothing_P = self.parameters[0].new_zeros(sum(sizes), dtype=torch.float64)
        sum_P = nothing_P if self._sum_P is None else self._sum_P
        self.forget()
        return [part.view(one.shape) for part, one in zip(torch.split(sum_P, sizes), self.parameters, strict=True)]

    def forget(self) -> None:
        """Forget sums, gradients and activations."""
        self._sum_P = None
        self._clear()
        for parameter in self.parameters:
            # Opacus counts a parameter's open forward passes here.
            parameter._forward_counter = 0  # type: ignore[attr-defined]  # noqa: SLF001
        for module in self.module.modules():
            for attribute in ("activations", "max_batch_len"):
                if hasattr(module, attribute):
                    delattr(module, attribute)

    def prints(self, x_V: Inputs, y_R: Tensor, multipliers_P: Tensor) -> Tensor:
        """Return a hash of each record's gradient and of its factor, with the two zeros taken as one."""
        self.forget()
        self._differentiate(x_V, y_R)
        factor_B = self._factors()
        found_B = factor_B.view(torch.int64).clone()
        offset = 0
        for parameter in self.parameters:
            grad_BP = _flat(_gradients(parameter))
            for columns in _columns(grad_BP):
                bits_BP = (grad_BP[:, columns] + 0.0).view(torch.int32).long()
                found_B += (bits_BP * multipliers_P[offset : offset + grad_BP.shape[1]][columns]).sum(dim=1)
            offset += grad_BP.shape[1]
        self.forget()
        return torch.where(factor_B > 0, found_B, 0)[: len(y_R)]

    def _differentiate(self, x_V: Inputs, y_R: Tensor) -> None:
        """Leave the gradient of each record, and of what fills the batch up, in each parameter's `grad_sample`."""
        output_V = called(self._per_record, each(x_V, lambda one: padded(one, self.rows * self.views)))
        torch.autograd.backward(self.losses_of(output_V, padded(y_R, self.rows)).sum())
        if self.views > 1:
            for parameter in self.parameters:
                parameter.grad_sample = self.folded(_gradients(parameter))  # type: ignore[attr-defined]

    def _factors(self) -> Tensor:
        """Return what each row's gradient is multiplied with, float64 of shape `(B,)`: zero where it is no number.

        At the full shape of the batch, since how a kernel adds up a row may hang on how many there are.
        """
        # Norms in float64: over ten million equal entries a float32 norm is a hundredth too small.
        norms_LB = [
            torch.linalg.vector_norm(_flat(_gradients(parameter)), dim=1, dtype=torch.float64)
            for parameter in self.parameters
        ]
        norm_B = torch.linalg.vector_norm(torch.stack(norms_LB), dim=0)
        factor_B: Tensor = (self.max_grad_norm * (1 - _SLACK) / norm_B).clamp(max=1.0)
        return torch.where(norm_B.isfinite(), factor_B, 0.0)

    def _clear(self) -> None:
        """Forget gradients, each record's and their sum."""
        for parameter in self.parameters:
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]


def _gradients(parameter: nn.Parameter) -> Tensor:
    """Return the gradients that Opacus left at a parameter, of shape `(B, *parameter)`."""
    found = parameter.grad_sample  # type: ignore[attr-defined]
    if not isinstance(found, Tensor):
        raise PrivacyError("a trainable parameter got no per-record gradient; it would be released without noise")
    return found


def _flat(grad_B: Tensor) -> Tensor:
    """Return gradients of records, `(B, *parameter)`, as rows, `(B, P)`; of a number, too."""
    return grad_B.reshape(len(grad_B), -1)


def _cut_sum(grad_RP: Tensor, factor_R: Tensor, unit: float) -> Tensor:
    """Return the sum of rows times their factors, each cut towards zero to a multiple of `unit`; float64, `(P,)`."""
    # Dividing by a power of two is exact, so that one product is rounded, as if there were no grid.
    scale_R1 = (factor_R / unit)[:, None]
    # Zero times infinity is NaN, so entries of a dropped record are zeroed too.
    parts = [
        grad_RP[:, columns].double().mul_(scale_R1).nan_to_num_(0.0, 0.0, 0.0).trunc_().sum(dim=0)
        for columns in _columns(grad_RP)
    ]
    return torch.cat(parts).mul_(unit)


def _columns(grad_BP: Tensor) -> Iterator[slice]:
    """Cut the columns into blocks that stay in a cache once they are float64."""
    width = max(1, _BLOCK // max(1, len(grad_BP)))
    yield from (slice(start, start + width) for start in range(0, grad_BP.shape[1], width))


KIND: Final = PerSample
