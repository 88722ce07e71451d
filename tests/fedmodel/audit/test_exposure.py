"""Exposure of canaries: by definition, at its ends, and what it is on average where a model knows nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedmodel.audit.exposure import exposure
from fedmodel.errors import ConfigError


def test_exposure_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(5)
    score_I, score_O = rng.normal(1.0, 1.0, 40), rng.normal(0.0, 1.0, 63)
    ranks = [1 + sum(other >= one for other in score_O) for one in score_I]
    found = exposure(score_I, score_O)
    assert found.mean == pytest.approx(sum(6 - math.log2(rank) for rank in ranks) / 40)
    assert found.largest == pytest.approx(6 - math.log2(min(ranks)))
    assert (found.most, found.canaries, found.among) == (6.0, 40, 63)
    assert found.by_chance == pytest.approx(sum(6 - math.log2(rank) for rank in range(1, 65)) / 64)


def test_a_canary_that_is_remembered_has_all_bits_and_one_that_is_a_tie_with_all_has_none() -> None:
    assert exposure(np.array([9.0]), np.zeros(255)).mean == 8.0
    assert exposure(np.array([0.0]), np.zeros(255)).mean == pytest.approx(0.0)
    assert exposure(np.array([-np.inf]), np.zeros(255)).mean == pytest.approx(0.0)


def test_a_model_that_knows_nothing_exposes_what_chance_does_and_no_more() -> None:
    rng = np.random.default_rng(11)
    found = [exposure(rng.normal(size=1), rng.normal(size=31)) for _ in range(4_000)]
    means = np.array([one.mean for one in found])
    assert abs(means.mean() - found[0].by_chance) < 5 * means.std() / math.sqrt(len(means))


@pytest.mark.parametrize(("score_I", "score_O"), [([], [1.0]), ([1.0], []), ([math.nan], [1.0]), ([1.0], [math.nan])])
def test_without_canaries_of_both_kinds_or_with_what_is_no_number_there_is_no_rank(
    score_I: list[float], score_O: list[float]
) -> None:
    with pytest.raises(ConfigError, match="some of both"):
        exposure(np.array(score_I), np.array(score_O))
