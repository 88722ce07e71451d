"""Krum: the one update that is nearest to most of the others is added to the model, and all others are left out.

After Blanchard et al. 2017, as Flower's `Krum`: of N updates of which `num_malicious_nodes` (f) may lie, the one with
the least sum of squared distances to its N - f - 2 nearest; of several, the one whose silo's name comes first. What it
does not promise is in `server.strategies._robust`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedmodel.config import Scenario
from fedmodel.kinds.section import Section
from server.strategies._robust import Robust, squared_distances


class Options(Section):
    """How many silos may lie in a round."""

    num_malicious_nodes: int = Field(default=0, ge=0, le=4_998)


class Krum(Robust):
    """The update of one silo, by its distance from others."""

    def __init__(self, scenario: Scenario, options: Options) -> None:
        self._lying = options.num_malicious_nodes
        least = 2 * self._lying + 3
        why = f"with num_malicious_nodes = {self._lying} Krum needs {least} of them (Blanchard et al. 2017)"
        super().__init__(scenario, least, why)

    def combine(self, updates: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the update with the least score."""
        silos, distances_NN = sorted(updates), squared_distances(updates)
        nearest = len(silos) - self._lying - 2
        # The least of a row is an update's distance from itself, 0.
        scores = [np.sort(row)[1 : nearest + 1].sum() for row in distances_NN]
        return updates[silos[int(np.argmin(scores))]]


make = Krum
