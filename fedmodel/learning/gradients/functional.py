"""The gradient of each record by itself, from torch's function transforms; the clip, the cut and the sum are our own.

The whole model is differentiated for one record at a time, and torch runs a batch of records side by side
(`torch.func.vmap` of `torch.func.grad`). So it takes any model that torch can differentiate so, with parameters outside
of layers, attention, or weights that are used in several ways, where "hooks" knows layers by their types. For
plain layers that one is faster.

A loss or a layer that mixes records has nothing to mix here: it is given one record. What draws from torch's generator
fails, since records would draw together; masks of our own dropout are drawn for each record. Torch's recurrent layers
are computed step by step, since its own code writes in place what its transforms cannot.

Shapes: B rows of a physical batch, R of them records, K views of each, V rows of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Final

from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedmodel.data.named import each
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.gradients.hooks import PerSample
from fedmodel.learning.gradients.layers._recurrent import step_by_step
from fedmodel.learning.inputs import Inputs, called, padded
from fedmodel.learning.precision import NormsInFloat32, is_rounded
from fedmodel.learning.tasks import RecordLoss


class Functional(PerSample):
    """Per-record gradients of a whole physical batch at once, B times the model in memory, of nearly any model."""

    def __init__(self, module: nn.Module, losses: RecordLoss, *, max_grad_norm: float, unit: float, rows: int) -> None:
        ClippedSum.__init__(self, _Rows(module), losses, max_grad_norm=max_grad_norm, unit=unit, rows=rows)
        self._model = module
        self._sum_P = None

    def _differentiate(self, x_V: Inputs, y_R: Tensor) -> None:
        """Leave the gradient of each record, and of what fills the batch up, in each parameter's `grad_sample`."""
        whole_V: Any = called(self.module, each(x_V, lambda one: padded(one, self.rows * self.views)))
        x_BK = each(whole_V, lambda one: one.view(self.rows, self.views, *one.shape[1:]))
        trained = {name: one for name, one in self._model.named_parameters() if one.requires_grad}
        values = {name: one.detach() for name, one in trained.items()}
        grads = self._of_each(values, x_BK, y_R)
        for name, parameter in trained.items():
            parameter.grad_sample = grads[name].detach()  # type: ignore[attr-defined]

    def _of_each(self, values: dict[str, Tensor], x_BK: Inputs, y_R: Tensor) -> dict[str, Tensor]:
        """Return the gradients of each record, and of what fills the batch up, `(B, *parameter)` each, by name."""
        of_each = vmap(grad(self._loss), in_dims=(None, 0, 0), randomness="error")
        with warnings.catch_warnings(), step_by_step(self._model):
            # Where torch has no batched kernel it takes one record after another: slower, and as right.
            warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
            found: dict[str, Tensor] = of_each(values, x_BK, padded(y_R, self.rows))
        return found

    def _loss(self, values: dict[str, Tensor], x_K: Inputs, y: Tensor) -> Tensor:
        """Return the loss of one record."""
        given: tuple[Any, ...] = ((), dict(x_K)) if isinstance(x_K, Mapping) else ((x_K,), {})
        with NormsInFloat32() if is_rounded(self._model) else nullcontext():
            output = functional_call(self._model, values, *given)
        return self.losses_of(output, y[None])[0]


class _Rows(nn.Module):
    """What a physical batch is given to, whole, so that whoever watches sees how many rows it has."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *x_B: Tensor, **named_B: Tensor) -> Any:
        """Return the batch as it came, in training; what the model makes of it otherwise."""
        if not self.training:
            return self.model(*x_B, **named_B)
        return named_B or x_B[0]


KIND: Final = Functional
