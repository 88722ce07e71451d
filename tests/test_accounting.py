"""Epsilon against golden values, closed forms and another accountant; calibration on the safe side of its target."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from fedmodel import accounting
from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError
from fedmodel.mechanisms import DpSgdEvent


def event(noise: float, rate: float, steps: int) -> DpSgdEvent:
    return DpSgdEvent(noise, 1.0, rate, steps, denominator=1)


def gaussian_epsilon(noise: float, steps: int, delta: float) -> float:
    """Closed form for q = 1: Balle and Wang 2018, theorem 8, with steps folded into the noise."""
    mu = math.sqrt(steps) / noise

    def excess(epsilon: float) -> float:
        return float(norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)) - delta

    return float(brentq(excess, 0, 200, xtol=1e-9))


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "delta", "golden"),
    [
        (0.0128, 1.0, 1560, 1e-5, 2.988),
        (0.001, 0.8, 10_000, 1e-7, 1.171),
        (0.01, 1.0, 500, 1e-5, 1.326),
        (1.0, 8.0, 50, 1e-5, 3.797),
    ],
)
def test_golden_values(rate: float, noise: float, steps: int, delta: float, golden: float) -> None:
    assert round(accounting.epsilon([event(noise, rate, steps)], delta), 3) == golden


@pytest.mark.parametrize(
    ("noise", "steps", "delta"), [(8.0, 50, 1e-5), (6.56, 40, 1e-3), (1.0, 1, 1e-6), (50.0, 400, 1e-5)]
)
def test_full_lots_match_the_closed_form_from_above(noise: float, steps: int, delta: float) -> None:
    exact = gaussian_epsilon(noise, steps, delta)
    ours = accounting.epsilon([event(noise, 1.0, steps)], delta)
    assert exact - 1e-6 <= ours <= exact + 2e-4


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "delta"), [(0.0128, 1.0, 1560, 1e-5), (0.1, 2.0, 300, 1e-5), (0.8, 1.3, 10, 1e-3)]
)
def test_sampled_lots_lie_within_an_independent_accountants_error(
    rate: float, noise: float, steps: int, delta: float
) -> None:
    """Opacus's PRV accountant (Gopi et al. 2021) computes the same quantity another way, to a stated error."""
    prv = PRVAccountant()
    prv.history = [(noise, rate, steps)]
    theirs = prv.get_epsilon(delta, eps_error=0.01)
    ours = accounting.epsilon([event(noise, rate, steps)], delta)
    assert theirs - 0.02 <= ours <= theirs + 0.01


def test_different_events_compose() -> None:
    events = [event(1.0, 0.0128, 1560), event(0.8, 0.02, 500), event(2.0, 0.1, 300)]
    assert accounting.epsilon(events, 1e-5) == pytest.approx(7.127, abs=1e-3)
    assert accounting.epsilon(reversed(events), 1e-5) == accounting.epsilon(events, 1e-5)


def test_splitting_a_run_into_charges_changes_nothing() -> None:
    whole = accounting.epsilon([event(2.0, 0.5, 12)], 1e-3)
    assert accounting.epsilon([event(2.0, 0.5, 4)] * 3, 1e-3) == whole


def test_nothing_done_costs_nothing() -> None:
    assert accounting.epsilon([], 1e-5) == 0.0


def test_a_coarse_grid_is_never_below_a_fine_one() -> None:
    for rate, noise, steps in [(0.0128, 1.0, 1560), (1.0, 8.0, 50), (0.3, 2.0, 100)]:
        events = [event(noise, rate, steps)]
        fine = accounting.epsilon(events, 1e-5)
        assert fine <= accounting.epsilon(events, 1e-5, accounting.COARSE_GRID) <= fine * 1.01 + 0.01


@settings(max_examples=20, deadline=None)
@given(rate=st.sampled_from([0.05, 0.5, 1.0]), noise=st.floats(0.7, 20), steps=st.integers(1, 200))
def test_epsilon_never_falls_with_more_steps_nor_rises_with_more_noise(rate: float, noise: float, steps: int) -> None:
    grid = accounting.COARSE_GRID
    base = accounting.epsilon([event(noise, rate, steps)], 1e-4, grid)
    assert accounting.epsilon([event(noise, rate, steps + 1)], 1e-4, grid) >= base - 1e-9
    assert accounting.epsilon([event(noise * 1.1, rate, steps)], 1e-4, grid) <= base + 1e-9


@pytest.mark.parametrize(
    ("target", "delta", "rate", "steps"),
    [
        (3.0, 1e-3, 1.0, 40),
        (8.0, 1e-3, 0.8, 10),
        (2.988, 1e-5, 0.0128, 1560),
        (0.1, 1e-6, 0.01, 100),
        (1.0, 1e-5, 1.0, 1),
    ],
)
def test_calibration_meets_its_target_and_hardly_more(target: float, delta: float, rate: float, steps: int) -> None:
    noise = accounting.calibrate(target, delta, rate, steps)
    assert accounting.epsilon([event(noise, rate, steps)], delta) <= target
    assert accounting.epsilon([event(noise * 0.999, rate, steps)], delta) > target


def test_each_silo_calibrates_for_the_whole_planned_run(tiny_file: object) -> None:
    settings = ["privacy.noise_multiplier=", "privacy.epsilon=2.0", "privacy.silo.north.sample_rate=0.25"]
    scenario = read_scenario(str(tiny_file), settings)
    noises = {}
    for silo in ("north", "south"):
        plan = scenario.plan(silo)
        noises[silo] = accounting.noise_multiplier(plan)
        spent = accounting.epsilon([event(noises[silo], plan.sample_rate, 4)], plan.delta)
        assert 1.99 < spent <= 2.0
    assert noises["north"] < noises["south"]


def test_a_declared_noise_multiplier_is_taken_as_it_is(tiny_file: object) -> None:
    assert accounting.noise_multiplier(read_scenario(str(tiny_file)).plan("north")) == 2.0


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_delta_out_of_range_is_refused(delta: float) -> None:
    with pytest.raises(ConfigError, match="delta"):
        accounting.epsilon([event(1.0, 1.0, 1)], delta)


@pytest.mark.parametrize(
    ("target", "rate", "steps"), [(0.0, 1.0, 1), (math.inf, 1.0, 1), (1.0, 0.0, 1), (1.0, 1.5, 1), (1.0, 1.0, 0)]
)
def test_calibration_out_of_range_is_refused(target: float, rate: float, steps: int) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        accounting.calibrate(target, 1e-5, rate, steps)


def test_a_plan_far_out_costs_no_memory_and_claims_nothing() -> None:
    assert accounting.epsilon([event(0.2, 0.5, 1_000_000)], 1e-5) == math.inf
    assert accounting.epsilon([event(0.2, 1.0, 1)], 1e-5) < math.inf


def test_calibration_at_the_smallest_delta() -> None:
    noise = accounting.calibrate(1.0, 1e-12, 1.0, 10)
    assert accounting.epsilon([event(noise, 1.0, 10)], 1e-12) <= 1.0
    with pytest.raises(ConfigError, match="delta = 1e-20 is out of range"):
        accounting.calibrate(1.0, 1e-20, 1.0, 10)
