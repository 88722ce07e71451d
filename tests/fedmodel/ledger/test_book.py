"""What a ledger admits, charges and gives back; that no race and no kill breaks it; what the file itself refuses."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmodel.crypto import SigningKey
from fedmodel.errors import FedmodelError, LedgerError, LedgerTampered, PrivacyBudgetExceeded
from fedmodel.ledger import (
    MICRO,
    Asked,
    Charge,
    Ledger,
    Reservation,
    Scope,
    Standing,
    origin_of,
    read_ledger,
    verify_ledger,
)
from fedmodel.ledger import clock as clock_module
from fedmodel.ledger import file as file_module
from fedmodel.ledger.head_file import HeadFile
from fedmodel.ledger.heads import open_head
from fedmodel.ledger.tables import COLUMNS, INSERT_ENTRY
from fedmodel.privacy import accounting
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.secagg.progress import Progress
from tests.ledgers import budget_of, make_budget

SILO, KEY = "north", SigningKey(bytes([7]) * 32)
SCOPE = Scope("hearts", "record", 1, 1e-3, 3.0, 5)
NAME = SCOPE.name
PLAN = DpSgdEvent(
    20.0, 1.0, 1.0, 20, denominator=60
)  # a full-batch step of order 5 costs 5 / (2 * 20^2): 125,000 in all
FITTING = 15  # runs of it, in a cap of 1,898,564
# Over the cap by the filter, under it by PLD: epsilon 2.99.
WHOLE = DpSgdEvent(6.58, 1.0, 1.0, 40, denominator=60)
STATUS = {LedgerError: 4, PrivacyBudgetExceeded: 2}


def opened(folder: Path, name: str = "north") -> Ledger:
    return Ledger(folder / f"{name}.sqlite", SILO, KEY, folder / f"{name}.head")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path) as ledger:
        make_budget(ledger, SCOPE)
        yield ledger


@contextmanager
def refused(ledger: Ledger, words: str, kind: type[FedmodelError] = LedgerError) -> Iterator[None]:
    """Expect exactly this error, and that nothing was entered."""
    size = ledger.standing().size
    with pytest.raises(kind, match=words) as caught:
        yield
    assert type(caught.value) is kind
    assert caught.value.exit_status == STATUS[kind]
    assert ledger.standing().size == size


def run_as_program(program: str, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **more)


PREAMBLE = """
import os, sys
from pathlib import Path
from fedmodel.crypto import SigningKey
from fedmodel.errors import LedgerError, PrivacyBudgetExceeded
from fedmodel.ledger import Asked, Ledger, Scope
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
KEY = SigningKey(bytes([7]) * 32)
SCOPE = Scope("hearts", "record", 1, 1e-3, 3.0, 5)
folder = Path(sys.argv[1])
def opened():
    return Ledger(folder / "north.sqlite", "north", KEY, folder / "north.head")
