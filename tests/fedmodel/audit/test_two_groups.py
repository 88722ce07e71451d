"""Bounds from two groups of scores are what the papers say, and hold as often as they say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from fedmodel.audit.gdp import gdp_epsilon
from fedmodel.audit.two_groups import _upper_limit, clopper_pearson_epsilon, gaussian_mu
from tests.fedmodel.audit.canary_scores import gaussian_run

# What jax-privacy answers, with its version; to how many decimals ours must be the same.
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "audit.json").read_text())
DECIMALS = 5e-5


def test_clopper_pearson_is_jax_privacys() -> None:
    for row in VECTORS["clopper_pearson"]:
        for delta, significance, epsilon in row["epsilon"]:
            ours = clopper_pearson_epsilon(row["in"], row["out"], delta, significance)
            assert ours == pytest.approx(epsilon, abs=DECIMALS), (len(row["in"]), delta, significance)


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


@pytest.mark.parametrize("spread", [1e-3, 1e-9, 1e-15])
def test_scores_that_hardly_vary_have_a_limit_too(spread: float) -> None:
    """Noise that is not there at all leaves rounding: the separation is beyond what any table of t knows."""
    jitter = np.random.default_rng(1).normal(0, spread, 500)
    mu = gaussian_mu(1.0 + jitter, jitter[::-1], 0.05)
    assert 100 < mu < math.inf
    assert math.isfinite(gdp_epsilon(mu, 1e-3))
