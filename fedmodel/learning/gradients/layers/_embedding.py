"""Tables of rows that are looked up.

A row's gradient is that of every place it was taken at; `padding_idx` has none, as in torch.

Shapes: B rows of a physical batch, T positions, K = B T, V rows of a table, d entries of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from fedmodel.errors import PrivacyError
from fedmodel.learning.gradients.layers.parts import Family, Kept, Part, blocks, hashed, norms, put_together
from fedmodel.learning.gradients.layers.products import bounded


class Looked(Part):
    """Rows that were looked up in a table: outer products of unit vectors and gradients.

    Args:
        parameter: The table, `(V, d)`.
        index_BT: Which rows were taken.
        right_BTd: The gradient of the loss at each, float32; zeros where a position counts nothing.
    """

    def __init__(self, parameter: Tensor, index_BT: Tensor, right_BTd: Tensor) -> None:
        super().__init__(parameter)
        self.index_BT, self.right_BTd = index_BT, right_BTd

    def cheapest(self) -> Part:
        """Return the way that takes less, by shapes."""
        return self.kept() if self.parameter.numel() <= 2 * self.index_BT.shape[1] ** 2 else self

    def squares(self) -> tuple[Tensor, Tensor]:
        """Return the squared norms from Gram matrices, in which only positions of one row meet."""
        right_BTd = self.right_BTd.double()
        gram_BTT = torch.bmm(right_BTd, right_BTd.mT)
        # Where they do not meet, infinity must not become NaN of a record that is dropped by another position alone.
        gram_BTT.masked_fill_(self.index_BT[:, :, None] != self.index_BT[:, None, :], 0.0)
        return bounded(gram_BTT.sum(dim=(1, 2)), norms(right_BTd), right_BTd.shape[2])

    def summed(self, factor_B: Tensor) -> Tensor:
        """Return the weighted sum, of a block of positions after the other."""
        factor_K1 = factor_B.repeat_interleave(self.index_BT.shape[1])[:, None]
        index_K, right_Kd = self.index_BT.flatten(), self.right_BTd.flatten(0, 1)
        total_Vd = right_Kd.new_zeros(self.parameter.shape, dtype=torch.float64)
        for some in blocks(len(index_K)):
            weighed_Kd = (right_Kd[some] * factor_K1[some]).nan_to_num_(0.0, 0.0, 0.0)
            if some.start == 0:
                total_Vd.index_add_(0, index_K[some], weighed_Kd)
            else:
                total_Vd += torch.zeros_like(total_Vd).index_add_(0, index_K[some], weighed_Kd)
        return total_Vd.reshape(-1)

    def kept(self) -> Kept:
        """Return each record's gradient of the whole table."""
        grad_BVd = self.right_BTd.new_zeros((len(self.right_BTd), *self.parameter.shape))
        grad_BVd.scatter_add_(1, self.index_BT[:, :, None].expand_as(self.right_BTd), self.right_BTd)
        return Kept(self.parameter, grad_BVd)

    def hashed(self, multipliers_P: Tensor) -> Tensor:
        """Return a hash of both factors."""
        return put_together(hashed(one, multipliers_P) for one in (self.right_BTd, self.index_BT))

    def folded(self, views: int) -> Looked:
        """Return the positions of all of a record's rows as its own."""
        index_BT, right_BTd = (
            torch.unflatten(one, 0, (-1, views)).flatten(1, 2) for one in (self.index_BT, self.right_BTd)
        )
        return Looked(self.parameter, index_BT, right_BTd)


def beside(several: Sequence[Looked]) -> Looked:
    """Return the positions of several uses of a table as those of one."""
    index_BT = torch.cat([one.index_BT for one in several], dim=1)
    return Looked(several[0].parameter, index_BT, torch.cat([one.right_BTd for one in several], dim=1))


def parts(layer: nn.Module, given: Tensor, grad: Tensor) -> list[Part]:
    """Return what records add to the table."""
    assert isinstance(layer, nn.Embedding)  # noqa: S101 - as `LAYERS` has it
    if layer.scale_grad_by_freq:
        raise PrivacyError("scale_grad_by_freq counts indices over all records of a batch; leave it out")
    index_BT, grad_BTd = given.reshape(len(given), -1), grad.reshape(len(grad), -1, grad.shape[-1])
    if layer.padding_idx is not None:
        grad_BTd = grad_BTd.masked_fill((index_BT == layer.padding_idx)[:, :, None], 0.0)
    return [Looked(layer.weight, index_BT, grad_BTd)]


LAYERS: Final[dict[type[nn.Module], Family]] = {nn.Embedding: parts}
