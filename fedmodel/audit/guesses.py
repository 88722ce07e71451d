"""Lower bounds from guesses: of so many, made in one run about which canaries were in, how many were right.

    steinke   any (epsilon, delta)     Steinke, Nasr, Jagielski 2023, arXiv 2305.08846
    fdp       a trade-off curve        Mahloujifar, Melis, Chaudhuri 2024, arXiv 2410.22235

How many guesses are made is fixed before scores are seen; a number picked by looking at results voids both. They hold
whatever the scores are, and however they depend on each other: every canary's coin was fair and secret.

It does not protect against a score that saw a coin, and cannot tell whether coins were fair.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import betainc, expit

from fedmodel.audit.arguments import check_at_least_0, check_delta, check_significance, scored
from fedmodel.errors import ConfigError

_HALVINGS = 40  # of a bracket: epsilon and mu are found to 1e-11 of their size
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
    scores_M, coins_M = scored(scores_M, coins_M)
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
    check_at_least_0("epsilon", epsilon)
    check_delta(delta)
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
    check_significance(significance)
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
    check_at_least_0("mu", mu)
    check_significance(significance)
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


def _largest(rejected: Callable[[float], bool]) -> float:
    """Return the end of what is rejected from 0 on, from below; 0 where nothing is."""
    lower, upper = 0.0, 1.0
    while rejected(upper):
        lower, upper = upper, 2 * upper
    for _ in range(_HALVINGS):
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if rejected(middle) else (lower, middle)
    return lower
