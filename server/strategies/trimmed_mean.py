"""The mean of the silos' updates less the largest and the smallest of each coordinate is added; no weights are counted.

After Yin et al. 2018, option II, as Flower's `FedTrimmedAvg`: of N updates, `int(beta N)` are cut off at either end.
What it does not promise is in `server.strategies._robust`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedmodel.config import Scenario
from fedmodel.kinds.section import Section
from server.strategies._robust import ByCoordinate

_MOST_SILOS: Final = 10_000


class Options(Section):
    """What share of the updates is cut off at either end of each coordinate."""

    beta: float = Field(default=0.2, ge=1 / _MOST_SILOS, lt=0.5)


class TrimmedMean(ByCoordinate):
    """The trimmed mean. As many updates as are cut off at an end move no coordinate beyond those of the others."""

    def __init__(self, scenario: Scenario, options: Options) -> None:
        self._beta = options.beta
        least = next(silos for silos in range(1, 2 * _MOST_SILOS) if self._cut(silos))
        super().__init__(scenario, least, f"of fewer than {least} a beta of {self._beta:g} cuts none off")

    def middle(self, updates_NP: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of what is left, of the coordinates in order of size."""
        cut = self._cut(len(updates_NP))
        mean_P: NDArray[np.float64] = np.sort(updates_NP, axis=0)[cut : len(updates_NP) - cut].mean(axis=0)
        return mean_P

    def _cut(self, silos: int) -> int:
        """Return how many of so many updates are cut off at either end."""
        return int(self._beta * silos)


make = TrimmedMean
