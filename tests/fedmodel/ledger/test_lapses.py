"""A reservation lapses at the time that is written in it, of a run that nothing was charged for, and of no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmodel.crypto import SigningKey
from fedmodel.errors import LedgerError, LedgerTampered, PrivacyBudgetExceeded
from fedmodel.ledger import Asked, Ledger, Scope, Standing, read_ledger, verify_ledger
from fedmodel.ledger import clock as clock_module
from fedmodel.ledger.entries import canonical, reserve_body
from fedmodel.ledger.file import Draft
from fedmodel.ledger.head_file import HeadFile
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import read_kit
from fedmodel.secagg.progress import Progress
from tests.ledgers import make_budget

KEY = SigningKey(bytes([7]) * 32)
SCOPE = Scope("hearts", "record", 1, 1e-3, 3.0, 5)
NAME = SCOPE.name
PLAN = DpSgdEvent(20.0, 1.0, 1.0, 20, denominator=60)
WHOLE = DpSgdEvent(6.58, 1.0, 1.0, 40, denominator=60)  # over the cap by the filter, under it by PLD
HELD = timedelta(hours=1)
FROZEN = Path(__file__).parents[2] / "vectors" / "version_1"


class Clock:
    """The silo's, which goes only where a test sets it."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def passes(self, time: timedelta) -> None:
        self.now += time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(clock_module, "now", lambda: found.now)
    return found


def opened(folder: Path) -> Ledger:
    return Ledger(folder / "north.sqlite", "north", KEY, folder / "north.head")


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with opened(tmp_path) as found:
        make_budget(found, SCOPE)
        yield found


def reserve(ledger: Ledger, run: str, plan: DpSgdEvent = WHOLE, **more: object) -> None:
    ledger.reserve(Asked(SCOPE, run, plan, 1, **{"held": HELD, "scenario": "ab", **more}))  # type: ignore[arg-type]


def kinds(ledger: Ledger) -> list[tuple[str, str | None]]:
    """Return each entry after the budget's, verified with the head that is kept, by its kind and run."""
    head = ledger.path.with_suffix(".head")
    found = verify_ledger(ledger.path, KEY.public, [head.read_bytes()])
    assert found.head.size == len(found.entries)
    return [(entry.kind, entry.run) for entry in found.entries[2:]]


def test_what_nothing_was_charged_for_is_given_back_when_another_run_asks_after_its_time(
    ledger: Ledger, clock: Clock
) -> None:
    reserve(ledger, "1")
    assert ledger.standing().totals(NAME)[1] == SCOPE.cap
    clock.passes(HELD - timedelta(milliseconds=1))
    with pytest.raises(PrivacyBudgetExceeded, match="was taken whole"):
        reserve(ledger, "2")
    clock.passes(timedelta(milliseconds=1))
    reserve(ledger, "2")
    assert kinds(ledger) == [("reserve", "1"), ("void", "1"), ("reserve", "2")]
    entries = verify_ledger(ledger.path).entries
    assert entries[3].content == {"of": 3, "taken": 0, "until": "2030-01-01T01:00:00.000+00:00"}
    assert entries[2].content["until"] == entries[3].time == "2030-01-01T01:00:00.000+00:00"
    assert (entries[3].cap, entries[3].reserved, entries[3].spent) == (SCOPE.cap, 0, 0)
    assert ledger.reservation("1") is None
    assert ledger.knows("1")


def test_a_reservation_stands_past_its_time_as_long_as_no_other_run_asks(ledger: Ledger, clock: Clock) -> None:
    """Asked for again, for its own run, nothing is entered; what is charged after its time is charged."""
    reserve(ledger, "1")
    clock.passes(10 * HELD)
    reserve(ledger, "1")
    ledger.charge("1", 1, 1, "k1")
    assert kinds(ledger) == [("reserve", "1"), ("charge", "1")]
    with pytest.raises(PrivacyBudgetExceeded):
        reserve(ledger, "2")


def test_no_reservation_lapses_that_says_no_time(ledger: Ledger, clock: Clock) -> None:
    reserve(ledger, "1", held=None)
    clock.passes(1000 * HELD)
    with pytest.raises(PrivacyBudgetExceeded):
        reserve(ledger, "2")