"""


# Figures


def test_a_cap_is_rounded_down_and_a_cost_up() -> None:
    """By the formulas of the papers, written out again: Canonne and others for the cap, Mironov for the cost."""
    excess = math.log(1 - 1 / 5) - math.log(1e-3 * 5) / 4
    assert SCOPE.cap == math.floor((3.0 - excess) * MICRO) == 1_898_564
    assert SCOPE.cost(PLAN) == 125_000
    assert SCOPE.cost(replace(PLAN, noise_multiplier=3.0, steps=1)) == 277_778  # 5 / 18 is 0.27777...
    assert SCOPE.cost(replace(PLAN, noise_multiplier=1e6, steps=1)) == 1  # nothing that is released is free
    assert replace(SCOPE, epsilon=0.001).cap == 0


def test_the_name_of_a_scope_says_data_unit_and_records() -> None:
    assert NAME == "hearts/record"
    assert replace(SCOPE, unit="person", max_records=3).name == "hearts/person-3"


# Reserving


def test_a_run_is_reserved_once_and_asked_again_gets_the_same(ledger: Ledger) -> None:
    assert ledger.reservation("r1") is None
    assert ledger.reserve(Asked(SCOPE, "r1", PLAN, 1)) == PLAN
    size = ledger.standing().size
    assert ledger.reserve(Asked(SCOPE, "r1", PLAN, 1)) == PLAN
    assert ledger.reserve(Asked(SCOPE, "r1", PLAN, 1, partial=True)) == PLAN
    assert ledger.reservation("r1") == Reservation((PLAN,), NAME, "")
    assert ledger.standing().size == size
    assert ledger.standing().totals(NAME) == (SCOPE.cap, 125_000, 0)


def test_a_run_is_of_one_scenario(tmp_path: Path, ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1, scenario="ab"))
    assert ledger.reserve(Asked(SCOPE, "r1", PLAN, 1, scenario="ab")) == PLAN
    for other in ("", "abc"):
        with refused(ledger, "run r1 reserved another plan"):
            ledger.reserve(Asked(SCOPE, "r1", PLAN, 1, scenario=other))
    with opened(tmp_path) as again:
        assert again.reservation("r1") == Reservation((PLAN,), NAME, "ab")
        assert again.standing().runs["r1"].scenario == "ab"


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAN, noise_multiplier=19.0),
        replace(PLAN, max_grad_norm=2.0),
        replace(PLAN, sample_rate=0.5, realised_sample_rate=0.5),
        replace(PLAN, denominator=61),
        replace(PLAN, noise_source="seeded-unsafe"),
        replace(PLAN, max_records=2),
        replace(PLAN, steps=5),
        replace(PLAN, steps=40),
    ],
    ids=["noise", "clip", "rate", "denominator", "source", "records", "fewer steps", "more steps"],
)
def test_another_plan_for_the_same_run_is_refused(ledger: Ledger, other: DpSgdEvent) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    with refused(ledger, "run r1 reserved another plan"):
        ledger.reserve(Asked(SCOPE, "r1", other, 1))
    assert ledger.reservation("r1") == Reservation((PLAN,), NAME, "")


def test_a_run_is_of_one_scope(ledger: Ledger) -> None:
    other = replace(SCOPE, data="lungs")
    make_budget(ledger, other)
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    with refused(ledger, "reserved another plan"):
        ledger.reserve(Asked(other, "r1", PLAN, 1))


def test_a_plan_of_another_unit_is_refused(ledger: Ledger) -> None:
    with refused(ledger, "units of 3 records cannot be charged to hearts/record", PrivacyBudgetExceeded):
        ledger.reserve(Asked(SCOPE, "r1", replace(PLAN, max_records=3), 1))
    persons = Scope("lungs", "person", 3, 1e-3, 3.0, 5)
    make_budget(ledger, persons)
    with refused(ledger, "units of 1 record cannot be charged to lungs/person-3", PrivacyBudgetExceeded):
        ledger.reserve(Asked(persons, "r1", PLAN, 1, partial=True))


@pytest.mark.parametrize("before", [[], [20, 20, 7]], ids=["first, by its own epsilon", "after others, by the filter"])
def test_a_partial_reservation_takes_the_most_whole_rounds_that_fit(ledger: Ledger, before: list[int]) -> None:
    for number, steps in enumerate(before):
        ledger.reserve(Asked(SCOPE, f"b{number}", replace(PLAN, steps=steps), 1))
    long = replace(WHOLE, steps=60)
    with refused(ledger, "a plan of 60 steps does not fit", PrivacyBudgetExceeded):
        ledger.reserve(Asked(SCOPE, "r1", long, 3))
    taken = ledger.reserve(Asked(SCOPE, "r1", long, 3, partial=True))
    assert taken == replace(long, steps=taken.steps)
    assert taken.steps % 3 == 0
    if before:
        left = SCOPE.cap - SCOPE.cost(replace(PLAN, steps=47))
        assert SCOPE.cost(taken) <= left < SCOPE.cost(replace(taken, steps=taken.steps + 3))
        assert ledger.standing().runs["r1"].admitted == "filter"
    else:
        assert (
            accounting.epsilon([taken], 1e-3) <= 3.0 < accounting.epsilon([replace(long, steps=taken.steps + 3)], 1e-3)
        )
        assert ledger.standing().runs["r1"].admitted == "plan"
    assert ledger.reserve(Asked(SCOPE, "r1", long, 3, partial=True)) == taken
    assert ledger.reservation("r1") == Reservation((taken,), NAME, "")


def test_a_partial_reservation_of_what_fits_is_whole_and_of_nothing_is_refused(ledger: Ledger) -> None:
    assert ledger.reserve(Asked(SCOPE, "r1", PLAN, 4, partial=True)) == PLAN
    heavy = replace(PLAN, noise_multiplier=0.3)
    with refused(ledger, "does not fit", PrivacyBudgetExceeded):
        ledger.reserve(Asked(SCOPE, "r2", heavy, 4, partial=True))


def test_a_round_of_more_steps_than_the_plan_has_is_refused_clearly(ledger: Ledger) -> None:
    with pytest.raises(FedmodelError, match="round"):
        ledger.reserve(Asked(SCOPE, "r1", PLAN, PLAN.steps + 1, partial=True))
    with pytest.raises(FedmodelError, match="round"):
        ledger.reserve(Asked(SCOPE, "r1", PLAN, 0, partial=True))


# The two ways of admission


def test_equal_runs_fill_the_budget_and_not_one_more(ledger: Ledger) -> None:
    assert ledger.standing().runs_fitting(SCOPE, PLAN) == FITTING == SCOPE.cap // SCOPE.cost(PLAN)
    for number in range(FITTING):
        assert ledger.standing().runs_fitting(SCOPE, PLAN) == FITTING - number
        ledger.reserve(Asked(SCOPE, f"r{number}", PLAN, 1))
    assert ledger.standing().runs_fitting(SCOPE, PLAN) == 0
    with refused(ledger, "needs 0.125000 of Rényi divergence of order 5, and 0.023564 is left", PrivacyBudgetExceeded):
        ledger.reserve(Asked(SCOPE, "more", PLAN, 1))
    assert {run.admitted for run in ledger.standing().runs.values()} == {"filter"}


def test_a_first_plan_that_only_its_own_epsilon_admits_takes_the_whole_budget(ledger: Ledger) -> None:
    assert SCOPE.cost(WHOLE) > SCOPE.cap
    assert accounting.epsilon([WHOLE], 1e-3) <= 3.0
    ledger.reserve(Asked(SCOPE, "r1", WHOLE, 1))
    assert ledger.standing().runs["r1"].admitted == "plan"
    assert ledger.standing().totals(NAME) == (SCOPE.cap, SCOPE.cap, 0)
    ledger.charge("r1", 1, 1, "k1")
    least = replace(PLAN, noise_multiplier=1e6, steps=1)
    for plan in (least, PLAN, WHOLE):
        with refused(ledger, "was taken whole by one plan of 40 steps", PrivacyBudgetExceeded):
            ledger.reserve(Asked(SCOPE, "r2", plan, 1))
        with refused(ledger, "was taken whole", PrivacyBudgetExceeded):
            ledger.reserve(Asked(SCOPE, "r2", plan, 1, partial=True))
    with refused(
        ledger, "admitted as the one plan of hearts/record, and took the whole budget"
    ):  # it ended early; what follows it would be adaptive
        ledger.release("r1", "the run ended")
    ledger.override(NAME, 3.4, "more, and less than its divergence needs", "somebody")
    with refused(ledger, "was taken whole", PrivacyBudgetExceeded):
        ledger.reserve(Asked(budget_of(ledger, NAME), "r2", least, 1))
    ledger.override(NAME, 3.0, "as before", "somebody")
    ledger.void_charge("r1", 1, "nothing left")
    with refused(ledger, "was taken whole", PrivacyBudgetExceeded):
        ledger.reserve(Asked(SCOPE, "r2", least, 1))
    ledger.release("r1", "nothing of it was ever released")
    ledger.reserve(Asked(SCOPE, "r2", WHOLE, 1))
    assert ledger.standing().runs["r2"].admitted == "plan"


def test_beside_a_whole_plan_only_an_override_makes_room_and_then_by_the_filter_alone(ledger: Ledger) -> None:
    """Its divergence counts in full, so that all of them together stay within the raised cap, however chosen."""
    ledger.reserve(Asked(SCOPE, "r1", WHOLE, 1))
    ledger.charge("r1", 1, 1, "k1")
    ledger.override(NAME, 3.6, "more", "somebody")
    raised = replace(SCOPE, epsilon=3.6)
    room = raised.cap - SCOPE.cost(WHOLE)
    assert 150_000 < room < 250_000
    with refused(ledger, "was taken whole", PrivacyBudgetExceeded):
        ledger.reserve(Asked(raised, "r2", replace(PLAN, steps=40), 1))
    ledger.reserve(Asked(raised, "r3", PLAN, 1))
    assert ledger.standing().runs["r3"].admitted == "filter"
    with refused(ledger, "was taken whole", PrivacyBudgetExceeded):
        ledger.reserve(Asked(raised, "r4", PLAN, 1))


@pytest.mark.parametrize("noise", [6.55, 6.58])
def test_a_plan_of_a_larger_epsilon_than_the_cap_is_in_neither_way(ledger: Ledger, noise: float) -> None:
    plan = replace(WHOLE, noise_multiplier=noise)
    if accounting.epsilon([plan], 1e-3) <= 3.0:
        ledger.reserve(Asked(SCOPE, "r1", plan, 1))
    else:
        with refused(ledger, "does not fit into the budget of hearts/record", PrivacyBudgetExceeded):
            ledger.reserve(Asked(SCOPE, "r1", plan, 1))
    assert ("r1" in ledger.standing().runs) == (noise == 6.58)


def test_a_plan_admitted_by_its_own_epsilon_is_only_ever_the_first(ledger: Ledger) -> None:
    """Even beside the least of runs; but a run of which nothing was, or can be, released leaves it untouched."""
    ledger.reserve(Asked(SCOPE, "r1", replace(PLAN, noise_multiplier=1e6, steps=1), 1))
    with refused(ledger, "does not fit", PrivacyBudgetExceeded):
        ledger.reserve(Asked(SCOPE, "r2", WHOLE, 1))
    ledger.charge("r1", 1, 1, "k1")
    ledger.release("r1", "ended")
    with refused(ledger, "does not fit", PrivacyBudgetExceeded):
        ledger.reserve(Asked(SCOPE, "r2", WHOLE, 1))
    ledger.void_charge("r1", 1, "nothing left")
    ledger.reserve(Asked(SCOPE, "r2", WHOLE, 1))
    assert ledger.standing().runs["r2"].admitted == "plan"


@pytest.mark.parametrize(("steps", "fits"), [(17, True), (18, False)])
def test_a_second_plan_is_admitted_if_and_only_if_the_sum_of_costs_fits(ledger: Ledger, steps: int, fits: bool) -> None:
    """The first takes 0.875 of 1.898564; a step of noise 6.5 costs 0.059172."""
    ledger.reserve(Asked(SCOPE, "r1", replace(PLAN, steps=140), 1))
    plan = replace(PLAN, noise_multiplier=6.5, steps=steps)
    assert (875_000 + SCOPE.cost(plan) <= SCOPE.cap) == fits
    if fits:
        ledger.reserve(Asked(SCOPE, "r2", plan, 1))
        assert ledger.standing().totals(NAME) == (SCOPE.cap, 875_000 + SCOPE.cost(plan), 0)
    else:
        assert accounting.epsilon([plan], 1e-3) < 3.0
        with refused(ledger, "does not fit", PrivacyBudgetExceeded):
            ledger.reserve(Asked(SCOPE, "r2", plan, 1))


Choice = tuple[float, float, int, int]  # noise, rate, steps reserved, steps charged at most
CHOICES = st.lists(
    st.tuples(
        st.sampled_from([1.5, 3.0, 5.0, 8.0]),
        st.sampled_from([0.05, 0.3, 1.0]),
        st.sampled_from([1, 3, 10, 30]),
        st.sampled_from([1, 2, 30]),
    ),
    min_size=3,
    max_size=10,
)


@settings(max_examples=10)
@given(CHOICES)
def test_however_plans_are_chosen_what_is_charged_stays_within_the_cap(choices: list[Choice]) -> None:
    """Adaptively admitted runs, some of which end early: their composition is never over the epsilon of the cap."""
    with TemporaryDirectory() as folder, opened(Path(folder)) as ledger:
        make_budget(ledger, SCOPE)
        ledger.reserve(Asked(SCOPE, "first", replace(PLAN, steps=1), 1))
        for number, (noise, rate, steps, taken) in enumerate(choices):
            plan = DpSgdEvent(noise, 1.0, rate, steps, denominator=60)
            try:
                kept = ledger.reserve(Asked(SCOPE, f"r{number}", plan, 1, partial=True))
            except PrivacyBudgetExceeded:
                continue
            ledger.charge(f"r{number}", 1, min(taken, kept.steps), f"k{number}")
            ledger.release(f"r{number}", "done")
        standing = ledger.standing()
        assert {run.admitted for run in standing.runs.values()} == {"filter"}
        events = standing.events(NAME)
        spent = sum(accounting.renyi(event, SCOPE.order) for event in events)
        cap, reserved, told = standing.totals(NAME)
        assert spent <= told / MICRO <= reserved / MICRO <= cap / MICRO
        assert accounting.epsilon(events, SCOPE.delta, accounting.COARSE_GRID) <= SCOPE.epsilon
        assert accounting.renyi_to_epsilon(spent, SCOPE.order, SCOPE.delta) <= SCOPE.epsilon


# Charging


def test_charges_are_kept_in_order_and_never_exceed_the_reservation(tmp_path: Path, ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    assert ledger.charge("r1", 1, 19, "k1") == Charge(replace(PLAN, steps=19), 4)
    with refused(ledger, "asks for 2 steps; run r1 has taken 19 of the 20", PrivacyBudgetExceeded):
        ledger.charge("r1", 2, 2, "k2")
    with opened(tmp_path) as other:
        assert other.charge("r1", 2, 1, "k2") == Charge(replace(PLAN, steps=1), 5)
    with refused(ledger, "asks for 1 step; run r1 has taken 20 of the 20", PrivacyBudgetExceeded):
        ledger.charge("r1", 3, 1, "k3")
    assert [event.steps for event in ledger.standing().events(NAME)] == [19, 1]
    assert ledger.standing().totals(NAME) == (SCOPE.cap, 125_000, 125_000)


@pytest.mark.parametrize("steps", [0, -1, -20])
def test_a_charge_is_of_at_least_one_step(ledger: Ledger, steps: int) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    ledger.charge("r1", 1, 20, "k1")
    with refused(ledger, "steps must be a whole number from 1"):
        ledger.charge("r1", 2, steps, "k2")


def test_a_charge_needs_a_reservation_of_its_own(ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    with refused(ledger, "run r2 has no reservation; a silo joins a run before it trains"):
        ledger.charge("r2", 1, 1, "k1")


def test_every_call_is_a_charge_and_its_key_says_how_often(tmp_path: Path, ledger: Ledger) -> None:
    """What is released twice is paid for twice, whoever asks and under whatever key."""
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    ledger.reserve(Asked(SCOPE, "r2", PLAN, 1))
    assert not ledger.is_charged("k")
    for run, number, steps in (("r1", 1, 3), ("r1", 1, 3), ("r1", 2, 4), ("r2", 1, 5)):
        with opened(tmp_path) as again:
            assert again.charge(run, number, steps, "k").event == replace(PLAN, steps=steps)
            assert again.is_charged("k")
    runs = ledger.standing().runs
    assert [one.key for run in runs.values() for one in run.charges.values()] == ["k", "k.2", "k.3", "k.4"]
    assert [run.taken for run in runs.values()] == [10, 5]
    assert ledger.standing().totals(NAME) == (SCOPE.cap, 250_000, 62_500 + 31_250)
    ledger.charge("r1", 3, 1, "k.2")
    ledger.charge("r1", 3, 1, "k.2")
    ledger.charge("r1", 3, 1, "k")
    assert runs.keys() == ledger.standing().runs.keys()
    assert ledger.standing().runs["r1"].taken == 13
    with refused(ledger, "has taken 13 of the 20", PrivacyBudgetExceeded):
        ledger.charge("r1", 1, 8, "k")


def test_the_newest_charge_is_that_of_a_key_while_no_other_came_and_it_is_not_void(
    tmp_path: Path, ledger: Ledger
) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    ledger.reserve(Asked(SCOPE, "r2", PLAN, 1))
    assert ledger.newest_charge("k") is None
    first = ledger.charge("r1", 1, 1, "k").sequence
    assert (ledger.newest_charge("k"), ledger.newest_charge("k.2"), ledger.newest_charge("")) == (first, None, None)
    again = ledger.charge("r1", 1, 1, "k").sequence
    assert ledger.newest_charge("k") == again != first
    other = ledger.charge("r2", 1, 1, "of another run").sequence
    assert (ledger.newest_charge("k"), ledger.newest_charge("of another run")) == (None, other)
    ledger.void_charge("r2", 1, "killed")
    assert ledger.newest_charge("of another run") is None
    assert ledger.newest_charge("k") is None  # the other came, whatever became of it
    once_more = ledger.charge("r2", 1, 1, "of another run").sequence
    ledger.release("r1", "what is given back of a run is no charge")
    assert ledger.newest_charge("of another run") == once_more
    with sqlite3.connect(tmp_path / "north.sqlite") as entries:
        entries.executescript("DROP TRIGGER entries_never_delete; DELETE FROM entries WHERE kind = 'void'")
    with pytest.raises(LedgerTampered):
        ledger.newest_charge("of another run")


def test_a_voided_charge_is_paid_for_again(ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    ledger.charge("r1", 1, 20, "k1")
    ledger.void_charge("r1", 1, "nothing left")
    assert ledger.standing().totals(NAME) == (SCOPE.cap, 125_000, 0)
    ledger.charge("r1", 1, 20, "k1")
    assert ledger.standing().totals(NAME) == (SCOPE.cap, 125_000, 125_000)
    with refused(ledger, "has taken 20 of the 20", PrivacyBudgetExceeded):
        ledger.charge("r1", 1, 1, "k1")


MASKED_1 = Progress(1, 1, masked=True)


@pytest.mark.parametrize(
    "later",
    [
        [],
        [replace(MASKED_1, signed="ab" * 64)],
        [Progress(1, 2, dealt="ab" * 32)],
        [Progress(2, 1, signed="ab" * 64)],
        [Progress(2, 1, signed="ab" * 64), Progress(3, 1, dealt="cd" * 32)],
    ],
    ids=["masked", "signed", "next attempt", "witness of the next round", "and more"],
)
def test_what_was_masked_for_a_charge_is_not_voided_whatever_was_done_since(
    later: list[Progress], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    ledger.charge("r1", 1, 1, "k1")
    for progress in (MASKED_1, *later):
        ledger.advance("r1", progress)
    with refused(ledger, "an update of round 1 of run r1 was masked, and may have left; its charge stands"):
        ledger.void_charge("r1", 1, "nothing left")
    # By a program that does not ask: refused by every reader.
    with monkeypatch.context() as patch:
        patch.setattr(Standing, "may_have_left", lambda *_: False)
        ledger.void_charge("r1", 1, "nothing left")
    with pytest.raises(LedgerTampered, match="an update was masked for the charge that is voided"):
        read_ledger(ledger.path)


def test_a_charge_of_a_later_attempt_is_voided_where_an_earlier_ones_update_was_masked(ledger: Ledger) -> None:
    """Nor does another run's update keep it, nor that of another round."""
    for run in ("r1", "r2"):
        ledger.reserve(Asked(SCOPE, run, PLAN, 1))
    ledger.charge("r1", 1, 1, "k1")
    ledger.advance("r1", MASKED_1)
    ledger.advance("r1", Progress(1, 2, dealt="ab" * 32))
    ledger.charge("r1", 1, 1, "k1")
    ledger.advance("r2", MASKED_1)
    ledger.void_charge("r1", 1, "killed")
    assert ledger.standing().runs["r1"].taken == 1
    with refused(ledger, "may have left; its charge stands"):
        ledger.void_charge("r1", 1, "and the one before")
    read_ledger(ledger.path)


