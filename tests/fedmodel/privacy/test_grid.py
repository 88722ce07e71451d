"""The grid follows from public figures, and sums on it are exact."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmodel.data.sizes import over_the_grid
from fedmodel.errors import DataError, PrivacyError
from fedmodel.learning.gradients import KINDS
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


@pytest.mark.parametrize(("noise", "most", "more"), [(1.5, 3 * 2**20, True), (2.0, 2**22, False), (64.0, 2**22, False)])
def test_a_silo_of_one_record_more_is_told_what_helps(noise: float, most: int, more: bool) -> None:
    grid.check_records(most, noise)
    with pytest.raises(DataError, match=f"more than {most} records") as caught:
        grid.check_records(most + 1, noise)
    assert over_the_grid(noise, most) is None
    assert f"more than {most} records" in (told := over_the_grid(noise, most + 1) or "")
    assert {text.endswith("take part with fewer, or with more noise") for text in (told, str(caught.value))} == {more}


@pytest.mark.parametrize("name", KINDS)
def test_who_may_join_has_no_more_records_than_any_kind_of_gradients_bounds_its_sums_for(name: str) -> None:
    assert KINDS[name].most_records >= grid.most_records(MOST_NOISE)


@given(noise=st.floats(LEAST_NOISE, MOST_NOISE), clip=st.floats(1e-9, 1e9))
def test_a_full_silo_and_its_noise_stay_where_every_whole_number_is_a_float(noise: float, clip: float) -> None:
    steps = grid.most_records(noise) * clip / grid.fine(noise * clip)
    assert steps <= 2.0**52
    assert grid.most_records(noise) <= grid.MOST_RECORDS
    assert 2.0**21 * noise * clip / grid.fine(noise * clip) <= 2.0**52
