"""Messages carry exactly what the protocol says, and bytes from the other side are checked before they are believed."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, RecordDict

from fedmodel import errors, wire
from fedmodel.errors import LedgerError, ProtocolError
from fedmodel.mechanisms import DpSgdEvent

EVENT = DpSgdEvent(1.1, 0.5, 0.01, 3, denominator=64)
VECTOR = np.arange(5, dtype=np.float32)


def message(content: RecordDict | None = None, error: Error | None = None) -> Message:
    metadata = Metadata(1, "m", 1, 2, "", "", 0.0, 60.0, "train")
    return Message(metadata=metadata, content=content, error=error)  # type: ignore[call-overload, no-any-return]


def test_messages_go_there_and_back() -> None:
    wire.check_join_request(message(wire.join_request()))
    assert wire.read_join_reply(message(wire.join_reply(wire.JoinReply("north", EVENT)))) == wire.JoinReply(
        "north", EVENT
    )
    request = wire.read_train_request(message(wire.train_request(wire.TrainRequest(3, VECTOR))))
    assert (request.round_number, request.model_P.tolist()) == (3, VECTOR.tolist())
    reply = wire.read_train_reply(message(wire.train_reply(wire.TrainReply(3, EVENT, VECTOR))))
    assert (reply.round_number, reply.charged, reply.update_P.tolist()) == (3, EVENT, VECTOR.tolist())


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


GOOD_HEAD: dict[str, object] = {"version": 1, "round": 1}


def test_a_well_formed_request_is_read() -> None:
    assert wire.read_train_request(_train(GOOD_HEAD, words(VECTOR))).model_P.tolist() == VECTOR.tolist()


@pytest.mark.parametrize(
    ("head", "array"),
    [
        ({"version": 2, "round": 1}, words(VECTOR)),
        ({"round": 1}, words(VECTOR)),
        ({"version": 1, "round": "1"}, words(VECTOR)),
        ({"version": 1, "round": 0}, words(VECTOR)),
        ({"version": 1, "round": True}, words(VECTOR)),
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
