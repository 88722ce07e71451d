"""What the lower bounds on epsilon come to on a Gaussian mechanism, and what they cost.

    python benchmarks/audit_estimators.py

Prints medians of each bound over 400 runs of 1,000 canaries for three true epsilons and some numbers of guesses (delta
1e-5, 95% confidence); the power of the f-DP test where noise is half of what was claimed; and seconds for 10,000
canaries.
"""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from fedmodel.audit.estimators import lower_bounds
from fedmodel.audit.gdp import gdp_epsilon
from fedmodel.audit.guesses import Guesses, fdp_mu, fdp_rejects, guess, least_correct, steinke_epsilon
from fedmodel.audit.two_groups import clopper_pearson_epsilon, gaussian_mu

_CANARIES, _RUNS, _DELTA, _SIGNIFICANCE = 1_000, 400, 1e-5, 0.05
_MADE = (20, 50, 100, 200, 400, 1_000)
_SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_MUS = (0.3, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25)


@lru_cache
def _of_guesses(counted: Guesses) -> tuple[float, float]:
    """Return the two bounds from guesses; few outcomes come up, and many times."""
    return steinke_epsilon(counted, _DELTA, _SIGNIFICANCE), gdp_epsilon(fdp_mu(counted, _SIGNIFICANCE), _DELTA)


def _run(rng: np.random.Generator, canaries: int, mu: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a Gaussian mechanism's scores, and the coins."""
    coins = rng.random(canaries) < 0.5
    return rng.normal(size=canaries) + mu * coins, coins


def medians(epsilon: float) -> None:
    """Print the medians for one true epsilon."""
    rng = np.random.default_rng(6)
    mu = float(brentq(lambda mu: gdp_epsilon(mu, _DELTA) - epsilon, 1e-3, 50))
    of_guesses = np.empty((_RUNS, len(_MADE), 2))
    of_scores = np.empty((_RUNS, 2))
    for run in range(_RUNS):
        scores, coins = _run(rng, _CANARIES, mu)
        of_guesses[run] = [_of_guesses(guess(scores, coins, made)) for made in _MADE]
        in_scores, out_scores = scores[coins], scores[~coins]
        of_scores[run] = (
            clopper_pearson_epsilon(in_scores, out_scores, _DELTA, _SIGNIFICANCE),
            gdp_epsilon(gaussian_mu(in_scores, out_scores, _SIGNIFICANCE), _DELTA),
        )
    pearson, gaussian = np.median(of_scores, axis=0)
    print(f"true epsilon {epsilon} (mu {mu:.3f}): Clopper-Pearson {pearson:.2f}, Gaussian {gaussian:.2f}")
    for made, (steinke, fdp) in zip(_MADE, np.median(of_guesses, axis=0), strict=True):
        print(f"{made:>8,} guesses: Steinke {steinke:.2f}, f-DP {fdp:.2f}")


def power(claimed: float) -> None:
    """Print how often a claimed mu is rejected where noise is half of it, by the share of canaries guessed about."""
    rng, rows = np.random.default_rng(7), []
    runs = [_run(rng, _CANARIES, 2 * claimed) for _ in range(_RUNS)]
    for share in _SHARES:
        made = round(share * _CANARIES)
        least = least_correct(_CANARIES, made, claimed, _SIGNIFICANCE)
        rows.append(np.mean([guess(*run, made).correct >= least for run in runs]))
    print(f"{claimed:>8}" + "".join(f"{row:>6.2f}" for row in rows))


def main() -> None:
    """Print all of it."""
    for epsilon in (2, 4, 8):
        medians(epsilon)
    print("\npower against half the noise, by claimed mu and share guessed about\n        ", end="")
    print("".join(f"{share:>6}" for share in _SHARES))
    for claimed in _MUS:
        power(claimed)
    print()
    scores, coins = _run(np.random.default_rng(8), 10_000, 1.0)
    nearly = Guesses(10_000, 10_000, 5_500)  # among the slowest
    mu = fdp_mu(nearly, _SIGNIFICANCE)
    for name, call in (
        ("f-DP test", lambda: fdp_rejects(nearly, mu, _SIGNIFICANCE)),
        ("f-DP bound", lambda: fdp_mu(nearly, _SIGNIFICANCE)),
        ("all four bounds", lambda: lower_bounds(scores, coins, 2_000, _DELTA, _SIGNIFICANCE)),
    ):
        started = time.perf_counter()
        call()
        print(f"{name}, 10,000 canaries: {time.perf_counter() - started:.4f} s")


if __name__ == "__main__":
    main()
