"""Figures of several labels at once, by scikit-learn.

| A figure                  | Is                                      | Is left out where                        |
|---------------------------|-----------------------------------------|------------------------------------------|
| label accuracy            | the share of all labels that are right  | never                                    |
| exact match               | of records with all labels right        | never                                    |
| precision                 | the mean over labels                    | a label was predicted of no record       |
| recall, average precision | the mean over labels                    | a label has no record                    |
| F1                        | the mean over labels                    | precision or recall is                   |
| AUROC, balanced accuracy  | the mean over labels                    | a label has no record, or all of them    |
| Brier score, calibration  | over all labels of all records          | never                                    |
| error                     |                                         |                                          |

Shapes: N records, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from fedmodel.learning.tasks._class_figures import calibration_error
from fedmodel.learning.tasks._task import Figure, Measured


def _said(found: Measured) -> NDArray[np.bool_]:
    return np.asarray(found.answer_N > 0.5)


def _over_labels(score: Callable[..., float], *, ranked: bool = False, some_without: bool = False) -> Figure:
    """Return the mean of a figure over labels, each of which has records, and is missing of some where that is asked.

    Args:
        score: The figure of one label.
        ranked: Whether it is of probabilities.
        some_without: Whether it is defined only where some record has the label not.
    """

    def mean(found: Measured) -> float | None:
        has_NL = found.target_N == 1
        if not has_NL.any(axis=0).all() or (some_without and has_NL.all(axis=0).any()):
            return None
        answer_NL = found.answer_N if ranked else _said(found)
        return float(np.mean([score(has_N, answer_N) for has_N, answer_N in zip(has_NL.T, answer_NL.T, strict=True)]))

    return mean


def _precision(found: Measured) -> float | None:
    if not _said(found).any(axis=0).all():
        return None
    return float(metrics.precision_score(found.target_N, _said(found), average="macro"))


def _f1(found: Measured) -> float | None:
    return None if _precision(found) is None else _over_labels(metrics.f1_score)(found)


FIGURES: Final[Mapping[str, Figure]] = {
    "label-accuracy": lambda found: float(1 - metrics.hamming_loss(found.target_N, _said(found))),
    "exact-match": lambda found: float(metrics.accuracy_score(found.target_N, _said(found))),
    "precision": _precision,
    "recall": _over_labels(metrics.recall_score),
    "f1": _f1,
    "auroc": _over_labels(metrics.roc_auc_score, ranked=True, some_without=True),
    "average-precision": _over_labels(metrics.average_precision_score, ranked=True),
    "balanced-accuracy": _over_labels(metrics.balanced_accuracy_score, some_without=True),
    "brier": lambda found: float(metrics.mean_squared_error(found.target_N, found.answer_N)),
    "calibration-error": lambda found: calibration_error(
        np.maximum(found.answer_N, 1 - found.answer_N).ravel(), (_said(found) == (found.target_N == 1)).ravel()
    ),
}
