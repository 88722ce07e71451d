"""Lower bounds on epsilon, from what an attacker scored and which canaries were really in.

Every canary's coin was fair and secret; the attacker has one score for each, higher where it looks to be in. Four ways
lead from there to a number that a claim of privacy can be held against:

    steinke           guesses in one run, any (epsilon, delta)     Steinke, Nasr, Jagielski 2023, arXiv 2305.08846
    fdp               guesses in one run, a trade-off curve        Mahloujifar, Melis, Chaudhuri 2024, arXiv 2410.22235
    clopper_pearson   error rates of a threshold                   Clopper, Pearson 1934; Nasr et al. 2021, 2101.04535
    gaussian          separation of scores that are normal         mu-GDP of Dong, Roth, Su 2019, arXiv 1905.02383

What a lower bound means: a mechanism whose true epsilon lies below it gives so high a bound in at most a share
`significance` of runs. A bound of 0, or one far under a claim, says nothing for the claim: the attack may be weak.
Each bound has its confidence by itself; the largest of the four has not. How many guesses are made is fixed before
scores are seen; a number picked by looking at results voids `steinke` and `fdp`.

On the Gaussian mechanism with 1,000 canaries and 100 guesses, at delta 1e-5, 95% confidence and a true epsilon of 2, 4
and 8, medians are .65/1.54/3.00 for steinke, .93/2.32/4.73 for fdp and 1.55/3.47/7.31 for gaussian (4,000 runs).

It does not protect against a score that saw a coin, and cannot tell whether coins were fair.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import betainc, betainccinv, expit, log_ndtr

from fedmodel.errors import ConfigError

_HALVINGS = 40  # of a bracket: epsilon and mu are found to 1e-11 of their size
_LARGEST_STATISTIC = 1e4  # past 1e6 the noncentral t distribution is wrong in its first digits
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Guesses:
    """How a fixed number of guesses came out; a canary that none was made about counts as abstained from.

    Raises:
        ConfigError: When not 0 <= correct <= made <= canaries, or nothing was guessed.
    """

    canaries: int
    made: int
    correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.made <= self.canaries or self.made < 1:
            raise ConfigError(
                f"{self.correct} correct of {self.made} guesses about {self.canaries} canaries cannot be;"
                " at least one is made, and at most one a canary"
            )


@dataclass(frozen=True)
class Bound:
    """A lower bound on epsilon. `mu` is the Gaussian trade-off curve's, where epsilon was read off one."""

    name: str
    epsilon: float
    confidence: float
    assumption: str
    mu: float | None


def guess(scores_M: ArrayLike, coins_M: ArrayLike, made: int) -> Guesses:
    """Guess "in" for the made / 2 highest scores and "out" for as many lowest, and count what is right.

    Ties are broken against the attacker. Any tie-break that cannot see coins has at least as many correct, so what the
    tests guarantee holds for this count too.

    >>> guess([0.1, 2.0, 0.3, 1.7], [False, True, True, False], 2)
    Guesses(canaries=4, made=2, correct=2)

    Args:
        scores_M: A finite score for each of M canaries.
        coins_M: M booleans, true where the canary was in.
        made: Even, from 2 to M, and fixed before scores are seen.

    Returns:
        The counts.

    Raises:
        ConfigError: When lengths differ, a score is not finite, all coins are alike, or `made` is out of range.
    """
    scores_M, coins_M = _scored(scores_M, coins_M)
    if made % 2 or not 2 <= made <= scores_M.size:
        raise ConfigError(
            f"{made} guesses about {scores_M.size} canaries: the number is even, at least 2 and at most the canaries'"
        )
    # Rising; of equal scores those that are in come first, where "out" is guessed.
    ranked_M = coins_M[np.lexsort((~coins_M, scores_M))]
    half = made // 2
    return Guesses(scores_M.size, made, int(np.sum(~ranked_M[:half]) + np.sum(ranked_M[-half:])))


