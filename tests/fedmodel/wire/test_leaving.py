"""What is no answer to its question does not leave: a figure of training data has no field or array to go in."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedmodel import wire
from fedmodel.config import scenario_from
from fedmodel.errors import ProtocolError
from fedmodel.learning.pattern import words_sent
from fedmodel.secagg.ring import WIDTHS, RingBits, carrier
from tests.conftest import TINY
from tests.fedmodel.wire.test_messages import EVENT, MESSAGE, VECTOR, WINDOW, message

ASKED = {
    wire.READY: wire.ready_request(),
    wire.JOIN: wire.join_request(),
    wire.ADVERT: wire.advert_request(WINDOW),
    wire.SHARE: wire.share_request([MESSAGE]),
    wire.TRAIN: wire.train_request(wire.TrainRequest(1, VECTOR)),
    wire.COMMIT: wire.survivors_request(wire.SurvivorsRequest(3, 2, bytes(32), (1, 3))),
    wire.REVEAL: wire.survivors_request(wire.SurvivorsRequest(3, 2, bytes(32), (1, 3), (MESSAGE,))),
    wire.COUNTERSIGN: wire.countersign_request(wire.CountersignRequest(bytes(32))),
}
ANSWERS: dict[str, Callable[[], RecordDict]] = {
    wire.READY: lambda: wire.join_reply(wire.JoinReply("north", EVENT, head=b"a head")),
    wire.JOIN: lambda: wire.join_reply(wire.JoinReply("north", EVENT, MESSAGE, b"a head")),
    wire.ADVERT: lambda: wire.protocol_reply([MESSAGE]),
    wire.SHARE: lambda: wire.protocol_reply([MESSAGE, MESSAGE]),
    wire.TRAIN: lambda: wire.train_reply(wire.TrainReply(1, EVENT, VECTOR, b"a head")),
    wire.COMMIT: lambda: wire.protocol_reply([MESSAGE]),
    wire.REVEAL: lambda: wire.reveal_reply(wire.RevealReply(MESSAGE, MESSAGE)),
    wire.COUNTERSIGN: lambda: wire.countersign_reply(b"a head"),
}
READERS = {
    wire.JOIN: wire.read_join_reply,
    wire.ADVERT: wire.read_protocol_reply,
    wire.TRAIN: wire.read_train_reply,
    wire.REVEAL: wire.read_reveal_reply,
    wire.COUNTERSIGN: wire.read_countersign_reply,
}


def check(kind: str, content: RecordDict) -> None:
    wire.check_leaves(message(ASKED[kind], kind=kind), message(content, kind=kind))


def masked(words: int, bits: RingBits = 32) -> RecordDict:
    words_P = np.arange(words, dtype=carrier(bits))
    return wire.masked_reply(wire.MaskedReply(1, EVENT, words_P, MESSAGE, b"a head", ring_bits=bits))


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_a_silo_answers_leaves(kind: str) -> None:
    check(kind, ANSWERS[kind]())


@pytest.mark.parametrize("bits", WIDTHS)
def test_masked_words_leave_as_many_as_were_asked_about(bits: RingBits) -> None:
    check(wire.TRAIN, masked(len(VECTOR), bits))
    with pytest.raises(ProtocolError, match="it has 6 words where 5 were asked about"):
        check(wire.TRAIN, masked(len(VECTOR) + 1, bits))


@pytest.mark.parametrize(("said", "due"), [("update_share=0.4", 2), ("update_rank=2", 3)])
@pytest.mark.parametrize("words", [2, 3])
@pytest.mark.parametrize("job", ["training", "statistics"])
def test_of_a_part_of_an_update_that_many_words_leave_and_of_another_job_all(
    said: str, due: int, words: int, job: str
) -> None:
    sent_of = partial(words_sent, scenario_from(tomllib.loads(TINY), [f"federation.{said}"]))  # of a linear model
    asked = message(wire.train_request(wire.TrainRequest(1, VECTOR, job=job)), kind=wire.TRAIN)
    for answer in (wire.train_reply(wire.TrainReply(1, EVENT, VECTOR[:words], b"a head")), masked(words, 12)):
        if (words, job) == (due, "training"):
            wire.check_leaves(asked, message(answer, kind=wire.TRAIN), sent_of)
            continue
        with pytest.raises(ProtocolError, match=f"it has {words} words where 5 were asked about"):
            wire.check_leaves(asked, message(answer, kind=wire.TRAIN), sent_of)


MORE = {
    "metrics": MetricRecord({"loss": 0.25}),
    "fedmodel.metrics": MetricRecord({"loss": 0.25}),
    "notes": ConfigRecord({"records": 812}),
    "gradients": ArrayRecord({"vector": Array("float32", (1,), "fedmodel/v1/f32le", bytes(4))}),
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("name", MORE)
def test_a_record_more_does_not_leave(kind: str, name: str) -> None:
    content = ANSWERS[kind]()
    content[name] = MORE[name]
    with pytest.raises(ProtocolError, match=r"did not leave, it is no answer to .* carries a record"):
        check(kind, content)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", MORE)
def test_a_server_does_not_read_one_that_left_all_the_same(kind: str, name: str) -> None:
    content = ANSWERS[kind]()
    content[name] = MORE[name]
    with pytest.raises(ProtocolError, match="carries a record"):
        READERS[kind](message(content))


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_field_more_does_not_leave(kind: str) -> None:
    content = ANSWERS[kind]()
    for record in content.config_records.values():
        before = dict(record)
        record["loss"] = 0.25
        with pytest.raises(ProtocolError, match="did not leave"):
            check(kind, content)
        record.clear()
        record.update(before)
    check(kind, content)


def test_an_array_more_beside_the_update_does_not_leave() -> None:
    content = ANSWERS[wire.TRAIN]()
    content.array_records["fedmodel.arrays"]["loss"] = Array("float32", (1,), "fedmodel/v1/f32le", bytes(4))
    with pytest.raises(ProtocolError, match="must hold one array"):
        check(wire.TRAIN, content)


@pytest.mark.parametrize("vector", [np.append(VECTOR, np.float32(0.25)), VECTOR[:-1], np.full_like(VECTOR, np.nan)])
def test_an_update_of_another_length_or_that_is_no_number_does_not_leave(vector: np.ndarray) -> None:
    with pytest.raises(ProtocolError, match="did not leave"):
        check(wire.TRAIN, wire.train_reply(wire.TrainReply(1, EVENT, vector, b"a head")))


@pytest.mark.parametrize("kind", ["train.more", "evaluate", "query.anything"])
def test_a_question_of_no_known_kind_has_no_answer(kind: str) -> None:
    asked: Message = message(ASKED[wire.JOIN], kind=kind)
    with pytest.raises(ProtocolError, match="questions of this kind have no answer"):
        wire.check_leaves(asked, message(ANSWERS[wire.JOIN](), kind=kind))
