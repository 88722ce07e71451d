"""Lower bounds from two groups of scores: those of canaries that were in, and of those that were not.

    clopper_pearson   error rates of a threshold           Clopper, Pearson 1934; Nasr et al. 2021, 2101.04535
    gaussian          separation of scores that are normal

Both take scores as independent of each other, which canaries of one run need not be: they are customs of the field, and
`fedmodel.audit.guesses` is what holds without that.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import betainccinv

from fedmodel.audit.arguments import check_delta, check_significance, group
from fedmodel.errors import ConfigError

_LARGEST_STATISTIC = 1e4  # past 1e6 the noncentral t distribution is wrong in its first digits


def clopper_pearson_epsilon(in_scores: ArrayLike, out_scores: ArrayLike, delta: float, significance: float) -> float:
    """Bound epsilon by the error rates of a threshold on the scores.

    log((t - delta) / f), with t a lower limit of the true positive rate and f an upper limit of the false positive rate
    (Clopper and Pearson 1934, used so by Jagielski, Ullman and Oprea 2020, and Nasr et al. 2021). The best threshold
    counts; the significance is divided by twice the number of vertices of the convex hull of the ROC curve, as
    jax-privacy does.

    Guarantee: at confidence 1 - significance, if canaries' scores are independent of each other, and if thresholds had
    been fixed before: they are read off the same scores, so this is a custom of the field and not a theorem.

    Args:
        in_scores: Finite scores of canaries that were in, one at least.
        out_scores: Finite scores of canaries that were not, one at least.
        delta: In [0, 1).
        significance: In (0, 1).

    Returns:
        Epsilon, in nats; 0 where no threshold tells anything.

    Raises:
        ConfigError: When a group is empty, a score is not finite, or delta or the significance is out of range.
    """
    in_I, out_O = group("in", in_scores), group("out", out_scores)
    check_delta(delta)
    check_significance(significance)
    levels = np.append(np.union1d(in_I, out_O), math.inf)
    missed = np.searchsorted(np.sort(in_I), levels)  # in, and below the level
    passed = np.searchsorted(np.sort(out_O), levels)  # out, and below it
    corners = _hull(missed, passed)
    each = significance / (2 * len(corners))
    true_positive = 1 - _upper_limit(missed[corners], in_I.size, each)
    false_positive = _upper_limit(out_O.size - passed[corners], out_O.size, each)
    useful = true_positive > delta
    if not useful.any():
        return 0.0
    return max(0.0, float(np.max(np.log((true_positive[useful] - delta) / false_positive[useful]))))


def gaussian_mu(in_scores: ArrayLike, out_scores: ArrayLike, significance: float) -> float:
    """Return a lower confidence limit of (mean in - mean out) / common standard deviation.

    Two normal groups of one variance have a Student statistic that is noncentral t, its noncentrality in proportion to
    the separation. The limit is the separation at which a statistic as large as this one has probability
    `significance`, with no approximation; `scipy.stats.nct` agrees with a direct integral to 1e-10 for 10 to 30,000
    canaries.

    Guarantee: at confidence 1 - significance, under a Gaussian score model: scores are independent and normal, both
    groups with one variance. Where they are not, it may be any number.

    Args:
        in_scores: Finite scores of canaries that were in, one at least.
        out_scores: Finite scores of canaries that were not, one at least; three with those that were in.
        significance: In (0, 1).

    Returns:
        The limit, 0 where it would be negative.

    Raises:
        ConfigError: When a group is empty, a score is not finite, scores do not vary within the groups, or the
            significance is out of range.
    """
    in_I, out_O = group("in", in_scores), group("out", out_scores)
    check_significance(significance)
    degrees = in_I.size + out_O.size - 2
    squares = float(np.sum((in_I - in_I.mean()) ** 2) + np.sum((out_O - out_O.mean()) ** 2))
    if degrees < 1 or not squares > 0:
        raise ConfigError(
            "scores do not vary within the groups, so nothing is known of their spread; use more canaries"
        )
    unit = math.sqrt(1 / in_I.size + 1 / out_O.size)  # standard error of a difference of means
    statistic = float(in_I.mean() - out_O.mean()) / math.sqrt(squares / degrees) / unit
    statistic = min(statistic, _LARGEST_STATISTIC)  # a smaller one has a smaller limit, which holds as well
    if stats.t.sf(statistic, degrees) >= significance:
        return 0.0
    above = max(statistic, 1.0)
    while stats.nct.sf(statistic, degrees, above) <= significance:
        above *= 2
    limit = brentq(lambda shift: stats.nct.sf(statistic, degrees, shift) - significance, 0.0, above, xtol=1e-10)
    return float(limit) * unit


def _hull(across: NDArray[np.intp], up: NDArray[np.intp]) -> list[int]:
    """Return which of these points, both coordinates rising, are corners of their upper convex hull, ends included."""
    kept: list[int] = []
    x, y = across.tolist(), up.tolist()
    for new in range(len(x)):
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (y[b] - y[a]) * (x[new] - x[b]) > (y[new] - y[b]) * (x[b] - x[a]):
                break
            kept.pop()
        kept.append(new)
    return kept


def _upper_limit(events: NDArray[np.intp], trials: int, significance: float) -> NDArray[np.float64]:
    """Return Clopper and Pearson's one-sided upper limit of a rate."""
    # Where every trial was an event the limit is 1; the other branch is not defined there.
    full = events == trials
    limit: NDArray[np.float64] = betainccinv(events + 1, np.where(full, 1, trials - events), significance)
    return np.where(full, 1.0, limit)
