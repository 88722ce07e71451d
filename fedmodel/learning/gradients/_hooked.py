"""Opacus's hooks at a model, taught layers of our own and given float32; whoever imports this imports Opacus."""

from __future__ import annotations

from typing import Any

from opacus.grad_sample import GradSampleModule
from torch import Tensor

from fedmodel.learning.gradients import _taught  # noqa: F401 - teaches Opacus layers of our own
from fedmodel.learning.gradients._widened import widened


class InFloat32(GradSampleModule):  # type: ignore[misc]  # Opacus has no types
    """Opacus's own, whose function of each layer is given float32, whatever the layer computed in."""

    def rearrange_grad_samples(self, **named: Any) -> tuple[list[Tensor], Tensor]:
        """Return what went into a layer and the gradient of what came out, a row for each record."""
        given, grad = super().rearrange_grad_samples(**named)
        return [widened(one, grad)[0] for one in given], widened(grad, grad)[1]
