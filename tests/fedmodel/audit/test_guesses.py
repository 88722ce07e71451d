"""Bounds from guesses are what the papers say, and hold as often as they say."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedmodel.audit.gdp import gdp_epsilon
from fedmodel.audit.guesses import (
    Guesses,
    fdp_mu,
    fdp_rejects,
    guess,
    least_correct,
    steinke_epsilon,
    steinke_p,
)
from fedmodel.audit.two_groups import gaussian_mu
from tests.fedmodel.audit.canary_scores import gaussian_run, mu_of

# What jax-privacy answers, with its version; to how many decimals ours must be the same.
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "audit.json").read_text())
DECIMALS = 5e-5

SIGNIFICANCES = st.floats(1e-6, 0.45)
MUS = st.floats(0.0, 6.0)
EPSILONS = st.floats(0.0, 12.0)
DELTAS = st.sampled_from([0.0, 1e-5, 1e-3])


@st.composite
def guesses(draw: st.DrawFn) -> Guesses:
    """At least one right, so that there is one to take away."""
    canaries = draw(st.integers(1, 400))
    made = draw(st.integers(1, canaries))
    return Guesses(canaries, made, draw(st.integers(1, made)))


def one_fewer(made: Guesses) -> Guesses:
    return Guesses(made.canaries, made.made, made.correct - 1)


# jax-privacy


def test_steinke_is_jax_privacys() -> None:
    for canaries, made, correct, delta, significance, epsilon in VECTORS["steinke"]:
        ours = steinke_epsilon(Guesses(canaries, made, correct), delta, significance)
        assert ours == pytest.approx(epsilon, abs=DECIMALS), (canaries, made, correct, delta, significance)


def test_fdp_is_jax_privacys() -> None:
    for canaries, made, correct, delta, significance, epsilon in VECTORS["fdp"]:
        ours = gdp_epsilon(fdp_mu(Guesses(canaries, made, correct), significance), delta)
        assert ours == pytest.approx(epsilon, abs=DECIMALS), (canaries, made, correct, delta, significance)


def test_vectors_say_something() -> None:
    assert "commit 8967688c" in VECTORS["source"]
    for name in ("steinke", "fdp"):
        rows = VECTORS[name]
        assert len(rows) > 250
        assert sum(row[-1] > 0 for row in rows) > 100
        assert {row[3] for row in rows} >= {1e-5, 1e-3}
        assert {row[4] for row in rows} == {0.05, 0.01}


# Guesses


def test_highest_are_guessed_in_and_lowest_out() -> None:
    scores = [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    assert guess(scores, [True, True, True, False, False, False], 6) == Guesses(6, 6, 6)
    assert guess(scores, [False, False, False, True, True, True], 6) == Guesses(6, 6, 0)
    # Of the two in the middle neither is guessed about.
    assert guess(scores, [True, True, False, True, False, False], 4) == Guesses(6, 4, 4)
    assert guess(scores, [True, False, False, True, True, True], 2) == Guesses(6, 2, 1)


def test_ties_are_broken_against_the_attacker() -> None:
    coins = np.array([True, False] * 4)
    assert guess(np.zeros(8), coins, 8).correct == 0
    assert guess(np.zeros(8), coins, 2).correct == 0
    # One in the middle of a tie at the top, and one at the bottom.
    assert guess([1, 1, 0, 0], [True, False, True, False], 2).correct == 0
    assert guess([1, 1, 0, 0], [True, False, True, False], 4).correct == 2


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=30), st.data())
def test_no_tie_break_has_fewer_correct(rows: list[tuple[int, bool]], data: st.DataObject) -> None:
    scores, coins = np.array([row[0] for row in rows], dtype=float), np.array([row[1] for row in rows])
    if coins.all() or not coins.any():
        coins[0] = not coins[0]
    made = 2 * data.draw(st.integers(1, len(rows) // 2))
    apart = scores + 1e-3 * np.array(data.draw(st.permutations(range(len(rows)))))
    assert guess(scores, coins, made).correct <= guess(apart, coins, made).correct
    # Turned round, every guess that was right is wrong.
    assert guess(-apart, coins, made).correct == made - guess(apart, coins, made).correct


# One run, any (epsilon, delta)


def test_steinke_p_by_hand() -> None:
    # At epsilon 0 each guess is right half of the time: 1/4 for both, and then 1/2 for just one, 3/4 for none or one.
    assert steinke_p(Guesses(10, 2, 2), 0.0, 0.0) == pytest.approx(0.25)
    assert steinke_p(Guesses(10, 2, 2), 0.0, 0.01) == pytest.approx(0.25 + 2 * 10 * 0.01 * 0.5)
    # Of 3 at a rate of 3/4: 27/64 for all, and 27/64 for two; it is less on average with one and none.
    assert steinke_p(Guesses(7, 3, 3), math.log(3), 0.01) == pytest.approx(27 / 64 * (1 + 2 * 7 * 0.01))
    # All of 4 at 1/2: 1/16, then 4/16, 10/16, 14/16, 15/16 over 1, 2, 3, 4: the second is the largest.
    assert steinke_p(Guesses(9, 4, 4), 0.0, 0.01) == pytest.approx(1 / 16 + 2 * 9 * 0.01 * 5 / 16)
    assert steinke_p(Guesses(10, 4, 0), 1.0, 1e-5) == 1.0
    assert steinke_p(Guesses(10_000, 100, 90), 1.0, 0.9) == 1.0


@given(st.integers(1, 60), st.data(), EPSILONS)
def test_steinke_without_delta_is_the_binomial_tail(made: int, data: st.DataObject, epsilon: float) -> None:
    correct = data.draw(st.integers(0, made))
    rate = 1 / (1 + math.exp(-epsilon))
    tail = sum(math.comb(made, j) * rate**j * (1 - rate) ** (made - j) for j in range(correct, made + 1))
    assert steinke_p(Guesses(100, made, correct), epsilon, 0.0) == pytest.approx(tail, rel=1e-9, abs=1e-15)


@given(guesses(), EPSILONS, DELTAS)
def test_steinke_p_falls_with_more_correct_and_rises_with_epsilon_and_delta(
    made: Guesses, epsilon: float, delta: float
) -> None:
    p = steinke_p(made, epsilon, delta)
    assert p <= steinke_p(made, epsilon, delta + 1e-4)
    # Where p is a half or more nothing is rejected, and the term with delta may fall again.
    if p < 0.5:
        assert p <= steinke_p(one_fewer(made), epsilon, delta) + 1e-12
        assert p <= steinke_p(made, epsilon + 0.01, delta) + 1e-12


@given(guesses(), DELTAS, SIGNIFICANCES)
def test_steinke_epsilon_is_where_rejection_ends(made: Guesses, delta: float, significance: float) -> None:
    bound = steinke_epsilon(made, delta, significance)
    if bound > 0:
        assert steinke_p(made, bound, delta) <= significance
    assert steinke_p(made, bound + 1e-6, delta) > significance
    assert steinke_epsilon(one_fewer(made), delta, significance) <= bound


# One run, a trade-off curve


@given(st.floats(0.51, 0.999))
def test_fdp_of_one_guess_in_closed_form(significance: float) -> None:
    # A lone guess about a Gaussian is right with probability Phi(mu / 2), and not more often.
    expected = 2 * stats.norm.ppf(significance)
    assert fdp_mu(Guesses(1, 1, 1), significance) == pytest.approx(expected, abs=1e-8)


@given(guesses(), MUS, SIGNIFICANCES)
def test_fdp_rejects_less_with_fewer_correct_a_larger_mu_or_a_smaller_significance(
    made: Guesses, mu: float, significance: float
) -> None:
    if not fdp_rejects(made, mu, significance):
        assert not fdp_rejects(one_fewer(made), mu, significance)
        assert not fdp_rejects(made, mu + 0.01, significance)
        assert not fdp_rejects(made, mu, 0.9 * significance)


@given(guesses(), SIGNIFICANCES)
def test_fdp_mu_is_where_rejection_ends(made: Guesses, significance: float) -> None:
    bound = fdp_mu(made, significance)
    assert bound == 0 or fdp_rejects(made, bound, significance)
    assert not fdp_rejects(made, bound + 1e-6, significance)
    assert fdp_mu(one_fewer(made), significance) <= bound


@given(st.integers(1, 400), st.data(), MUS, SIGNIFICANCES)
def test_least_correct_is_the_first_that_rejects(
    canaries: int, data: st.DataObject, mu: float, significance: float
) -> None:
    made = data.draw(st.integers(1, canaries))
    least = least_correct(canaries, made, mu, significance)
    assert 1 <= least <= made + 1
    assert least > made or fdp_rejects(Guesses(canaries, made, least), mu, significance)
    assert not fdp_rejects(Guesses(canaries, made, least - 1), mu, significance)


def test_least_correct_past_the_end_where_none_is_enough() -> None:
    assert least_correct(1_000, 10, 5.0, 0.05) == 11
    assert least_correct(1_000, 100, 0.5, 0.05) <= 100


# How often they hold, and how much they see


@pytest.mark.parametrize("epsilon", [2, 4, 8])
def test_false_alarms_are_one_in_a_hundred_at_most(epsilon: int) -> None:
    """300 correct runs, with as many guesses as the medians are measured with, and with one in five."""
    rng, mu = np.random.default_rng(5), mu_of(epsilon, 1e-5)
    alarms: dict[str, int] = {}
    for _ in range(300):
        scores, coins = gaussian_run(rng, 1_000, mu)
        for made in (100, 200):
            counted = guess(scores, coins, made)
            for name, alarm in (
                (f"fdp {made}", counted.correct >= least_correct(1_000, made, mu, 0.05)),
                (f"steinke {made}", steinke_p(counted, epsilon, 1e-5) <= 0.05),
            ):
                alarms[name] = alarms.get(name, 0) + int(alarm)
    assert len(alarms) == 4
    assert max(alarms.values()) <= 3, alarms


def test_steinke_is_as_sharp_as_randomised_response_allows() -> None:
    rng, runs, epsilon, made = np.random.default_rng(7), 4_000, 1.0, 200
    rate = 1 / (1 + math.exp(-epsilon))
    correct = rng.binomial(made, rate, size=runs)
    rejected = np.mean([steinke_p(Guesses(made, made, int(count)), epsilon, 0.0) <= 0.05 for count in correct])
    # Up to one in twenty: what lattices leave of it, and five standard errors.
    assert 0.03 < rejected < 0.05 + 5 * math.sqrt(0.05 * 0.95 / runs)


EXPECTED = {
    2: {"steinke": 0.75, "fdp": 1.08, "gaussian": 1.53},
    4: {"steinke": 1.54, "fdp": 2.32, "gaussian": 3.41},
    8: {"steinke": 2.71, "fdp": 4.23, "gaussian": 7.34},
}


@pytest.mark.parametrize("true_epsilon", [2, 4, 8])
def test_medians_are_the_expected_ones(true_epsilon: int) -> None:
    """100 guesses about 1,000 canaries, delta 1e-5, 95% confidence, 400 runs.

    The expected figures are medians too, of few runs: for steinke and fdp they are the bounds of 76, 89 and 98 correct
    guesses of 100, to two decimals, where many runs have medians of 74, 89 and 99. A median of 25 runs lies between the
    quantiles 1/2 -+ 2.58 / (2 sqrt(25)) of a bound in 99 of 100 cases, and that is the tolerance.
    """
    rng, delta, runs = np.random.default_rng(2), 1e-5, 400
    mu = mu_of(true_epsilon, delta)

    @lru_cache
    def of_guesses(counted: Guesses) -> tuple[float, float]:
        return steinke_epsilon(counted, delta, 0.05), gdp_epsilon(fdp_mu(counted, 0.05), delta)

    rows = []
    for _ in range(runs):
        scores, coins = gaussian_run(rng, 1_000, mu)
        gaussian = gdp_epsilon(gaussian_mu(scores[coins], scores[~coins], 0.05), delta)
        rows.append((*of_guesses(guess(scores, coins, 100)), gaussian))
    away = 2.58 / (2 * math.sqrt(25))
    bounds = np.round(np.array(rows), 2)
    for name, column in zip(("steinke", "fdp", "gaussian"), bounds.T, strict=True):
        low, high = np.quantile(column, [0.5 - away, 0.5 + away])
        assert low <= EXPECTED[true_epsilon][name] <= high, (name, low, float(np.median(column)), high)
        # What lies above the truth does so by chance alone.
        assert np.mean(column > true_epsilon) < 0.05 + 5 * math.sqrt(0.05 * 0.95 / runs)


def test_bounds_that_the_expected_medians_stand_for() -> None:
    for correct, row in zip((76, 89, 98), EXPECTED.values(), strict=True):
        counted = Guesses(1_000, 100, correct)
        assert round(steinke_epsilon(counted, 1e-5, 0.05), 2) == row["steinke"]
        assert round(gdp_epsilon(fdp_mu(counted, 0.05), 1e-5), 2) == row["fdp"]