def test_only_the_newest_charge_of_the_ledger_is_voided(ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    ledger.reserve(Asked(SCOPE, "r2", PLAN, 1))
    words = "the newest charge of the ledger is not of round {} of run {}, and no other is voided"
    with refused(ledger, words.format(1, "r1")):
        ledger.void_charge("r1", 1, "nothing left")
    for number in (1, 2, 3):
        ledger.charge("r1", number, number, f"k{number}")
    for number in (1, 2, 4):
        with refused(ledger, words.format(number, "r1")):
            ledger.void_charge("r1", number, "nothing left")
    for run in ("r2", "r3"):
        with refused(ledger, words.format(3, run)):
            ledger.void_charge(run, 3, "nothing left")
    ledger.charge("r2", 1, 20, "k4")
    with refused(ledger, words.format(3, "r1")):  # of a round before the last of all, an update may have left
        ledger.void_charge("r1", 3, "nothing left")
    assert ledger.standing().totals(NAME) == (SCOPE.cap, 250_000, 162_500)
    ledger.void_charge("r2", 1, "nothing left")
    ledger.void_charge("r1", 3, "nothing left")
    assert ledger.standing().totals(NAME) == (SCOPE.cap, 250_000, 18_750)
    with refused(ledger, words.format(3, "r1")):
        ledger.void_charge("r1", 3, "nothing left")
    assert [event.steps for event in ledger.standing().events(NAME)] == [1, 2]
    ledger.charge("r1", 3, 17, "k5")  # voided steps are free again, and no more than those
    with refused(ledger, "has taken 20 of the 20", PrivacyBudgetExceeded):
        ledger.charge("r1", 4, 1, "k6")


# Giving back


def test_what_a_run_did_not_take_is_given_back(ledger: Ledger) -> None:
    for number in range(FITTING):
        ledger.reserve(Asked(SCOPE, f"r{number}", PLAN, 1))
    ledger.charge("r0", 1, 3, "k1")
    ledger.release("r0", "the run ended")
    assert ledger.standing().totals(NAME) == (SCOPE.cap, 14 * 125_000 + 18_750, 18_750)
    with refused(ledger, "does not fit", PrivacyBudgetExceeded):
        ledger.reserve(Asked(SCOPE, "more", replace(PLAN, steps=21), 1))  # 131,250, where 129,814 are left
    ledger.reserve(Asked(SCOPE, "more", PLAN, 1))


def test_a_released_run_is_over(ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    ledger.charge("r1", 1, 1, "k1")
    ledger.release("r1", "the run ended")
    assert ledger.reservation("r1") is None
    assert ledger.is_charged("k1")
    with refused(ledger, "run r1 has no reservation"):
        ledger.charge("r1", 2, 1, "k2")
    with refused(ledger, "run r1 holds no reservation"):
        ledger.release("r1", "again")
    with refused(ledger, "or gave it back; a plan is made once"):
        ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    with refused(ledger, "run r2 holds no reservation"):
        ledger.release("r2", "never was")


# Scopes and overrides


def test_a_scope_is_created_once(ledger: Ledger) -> None:
    assert ledger.scope(NAME) == SCOPE
    assert ledger.scope("lungs/record") is None
    size = ledger.standing().size
    make_budget(ledger, SCOPE)
    make_budget(ledger, Scope("hearts", "record", 1, 1e-3, 3.0, 5))
    assert ledger.standing().size == size


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(SCOPE, epsilon=4.0), "epsilon 3.0 where 4.0 is asked"),
        (replace(SCOPE, epsilon=2.0), "epsilon 3.0 where 2.0 is asked"),
        (replace(SCOPE, delta=1e-4), "delta 0.001 where 0.0001 is asked"),
        (replace(SCOPE, order=6), "order 5 where 6 is asked"),
        (replace(SCOPE, unit="person"), "unit record where person is asked"),
        (replace(SCOPE, unit="client", max_records=9), "unit record where client is asked, max_records 1 where 9"),
    ],
)
def test_a_data_set_has_one_scope_with_one_set_of_figures(ledger: Ledger, other: Scope, words: str) -> None:
    for verb in (partial(make_budget, ledger), ledger.check_scope):
        with refused(ledger, f"budget of hearts was made with .*{words}.*`fedmodel ledger override` changes its cap"):
            verb(other)
    ledger.check_scope(SCOPE)


