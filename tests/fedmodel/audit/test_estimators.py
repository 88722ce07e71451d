"""All bounds side by side, and what none is computed of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedmodel.audit.estimators import lower_bounds
from fedmodel.audit.gdp import gdp_delta, gdp_epsilon
from fedmodel.audit.guesses import (
    Guesses,
    fdp_mu,
    fdp_rejects,
    guess,
    least_correct,
    steinke_epsilon,
    steinke_p,
)
from fedmodel.audit.two_groups import clopper_pearson_epsilon, gaussian_mu
from fedmodel.errors import ConfigError
from tests.fedmodel.audit.canary_scores import gaussian_run


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
