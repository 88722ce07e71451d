"""Lower bounds on epsilon are what the papers say, hold as often as they say, and refuse what is of no use."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, optimize, stats

from fedmodel.audit.guesses import (
    Guesses,
    _upper_limit,
    clopper_pearson_epsilon,
    fdp_mu,
    fdp_rejects,
    gaussian_mu,
    gdp_delta,
    gdp_epsilon,
    guess,
    least_correct,
    lower_bounds,
    steinke_epsilon,
    steinke_p,
)
from fedmodel.errors import ConfigError

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


def gaussian_run(rng: np.random.Generator, canaries: int, mu: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A Gaussian mechanism's scores, and the coins."""
    coins = rng.random(canaries) < 0.5
    return rng.normal(size=canaries) + mu * coins, coins


def mu_of(epsilon: float, delta: float) -> float:
    return float(optimize.brentq(lambda mu: gdp_epsilon(mu, delta) - epsilon, 1e-3, 50))


# jax-privacy


def test_steinke_is_jax_privacys() -> None:
    for canaries, made, correct, delta, significance, epsilon in VECTORS["steinke"]:
        ours = steinke_epsilon(Guesses(canaries, made, correct), delta, significance)
        assert ours == pytest.approx(epsilon, abs=DECIMALS), (canaries, made, correct, delta, significance)


def test_fdp_is_jax_privacys() -> None:
    for canaries, made, correct, delta, significance, epsilon in VECTORS["fdp"]:
        ours = gdp_epsilon(fdp_mu(Guesses(canaries, made, correct), significance), delta)
        assert ours == pytest.approx(epsilon, abs=DECIMALS), (canaries, made, correct, delta, significance)


def test_clopper_pearson_is_jax_privacys() -> None:
    for row in VECTORS["clopper_pearson"]:
        for delta, significance, epsilon in row["epsilon"]:
            ours = clopper_pearson_epsilon(row["in"], row["out"], delta, significance)
            assert ours == pytest.approx(epsilon, abs=DECIMALS), (len(row["in"]), delta, significance)


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


# The Gaussian trade-off curve


@pytest.mark.parametrize(("mu", "epsilon"), [(0.1, 0.2), (0.5, 1.0), (1.0, 0.0), (1.0, 4.0), (3.0, 2.0), (6.0, 30.0)])
def test_gdp_delta_is_the_integral_it_stands_for(mu: float, epsilon: float) -> None:
    start = epsilon / mu + mu / 2  # where one density is e^epsilon times the other
    delta, _ = integrate.quad(
        lambda x: stats.norm.pdf(x - mu) - math.exp(epsilon) * stats.norm.pdf(x), start, start + 40, epsabs=0, limit=200
    )
    assert gdp_delta(mu, epsilon) == pytest.approx(delta, rel=1e-6)


def test_gdp_at_its_ends() -> None:
    assert gdp_delta(0.0, 0.0) == 0.0
    assert gdp_delta(1e-3, 50.0) == 0.0
    assert gdp_delta(1e-300, 1.0) == 0.0
    assert gdp_delta(200.0, 800.0) == pytest.approx(1.0)
    assert gdp_delta(2.0, 0.0) == pytest.approx(math.erf(1 / math.sqrt(2)))
    assert gdp_epsilon(0.0, 1e-5) == 0.0
    assert gdp_epsilon(0.1, 0.5) == 0.0
    assert gdp_epsilon(100.0, 1e-5) == pytest.approx(5_000 + 100 * 4.2649, rel=1e-3)


@given(st.floats(1e-3, 60.0), st.floats(1e-12, 0.5))
def test_gdp_epsilon_inverts_gdp_delta(mu: float, delta: float) -> None:
    epsilon = gdp_epsilon(mu, delta)
    if epsilon == 0:
        assert gdp_delta(mu, 0.0) <= delta
    else:
        assert gdp_delta(mu, epsilon) == pytest.approx(delta, rel=1e-6)
        assert gdp_epsilon(mu, delta / 2) > epsilon
        assert gdp_epsilon(1.01 * mu, delta) > epsilon


# Scores


def test_upper_limits_are_clopper_and_pearsons() -> None:
    limits = _upper_limit(np.arange(11), 10, 0.05)
    # The upper end of a two-sided interval at 90% is a one-sided limit at 95%.
    expected = [stats.binomtest(events, 10).proportion_ci(0.9, "exact").high for events in range(11)]
    assert limits == pytest.approx(expected)
    assert limits[-1] == 1.0


