"""Rounds that a server says were brought to an end: those of the plan, in order, and sums of enough silos."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import pytest

from fedmodel.errors import LedgerTampered
from scenarios.report.verifier import rounds

SCENARIO: Final[dict[str, Any]] = {"rounds": 3, "federation": {"min_silos": 2}, "besides": {"label-counts": {}}}
SILOS: Final = ["north", "south", "west"]
GONE: Final = {"cohort": SILOS, "dropouts": dict.fromkeys(SILOS, "lost"), "summed": 0}


def line(number: object, **told: object) -> dict[str, Any]:
    return {"round": number, "cohort": SILOS, "dropouts": {}, "summed": 3, "charged": SILOS, **told}


LINES: Final = {
    "all of them": ([line(1), line(2), line(3)], None),
    "ended early": ([line(1)], None),
    "one that failed": ([line(1, failed=True, summed=None), line(2)], None),
    "one silo lost": ([line(1, dropouts={"west": "lost"}, summed=2)], None),
    "past the last": ([line(1), line(4)], "has round 4, and scenario.toml plans 3 there, from 1"),
    "past the last, failed": ([line(1), line(4, failed=True)], "has round 4"),
    "of no number": ([line(0)], "has round 0"),
    "less than none": ([line(-1)], "has round -1"),
    "between two": ([line(1.5)], "has round 1.5"),
    "true": ([line(True)], "has round True"),
    "twice": ([line(1), line(1)], "its rounds do not rise: 1 follows 1"),
    "backwards": ([line(2), line(1)], "its rounds do not rise: 1 follows 2"),
    "no sum": ([line(1, failed=True)], "has no whole round"),
    "none": ([], "has no whole round"),
    "of nobody": ([line(1, **GONE)], "round 1 is whole with 0 silos, and scenario.toml asks for 2"),
    "of one": ([line(1, cohort=["north"], summed=1)], "round 1 is whole with 1 silo, and"),
    "of more than answered": ([line(1, **{**GONE, "summed": 3})], "3 updates in its sum, and 0 silos answered"),
    "of fewer than answered": ([line(1, summed=2)], "2 updates in its sum, and 3 silos answered"),
    "of one nobody knows": ([line(1, cohort=["north", "south", "ghost"])], "round 1 has ghost in its cohort, of whom"),
    "failed, of one nobody knows": ([line(1), line(2, cohort=["ghost"], failed=True)], "has ghost in its cohort"),
    "of an unknown number": ([line(1, summed=None)], "None updates in its sum"),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_rounds_are_the_plans_and_sums_of_enough(case: str, tmp_path: Path) -> None:
    lines, why = LINES[case]
    (tmp_path / rounds.METRICS).write_text("".join(f"{json.dumps(one)}\n" for one in lines), encoding="utf-8")
    with nullcontext() if why is None else pytest.raises(LedgerTampered, match=why):
        assert rounds.read(tmp_path, SCENARIO, SILOS, copy=False) == lines


def test_in_a_silos_copy_the_others_are_a_number(tmp_path: Path) -> None:
    told = [line(1, cohort=["north"]), line(2, cohort=[]), line(3, cohort=["north"], summed=2)]
    path = tmp_path / rounds.METRICS
    path.write_text("".join(f"{json.dumps(one)}\n" for one in told), encoding="utf-8")
    assert rounds.read(tmp_path, SCENARIO, ["north"], copy=True) == told
    for few, why in ((0, "0 updates in its sum, and 1 silo answered"), (1, "is whole with 1 silo, and")):
        path.write_text(json.dumps({**told[0], "summed": few}), encoding="utf-8")
        with pytest.raises(LedgerTampered, match=why):
            rounds.read(tmp_path, SCENARIO, ["north"], copy=True)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (line(4), None),
        (line(3), "has round 3, and scenario.toml plans 1 there, from 4"),
        (line(5), "has round 5"),
        (line(4, charged=["north", "west"]), "silo south: its update is in round 4 of besides.jsonl, which does not"),
        (line(4, **GONE), "is whole with 0 silos"),
    ],
)
def test_a_job_besides_training_has_its_own_round(told: dict[str, Any], why: str | None, tmp_path: Path) -> None:
    assert rounds.read_besides(tmp_path, SCENARIO, SILOS, copy=False) == []
    (tmp_path / "besides.jsonl").write_text(json.dumps(told), encoding="utf-8")
    with nullcontext() if why is None else pytest.raises(LedgerTampered, match=why):
        assert rounds.read_besides(tmp_path, SCENARIO, SILOS, copy=False) == [told]
