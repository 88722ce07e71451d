"""Label counts: how many records of each class the silos hold together, with noise, told once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedmodel.data import Records
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.jobs._summed import summed


class LabelCounts:
    """A record's vector is 1 at its label and 0 elsewhere, so that each record counts once; units are records."""

    def words(self, shape: DataShape) -> int:
        """Return a word for each class, none where targets are no labels."""
        return shape.classes if shape.target is None else 0

    def vectors(self, records: Records, shape: DataShape) -> NDArray[np.float64]:
        """Return ones at the labels; a label that is no class counts nowhere."""
        return np.asarray(records.y_N[:, None] == np.arange(shape.classes), np.float64)

    def told(self, sums_K: NDArray[np.float64], shape: DataShape) -> Mapping[str, object]:
        """Return the count of each class by its name, noise and all: it may be negative, and is no whole number."""
        return {"counts": {name: round(float(sum_), 2) for name, sum_ in zip(shape.label_names, sums_K, strict=True)}}


asking, answering = summed(__name__, LabelCounts())