def charged(ledger: Ledger) -> None:
    ledger.charge("1", 1, 1, "k1")


def taken_back(ledger: Ledger) -> None:
    ledger.charge("1", 1, 1, "k1")
    ledger.void_charge("1", 1, "nothing of it left")


def masked(ledger: Ledger) -> None:
    ledger.advance("1", Progress(1, 1, masked=True))


@pytest.mark.parametrize("touch", [charged, taken_back, masked])
def test_nothing_is_given_back_of_a_run_that_anything_was_done_for(
    touch: Callable[[Ledger], None], ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the charge does not stand any more: what else may have happened is for a person to say."""
    reserve(ledger, "1")
    touch(ledger)
    clock.passes(10 * HELD)
    before = kinds(ledger)
    with pytest.raises(PrivacyBudgetExceeded):
        reserve(ledger, "2")
    assert kinds(ledger) == before
    # Nor would a reader take it from a program that does.
    with monkeypatch.context() as patch:
        patch.setattr(Standing, "_may_lapse", lambda self, name, _: not self.runs[name].closed)
        reserve(ledger, "2", replace(PLAN, steps=1))
    with pytest.raises(LedgerTampered, match="only an open reservation lapses"):
        read_ledger(ledger.path)


def test_a_late_request_for_what_was_given_back_is_refused_until_it_is_reserved_again(
    ledger: Ledger, clock: Clock
) -> None:
    reserve(ledger, "1", PLAN)
    clock.passes(HELD)
    reserve(ledger, "2", PLAN)
    size = ledger.standing().size
    with pytest.raises(LedgerError, match="run 1 has no reservation; a silo joins a run before"):
        ledger.charge("1", 1, 1, "k1")
    with pytest.raises(LedgerError, match="holds no reservation"):
        ledger.release("1", "a person gives back what is given back")
    assert ledger.standing().size == size
    reserve(ledger, "1", PLAN)
    ledger.charge("1", 1, 5, "k1")
    ledger.charge("2", 1, 5, "k2")
    assert ledger.charge("1", 2, 15, "k3").event.steps == 15
    with pytest.raises(PrivacyBudgetExceeded, match="has taken 20 of the 20"):
        ledger.charge("1", 3, 1, "k4")
    assert list(ledger.standing().runs) == ["2", "1"]
    assert kinds(ledger)[:4] == [("reserve", "1"), ("void", "1"), ("reserve", "2"), ("reserve", "1")]


def test_what_lapsed_is_reserved_again_with_other_parts_and_as_the_budget_is_by_then(
    ledger: Ledger, clock: Clock
) -> None:
    """What was taken is counted from the newest reservation on, whatever the older one held."""
    statistic = replace(PLAN, steps=3)
    reserve(ledger, "1", PLAN, besides=(statistic,))
    clock.passes(HELD)
    reserve(ledger, "2", PLAN)
    reserve(ledger, "1", replace(PLAN, steps=8))
    ledger.charge("1", 1, 8, "k1")
    assert ledger.standing().totals(NAME)[1:] == (175_000, 50_000)
    found = ledger.reservation("1")
    assert found is not None
    assert found.plan.steps == 8
    assert ledger.standing().runs["1"].until == "2030-01-01T02:00:00.000+00:00"
    kinds(ledger)


def test_a_run_is_reserved_again_for_its_scenario_alone_and_never_once_a_person_gave_it_back(
    ledger: Ledger, clock: Clock
) -> None:
    reserve(ledger, "1", PLAN)
    clock.passes(HELD)
    reserve(ledger, "2", PLAN)
    with pytest.raises(LedgerError, match="again for its scenario once its reservation lapsed"):
        reserve(ledger, "1", PLAN, scenario="cd")
    ledger.release("2", "a person's word")
    clock.passes(HELD)
    with pytest.raises(LedgerError, match="gave it back; a plan is made once"):
        reserve(ledger, "2", PLAN)
    body = reserve_body(PLAN, "ab", "filter", 125_000)  # nor does a reader take it
    with pytest.raises(LedgerError, match="a run is reserved once, or again"), ledger._appending():
        ledger._append(Draft("reserve", body, NAME, "2"), ledger.standing())
    reserve(ledger, "3", PLAN)  # what a person gave back does not lapse besides
    assert kinds(ledger)[-2:] == [("void", "2"), ("reserve", "3")]


def test_a_run_that_the_budget_pays_no_more_is_refused_when_it_comes_back(ledger: Ledger, clock: Clock) -> None:
    reserve(ledger, "1")
    clock.passes(HELD)
    reserve(ledger, "2")
    ledger.charge("2", 1, 1, "k1")
    clock.passes(HELD)
    with pytest.raises(PrivacyBudgetExceeded, match="was taken whole"):
        reserve(ledger, "1")


def test_two_runs_that_let_each_other_lapse_in_turn_get_no_more_than_the_budget(ledger: Ledger, clock: Clock) -> None:
    """A server that asks, lets it lapse and asks again gains nothing: two entries an hour, and one plan at a time."""
    for turn in range(6):
        reserve(ledger, str(turn % 2))
        reserve(ledger, str(turn % 2))
        clock.passes(HELD)
    ledger.charge("1", 1, 1, "k1")
    with pytest.raises(LedgerError, match="run 0 has no reservation"):
        ledger.charge("0", 1, 1, "k0")
    assert len(kinds(ledger)) == 6 + 5 + 1
    assert ledger.standing().bound(NAME) <= SCOPE.epsilon


def test_a_clock_that_jumps_gives_back_early_or_late_and_nothing_that_was_charged(ledger: Ledger, clock: Clock) -> None:
    reserve(ledger, "1", PLAN)
    reserve(ledger, "2", PLAN)
    ledger.charge("1", 1, 1, "k1")
    clock.passes(timedelta(days=365))  # by mistake
    reserve(ledger, "3", PLAN)
    assert kinds(ledger)[-2:] == [("void", "2"), ("reserve", "3")]
    ledger.charge("1", 2, 1, "k2")
    clock.passes(-timedelta(days=365))  # set right
    size = ledger.standing().size
    with pytest.raises(LedgerError, match=r"the clock says .*, before the newest entry's"):
        reserve(ledger, "4", PLAN)
    assert ledger.standing().size == size
    ledger.override(NAME, 3.0, "the clock was a year ahead", "a person")
    clock.passes(10 * HELD)
    reserve(ledger, "4", PLAN)  # run 3 is held until the time that the clock had said: a person gives it back
    assert kinds(ledger)[-1] == ("reserve", "4")
    ledger.release("3", "its time is a year off")


@pytest.mark.parametrize("past", [False, True])
def test_a_clock_corrected_by_a_moment_counts_as_the_newest_entrys_time(
    past: bool, ledger: Ledger, clock: Clock
) -> None:
    """That is the time of the entry that gives back; readers hold it to the reservation's."""
    reserve(ledger, "1", PLAN)
    clock.passes(HELD - timedelta(seconds=-10 if past else 30))
    ledger.audit({"subject": "silo.toml", "digest": "ab", "by": "a person"})
    clock.passes(-timedelta(seconds=40))
    reserve(ledger, "2", PLAN)
    assert kinds(ledger)[-1] == ("reserve", "2")
    assert [run.lapsed for run in ledger.standing().runs.values()] == [past, False]


@pytest.mark.parametrize("pending", [False, True])
def test_what_is_tried_enters_nothing(pending: bool, ledger: Ledger, clock: Clock) -> None:
    """Also where a scope would be made, or reservations be given back, for it."""
    other = Scope("lungs", "record", 1, 1e-3, 3.0, 5)
    if pending:
        reserve(ledger, "1")
        clock.passes(HELD)
    before, head = kinds(ledger), ledger.path.with_suffix(".head").read_bytes()
    for scope in (SCOPE, other):
        assert ledger.check_reserves(Asked(scope, "2", WHOLE, 1, scenario="ab", held=HELD)) == WHOLE
    with pytest.raises(PrivacyBudgetExceeded):
        ledger.check_reserves(Asked(SCOPE, "2", replace(WHOLE, steps=80), 1))
    with pytest.raises(LedgerError, match="a budget is made once"):
        ledger.check_reserves(Asked(replace(SCOPE, epsilon=9.0), "2", PLAN, 1))
    assert kinds(ledger) == before
    assert ledger.path.with_suffix(".head").read_bytes() == head
    assert ledger.scope(other.name) is None
    assert ledger.reservation("2") is None
    reserve(ledger, "2")  # and the ledger goes on
    assert kinds(ledger)[-1] == ("reserve", "2")


class Killed(BaseException):
    """What stands for a kill: nothing of ours catches it."""


def _dying(real: Callable[..., object], *, after: bool, at: int) -> Callable[..., object]:
    calls = iter(range(1, 1000))

    def dies(*arguments: object) -> object:
        strikes = next(calls) == at
        if strikes and not after:
            raise Killed
        result = real(*arguments)
        if strikes:
            raise Killed
        return result

    return dies


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("owner", "name", "at", "entered"),
    [
        (Ledger, "_insert", 1, False),  # what lapsed
        (Ledger, "_insert", 2, False),  # what is reserved instead
        (HeadFile, "keep", 1, True),
    ],
)
def test_giving_back_and_reserving_are_one_step_whenever_the_process_dies(
    owner: type, name: str, at: int, entered: bool, after: bool, tmp_path: Path, clock: Clock
) -> None:
    with opened(tmp_path) as ledger:
        make_budget(ledger, SCOPE)
        reserve(ledger, "1")
    clock.passes(HELD)
    with pytest.MonkeyPatch.context() as patch, opened(tmp_path) as ledger:
        patch.setattr(owner, name, _dying(getattr(owner, name), after=after, at=at))
        with pytest.raises(Killed):
            reserve(ledger, "2")
    with opened(tmp_path) as ledger:
        assert (ledger.reservation("1") is None, ledger.reservation("2") is not None) == (entered, entered)
        if not entered:
            ledger.charge("1", 1, 1, "k1")  # the reservation stands, whatever time it is
            with pytest.raises(PrivacyBudgetExceeded):
                reserve(ledger, "2")
        else:
            reserve(ledger, "2")
        kinds(ledger)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"until": "2030-01-01T00:30:00.000+00:00"}, "is named with the time that is written in it"),
        ({"of": 2}, "is named with the time that is written in it"),
        ({"reason": "a person's"}, "is named with the time that is written in it"),
        ({"taken": 1}, "it says that 1 steps are taken"),
    ],
)
def test_an_entry_that_gives_back_says_what_and_since_when(
    wrong: dict[str, object], words: str, ledger: Ledger, clock: Clock
) -> None:
    reserve(ledger, "1")
    clock.passes(HELD)
    found = ledger.standing()
    body = {"of": 3, "taken": 0, "until": found.runs["1"].until, **wrong}
    with pytest.raises(LedgerError, match=words), ledger._appending():
        ledger._append(Draft("void", canonical(body), NAME, "1"), found)


