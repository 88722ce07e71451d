"""Cohorts repeat with the seed and favour nobody; averages weigh by public weights alone."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from fedmodel.config import FederationConfig
from fedmodel.errors import ProtocolError
from server.strategies._cohorts import average_updates, choose_cohort

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


def test_the_average_is_uniform_unless_weights_are_declared() -> None:
    updates = {"a": np.array([1.0, 2.0], dtype=np.float32), "b": np.array([3.0, 6.0], dtype=np.float32)}
    uniform = FederationConfig(silos=("a", "b"))
    assert average_updates(updates, uniform).tolist() == [2.0, 4.0]
    weighted = FederationConfig(silos=("a", "b"), weights={"a": 3.0})
    assert average_updates(updates, weighted).tolist() == [1.5, 3.0]
    assert average_updates({"b": updates["b"]}, weighted).tolist() == [3.0, 6.0]


def test_no_update_has_no_average() -> None:
    federation = FederationConfig(silos=("a", "b"))
    with pytest.raises(ProtocolError, match="without updates"):
        average_updates({}, federation)