def test_clopper_pearson_of_groups_that_do_not_overlap() -> None:
    # The ROC curve has three corners, and both limits the same closed form.
    in_scores, out_scores = np.arange(10.0, 40.0), np.arange(-20.0, 10.0)
    least = (0.05 / 6) ** (1 / 30)
    for delta in (0.0, 1e-3):
        expected = math.log((least - delta) / (1 - least))
        assert clopper_pearson_epsilon(in_scores, out_scores, delta, 0.05) == pytest.approx(expected)
    assert clopper_pearson_epsilon(out_scores, in_scores, 0.0, 0.05) == 0.0
    assert clopper_pearson_epsilon(in_scores, out_scores, 0.99, 0.05) == 0.0


def t_tail(statistic: float, degrees: int, shift: float) -> float:
    """P[T >= statistic] for noncentral t, by an integral over the chi distribution of the deviation."""
    spread = stats.chi(degrees)

    def weighted(root: float) -> float:
        return float(spread.pdf(root) * stats.norm.sf(statistic * root / math.sqrt(degrees) - shift))

    ends = spread.ppf([1e-14, 1 - 1e-14])
    return integrate.quad(weighted, *ends, epsabs=1e-12, limit=400)[0]


@pytest.mark.parametrize("canaries", [6, 40, 1_000, 8_000])
@pytest.mark.parametrize("mu", [0.9, 3.0])
@pytest.mark.parametrize("significance", [0.05, 0.6])
def test_gaussian_mu_is_the_exact_limit(canaries: int, mu: float, significance: float) -> None:
    rng = np.random.default_rng(3)
    third = canaries // 3
    in_scores, out_scores = rng.normal(mu + 2, 1, third), rng.normal(2, 1, canaries - third)
    limit = gaussian_mu(in_scores, out_scores, significance)
    unit = math.sqrt(1 / third + 1 / (canaries - third))
    statistic = stats.ttest_ind(in_scores, out_scores).statistic
    if limit == 0:
        assert t_tail(statistic, canaries - 2, 0.0) >= significance
    else:
        assert t_tail(statistic, canaries - 2, limit / unit) == pytest.approx(significance, abs=1e-7)


@given(st.floats(0.01, 100.0), st.floats(-1e3, 1e3))
def test_gaussian_mu_knows_no_scale(scale: float, shift: float) -> None:
    scores, coins = gaussian_run(np.random.default_rng(1), 100, 2.0)
    limit = gaussian_mu(scores[coins], scores[~coins], 0.05)
    moved = scale * scores + shift
    assert 1 < limit < 2
    assert gaussian_mu(moved[coins], moved[~coins], 0.05) == pytest.approx(limit, rel=1e-6)
    assert gaussian_mu(moved[~coins], moved[coins], 0.05) == 0.0


def test_gaussian_mu_exceeds_the_truth_as_often_as_it_says() -> None:
    rng, runs, mu = np.random.default_rng(11), 1_500, 1.5
    above = 0
    for _ in range(runs):
        scores, coins = gaussian_run(rng, 60, mu)
        above += gaussian_mu(scores[coins], scores[~coins], 0.05) > mu
    # Exactly one in twenty, within five standard errors.
    assert abs(above / runs - 0.05) < 5 * math.sqrt(0.05 * 0.95 / runs)


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


# All of them


def test_lower_bounds_say_on_what_they_stand() -> None:
    scores, coins = gaussian_run(np.random.default_rng(9), 400, 2.5)
    bounds = lower_bounds(scores, coins, 100, 1e-5, 0.05)
    assert list(bounds) == ["steinke", "fdp", "clopper_pearson", "gaussian"]
    counted, in_scores, out_scores = guess(scores, coins, 100), scores[coins], scores[~coins]
    assert bounds["steinke"].epsilon == steinke_epsilon(counted, 1e-5, 0.05)
    assert bounds["fdp"].mu == fdp_mu(counted, 0.05)
    assert bounds["fdp"].epsilon == gdp_epsilon(fdp_mu(counted, 0.05), 1e-5)
    assert bounds["clopper_pearson"].epsilon == clopper_pearson_epsilon(in_scores, out_scores, 1e-5, 0.05)
    assert bounds["gaussian"].mu == gaussian_mu(in_scores, out_scores, 0.05)
    assert bounds["gaussian"].epsilon == gdp_epsilon(gaussian_mu(in_scores, out_scores, 0.05), 1e-5)
    assert bounds["gaussian"].assumption == "under a Gaussian score model"
    assert "Gaussian trade-off family" in bounds["fdp"].assumption
    assert "independent" in bounds["clopper_pearson"].assumption
    assert bounds["steinke"].mu is bounds["clopper_pearson"].mu is None
    assert all(bound.name == name and bound.confidence == 0.95 and bound.epsilon > 0 for name, bound in bounds.items())


# What is of no use