@pytest.mark.parametrize(
    "scope",
    [
        replace(SCOPE, data="lungs", epsilon=0.0),
        replace(SCOPE, data="lungs", epsilon=math.inf),
        replace(SCOPE, data="lungs", epsilon=math.nan),
        replace(SCOPE, data="lungs", delta=1.0),
        replace(SCOPE, data="lungs", order=1),
        replace(SCOPE, data="lungs", adjacency="replace-one"),  # type: ignore[arg-type]
        replace(SCOPE, data="lungs", unit="galaxy"),  # type: ignore[arg-type]
        replace(SCOPE, data="lungs", max_records=0),
    ],
    ids=["epsilon 0", "epsilon inf", "epsilon nan", "delta", "order", "adjacency", "unit", "records"],
)
def test_a_scope_that_no_claim_could_be_made_of_is_refused(ledger: Ledger, scope: Scope) -> None:
    size = ledger.standing().size
    with pytest.raises(FedmodelError):
        make_budget(ledger, scope)
    assert ledger.standing().size == size


def test_an_override_raises_the_cap(ledger: Ledger) -> None:
    for number in range(FITTING):
        ledger.reserve(Asked(SCOPE, f"r{number}", PLAN, 1))
    ledger.charge("r0", 1, 20, "k")
    ledger.override(NAME, 3.5, "the board agreed", "A. Officer")
    raised = replace(SCOPE, epsilon=3.5)
    assert ledger.standing().scopes[NAME] == ledger.scope(NAME) == raised
    assert ledger.standing().totals(NAME) == (raised.cap, FITTING * 125_000, 125_000)
    assert raised.cap == SCOPE.cap + 500_000
    for number in range(4):
        ledger.reserve(Asked(raised, f"more{number}", PLAN, 1))
    with refused(ledger, r"epsilon 3.5 at delta 0.001.*does not fit|does not fit.*epsilon 3.5", PrivacyBudgetExceeded):
        ledger.reserve(Asked(raised, "over", PLAN, 1))
    ledger.charge("more0", 1, 20, "k2")
    assert ledger.standing().totals(NAME)[2] == 250_000
    make_budget(ledger, raised)
    with refused(ledger, "epsilon 3.5 where 3.0 is asked"):
        make_budget(ledger, SCOPE)