@pytest.mark.parametrize("until", ["2029-12-31T00:00:00.000+00:00", "2030-01-01T05:00:00+00:00", "soon", 5, ""])
def test_a_reservation_says_a_time_after_its_own(until: object, ledger: Ledger) -> None:
    body = reserve_body(PLAN, "ab", "filter", 125_000)
    told = canonical({**json.loads(body), "until": until})
    with pytest.raises(LedgerError, match="nothing was entered"), ledger._appending():
        ledger._append(Draft("reserve", told, NAME, "1"), ledger.standing())


def test_a_lapse_that_is_hidden_does_not_let_its_run_be_charged(ledger: Ledger, clock: Clock) -> None:
    """By whoever can write the file, and has no key."""
    reserve(ledger, "1", PLAN)
    clock.passes(HELD)
    reserve(ledger, "2", PLAN)
    ledger._connection.execute("DROP TRIGGER entries_never_update")
    ledger._connection.execute("UPDATE entries SET run = '9' WHERE kind = 'void'")
    with pytest.raises(LedgerTampered):
        ledger.charge("1", 1, 1, "k1")


def test_a_ledger_of_version_1_takes_reservations_that_lapse(tmp_path: Path, clock: Clock) -> None:
    """Those that it held before have no time, and stay."""
    run = Path(shutil.copytree(FROZEN, tmp_path / "run"))
    kit = run / "silos" / "north"
    with Ledger(run / "ledgers" / "north.sqlite", "north", read_kit(kit).identity, kit / "ledger.head") as ledger:
        before = [name for name, one in ledger.standing().runs.items() if not one.closed]
        scope = Scope("synthetic", "record", 1, 1e-5, 4.0, 8)
        ledger.reserve(Asked(scope, "301", replace(PLAN, noise_multiplier=90.0), 1, held=HELD))
        clock.passes(1000 * HELD)
        ledger.reserve(Asked(scope, "302", replace(PLAN, noise_multiplier=90.0), 1, held=HELD))
        assert [name for name, one in ledger.standing().runs.items() if not one.closed] == [*before, "302"]
        with pytest.raises(LedgerError, match="run 301 has no reservation"):
            ledger.charge("301", 1, 1, "k")
    frozen = (FROZEN / "silos" / "north" / "ledger.head").read_bytes()
    found = verify_ledger(run / "ledgers" / "north.sqlite", None, [frozen, (kit / "ledger.head").read_bytes()])
    assert [entry.kind for entry in found.entries[-3:]] == ["reserve", "void", "reserve"]


