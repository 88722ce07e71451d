"""Epsilon against golden values, closed forms, exact integrals and other accountants; every bound on the safe side."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path

import dp_accounting
import mpmath
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import binom, norm

from fedmodel import plans
from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError
from fedmodel.privacy import accounting
from fedmodel.privacy.accounting import cells, composition, mixture, pld, renyi_filter
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.primitives import SampledGaussian

REPLACE_ONE = dp_accounting.NeighboringRelation.REPLACE_ONE
HETEROGENEOUS = [(0.0128, 1.0, 1560), (0.02, 0.8, 500), (0.1, 2.0, 300)]


def event(noise: float, rate: float, steps: int, max_records: int = 1) -> DpSgdEvent:
    return DpSgdEvent(noise, 1.0, rate, steps, denominator=1, max_records=max_records)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Dong, Roth and Su 2022, corollary 2.13; for q = 1 exact, after Balle and Wang 2018, theorem 8."""
    return float(norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu))


def gaussian_epsilon(noise: float, steps: int, delta: float) -> float:
    """Closed form for q = 1, with steps folded into the noise."""
    mu = math.sqrt(steps) / noise
    return float(brentq(lambda epsilon: gaussian_delta(mu, epsilon) - delta, 0, 200, xtol=1e-9))


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
    ("rate", "noise", "steps", "delta"),
    [
        (0.0128, 1.0, 1560, 1e-5),
        (0.1, 2.0, 300, 1e-5),
        (0.8, 1.3, 10, 1e-3),
        (0.001, 0.8, 10_000, 1e-7),
        (0.02, 0.6, 200, 1e-6),
        (0.3, 5.0, 100, 1e-8),
        (0.05, 0.7, 1, 1e-4),
    ],
)
@pytest.mark.parametrize("grid", [accounting.FINE_GRID, accounting.COARSE_GRID])
def test_sampled_lots_lie_in_an_independent_accountants_bracket(
    rate: float, noise: float, steps: int, delta: float, grid: float
) -> None:
    """Opacus's PRV accountant (Gopi et al. 2021) computes the same quantity another way, to a stated error."""
    prv = PRVAccountant()
    prv.history = [(noise, rate, steps)]
    error, delta_error = 0.01, delta / 1000
    private = prv._get_dprv(eps_error=error, delta_error=delta_error)
    lower, _, upper = private.compute_epsilon(delta, delta_error, error)
    coarseness = 0.02 if grid == accounting.COARSE_GRID else 0.0
    assert lower <= accounting.epsilon([event(noise, rate, steps)], delta, grid) <= upper + coarseness


@pytest.mark.parametrize(("times", "golden"), [(1, 2.988), (2, 4.303), (5, 7.169), (10, 10.775), (20, 16.529)])
def test_a_run_that_is_repeated_costs_what_its_composition_costs(times: int, golden: float) -> None:
    assert accounting.epsilon([event(1.0, 0.0128, 1560)] * times, 1e-5) == pytest.approx(golden, abs=1e-3)


def test_the_central_limit_reads_under_what_is_true() -> None:
    """Bu et al. 2020: an asymptotic mu. Opacus's accountant of that name reads the last of several runs only."""
    mus = [rate * math.sqrt(steps * math.expm1(1 / noise**2)) for rate, noise, steps in HETEROGENEOUS]

    def asymptotic(mu: float) -> float:
        return gaussian_epsilon(1 / mu, 1, 1e-5)

    assert asymptotic(mus[-1]) == pytest.approx(3.99, abs=5e-3)
    assert asymptotic(math.hypot(*mus)) == pytest.approx(6.66, abs=5e-3)
    prv = PRVAccountant()
    prv.history = [(noise, rate, steps) for rate, noise, steps in HETEROGENEOUS]
    lower, _, upper = prv._get_dprv(eps_error=0.05, delta_error=1e-8).compute_epsilon(1e-5, 1e-8, 0.05)
    ours = accounting.epsilon([event(noise, rate, steps) for rate, noise, steps in HETEROGENEOUS], 1e-5)
    assert 6.66 < lower <= ours <= upper
    assert asymptotic(mus[0]) < 2.74 < accounting.epsilon([event(1.0, 0.0128, 1560)], 1e-5)


