"""Tables of rows that are looked up.

A row's gradient is that of every place it was taken at; `padding_idx` has none, as in torch.

Shapes: B rows of a physical batch, T positions, d entries of a row.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from fedmodel.errors import PrivacyError
from fedmodel.learning.gradients.layers.parts import Looked, Part


def parts(layer: nn.Module, given: Tensor, grad: Tensor) -> list[Part]:
    """Return what records add to the table."""
    assert isinstance(layer, nn.Embedding)  # noqa: S101 - as `LAYERS` has it
    if layer.scale_grad_by_freq:
        raise PrivacyError("scale_grad_by_freq counts indices over all records of a batch; leave it out")
    index_BT, grad_BTd = given.reshape(len(given), -1), grad.reshape(len(grad), -1, grad.shape[-1])
    if layer.padding_idx is not None:
        grad_BTd = grad_BTd.masked_fill((index_BT == layer.padding_idx)[:, :, None], 0.0)
    return [Looked(layer.weight, index_BT, grad_BTd)]


LAYERS: Final = {nn.Embedding: parts}
