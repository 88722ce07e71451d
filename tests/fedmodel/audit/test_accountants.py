"""A claim is held against accountants that share no code with it."""

from __future__ import annotations

import math

import pytest

from fedmodel.audit.accountants import accountants, extremes, prv_epsilon
from fedmodel.privacy import accounting
from fedmodel.privacy.accounting import composition, pld
from fedmodel.privacy.accounting.lower import Steps, least_epsilon
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.rounding import up

# Rate, noise, steps, records of a unit, delta.
KINDS = [
    (1.0, 2.0, 4, 1, 1e-3),
    (1.0, 3.0, 10, 4, 1e-3),
    (0.5, 2.0, 24, 1, 1e-3),
    (0.5, 3.0, 24, 4, 1e-3),
    (0.01, 1.0, 1, 1, 1e-5),
    (0.01, 1.0, 1000, 1, 1e-5),
]


def event(rate: float, noise: float, steps: int, records: int) -> DpSgdEvent:
    return DpSgdEvent(noise, 1.0, rate, steps, denominator=1, max_records=records)


@pytest.mark.parametrize(("rate", "noise", "steps", "records", "delta"), KINDS)
def test_what_is_claimed_holds_and_half_the_rate_does_not(
    rate: float, noise: float, steps: int, records: int, delta: float
) -> None:
    charged = event(rate, noise, steps, records)
    claimed = accounting.epsilon([charged], delta)
    assert accountants("s", [charged], claimed, delta).passed
    looser = accounting.epsilon([event(rate / 2, noise, steps, records)], delta)
    found = accountants("s", [charged], looser, delta)
    assert not found.passed
    assert found.measured > 0.04
    assert f"claims epsilon {up(looser)} at" in found.explanation


def test_a_bound_is_under_the_truth_where_the_sum_does_not_tell_all() -> None:
    steps = (Steps(0.01, 1.0, 1, 1000),)
    claimed = accounting.epsilon([event(0.01, 1.0, 1000, 1)], 1e-5)
    by_prv = prv_epsilon(steps, 1e-5)
    assert by_prv is not None
    assert least_epsilon([event(0.01, 1.0, 1000, 1)], 1e-5) < by_prv < claimed < by_prv + 0.03


def test_units_of_several_records_are_not_for_prv() -> None:
    assert prv_epsilon((Steps(0.5, 3.0, 4, 24),), 1e-3) is None
    assert "PRV" not in accountants("s", [event(0.5, 3.0, 24, 4)], 1.0, 1e-3).explanation


def test_rounds_are_counted_together() -> None:
    rounds = [event(0.5, 2.0, 4, 1)] * 6
    whole = accountants("s", [event(0.5, 2.0, 24, 1)], 4.0, 1e-3)
    assert accountants("s", rounds, 4.0, 1e-3) == whole
    assert not whole.passed


def test_nothing_released_and_no_bound_claimed_pass() -> None:
    assert accountants("s", [], 0.0, 1e-3).passed
    assert accountants("s", [event(1.0, 0.2, 10_000, 1)], math.inf, 1e-3).passed


def test_prv_is_not_asked_where_its_own_rounding_may_exceed_its_error() -> None:
    assert prv_epsilon((Steps(0.01, 1.0, 1, 10_000),), 1e-5) is not None
    assert prv_epsilon((Steps(0.1, 15.81, 1, 100_000),), 1e-12) is None


def test_the_accountant_of_claims_is_sound_at_its_edges_and_forgetting_its_error_shows() -> None:
    assert extremes().passed
    power = composition._power
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composition, "_power", lambda *words: (power(*words)[0], 0.0))
        pld.forget()
        found = extremes()
    pld.forget()
    assert not found.passed
    assert found.measured > 0.01
    assert "by tests of the releases it is at least" in found.explanation
    assert extremes().passed
