"""Cohorts repeat with the seed and favour nobody."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from server.strategies import _cohorts
from server.strategies._cohorts import choose_cohort

SILOS = ["a", "b", "c", "d", "e"]


def test_cohorts_repeat_whatever_order_silos_joined_in() -> None:
    for round_number in range(20):
        first = choose_cohort(SILOS, 3, 7, round_number)
        assert first == choose_cohort(SILOS[::-1], 3, 7, round_number)
        assert len(set(first)) == 3


def test_nothing_is_drawn_where_all_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object) -> int:
        raise AssertionError("a draw")

    monkeypatch.setattr(_cohorts, "derive_seed", draw)
    assert choose_cohort(SILOS[::-1], 5, 7, 1) == choose_cohort(SILOS, 9, 7, 2) == SILOS
    with pytest.raises(AssertionError, match="a draw"):
        choose_cohort(SILOS, 4, 7, 1)


def test_cohorts_favour_nobody() -> None:
    rounds = 4_000
    counts = Counter(silo for r in range(rounds) for silo in choose_cohort(SILOS, 2, 1, r))
    for silo in SILOS:
        assert abs(counts[silo] / rounds - 0.4) < 5 * math.sqrt(0.4 * 0.6 / rounds)