def test_different_events_compose() -> None:
    events = [event(noise, rate, steps) for rate, noise, steps in HETEROGENEOUS]
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
        noises[silo] = plans.noise_multiplier(plan)
        spent = accounting.epsilon([event(noises[silo], plan.sample_rate, 4)], plan.delta)
        assert 1.99 < spent <= 2.0
    assert noises["north"] < noises["south"]


def test_a_declared_noise_multiplier_is_taken_as_it_is(tiny_file: object) -> None:
    assert plans.noise_multiplier(read_scenario(str(tiny_file)).plan("north")) == 2.0


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


# What was really drawn with is what is accounted for.


def test_the_realised_rate_is_accounted_for_and_not_the_planned_one() -> None:
    drawn = dataclasses.replace(event(2.0, 0.1, 300), realised_sample_rate=0.2)
    assert accounting.epsilon([drawn], 1e-5) == accounting.epsilon([event(2.0, 0.2, 300)], 1e-5)
    assert accounting.renyi(drawn, 8) == accounting.renyi(event(2.0, 0.2, 300), 8)


# Units of several records.

MIXTURES = [(0.1, 3.0, 2), (0.1, 3.0, 4), (0.5, 2.0, 3), (0.01, 0.8, 4), (0.9, 5.0, 6), (0.02, 4.0, 30)]


def exact_delta(step: SampledGaussian, epsilon: float, *, remove: bool) -> float:
    """Delta of one step by numerical integration of the two densities, with no threshold and no discretisation."""
    k = step.records
    weights = binom.pmf(np.arange(k + 1), k, step.rate)

    def excess(x: float) -> float:
        many = float(np.dot(weights, norm.pdf(x, np.arange(k + 1), step.noise)))
        none = float(norm.pdf(x, 0, step.noise))
        return max(0.0, many - math.exp(epsilon) * none if remove else none - math.exp(epsilon) * many)

    cuts = np.arange(-12 * step.noise, k + 12 * step.noise, step.noise / 4)
    parts = [quad(excess, low, high, epsabs=1e-13, limit=200)[0] for low, high in itertools.pairwise(cuts)]
    return math.fsum(parts)


@pytest.mark.parametrize("parts", MIXTURES)
def test_the_delta_of_one_step_is_the_exact_integral_in_both_directions(parts: tuple[float, float, int]) -> None:
    step = SampledGaussian(*parts)
    for remove in (True, False):
        found = composed(step, remove=remove)
        for epsilon in (0.0, 0.01, 0.1, 1.0):
            exact = exact_delta(step, epsilon, remove=remove)
            assert exact * (1 - 1e-9) - 1e-12 <= found.delta(np.array([epsilon]))[0] <= exact * (1 + 1e-6) + 1e-8
            ours = accounting.deltas([event(step.noise, step.rate, 1, step.records)], [epsilon])[0]
            assert exact * (1 - 1e-9) - 1e-12 <= ours


def composed(step: SampledGaussian, *, remove: bool, grid: float = 1e-4) -> composition.Composition:
    """One step, in one direction."""
    found = cells.discretise(step, grid)
    return composition.Composition(
        [composition.Part(found.remove if remove else found.add, 1)], grid, found.slack, tilt=0.0
    )


def test_what_is_left_of_a_unit_at_tiny_rates_is_not_dropped() -> None:
    """dp_accounting's own mixture finds no threshold here and answers 0 in one direction, 10^-15 in the other."""
    step = SampledGaussian(1e-9, 1.0, 4)
    true = exact_delta(step, 0.0, remove=True)
    theirs = privacy_loss_distribution.from_mixture_gaussian_mechanism(
        1.0, range(5), list(binom.pmf(np.arange(5), 4, 1e-9))
    )
    assert theirs.get_delta_for_epsilon(0.0) < 1e-5 * true
    assert true * (1 - 1e-6) <= accounting.advantage(
        [dataclasses.replace(event(1.0, 1e-9, 1, 4), realised_sample_rate=1e-9)]
    )
    # Shifts past a probability of 10^-22 are left out, and still counted: as losses without bound.
    step = SampledGaussian(1e-3, 1.0, 100)
    rare = mixture.Mixture(step)
    assert len(rare.shifts) < 101
    assert 0 < rare.lost == pytest.approx(binom.sf(rare.shifts[-1], 100, 1e-3), rel=1e-6)
    assert cells.discretise(step, 1e-3).remove.infinite > rare.lost


