"""A silo reserves every phase of lots that grow, charges a round to its own phase, and draws at the rate charged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.silo import Silo
from fedmodel import plans, wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import PrivacyError
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.ledger import Standing, verify_ledger
from fedmodel.privacy import accounting
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import read_kit
from tests.clients.test_client_app import ask, joined, model
from tests.fakes import FaultyGrid, trained

GROWN = ("rounds=3", "training.lots=[{from_round=2,times=1.2},{from_round=3,times=2.0}]")
"""Lots at rate 0.5, 0.6 and 1, a round each, of two steps."""


@pytest.fixture
def grown(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), GROWN)


def standing(folder: Path) -> Standing:
    return verify_ledger(folder / "ledgers" / "north.sqlite").standing


def charges(folder: Path) -> list[tuple[int, int, int]]:
    """Return round, part and steps of everything that was charged."""
    runs = standing(folder).runs.values()
    return [(one.round, one.part, one.steps) for run in runs for one in run.charges.values()]


def asked(grid: FaultyGrid, scenario: Scenario, number: int) -> wire.TrainReply | str:
    reply = ask(grid, wire.train_request(wire.TrainRequest(number, model(scenario))), wire.TRAIN)
    return wire.refusal_code(reply.error) if reply.has_error() else wire.read_train_reply(reply)


def log(folder: Path) -> str:
    return (folder / "logs" / "north.log").read_text(encoding="utf-8")


def test_each_round_is_charged_to_its_phase_and_drawn_at_that_rate(
    grown: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, whole = DpSgd.step, []

    def stepped(self: DpSgd, x_N: object, y_N: list[int], lot: NDArray[np.intp]) -> None:
        whole.append(len(lot) == len(y_N))
        step(self, x_N, y_N, lot)  # type: ignore[arg-type]

    monkeypatch.setattr(DpSgd, "step", stepped)
    grid = joined(grown, tmp_path)
    (run,) = standing(tmp_path).runs.values()
    assert run.parts == plans.planned_parts(grown, "north")
    assert (run.phases, run.steps, run.taken) == (3, 6, 0)
    for number in (1, 2, 3):
        answer = asked(grid, grown, number)
        assert isinstance(answer, wire.TrainReply)
        assert answer.charged == run.parts[number - 1]
    assert charges(tmp_path) == [(1, 0, 2), (2, 1, 2), (3, 2, 2)]
    assert whole == [False] * 4 + [True] * 2
    (run,) = standing(tmp_path).runs.values()
    assert [event.sample_rate for event in run.events] == [0.5, 0.6, 1.0]
    assert (run.taken, run.rounds, run.spent) == (6, 3, run.cost)
    # What the steps cost is that of each at its own rate: more than at the smallest, less than at the largest.
    scope = standing(tmp_path).scopes[run.scope]
    assert list(run.costs) == [scope.cost(part) for part in run.parts] == sorted(set(run.costs))
    delta = grown.plan("north").delta
    ends = [accounting.epsilon([run.parts[place].times(6)], delta, accounting.COARSE_GRID) for place in (0, 2)]
    assert ends[0] < accounting.epsilon(run.claimed, delta, accounting.COARSE_GRID) < ends[1]


def test_a_baseline_trains_in_the_same_phases(tiny_file: Path, tmp_path: Path) -> None:
    """Whether sums can be added up exactly is asked of the noise that it is compared with."""
    bare = read_scenario(str(tiny_file), (*GROWN, "privacy.baseline=no-noise"))
    grid = joined(bare, tmp_path)
    for number, rate in ((1, 0.5), (3, 1.0)):
        answer = asked(grid, bare, number)
        assert isinstance(answer, wire.TrainReply)
        assert (answer.charged.mechanism, answer.charged.sample_rate) == ("none-unsafe", rate)


def test_a_phase_is_charged_for_no_more_steps_than_it_has(grown: Scenario, tmp_path: Path) -> None:
    """A round asked again with another model is charged again, and no other phase pays for it."""
    grid = joined(grown, tmp_path)
    assert isinstance(asked(grid, grown, 2), wire.TrainReply)
    request = wire.TrainRequest(2, 2 * model(grown))
    reply = ask(grid, wire.train_request(request), wire.TRAIN)
    assert wire.refusal_code(reply.error) == "budget-exceeded"
    assert charges(tmp_path) == [(2, 1, 2)]
    assert isinstance(asked(grid, grown, 3), wire.TrainReply)


@pytest.mark.parametrize("number", [2, 3])
def test_a_round_is_not_trained_as_charged_at_another_phases_rate(number: int, grown: Scenario, tmp_path: Path) -> None:
    first, *_ = plans.planned_parts(grown, "north")
    silo = Silo("north", grown, "1", "cpu", tmp_path, tmp_path)
    with pytest.raises(PrivacyError, match=f"round {number} has lots at rate .* and is charged as 0.5 and 10"):
        trained(silo, first, wire.TrainRequest(number, model(grown)))


@pytest.mark.parametrize("found", ["as the first", "no phase", "another noise"])
def test_phases_that_were_not_reserved_as_the_scenario_asks_are_not_trained(
    found: str, grown: Scenario, tmp_path: Path
) -> None:
    grid = FaultyGrid(grown, tmp_path)
    silo = Silo("north", grown, str(grid.run.run_id), "cpu", tmp_path, tmp_path / "silos" / "north")
    first, second, third = plans.planned_parts(grown, "north")
    assert isinstance(third, DpSgdEvent)
    others = {
        "as the first": (second, replace(third, sample_rate=0.6, realised_sample_rate=-1.0)),
        "no phase": (),
        "another noise": (second, replace(third, noise_multiplier=5.0)),
    }
    with silo.ledger() as ledger:
        silo.begin_outbox(ledger)
        silo.reserve(ledger, first, besides=others[found])
    assert asked(grid, grown, 1) == "protocol-violated"
    assert charges(tmp_path) == []
    assert "each at its own rate; what was not reserved is not answered" in log(tmp_path)


def test_a_budget_that_does_not_pay_for_every_phase_pays_for_none(tiny_file: Path, tmp_path: Path) -> None:
    """The first rounds alone, which a law may allow of other runs, would be another schedule than the scenario's."""
    grown = ("rounds=4", "training.lots=[{from_round=3,times=2.0}]")
    first, second = plans.planned_parts(read_scenario(str(tiny_file), grown), "north")
    enough = 1.001 * accounting.epsilon([first.times(2), second], 1e-3)  # one of two small rounds, and all large ones
    poor = read_scenario(str(tiny_file), [*grown, f"budgets.north={enough}"])
    grid = FaultyGrid(poor, tmp_path)
    budget = read_kit(tmp_path / "silos" / "north").law.budget_of(poor.plan("north").data)
    assert budget is not None
    assert budget.partial_runs
    assert wire.refusal_code(ask(grid, wire.join_request(), wire.JOIN).error) == "budget-exceeded"
    assert standing(tmp_path).runs == {}