def test_an_override_lowers_the_cap_but_not_under_what_is_held(ledger: Ledger) -> None:
    for number in range(8):
        ledger.reserve(Asked(SCOPE, f"r{number}", PLAN, 1))  # 1,000,000
    least = 3.0 - (SCOPE.cap - 1_000_000) / MICRO
    with refused(ledger, "under what runs hold already; void their reservations first"):
        ledger.override(NAME, least - 1e-5, "less", "A. Officer")
    ledger.override(NAME, least + 1e-5, "less", "A. Officer")
    with refused(ledger, "does not fit", PrivacyBudgetExceeded):
        ledger.reserve(Asked(budget_of(ledger, NAME), "more", replace(PLAN, steps=1), 1))
    ledger.charge("r0", 1, 20, "k1")
    for number in range(8):
        ledger.release(f"r{number}", "ended")
    with refused(ledger, "under what runs hold already"):
        ledger.override(NAME, least - 0.9, "less", "A. Officer")  # 0.1, where 0.125 was spent
    ledger.override(NAME, least - 0.8, "less", "A. Officer")


def test_a_budget_is_taken_whole_until_a_cap_is_raised_over_its_one_plan(ledger: Ledger) -> None:
    def taken() -> bool:
        return ledger.standing().taken_whole(NAME)

    assert not taken()
    ledger.reserve(Asked(SCOPE, "r1", WHOLE, 1))
    ledger.charge("r1", 1, 1, "k1")
    assert taken()
    caps = [replace(SCOPE, epsilon=3.0 + number / 100) for number in range(1000)]
    under = max((one for one in caps if one.cap <= SCOPE.cost(WHOLE)), key=lambda one: one.epsilon)
    assert under.epsilon > 3.0
    ledger.override(NAME, under.epsilon, "more", "A. Officer")
    assert taken()
    assert ledger.standing().runs_fitting(under, PLAN) == 0
    ledger.override(NAME, 10.0, "more", "A. Officer")
    assert not taken()
    more = replace(SCOPE, epsilon=10.0)
    assert ledger.standing().runs_fitting(more, PLAN) > 0
    ledger.reserve(Asked(more, "r2", PLAN, 1))


