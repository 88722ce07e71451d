"""What crosses between server and silo, and how it lies in a Flower message.

Nothing else in this package speaks Flower.

    server                                   silo
      | -- query.join   {version}          --> |   reads its data, opens its ledger, reserves its plan
      | <-------------- {silo, plan}       --- |
      | -- train        {version, round,   --> |   charges its ledger, then trains
      |                  model}                |
      | <-------------- {round, charged,   --- |
      |                  update}               |
      | <-------------- Error(code)        --- |   instead of either answer; a code, never a reason in words

Every answer is public by construction: names, planned and charged events (figures of the scenario, never counts of
records), and an update that is differentially private. There is no field for a training metric. A model and an update
are one flat array of raw little-endian float32 words each. Bytes from the other side are checked here: type, length,
range, version. What is wrong with them is said in fixed words, since words of the other side's could be anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from numpy.typing import NDArray

from fedmodel.errors import ProtocolError, error_codes
from fedmodel.mechanisms import DpSgdEvent, event_from_json, event_to_json

VERSION: Final = 1
JOIN_ACTION: Final = "join"
JOIN: Final = f"query.{JOIN_ACTION}"
TRAIN: Final = "train"

_REFUSED: Final = 1000  # outside the codes that Flower uses for its own errors
_HEAD: Final = "fedmodel"
_ARRAYS: Final = "fedmodel.arrays"
_RAW: Final = "fedmodel/v1/f32le"  # not NumPy's format: its reader also opens archives and evaluates headers


@dataclass(frozen=True)
class JoinReply:
    """A silo's name, and what it plans to spend on the whole run."""

    silo: str
    plan: DpSgdEvent


@dataclass(frozen=True)
class TrainRequest:
    """A round's number, from 1, and the global model, float32 of shape `(P,)`."""

    round_number: int
    model_P: NDArray[np.float32]


@dataclass(frozen=True)
class TrainReply:
    """A noised difference from the global model, float32 of shape `(P,)`, and the event charged for it."""

    round_number: int
    charged: DpSgdEvent
    update_P: NDArray[np.float32]


def join_request() -> RecordDict:
    """Ask a silo who it is and whether it takes part."""
    return RecordDict({_HEAD: ConfigRecord({"version": VERSION})})


def check_join_request(message: Message) -> None:
    """Refuse a request to join that is not of this protocol's version."""
    _head(message, {"version": int})


def join_reply(reply: JoinReply) -> RecordDict:
    """Encode a silo's answer to a request to join."""
    return RecordDict({_HEAD: ConfigRecord({"silo": reply.silo, "plan": event_to_json(reply.plan)})})


def read_join_reply(message: Message) -> JoinReply:
    """Decode a silo's answer to a request to join."""
    head = _head(message, {"silo": str, "plan": str})
    return JoinReply(str(head["silo"]), event_from_json(str(head["plan"])))


def train_request(request: TrainRequest) -> RecordDict:
    """Encode a request to train."""
    head = ConfigRecord({"version": VERSION, "round": request.round_number})
    return RecordDict({_HEAD: head, _ARRAYS: _array(request.model_P)})


def read_train_request(message: Message) -> TrainRequest:
    """Decode a request to train."""
    head = _head(message, {"version": int, "round": int})
    return TrainRequest(_round(head), _vector(message))


def train_reply(reply: TrainReply) -> RecordDict:
    """Encode a silo's update."""
    head = ConfigRecord({"round": reply.round_number, "charged": event_to_json(reply.charged)})
    return RecordDict({_HEAD: head, _ARRAYS: _array(reply.update_P)})


def read_train_reply(message: Message) -> TrainReply:
    """Decode a silo's update."""
    head = _head(message, {"round": int, "charged": str})
    return TrainReply(_round(head), event_from_json(str(head["charged"])), _vector(message))


def refusal(code: str) -> Error:
    """Return what a silo sends instead of an answer: a code and nothing of the reason.

    Raises:
        ProtocolError: When the code is none of the error tree's, since free text could carry a record.
    """
    if code not in error_codes():
        raise ProtocolError("a refusal carries a code of the error tree, never free text")
    return Error(code=_REFUSED, reason=code)


def refusal_code(error: Error) -> str:
    """Return the code in an error reply; "lost" for errors that are Flower's own, whatever text they bring."""
    if error.code == _REFUSED and error.reason in error_codes():
        return error.reason
    return "lost"


def _head(message: Message, expected: dict[str, type]) -> ConfigRecord:
    """Return the message's head with exactly the expected keys and types."""
    record = message.content.get(_HEAD) if message.has_content() else None
    if not isinstance(record, ConfigRecord):
        raise ProtocolError(f"a message has no {_HEAD!r} record")
    if "version" in expected and record.get("version") != VERSION:
        raise ProtocolError(f"a message of another version is not understood; this is version {VERSION}")
    if {key: type(value) for key, value in record.items()} != expected:
        raise ProtocolError(f"a message's head must hold exactly {sorted(expected)}")
    return record


def _round(head: ConfigRecord) -> int:
    number = head["round"]
    if not isinstance(number, int) or not 1 <= number <= 1_000_000:
        raise ProtocolError("a round's number is out of range")
    return number


def _array(vector_P: NDArray[np.float32]) -> ArrayRecord:
    words = np.ascontiguousarray(vector_P, dtype="<f4")
    return ArrayRecord({"vector": Array("float32", words.shape, _RAW, words.tobytes())})


def _vector(message: Message) -> NDArray[np.float32]:
    """Return the one flat, finite float32 array of a message. Nothing is parsed: words are words."""
    record = message.content.get(_ARRAYS)
    if not isinstance(record, ArrayRecord) or set(record) != {"vector"}:
        raise ProtocolError("a message must hold one array, named 'vector'")
    array = record["vector"]
    if array.stype != _RAW or array.dtype != "float32" or tuple(array.shape) != (len(array.data) // 4,):
        raise ProtocolError("a vector must be flat float32 in raw little-endian words")
    if len(array.data) % 4:
        raise ProtocolError("a vector must be whole words of four bytes")
    vector_P = np.frombuffer(array.data, dtype="<f4").astype(np.float32)
    if not np.isfinite(vector_P).all():
        raise ProtocolError("a vector must be finite")
    return vector_P
