"""Federated averaging: the weighted mean of the silos' updates is added to the model.

After McMahan et al. 2017, algorithm 1, where each silo sends its difference from the model that it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.kinds.section import Section
from server.strategies._cohorts import choose_cohort


class FedAvg:
    """Cohorts drawn by the seed; the mean is added. Nothing is kept from round to round.

    Args:
        scenario: Its seed draws cohorts, of the size that it says.
        _options: There are none.

    Attributes:
        BY_COORDINATE: As those based on it that are of means: an audit can follow them.
    """

    BY_COORDINATE: ClassVar[bool] = True

    def __init__(self, scenario: Scenario, _options: Section | None = None) -> None:
        self._seed, self._size = scenario.seed or 0, scenario.federation.cohort_size

    def choose(self, silos: Sequence[str], number: int) -> list[str]:
        """Return as many silos as the scenario asks for, all of them where they are fewer, sorted by name."""
        return choose_cohort(silos, min(self._size, len(silos)), self._seed, number)

    def apply(
        self, model_P: NDArray[np.float32], mean_P: NDArray[np.float32], state: bytes
    ) -> tuple[NDArray[np.float32], bytes]:
        """Return the model moved by the mean."""
        return model_P + mean_P, state


make = FedAvg