def steinke_p(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Bound how likely so many correct guesses are under (epsilon, delta).

    Steinke, Nasr and Jagielski 2023, theorem 5.2: a binomial tail at the rate of randomised response, and a term of
    2 m delta times the largest average of the probabilities just under it, for all m canaries and not only for those
    that were guessed about.

    Guarantee: for any mechanism that is (epsilon, delta)-DP to add or to remove one canary, and any attack on one run,
    the probability of at least `correct` right guesses is at most this. Scores may depend on each other; coins do not.

    Args:
        guesses: What was guessed.
        epsilon: At least 0.
        delta: In [0, 1).

    Returns:
        A p-value, in [0, 1].

    Raises:
        ConfigError: When epsilon or delta is out of range.
    """
    _at_least_0("epsilon", epsilon)
    _check_delta(delta)
    made, correct = guesses.made, guesses.correct
    if correct == 0:
        return 1.0
    rate = float(expit(epsilon))
    tail = float(betainc(correct, made - correct + 1, rate))
    under = np.cumsum(stats.binom.pmf(np.arange(correct - 1, -1, -1), made, rate))
    slope = float(np.max(under / np.arange(1, correct + 1)))
    return min(1.0, tail + 2 * guesses.canaries * delta * slope)


def steinke_epsilon(guesses: Guesses, delta: float, significance: float) -> float:
    """Return the largest epsilon that `steinke_p` rejects at the significance, 0 where it rejects none.

    Guarantee: a lower bound on the epsilon of the mechanism at this delta, at confidence 1 - significance, whatever
    the mechanism and the scores. It is loose for the Gaussian mechanism, the more so the more guesses are made.

    Args:
        guesses: What was guessed.
        delta: In [0, 1).
        significance: In (0, 1).

    Returns:
        Epsilon, in nats.

    Raises:
        ConfigError: When delta or the significance is out of range.
    """
    _check_significance(significance)
    return _largest(lambda epsilon: steinke_p(guesses, epsilon, delta) <= significance)


def fdp_rejects(guesses: Guesses, mu: float, significance: float) -> bool:
    """Say whether so many correct guesses are too many for mu-GDP.

    Mahloujifar, Melis and Chaudhuri 2024, their `audit_rh_with_cap` for two alternatives. Let r_j and w_j be the chance
    that a canary is guessed right, or wrong, while j guesses or more are right, averaged over canaries. The trade-off
    curve bounds w_j from below by what goes with r_(j+1); and what runs with just j right guesses add to r is
    j / (made - j) times what they add to w. If as many as `correct` had more than the significance for a probability,
    both would add up, on the way down to j = 0, to more than there are guesses: so they have not.

    Guarantee: a mechanism that is mu-GDP to add or to remove one canary is rejected in at most a share `significance`
    of runs. Scores may depend on each other; coins do not.

    Args:
        guesses: What was guessed.
        mu: At least 0.
        significance: In (0, 1).

    Returns:
        True where mu-GDP is rejected.

    Raises:
        ConfigError: When mu or the significance is out of range.
    """
    _at_least_0("mu", mu)
    _check_significance(significance)
    made, correct = guesses.made, guesses.correct
    most = made / guesses.canaries
    right, wrong = significance * correct / guesses.canaries, significance * (made - correct) / guesses.canaries
    # Plain floats: steps come one after the other, and a call into numpy or scipy costs more than a step.
    for count in range(correct - 1, -1, -1):
        if right + wrong > most:
            return True  # neither ever falls
        least = math.erfc((mu - _NORMAL.inv_cdf(right)) / math.sqrt(2)) / 2
        if least <= wrong:
            return False  # neither can rise any more
        right += count / (made - count) * (least - wrong)
        wrong = least
    return right + wrong > most


def fdp_mu(guesses: Guesses, significance: float) -> float:
    """Return the largest mu that `fdp_rejects` rejects, 0 where it rejects none.

    Guarantee: a mechanism that is as private as a Gaussian one gives a bound above its own mu in at most a share
    `significance` of runs.

    Args:
        guesses: What was guessed.
        significance: In (0, 1).

    Returns:
        mu, in standard deviations; `gdp_epsilon` reads epsilon off it.

    Raises:
        ConfigError: When the significance is out of range.
    """
    return _largest(lambda mu: fdp_rejects(guesses, mu, significance))


def least_correct(canaries: int, made: int, mu: float, significance: float) -> int:
    """Return the fewest correct guesses with which `fdp_rejects` rejects mu-GDP; made + 1 where none do.

    Args:
        canaries: All of them.
        made: How many are guessed about, from 1 to all.
        mu: At least 0.
        significance: In (0, 1).

    Returns:
        A number from 1 to made + 1.

    Raises:
        ConfigError: When an argument is out of range.
    """
    too_few, enough = 0, made + 1
    if not fdp_rejects(Guesses(canaries, made, made), mu, significance):
        return enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        rejected = fdp_rejects(Guesses(canaries, made, middle), mu, significance)
        too_few, enough = (too_few, middle) if rejected else (middle, enough)
    return enough


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
    in_I, out_O = _group("in", in_scores), _group("out", out_scores)
    _check_delta(delta)
    _check_significance(significance)
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
    in_I, out_O = _group("in", in_scores), _group("out", out_scores)
    _check_significance(significance)
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


def gdp_delta(mu: float, epsilon: float) -> float:
    """Return the least delta of mu-GDP at an epsilon.

    Balle and Wang 2018 (arXiv 1805.06530), theorem 8, with mu = sensitivity / standard deviation; Dong, Roth and Su
    2019, corollary 2.13.

    >>> round(gdp_delta(1.0, 1.0), 6)
    0.126937

    Args:
        mu: At least 0.
        epsilon: At least 0.

    Returns:
        Delta, in [0, 1].

    Raises:
        ConfigError: When mu or epsilon is out of range.
    """
    _at_least_0("mu", mu)
    _at_least_0("epsilon", epsilon)
    if mu == 0:
        return 0.0
    high = float(log_ndtr(mu / 2 - epsilon / mu))
    low = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    # By logarithms: e^epsilon alone overflows, and the two may differ in their last digits only.
    return 0.0 if high < -745 else math.exp(high) * -math.expm1(min(0.0, low - high))


def gdp_epsilon(mu: float, delta: float) -> float:
    """Return the least epsilon of mu-GDP at a delta: `gdp_delta` the other way round, 0 where delta is enough for 0.

    >>> round(gdp_epsilon(1.0, 1e-5), 4)
    4.3772

    Args:
        mu: At least 0.
        delta: In (0, 1); mu-GDP has no epsilon at delta 0.

    Returns:
        Epsilon, in nats.

    Raises:
        ConfigError: When mu or delta is out of range.
    """
    if not 0 < delta < 1:
        raise ConfigError(f"delta = {delta} is out of range; an epsilon of mu-GDP needs one between 0 and 1")
    if gdp_delta(mu, 0.0) <= delta:
        return 0.0
    enough = mu * (mu / 2 - _NORMAL.inv_cdf(delta))  # where the first of the two terms alone is delta
    return float(brentq(lambda epsilon: gdp_delta(mu, epsilon) - delta, 0.0, enough, xtol=1e-12))


def lower_bounds(
    scores_M: ArrayLike, coins_M: ArrayLike, made: int, delta: float, significance: float
) -> dict[str, Bound]:
    """Return all four lower bounds on epsilon at a delta, by name; each has its confidence by itself.

    Args:
        scores_M: A finite score for each of M canaries, higher where it looks to be in.
        coins_M: M booleans, true where the canary was in.
        made: How many guesses: even, from 2 to M, and fixed before scores are seen.
        delta: In (0, 1).
        significance: In (0, 1).

    Returns:
        "steinke", "fdp", "clopper_pearson" and "gaussian", in this order.

    Raises:
        ConfigError: When an argument is of no use; the message says which.
    """
    made_M = guess(scores_M, coins_M, made)
    scores_M, coins_M = _scored(scores_M, coins_M)
    in_I, out_O = scores_M[coins_M], scores_M[~coins_M]
    fdp, gaussian = fdp_mu(made_M, significance), gaussian_mu(in_I, out_O, significance)
    rows: list[tuple[str, float, str, float | None]] = [
        ("steinke", steinke_epsilon(made_M, delta, significance), "coins are fair and secret", None),
        ("fdp", gdp_epsilon(fdp, delta), "epsilon is read off the Gaussian trade-off family", fdp),
        (
            "clopper_pearson",
            clopper_pearson_epsilon(in_I, out_O, delta, significance),
            "canaries are taken as independent, and thresholds as if fixed beforehand",
            None,
        ),
        ("gaussian", gdp_epsilon(gaussian, delta), "under a Gaussian score model", gaussian),
    ]
    return {name: Bound(name, value, 1 - significance, why, mu) for name, value, why, mu in rows}


def _largest(rejected: Callable[[float], bool]) -> float:
    """Return the end of what is rejected from 0 on, from below; 0 where nothing is."""
    lower, upper = 0.0, 1.0
    while rejected(upper):
        lower, upper = upper, 2 * upper
    for _ in range(_HALVINGS):
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if rejected(middle) else (lower, middle)
    return lower


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


def _scored(scores_M: ArrayLike, coins_M: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores and coins as arrays of one length, or refuse them."""
    scores, coins = _group("canaries'", scores_M), np.asarray(coins_M)
    if coins.dtype != np.bool_ or coins.shape != scores.shape:
        raise ConfigError(
            f"{scores.size} scores and {coins.size} coins of type {coins.dtype}; there is one boolean coin a score"
        )
    if coins.all() or not coins.any():
        raise ConfigError(f"all {coins.size} coins are alike, so there is nothing to tell apart; use more canaries")
    return scores, coins


def _group(name: str, scores: ArrayLike) -> NDArray[np.float64]:
    """Return scores as an array, or refuse them."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ConfigError(
            f"{name} scores of shape {array.shape} are of no use; they are a list of finite numbers, not empty"
        )
    return array


def _at_least_0(name: str, value: float) -> None:
    """Refuse what is negative, infinite or not a number."""
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} = {value} is out of range; it is at least 0 and finite")


def _check_delta(delta: float) -> None:
    """Refuse a delta outside [0, 1)."""
    if not 0 <= delta < 1:
        raise ConfigError(f"delta = {delta} is out of range; it is at least 0 and less than 1")


def _check_significance(significance: float) -> None:
    """Refuse a significance outside (0, 1)."""
    if not 0 < significance < 1:
        raise ConfigError(f"significance = {significance} is out of range; it lies between 0 and 1")
