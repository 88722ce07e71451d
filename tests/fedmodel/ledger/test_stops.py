"""What a ledger says was spent holds wherever runs ended, whoever chose that by looking at what was released."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from fedmodel.crypto import SigningKey
from fedmodel.errors import LedgerError, LedgerTampered, PrivacyBudgetExceeded
from fedmodel.ledger import Asked, Ledger, Run, Scope, Standing, read_ledger
from fedmodel.ledger.runs import Charged
from fedmodel.privacy import accounting
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from scenarios.runs.claims import claim_of
from tests.ledgers import budget_of, make_budget
from tests.stopping import Values, at_the_start, before, stopped

SCOPE = Scope("hearts", "record", 1, 1e-3, 3.0, 5)
NAME = SCOPE.name
SMALL = DpSgdEvent(20.0, 1.0, 1.0, 20, denominator=60)  # admitted by the filter
WHOLE = DpSgdEvent(6.58, 1.0, 1.0, 40, denominator=60)  # over the cap by the filter, under it by PLD


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "north.sqlite", "north", SigningKey(bytes([7]) * 32), tmp_path / "north.head") as ledger:
        make_budget(ledger, SCOPE)
        yield ledger


def bound(ledger: Ledger) -> float:
    return ledger.standing().bound(NAME)


@pytest.mark.parametrize("plan", [SMALL, WHOLE], ids=["filter", "plan"])
def test_a_run_is_claimed_by_its_whole_plan_from_its_first_charge_on(ledger: Ledger, plan: DpSgdEvent) -> None:
    ledger.reserve(Asked(SCOPE, "r1", plan, 1))
    assert ledger.standing().runs["r1"].claimed == []
    ledger.charge("r1", 1, 3, "k1")
    run = ledger.standing().runs["r1"]
    assert (run.claimed, [event.steps for event in run.events]) == ([plan], [3])
    if plan is SMALL:
        ledger.release("r1", "its loss was low enough")
        assert ledger.standing().runs["r1"].claimed == [plan]
    assert ledger.standing().claimed(NAME) == [plan]
    ledger.void_charge("r1", 1, "nothing left")
    assert ledger.standing().claimed(NAME) == []
    assert bound(ledger) == 0.0


def test_a_run_past_its_plan_has_no_claim(ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", SMALL, 1))
    ledger.charge("r1", 1, 20, "k1")
    with pytest.raises(LedgerTampered, match="21 steps of a plan of 20"):
        _ = replace(ledger.standing().runs["r1"], drawn=[21]).claimed


def test_the_one_plan_bounds_everything_wherever_it_ends(ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", WHOLE, 1))
    assert bound(ledger) == 0.0
    ledger.charge("r1", 1, 1, "k1")
    assert bound(ledger) == accounting.epsilon([WHOLE], SCOPE.delta)
    assert bound(ledger) > 9 * accounting.epsilon([replace(WHOLE, steps=1)], SCOPE.delta)


def test_plans_chosen_by_looking_are_bounded_by_the_cap_however_little_they_took(ledger: Ledger) -> None:
    """Neither what one run took, nor what its plan was: another may follow, chosen by what this one released."""
    for number in range(3):
        ledger.reserve(Asked(SCOPE, f"r{number}", SMALL, 1))
        ledger.charge(f"r{number}", 1, 1, f"k{number}")
        ledger.release(f"r{number}", "the attacker has seen enough")
        assert bound(ledger) == SCOPE.epsilon


def test_who_stops_early_gets_back_the_divergence_of_the_steps_that_were_not_taken_and_no_more(ledger: Ledger) -> None:
    """The adversary ends every run by looking, and plans anew with what is left, until nothing is: by PLD of the steps
    taken there would be room for more, and for a plan of its own epsilon too."""
    plan = replace(WHOLE, steps=2)
    taken = 0
    while taken <= 100:
        try:
            ledger.reserve(Asked(SCOPE, f"r{taken}", plan, 1, partial=True))
        except PrivacyBudgetExceeded:
            break
        ledger.charge(f"r{taken}", 1, 1, f"k{taken}")
        ledger.release(f"r{taken}", "the attacker has seen enough")
        taken += 1
    assert taken == SCOPE.cap // SCOPE.cost(replace(plan, steps=1))
    assert accounting.epsilon([replace(plan, steps=taken + 5)], SCOPE.delta) < SCOPE.epsilon
    assert bound(ledger) == SCOPE.epsilon


def admitted(units: int, noise: float) -> bool:
    """Return whether the law admits a step of such noise, where closed runs took so many steps of noise 10."""
    plan, standing = DpSgdEvent(10.0, 1.0, 1.0, 1_000, denominator=60), Standing()
    charges = {1: Charged(1, units, "k", 0)} if units else {}
    run = Run(NAME, (plan,), (SCOPE.cost(plan),), "filter", "", 1, [units], charges, closed=True)
    standing.scopes, standing.runs = {NAME: SCOPE}, {"earlier": run}
    step = replace(plan, noise_multiplier=noise, steps=1)
    try:
        return standing.admit(SCOPE, [step], SCOPE.cost(step)) == "filter"
    except PrivacyBudgetExceeded:
        return False


def test_the_best_adversary_who_plans_anew_by_looking_attains_no_more_than_delta() -> None:
    """After every step it closes its run, and chooses to stop, or another run of one step of little or of more noise.

    A step of noise 5 has the divergence of four of noise 10, so that what was spent is a number of those.
    """
    value, stop_N, most = dict[int, Values](), stopped(SCOPE.epsilon), 200
    for units in reversed(range(most)):
        best_N = stop_N
        for noise, more in ((10.0, 1), (5.0, 4)):
            if admitted(units, noise):
                best_N = np.maximum(best_N, before(value.get(units + more, stop_N), noise))
        value[units] = best_N
    assert 0.1 * SCOPE.delta < at_the_start(value[0]) <= SCOPE.delta
    assert [admitted(units, 10.0) for units in (0, 74, 75)] == [True, True, False]


@pytest.mark.parametrize("charged", [False, True])
def test_a_cap_that_was_lowered_after_a_look_is_no_claim(ledger: Ledger, charged: bool) -> None:
    """Who lowers it chooses the figure by what was released; before the first release there is nothing to look at."""
    ledger.reserve(Asked(SCOPE, "r1", SMALL, 1))
    if charged:
        ledger.charge("r1", 1, 1, "k1")
    ledger.override(NAME, 2.0, "less is enough", "somebody")
    ledger.charge("r1", 2, 1, "k2")
    assert bound(ledger) == (3.0 if charged else 2.0)
    assert ledger.standing().caps[NAME] == (bound(ledger), False)


def test_a_cap_that_was_raised_is_the_claim_from_then_on(ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", SMALL, 1))
    ledger.charge("r1", 1, 1, "k1")
    ledger.override(NAME, 5.0, "more", "somebody")
    ledger.override(NAME, 4.0, "not so much", "somebody")
    assert bound(ledger) == 5.0
    assert ledger.standing().caps[NAME] == (5.0, True)
    assert ledger.standing().cap_of(ledger.standing().runs["r1"]) == math.inf


def test_a_run_is_within_the_cap_that_all_of_its_budget_is_within(ledger: Ledger) -> None:
    """Whatever an accountant tells of its plan alone; nothing is known of a run that released nothing."""
    ledger.reserve(Asked(SCOPE, "r1", SMALL, 1))
    assert ledger.standing().cap_of(ledger.standing().runs["r1"]) == math.inf
    ledger.charge("r1", 1, 1, "k1")
    cap = ledger.standing().cap_of(ledger.standing().runs["r1"])
    assert cap == SCOPE.epsilon
    alone = accounting.epsilon([SMALL], SCOPE.delta)
    assert claim_of([SMALL], [1], SCOPE.delta, cap)["epsilon"] == alone < cap
    told = claim_of([SMALL], [20], SCOPE.delta, 0.5)
    assert (told["epsilon"], told["epsilon_of_steps_taken"], told["odometer"]) == (0.5, 0.5, None)


def test_a_raise_makes_room_beside_the_one_plan_and_then_the_cap_is_the_claim(ledger: Ledger) -> None:
    """Raised before anything was charged, or after, or by less than makes any room."""
    ledger.reserve(Asked(SCOPE, "r1", WHOLE, 1))
    ledger.override(NAME, 3.6, "more", "somebody")
    ledger.charge("r1", 1, 1, "k1")
    assert bound(ledger) == 3.6
    ledger.reserve(Asked(budget_of(ledger, NAME), "r2", SMALL, 1))
    ledger.charge("r2", 1, 1, "k2")
    assert bound(ledger) == 3.6


def test_a_raise_that_makes_no_room_leaves_the_one_plan_as_the_claim(ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", WHOLE, 1))
    ledger.charge("r1", 1, 1, "k1")
    ledger.override(NAME, 3.3, "more, and less than its divergence needs", "somebody")
    assert bound(ledger) == accounting.epsilon([WHOLE], SCOPE.delta)


def beside_the_plan(ledger: Ledger, charged: str) -> None:
    """Reserve the one plan, and beside it, under a higher cap, a run that the filter admits."""
    ledger.reserve(Asked(SCOPE, "plan", WHOLE, 1))
    ledger.override(NAME, 8.0, "more", "somebody")
    ledger.reserve(Asked(budget_of(ledger, NAME), "filter", replace(WHOLE, steps=30), 1))
    found = ledger.standing().runs
    assert [found[run].admitted for run in ("plan", "filter")] == ["plan", "filter"]
    for number, run in enumerate(charged.split()):
        ledger.charge(run, 1, 1, f"k{number}")


@pytest.mark.parametrize("charged", ["", "plan", "filter", "plan filter"])
def test_a_cap_is_not_lowered_under_a_plan_and_what_stands_beside_it(ledger: Ledger, charged: str) -> None:
    """The plan alone is within the old cap; both together are not, whatever was charged of them."""
    beside_the_plan(ledger, charged)
    with pytest.raises(LedgerError, match="under what runs hold already"):
        ledger.override(NAME, 3.0, "as before", "somebody")
    for run in ("plan", "filter"):
        ledger.charge(run, 2, 1, f"later-{run}")
    both = accounting.epsilon(ledger.standing().claimed(NAME), SCOPE.delta)
    assert SCOPE.epsilon < both <= bound(ledger) == 8.0
    # What the run beside it took stays beside it, too, when its rest is given back.
    ledger.release("filter", "it ended")
    with pytest.raises(LedgerError, match="under what runs hold already"):
        ledger.override(NAME, 3.0, "as before", "somebody")


def test_a_cap_is_lowered_to_the_one_plan_again_where_what_stood_beside_it_is_gone(ledger: Ledger) -> None:
    beside_the_plan(ledger, "")
    ledger.release("filter", "it never began")
    with pytest.raises(LedgerError, match="under what runs hold already"):
        ledger.override(NAME, accounting.epsilon([WHOLE], SCOPE.delta) - 1e-3, "less than it", "somebody")
    ledger.override(NAME, 3.0, "as before", "somebody")
    ledger.charge("plan", 1, 1, "k")
    assert bound(ledger) == accounting.epsilon([WHOLE], SCOPE.delta) <= 3.0


def test_a_cap_that_was_lowered_so_by_another_program_is_refused_by_every_reader(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside_the_plan(ledger, "")
    with monkeypatch.context() as patch:
        patch.setattr(Standing, "check_lowered", lambda *_: None)
        patch.setattr(Standing, "held", lambda *_: 0)  # totals over the cap would be refused by the file, too
        ledger.override(NAME, 3.0, "as before", "somebody")
    with pytest.raises(LedgerTampered, match="it is no override that may stand here"):
        read_ledger(ledger.path)


def test_in_whatever_order_caps_change_and_runs_come_and_go_the_figure_bounds_all_plans(tmp_path: Path) -> None:
    """Every plan of which a step was charged, as if each had been fixed in advance: never more than what is told."""
    steps: dict[str, Callable[[Ledger], object]] = {
        "plan": lambda ledger: ledger.reserve(Asked(budget_of(ledger, NAME), "plan", WHOLE, 1)),
        "raise": lambda ledger: ledger.override(NAME, 8.0, "more", "somebody"),
        "filter": lambda ledger: ledger.reserve(Asked(budget_of(ledger, NAME), "filter", replace(WHOLE, steps=30), 1)),
        "lower": lambda ledger: ledger.override(NAME, 3.0, "as before", "somebody"),
        "charge plan": lambda ledger: ledger.charge("plan", 1, 1, "k1"),
        "charge filter": lambda ledger: ledger.charge("filter", 1, 1, "k2"),
    }
    before = [("plan", "charge plan"), ("filter", "charge filter"), ("raise", "lower")]
    told = set()
    for number, order in enumerate(permutations(steps)):
        if any(order.index(first) > order.index(then) for first, then in before):
            continue
        with Ledger(
            tmp_path / f"{number}.sqlite", "north", SigningKey(bytes([7]) * 32), tmp_path / f"{number}.head"
        ) as ledger:
            make_budget(ledger, SCOPE)
            for step in order:
                with suppress(LedgerError, PrivacyBudgetExceeded):
                    steps[step](ledger)
            standing = ledger.standing()
            claimed = standing.claimed(NAME)
            assert accounting.epsilon(claimed, SCOPE.delta) <= standing.bound(NAME), order
            told.add((len(claimed), standing.scopes[NAME].epsilon, standing.bound(NAME)))
    alone = accounting.epsilon([WHOLE], SCOPE.delta)
    assert {(2, 8.0, 8.0), (1, 3.0, alone)} <= told


def test_a_cap_that_was_lowered_to_the_very_plan_is_read_by_an_accountant_of_other_last_digits(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a plan that was admitted is; and whoever lowers a cap is not let under the figure that it has itself."""
    ledger.reserve(Asked(SCOPE, "plan", WHOLE, 1))
    exact, figure = accounting.epsilon, accounting.epsilon([WHOLE], SCOPE.delta)
    with pytest.raises(LedgerError, match="under what runs hold already"):
        ledger.override(NAME, figure * (1 - 1e-9), "a hair under it", "somebody")
    ledger.override(NAME, figure, "no more than the plan", "somebody")
    monkeypatch.setattr(accounting, "epsilon", lambda events, delta: (1 + 1e-7) * exact(events, delta))
    assert read_ledger(ledger.path).scopes[NAME].epsilon == figure


def test_a_cap_that_was_lowered_under_the_plan_by_more_than_last_digits_is_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.reserve(Asked(SCOPE, "plan", WHOLE, 1))
    exact = accounting.epsilon
    ledger.override(NAME, exact([WHOLE], SCOPE.delta), "no more than the plan", "somebody")
    monkeypatch.setattr(accounting, "epsilon", lambda events, delta: (1 + 1e-4) * exact(events, delta))
    with pytest.raises(LedgerTampered, match="under what runs hold already"):
        read_ledger(ledger.path)
