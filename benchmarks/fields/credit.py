"""Loans over four banks, by a score card whose directions are declared or not."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.data.records import Records
from fedmodel.learning.tasks import Measured, task_of
from fedmodel.learning.tasks._class_figures import cost_at
from fields.field import NO_PRIVACY, Field, Level, Scores

RATIOS: Final = (1, 2, 5, 10, 20)
"""How many false alarms a missed record costs, over the curve of costs."""
_SAID: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0)


def of_loans(scenario: Scenario, held_out: Records, output_NK: NDArray[Any]) -> Scores:
    """Return figures of a score: of the ranking, of the tenth that is looked at, of what errors cost, of calibration.

    A figure's name is of a table where it has a colon. The set's own documentation says a ratio of costs of 5: a bad
    loan that is granted costs as much as five good ones that are refused.
    """
    task = task_of(scenario.data.shape)
    chance_NK = task.answers("cross-entropy", torch.from_numpy(output_NK)).numpy()
    found = Measured(chance_NK, held_out.y_N, np.zeros(len(held_out)), 0.0, "cross-entropy")
    told = task.figures(("average-precision", "recall@0.1", "auroc", "cost@5", "brier"), found)
    bad = int((held_out.y_N == 1).sum())
    return {
        "average precision": told["average-precision"],
        "recall of the worst tenth": told["recall@0.1"],
        "bad of the worst tenth": told["recall@0.1"] * bad / int(0.1 * len(held_out)),
        "AUROC": told["auroc"],
        "cost@5": told["cost@5"],
        "Brier": told["brier"],
        **{f"cost by ratio: {ratio}": cost_at(ratio, found) for ratio in RATIOS},
        **{f"cost at the best threshold: {ratio}": lowest_cost(ratio, found) for ratio in RATIOS},
        **{f"went bad, by what was said: {name}": share for name, share in calibration(found).items()},
    }


def lowest_cost(ratio: float, found: Measured) -> float:
    """Return the least normalised expected cost of any threshold, which is known only when it is too late to choose.

    Over all ratios it is the lower envelope of Drummond and Holte 2006, section 3: what a ranking is worth, without its
    calibration.

    >>> found = Measured(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]), np.zeros(2), 0.0, "cross-entropy")
    >>> lowest_cost(5, found), round(cost_at(5, found), 3)
    (0.0, 0.0)
    >>> lowest_cost(1, found), cost_at(1, found)
    (0.0, 0.5)
    """
    score_N, is_positive_N = found.answer_N[:, 1], found.target_N == 1
    called_TN = score_N > np.append(np.unique(score_N), -np.inf)[:, None]
    missed_T, alarms_T = (~called_TN & is_positive_N).sum(axis=1), (called_TN & ~is_positive_N).sum(axis=1)
    worst = ratio * is_positive_N.sum() + (~is_positive_N).sum()
    return float((ratio * missed_T + alarms_T).min() / worst)


def calibration(found: Measured) -> Scores:
    """Return the share of positive records among those of which each range of chances was said; NaN where of none."""
    said_N, is_positive_N, shares = found.answer_N[:, 1], found.target_N == 1, {}
    for low, high in pairwise(_SAID):
        within_N = (said_N >= low) & ((said_N < high) | (high == _SAID[-1]))
        shares[f"{low:g} to {high:g}"] = float(is_positive_N[within_N].mean()) if within_N.any() else math.nan
    return shares


_LOANS_PUBLISHED: Final = "none with privacy"
FIELD: Final = Field(
    "credit",
    {
        **{
            f"epsilon {epsilon}": Level((f"privacy.epsilon={epsilon}",), (0.3, 20, 2.0), _LOANS_PUBLISHED)
            for epsilon in (0.3, 1.0, 3.0, 10.0)
        },
        NO_PRIVACY: Level(
            ('privacy.baseline="no-noise-no-clip"', "training.learning_rate=1.2"), (1.2, 20, 0.0), _LOANS_PUBLISHED
        ),
    },
    of_loans,
    {"declared directions": (), "none declared": ("model.rising=[]", "model.falling=[]")},
)  # fmt: skip
