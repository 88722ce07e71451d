"""The series are within what is said of them, and what is decided from some bits holds whatever the others are."""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedmodel.privacy import exact_normals
from fedmodel.privacy.exact_normals import nearest_pair


def gaussians(radius: int, angle: int, bits: int, ratio: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Both values at a point, by another library."""
    with mpmath.workdps(120):
        size = mpmath.sqrt(-2 * mpmath.log(mpmath.mpf(radius) / 2**bits)) * mpmath.mpf(ratio)
        turn = mpmath.pi * angle / mpmath.mpf(2) ** bits
        return size * mpmath.cos(turn), size * mpmath.sin(turn)


@pytest.mark.parametrize("places", [70, 128, 193, 600])
def test_series_are_within_the_error_that_is_allowed_for(places: int) -> None:
    rng = np.random.default_rng(places)
    scale, bits = mpmath.mpf(2) ** places, places - exact_normals._GUARD
    numbers = [1, 2, 3, (1 << bits) - 1, 1 << bits, *(int(2**power) for power in rng.uniform(0, min(bits, 900), 20))]
    turns = [0.0, math.pi, -math.pi, 1e-9, *rng.uniform(-math.pi, math.pi, 20)]
    with mpmath.workdps(places // 3 + 40):
        off = [
            exact_normals._pi(places) - mpmath.pi * scale,
            exact_normals._log_of_two(places) - mpmath.log(2) * scale,
            *(exact_normals._log(one, places) - mpmath.log(one) * scale for one in numbers),
        ]
        for turn in turns:
            angle = int(mpmath.mpf(turn) * scale)
            cosine, sine = exact_normals._cosine_and_sine(angle, places)
            off += [cosine - mpmath.cos(angle / scale) * scale, sine - mpmath.sin(angle / scale) * scale]
        assert max(abs(one) for one in off) < exact_normals._error(places) / 8


@given(
    st.integers(1, 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(2.0**-3, 2.0**31),
)
@settings(max_examples=150)
def test_what_is_decided_is_nearest_at_both_ends_of_what_was_drawn(radius: int, angle: int, ratio: float) -> None:
    drawn: list[int] = []

    def more(bits: int) -> int:
        drawn.append(secrets.randbits(bits))
        return drawn[-1]

    found = nearest_pair(radius, angle, 63, ratio, more)
    bits = 63
    for radii, angles in zip(drawn[::2], drawn[1::2], strict=True):
        radius, angle, bits = radius << 64 | radii, angle << 64 | angles, bits + 64
    for ends in itertools.product((radius, radius + 1), (angle, angle + 1)):
        if ends[0]:
            values = gaussians(*ends, bits, ratio)
            assert found == tuple(int(mpmath.floor(one + 0.5)) for one in values)


def given_bits(*words: int) -> Callable[[int], int]:
    left = iter(words)
    return lambda _: next(left)


def test_more_bits_are_drawn_until_they_decide_and_no_longer() -> None:
    """Four bits say little: enough for a standard deviation of 2^-5, and 64 more for one of 2^10."""
    assert nearest_pair(8, 3, 4, 2.0**-5, given_bits()) == (0, 0)
    for radius, angle in ((0, 0), (2**64 - 1, 2**64 - 1), (2**63, 1)):
        longer = gaussians(8 << 64 | radius, 3 << 64 | angle, 68, 2.0**10)
        found = nearest_pair(8, 3, 4, 2.0**10, given_bits(radius, angle))
        assert found == tuple(int(mpmath.floor(one + 0.5)) for one in longer)
    # A middle between two whole numbers, to 67 bits: 64 more do not decide it, 128 do.
    with mpmath.workdps(80):
        turn = mpmath.acos(mpmath.mpf("100.5") / (1024 * mpmath.sqrt(2 * mpmath.log(2)))) / mpmath.pi
        angle = int(mpmath.floor(turn * 2**67))
    start, rest = divmod(angle, 2**64)
    assert nearest_pair(4, start, 3, 1024.0, given_bits(0, rest, 0, 0))[0] == 101
    assert nearest_pair(4, start, 3, 1024.0, given_bits(0, rest, 2**64 - 1, 2**64 - 1))[0] == 100


def test_a_tail_has_no_end() -> None:
    """A uniform value whose first bits are all zero is drawn on: the radius is past what 63 and 127 bits could say."""
    near, far = (nearest_pair(0, 0, 63, 1.0, given_bits(*bits, 1 << 63, 0)) for bits in ((), (0, 0)))
    assert near[0] == round(math.sqrt(2 * 64 * math.log(2)))
    assert far[0] == round(math.sqrt(2 * 128 * math.log(2)))


def test_whole_numbers_come_as_often_as_the_gaussian_says() -> None:
    """From no bit at all, so that each is drawn by `more`; both of a pair, and how they go together."""
    words = np.random.default_rng(5)
    pairs, ratio = 3_000, 1.5
    found = np.array(
        [nearest_pair(0, -int(words.integers(2)), 0, ratio, lambda bits: int.from_bytes(words.bytes(bits // 8)))
         for _ in range(pairs)]
    )  # fmt: skip
    edges = np.array([-np.inf, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, np.inf])
    share = np.diff(stats.norm.cdf(edges / ratio))
    counts, _, _ = np.histogram2d(found[:, 0], found[:, 1], [edges, edges])
    assert stats.chisquare(counts.ravel(), pairs * np.outer(share, share).ravel()).pvalue > 1e-9
