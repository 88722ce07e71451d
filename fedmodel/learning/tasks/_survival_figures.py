"""Figures of survival curves.

| A figure         | Is left out where                                                                         |
|------------------|-------------------------------------------------------------------------------------------|
| concordance      | no two records can be compared                                                            |
| integrated Brier | nobody is looked at any more in an interval before the last, so that weights are infinite |

Shapes: N records, K intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.learning.tasks._task import Figure, Measured


def concordance(time_N: NDArray[Any], seen_N: NDArray[Any], risk_N: NDArray[Any]) -> float | None:
    """Return Harrell's C: of pairs that can be compared, the share in which who had the event first had more risk.

    A pair can be compared where the earlier time is an event's, or where both times are alike and one is an event's.
    Equal risks count one half.

    Args:
        time_N: When the event was, or until when nobody saw one.
        seen_N: Whether it is an event's.
        risk_N: What is compared; only the order counts.

    >>> concordance(np.array([1, 2, 3]), np.array([1, 1, 0]), np.array([3.0, 1.0, 1.0]))
    0.8333333333333334
    """
    pairs, right = 0, 0.0
    for time, risk in zip(time_N[seen_N == 1], risk_N[seen_N == 1], strict=True):
        later_N = (time_N > time) | ((time_N == time) & (seen_N == 0))
        pairs += int(later_N.sum())
        right += float((risk > risk_N[later_N]).sum()) + 0.5 * float((risk == risk_N[later_N]).sum())
    return right / pairs if pairs else None


def _concordance(found: Measured) -> float | None:
    """Harrell's C by intervals; risk is how little of the time a person is expected to be without the event."""
    return concordance(found.target_N // 2, found.target_N % 2, -found.answer_N.sum(axis=1))


def still_looked_at(interval_N: NDArray[Any], seen_N: NDArray[Any], intervals: int) -> NDArray[np.float64]:
    """Return the chance to be still looked at after each interval, by Kaplan and Meier; shape `(K,)`.

    Within an interval events come first, as is usual, so that who has one is not at risk to be lost sight of.
    """
    chance, curve_K = 1.0, np.empty(intervals)
    for interval in range(intervals):
        at_risk = int(((interval_N > interval) | ((interval_N == interval) & (seen_N == 0))).sum())
        lost = int(((interval_N == interval) & (seen_N == 0)).sum())
        chance *= 1 - lost / at_risk if at_risk else 1.0
        curve_K[interval] = chance
    return curve_K


def _integrated_brier(found: Measured) -> float | None:
    """The Brier score at each interval's end, weighed for who was lost sight of (Graf et al. 1999), averaged."""
    interval_N, seen_N = found.target_N // 2, found.target_N % 2
    intervals = found.answer_N.shape[1]
    looked_K = still_looked_at(interval_N, seen_N, intervals)
    if (looked_K[:-1] == 0).any():
        return None
    before_K = np.concatenate([[1.0], looked_K[:-1]])
    scores = []
    for end in range(intervals):
        without_N = interval_N > end
        event_N = (interval_N <= end) & (seen_N == 1)
        if looked_K[end] == 0 and without_N.any():
            return None
        survival_N = found.answer_N[:, end].astype(np.float64)
        missed = (survival_N[event_N] ** 2 / before_K[interval_N[event_N]]).sum()
        feared = ((1 - survival_N[without_N]) ** 2).sum() / looked_K[end] if without_N.any() else 0.0
        scores.append((missed + feared) / len(interval_N))
    return float(np.mean(scores))


FIGURES: Final[Mapping[str, Figure]] = {"concordance": _concordance, "integrated-brier": _integrated_brier}
