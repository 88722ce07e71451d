"""A basis is every party's alike, orthonormal, and drawn so that what is put back is unbiased, of known variance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmodel.learning.random_bases import Bases, Shapes, drawn, noise_grows, words_of, words_sent

SHAPES: Shapes = ((8, 20), (8,), (3, 2, 3, 3), (5, 4), (), (1, 30))
RANK = 4
WHOLE = [*range(160, 168), *range(168 + 54, 168 + 54 + 21)]  # parameters of one axis or none, and 5 x 4
DRAWS = 3000
ROW = [0.29383160196095837, 0.2881580253958457, 0.194340432848875, -0.04066257419002357]


def update_of(shapes: Shapes = SHAPES, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=words_of(shapes)).astype(np.float32)


def test_each_matrix_is_sent_times_orthonormal_columns_and_put_back_along_them() -> None:
    pattern, update_P = drawn(RANK, SHAPES, 7), update_of()
    sent_K, start, place = pattern.take(update_P), 0, 0
    back_P = pattern.put(sent_K)
    assert (sent_K.dtype, back_P.dtype, len(sent_K), len(back_P)) == (np.float32, np.float32, pattern.sent, 273)
    for shape, basis in zip(SHAPES, pattern.bases, strict=True):
        size = math.prod(shape)
        part, back = update_P[start : start + size], back_P[start : start + size]
        if shape in ((8, 20), (3, 2, 3, 3), (1, 30)):
            assert basis is not None
            columns = size // shape[0]
            assert basis.shape == (columns, RANK)
            assert np.allclose(basis.T @ basis, np.eye(RANK), atol=1e-12)
            sent = part.reshape(shape[0], columns) @ basis
            assert np.allclose(sent_K[place : place + sent.size], sent.reshape(-1), atol=1e-5)
            assert np.allclose(back, (columns / RANK * sent @ basis.T).reshape(-1), atol=1e-5)
            assert np.linalg.matrix_rank(back.reshape(shape[0], columns), tol=1e-4) <= RANK
            place += sent.size
        else:
            assert basis is None
            assert np.array_equal(sent_K[place : place + size], part)
            assert np.array_equal(back, part)
            place += size
        start += size
    assert (start, place) == (len(update_P), pattern.sent)


def test_what_is_put_back_is_unbiased_and_its_variance_is_that_of_a_share_of_as_many_words() -> None:
    shapes, update_P = ((2, 6), (3,)), np.array([3, -1, 0.5, 2, 8, -4, 0, 0, 1, 0, 0, 0.25, 1, 2, 3], dtype=np.float32)
    found_NP = np.array([(one := drawn(2, shapes, seed)).put(one.take(update_P)) for seed in range(DRAWS)])
    errors_NP = found_NP - update_P
    spread_P = errors_NP.std(axis=0) / DRAWS**0.5
    assert np.all(np.abs(errors_NP.mean(axis=0)) <= 5 * spread_P + 1e-5)
    assert np.all(spread_P[:12] > 0)
    squares_N = np.square(errors_NP).sum(axis=1)
    wanted = (6 / 2 - 1) * float(np.square(update_P[:12]).sum())
    assert abs(squares_N.mean() - wanted) < 5 * squares_N.std() / DRAWS**0.5


def test_noise_is_as_large_on_each_word_that_is_sent_and_grows_as_told_when_it_is_put_back() -> None:
    """Independent draws of noise, and of the pattern beside them: rounds of a run."""
    shapes, rng = ((4, 12), (6,)), np.random.default_rng(1)
    sent, back = [], []
    for seed in range(DRAWS):
        pattern = drawn(3, shapes, seed)
        sent.append(pattern.take(rng.normal(size=54).astype(np.float32)))
        back.append(pattern.put(sent[-1]))
    each = 5 * (2 / DRAWS) ** 0.5  # five standard errors of a variance of 1
    assert np.all(np.abs(np.var(sent, axis=0) - 1) < each)
    mean, most = noise_grows(3, shapes)
    variances_P = np.var(back, axis=0)
    # The square of a word that is put back varies more than a normal's: by its row of the basis, too.
    assert np.all(np.abs(variances_P[:48] - most) < 5 * np.square(back).std(axis=0)[:48] / DRAWS**0.5)
    assert np.all(np.abs(variances_P[48:] - 1) < each)
    assert (mean, most) == (pytest.approx((48 * 4 + 6) / 54), 4.0)
    assert abs(variances_P.mean() - mean) < 5 * np.square(back).mean(axis=1).std() / DRAWS**0.5


def test_a_basis_hangs_on_seed_rank_and_shapes_alone_and_is_frozen() -> None:
    """A change here would leave silos of two versions with sums of words that do not belong together.

    Numbers are held to some places: the last bits are the linear algebra library's.
    """
    first = drawn(RANK, SHAPES, 7)
    assert first.bases[0] is not None
    assert np.allclose(first.bases[0][0], ROW, atol=1e-9)
    assert first.digest.hex()[:16] == "af5fe041159017bf"
    others = [drawn(RANK, SHAPES, 8), drawn(3, SHAPES, 7), drawn(RANK, SHAPES[:-1], 7), drawn(RANK, SHAPES[::-1], 7)]
    assert len({first.digest, *(one.digest for one in others)}) == 5
    one, other = drawn(RANK, ((8, 20), (8, 20)), 7).bases
    assert one is not None
    assert other is not None
    assert not np.allclose(one, other)


def test_columns_point_one_way_whichever_factor_a_library_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some return a column and a row of the triangle with the other sign; sums of silos with both would cancel."""
    usual, factor = drawn(RANK, SHAPES, 7), np.linalg.qr

    def turned(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        basis, triangle = factor(matrix)
        signs = np.array([1.0, -1.0] * (basis.shape[1] // 2))
        return basis * signs, triangle * signs[:, None]

    monkeypatch.setattr(np.linalg, "qr", turned)
    again = drawn.__wrapped__(RANK, SHAPES, 7)
    for one, other in zip(usual.bases, again.bases, strict=True):
        assert (one is None and other is None) or np.allclose(one, other, atol=1e-12)


@given(
    st.integers(1, 6),
    st.lists(st.lists(st.integers(1, 5), max_size=3).map(tuple), min_size=1, max_size=4).map(tuple),
)
def test_as_many_words_are_sent_as_is_told_and_come_back_as_the_whole(rank: int, shapes: Shapes) -> None:
    pattern, update_P = drawn(rank, shapes, 1), update_of(shapes)
    sent_K = pattern.take(update_P)
    assert len(sent_K) == pattern.sent == words_sent(rank, shapes) <= len(update_P)
    assert pattern.put(sent_K).shape == update_P.shape
    if len(sent_K) == len(update_P):
        assert np.array_equal(pattern.put(sent_K), update_P)
        assert noise_grows(rank, shapes) == (1.0, 1.0)


@pytest.mark.parametrize("of", [Bases.take, Bases.put])
def test_what_is_not_finite_stays_so_without_a_word(of: Callable[[Bases, Any], np.ndarray]) -> None:
    """It is refused where it leaves, or where the model is loaded."""
    pattern = drawn(RANK, SHAPES, 7)
    given = np.full(len(update_of()) if of is Bases.take else pattern.sent, np.inf, dtype=np.float32)
    assert not np.isfinite(of(pattern, given)).all()