def test_an_override_of_a_budget_taken_whole_is_not_under_its_epsilon(ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", WHOLE, 1))
    spent = accounting.epsilon([WHOLE], 1e-3)
    with refused(ledger, "under what runs hold already"):
        ledger.override(NAME, spent - 1e-6, "less", "A. Officer")
    ledger.override(NAME, spent, "less", "A. Officer")
    cap = replace(SCOPE, epsilon=spent).cap
    assert ledger.standing().totals(NAME) == (cap, cap, 0)
    for number in range(40):
        ledger.charge("r1", number + 1, 1, f"k{number}")
    assert ledger.standing().totals(NAME) == (cap, cap, cap)
    ledger.override(NAME, 10.0, "more", "A. Officer")
    most = replace(SCOPE, epsilon=10.0).cap
    assert ledger.standing().totals(NAME) == (most, SCOPE.cost(WHOLE), SCOPE.cost(WHOLE))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_an_override_to_no_cap_is_refused(ledger: Ledger, epsilon: float) -> None:
    with refused(ledger, "epsilon|cap"):
        ledger.override(NAME, epsilon, "why", "A. Officer")


def test_an_override_is_of_a_scope_that_exists(ledger: Ledger) -> None:
    with refused(ledger, "has no scope 'lungs/record'; known: hearts/record"):
        ledger.override("lungs/record", 4.0, "why", "A. Officer")


# What a person enters, and whose ledger it is


def test_a_checkpoint_is_of_all_entries_before_it_and_is_entered(ledger: Ledger) -> None:
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    note = ledger.checkpoint("the auditor")
    head = open_head(note, origin_of(SILO), KEY.public)
    last = ledger.standing().last
    assert last is not None
    assert head.size == ledger.standing().size - 1
    assert last.content == {"root": head.root.hex(), "size": head.size, "to": "the auditor"}
    assert ledger.check_extends(note, "the auditor") == head.size


def test_an_audit_says_its_subject(ledger: Ledger) -> None:
    with refused(ledger, "an audit says its subject"):
        ledger.audit({"by": "somebody"})
    ledger.audit({"subject": "silo.toml", "by": "somebody"})


def test_a_ledger_is_of_one_silo_under_one_key(tmp_path: Path, ledger: Ledger) -> None:
    path = tmp_path / "north.sqlite"
    for silo, key in (("south", KEY), (SILO, SigningKey(bytes([8]) * 32))):
        with pytest.raises(LedgerError, match=f"is not the ledger of silo '{silo}' under its key; use another file"):
            Ledger(path, silo, key, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_the_totals_of_every_entry_are_what_follows(tmp_path: Path) -> None:
    """The totals that `charge` carries on are those that a reader computes from all entries, whatever came between."""
    other = replace(SCOPE, data="lungs", epsilon=5.0)
    with opened(tmp_path) as ledger:
        rng = random.Random(5)  # noqa: S311 - it chooses what is tried
        for scope in (SCOPE, other):
            make_budget(ledger, scope)
        for number in range(120):
            scope, run, steps = rng.choice((SCOPE, other)), f"r{rng.randrange(12)}", rng.randrange(1, 9)
            try:
                match rng.randrange(9):
                    case 0 | 1 | 2:
                        ledger.reserve(
                            Asked(budget_of(ledger, scope.name), run, replace(PLAN, steps=7, noise_multiplier=11.3), 1)
                        )
                    case 3 | 4 | 5:
                        ledger.charge(run, number, steps, f"k{number}")
                    case 6:
                        known = ledger.standing().runs.get(run)
                        if known and known.charges:
                            ledger.void_charge(run, max(known.charges.items())[1][0], "nothing left")
                    case 7:
                        ledger.release(run, "ended")
                    case _:
                        ledger.override(scope.name, rng.uniform(1.5, 4.0), "why", "somebody")
            except (LedgerError, PrivacyBudgetExceeded):
                pass
    found = verify_ledger(tmp_path / "north.sqlite", KEY.public, [(tmp_path / "north.head").read_bytes()])
    assert {entry.kind for entry in found.entries} == {"create", "reserve", "charge", "void", "override"}
    assert len(found.entries) > 40


# Races


def test_eight_processes_fill_a_budget_exactly(tmp_path: Path) -> None:
    """They make the file at one moment, and then reserve and charge until none fits."""
    program = """
    import json
    read, write = os.pipe()
    children = []
    for worker in range(8):
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)  # returns when the parent closes its end: all at once
            done = 0
            with opened() as ledger:
                for number in range(100):
                    run = f"w{worker}-{number}"
                    try:
                        ledger.reserve(Asked(SCOPE, run, DpSgdEvent(20.0, 1.0, 1.0, 10, 60), 5))
                    except PrivacyBudgetExceeded:
                        break
                    ledger.charge(run, 1, 5, run + "-1")
                    ledger.charge(run, 2, 5, run + "-2")
                    done += 1
            os._exit(done)
        children.append(child)
    os.close(write)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
    """
    # A worker that fails ends with its traceback on standard error, and the exit status of an exception.
    done = run_as_program(program, tmp_path)
    assert done.stderr == ""
    counts = json.loads(done.stdout)
    standing = read_ledger(tmp_path / "north.sqlite")
    plan = DpSgdEvent(20.0, 1.0, 1.0, 10, denominator=60)
    fitting = SCOPE.cap // SCOPE.cost(plan)
    assert sum(counts) == fitting == len(standing.runs) == 30
    assert all(run.taken == 10 for run in standing.runs.values())
    assert standing.totals(NAME) == (SCOPE.cap, 30 * 62_500, 30 * 62_500)
    found = verify_ledger(tmp_path / "north.sqlite", KEY.public, [(tmp_path / "north.head").read_bytes()])
    assert found.heads == (2 + 3 * 30,)
    assert found.unused_compared


@pytest.mark.parametrize("looks", [0, 1, 2, 3])
def test_a_ledger_that_another_process_makes_meanwhile_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """After the look at the head, which is not there yet, and so many at the file: what the race above can meet."""
    real = Ledger._query
    seen: list[tuple[Any, ...]] = []

    def late(self: Ledger, *asked: Any) -> Any:
        seen.append(asked)
        if len(seen) == looks + 1:
            with opened(tmp_path) as other:
                make_budget(other, SCOPE)
                other.reserve(Asked(SCOPE, "r1", PLAN, 1))
        return real(self, *asked)

    monkeypatch.setattr(Ledger, "_query", late)
    with opened(tmp_path) as ledger:
        ledger.charge("r1", 1, 1, "k1")
    found = verify_ledger(tmp_path / "north.sqlite", KEY.public, [(tmp_path / "north.head").read_bytes()])
    assert found.heads == (4,)


# What the file itself refuses


def raw(folder: Path) -> sqlite3.Connection:
    """Open the file as anybody would who goes around this package."""
    return sqlite3.connect(folder / "north.sqlite", isolation_level=None)


def values(folder: Path, **changed: object) -> list[object]:
    """Return the columns of an entry that could be the next."""
    with raw(folder) as connection:
        row = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM entries ORDER BY sequence DESC").fetchone()  # noqa: S608
    connection.close()
    known: dict[str, object] = dict(zip(COLUMNS, row, strict=True))
    return list({**known, "sequence": row[0] + 1, "key": None, **changed}.values())


@pytest.fixture
def charged(tmp_path: Path) -> Path:
    with opened(tmp_path) as ledger:
        make_budget(ledger, SCOPE)
        ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
        ledger.charge("r1", 1, 1, "k1")
    return tmp_path


def contents(folder: Path) -> list[object]:
    with raw(folder) as connection:
        found = [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("entries", "nodes")]  # noqa: S608
    connection.close()
    return [*found]


@pytest.mark.parametrize(
    "changed",
    [
        {"cap": 10, "reserved": 11, "spent": 0},
        {"cap": 10, "reserved": 5, "spent": 6},
        {"cap": 10, "reserved": 5, "spent": -1},
        {"cap": -1, "reserved": -1, "spent": -1},
        {"cap": None},
        {"cap": "many"},
        {"kind": "refund"},
        {"previous": bytes(31)},
        {"signature": bytes(63)},
        {"signature": "a" * 64},
        {"body": None},
        {"time": None},
        {"key": "k1"},
    ],
    ids=str,
)
def test_the_file_refuses_an_entry_that_breaks_its_bounds(charged: Path, changed: dict[str, object]) -> None:
    before, connection = contents(charged), raw(charged)
    connection.execute("BEGIN")
    connection.execute(INSERT_ENTRY, values(charged))  # as it is, it would be taken
    connection.execute("ROLLBACK")
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(INSERT_ENTRY, values(charged, **changed))
    connection.close()
    assert contents(charged) == before


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ("UPDATE entries SET body = '{}'", None),
        ("UPDATE entries SET spent = 0 WHERE sequence = 4", None),
        ("UPDATE OR REPLACE entries SET sequence = 1 WHERE sequence = 2", None),
        ("UPDATE nodes SET hash = zeroblob(32)", None),
        ("DELETE FROM entries", None),
        ("DELETE FROM entries WHERE sequence = 4", None),
        ("DELETE FROM nodes", None),
        ("DELETE FROM nodes WHERE level = 0 AND position = 3", None),
        ("INSERT OR REPLACE INTO nodes VALUES (0, 0, zeroblob(32))", None),
        ("INSERT INTO nodes VALUES (0, 0, zeroblob(32)) ON CONFLICT DO UPDATE SET hash = excluded.hash", None),
        (INSERT_ENTRY, {"sequence": 3}),
        (INSERT_ENTRY, {"sequence": 6}),
        (INSERT_ENTRY, {"sequence": 0}),
        (INSERT_ENTRY, {"sequence": -1}),
        (INSERT_ENTRY, {"sequence": None}),
        (INSERT_ENTRY.replace("INSERT", "INSERT OR REPLACE"), {"sequence": 4}),
        (INSERT_ENTRY.replace("INSERT", "INSERT OR REPLACE"), {"sequence": 1}),
        (INSERT_ENTRY.replace("INSERT", "INSERT OR REPLACE"), {"key": "k1"}),
        (INSERT_ENTRY.replace("INSERT", "REPLACE"), {"key": "k1"}),
    ],
    ids=lambda part: part.partition(" VALUES (?")[0] if isinstance(part, str) else str(part),
)
def test_the_file_refuses_to_be_changed(charged: Path, statement: str, changed: dict[str, object] | None) -> None:
    """By triggers, for whoever goes around the ledger by mistake: an attacker can drop them, and `verify` notices."""
    before, connection = contents(charged), raw(charged)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement, [] if changed is None else values(charged, **changed))
    connection.close()
    assert contents(charged) == before


