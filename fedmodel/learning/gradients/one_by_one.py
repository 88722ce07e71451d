"""The gradient of each record by itself, from a pass of its own, one record after the other.

It takes every model that torch can differentiate: recurrent cells, which torch cannot run side by side for many
records, and a `forward` that asks what a record holds. It is the slowest, a pass for each record of a lot.

A record is the whole batch that the model is given, so that it has no companions; and the model is put back to what it
was after each record, so that none finds what one before it left (`fedmodel.learning.keeping` lists what is put back).
What fills a physical batch up is not computed: it counts nothing.

Shapes: B rows of a physical batch, R of them records, K views of each.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from fedmodel.data.named import each
from fedmodel.learning.gradients.functional import Functional
from fedmodel.learning.inputs import Inputs, called
from fedmodel.learning.keeping import Kept, undone


class OneByOne(Functional):
    """Per-record gradients of a whole physical batch in memory, B times the model, of any model."""

    def _of_each(self, values: dict[str, Tensor], x_BK: Inputs, y_R: Tensor) -> dict[str, Tensor]:
        """Return the gradients of each record, `(B, *parameter)` each, by name; zeros of what fills the batch up."""
        found = {name: one.new_zeros(self.rows, *one.shape) for name, one in values.items()}
        kept = Kept(self.module)
        for row in range(len(y_R)):
            with undone(self.module, refuse=self.refuses, kept=kept):
                output_K = called(self._model, each(x_BK, lambda whole: whole[row]))  # noqa: B023 - called here
                loss = self.losses_of(output_K, y_R[row : row + 1])[0]
                if not loss.requires_grad:  # for what this record holds no parameter is in its loss
                    continue
                grads = torch.autograd.grad(loss, self.parameters, allow_unused=True)
                for name, one in zip(values, grads, strict=True):
                    if one is not None:  # likewise, of one parameter: zero is its gradient
                        found[name][row] = one
        return found


KIND: Final = OneByOne
