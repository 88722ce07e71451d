"""What each silo of a simulation would get of its data, counted by label: for whoever simulates, before anything runs.

In a simulation alone. Its data are of whoever simulates, or public, so that counting them costs nobody anything. A
deployed silo's records are counted by nothing here: what is told of them is charged (`fedmodel.learning.jobs`).

Shapes: S silos, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.data import held_out_records, silo_records
from fedmodel.kinds.partition import labels_of
from fedmodel.kinds.shape import SURVIVAL, DataShape

_RECORDS = "records"


@dataclass(frozen=True)
class Shares:
    """How many records of each label each silo would get, no unit's more than the scenario lets in.

    Attributes:
        silos: Their names, in order.
        labels: What is told apart: classes; of survival in which interval the event was seen, or who was last seen; of
            real numbers the tenths of all silos' that they are dealt by; of other targets nothing.
        count_SL: Records of each silo, by label.
        held_out_L: Those of the server.
        seed: Which decides them.
    """

    silos: tuple[str, ...]
    labels: tuple[str, ...]
    count_SL: NDArray[np.int64]
    held_out_L: NDArray[np.int64]
    seed: int

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""

        def told(count_L: NDArray[np.int64]) -> dict[str, Any]:
            return {"records": int(count_L.sum()), "labels": dict(zip(self.labels, count_L.tolist(), strict=True))}

        return {
            "seed": self.seed,
            "silos": {silo: told(count_L) for silo, count_L in zip(self.silos, self.count_SL, strict=True)},
            "held_out": told(self.held_out_L),
        }


def shares(scenario: Scenario) -> Shares:
    """Deal a scenario's data as its run would, and count. Nothing is trained, charged or written.

    Raises:
        ConfigError: When the data are not described as they must be.
        DataError: When they cannot be loaded, or dealt as declared.
    """
    targets = [silo_records(scenario, silo).y_N for silo in scenario.federation.silos]
    targets.append(held_out_records(scenario).y_N)
    labels, found = _told_apart(targets, _names(scenario.data.shape))
    counted = np.array([np.bincount(one, minlength=len(labels)) for one in found], np.int64)
    return Shares(scenario.federation.silos, labels, counted[:-1], counted[-1], scenario.seed or 0)


def _names(shape: DataShape) -> tuple[str, ...]:
    """Return names of labels, in order; of survival of what a target says (`fedmodel.kinds.shape.SURVIVAL`)."""
    if shape.task != SURVIVAL:
        return shape.label_names
    spans = [f"{low:g}-{high:g} {shape.time_unit}" for low, high in pairwise((0.0, *shape.ends))]
    ways = ("last seen", "event")
    return (*(f"{span}: {way}" for span in spans for way in ways), f"{shape.ends[-1]:g} {shape.time_unit} without it")


def _told_apart(
    targets: Sequence[NDArray[Any]], names: tuple[str, ...]
) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """Return what labels there are to tell records apart by, and each party's records' places among them."""
    everything = np.concatenate(targets)
    label_N = labels_of(everything)
    if label_N is None:
        return (_RECORDS,), [np.zeros(len(one), np.int64) for one in targets]
    cuts = np.cumsum([len(one) for one in targets])[:-1]
    if everything.dtype.kind != "f":
        known = names if len(names) > label_N.max(initial=0) else tuple(map(str, range(int(label_N.max()) + 1)))
        return known, np.split(label_N, cuts)
    label_N = np.unique(label_N, return_inverse=True)[1]
    parts = [everything[label_N == part] for part in range(int(label_N.max()) + 1)]
    return tuple(f"{part.min():.3g} to {part.max():.3g}" for part in parts), np.split(label_N, cuts)