@pytest.mark.parametrize(("rate", "noise", "steps"), [(0.0128, 1.0, 1560), (0.3, 3.0, 100)])
def test_one_record_is_dp_accountings_sampled_gaussian(rate: float, noise: float, steps: int) -> None:
    grid = accounting.COARSE_GRID
    theirs = privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=rate, value_discretization_interval=grid
    ).self_compose(steps)
    ours = accounting.epsilon([event(noise, rate, steps)], 1e-5, grid)
    assert ours == pytest.approx(theirs.get_epsilon_for_delta(1e-5), rel=2e-6)


def test_several_records_are_dp_accountings_mixture() -> None:
    theirs = privacy_loss_distribution.from_mixture_gaussian_mechanism(
        3.0, range(3), list(binom.pmf(np.arange(3), 2, 0.1)), value_discretization_interval=1e-3
    ).self_compose(300)
    ours = accounting.epsilon([event(3.0, 0.1, 300, 2)], 1e-5, 1e-3)
    assert ours == pytest.approx(theirs.get_epsilon_for_delta(1e-5), rel=1e-6)


@pytest.mark.parametrize(("noise", "steps", "records"), [(8.0, 50, 1), (26.24, 40, 4), (300.0, 10, 30)])
def test_full_lots_of_a_unit_match_the_closed_form(noise: float, steps: int, records: int) -> None:
    exact = gaussian_epsilon(noise / records, steps, 1e-5)
    assert exact - 1e-6 <= accounting.epsilon([event(noise, 1.0, steps, records)], 1e-5) <= exact + 2e-4
    nearly = accounting.epsilon([event(noise, 1 - 1e-9, steps, records)], 1e-5)
    assert nearly == pytest.approx(exact, abs=2e-3)


@pytest.mark.parametrize(("rate", "noise", "steps"), [(0.1, 3.0, 50), (0.01, 1.5, 500), (0.5, 8.0, 20)])
def test_more_records_cost_more_and_less_than_naive_group_privacy(rate: float, noise: float, steps: int) -> None:
    grid, small = accounting.COARSE_GRID, 1e-11
    one = accounting.epsilon([event(noise, rate, steps)], small, grid)
    last = 0.0
    for k in (1, 2, 3, 5):
        delta = small * math.expm1(k * one) / math.expm1(one)  # Vadhan 2017, lemma 2.2
        if delta >= 1:
            break
        assert accounting.epsilon([event(noise, rate, steps, k)], delta, grid) <= k * one + 1e-9
        now = accounting.epsilon([event(noise, rate, steps, k)], 1e-5, grid)
        assert now > last
        last = now


def test_events_of_different_units_are_refused_together() -> None:
    events = [event(2.0, 0.1, 10), event(2.0, 0.1, 10, 4)]
    for ask in (
        lambda: accounting.epsilon(events, 1e-5),
        lambda: accounting.deltas(events, [1.0]),
        lambda: accounting.gdp_mu(events, 1e-6),
    ):
        with pytest.raises(ConfigError, match="epsilons of different units are never added"):
            ask()


def test_calibration_for_a_unit_meets_its_target_and_hardly_more(tiny_file: object) -> None:
    noise = accounting.calibrate(2.0, 1e-4, 0.1, 50, max_records=3)
    assert accounting.epsilon([event(noise, 0.1, 50, 3)], 1e-4) <= 2.0
    assert accounting.epsilon([event(noise * 0.999, 0.1, 50, 3)], 1e-4) > 2.0
    plan = dataclasses.replace(
        read_scenario(str(tiny_file)).plan("north"), noise_multiplier=None, epsilon=2.0, max_records=3
    )
    noise = plans.noise_multiplier(plan)
    assert 1.99 < accounting.epsilon([event(noise, plan.sample_rate, plan.steps, 3)], plan.delta) <= 2.0
    with pytest.raises(ConfigError, match="max_records = 0 is out of range"):
        accounting.calibrate(2.0, 1e-4, 0.1, 50, max_records=0)