# Durability


def test_every_entry_is_synced_to_a_write_ahead_log(ledger: Ledger) -> None:
    """A kill keeps the kernel's cache, so no kill can show this; the settings can (2 is FULL)."""
    assert ledger._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
    assert ledger._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_its_owner_alone_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(tmp_path) as ledger:
            make_budget(ledger, SCOPE)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes.keys() >= {"north.sqlite", "north.sqlite-wal", "north.head"}
    assert {name: mode for name, mode in modes.items() if mode != 0o600 and not name.endswith(".lock")} == {}


def test_a_charge_survives_a_kill(tmp_path: Path) -> None:
    """A real process, killed by a real signal, right after `charge` has returned: again and again, in the same file."""
    program = """
    ledger = opened()
    ledger.reserve(Asked(SCOPE, "r1", DpSgdEvent(20.0, 1.0, 1.0, 20, 60), 1))
    for line in sys.stdin:
        ledger.charge("r1", int(line), 1, "k" + line.strip())
        os.kill(os.getpid(), 9) if int(line) % 3 == 0 else print(line, end="", flush=True)
    """
    for first in (1, 4, 7):
        done = run_as_program(program, tmp_path, input="".join(f"{first + more}\n" for more in range(4)))
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert (tmp_path / "north.sqlite-wal").stat().st_size
        found = verify_ledger(tmp_path / "north.sqlite", KEY.public, [(tmp_path / "north.head").read_bytes()])
        assert [one.round for one in found.standing.runs["r1"].charges.values()] == list(range(1, first + 3))
    with opened(tmp_path) as ledger:
        assert ledger.is_charged("k9")
        assert not ledger.is_charged("k10")
        assert ledger.standing().runs["r1"].taken == 9
    assert verify_ledger(tmp_path / "north.sqlite", KEY.public).unused_compared


