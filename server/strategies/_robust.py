"""Strategies that look at each silo's own update, so that a few of them cannot move the model as they like.

They run only where the server sees single updates, `encryption.secure_aggregation = "off"`.

Guarantee: they cost no privacy. An update is differentially private by itself when it leaves its silo: each step of its
training released a clipped sum with all of the noise that the silo's ledger was charged for
(`fedmodel.learning.jobs.training`), for the unit that is charged there, a record or a person. Nothing is left for a sum
with others to hide. What is made of several updates is post-processing, and holds for each silo at its own epsilon.

For the same updates a model is Flower's (`flwr.serverapp.strategy`, version 1.41), silos that dropped out included;
Flower compares models where these compare updates, which differ by one vector that all have in common.

What this does NOT promise:
- No secrecy of updates: the server holds each silo's noised update, where masks would leave it a sum.
- No use of `federation.weights`: a silo is one among all, whatever it holds. Unequal weights are refused.
- Little where silos differ. All three rest on honest updates being alike. With labels that differ from silo to silo, an
  honest silo with what others lack looks like one that lies, and what it knows is left out.
- Little where noise is large. Noised updates are as far apart as their noise, which hides who is far off for another
  reason: Krum then chooses by chance, and a silo that sends less noise than its scenario says is chosen.
- Nothing against a lie that stays within the spread of the others, round for round (Baruch et al. 2019, "A Little Is
  Enough"), nor against more silos that lie than the strategy is made for, nor against a silo that trains on false
  records in good order.

Shapes: N silos, P parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.errors import ConfigError
from server.strategies.fedavg import FedAvg

_COLUMNS: Final = 2**16  # at once: what is computed of so many coordinates is small beside the updates themselves


class Robust(FedAvg, ABC):
    """Cohorts as in federated averaging; the mean is one that a few updates cannot move as they like.

    Args:
        scenario: Its seed draws cohorts.
        least: The fewest updates of which the strategy is what it is called.
        why: What it would be of fewer.

    Raises:
        ConfigError: When a round of fewer updates would count, or silos have unequal weights.
    """

    def __init__(self, scenario: Scenario, least: int, why: str) -> None:
        super().__init__(scenario)
        federation = scenario.federation
        if federation.min_silos < least:
            raise ConfigError(
                f"federation.strategy = {federation.strategy!r}: federation.min_silos = {federation.min_silos} lets a"
                f" round of so many updates count, and {why}; set min_silos to {least} or more"
            )
        if len({federation.weight(silo) for silo in federation.silos}) > 1:
            raise ConfigError(
                f"federation.strategy = {federation.strategy!r} counts every silo once, and federation.weights are"
                " unequal; leave them out"
            )

    @abstractmethod
    def combine(self, updates: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return what stands for the mean of a round's updates (`server.strategies.Combining`)."""


class ByCoordinate(Robust):
    """One whose mean is computed coordinate by coordinate."""

    def combine(self, updates: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the middle of each coordinate, computed in float64."""
        middle_P = np.empty_like(next(iter(updates.values())))
        for start in range(0, len(middle_P), _COLUMNS):
            part = slice(start, start + _COLUMNS)
            middle_P[part] = self.middle(stacked(updates, part))
        return middle_P

    @abstractmethod
    def middle(self, updates_NP: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what stands for the mean of some coordinates of N updates, the same for any order of them."""


def stacked(updates: Mapping[str, NDArray[np.float32]], part: slice) -> NDArray[np.float64]:
    """Return some coordinates of updates in order of silos' names, float64 of shape `(N, P)`."""
    return np.stack([updates[silo][part] for silo in sorted(updates)]).astype(np.float64)


def squared_distances(updates: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return the squared distances between updates, in order of silos' names: float64 of shape `(N, N)`.

    By differences, and not by products as Flower's, which cancel where updates are near each other.
    """
    distances_NN = np.zeros((len(updates), len(updates)))
    for start in range(0, len(next(iter(updates.values()))), _COLUMNS):
        updates_NP = stacked(updates, slice(start, start + _COLUMNS))
        for one, update_P in enumerate(updates_NP):
            distances_NN[one] += np.square(updates_NP - update_P).sum(axis=1)
    return distances_NN
