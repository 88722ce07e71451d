"""Figures of a classifier, as scikit-learn has them where it has them.

Those that are measured where nothing is said, accuracy, AUROC and what is counted by class, are computed here, since
importing scikit-learn takes a CPU second and each of its calls as long as ten of these. Others are scikit-learn's.

For two classes, precision, recall, F1 and average precision are those of the positive class, label 1. For more they are
macro averages over all classes, and AUROC and average precision are one against the rest.

| A figure                | Is left out where                                                       |
|-------------------------|-------------------------------------------------------------------------|
| precision               | the positive class, or of several any, was predicted of no record       |
| recall                  | the positive class, or of several any, has no record                    |
| F1                      | precision or recall is: it is their harmonic mean, and 0 where both are |
| AUROC, balanced         | a class has no record                                                   |
| accuracy, average       |                                                                         |
| precision               |                                                                         |
| recall at a share of    | the positive class has no record, or the share is of less than one      |
| alerts                  | record                                                                  |
| cost at a ratio         | never: of two classes alone, and there is a record                      |
| Brier score,            | there are more than two classes and the loss is "mse", whose scores are |
| calibration error       | no probabilities                                                        |

A figure of a class that is there is kept, however bad: of a model that predicts the negative class alone, recall is 0.

Shapes: N records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.learning.tasks._task import Figure, Measured

_BINS: Final = 15


def _accuracy(found: Measured) -> float:
    return float((found.target_N == found.answer_N.argmax(axis=1)).mean())


def _by_class(found: Measured) -> dict[str, float]:
    """Return precision, recall and F1, each where it is defined."""
    classes = found.answer_N.shape[1]
    pair_N = found.target_N * classes + found.answer_N.argmax(axis=1)
    counted = np.bincount(pair_N, minlength=classes**2).reshape(classes, classes)
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
    if not _all_there(found):
        return None
    if score.shape[1] == 2:
        return _area(found.target_N == 1, score[:, 1])
    return float(np.mean([_area(found.target_N == one, score[:, one]) for one in range(score.shape[1])]))


def _area(is_positive_N: NDArray[np.bool_], score_N: NDArray[np.floating[Any]]) -> float:
    """Return the area under the ROC curve: how often a positive record's score is the higher one, and half of ties.

    From ranks, of equal scores their mean (Hanley and McNeil 1982; Mann and Whitney 1947).
    """
    _, place_N, count_S = np.unique(score_N, return_inverse=True, return_counts=True)
    rank_S = np.cumsum(count_S) - (count_S - 1) / 2
    positives = int(is_positive_N.sum())
    above = float(rank_S[place_N][is_positive_N].sum()) - positives * (positives + 1) / 2
    return above / (positives * (len(score_N) - positives))


def _one_hot(found: Measured) -> NDArray[np.int64]:
    return np.asarray(np.eye(found.answer_N.shape[1], dtype=np.int64)[found.target_N])


def _all_there(found: Measured) -> bool:
    """Return whether every class has a record."""
    return len(np.unique(found.target_N)) == int(found.answer_N.shape[1])


def _balanced_accuracy(found: Measured) -> float | None:
    if not _all_there(found):
        return None
    from sklearn import metrics  # a CPU second, which a run that does not ask for it is spared

    return float(metrics.balanced_accuracy_score(found.target_N, found.answer_N.argmax(axis=1)))


def _average_precision(found: Measured) -> float | None:
    if not _all_there(found):
        return None
    from sklearn import metrics  # a CPU second, which a run that does not ask for it is spared

    if found.answer_N.shape[1] == 2:
        return float(metrics.average_precision_score(found.target_N, found.answer_N[:, 1]))
    return float(metrics.average_precision_score(_one_hot(found), found.answer_N, average="macro"))


def recall_at(share: float, found: Measured) -> float | None:
    """Return which share of the positive records is among the alerts: the records of the highest scores.

    Of records with one score of which some are alerts and some are not, each counts with that share: as on average over
    all orders.

    Args:
        share: Of the records that are alerts, rounded down to whole records.
        found: Scores of two classes.
    """
    score_N, is_positive_N = found.answer_N[:, 1], found.target_N == 1
    alerts = int(share * len(score_N) + 1e-9)  # 0.05 of 100 is 5
    if not alerts or not is_positive_N.any():
        return None
    last = np.sort(score_N)[-alerts]
    above_N, at_N = score_N > last, score_N == last
    caught = is_positive_N[above_N].sum() + is_positive_N[at_N].sum() * (alerts - above_N.sum()) / at_N.sum()
    return float(caught / is_positive_N.sum())


def cost_at(ratio: float, found: Measured) -> float:
    """Return what is paid, over what would be if every record were wrong (Drummond and Holte 2006, section 2).

    A record is called positive where its score is over 1 / (1 + ratio). No other threshold costs less on average where
    scores are true probabilities (Elkan 2001), so that a score which is not calibrated pays for it here.

    Args:
        ratio: How many false alarms a missed positive record costs as much as.
        found: Scores of two classes.
    """
    is_called_N, is_positive_N = found.answer_N[:, 1] > 1 / (1 + ratio), found.target_N == 1
    paid = ratio * (is_positive_N & ~is_called_N).sum() + (~is_positive_N & is_called_N).sum()
    return float(paid / (ratio * is_positive_N.sum() + (~is_positive_N).sum()))


def _are_probabilities(found: Measured) -> bool:
    return found.answer_N.shape[1] == 2 or found.loss != "mse"


def _brier(found: Measured) -> float | None:
    """Return the mean squared distance from the truth: of two classes of the positive one, of more over all of them."""
    if found.answer_N.shape[1] == 2:
        return float(np.square(found.answer_N[:, 1].astype(np.float64) - (found.target_N == 1)).mean())
    if not _are_probabilities(found):
        return None
    return float(np.square(found.answer_N - _one_hot(found)).sum(axis=1).mean())


def calibration_error(sure_N: NDArray[np.floating[Any]], is_right_N: NDArray[np.bool_]) -> float:
    """Return the expected calibration error in 15 bins of one width (Guo et al. 2017, section 2).

    Args:
        sure_N: How probable each answer is said to be, in [0, 1]; a bin holds its upper end.
        is_right_N: Whether it is right.
    """
    bin_N = np.clip(np.ceil(sure_N.astype(np.float64) * _BINS).astype(np.intp) - 1, 0, _BINS - 1)
    off_K = np.bincount(bin_N, weights=is_right_N - sure_N.astype(np.float64), minlength=_BINS)
    return float(np.abs(off_K).sum() / len(sure_N))


def _calibration_error(found: Measured) -> float | None:
    """Return that of the class that is predicted."""
    if not _are_probabilities(found):
        return None
    return calibration_error(found.answer_N.max(axis=1), found.answer_N.argmax(axis=1) == found.target_N)


FIGURES: Final[Mapping[str, Figure]] = {
    "accuracy": _accuracy,
    "precision": lambda found: _by_class(found).get("precision"),
    "recall": lambda found: _by_class(found).get("recall"),
    "f1": lambda found: _by_class(found).get("f1"),
    "auroc": _auroc,
    "balanced-accuracy": _balanced_accuracy,
    "average-precision": _average_precision,
    "brier": _brier,
    "calibration-error": _calibration_error,
}
