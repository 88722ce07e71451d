"""The sum of a lot's gradients where nothing is clipped: one plain backward pass over each physical batch.

Of a baseline alone (`privacy.baseline = "no-noise-no-clip"`), of which nothing is claimed: there no norm of a record's
gradient is asked for, so that no record's gradient has to be known. A physical batch has as many rows as it has
records: at a shape that nobody measured. Records are held apart as ever, by what is measured before a run and at each
model, of the pipeline with its clip.

| Edge case                                   | What happens                                                        |
|---------------------------------------------|---------------------------------------------------------------------|
| the clip is finite                          | `PrivacyError`: the sum would not be bounded by it                   |
| a batch's sum is not finite                 | that batch again, by the kind of gradients, which drops such records |
| a parameter gets no gradient                | likewise                                                            |
| a batch of one record                       | has two rows: a model's own code may drop an axis of one             |
| gradients are of another kind than          | the kind's own sum: in a batch that the model itself is given whole, |
| book-keeping                                | records of such models may meet                                     |
| the model computes in bf16                  | the kind's own sum, which no layer rounds to bf16                    |
| the lot is empty, or larger than a batch;   | as `fedmodel.learning.gradients` has it                             |
| views; lengths; a pass that writes          |                                                                     |

Does NOT promise anything of privacy. Sums are in the model's own precision, and rounded to the grid.

Shapes: R records of a physical batch, B rows of it, V rows of views, P parameters, N records, L parameter tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmodel.data.named import each
from fedmodel.errors import PrivacyError
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.inputs import Inputs, called, padded
from fedmodel.learning.precision import is_rounded


def sums_of(
    gradients: ClippedSum,
    x_N: Inputs,
    y_N: Tensor,
    lot: NDArray[np.intp],
    augment: Callable[[Inputs], Inputs] | None = None,
) -> list[Tensor]:
    """Return the sum of a lot's gradients, which nothing bounds: float64, a tensor for each parameter. Sensitive.

    Args:
        gradients: The pipeline, whose clip is infinite.
        x_N: All the silo's records, as `ClippedSum.of` has them. Sensitive.
        y_N: Their targets. Sensitive.
        lot: Indices of the records drawn. Sensitive.
        augment: Makes views of records.

    Raises:
        PrivacyError: When there is a clip, or losses are not one for each record.
    """
    if not math.isinf(gradients.max_grad_norm):
        raise PrivacyError(f"gradients are clipped to {gradients.max_grad_norm:g}, and a plain sum would not be")
    if type(gradients) is not BookKeeping or is_rounded(gradients.module):
        return gradients.of(x_N, y_N, lot, augment)
    gradients.begin()
    for x_V, y_R in gradients.batches(x_N, y_N, lot, augment):
        with gradients.undone():
            sum_P = _plain(gradients, x_V, y_R)
        gradients.put(gradients.summed_apart(x_V, y_R) if sum_P is None else sum_P)
    return gradients.take()


def _plain(gradients: ClippedSum, x_V: Inputs, y_R: Tensor) -> Tensor | None:
    """Return the sum of a physical batch's gradients, float64 of shape `(P,)`; None where it is not finite."""
    records = len(y_R)
    rows = min(gradients.rows, max(2, records))
    output_V = called(gradients.module, each(x_V, lambda one: padded(one, rows * gradients.views)))
    loss = gradients.losses_of(output_V, padded(y_R, rows))[:records].sum()
    if not loss.requires_grad:  # for what these records hold no parameter is in their losses
        return None
    grads = [one for one in torch.autograd.grad(loss, gradients.parameters, allow_unused=True) if one is not None]
    if len(grads) < len(gradients.parameters):
        return None
    sum_P = torch.cat([one.reshape(-1) for one in grads]).double()
    return sum_P if bool(sum_P.isfinite().all()) else None
