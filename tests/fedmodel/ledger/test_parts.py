"""A run that may do several things: all of them are reserved together, and each charge says on which it draws."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedmodel.crypto import SigningKey
from fedmodel.errors import LedgerError, LedgerTampered, PrivacyBudgetExceeded
from fedmodel.ledger import Asked, Entry, Ledger, Scope, Standing, verify_ledger
from fedmodel.ledger.entries import canonical, charge_body, figures_of, reserved_parts
from fedmodel.privacy import accounting
from fedmodel.privacy.events import event_to_json
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.mechanisms.none_unsafe import UnprotectedEvent
from scenarios.runs.claims import claim_of
from tests.ledgers import make_budget

SCOPE = Scope("d", "record", 1, 1e-3, 3.0, 5)
PLAN, STATISTIC, EVALUATION = (
    DpSgdEvent(20.0, 1.0, 1.0, 8, 10), DpSgdEvent(40.0, 2.0, 1.0, 1, 1), DpSgdEvent(30.0, 1.0, 0.5, 4, 1),
)  # fmt: skip
PARTS = (PLAN, STATISTIC, EVALUATION)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "a.sqlite", "a", SigningKey.generate(), tmp_path / "head") as found:
        make_budget(found, SCOPE)
        yield found


def reserved(ledger: Ledger, **more: Any) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 2, besides=(STATISTIC, EVALUATION), **more))


def entries(ledger: Ledger) -> tuple[Entry, ...]:
    return verify_ledger(ledger.path).entries


def test_all_parts_are_reserved_by_one_entry_and_read_back(ledger: Ledger) -> None:
    reserved(ledger)
    content = entries(ledger)[-1].content
    assert reserved_parts(content) == PARTS
    assert content["cost"] == [SCOPE.cost(part) for part in PARTS]
    assert content["event"] == json.loads(event_to_json(PLAN))
    found = ledger.reservation("r1")
    assert found is not None
    assert (found.parts, found.plan) == (PARTS, PLAN)
    assert ledger.standing().held(SCOPE.name) == sum(map(SCOPE.cost, PARTS))


def test_a_charge_names_the_part_that_it_draws_on_and_says_what_is_taken_of_each(ledger: Ledger) -> None:
    reserved(ledger)
    assert ledger.charge("r1", 1, 1, "statistic", part=1).event == STATISTIC
    assert ledger.charge("r1", 1, 2, "train").event == PLAN.times(2)
    assert ledger.charge("r1", 2, 3, "evaluate", part=2).event == EVALUATION.times(3)
    assert [(one.content["part"], one.content["taken"]) for one in entries(ledger)[-3:]] == [
        (1, [0, 1, 0]), (0, [2, 1, 0]), (2, [2, 1, 3]),
    ]  # fmt: skip
    standing = ledger.standing()
    assert standing.events(SCOPE.name) == [STATISTIC, PLAN.times(2), EVALUATION.times(3)]
    assert standing.claimed(SCOPE.name) == list(PARTS)
    costs = [SCOPE.cost(part) for part in PARTS]
    taken = -(-costs[0] * 2 // 8) + costs[1] + -(-costs[2] * 3 // 4)
    assert standing.totals(SCOPE.name) == (SCOPE.cap, sum(costs), taken)


def test_each_part_is_charged_up_to_its_own_steps_and_no_other_is_lent_from(ledger: Ledger) -> None:
    reserved(ledger)
    ledger.charge("r1", 1, 1, "a", part=1)
    size = len(entries(ledger))
    for part, steps in ((1, 1), (0, 9), (2, 5)):
        with pytest.raises(PrivacyBudgetExceeded, match="its budget pays for"):
            ledger.charge("r1", 1, steps, "b", part=part)
    for part in (-1, 3):
        with pytest.raises(LedgerError, match="reserved 3 parts"):
            ledger.charge("r1", 1, 1, "b", part=part)
    assert len(entries(ledger)) == size
    ledger.charge("r1", 1, 8, "c")
    ledger.charge("r1", 1, 4, "d", part=2)
    assert ledger.standing().runs["r1"].drawn == [8, 1, 4]


def test_a_run_of_one_part_has_no_other(ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 2))
    with pytest.raises(LedgerError, match="reserved 1 part,"):
        ledger.charge("r1", 1, 1, "a", part=1)


def test_all_parts_are_admitted_together_or_nothing_is(ledger: Ledger) -> None:
    """Each of three fits alone, and the three do not."""
    part = DpSgdEvent(1.6, 1.0, 1.0, 1, 10)
    assert SCOPE.cost(part) < SCOPE.cap < 3 * SCOPE.cost(part)
    assert accounting.epsilon([part] * 3, SCOPE.delta) > SCOPE.epsilon
    with pytest.raises(PrivacyBudgetExceeded, match="a plan of 3 steps does not fit"):
        ledger.reserve(Asked(SCOPE, "r1", part, 1, besides=(part, part)))
    assert not ledger.knows("r1")


def test_parts_that_the_filter_does_not_admit_are_admitted_as_one_plan_by_the_epsilon_of_all(ledger: Ledger) -> None:
    whole = (DpSgdEvent(6.58, 1.0, 1.0, 20, 60), DpSgdEvent(6.58, 1.0, 1.0, 20, 1))
    assert sum(map(SCOPE.cost, whole)) > SCOPE.cap
    ledger.reserve(Asked(SCOPE, "r1", whole[0], 20, besides=whole[1:]))
    ledger.charge("r1", 1, 20, "a", part=1)
    standing = ledger.standing()
    assert standing.runs["r1"].admitted == "plan"
    assert standing.bound(SCOPE.name) == accounting.epsilon(whole, SCOPE.delta) <= SCOPE.epsilon
    with pytest.raises(PrivacyBudgetExceeded, match="taken whole by one plan of 40 steps"):
        ledger.reserve(Asked(SCOPE, "r2", PLAN, 2))


def test_a_part_without_noise_makes_the_whole_run_one_that_protects_nobody(ledger: Ledger) -> None:
    bare = UnprotectedEvent(1.0, 1.0, 1, 10)
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 2, besides=(bare,)))
    ledger.charge("r1", 1, 2, "a")
    standing = ledger.standing()
    assert standing.runs["r1"].admitted == "none"
    assert standing.bound(SCOPE.name) == standing.cap_of(standing.runs["r1"]) == float("inf")
    with pytest.raises(PrivacyBudgetExceeded, match="a run without noise"):
        ledger.reserve(Asked(SCOPE, "r2", PLAN, 2))


def test_a_part_of_another_unit_is_not_reserved(ledger: Ledger) -> None:
    with pytest.raises(PrivacyBudgetExceeded, match="for units of 2 records"):
        ledger.reserve(Asked(SCOPE, "r1", PLAN, 2, besides=(replace(STATISTIC, max_records=2),)))


def test_where_a_budget_pays_for_a_part_of_the_plan_all_else_is_reserved_in_full(ledger: Ledger) -> None:
    long, large = PLAN.times(4000), DpSgdEvent(4.0, 1.0, 1.0, 5, 1)
    found = ledger.reserve(Asked(SCOPE, "r1", long, 2, partial=True, besides=(large,)))
    assert 0 < found.steps < 4000
    assert ledger.standing().runs["r1"].parts == (found, large)
    assert Standing().rounds_fitting(SCOPE, long, 2) > found.steps // 2


def test_asked_again_the_same_is_reserved_and_other_parts_are_refused(ledger: Ledger) -> None:
    reserved(ledger)
    reserved(ledger)
    for besides in ((), (STATISTIC,), (EVALUATION, STATISTIC), (STATISTIC, EVALUATION.times(3))):
        with pytest.raises(LedgerError, match="reserved another plan"):
            ledger.reserve(Asked(SCOPE, "r1", PLAN, 2, besides=besides))


def test_a_voided_charge_gives_its_own_part_back_and_a_released_run_what_no_part_took(ledger: Ledger) -> None:
    reserved(ledger)
    ledger.charge("r1", 1, 2, "a")
    ledger.charge("r1", 1, 1, "b", part=1)
    ledger.void_charge("r1", 1, "nothing left")
    assert ledger.standing().runs["r1"].drawn == [2, 0, 0]
    ledger.charge("r1", 1, 1, "b", part=1)
    ledger.release("r1", "ended")
    costs = [SCOPE.cost(part) for part in PARTS]
    assert ledger.standing().held(SCOPE.name) == -(-costs[0] * 2 // 8) + costs[1]
    assert entries(ledger)[-1].content["taken"] == [2, 1, 0]


def test_a_claim_is_of_all_parts_in_full_and_the_steps_taken_are_told_beside_it() -> None:
    told = claim_of(PARTS, [2, 0, 4], SCOPE.delta)
    assert told["epsilon"] == accounting.epsilon(PARTS, SCOPE.delta)
    assert told["epsilon_of_steps_taken"] == accounting.epsilon([PLAN.times(2), EVALUATION], SCOPE.delta)
    assert told["odometer"] is None
    bare = claim_of((PLAN, UnprotectedEvent(1.0, 1.0, 1, 10)), [1, 0], SCOPE.delta)
    assert set(bare.values()) == {None}


@pytest.mark.parametrize("of", [
    {"part": 0}, {"part": 3}, {"part": True}, {"part": "1"}, {"part": None}, {"taken": 1}, {"taken": [0, 1]},
    {"taken": [0, 1, 0, 0]}, {"taken": [1, 0, 0]}, {"taken": [0, True, 0]}, {"more": 1},
])  # fmt: skip
def test_a_charge_that_says_another_part_or_other_steps_is_no_entry(ledger: Ledger, of: dict[str, Any]) -> None:
    reserved(ledger)
    standing, last = ledger.standing(), entries(ledger)[-1]
    body = {**json.loads(charge_body(STATISTIC, [0, 1, 0], 1)), **of}
    changed = replace(
        last, sequence=last.sequence + 1, kind="charge", round=1, key="k", previous=last.hash, body=canonical(body)
    )
    with pytest.raises(LedgerTampered):
        standing.apply(changed)


def test_a_reader_takes_no_charge_past_its_own_part(ledger: Ledger) -> None:
    reserved(ledger)
    ledger.charge("r1", 1, 1, "a", part=1)
    standing, last = ledger.standing(), entries(ledger)[-1]
    again = replace(last, sequence=last.sequence + 1, key="k", previous=last.hash)
    with pytest.raises(LedgerTampered, match="would take 2 of 1 steps"):
        standing.apply(replace(again, body=charge_body(STATISTIC, [0, 2, 0], 1)))


def test_what_is_said_of_parts_is_one_whole_number_for_each() -> None:
    assert figures_of(4, 1) == (4,)
    assert figures_of([4, 0], 2) == (4, 0)
    for said, parts in (([4], 1), (4, 2), ([4, 0, 1], 2), ([4, 0.0], 2), ([4, True], 2), ("4", 1), (None, 1)):
        with pytest.raises(LedgerError, match="one whole number for each"):
            figures_of(said, parts)


def test_an_empty_list_of_other_parts_is_no_reservation() -> None:
    event = json.loads(event_to_json(PLAN))
    for besides in ([], {}, None, "all"):
        with pytest.raises(LedgerError, match="a list of events or nothing"):
            reserved_parts({"event": event, "besides": besides})
