"""The median of the silos' updates, coordinate by coordinate, is added to the model; no weights are counted.

After Yin et al. 2018, option I, as Flower's `FedMedian`: of an even number, the mean of the two in the middle. What it
does not promise is in `server.strategies._robust`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.kinds.section import Section
from server.strategies._robust import ByCoordinate


class Median(ByCoordinate):
    """The median. No update of a minority moves a coordinate beyond those of the others."""

    def __init__(self, scenario: Scenario, _options: Section | None = None) -> None:
        super().__init__(scenario, 3, "the median of two updates is their mean, which one of them moves at will")

    def middle(self, updates_NP: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the median."""
        median_P: NDArray[np.float64] = np.median(updates_NP, axis=0)
        return median_P


make = Median