@pytest.mark.parametrize(
    ("target", "rate", "steps", "delta"),
    [(0.1, 0.5, 4, 1e-3), (0.05, 0.01, 100, 1e-6), (0.01, 1.0, 1, 1e-5)],
)
def test_noise_that_is_calibrated_has_none_to_spare_and_a_thousandth_more_has(
    target: float, rate: float, steps: int, delta: float
) -> None:
    def spares(noise: float) -> bool:
        return accounting.spares_noise(noise, target, delta, lambda less: [event(less, rate, steps)])

    found = accounting.calibrate(target, delta, rate, steps)
    assert [spares(factor * found) for factor in (0.5, 0.999, 1.0, 1.001, 2.0, 1000.0)] == [False] * 3 + [True] * 3


def test_the_least_noise_that_an_event_may_have_is_none_to_spare() -> None:
    def spares(noise: float) -> bool:
        return accounting.spares_noise(noise, 900.0, 1e-5, lambda less: [event(less, 0.01, 1)])

    assert accounting.calibrate(900.0, 1e-5, 0.01, 1) == 0.2
    assert [spares(noise) for noise in (0.2, 0.2001, 1e6)] == [False, True, True]


def test_a_target_is_of_what_is_released_besides_too(tiny_file: Path) -> None:
    """Training gets so much more noise that both together meet it, and hardly more."""
    settings = ["privacy.noise_multiplier=", "privacy.epsilon=2.0", "privacy.unit=person", "privacy.max_records=3"]
    jobs = [f"besides.job.{key}" for key in ("noise_multiplier=9.0", "bound=1.0")]
    scenario = read_scenario(str(tiny_file), [*settings, *jobs])
    alone, counts = plans.planned_parts(scenario, "north")
    assert 1.99 < accounting.epsilon([alone, counts], 1e-3) <= 2.0
    assert alone.noise_multiplier > plans.noise_multiplier(read_scenario(str(tiny_file), settings).plan("north"))
    little = read_scenario(str(tiny_file), [*settings, *jobs, "besides.job.noise_multiplier=2.0"])
    with pytest.raises(ConfigError, match=r"besides training comes to epsilon \d\.\d+ by itself, .* where 2\.0"):
        plans.planned_parts(little, "north")


def test_a_unit_whose_losses_are_far_out_costs_no_memory() -> None:
    assert accounting.epsilon([event(0.2, 0.5, 10, 1000)], 1e-5) == math.inf
    # The unlikeliest draws would have no bound; what is likely is small all the same.
    assert accounting.epsilon([event(0.8, 1e-4, 1000, 16)], 1e-5, accounting.COARSE_GRID) < 3


# The curve of delta, and what is read off it.


def test_the_curve_of_delta_is_the_closed_form_from_above() -> None:
    mu = math.sqrt(40) / 6.56
    asked = [3.0, 0.0, 0.5, 1.0, 0.50005, 900.0]
    curve = accounting.deltas([event(6.56, 1.0, 40)], asked)
    for epsilon, delta in zip(asked[:-1], curve, strict=False):
        exact = gaussian_delta(mu, epsilon)
        assert exact - 1e-14 <= delta <= exact * 1.0001
    assert 0 <= curve[-1] < 1e-12
    assert accounting.deltas([], [0.0, 1.0]) == [0.0, 0.0]
    assert accounting.deltas([event(1.0, 1.0, 1)], []) == []
    assert accounting.deltas([event(0.2, 0.5, 1_000_000)], [1.0]) == [1.0]


def test_delta_at_epsilon_is_the_delta_that_was_asked_for() -> None:
    for events in ([event(1.0, 0.0128, 1560)], [event(3.0, 0.1, 300, 4)]):
        for delta in (1e-3, 1e-6, 1e-9):
            at = accounting.epsilon(events, delta, accounting.COARSE_GRID)
            assert accounting.deltas(events, [at], accounting.COARSE_GRID)[0] == pytest.approx(delta, rel=1e-4)


@pytest.mark.parametrize("epsilon", [-0.1, math.nan, math.inf])
def test_a_curve_is_read_at_epsilons_from_zero(epsilon: float) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        accounting.deltas([event(1.0, 1.0, 1)], [epsilon])


