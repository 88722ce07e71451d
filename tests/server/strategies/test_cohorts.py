"""Cohorts repeat with the seed and favour nobody."""

from __future__ import annotations

import math
from collections import Counter

from server.strategies._cohorts import choose_cohort

SILOS = ["a", "b", "c", "d", "e"]


def test_cohorts_repeat_whatever_order_silos_joined_in() -> None:
    for round_number in range(20):
        first = choose_cohort(SILOS, 3, 7, round_number)
        assert first == choose_cohort(SILOS[::-1], 3, 7, round_number)
        assert len(set(first)) == 3


def test_cohorts_favour_nobody() -> None:
    rounds = 4_000
    counts = Counter(silo for r in range(rounds) for silo in choose_cohort(SILOS, 2, 1, r))
    for silo in SILOS:
        assert abs(counts[silo] / rounds - 0.4) < 5 * math.sqrt(0.4 * 0.6 / rounds)
