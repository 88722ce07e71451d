"""The grid follows from public figures, sums on it are exact, and what is left of floating point is a number."""

from __future__ import annotations

import math

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedmodel.errors import PrivacyError
from fedmodel.privacy import grid
from fedmodel.privacy.events import LEAST_NOISE, MOST_NOISE


@given(std=st.floats(1e-20, 1e20))
def test_steps_are_powers_of_two_close_to_what_is_said(std: float) -> None:
    step = grid.coarse(std)
    assert math.frexp(step)[0] == 0.5
    assert std * 2.0**-17 < step <= std * 2.0**-16
    assert grid.fine(std) == step * 2.0**-14


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan, math.inf, 1e-40, 1e40])
def test_no_grid_without_noise(std: float) -> None:
    with pytest.raises(PrivacyError, match="has no grid"):
        grid.coarse(std)


@given(noise=st.floats(LEAST_NOISE, MOST_NOISE), clip=st.floats(1e-9, 1e9))
def test_a_full_silo_and_its_noise_stay_where_every_whole_number_is_a_float(noise: float, clip: float) -> None:
    steps = grid.most_records(noise) * clip / grid.fine(noise * clip)
    assert steps <= 2.0**52
    assert 18 * noise * clip / grid.fine(noise * clip) < 2.0**36


def test_what_floating_point_adds_is_small_and_grows_with_draws() -> None:
    few, many = grid.added(1_240, 3.0, 1e-3), grid.added(10**9, 3.0, 1e-6)
    assert few[0] < 8e-6
    assert few[1] < 1e-5 * 1e-3
    assert few[0] < many[0] < 0.01
    assert few[1] / 1e-3 < many[1] / 1e-6 < 0.01


@given(coordinates=st.integers(1, 10**10), epsilon=st.floats(0, 20), delta=st.floats(1e-12, 0.1))
def test_both_terms_are_positive_and_finite(coordinates: int, epsilon: float, delta: float) -> None:
    more_epsilon, more_delta = grid.added(coordinates, epsilon, delta)
    assert 0 < more_epsilon < math.inf
    assert 0 < more_delta < math.inf


def test_the_parts_of_the_relative_error_add_up_to_less_than_is_claimed() -> None:
    """The proof's arithmetic, in the units of `docs/floating-point.md`: u is half a unit in the last place of 1."""
    u, width, radius = 2.0**-53, math.sqrt(2) * 2.0**-17, 9.5
    # Evaluation: angle, cosine and sine, radius, products of a pair; two pairs, their sum, the scale.
    pair = radius * (math.sqrt(2) * 4 * math.pi * u + 4 * u + math.sqrt(2) * 3.2 * u + 2 * u)
    evaluated = (2 * pair + 3 * 2 * math.sqrt(2) * radius * u) / 2 + 14 * u
    widened = 2 * evaluated / 2.0**-17
    # Uniforms on a lattice: Koksma's inequality, over an interval's probability.
    density = math.sqrt(2 * math.pi)
    angles = 4 * u * density / width
    bend = math.sqrt(width / 2 / 0.999)
    radii = u * 2 * bend * density / width * 2.0**13
    tails = u**2 * 2 * bend * density / width * math.exp(radius**2 / 2)
    centre = u * 2 / (width * stats.norm.pdf(1))
    pairs = 2 * (angles + max(radii + tails, centre))
    assert (widened + pairs) * 1.001 < grid.RELATIVE_ERROR
    assert 2 * math.exp(-(radius**2) / 2) < grid.TAIL


def test_one_pair_on_a_coarse_lattice_is_within_koksmas_bound_of_the_gaussian() -> None:
    """The lemma at 11 bits, where every point of the lattice can be counted: no cell is off by more than it says."""
    bits, width = 11, 0.25
    size = 1 << bits
    radii = [math.sqrt(-2 * math.log((k + 1) / size)) for k in range(size)]
    sines = [math.sin(2 * math.pi * (k + 0.5) / size) for k in range(size)]
    for low in (0.0, 0.25, 0.75, 1.5, 2.25):
        inside = sum(sum(low <= radius * sine < low + width for sine in sines) for radius in radii)
        ideal = float(mpmath.ncdf(low + width) - mpmath.ncdf(low))
        # Four jumps of the indicator over the angle, two of the probability over the radius.
        assert abs(inside / size**2 - ideal) <= 4 / size * math.exp(-(low**2) / 2) + 2 / size


def test_noise_of_several_draws_is_as_many_times_as_far_from_ideal_noise() -> None:
    """Its error is bounded by that of so many more coordinates of one draw that their deviations add up to it."""
    for draws in (1, 2, 5):
        more_epsilon, more_delta = grid.added(1_000, 2.0, 1e-5, draws=draws)
        as_one, _ = grid.added(draws**2 * 1_000, 2.0, 1e-5)
        assert more_epsilon == pytest.approx(as_one, rel=1e-12)
        assert more_delta >= grid.added(1_000, 2.0, 1e-5)[1]
    assert grid.added(1_000, 2.0, 1e-5, draws=2)[0] > 1.99 * grid.added(1_000, 2.0, 1e-5)[0]