def test_advantage_is_the_total_variation() -> None:
    mu = math.sqrt(40) / 6.56
    exact = 2 * norm.cdf(mu / 2) - 1
    assert exact <= accounting.advantage([event(6.56, 1.0, 40)]) <= exact * 1.0001
    assert accounting.advantage([]) == 0.0
    # One step of a sampled lot: q times the total variation of one full one.
    sampled = 0.1 * (2 * norm.cdf(0.5) - 1)
    assert sampled - 1e-12 <= accounting.advantage([event(1.0, 0.1, 1)]) <= sampled * 1.001


@pytest.mark.parametrize(("noise", "steps", "records"), [(6.56, 40, 1), (26.24, 40, 4), (1.0, 1, 1), (100.0, 25, 1)])
def test_mu_of_full_lots_is_exact_from_above(noise: float, steps: int, records: int) -> None:
    exact = records * math.sqrt(steps) / noise
    assert exact <= accounting.gdp_mu([event(noise, 1.0, steps, records)], 1e-9) <= exact * 1.01


@pytest.mark.parametrize(
    "events",
    [[event(1.0, 0.0128, 1560)], [event(3.0, 0.1, 300, 4)], [event(0.8, 0.001, 500)], [event(0.5, 0.3, 1)]],
)
@pytest.mark.parametrize("floor", [1e-3, 1e-8])
def test_mu_answers_for_every_delta_above_its_floor(events: list[DpSgdEvent], floor: float) -> None:
    mu = accounting.gdp_mu(events, floor, accounting.COARSE_GRID)
    end = accounting.epsilon(events, floor, accounting.COARSE_GRID)
    between = [float(value) for value in np.random.default_rng(7).uniform(0, end, 400)]
    curve = accounting.deltas(events, between, accounting.COARSE_GRID)
    tightest = 1.0
    for epsilon, delta in zip(between, curve, strict=True):
        if delta >= floor:
            assert gaussian_delta(mu, epsilon) >= delta * (1 - 1e-9)
            tightest = min(tightest, 1 - delta / gaussian_delta(mu * 0.99, epsilon))
    assert tightest < 0  # a mu of one hundredth less would answer no longer


def test_mu_answers_between_the_epsilons_at_which_delta_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pld, "_CELLS", 8)  # so few that what lies between them shows
    for events in ([event(8.0, 1.0, 50)], [event(1.0, 0.0128, 1560)], [event(3.0, 0.1, 300, 4)]):
        mu = accounting.gdp_mu(events, 1e-6, accounting.COARSE_GRID)
        between = [float(value) for value in np.linspace(0, accounting.epsilon(events, 1e-6), 200)]
        for epsilon, delta in zip(between, accounting.deltas(events, between), strict=True):
            assert gaussian_delta(mu, epsilon) >= delta


def test_mu_at_its_edges() -> None:
    assert accounting.gdp_mu([], 1e-6) == 0.0
    assert accounting.gdp_mu([event(100.0, 0.01, 1)], 0.5) == 0.0
    assert accounting.gdp_mu([event(0.2, 0.5, 1_000_000)], 1e-6) == math.inf
    for floor in (0.0, 1.0, math.nan):
        with pytest.raises(ConfigError, match="floor"):
            accounting.gdp_mu([event(1.0, 1.0, 1)], floor)


# The Rényi filter.

POWERS = [
    (0.0128, 1.0, 1, 8),
    (0.1, 2.0, 1, 32),
    (0.1, 3.0, 4, 8),
    (0.01, 2.0, 3, 16),
    (0.5, 3.0, 2, 4),
    (0.9, 4, 5, 3),
]


def exact_renyi(step: SampledGaussian, order: int, *, remove: bool) -> float:
    """Rényi divergence of one step by high-precision quadrature."""
    mpmath.mp.dps = 25
    q, s, k = mpmath.mpf(step.rate), mpmath.mpf(step.noise), step.records
    weights = [mpmath.binomial(k, j) * q**j * (1 - q) ** (k - j) for j in range(k + 1)]

    def integrand(x: mpmath.mpf) -> mpmath.mpf:
        ratio = mpmath.fsum(weights[j] * mpmath.exp((j * x - mpmath.mpf(j) ** 2 / 2) / s**2) for j in range(k + 1))
        return mpmath.npdf(x, 0, s) * ratio ** (order if remove else 1 - order)

    low, high = (-12 * s, order * k + 12 * s) if remove else (-(order - 1) * k - 12 * s, 12 * s)
    cells = mpmath.linspace(low, high, max(20, int(2 * (high - low) / s)))
    return float(mpmath.log(mpmath.quad(integrand, cells)) / (order - 1))


