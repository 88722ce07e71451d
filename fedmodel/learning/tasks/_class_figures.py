"""Figures of a classifier, by scikit-learn.

For two classes, precision, recall and F1 are those of the positive class, label 1. For more they are macro averages
over all classes, and AUROC is one against the rest.

| A figure  | Is left out where                                                       |
|-----------|-------------------------------------------------------------------------|
| precision | the positive class, or of several any, was predicted of no record       |
| recall    | the positive class, or of several any, has no record                    |
| F1        | precision or recall is: it is their harmonic mean, and 0 where both are |
| AUROC     | a class has no record                                                   |

A figure of a class that is there is kept, however bad: of a model that predicts the negative class alone, recall is 0.

Shapes: N records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from sklearn import metrics

from fedmodel.learning.tasks._task import Figure, Measured


def _accuracy(found: Measured) -> float:
    return float(metrics.accuracy_score(found.target_N, found.answer_N.argmax(axis=1)))


def _by_class(found: Measured) -> dict[str, float]:
    """Return precision, recall and F1, each where it is defined."""
    classes = found.answer_N.shape[1]
    counted = metrics.confusion_matrix(found.target_N, found.answer_N.argmax(axis=1), labels=range(classes))
    reported = slice(1, 2) if classes == 2 else slice(None)
    said, there, right = (each[reported] for each in (counted.sum(axis=0), counted.sum(axis=1), counted.diagonal()))
    figures = {}
    if said.all():
        figures["precision"] = float(np.mean(right / said))
    if there.all():
        figures["recall"] = float(np.mean(right / there))
    if said.all() and there.all():
        figures["f1"] = float(np.mean(2 * right / (said + there)))
    return figures


def _auroc(found: Measured) -> float | None:
    """Area under the ROC curve, one class against the rest and averaged where there are more than two."""
    score = found.answer_N
    if len(np.unique(found.target_N)) < score.shape[1]:
        return None
    if score.shape[1] == 2:
        return float(metrics.roc_auc_score(found.target_N, score[:, 1]))
    one_hot = np.eye(score.shape[1], dtype=np.int64)[found.target_N]
    return float(metrics.roc_auc_score(one_hot, score, average="macro"))


FIGURES: Final[Mapping[str, Figure]] = {
    "accuracy": _accuracy,
    "precision": lambda found: _by_class(found).get("precision"),
    "recall": lambda found: _by_class(found).get("recall"),
    "f1": lambda found: _by_class(found).get("f1"),
    "auroc": _auroc,
}
