"""One step of DP-SGD: the clipped sum of a lot, noise, a grid, a public denominator, an optimiser.

After Abadi et al. 2016, algorithm 1.

Guarantee, for one call of `DpSgd.step` on a lot: the gradient handed to the optimiser is a function of

    S + round_fine(Z),   Z = N(0, (noise_multiplier * C)^2 I)

rounded to the coarse grid (`fedmodel.privacy.release`), where S is the lot's clipped sum, which adding or removing one
record moves by at most C in L2, exactly (`fedmodel.learning.gradients`).

Without a noise source, as in a baseline, nothing is promised: the sum is divided and not rounded. All else is the same
code.

| Edge case                                   | What happens                                                        |
|---------------------------------------------|---------------------------------------------------------------------|
| the lot is empty                            | the sum is zero and noise is added all the same                      |
| the lot is larger than a physical batch     | noise is added once, to the sum of all of it                         |
| an exception, or a stop, in mid-lot         | no step is taken, and the next begins with nothing pending           |
| the optimiser has other parameters          | `PrivacyError`: one could move without noise, or not at all          |
| sums and noise are not on one grid          | `PrivacyError`: their sum would be rounded as it is added up         |
| more records than sums are exact for        | `DataError`: it hangs on how many a silo holds, not on the lot       |

Does NOT hide how long a step takes, which hangs on how many physical batches a lot fills.

Shapes: N records, L parameter tensors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from fedmodel.errors import PrivacyError
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.inputs import Inputs
from fedmodel.privacy import grid
from fedmodel.privacy.noise import NoiseSource
from fedmodel.privacy.release import divided, release


class DpSgd:
    """DP-SGD over one model: a clipped sum, a noise source and an optimiser.

    Args:
        gradients: The clipped sum over the model, its clip and its grid.
        optimizer: A torch optimiser over exactly its parameters, which are updated in place.
        noise: Where noise is drawn from; None in a baseline, which adds none and protects nobody.
        noise_multiplier: Standard deviation of the noise over the clip.
        denominator: The public divisor, an expected and never a counted lot size.

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
        *,
        noise: NoiseSource | None,
        noise_multiplier: float,
        denominator: int,
    ) -> None:
        self.gradients = gradients
        self.optimizer = optimizer
        self.noise_multiplier = noise_multiplier
        self.denominator = denominator
        self.sums: list[Tensor] = []
        self._noise = noise
        moved = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if {id(one) for one in moved} != {id(one) for one in gradients.parameters}:
            raise PrivacyError("the optimiser is of other parameters than those that are clipped and noised")
        if noise is not None and gradients.unit != grid.fine(self.std):
            raise PrivacyError(f"sums lie on a grid of {gradients.unit:g}, and noise on one of {grid.fine(self.std):g}")

    @property
    def std(self) -> float:
        """Standard deviation of the noise on a sum."""
        return self.noise_multiplier * self.gradients.max_grad_norm

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
        self._release(self.gradients.of(x_N, y_N, lot))

    def _release(self, sums_L: list[Tensor]) -> None:
        """Let the optimiser step on the noised mean, and forget both."""
        self.sums = sums_L
        try:
            if self._noise is None:
                means_L = [divided(sum_, self.denominator) for sum_ in sums_L]
            else:
                means_L = release(sums_L, self._noise, self.std, self.denominator)
            for parameter, mean in zip(self.gradients.parameters, means_L, strict=True):
                parameter.grad = mean
            self.optimizer.step()
        finally:
            self.sums = []
            for parameter in self.gradients.parameters:
                parameter.grad = None
