"""A random part of the words: each set as likely as any other, unbiased as it is put back."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmodel.learning import random_places
from fedmodel.learning.random_places import drawn, words_sent


@given(share=st.floats(1e-4, 1, exclude_max=True), size=st.integers(1, 3000))
def test_as_many_words_as_the_share_says_are_sent_each_once(share: float, size: int) -> None:
    kept = words_sent(share, size)
    assert 1 <= kept <= size
    assert kept == 1 or abs(kept - share * size) <= 0.5


def test_each_set_of_places_is_as_likely_as_any_other() -> None:
    found = [tuple(drawn(2, 4, seed).places_K.tolist()) for seed in range(3000)]
    for places in combinations(range(4), 2):
        assert abs(found.count(places) - 500) < 5 * 500**0.5


def test_of_equal_numbers_the_first_places_are_sent_and_all_smaller_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_P = np.array([7, 3, 7, 7, 1], dtype=np.uint64)
    monkeypatch.setattr(random_places, "public_words", lambda *_: drawn_P)
    found = [drawn.__wrapped__(kept, 5, 0).places_K.tolist() for kept in range(1, 6)]
    assert found == [[4], [1, 4], [0, 1, 4], [0, 1, 2, 4], [0, 1, 2, 3, 4]]


def test_a_seed_draws_the_places_that_it_always_drew() -> None:
    assert drawn(5, 20, 1).places_K.tolist() == [5, 6, 7, 13, 18]
    assert drawn(2_000, 8_000, 2).digest.hex()[:16] == "f45da9c71399de09"


def test_what_is_put_back_is_unbiased_and_zero_where_nothing_was_sent() -> None:
    update_P = np.array([3.0, -1.0, 0.5, 2.0, 8.0, -4.0, 1.0, 0.25], dtype=np.float32)
    total_P = np.zeros(8)
    for seed in range(4000):
        pattern = drawn(2, 8, seed)
        found_P = pattern.put(pattern.take(update_P))
        assert np.flatnonzero(found_P).tolist() == pattern.places_K.tolist()
        total_P += found_P
    # A word is there in a quarter of the patterns, and then four times as large: its variance is three squares.
    assert np.all(np.abs(total_P / 4000 - update_P) < 5 * np.abs(update_P) * (3 / 4000) ** 0.5)
