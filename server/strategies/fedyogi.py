"""FedYogi: as FedAdam, with an average of squares that grows and shrinks by shares of the new square alone.

After Reddi et al. 2021, algorithm 2, as Flower's `FedYogi` computes it, whose defaults it has. No bias is corrected.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from server.strategies._adaptive import WithMoments, divided
from server.strategies._optimizer import ServerOptimizer, Vector


class Options(WithMoments):
    """As FedAdam's, with a smaller step where none is said."""

    eta: float = Field(default=0.01, gt=0, le=1e6)


class FedYogi(ServerOptimizer[Options]):
    """Yogi. The averages of means and of squares are kept."""

    SLOTS: ClassVar[int] = 2

    def step(self, mean_P: Vector, kept_SP: Vector, _number: int) -> tuple[Vector, tuple[Vector, ...]]:
        """Return a step of Yogi, and both averages."""
        of, square_P = self.options, mean_P**2
        first_P = of.beta_1 * kept_SP[0] + (1 - of.beta_1) * mean_P
        second_P = kept_SP[1] - (1 - of.beta_2) * square_P * np.sign(kept_SP[1] - square_P)
        return of.eta * divided(first_P, second_P, of.tau), (first_P, second_P)


make = FedYogi
