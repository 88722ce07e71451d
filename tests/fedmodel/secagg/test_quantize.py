"""Quantisation is unbiased, within its stated error, and never wraps for the largest cohort."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmodel.errors import ConfigError, ProtocolError
from fedmodel.secagg import ring
from fedmodel.secagg.quantize import Quantizer
from fedmodel.secagg.ring import WIDTHS, RingBits

QUANTIZERS: list[tuple[RingBits, int]] = [
    (8, 4), (8, 127), (12, 4), (12, 300), (16, 4), (16, 300), (24, 4), (24, 10_000), (32, 4), (32, 10_000),
]  # fmt: skip


def total(parts: list[np.ndarray]) -> np.ndarray:
    return np.sum(parts, axis=0, dtype=parts[0].dtype)


@pytest.mark.parametrize(("bits", "cohort"), QUANTIZERS)
@settings(max_examples=30, deadline=None)
@given(bound=st.sampled_from([1e-3, 1.0, 37.5]), seed=st.integers(0, 10_000), silos=st.integers(1, 4))
def test_a_sum_is_within_its_stated_error(bits: RingBits, cohort: int, bound: float, seed: int, silos: int) -> None:
    quantizer = Quantizer(bound, bits, cohort)
    rng = np.random.default_rng(seed)
    vectors = [rng.uniform(-bound, bound, 500).astype(np.float32) for _ in range(silos)]
    words = [quantizer.encode(vector) for vector in vectors]
    assert all(ring.holds(bits, one) for one in words)
    decoded = quantizer.decode(total(words))
    exact = np.sum(np.array(vectors, dtype=np.float64), axis=0)
    assert np.abs(decoded - exact).max() <= silos / quantizer.scale * (1 + 1e-6)


@pytest.mark.parametrize(("bits", "cohort"), QUANTIZERS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sum_of_the_largest_cohort_does_not_wrap(bits: RingBits, cohort: int, sign: int) -> None:
    quantizer = Quantizer(2.0, bits, cohort)
    extreme = quantizer.encode(np.full(3, sign * 2.0, dtype=np.float32))
    summed = (extreme.astype(np.uint64) * cohort % 2**bits).astype(extreme.dtype)
    assert quantizer.decode(summed) == pytest.approx(np.full(3, sign * 2.0 * cohort), rel=1e-6)
    assert cohort * quantizer.levels < 2 ** (bits - 1) <= (cohort + 1) * (quantizer.levels + 1) + cohort


def test_one_more_than_the_largest_cohort_can_wrap() -> None:
    """The bound is tight where it can be: the room is not wasted."""
    quantizer = Quantizer(1.0, 16, 7)
    extreme = quantizer.encode(np.ones(1, dtype=np.float32))
    assert quantizer.decode((extreme.astype(np.uint64) * 8).astype(extreme.dtype))[0] < 0


@pytest.mark.usefixtures("same_bytes")
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("whole", [2, -3])
def test_rounding_is_unbiased_with_the_stated_deviation(bits: RingBits, whole: int) -> None:
    quantizer = Quantizer(1.0, bits, 20)
    size = 200_000
    for fraction in (0.1, 0.5, 0.9):
        value = np.float32((whole + fraction) / quantizer.scale)
        decoded = quantizer.decode(quantizer.encode(np.full(size, value)))
        spread = math.sqrt(fraction * (1 - fraction)) / quantizer.scale
        assert abs(float(decoded.mean()) - float(value)) < 5 * spread / math.sqrt(size) + 1e-6 / quantizer.scale
        assert float(decoded.std()) <= 0.5 / quantizer.scale * 1.01


def test_rounding_is_drawn_anew_each_time() -> None:
    quantizer = Quantizer(1.0, 16, 100)
    vector = np.full(1000, 0.4999 / quantizer.scale, dtype=np.float32)
    assert not np.array_equal(quantizer.encode(vector), quantizer.encode(vector))


def test_coordinates_outside_the_bound_are_clipped_to_it() -> None:
    quantizer = Quantizer(1.0, 32, 3)
    assert quantizer.decode(quantizer.encode(np.array([5.0, -1e30, 1.0], dtype=np.float32))) == pytest.approx(
        [1, -1, 1]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ProtocolError, match="NaN or infinite"):
        Quantizer(1.0, 32, 3).encode(np.array([0.0, value], dtype=np.float32))


@pytest.mark.parametrize(
    ("bound", "bits", "cohort"),
    [
        (0.0, 32, 3),
        (-1.0, 32, 3),
        (math.nan, 32, 3),
        (math.inf, 32, 3),
        (1e-300, 32, 3),
        (1.0, 2, 1),
        (1.0, 10, 3),
        (1.0, 8, 128),
        (1.0, 12, 2_048),
        (1.0, 16, 32_768),
        (1.0, 32, 0),
    ],
)
def test_a_ring_without_room_or_a_bound_that_is_none_is_refused(bound: float, bits: RingBits, cohort: int) -> None:
    with pytest.raises(ConfigError):
        Quantizer(bound, bits, cohort)


def test_words_of_another_ring_are_refused() -> None:
    with pytest.raises(ProtocolError, match="not of the ring"):
        Quantizer(1.0, 32, 3).decode(np.zeros(3, dtype="<u2"))
