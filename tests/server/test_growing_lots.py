"""A server holds every silo to the charge of a round's own phase, and a target to all phases together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Error, Message

from fedmodel import plans, wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import DropoutError, LedgerError, PrivacyBudgetExceeded, ProtocolError
from fedmodel.ledger.entries import ByPart
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from scenarios.runs.summary import read_metrics
from server.aggregation._loop import check_answer
from server.joining import Joined, JoinedSilo, _check_plan
from server.journal import Checkpoint
from server.round_loop import ComeTo, _counted
from server.server_app import run_federation
from server.usefulness import usefulness
from tests.fakes import FaultyGrid, charged
from tests.server.test_journal import checkpoint
from tests.server.test_usefulness import CPU, charge, linear, records

MODEL = np.zeros(4, dtype=np.float32)
GROWN = ("rounds=4", "training.lots=[{from_round=3,times=2.0}]")


@pytest.fixture
def grown(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), GROWN)


def planned(scenario: Scenario, silo: str = "north") -> DpSgdEvent:
    event = plans.planned_event(scenario.plan(silo))
    assert isinstance(event, DpSgdEvent)
    return event


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_an_answer_is_charged_at_the_rate_of_its_round(number: int, grown: Scenario) -> None:
    first = planned(grown).times(2)
    expected = plans.event_of_round(grown, "north", first, number)
    answer = wire.TrainReply(number, expected, MODEL)
    check_answer(answer, number, len(MODEL), expected)
    assert (expected.sample_rate, expected.denominator) == ((0.5, 10) if number < 3 else (1.0, 20))
    if number >= 3:
        with pytest.raises(ProtocolError, match="charged otherwise than planned"):
            check_answer(replace(answer, charged=first), number, len(MODEL), expected)


def test_a_silo_whose_noise_meets_the_target_in_the_first_phase_alone_is_left_out(tiny_file: Path) -> None:
    text = tiny_file.read_text(encoding="utf-8")
    tiny_file.write_text(text.replace("noise_multiplier = 2.0", "epsilon = 4.0"), encoding="utf-8")
    grown = read_scenario(str(tiny_file), GROWN)
    needed = planned(grown)
    _check_plan(wire.JoinReply("north", needed), grown)
    with pytest.raises(ProtocolError, match="more noise than its target epsilon needs"):
        _check_plan(wire.JoinReply("north", replace(needed, noise_multiplier=1.001 * needed.noise_multiplier)), grown)
    less = replace(needed, noise_multiplier=0.8 * needed.noise_multiplier)
    with pytest.raises(ProtocolError, match="less noise than its target epsilon needs"):
        _check_plan(wire.JoinReply("north", less), grown)
    alone = read_scenario(str(tiny_file), ("rounds=2",))
    with pytest.raises(ProtocolError, match="more noise than its target epsilon needs"):
        _check_plan(wire.JoinReply("north", less), alone)


def test_rounds_are_counted_by_phase_and_as_ever_where_there_is_one() -> None:
    one: Mapping[str, ByPart] = {}
    for silos in (("north", "south"), ("north",)):
        one = _counted(one, silos, 0, 1)
    assert one == {"north": 2, "south": 1}
    several: Mapping[str, ByPart] = {}
    for silos, part in ((("north", "south"), 0), (("north",), 2), (("west",), 2)):
        several = _counted(several, silos, part, 3)
    assert several == {"north": [1, 0, 1], "south": [1, 0, 0], "west": [0, 0, 1]}
    with pytest.raises(LedgerError, match="one whole number for each"):
        _counted(one, ("north",), 0, 3)


def test_a_checkpoint_keeps_what_was_charged_in_each_phase() -> None:
    kept = Checkpoint.from_bytes(checkpoint(charged={"north": [2, 1], "south": [2, 0]}).to_bytes())
    assert ComeTo.again(kept).charged == {"north": [2, 1], "south": [2, 0]}


def test_who_left_comes_back_once_its_phase_is_over_and_only_who_was_there() -> None:
    members = {silo: JoinedSilo(1, charge(2.0, 10)) for silo in ("north", "south")}
    joined = Joined(members, {"west": PrivacyBudgetExceeded.code})
    for silo, number in (("west", 0), ("north", 2), ("south", 5)):
        assert joined.let_go(silo, PrivacyBudgetExceeded.code, number)
    for since, left in ((1, []), (2, []), (5, ["north"]), (6, ["north", "south"])):
        joined.take_back(since)
        assert joined.left == left
    assert joined.withdrawn == {"west": {"round": 0, "code": PrivacyBudgetExceeded.code}}


def test_whether_a_model_is_of_use_counts_each_rounds_own_steps_and_noise(tiny_file: Path) -> None:
    plain, grown = (read_scenario(str(tiny_file), one) for one in (("rounds=4",), GROWN))
    charges = {silo: charge(2.0, 10) for silo in ("north", "south", "west")}
    before, after = (usefulness(linear(1.0, 0.0), one, records([0, 1, 0, 1]), charges, CPU) for one in (plain, grown))
    assert after["signal_to_noise"] == pytest.approx(2 * before["signal_to_noise"])
    assert after["noise_walk"] == pytest.approx(before["noise_walk"] * ((1 + 1 / 4) / 2) ** 0.5)
    assert after["reach"] == pytest.approx(before["reach"])
    assert after["supposed"] == before["supposed"] == dict.fromkeys(charges, 20)


@pytest.mark.parametrize("lots", [[], ["training.lots=[{from_round=6,times=2.0}]"]], ids=["plain", "lots grow"])
def test_a_round_that_failed_counts_whoever_waits_for_the_next_phase(
    lots: list[str], tiny_file: Path, tmp_path: Path
) -> None:
    """West left in round 2, and south's answers are lost from round 3 on: north would pay for each round that fails."""
    scenario = read_scenario(str(tiny_file), ["rounds=6", "federation.tolerated_failures=1", *lots])

    def fault(node: int, reply: Message) -> Message:
        if not reply.has_error() and reply.metadata.message_type == wire.TRAIN:
            number, silo = wire.read_train_reply(reply).round_number, scenario.federation.silos[node - 2]
            if (silo == "west" and number == 2) or (silo == "south" and number >= 3):
                gone = Error(8, "") if silo == "south" else wire.refusal(PrivacyBudgetExceeded.code)
                reply.__dict__.update(_content=None, _error=gone)
        return reply

    with pytest.raises(DropoutError, match=r"round 4 failed closed: 1 silo is too few"):
        run_federation(FaultyGrid(scenario, tmp_path, fault), scenario, tmp_path, torch.device("cpu"))
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert ["failed" in line for line in lines] == [False, False, True]
    assert [sorted(line["withdrawn"]) for line in lines] == [[], ["west"], ["west"]]
    assert sum(event.steps for event in charged(tmp_path / "ledgers" / "north.sqlite")) == 4 * 2
