"""FedAdam: the model moves by an average of recent means, each coordinate over the root of an average of its squares.

After Reddi et al. 2021, algorithm 2, as Flower's `FedAdam` computes it. Unlike the paper, Flower corrects the bias of
both averages, and it counts one round more than Adam does (Kingma and Ba 2015): the t-th step has the rate
`eta sqrt(1 - beta_2^(t+1)) / (1 - beta_1^(t+1))`. So does this.
"""

from __future__ import annotations

import math
from typing import ClassVar

from server.strategies._adaptive import WithMoments, divided
from server.strategies._optimizer import ServerOptimizer, Vector

Options = WithMoments


class FedAdam(ServerOptimizer[Options]):
    """Adam. The averages of means and of squares are kept."""

    SLOTS: ClassVar[int] = 2

    def step(self, mean_P: Vector, kept_SP: Vector, number: int) -> tuple[Vector, tuple[Vector, ...]]:
        """Return a step of Adam, and both averages."""
        of = self.options
        first_P = of.beta_1 * kept_SP[0] + (1 - of.beta_1) * mean_P
        second_P = of.beta_2 * kept_SP[1] + (1 - of.beta_2) * mean_P**2
        rate = of.eta * math.sqrt(1 - of.beta_2 ** (number + 1)) / (1 - of.beta_1 ** (number + 1))
        return rate * divided(first_P, second_P, of.tau), (first_P, second_P)


make = FedAdam
