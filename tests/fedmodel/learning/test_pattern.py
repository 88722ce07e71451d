"""A pattern is every party's alike, as likely as any other of its size, and unbiased; what it leaves out stays."""

from __future__ import annotations

import hashlib
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ConfigError
from fedmodel.learning.pattern import Pattern, _drawn, pattern_of, words_sent
from fedmodel.provision import scenario_hash


@pytest.fixture
def quarter(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), ["federation.update_share=0.25"])


def drawn(scenario: Scenario, number: int, size: int) -> Pattern:
    found = pattern_of(scenario, number, size)
    assert found is not None
    return found


@given(share=st.floats(1e-4, 1, exclude_max=True), size=st.integers(1, 3000))
def test_as_many_words_as_the_share_says_are_sent_each_once(share: float, size: int) -> None:
    kept = words_sent(share, size)
    assert 1 <= kept <= size
    assert kept == 1 or abs(kept - share * size) <= 0.5


def test_a_pattern_hangs_on_seed_round_and_size_alone_and_is_frozen(quarter: Scenario) -> None:
    """A change here would leave silos of two versions with sums of words that do not belong together."""
    first = drawn(quarter, 1, 100_000)
    assert len(first.places_K) == 25_000
    assert np.all(np.diff(first.places_K) > 0)
    assert hashlib.sha256(first.places_K.astype("<i8").tobytes()).hexdigest()[:16] == "60900651c888c3b1"
    masked = {"encryption": quarter.encryption.model_copy(update={"ring_bits": 8})}
    assert drawn(quarter.model_copy(update=masked), 1, 100_000).digest == first.digest
    for other in (drawn(quarter, 2, 100_000), drawn(quarter.model_copy(update={"seed": 6}), 1, 100_000)):
        assert other.digest != first.digest
        # Two independent quarters have a quarter of a quarter in common, to five standard errors.
        assert abs(len(np.intersect1d(first.places_K, other.places_K)) - 6250) < 5 * 6250**0.5


def test_each_set_of_places_is_as_likely_as_any_other() -> None:
    found = [tuple(_drawn(2, 4, seed).places_K.tolist()) for seed in range(3000)]
    for places in combinations(range(4), 2):
        assert abs(found.count(places) - 500) < 5 * 500**0.5


def test_what_is_put_back_is_unbiased_and_zero_where_nothing_was_sent() -> None:
    update_P = np.array([3.0, -1.0, 0.5, 2.0, 8.0, -4.0, 1.0, 0.25], dtype=np.float32)
    total_P = np.zeros(8)
    for seed in range(4000):
        pattern = _drawn(2, 8, seed)
        found_P = pattern.put(pattern.take(update_P))
        assert np.flatnonzero(found_P).tolist() == pattern.places_K.tolist()
        total_P += found_P
    # A word is there in a quarter of the patterns, and then four times as large: its variance is three squares.
    assert np.all(np.abs(total_P / 4000 - update_P) < 5 * np.abs(update_P) * (3 / 4000) ** 0.5)


def test_all_is_sent_unless_a_share_is_said_and_by_jobs_besides_training(tiny: Scenario, tiny_file: Path) -> None:
    assert pattern_of(tiny, 1, 10) is None
    besides = ["federation.update_share=0.25", "besides={statistics={noise_multiplier=5.0, bound=100.0}}"]
    asking = read_scenario(str(tiny_file), besides)
    assert pattern_of(asking, tiny.rounds, 10) is not None
    assert pattern_of(asking, tiny.rounds + 1, 10) is None


def test_a_scenario_that_says_nothing_keeps_its_hash(tiny: Scenario, quarter: Scenario) -> None:
    assert "update_share" not in tiny.json_text
    assert '"update_share":0.25' in quarter.json_text
    assert scenario_hash(tiny) != scenario_hash(quarter)


@pytest.mark.parametrize("share", ["0.0", "-0.5", "1.01", "1e-5", "nan", '"half"', "true"])
def test_what_is_no_share_is_refused_in_one_line(share: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"federation\.update_share") as refused:
        read_scenario(str(tiny_file), [f"federation.update_share={share}"])
    assert "\n" not in str(refused.value)


def test_an_audit_asks_for_whole_updates(tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match="update_share sends a part of each update, and an audit"):
        read_scenario(str(tiny_file), ["federation.update_share=0.5", "audit.count=20"])
