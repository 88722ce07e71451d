"""Measured before training: one outlier moves the clipped sum by at most the clip.

A validator that reads layer names can be wrong, and Opacus 1.6's is: it accepts batch normalisation without affine
parameters, ghost clipping with losses of shape (B, 1), and adaptive clipping that never clips. So the real pipeline,
with the real model and loss, is run on made-up records with and without one outlier, and the difference is measured.
What breaks the bound on any of the probes is refused.

Guarantee: a pipeline that passes met the bound on every probe, at the parameters given and at random ones. It is a
test, not a proof: a pipeline built to recognise the probes would pass. It reads no record of the silo and draws nothing
from a secret source, so it costs no privacy.

Shapes: B batch, F features, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fedmodel.data import DataShape
from fedmodel.dp_sgd import DpSgd
from fedmodel.errors import PrivacyError
from fedmodel.models import Dropout

ClippedSum = Callable[[Tensor, Tensor], Tensor]

_TOLERANCE = 1e-3  # float32 rounding between batch sizes, relative to the clip
_COMPANIONS = (2, 8)
# Far outside, beyond what float32 can square, and not a number at all.
_OUTLIERS = (1.0, 1e4, 1e25, math.inf, math.nan)


def preflight(sgd: DpSgd, shape: DataShape, max_grad_norm: float | None = None) -> None:
    """Refuse a pipeline in which one record can move the clipped sum by more than the clip.

    Dropout is switched off meanwhile, since its masks differ between any two batches: what is measured is the bound for
    fixed masks. That it then holds for random ones rests on masks being secret, as `clients.training` says and does.
    Parameters and modes are put back whatever happens.

    Args:
        sgd: The pipeline as it will train.
        shape: What records look like.
        max_grad_norm: The clip that is charged, which the pipeline is held to; by default the one that it says it has.

    Raises:
        PrivacyError: When the bound is broken, or the model keeps statistics of records in buffers.
    """
    buffers = [name for name, _ in sgd.module.named_buffers()]
    if buffers:
        raise PrivacyError(
            f"the model keeps {buffers[0]!r} outside its parameters, where no noise is added;"
            " use GroupNorm or LayerNorm"
        )
    if any(isinstance(layer, _DropoutNd) for layer in sgd.module.modules()):
        raise PrivacyError(
            "the model takes dropout masks from torch's generator, which can be guessed; use models.Dropout"
        )
    device = sgd.parameters[0].device
    clip = sgd.max_grad_norm if max_grad_norm is None else max_grad_norm
    with _without_dropout(sgd.module), _restored(sgd.parameters):
        check_sensitivity(sgd.clipped_sum, shape, clip, device)
        generator = torch.Generator().manual_seed(1)
        for parameter in sgd.parameters:
            # A zero or saturated start can hide a missing clip behind vanishing gradients.
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
        check_sensitivity(sgd.clipped_sum, shape, clip, device)


def check_sensitivity(clipped_sum: ClippedSum, shape: DataShape, max_grad_norm: float, device: torch.device) -> float:
    """Measure how far one made-up outlier moves the sum, and refuse more than the clip.

    Args:
        clipped_sum: From features `(B, *features)` and labels `(B,)` to the clipped sum `(P,)`, noise left out.
        shape: What records look like.
        max_grad_norm: The clip C.
        device: Where the pipeline runs.

    Returns:
        The largest movement seen over C, at most 1 and a rounding.

    Raises:
        PrivacyError: When some movement exceeds C or is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for companions in _COMPANIONS:
        x_BF = torch.randn((companions, *shape.features), generator=generator)
        y_B = torch.randint(shape.classes, (companions,), generator=generator)
        without_P = clipped_sum(x_BF.to(device), y_B.to(device)).double()
        for scale in _OUTLIERS:
            outlier_F = torch.randn(shape.features, generator=generator) * scale
            for label in (0, shape.classes - 1):
                # First, so that it shares a physical batch with companions whatever the size of one.
                with_x = torch.cat([outlier_F[None], x_BF]).to(device)
                with_y = torch.cat([torch.tensor([label]), y_B]).to(device)
                moved = float((clipped_sum(with_x, with_y).double() - without_P).norm()) / max_grad_norm
                if not moved <= 1 + _TOLERANCE:  # a NaN is not at most anything
                    raise PrivacyError(
                        f"one record of scale {scale:g} moves the clipped sum by {moved:.3g} times the clip,"
                        " where at most 1 is allowed; the model couples records (batch normalisation?)"
                        " or its gradients are not clipped"
                    )
                largest = max(largest, moved)
    return largest


@contextmanager
def _without_dropout(module: nn.Module) -> Iterator[None]:
    """Switch dropout layers off, and back to what they were."""
    layers = [layer for layer in module.modules() if isinstance(layer, Dropout) and layer.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


@contextmanager
def _restored(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Put parameters back bit for bit."""
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.data.copy_(value)
