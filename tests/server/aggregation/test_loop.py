"""One loop for every kind of aggregation: what reaches a kind, who drops out and why, and what a failure leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients.sentences import sentences
from fedmodel import wire
from fedmodel.config import AggregationMode, EncryptionConfig, Scenario, SiloEncryptionConfig
from fedmodel.errors import AggregationRefused, DropoutError, LedgerTampered, Rule
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import law_of
from server.aggregation import KINDS, Aggregation, Taking, kind_of
from server.aggregation._loop import Asked, Mean
from server.joining import Joined, JoinedSilo
from server.lineages import Lineages

EVENT = DpSgdEvent(2.0, 1.0, 0.5, 2, denominator=10)
MODEL = np.arange(4, dtype=np.float32)
RIGHT = wire.TrainReply(3, EVENT, MODEL, b"head")


class Post:
    """Brings what it was given, and notes what it was asked to carry."""

    def __init__(self, replies: Mapping[str, Message | None]) -> None:
        self._replies = replies
        self.asked: dict[str, tuple[int, RecordDict]] = {}

    def ask(
        self, kind: str, number: int, contents: Mapping[str, tuple[int, RecordDict]]
    ) -> Iterator[tuple[str, Message | None]]:
        assert (kind, number) == (wire.TRAIN, 3)
        self.asked = dict(contents)
        for silo in contents:
            yield silo, self._replies[silo]


class Heads:
    """Knows every ledger but one, whose head does not follow."""

    def known(self, silo: str) -> bytes:
        return silo.encode()

    def kept_together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def follow(self, silo: str, head: bytes) -> None:
        assert head == b"head"
        if silo == "forked":
            raise LedgerTampered("another ledger")


class Recording(Aggregation[wire.TrainReply]):
    """Notes what it is given; `fails` is where it fails."""

    def __init__(self, taking: Taking, fails: str = "") -> None:
        super().__init__(taking)
        self.fails, self.given, self.failed = fails, [], None  # type: str, list[str], Mapping[str, str] | None

    def _fail(self, where: str) -> None:
        if self.fails == where:
            raise DropoutError(f"no {where}")

    def _open(self, number: int, cohort: list[str]) -> Asked:
        assert number == 3
        self._fail("open")
        return Asked({silo: (b"share of " + silo.encode(),) for silo in cohort}, {"lost": "late"})

    def _check_asked(self, silos: list[str]) -> None:
        assert silos == sorted(silos)
        self._fail("check")

    def _read(self, reply: Message) -> wire.TrainReply:
        return wire.read_train_reply(reply)

    def _add(self, silo: str, answer: wire.TrainReply) -> None:
        if silo == "unfit":
            raise AggregationRefused(Rule.VECTOR, "does not fit")
        assert answer.update_P.tolist() == MODEL.tolist()
        self.given.append(silo)

    def _close(self) -> Mean:
        self._fail("close")
        return Mean(MODEL, tuple(silo for silo in self.given if silo != "late-dealer"), threshold=2)

    def _failed(self, dropouts: Mapping[str, str]) -> None:
        self.failed = dict(dropouts)


def reply(answer: wire.TrainReply) -> Message:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    return Message(wire.train_reply(answer), 7, wire.TRAIN)


def refused(code: str) -> Message:
    made = reply(RIGHT)
    made.__dict__.update(_content=None, _error=wire.refusal(code))
    return made


REPLIES = {
    "right": reply(RIGHT),
    "forked": reply(RIGHT),
    "unfit": reply(RIGHT),
    "late-dealer": reply(RIGHT),
    "silent": None,
    "poor": refused("budget-exceeded"),
    "another-round": reply(replace(RIGHT, round_number=2)),
    "another-model": reply(replace(RIGHT, update_P=MODEL[:3])),
    "charged-less": reply(replace(RIGHT, charged=replace(EVENT, steps=1))),
    "less-noise": reply(replace(RIGHT, charged=replace(EVENT, noise_multiplier=1.0))),
}


def rounds(tiny: Scenario, fails: str = "") -> tuple[Recording, Post]:
    carries = tiny.model_copy(update={"training": tiny.training.model_copy(update={"keep_optimizer_state": True})})
    post, joined = Post(REPLIES), Joined({silo: JoinedSilo(place, EVENT) for place, silo in enumerate(REPLIES, 2)}, {})
    told: dict[str, Any] = {"post": post, "known_heads": Heads(), "roster": SimpleNamespace()}
    taking = Taking(scenario=carries, joined=joined, cohort_of=lambda _: [], lineages=Lineages(carries, 1), **told)
    return Recording(taking, fails), post


def test_a_kind_is_given_answers_to_this_question_alone(tiny: Scenario) -> None:
    found, post = rounds(tiny)
    result = found.round(list(REPLIES), wire.TrainRequest(3, MODEL))
    assert found.given == ["right", "late-dealer"]
    assert result.mean_P is MODEL
    assert (result.summed, result.threshold, result.failure) == (1, 2, "")
    assert result.asked == tuple(sorted([*REPLIES, "lost"]))
    assert result.dropouts == {
        "lost": "late",
        "forked": "ledger-tampered",
        "unfit": "aggregation-refused",
        "late-dealer": "aggregation-refused",
        "silent": "late",
        "poor": "budget-exceeded",
        "another-round": "protocol-violated",
        "another-model": "protocol-violated",
        "charged-less": "protocol-violated",
        "less-noise": "protocol-violated",
    }
    # Charged is who says so of this round, whether or not the answer is in the mean.
    assert result.charged == dict.fromkeys(("right", "unfit", "late-dealer"), EVENT)
    assert found.failed is None
    for silo, (_, content) in post.asked.items():
        told = content.config_records["fedmodel.messages"]
        assert (told["shares"], told["known"]) == (b"share of " + silo.encode(), silo.encode())
    assert {node for node, _ in post.asked.values()} == set(range(2, 2 + len(REPLIES)))
    # Who did not answer, or not to this, is not known to hold what the round leaves.
    assert set(found.taking.lineages.state()) == {"right", "late-dealer"}


def test_a_round_without_a_mean_fails_closed_and_keeps_what_was_charged(tiny: Scenario) -> None:
    found, _ = rounds(tiny, "close")
    result = found.round(list(REPLIES), wire.TrainRequest(3, MODEL))
    assert result.mean_P is None
    assert result.summed == 0
    assert result.failure.startswith("round 3 failed closed: no close; dropped out: another-model (protocol-violated)")
    assert set(result.charged) == {"right", "unfit", "late-dealer"}
    assert found.failed == result.dropouts
    assert "right" not in result.dropouts


@pytest.mark.parametrize(("fails", "asked"), [("open", ()), ("check", tuple(sorted([*REPLIES, "lost"])))])
def test_a_round_that_could_come_to_nothing_asks_nobody(fails: str, asked: tuple[str, ...], tiny: Scenario) -> None:
    found, post = rounds(tiny, fails)
    result = found.round(list(REPLIES), wire.TrainRequest(3, MODEL))
    assert result.mean_P is None
    assert f"round 3 failed closed: no {fails}" in result.failure
    assert (result.asked, result.charged, post.asked) == (asked, {}, {})


def hidden_by(scenario: Scenario, mode: str) -> Scenario:
    """Return a scenario under another mode of secure aggregation."""
    hidden = {"secure_aggregation": mode, "bound": 4.0, "colluding": 0}
    return scenario.model_copy(update={"encryption": scenario.encryption.model_copy(update=hidden)})


def test_every_mode_that_a_scenario_may_say_is_one_kinds_and_is_said_in_every_law(tiny: Scenario) -> None:
    modes = get_args(AggregationMode)
    for kind in (EncryptionConfig, SiloEncryptionConfig):
        assert kind.model_fields["secure_aggregation"].annotation == AggregationMode
    told = [sentences(law_of(hidden_by(tiny, mode), "north", bytes(32))) for mode in modes]
    assert len({next(line for line in law if line.startswith("Updates leave")) for law in told}) == len(modes)
    assert sorted(module.MODE for module in KINDS.values()) == sorted(modes)
    for mode in modes:
        assert kind_of(hidden_by(tiny, mode)).__module__ in {
            module.__name__ for module in KINDS.values() if mode == module.MODE
        }


def test_an_error_of_nobodys_answer_is_raised(tiny: Scenario) -> None:
    """Of the carrier for one: the run is taken up again, and not a round failed."""
    found, post = rounds(tiny)

    def gone(*_: object) -> Iterator[tuple[str, Message | None]]:
        raise ConnectionError

    post.ask = gone  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        found.round(["right"], wire.TrainRequest(3, MODEL))