SCORES, COINS = [0.5, 1.0, 2.0, 3.0], [True, False, True, False]
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "lengths differ": (lambda: guess(SCORES, COINS[:3], 2), "4 scores and 3 coins"),
    "NaN": (lambda: guess([math.nan, *SCORES[1:]], COINS, 2), "finite"),
    "infinite": (lambda: guess([math.inf, *SCORES[1:]], COINS, 2), "finite"),
    "table": (lambda: guess([SCORES], [COINS], 2), "shape"),
    "coins of numbers": (lambda: guess(SCORES, [1, 0, 1, 0], 2), "type int64"),
    "too many": (lambda: guess(SCORES, COINS, 6), "6 guesses about 4 canaries: the number"),
    "odd": (lambda: guess(SCORES, COINS, 3), "even"),
    "none": (lambda: guess(SCORES, COINS, 0), "at least 2"),
    "all in": (lambda: guess(SCORES, [True] * 4, 2), "alike"),
    "all out": (lambda: guess(SCORES, [False] * 4, 2), "alike"),
    "more correct than made": (lambda: Guesses(10, 4, 5), "5 correct of 4"),
    "more made than canaries": (lambda: Guesses(3, 4, 4), "4 guesses about 3"),
    "nothing made": (lambda: Guesses(3, 0, 0), "at least one"),
    "fewer than none correct": (lambda: Guesses(3, 2, -1), "-1 correct"),
    "steinke's epsilon": (lambda: steinke_p(Guesses(4, 2, 2), -0.1, 0.0), "epsilon = -0.1"),
    "steinke's epsilon, NaN": (lambda: steinke_p(Guesses(4, 2, 2), math.nan, 0.0), "epsilon = nan"),
    "steinke's delta": (lambda: steinke_p(Guesses(4, 2, 2), 1.0, 1.0), "delta = 1.0"),
    "steinke's delta below": (lambda: steinke_epsilon(Guesses(4, 2, 2), -0.1, 0.05), "delta = -0.1"),
    "steinke's significance": (lambda: steinke_epsilon(Guesses(4, 2, 2), 0.0, 0.0), "significance = 0.0"),
    "fdp's mu": (lambda: fdp_rejects(Guesses(4, 2, 2), -1.0, 0.05), "mu = -1.0"),
    "fdp's mu, infinite": (lambda: fdp_rejects(Guesses(4, 2, 2), math.inf, 0.05), "mu = inf"),
    "fdp's significance": (lambda: fdp_mu(Guesses(4, 2, 2), 1.0), "significance = 1.0"),
    "least correct of too many": (lambda: least_correct(4, 5, 1.0, 0.05), "5 guesses about 4"),
    "one group": (lambda: clopper_pearson_epsilon([1.0], [], 0.0, 0.05), "out scores"),
    "clopper's delta": (lambda: clopper_pearson_epsilon([1.0], [0.0], 1.0, 0.05), "delta = 1.0"),
    "clopper's significance": (lambda: clopper_pearson_epsilon([1.0], [0.0], 0.0, math.nan), "significance = nan"),
    "two scores": (lambda: gaussian_mu([1.0], [0.0], 0.05), "do not vary"),
    "no spread": (lambda: gaussian_mu([1.0, 1.0], [0.0, 0.0], 0.05), "do not vary"),
    "gaussian's significance": (lambda: gaussian_mu([1.0, 2.0], [0.0, 1.0], 1.0), "significance = 1.0"),
    "gaussian's NaN": (lambda: gaussian_mu([1.0, math.nan], [0.0, 1.0], 0.05), "in scores"),
    "mu": (lambda: gdp_delta(-1.0, 1.0), "mu = -1.0"),
    "epsilon": (lambda: gdp_delta(1.0, math.inf), "epsilon = inf"),
    "no delta": (lambda: gdp_epsilon(1.0, 0.0), "delta = 0.0"),
    "all bounds, no delta": (lambda: lower_bounds(SCORES, COINS, 2, 0.0, 0.05), "delta = 0.0"),
    "all bounds, significance": (lambda: lower_bounds(SCORES, COINS, 2, 1e-5, 1.5), "significance = 1.5"),
    "all bounds, lengths": (lambda: lower_bounds(SCORES[:3], COINS, 2, 1e-5, 0.05), "3 scores and 4 coins"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_of_no_use_is_refused_in_one_line(name: str) -> None:
    call, says = REFUSED[name]
    with pytest.raises(ConfigError, match=says) as refused:
        call()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("spread", [1e-3, 1e-9, 1e-15])
def test_scores_that_hardly_vary_have_a_limit_too(spread: float) -> None:
    """Noise that is not there at all leaves rounding: the separation is beyond what any table of t knows."""
    jitter = np.random.default_rng(1).normal(0, spread, 500)
    mu = gaussian_mu(1.0 + jitter, jitter[::-1], 0.05)
    assert 100 < mu < math.inf
    assert math.isfinite(gdp_epsilon(mu, 1e-3))
