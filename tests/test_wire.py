"""Messages carry exactly what the protocol says, and bytes from the other side are checked before they are believed."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, RecordDict

from fedmodel import errors, wire
from fedmodel.errors import LedgerError, ProtocolError
from fedmodel.masking import RingBits
from fedmodel.mechanisms import DpSgdEvent
from fedmodel.secagg import Window

EVENT = DpSgdEvent(1.1, 0.5, 0.01, 3, denominator=64)
VECTOR = np.arange(5, dtype=np.float32)
WINDOW = Window(2**64 - 1, 3, 2, 4)
MESSAGE = b"FMSA" + bytes(24) + (5).to_bytes(4, "big") + b"-body" + bytes(64)


def message(content: RecordDict | None = None, error: Error | None = None) -> Message:
    metadata = Metadata(1, "m", 1, 2, "", "", 0.0, 60.0, "train")
    return Message(metadata=metadata, content=content, error=error)  # type: ignore[call-overload, no-any-return]


def test_messages_go_there_and_back() -> None:
    assert wire.read_join_request(message(wire.join_request())) is None
    assert wire.read_join_request(message(wire.join_request(WINDOW))) == WINDOW
    for joined in (wire.JoinReply("north", EVENT), wire.JoinReply("north", EVENT, MESSAGE)):
        assert wire.read_join_reply(message(wire.join_reply(joined))) == joined
    request = wire.read_train_request(message(wire.train_request(wire.TrainRequest(3, VECTOR))))
    assert (request.round_number, request.model_P.tolist()) == (3, VECTOR.tolist())
    reply = wire.read_train_reply(message(wire.train_reply(wire.TrainReply(3, EVENT, VECTOR))))
    assert (reply.round_number, reply.charged, reply.update_P.tolist()) == (3, EVENT, VECTOR.tolist())


def test_messages_of_secure_aggregation_go_there_and_back() -> None:
    assert wire.read_advert_request(message(wire.advert_request(WINDOW))) == WINDOW
    assert wire.read_share_request(message(wire.share_request([MESSAGE, MESSAGE]))) == [MESSAGE, MESSAGE]
    assert wire.read_protocol_reply(message(wire.protocol_reply([MESSAGE]))) == [MESSAGE]
    request = wire.TrainRequest(3, VECTOR, (MESSAGE, MESSAGE))
    assert wire.read_train_request(message(wire.train_request(request))).shares == request.shares
    asked = wire.SurvivorsRequest(3, 2, bytes(range(32)), (1, 3, 4), (MESSAGE, MESSAGE), WINDOW)
    assert wire.read_survivors_request(message(wire.survivors_request(asked))) == asked
    bare = wire.SurvivorsRequest(3, 2, bytes(32), (1, 3, 4))
    assert wire.read_survivors_request(message(wire.survivors_request(bare))) == bare
    revealed = wire.RevealReply(MESSAGE, MESSAGE)
    assert wire.read_reveal_reply(message(wire.reveal_reply(revealed))) == revealed


@pytest.mark.parametrize(("bits", "dtype"), [(16, "<u2"), (32, "<u4")])
def test_masked_words_go_there_and_back_and_not_as_another_ring(bits: RingBits, dtype: str) -> None:
    words_P = np.array([0, 1, 2**bits - 1], dtype=dtype)
    content = wire.masked_reply(wire.MaskedReply(3, EVENT, words_P, MESSAGE))
    reply = wire.read_masked_reply(message(content), bits)
    assert (reply.words_P.tolist(), reply.words_P.dtype, reply.mask) == (words_P.tolist(), words_P.dtype, MESSAGE)
    with pytest.raises(ProtocolError, match="whole raw little-endian"):
        wire.read_masked_reply(message(content), 16 if bits == 32 else 32)
    with pytest.raises(ProtocolError):
        wire.read_train_reply(message(content))


@pytest.mark.parametrize(
    "fields",
    [
        {"run": "-1", "first": 1, "attempt": 1, "count": 1},
        {"run": "", "first": 1, "attempt": 1, "count": 1},
        {"run": "1" * 17, "first": 1, "attempt": 1, "count": 1},
        {"run": "1", "first": 0, "attempt": 1, "count": 1},
        {"run": "1", "first": 1, "attempt": 2**16, "count": 1},
        {"run": "1", "first": 1, "attempt": 1, "count": 257},
        {"run": "1", "first": 1, "attempt": 1},
        {"run": 1, "first": 1, "attempt": 1, "count": 1},
    ],
)
def test_a_malformed_window_is_refused(fields: dict[str, int | str]) -> None:
    content = wire.advert_request(WINDOW)
    content["fedmodel.window"] = ConfigRecord({**fields})
    with pytest.raises(ProtocolError):
        wire.read_advert_request(message(content))
    with pytest.raises(ProtocolError, match="no window"):
        wire.read_advert_request(message(wire.join_request()))


@pytest.mark.parametrize("blobs", [{"other": b"x"}, {"messages": "words"}, {"messages": b"cut short"}, {"messages": 1}])
def test_byte_strings_that_do_not_belong_are_refused(blobs: dict[str, bytes | str | int]) -> None:
    content = RecordDict({"fedmodel.messages": ConfigRecord({**blobs})})
    with pytest.raises(ProtocolError):
        wire.read_protocol_reply(message(content))


def test_a_model_is_one_flat_array_on_the_wire() -> None:
    content = wire.train_request(wire.TrainRequest(1, VECTOR))
    arrays = [array for record in content.array_records.values() for array in record.values()]
    assert [(array.dtype, array.shape) for array in arrays] == [("float32", (5,))]


def test_an_update_has_no_room_for_a_training_metric() -> None:
    content = wire.train_reply(wire.TrainReply(1, EVENT, VECTOR))
    assert content.metric_records == {}
    assert {key for record in content.config_records.values() for key in record} == {"round", "charged"}
    head = content.config_records["fedmodel"]
    head["loss"] = 0.1
    with pytest.raises(ProtocolError, match="exactly"):
        wire.read_train_reply(message(content))


def words(vector: np.ndarray, dtype: str = "float32", stype: str = "fedmodel/v1/f32le") -> Array:
    return Array(dtype, vector.shape, stype, vector.tobytes())


def _train(head: dict[str, object], array: Array | None) -> Message:
    records: dict[str, ArrayRecord | ConfigRecord] = {"fedmodel": ConfigRecord(head)}  # type: ignore[arg-type]
    if array is not None:
        records["fedmodel.arrays"] = ArrayRecord({"vector": array})
    return message(RecordDict(records))  # type: ignore[arg-type]


GOOD_HEAD: dict[str, object] = {"version": 2, "round": 1}


def test_a_well_formed_request_is_read() -> None:
    assert wire.read_train_request(_train(GOOD_HEAD, words(VECTOR))).model_P.tolist() == VECTOR.tolist()


@pytest.mark.parametrize(
    ("head", "array"),
    [
        ({"version": 1, "round": 1}, words(VECTOR)),
        ({"round": 1}, words(VECTOR)),
        ({"version": 2, "round": "1"}, words(VECTOR)),
        ({"version": 2, "round": 0}, words(VECTOR)),
        ({"version": 2, "round": True}, words(VECTOR)),
        ({**GOOD_HEAD, "extra": 1}, words(VECTOR)),
        (GOOD_HEAD, None),
        (GOOD_HEAD, Array(VECTOR)),
        (GOOD_HEAD, words(VECTOR.astype(np.float64))),
        (GOOD_HEAD, words(VECTOR, dtype="float64")),
        (GOOD_HEAD, words(VECTOR.reshape(1, 5))),
        (GOOD_HEAD, words(np.array([1.0, np.nan], dtype=np.float32))),
        (GOOD_HEAD, words(np.array([np.inf], dtype=np.float32))),
        (GOOD_HEAD, Array("float32", (1,), "fedmodel/v1/f32le", b"12345")),
        (GOOD_HEAD, Array("float32", (5,), "pickle", b"cos\nsystem\n(S'true'\ntR.")),
    ],
)
def test_a_malformed_request_is_refused(head: dict[str, object], array: Array | None) -> None:
    with pytest.raises(ProtocolError):
        wire.read_train_request(_train(head, array))


def test_an_event_that_cannot_be_accounted_for_is_refused() -> None:
    content = wire.join_reply(wire.JoinReply("north", EVENT))
    content.config_records["fedmodel"]["plan"] = '{"mechanism":"none"}'
    with pytest.raises(LedgerError):
        wire.read_join_reply(message(content))


def test_a_refusal_is_a_code_and_never_free_text() -> None:
    assert wire.refusal_code(wire.refusal("policy-refused")) == "policy-refused"
    with pytest.raises(ProtocolError, match="never free text"):
        wire.refusal("patient Ada Lovelace")


@pytest.mark.parametrize(
    "error", [Error(8, "ClientApp crashed: patient Ada Lovelace"), Error(1000, "Ada Lovelace"), Error(3)]
)
def test_text_in_a_foreign_error_is_dropped(error: Error) -> None:
    assert wire.refusal_code(error) == "lost"


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    kinds.remove(errors.DataError)  # on purpose: a bad record must look like any other failure
    assert errors.DataError.code == errors.FedmodelError.code
    assert len({kind.code for kind in kinds}) == len(kinds) == len(errors.error_codes())
