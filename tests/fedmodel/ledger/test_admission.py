"""A plan is admitted only where a second accountant, which shares no code with the first, does not contradict."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedmodel.crypto import SigningKey
from fedmodel.errors import LedgerTampered, PrivacyBudgetExceeded
from fedmodel.ledger import Asked, Ledger, Scope, Standing, read_ledger
from fedmodel.privacy import accounting
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from tests.ledgers import make_budget

KEY = SigningKey(bytes([7]) * 32)


def event(rate: float, noise: float, steps: int, records: int = 1) -> DpSgdEvent:
    return DpSgdEvent(noise, 1.0, rate, steps, denominator=60, max_records=records)


def budget(epsilon: float, delta: float) -> Scope:
    return Scope("hearts", "record", 1, delta, epsilon, accounting.filter_order(epsilon, delta))


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "cap", "fits"), [(0.9, 900.0, 10**6, 7.0, 7.3), (0.1, 15.81, 10**5, 15.6, 15.7)]
)
def test_many_steps_at_a_tiny_delta_are_admitted_to_what_they_cost_and_to_no_less(
    rate: float, noise: float, steps: int, cap: float, fits: float
) -> None:
    plan = event(rate, noise, steps)
    scope = budget(cap, 1e-12)
    with pytest.raises(PrivacyBudgetExceeded, match="does not fit into the budget"):
        Standing().admit(scope, [plan], scope.cost(plan))
    scope = budget(fits, 1e-12)
    assert Standing().admit(scope, [plan], scope.cost(plan)) == "plan"


def test_an_accountant_that_reads_too_little_is_contradicted(monkeypatch: pytest.MonkeyPatch) -> None:
    scope, plan = budget(3.0, 1e-3), event(1.0, 4.0, 40)  # epsilon 5.5
    monkeypatch.setattr(accounting, "epsilon", lambda *_: 2.75)
    with pytest.raises(PrivacyBudgetExceeded) as refused:
        Standing().admit(scope, [plan], scope.cost(plan))
    assert re.fullmatch(
        r"a plan of 40 steps is not admitted to hearts/record: two accountants contradict each other\. One admits it as"
        r" epsilon 2\.7500 at delta 0?\.001\d*, and by the other it is at least 5\.\d{4}; take more noise or fewer"
        r" steps, and report this as a fault",
        str(refused.value),
    )


def test_a_filter_that_counts_too_little_is_contradicted(monkeypatch: pytest.MonkeyPatch) -> None:
    scope, plan = budget(3.0, 1e-3), event(1.0, 4.0, 40)
    monkeypatch.setattr(accounting, "renyi", lambda *_: 1e-3)
    with pytest.raises(PrivacyBudgetExceeded, match=r"admits it as epsilon 3\.0000 .* at least 5\."):
        Standing().admit(scope, [plan], scope.cost(plan))


def test_a_ledger_kept_by_an_accountant_that_read_too_little_is_refused_on_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, scope = tmp_path / "north.sqlite", budget(7.0, 1e-12)
    with monkeypatch.context() as patch:
        # As it stood before the error of a composition was counted.
        patch.setattr(accounting, "epsilon", lambda *_: 6.977)
        patch.setattr(accounting, "least_epsilon", lambda *_: 0.0)
        with Ledger(path, "north", KEY, tmp_path / "north.head") as ledger:
            make_budget(ledger, scope)
            ledger.reserve(Asked(scope, "run-1", event(0.9, 900.0, 10**6), 1))
    with pytest.raises(LedgerTampered, match="does not fit into the budget"):
        read_ledger(path)


@pytest.mark.parametrize("by", [1 + 5e-6, 1 + 2e-5])
def test_a_ledger_kept_by_an_accountant_that_differs_in_the_sixth_digit_is_read(
    by: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, plan = tmp_path / "north.sqlite", event(0.8, 6.0, 40)
    figure = accounting.epsilon([plan], 1e-3)
    scope = budget(figure / by, 1e-3)
    with monkeypatch.context() as patch:
        patch.setattr(accounting, "epsilon", lambda *_: scope.epsilon)
        with Ledger(path, "north", KEY, tmp_path / "north.head") as ledger:
            make_budget(ledger, scope)
            ledger.reserve(Asked(scope, "run-1", plan, 1))
    if by < 1 + 1e-5:
        read_ledger(path)
        return
    with pytest.raises(LedgerTampered, match="does not fit into the budget"):
        read_ledger(path)
