"""What holds of a run whose end was chosen by looking, held against the best rule that stops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fedmodel.errors import ConfigError
from fedmodel.privacy.accounting import checkpoints, epsilon, odometer
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from tests.stopping import LOSS_N, at_the_start, before, stopped

NOISE, STEPS, DELTA = 6.56, 40, 1e-3  # the scenario "hospitals": four silos, every record in every lot
PLAN = DpSgdEvent(NOISE, 1.0, 1.0, STEPS, 10)


def attained(told_T: Sequence[float]) -> float:
    """Return delta where `told_T[t - 1]` is told at a stop after t steps, and the stop is chosen to make it largest."""
    value_N = np.zeros_like(LOSS_N)
    for told in reversed(told_T):
        value_N = before(np.maximum(stopped(told), value_N), NOISE)
    return at_the_start(value_N)


def naive() -> list[float]:
    return [epsilon([replace(PLAN, steps=taken)], DELTA) for taken in range(1, STEPS + 1)]


def read() -> list[float]:
    return [odometer(PLAN, taken, DELTA).epsilon for taken in range(1, STEPS + 1)]


def test_the_search_for_the_best_stop_agrees_with_the_closed_form_where_nothing_is_chosen() -> None:
    """Told the plan's figure at every stop, the best is never to stop: delta is that of the whole plan, and no more."""
    told = epsilon([PLAN], DELTA)
    assert attained([told] * STEPS) == pytest.approx(DELTA, rel=5e-3)
    assert attained([math.inf] * (STEPS - 1) + [told]) == pytest.approx(DELTA, rel=5e-3)


def test_epsilon_of_the_steps_taken_is_no_bound_where_the_end_was_chosen_by_looking() -> None:
    assert attained(naive()) > 4 * DELTA


def test_the_odometer_holds_at_every_stop() -> None:
    assert attained(read()) <= DELTA


def test_the_odometer_and_the_plans_figure_together_cost_both_deltas() -> None:
    told = epsilon([PLAN], DELTA)
    assert attained([min(one, told) for one in read()]) <= 2 * DELTA


def test_the_odometer_is_under_the_plans_figure_for_a_run_that_ended_soon() -> None:
    told = epsilon([PLAN], DELTA)
    assert odometer(PLAN, 1, DELTA).epsilon < told / 3
    assert odometer(PLAN, STEPS // 2, DELTA).epsilon < told
    assert odometer(PLAN, STEPS, DELTA).epsilon > told


def test_it_is_read_at_the_next_checkpoint_with_an_equal_share_of_delta() -> None:
    ends = checkpoints(STEPS)
    for taken in range(1, STEPS + 1):
        found = odometer(PLAN, taken, DELTA)
        assert found.checkpoint == min(end for end in ends if end >= taken)
        assert math.fsum([found.share] * len(ends)) <= DELTA
        assert found.epsilon >= epsilon([replace(PLAN, steps=taken)], DELTA)
    assert read() == sorted(read())


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 17, 1560, 10**6])
def test_checkpoints_rise_to_the_plans_end(steps: int) -> None:
    ends = checkpoints(steps)
    assert list(ends) == sorted(set(ends))
    assert (ends[0] >= 1, ends[-1]) == (True, steps)
    assert len(ends) <= 5


def test_nothing_taken_costs_nothing() -> None:
    assert odometer(PLAN, 0, DELTA).epsilon == 0.0


@pytest.mark.parametrize("taken", [-1, STEPS + 1])
def test_a_run_past_its_plan_is_refused(taken: int) -> None:
    with pytest.raises(ConfigError, match="nothing is claimed"):
        odometer(PLAN, taken, DELTA)


def test_where_delta_is_too_small_to_be_shared_no_reading_is_told() -> None:
    assert odometer(PLAN, 1, 1e-12).epsilon == math.inf