@pytest.mark.parametrize("where", ["insert", "keep"])
def test_a_failure_leaves_all_of_an_entry_or_nothing(
    charged: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    before = contents(charged)

    def fails(*arguments: Any) -> None:
        if where == "insert":
            insert(*arguments)
        raise KeyboardInterrupt

    insert = file_module.insert
    with opened(charged) as ledger:
        with monkeypatch.context() as patched:
            patched.setattr(file_module if where == "insert" else HeadFile, where, fails)
            with pytest.raises(KeyboardInterrupt):
                ledger.charge("r1", 2, 1, "k2")
        if where == "insert":
            assert contents(charged) == before
        assert ledger.is_charged("k2") == (where != "insert")
        ledger.charge("r1", 2, 1, "k2")
    found = verify_ledger(charged / "north.sqlite", KEY.public, [(charged / "north.head").read_bytes()])
    assert found.heads == (found.head.size,) == ((5,) if where == "insert" else (6,))
    assert found.unused_compared


def test_no_two_ledgers_of_one_silo_are_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a head of one would be extended by the other, made at the same moment."""
    now = clock_module.now()
    monkeypatch.setattr(clock_module, "now", lambda: now)
    with opened(tmp_path, "a") as one, opened(tmp_path, "b") as other:
        assert one.head() != other.head()
