"""Server optimisers: the mean of a round's updates is taken for the negative of a gradient, and a step is made of it.

After Reddi et al. 2021 ("Adaptive Federated Optimization", algorithm 2) and Hsu et al. 2019 (momentum), as Flower's
strategies of the same names compute them (`flwr.serverapp.strategy`, version 1.41). Where Flower differs from a paper,
these files follow Flower and say so. Options bear Flower's names.

Guarantee: for the same updates, a model is Flower's after ten rounds, silos that dropped out included, up to the
rounding of float32; `tests/server/strategies/test_against_flower.py` runs both. What is kept between rounds is the
number of means so far and the moving averages, in float32, as torch's optimisers keep theirs: a step is computed in
float64 from what is kept, so that a run that is taken up again goes on to the bit. A step is post-processing of the
means, and costs no privacy.

Unlike Flower, a round that failed closed is not counted: no mean came of it.

Does NOT weigh noise against signal. An adaptive step divides each coordinate by how far its means have been so far,
noise included, so that a coordinate on which all silos sent noise alone moves as far as any other.

Shapes: P parameters, S moving averages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.errors import ProtocolError
from fedmodel.kinds.section import Section
from server.strategies.fedavg import FedAvg

Vector = NDArray[np.float64]
Of = TypeVar("Of", bound=Section)
_COUNT_BYTES: Final = 8


class ServerOptimizer(FedAvg, ABC, Generic[Of]):
    """Cohorts as in federated averaging; the model takes a step of an optimiser that the mean is the gradient of.

    Args:
        scenario: Says who trains.
        options: Of the optimiser.

    Attributes:
        SLOTS: S, how many vectors are kept from mean to mean; zero before the first.
    """

    SLOTS: ClassVar[int]

    def __init__(self, scenario: Scenario, options: Of) -> None:
        super().__init__(scenario)
        self.options = options

    def apply(
        self, model_P: NDArray[np.float32], mean_P: NDArray[np.float32], state: bytes
    ) -> tuple[NDArray[np.float32], bytes]:
        """Return the model moved by a step, and the number of means with what is kept of them.

        Raises:
            ProtocolError: When the state is not of this strategy and of a model of P parameters.
        """
        number, kept_SP = self._read(state, len(mean_P))
        step_P, kept = self.step(mean_P.astype(np.float64), kept_SP, number + 1)
        written = np.array(kept, dtype="<f4").reshape(self.SLOTS, len(mean_P))
        return (model_P + step_P).astype(np.float32), (number + 1).to_bytes(_COUNT_BYTES, "little") + written.tobytes()

    @abstractmethod
    def step(self, mean_P: Vector, kept_SP: Vector, number: int) -> tuple[Vector, tuple[Vector, ...]]:
        """Return how the model moves, and what is kept for the next mean.

        Args:
            mean_P: The mean, which an optimiser takes for the negative of a gradient.
            kept_SP: What was kept of the means before.
            number: Which mean it is, from 1.
        """

    def _read(self, state: bytes, parameters: int) -> tuple[int, Vector]:
        """Return the number of means before, and what was kept of them."""
        if not state:
            return 0, np.zeros((self.SLOTS, parameters))
        if len(state) != _COUNT_BYTES + 4 * self.SLOTS * parameters:
            raise ProtocolError("the checkpoint holds the state of another strategy, or of another model")
        kept_SP = np.frombuffer(state, "<f4", offset=_COUNT_BYTES).reshape(self.SLOTS, parameters)
        return int.from_bytes(state[:_COUNT_BYTES], "little"), kept_SP.astype(np.float64)
