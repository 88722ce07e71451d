"""Any other layer by itself: each record's gradients from Opacus's function for it, or else from torch's transforms.

The layer is run again on what went in, with the gradient of what came out, so that it has to be a function of its one
tensor and its parameters, and of one tensor out. That a record's part is a function of the record alone is measured.

Shapes: B rows of a physical batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from fedmodel.kinds.recomputed import again
from fedmodel.learning.gradients.layers.parts import Kept, Part


def is_known_to_opacus(layer: nn.Module) -> bool:
    """Tell whether Opacus has a function for a layer's gradients."""
    return type(layer) in _samplers()


def by_opacus(layer: nn.Module, given: Tensor, grad: Tensor) -> list[Part]:
    """Return what records add to a layer's parameters, as Opacus computes it."""
    found = _samplers()[type(layer)](layer, [given], grad)
    return [Kept(parameter, grads) for parameter, grads in found.items() if parameter.requires_grad]


def _samplers() -> Mapping[type[nn.Module], Callable[..., dict[nn.Parameter, Tensor]]]:
    """Return Opacus's functions of layers by type, those of our own layers that it is taught among them."""
    from opacus.grad_sample import GradSampleModule  # which no model of known layers needs

    from fedmodel.learning.gradients import _taught  # noqa: F401 - teaches it

    found: Mapping[type[nn.Module], Callable[..., dict[nn.Parameter, Tensor]]] = GradSampleModule.GRAD_SAMPLERS
    return found


def by_transforms(layer: nn.Module, given: Tensor, grad: Tensor) -> list[Part]:
    """Return what records add to a layer's parameters, differentiating the layer for one record at a time."""
    trained = {name: one for name, one in layer.named_parameters() if one.requires_grad}
    values = {name: one.detach() for name, one in trained.items()}

    def of_one(record: Tensor, slope: Tensor) -> dict[str, Tensor]:
        pulled = vjp(lambda some: functional_call(layer, some, (record[None],)), values)[1]
        (grads,) = pulled(slope[None])
        return dict(grads)

    with again():
        grads = vmap(of_one, randomness="error")(given, grad)
    return [Kept(trained[name], one.detach().to(torch.float32)) for name, one in grads.items()]
