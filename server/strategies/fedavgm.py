"""Federated averaging with momentum at the server: the model moves by a running sum of the means, older ones less.

After Hsu et al. 2019: the velocity is `server_momentum` times the last one plus the mean, and the model moves by
`server_learning_rate` times the velocity, as Flower's `FedAvgM` does. Flower's momentum is 0 where none is said, which
is federated averaging; here it is 0.9.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from fedmodel.kinds.section import Section
from server.strategies._optimizer import ServerOptimizer, Vector


class Options(Section):
    """How far a step goes, and how much of the last velocity is in it."""

    server_learning_rate: float = Field(default=1.0, gt=0, le=1e6)
    server_momentum: float = Field(default=0.9, ge=0, lt=1)


class FedAvgM(ServerOptimizer[Options]):
    """SGD with momentum, as torch's, without Nesterov's step. The velocity is kept."""

    SLOTS: ClassVar[int] = 1

    def step(self, mean_P: Vector, kept_SP: Vector, _number: int) -> tuple[Vector, tuple[Vector, ...]]:
        """Return the step of the new velocity, and the velocity."""
        velocity_P = self.options.server_momentum * kept_SP[0] + mean_P
        return self.options.server_learning_rate * velocity_P, (velocity_P,)


make = FedAvgM
