"""Book-keeping for whoever trains with Opacus alone: its norms in Opacus's ghost clipping, or one backward pass.

`register()` puts the squared norms of `fedmodel.learning.gradients.layers` among Opacus's norm samplers, so that
`PrivacyEngine.make_private(grad_sample_mode="ghost")` has them for convolutions and norms too, for which Opacus keeps
each record's gradients. `BookKeepingModule` does without Opacus's second backward pass: it is wrapped around a model
and leaves clipped sums where `opacus.optimizers.DPOptimizerFastGradientClipping` looks for them:

    model = BookKeepingModule(model, max_grad_norm=1.0)
    optimizer = DPOptimizerFastGradientClipping(optimizer, noise_multiplier=1.0, max_grad_norm=1.0, ...)
    model.clipped_backward(losses(model(x_B), y_B))
    optimizer.step()

Importing this teaches Opacus the layers of `fedmodel.kinds.standardised`, too.

Does NOT give what `fedmodel.learning.dp_sgd` does: sums are rounded to float32 and lie on no grid, noise is Opacus's,
and nothing is measured before it trains.

Shapes: B records of a batch.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import torch
from opacus.grad_sample import AbstractGradSampleModule, register_norm_sampler
from torch import Tensor, nn

from fedmodel.errors import PrivacyError
from fedmodel.learning.gradients import _taught  # noqa: F401 - teaches Opacus layers of our own
from fedmodel.learning.gradients.book_keeping import clip_factors
from fedmodel.learning.gradients.layers import families, packing
from fedmodel.learning.gradients.layers.parts import Family
from fedmodel.learning.gradients.layers.recording import Pass, Recorder

_REDUCTIONS: Final = ("mean", "sum")


def register() -> None:
    """Take the place of Opacus's norm samplers for all layers that book-keeping knows."""
    for layer, family in families().items():
        register_norm_sampler(layer)(partial(_norms, family))


def _norms(family: Family, layer: nn.Module, given: list[Tensor], grad: Tensor) -> dict[Tensor, Tensor]:
    """Return each record's norm of a layer's parameters, as Opacus asks for it."""
    found = (part.cheapest() for part in family(layer, given[0], grad))
    return {part.parameter: part.squares()[0].sqrt().to(grad.dtype) for part in found}


class BookKeepingModule(AbstractGradSampleModule):  # type: ignore[misc]  # Opacus has no types
    """A model whose clipped sums come from one backward pass.

    Args:
        m: The model.
        batch_first: True, as records are rows.
        loss_reduction: "mean" or "sum", as the optimiser has it, which divides where it is "mean".
        max_grad_norm: The clip C in L2.

    Raises:
        PrivacyError: When the gradients of a layer cannot be computed so, by its name.
    """

    def __init__(
        self, m: nn.Module, *, batch_first: bool = True, loss_reduction: str = "mean", max_grad_norm: float = 1.0
    ) -> None:
        if not batch_first or loss_reduction not in _REDUCTIONS:
            raise PrivacyError('records are rows of a batch, and their loss is reduced by "mean" or "sum"')
        super().__init__(m, batch_first=batch_first, loss_reduction=loss_reduction)
        self.max_grad_norm = max_grad_norm
        self._trained = [parameter for parameter in m.parameters() if parameter.requires_grad]
        self._recorder = Recorder(m, self._trained)
        self._pass: Pass | None = None

    def forward(self, *args: Any, **named: Any) -> Any:
        """Return the model's outputs; in training, note what passes its layers."""
        if not (self.training and torch.is_grad_enabled()):
            return self._module(*args, **named)
        rows = len(args[0] if args else next(iter(named.values())))
        with self._recorder.recording(rows) as self._pass:
            return self._module(*args, **named)

    def clipped_backward(self, loss_B: Tensor) -> None:
        """Leave the clipped sum of records' gradients in each parameter's `grad`.

        Args:
            loss_B: The loss of each record of the last batch that was passed.

        Raises:
            PrivacyError: When losses or gradients are not one for each record.
        """
        passed, self._pass = self._pass or Pass(loss_B.numel(), 1, set()), None
        parts = self._recorder.found(passed, loss_B)
        factor_B = clip_factors(parts, self.max_grad_norm)
        sums = torch.split(packing.summed(parts, factor_B), [parameter.numel() for parameter in self._trained])
        for parameter, own in zip(self._trained, sums, strict=True):
            parameter.grad = own.view(parameter.shape).to(parameter.dtype)

    def remove_hooks(self) -> None:
        """Take the hooks off the model."""
        self._recorder.remove()