def test_a_reservation_keeps_what_its_server_calls_the_run(ledger: Ledger) -> None:
    """For people: by another name the same run asks for the same."""
    reserve(ledger, "1", PLAN, name="hospitals-20300101-1")
    reserve(ledger, "1", PLAN, name="another")
    reserve(ledger, "2", PLAN)
    assert [run.name for run in ledger.standing().runs.values()] == ["hospitals-20300101-1", ""]
    with pytest.raises(LedgerError, match="a run's name is small letters"):
        reserve(ledger, "3", PLAN, name="Hospitals")
    assert kinds(ledger) == [("reserve", "1"), ("reserve", "2")]


ACTS = st.sampled_from(["reserve", "charge", "take back", "give back", "mask", "an hour", "a minute"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(ACTS, st.sampled_from("abc")), max_size=14))
def test_whatever_happens_in_whichever_order_nothing_charged_is_given_back_and_nothing_is_charged_unreserved(
    acts: list[tuple[str, str]],
) -> None:
    """By a model of a few sets, beside the ledger: who holds, who was ever touched, and when each hold began."""
    clock, half = Clock(), replace(PLAN, steps=150)  # two of it do not fit
    held: dict[str, datetime] = {}
    touched: set[str] = set()
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock_module, "now", lambda: clock.now)
        with opened(Path(folder)) as ledger:
            make_budget(ledger, SCOPE)
            for number, (act, run) in enumerate(acts):
                clock.passes({"an hour": HELD, "a minute": timedelta(minutes=1)}.get(act, timedelta()))
                before = dict(held)
                with suppress(LedgerError, PrivacyBudgetExceeded):
                    if act == "reserve":
                        reserve(ledger, run, half)
                        lapsed = {one for one, since in held.items() if clock.now >= since + HELD} - touched - {run}
                        held = (
                            {one: since for one, since in held.items() if one not in lapsed}
                            if run not in held
                            else held
                        )
                        held.setdefault(run, clock.now)
                    elif act == "charge":
                        ledger.charge(run, number + 1, 1, f"k{number}")
                        assert run in held
                        touched.add(run)
                    elif act == "take back" and ledger.standing().charged:
                        ledger.void_charge(run, ledger.newest_round(run), "nothing left")
                    elif act == "give back":
                        ledger.release(run, "a person's word")
                        held.pop(run)
                    elif act == "mask" and run in touched:
                        ledger.advance(run, Progress(max(1, ledger.newest_round(run)), 1, masked=True))
                assert act != "charge" or before == held
            standing = ledger.standing()
            assert {name for name, one in standing.runs.items() if not one.closed} == set(held)
            assert all(not one.lapsed for name, one in standing.runs.items() if name in touched)
            assert {name for name, one in standing.runs.items() if one.touched} == touched
            kinds(ledger)
