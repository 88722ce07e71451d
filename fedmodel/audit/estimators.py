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

from dataclasses import dataclass

from numpy.typing import ArrayLike

from fedmodel.audit.arguments import scored
from fedmodel.audit.gdp import gdp_epsilon
from fedmodel.audit.guesses import fdp_mu, guess, steinke_epsilon
from fedmodel.audit.two_groups import clopper_pearson_epsilon, gaussian_mu


@dataclass(frozen=True)
class Bound:
    """A lower bound on epsilon. `mu` is the Gaussian trade-off curve's, where epsilon was read off one."""

    name: str
    epsilon: float
    confidence: float
    assumption: str
    mu: float | None


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
    scores_M, coins_M = scored(scores_M, coins_M)
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