@pytest.mark.parametrize("parts", POWERS)
def test_the_divergence_is_the_larger_direction_by_quadrature(parts: tuple[float, float, int, int]) -> None:
    step, order = SampledGaussian(*parts[:3]), parts[3]
    removed, added = (exact_renyi(step, order, remove=remove) for remove in (True, False))
    ours = accounting.renyi(event(step.noise, step.rate, 1, step.records), order)
    assert max(removed, added) <= ours <= max(removed, added) * (1 + 1e-8) + 1e-11
    # The other direction is bounded from above, closely; one record's is never the larger (theorem 5).
    bound = renyi_filter._reverse(step, order) / (order - 1)
    assert added * (1 - 1e-12) <= bound <= added * (1 + 1e-4)
    if step.records == 1:
        assert renyi_filter._forward(step, order) == pytest.approx(renyi_filter._single(step, order), rel=1e-9)
        assert bound <= ours * (1 + 1e-4)


@pytest.mark.parametrize(("rate", "noise"), [(0.0128, 1.0), (0.1, 0.5), (1e-6, 1.0), (0.999, 10.0), (1.0, 4.0)])
def test_one_record_has_dp_accountings_divergence(rate: float, noise: float) -> None:
    orders = [2, 3, 8, 64, 256]
    theirs = RdpAccountant(orders)
    theirs.compose(dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise)), 10)
    for order, divergence in zip(orders, theirs.rdp, strict=True):
        assert accounting.renyi(event(noise, rate, 10), order) == pytest.approx(divergence, rel=1e-6, abs=1e-10)


def test_the_larger_direction_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # Removing a unit was the larger wherever it was looked for; that is no proof, so adding one is bounded as well.
    step, order = SampledGaussian(0.1, 3.0, 2), 5
    monkeypatch.setattr(renyi_filter, "_forward", lambda step, order: 0.0)
    renyi_filter._divergence.cache_clear()
    bound = renyi_filter._reverse(step, order) / (order - 1)
    assert accounting.renyi(event(3.0, 0.1, 1, 2), order) == pytest.approx(bound, rel=1e-6) != 0
    renyi_filter._divergence.cache_clear()


def test_full_lots_and_steps_and_many_shifts() -> None:
    assert accounting.renyi(event(8.0, 1.0, 5, 4), 6) == pytest.approx(5 * 6 * 16 / (2 * 64), rel=1e-12)
    assert accounting.renyi(event(2.0, 0.1, 7, 2), 6) == pytest.approx(7 * accounting.renyi(event(2.0, 0.1, 1, 2), 6))
    step = SampledGaussian(0.3, 30.0, 60)
    exact = renyi_filter._forward(step, 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renyi_filter, "_MOST_SHIFTS", 2_000)
        assert exact <= renyi_filter._forward(step, 100) <= exact * 1.3


@pytest.mark.parametrize("order", [1, 257, 2.0, True])
def test_an_order_out_of_range_is_refused(order: int) -> None:
    with pytest.raises(ConfigError, match="order"):
        accounting.renyi(event(1.0, 0.1, 1), order)


def test_renyi_to_epsilon_is_dp_accountings_at_one_order() -> None:
    theirs = RdpAccountant([8])
    theirs.compose(dp_accounting.GaussianDpEvent(4.0), 4)
    assert accounting.renyi_to_epsilon(1.0, 8, 1e-5) == pytest.approx(theirs.get_epsilon(1e-5))
    assert accounting.renyi_to_epsilon(0.0, 256, 0.9) == 0.0
    for rho, delta in ((-1.0, 1e-5), (math.nan, 1e-5), (1.0, 0.0), (1.0, 1.0)):
        with pytest.raises(ConfigError, match="out of range"):
            accounting.renyi_to_epsilon(rho, 8, delta)


@given(epsilon=st.floats(1e-3, 50), delta=st.floats(1e-12, 0.1), order=st.integers(2, 256))
def test_the_room_is_the_largest_divergence_within_the_budget(epsilon: float, delta: float, order: int) -> None:
    room = accounting.renyi_room(epsilon, delta, order)
    if room > 0:
        assert accounting.renyi_to_epsilon(room, order, delta) <= epsilon
    assert accounting.renyi_to_epsilon(room + 1e-9, order, delta) > epsilon


