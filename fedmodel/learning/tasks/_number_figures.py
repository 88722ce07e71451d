"""Figures of numbers, by scikit-learn, in the units that answers and targets are told in.

| A figure   | Is                                              | Is left out where                        |
|------------|-------------------------------------------------|------------------------------------------|
| RMSE, MAE  | root of the mean squared, mean absolute error   | never                                    |
| R2         | 1 less the squared errors over those of the     | there are fewer than two records, or all |
|            | mean of the held-out targets; 0 or below where  | targets, of one of several, are alike    |
|            | the model is no better than that mean           |                                          |

Of several numbers for each record a figure is the mean of their figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from sklearn import metrics

from fedmodel.learning.tasks._task import Figure, Measured


def _r2(found: Measured) -> float | None:
    if len(found.target_N) < 2 or (np.ptp(found.target_N, axis=0) == 0).any():
        return None
    return float(metrics.r2_score(found.target_N, found.answer_N))


FIGURES: Final[Mapping[str, Figure]] = {
    "rmse": lambda found: float(metrics.root_mean_squared_error(found.target_N, found.answer_N)),
    "mae": lambda found: float(metrics.mean_absolute_error(found.target_N, found.answer_N)),
    "r2": _r2,
}
