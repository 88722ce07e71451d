"""Masks cancel exactly, follow from their key alone, and leave a vector that looks uniform."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedmodel.errors import CryptoError
from fedmodel.secagg.masking import add_mask, apply_masks, subtract_mask

DTYPES = [np.dtype("<u2"), np.dtype("<u4")]


@pytest.mark.parametrize("dtype", DTYPES)
@given(size=st.sampled_from([0, 1, 7, 8, 9, 1000, 32_768, 65_537, 100_000]), seed=st.integers(0, 2**32 - 1))
def test_a_mask_taken_away_leaves_the_vector(dtype: np.dtype[np.uint32], size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vector = rng.integers(0, 2 ** (8 * dtype.itemsize), size).astype(dtype)
    key = rng.bytes(32)
    masked = vector.copy()
    add_mask(masked, key)
    assert size < 100 or not np.array_equal(masked, vector)
    subtract_mask(masked, key)
    assert np.array_equal(masked, vector)


def test_pairwise_masks_of_a_round_cancel_in_the_sum() -> None:
    rng = np.random.default_rng(1)
    vectors = [rng.integers(0, 2**32, 5_000, dtype=np.uint32) for _ in range(5)]
    masked = [vector.copy() for vector in vectors]
    for low in range(5):
        for high in range(low + 1, 5):
            key = hashlib.sha256(bytes([low, high])).digest()
            add_mask(masked[low], key)
            subtract_mask(masked[high], key)
    assert np.array_equal(np.sum(masked, axis=0, dtype=np.uint32), np.sum(vectors, axis=0, dtype=np.uint32))
    assert not any(np.array_equal(*pair) for pair in zip(vectors, masked, strict=True))


def test_a_mask_is_the_same_whatever_it_is_added_to_and_for_every_length() -> None:
    key = bytes(range(32))
    long, short = np.zeros(70_000, dtype="<u4"), np.zeros(40_000, dtype="<u4")
    add_mask(long, key)
    add_mask(short, key)
    assert np.array_equal(long[:40_000], short)


def test_masks_are_frozen() -> None:
    """A change here would leave silos of two versions with masks that do not cancel."""
    for dtype, expected in zip(DTYPES, ("c52742f181e019fa", "0d843e7e7c9e86db"), strict=True):
        vector = np.arange(100_000).astype(dtype)
        add_mask(vector, bytes(range(32)))
        assert hashlib.sha256(vector.tobytes()).hexdigest()[:16] == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_masked_vector_looks_uniform(dtype: np.dtype[np.uint32]) -> None:
    """Chi-square over the bytes of a constant vector under many keys; p under 1e-9 is not chance."""
    counts = np.zeros(256, dtype=np.int64)
    for number in range(50):
        vector = np.full(10_000, 12345, dtype=dtype)
        add_mask(vector, hashlib.sha256(bytes([number])).digest())
        counts += np.bincount(vector.view(np.uint8), minlength=256)
    assert 1e-9 < stats.chisquare(counts).pvalue < 1 - 1e-9


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(4, dtype=np.int32),
        np.zeros(4, dtype=">u4"),
        np.zeros((2, 2), dtype="<u4"),
        np.zeros(8, dtype="<u4")[::2],
        np.zeros(4, dtype=np.float32),
    ],
)
def test_other_vectors_are_refused_untouched(vector: np.ndarray) -> None:
    before = vector.copy()
    with pytest.raises(CryptoError, match="flat, contiguous"):
        add_mask(vector, bytes(32))
    assert np.array_equal(vector, before)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(CryptoError, match="32 are needed"):
        add_mask(np.zeros(4, dtype="<u4"), bytes(31))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("workers", [1, 2, 3, 16])
@pytest.mark.parametrize("size", [0, 1, 70_000, 400_001])
def test_however_many_threads_share_the_work_the_sum_is_the_same(
    dtype: np.dtype[np.uint32], workers: int, size: int
) -> None:
    keys = [bytes([number]) * 32 for number in range(3)]
    expected = np.zeros(size, dtype=dtype)
    add_mask(expected, keys[0])
    subtract_mask(expected, keys[1])
    add_mask(expected, keys[2])
    together = np.zeros(size, dtype=dtype)
    apply_masks(together, [(keys[0], 1), (keys[1], -1), (keys[2], 1)], workers)
    assert np.array_equal(together, expected)