@pytest.mark.parametrize(("epsilon", "delta"), [(3.0, 1e-5), (0.5, 1e-6), (8.0, 1e-3), (0.1, 1e-5)])
def test_the_order_admits_most_full_batch_steps(epsilon: float, delta: float) -> None:
    best = accounting.filter_order(epsilon, delta)
    admitted = {
        a: accounting.renyi_room(epsilon, delta, a) / accounting.renyi(event(10.0, 1.0, 1), a) for a in range(2, 257)
    }
    assert admitted[best] == max(admitted.values()) > 0


def test_a_budget_too_small_for_any_order_admits_nothing() -> None:
    order = accounting.filter_order(1e-3, 1e-9)
    assert accounting.renyi_room(1e-3, 1e-9, order) == 0.0
    for budget in ((0.0, 1e-5), (math.inf, 1e-5), (1.0, 0.0)):
        with pytest.raises(ConfigError, match="out of range"):
            accounting.filter_order(*budget)


@settings(max_examples=25, deadline=None)
@given(
    cap=st.sampled_from([(1.0, 1e-5), (3.0, 1e-5), (8.0, 1e-3), (0.5, 1e-7)]),
    records=st.sampled_from([1, 1, 3]),
    plans=st.lists(
        st.tuples(st.floats(0.8, 20), st.sampled_from([0.001, 0.02, 0.3, 1.0]), st.integers(1, 300)),
        min_size=1,
        max_size=3,
    ),
)
def test_whatever_the_filter_admits_is_within_the_cap(
    cap: tuple[float, float], records: int, plans: list[tuple[float, float, int]]
) -> None:
    order = accounting.filter_order(*cap)
    room = accounting.renyi_room(*cap, order)
    admitted = []
    for noise, rate, steps in plans:
        # As many steps as still fit: the fullest a filter can be.
        each = accounting.renyi(event(noise, rate, 1, records), order)
        fitting = min(steps, int(room / each))
        if fitting:
            admitted.append(event(noise, rate, fitting, records))
            room -= accounting.renyi(admitted[-1], order)
    assert accounting.epsilon(admitted, cap[1], accounting.COARSE_GRID) <= cap[0]


@pytest.mark.parametrize("records", [1, 4])
@pytest.mark.parametrize(("noise", "rate", "steps"), [(8.0, 1.0, 50), (1.0, 0.0128, 1560), (5.0, 0.1, 100)])
def test_a_divergence_never_claims_less_than_the_composition(
    noise: float, rate: float, steps: int, records: int
) -> None:
    whole = event(noise, rate, steps, records)
    ours = accounting.epsilon([whole], 1e-5, accounting.COARSE_GRID)
    for order in (2, 5, 8, 16, 64):
        assert accounting.renyi_to_epsilon(accounting.renyi(whole, order), order, 1e-5) >= ours - 1e-3


# What is refused, and why.


def test_only_adding_or_removing_one_and_poisson_lots_are_accounted_for() -> None:
    accounting.check_supported("add-or-remove-one", "poisson")
    with pytest.raises(ConfigError, match=r"'replace-one' is not accounted for: .*4\.11 .* 8\.60"):
        accounting.check_supported("replace-one", "poisson")
    with pytest.raises(ConfigError, match=r"'without-replacement' is not accounted for: .*2\.54 .* 10\.06"):
        accounting.check_supported("add-or-remove-one", "without-replacement")
    with pytest.raises(ConfigError, match="'shuffled' is not accounted for"):
        accounting.check_supported("add-or-remove-one", "shuffled")


def test_dp_accountings_renyi_reads_under_the_truth_for_replace_one() -> None:
    """Replacing a record moves the sum by two clips; exact by the closed form, as its own PLD accountant agrees."""
    theirs = RdpAccountant(neighboring_relation=REPLACE_ONE)
    theirs.compose(dp_accounting.GaussianDpEvent(8.0), 50)
    true = gaussian_epsilon(8.0 / 2, 50, 1e-5)
    assert theirs.get_epsilon(1e-5) == pytest.approx(4.11, abs=5e-3)
    assert true == pytest.approx(8.60, abs=5e-3)
    # And nothing tells the two relations apart.
    same = RdpAccountant()
    same.compose(dp_accounting.GaussianDpEvent(8.0), 50)
    assert list(same.rdp) == list(theirs.rdp)


