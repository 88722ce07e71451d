"""A run whose lots grow, cut short in a phase: what was charged twice is made up for in no other phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fedmodel.config import Scenario, read_scenario
from fedmodel.learning.jobs.training import Answering
from fedmodel.ledger import verify_ledger
from scenarios.runs.summary import read_metrics
from tests.scenarios.simulation.test_resuming import FOUR, HIDDEN, rounds_paid, run

MASKED = [*FOUR, *HIDDEN, "encryption.secure_aggregation=on", "encryption.window=4"]
"""One window has all rounds, and so both phases."""


def killed_in_training(scenario: Scenario, folder: Path, number: int) -> None:
    """Run a scenario until north trains in a round, for which it was charged."""
    answer = Answering.answer

    def killed(self: Answering, question: Any, *rest: Any) -> Any:
        if (self.site.silo, question.number) == ("north", number):
            raise KeyboardInterrupt
        return answer(self, question, *rest)

    with mock.patch.object(Answering, "answer", killed), pytest.raises(KeyboardInterrupt):
        run(scenario, folder)


def parts_paid(scenario: Scenario, folder: Path, silo: str) -> list[tuple[int, int]]:
    """Return each round that a silo was charged for, with the part that it was charged to."""
    (held,) = verify_ledger(folder / "ledgers" / f"{silo}.sqlite").standing.runs.values()
    assert all(taken <= part.steps for part, taken in zip(held.parts, held.drawn, strict=True))
    return [(one.round, one.part) for one in held.charges.values()]


def test_a_silo_that_paid_for_a_round_twice_is_asked_again_in_the_next_phase(tiny_file: Path, tmp_path: Path) -> None:
    """It misses its phase's last round, and no more."""
    grown = ("rounds=4", "training.lots=[{from_round=3,times=2.0}]")
    scenario, folder = read_scenario(str(tiny_file), [*MASKED, *grown]), tmp_path / "r"
    killed_in_training(scenario, folder, 1)
    assert rounds_paid(scenario, folder)["north"] == [1]
    summary = run(scenario, folder)
    assert parts_paid(scenario, folder, "north") == [(1, 0), (1, 0), (3, 1), (4, 1)]
    assert parts_paid(scenario, folder, "south") == [(1, 0), (2, 0), (3, 1), (4, 1)]
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["summed"] for line in lines] == [4, 3, 4, 4]
    assert [line["withdrawn"] for line in lines] == [{}, {"north": {"round": 2, "code": "budget-exceeded"}}, {}, {}]
    assert (summary["withdrawn"], summary["rounds_failed"]) == ([], 0)
    assert len({row["epsilon"] for row in summary["privacy"]}) == 1


def test_nobody_is_charged_while_too_few_are_left_in_a_phase_and_all_go_on_in_the_next(
    tiny_file: Path, tmp_path: Path
) -> None:
    three = ("rounds=5", "federation.min_silos=3", "training.lots=[{from_round=4,times=2.0}]")
    scenario, folder = read_scenario(str(tiny_file), three), tmp_path / "r"
    killed_in_training(scenario, folder, 1)
    killed_in_training(scenario, folder, 1)
    summary = run(scenario, folder)
    assert parts_paid(scenario, folder, "north") == [(1, 0), (1, 0), (1, 0), (4, 1), (5, 1)]
    assert rounds_paid(scenario, folder)["south"] == [1, 2, 4, 5]
    lines = read_metrics(folder / "metrics.jsonl")
    assert ["failed" in line for line in lines] == [False, True, True, False, False]
    assert (lines[2]["cohort"], lines[2]["summed"]) == ([], 0)
    assert (summary["rounds_completed"], summary["rounds_failed"], summary["ended_early"]) == (3, 2, None)
