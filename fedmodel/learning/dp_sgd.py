"""One step of DP-SGD: the clipped sum of a lot, its release, an optimiser. After Abadi et al. 2016, algorithm 1.

Guarantee, for one call of `DpSgd.step` on a lot: the gradient handed to the optimiser is what the release makes of S,
and the release is called once. S is the lot's clipped sum, which adding or removing one record moves by at most C in
L2, exactly (`fedmodel.learning.gradients`). What a release adds to it is its mechanism's to say
(`fedmodel.privacy.mechanisms`); that of a baseline adds nothing, and then nothing is promised. All else is the same
code, unless a baseline's clip is infinite: its S is a plain sum (`fedmodel.learning.unclipped`).

| Edge case                                   | What happens                                                        |
|---------------------------------------------|---------------------------------------------------------------------|
| the lot is empty                            | the sum is zero and is released all the same                         |
| the lot is larger than a physical batch     | the sum of all of it is released once                                |
| an exception, or a stop, in mid-lot         | no step is taken, and the next begins with nothing pending           |
| the optimiser has other parameters          | `PrivacyError`: one could move without noise, or not at all          |
| sums and noise are not on one grid          | `PrivacyError`: their sum would be rounded as it is added up         |
| more records than sums are exact for        | `DataError`: it hangs on how many a silo holds, not on the lot       |

Does NOT hide how long a step takes, which hangs on how many physical batches a lot fills.

Shapes: N records, L parameter tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from fedmodel.errors import DataError, PrivacyError
from fedmodel.learning import unclipped
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.inputs import Inputs
from fedmodel.privacy import grid


class DpSgd:
    """DP-SGD over one model: a clipped sum, a release and an optimiser.

    Args:
        gradients: The clipped sum over the model, its clip and its grid.
        optimizer: A torch optimiser over exactly its parameters, which are updated in place.
        release: From a clipped sum to what the optimiser may see of it, a tensor for each of the sum's.
        noise_multiplier: Standard deviation of the release's noise over the clip, from which the grid follows that the
            sum has to lie on; a baseline's is that of the private run that it is compared with.
        augment: Makes the copies of a lot's records that are trained on; None for the records themselves.
        of: Returns the clipped sum of a lot, as `gradients.of` does, which is what does where nothing is said and the
            clip is finite.

    Attributes:
        sums: The clipped sum, a tensor for each parameter, while the optimiser steps on what was made of it; empty
            otherwise. Sensitive: for the audit of a simulated silo alone.

    Raises:
        PrivacyError: When optimiser and sum are of different parameters, or sum and noise of different grids, or there
            is no noise for a grid to follow from.
    """

    def __init__(
        self,
        gradients: ClippedSum,
        optimizer: Optimizer,
        release: Callable[[list[Tensor]], list[Tensor]],
        *,
        noise_multiplier: float,
        augment: Callable[[Inputs], Inputs] | None = None,
        of: Callable[..., list[Tensor]] | None = None,
    ) -> None:
        self.gradients = gradients
        self._of = of
        self.augment = augment
        self.optimizer = optimizer
        self.release = release
        self.noise_multiplier = noise_multiplier
        self.sums: list[Tensor] = []
        moved = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if {id(one) for one in moved} != {id(one) for one in gradients.parameters}:
            raise PrivacyError("the optimiser is of other parameters than those that are clipped and noised")
        clip = gradients.max_grad_norm
        # An infinite clip is a baseline's, whose sums no noise is added to.
        if math.isfinite(clip) and gradients.unit != (fine := grid.fine(noise_multiplier * clip)):
            raise PrivacyError(f"sums lie on a grid of {gradients.unit:g}, and noise on one of {fine:g}")

    def step(self, x_N: Inputs, y_N: Tensor, lot: NDArray[np.intp]) -> None:
        """Take one noised step on the lot.

        Args:
            x_N: All the silo's records, on the model's device: one tensor, or several by name. Sensitive.
            y_N: Their targets, likewise. Sensitive.
            lot: Indices of the records drawn. Sensitive, its length included.

        Raises:
            DataError: When the silo has more records than sums are exact for.
            PrivacyError: When the pipeline is none of per-record losses and gradients.
        """
        grid.check_records(len(y_N), self.noise_multiplier)
        if len(y_N) > (most := self.gradients.most_records):
            raise DataError(
                f"the silo has more than {most} records, past which a sum is not near enough to the true one"
            )
        # Asked at each step: others that share the pipeline set its clip.
        plain = partial(unclipped.sums_of, self.gradients) if math.isinf(self.gradients.max_grad_norm) else None
        self._release((self._of or plain or self.gradients.of)(x_N, y_N, lot, self.augment))

    def _release(self, sums_L: list[Tensor]) -> None:
        """Let the optimiser step on what is released of a sum, and forget both."""
        self.sums = sums_L
        try:
            for parameter, mean in zip(self.gradients.parameters, self.release(sums_L), strict=True):
                parameter.grad = mean
            self.optimizer.step()
        finally:
            self.sums = []
            for parameter in self.gradients.parameters:
                parameter.grad = None