def test_dp_accountings_renyi_reads_under_a_lower_bound_without_replacement() -> None:
    """A lot of 10 in 1,000 whose other records all pull one way: x in it moves the sum by two clips, with rate 0.01.

    So N(0, 1) against 0.99 N(0, 1) + 0.01 N(2, 1), 500 times, is a real pair of neighbours (x replaced by one like the
    others); rounded down, its epsilon is a lower bound (Lebeda et al. 2024, arXiv 2405.20769).
    """
    theirs = RdpAccountant(neighboring_relation=REPLACE_ONE)
    lot = dp_accounting.SampledWithoutReplacementDpEvent(1000, 10, dp_accounting.GaussianDpEvent(1.0))
    theirs.compose(lot, 500)
    below = privacy_loss_distribution.from_gaussian_mechanism(
        1.0,
        sensitivity=2.0,
        sampling_prob=0.01,
        pessimistic_estimate=False,
        use_connect_dots=False,
        value_discretization_interval=1e-3,
    ).self_compose(500)
    assert theirs.get_epsilon(1e-5) == pytest.approx(2.54, abs=5e-3)
    assert below.get_epsilon_for_delta(1e-5) == pytest.approx(10.06, abs=5e-3)


def test_no_package_uses_an_asymptotic_accountant_nor_adds_epsilons() -> None:
    root = Path(__file__).parents[3]
    for package in ("fedmodel", "clients", "server", "scenarios", "benchmarks"):
        for path in (root / package).rglob("*.py"):
            found = re.search(
                r"GaussianAccountant|accountants\.gdp|analysis\.gdp|import gdp\b", path.read_text("utf-8")
            )
            assert found is None, path
    offered = {name for name in accounting.__all__ if re.search("sum|add|total", name)}
    assert not offered


def exact_forward(step: SampledGaussian, order: int, bits: int = 900) -> mpmath.mpf:
    """Return what `_forward` does, in fixed point: products of polynomials are products of long integers."""
    q, s, k = mpmath.mpf(step.rate), mpmath.mpf(step.noise), step.records
    size = bits // 4 + 16  # bytes of a coefficient of a product

    def packed(values: list[int]) -> int:
        return int.from_bytes(b"".join(one.to_bytes(size, "little") for one in values), "little")

    def times(a: list[int], b: list[int]) -> list[int]:
        whole = (packed(a) * packed(b)).to_bytes(size * (len(a) + len(b)), "little")
        places = range(0, size * (len(a) + len(b) - 1), size)
        return [int.from_bytes(whole[at : at + size], "little") >> bits for at in places]

    with mpmath.workprec(bits):
        one = mpmath.mpf(2) ** bits
        once = [
            int(one * mpmath.binomial(k, j) * q**j * (1 - q) ** (k - j) * mpmath.exp(-mpmath.mpf(j * j) / (2 * s * s)))
            for j in range(k + 1)
        ]
        power = once
        for bit in bin(order)[3:]:
            power = times(power, power)
            power = times(power, once) if bit == "1" else power
        return mpmath.log(
            mpmath.fsum(v * mpmath.exp(mpmath.mpf(t * t) / (2 * s * s)) for t, v in enumerate(power)) / one
        )


@pytest.mark.parametrize(
    ("step", "order"),
    [
        (SampledGaussian(0.5, 1e4, 100), 32),
        (SampledGaussian(0.01, 1e5, 100), 64),
        (SampledGaussian(0.001, 50.0, 1_000), 8),
        (SampledGaussian(0.5, 1e6, 1_000), 8),
    ],
)
def test_of_many_records_floating_point_takes_a_fortieth_of_what_is_added_for_it(
    step: SampledGaussian, order: int
) -> None:
    exact = exact_forward(step, order)
    taken = abs(mpmath.mpf(renyi_filter._forward(step, order)) - exact) / (order - 1)
    added = exact / (order - 1) * renyi_filter._RELATIVE + renyi_filter._ABSOLUTE
    assert 40 * taken < added
