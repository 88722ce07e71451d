"""FedAdagrad: the model moves by the mean, each coordinate over the root of the sum of its squares so far.

After Reddi et al. 2021, algorithm 2, as Flower's `FedAdagrad` computes it: without the average of means (`beta_1`) that
the paper allows.
"""

from __future__ import annotations

from typing import ClassVar

from server.strategies._adaptive import Adaptive, divided
from server.strategies._optimizer import ServerOptimizer, Vector

Options = Adaptive


class FedAdagrad(ServerOptimizer[Options]):
    """Adagrad. The sum of squares is kept."""

    SLOTS: ClassVar[int] = 1

    def step(self, mean_P: Vector, kept_SP: Vector, _number: int) -> tuple[Vector, tuple[Vector, ...]]:
        """Return a step of Adagrad, and the sum of squares."""
        second_P = kept_SP[0] + mean_P**2
        return self.options.eta * divided(mean_P, second_P, self.options.tau), (second_P,)


make = FedAdagrad
