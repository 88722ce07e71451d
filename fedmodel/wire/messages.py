"""What crosses between server and silo, and how it lies in a Flower message.

    server                                        silo
      | -- query.ready   {version}             --> |   checks all that it would to join; enters nothing
      | <--------------- {silo, plan}, head    --- |
      | -- query.join    {version, name},      --> |   checks its law, opens its ledger, reserves its plan
      |                  window                    |
      | <--------------- {silo, plan}, advert, --- |
      |                  head                      |
      | -- query.advert  {version}, window     --> |   makes secrets for a window of rounds
      | <--------------- advert                --- |
      | -- query.share   {version}, adverts    --> |   deals shares of its secrets to its neighbours
      | <--------------- shares                --- |
      | -- train         {version, round,      --> |   charges its ledger, trains or does another job,
      |                  job}, model, shares,      |   quantises, masks
      |                  known,                    |
      |                  lineage                   |
      | <--------------- {round, charged},     --- |
      |                  update, mask, head        |
      | -- query.commit  {version, round,      --> |   signs one list of survivors
      |                  attempt}, survivors       |
      | <--------------- commit                --- |
      | -- query.reveal  {version, round,      --> |   gives one share a peer; advertises for the next window
      |                  attempt}, survivors,      |
      |                  commits, window           |
      | <--------------- reveal, advert        --- |
      | -- query.countersign {version}, model, --> |   enters into its ledger that the run has ended
      |                  known                     |
      | <--------------- head                  --- |
      | <--------------- Error(code)           --- |   instead of any answer; a code, never a reason in words

Without secure aggregation there are `query.ready`, `query.join`, `train` and `query.countersign` alone. Messages of
secure aggregation are bytes here, read by `fedmodel.secagg`; `known` and `head` are signed heads of the silo's ledger,
the one that the server keeps and the one that holds the round's charge, or the run's end; `lineage` names the state
that a round begins from besides the model.

Every question is signed by the server's key, together with its kind and its run, so that a silo answers the server that
its law names, and whoever carries messages can neither make one nor change one, nor ask again in another run.

Every answer is public by construction: names, planned and charged events (figures of the scenario, never counts of
records), and an update that is differentially private, and masked where secure aggregation is on. There is no field for
a training metric: an answer with a field, a record or an array more is not read, and does not leave its silo
(`fedmodel.wire.leaving`). A model and an update are one flat array of raw little-endian words each: float32, or the
unsigned words of a ring, each as wide as the ring is; of an update perhaps a public part (`fedmodel.learning.pattern`).
Bytes from the other side are checked here: type, length, range, version. What is wrong with them is said in fixed
words, since words of the other side's could be anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedmodel.config import TRAINING
from fedmodel.errors import ProtocolError, error_codes
from fedmodel.ledger.entries import RUN_NAME
from fedmodel.privacy.events import Event, event_to_json
from fedmodel.privacy.mechanisms import event_from_json
from fedmodel.secagg import (
    FRESH,
    LINEAGE_SIZE,
    Window,
    join_messages,
    model_digest,
    pack_numbers,
    read_numbers,
    ring,
    split_messages,
)
from fedmodel.secagg.ring import RingBits, Words

VERSION: Final = 7
READY: Final = "query.ready"
JOIN: Final = "query.join"
ADVERT: Final = "query.advert"
SHARE: Final = "query.share"
TRAIN: Final = "train"
COMMIT: Final = "query.commit"
REVEAL: Final = "query.reveal"
COUNTERSIGN: Final = "query.countersign"

_REFUSED: Final = 1000  # outside the codes that Flower uses for its own errors
_FOREIGN: Final = {
    0: "an error that has no name",
    1: "the silo's app could not be loaded",
    2: "the silo's app raised an exception",
    3: "the question was gone",
    4: "the answer was gone",
    5: "the silo's node was not there",
    6: "the silo's node refused the question",
    7: "the bundle was not valid",
    8: "the process of the silo's app crashed",
}
"""Of Flower 1.41, `flwr.common.constant.ErrorCode`."""
LOST: Final = "lost"
"""The code for an error of Flower's."""
_HEAD: Final = "fedmodel"
_ARRAYS: Final = "fedmodel.arrays"
_MESSAGES: Final = "fedmodel.messages"
_WINDOW: Final = "fedmodel.window"
# Not NumPy's format: its reader also opens archives and evaluates headers.
_RAW: Final = {"float32": "fedmodel/v1/f32le", **{f"uint{bits}": f"fedmodel/v1/u{bits}le" for bits in ring.WIDTHS}}
_BITS: Final[Mapping[str, RingBits]] = {f"uint{bits}": bits for bits in ring.WIDTHS}
_MOST_SILOS: Final = 100_000
_HASH_SIZE: Final = 32
_JOB: Final = re.compile("[a-z][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class JoinRequest:
    """What a silo is to join.

    Attributes:
        window: What to advertise keys for, with secure aggregation; None without it, or where keys were sent before.
        name: What the run is called at the server, for people to read; empty where it has none.
    """

    window: Window | None = None
    name: str = ""


@dataclass(frozen=True)
class JoinReply:
    """A silo's name, what it plans to spend on the whole run, its ADVERT if asked for, and its ledger's signed head.

    A silo that is ready to join says the same, without an ADVERT. Where lots grow it says its plan for the first phase,
    whose noise all phases have (`fedmodel.plans.parts_beginning`).
    """

    silo: str
    plan: Event
    advert: bytes = b""
    head: bytes = b""


@dataclass(frozen=True)
class TrainRequest:
    """What a round asks of a silo: to train, or to do another job.

    Attributes:
        round_number: From 1.
        model_P: What the job is asked about, float32 of shape `(P,)`; for training the global model.
        shares: SHAREs to this silo, until it has them.
        known: The newest head of this silo's ledger that the server keeps, empty where it has none.
        lineage: Of the state that the round begins from; empty where it begins fresh.
        job: The name of the job.
    """

    round_number: int
    model_P: NDArray[np.float32]
    shares: tuple[bytes, ...] = ()
    known: bytes = b""
    lineage: bytes = FRESH
    job: str = TRAINING

    @cached_property
    def model_hash(self) -> bytes:
        """The hash of what the job is asked about, which is not to be changed any more."""
        return model_digest(self.model_P)


@dataclass(frozen=True)
class TrainReply:
    """A noised difference from the global model, float32 of shape `(P,)` or what is sent of it, and its charge's event.

    `head` is the signed head of the silo's ledger with that charge, and the proof that it extends the one known.
    """

    round_number: int
    charged: Event
    update_P: NDArray[np.float32]
    head: bytes = b""

    @property
    def vector(self) -> NDArray[np.float32]:
        """What is sent, of shape `(P,)`."""
        return self.update_P


@dataclass(frozen=True)
class MaskedReply:
    """The same in words of a ring, of shape `(P,)`, and the MASK message that goes beside masked ones.

    `ring_bits` says which ring: a word in memory may be wider than it (`fedmodel.secagg.ring`), and is not as it is
    sent.
    """

    round_number: int
    charged: Event
    words_P: Words
    mask: bytes = b""
    head: bytes = b""
    ring_bits: RingBits = field(kw_only=True)

    @property
    def vector(self) -> Words:
        """What is sent, of shape `(P,)`."""
        return self.words_P


@dataclass(frozen=True)
class SurvivorsRequest:
    """Which updates are in a round's sum: what COMMIT and REVEAL are asked on.

    Attributes:
        round_number: From 1.
        attempt: Of the window.
        context: ctx, 32 bytes.
        survivors: Numbers in the roster, ascending.
        commits: A quorum of COMMITs, for REVEAL.
        window: What to advertise for next, with REVEAL.
    """

    round_number: int
    attempt: int
    context: bytes
    survivors: tuple[int, ...]
    commits: tuple[bytes, ...] = ()
    window: Window | None = None


@dataclass(frozen=True)
class CountersignRequest:
    """The end of a run.

    Attributes:
        model: SHA-256 of the model that it ended with, as a safetensors file that nothing seals; 32 bytes.
        known: The newest head of this silo's ledger that the server keeps, empty where it has none.
    """

    model: bytes
    known: bytes = b""


@dataclass(frozen=True)
class RevealReply:
    """A silo's REVEAL, and its ADVERT where it was asked for one."""

    reveal: bytes
    advert: bytes = b""


def ready_request() -> RecordDict:
    """Ask a silo who it is and whether it could take part."""
    return RecordDict({_HEAD: ConfigRecord({"version": VERSION})})


def read_ready_request(message: Message) -> None:
    """Check a question whether a silo could take part.

    Raises:
        ProtocolError: When it is something else; it names no window, since no key is made for it.
    """
    _head(message, {"version": int})
    if _window(message) is not None:
        raise ProtocolError("a question whether a silo is ready names a window")


def join_request(window: Window | None = None, name: str = "") -> RecordDict:
    """Ask a silo to take part and to reserve what that costs, and for keys for a first window."""
    return _with_window(RecordDict({_HEAD: ConfigRecord({"version": VERSION, "name": name})}), window)


def read_join_request(message: Message) -> JoinRequest:
    """Decode a request to join."""
    name = str(_head(message, {"version": int, "name": str})["name"])
    if name and (not RUN_NAME.fullmatch(name) or name.isdecimal()):
        raise ProtocolError(
            "a run's name is up to 100 small letters, figures and hyphens, and no number: runs have one"
        )
    return JoinRequest(_window(message), name)


def join_reply(reply: JoinReply) -> RecordDict:
    """Encode a silo's answer to a request to join."""
    head = ConfigRecord({"silo": reply.silo, "plan": event_to_json(reply.plan)})
    return RecordDict({_HEAD: head, **_blobs(advert=reply.advert, head=reply.head)})


def read_join_reply(message: Message) -> JoinReply:
    """Decode a silo's answer to a request to join."""
    _check_holds(message, _HEAD, _MESSAGES)
    head = _head(message, {"silo": str, "plan": str})
    blobs = _read_blobs(message, "advert", "head")
    return JoinReply(str(head["silo"]), event_from_json(str(head["plan"])), blobs["advert"], blobs["head"])


def advert_request(window: Window) -> RecordDict:
    """Ask a silo for keys for a window."""
    return _with_window(ready_request(), window)


def read_advert_request(message: Message) -> Window:
    """Decode a request for keys."""
    _head(message, {"version": int})
    window = _window(message)
    if window is None:
        raise ProtocolError("a request for keys names no window")
    return window


def share_request(adverts: Sequence[bytes]) -> RecordDict:
    """Send a cohort's ADVERTs to one of it."""
    return RecordDict({_HEAD: ConfigRecord({"version": VERSION}), **_blobs(adverts=join_messages(adverts))})


def read_share_request(message: Message) -> list[bytes]:
    """Decode a cohort's ADVERTs."""
    _head(message, {"version": int})
    return split_messages(_read_blobs(message, "adverts")["adverts"])


def protocol_reply(messages: Sequence[bytes]) -> RecordDict:
    """Encode a silo's ADVERT, SHAREs or COMMIT."""
    return RecordDict(_blobs(messages=join_messages(messages)))


def read_protocol_reply(message: Message) -> list[bytes]:
    """Decode a silo's ADVERT, SHAREs or COMMIT."""
    _check_holds(message, _MESSAGES)
    return split_messages(_read_blobs(message, "messages")["messages"])


def train_request(request: TrainRequest) -> RecordDict:
    """Encode a request to train."""
    return next(iter(train_requests(request, {"": request}).values()))


def train_requests(request: TrainRequest, own: Mapping[str, TrainRequest]) -> dict[str, RecordDict]:
    """Encode requests to several silos, which differ in `shares` and `known` alone and so hold one array together."""
    arrays, contents = _array(request.model_P), {}
    for silo, each in own.items():
        head = ConfigRecord({"version": VERSION, "round": each.round_number, "job": each.job})
        blobs = _blobs(shares=join_messages(each.shares), known=each.known, lineage=each.lineage)
        contents[silo] = RecordDict({_HEAD: head, _ARRAYS: arrays, **blobs})
    return contents


def read_train_request(message: Message) -> TrainRequest:
    """Decode a request to train, or to do another job; whether there is one of that name is for the silo to say."""
    head = _head(message, {"version": int, "round": int, "job": str})
    blobs = _read_blobs(message, "shares", "known", "lineage")
    if len(blobs["lineage"]) not in (0, LINEAGE_SIZE):
        raise ProtocolError("a lineage is a hash, or is not there")
    shares = tuple(split_messages(blobs["shares"]))
    vector_P, job = _real_vector(message), str(head["job"])
    if not _JOB.fullmatch(job):
        raise ProtocolError("what names a round's job is no name of one")
    return TrainRequest(_round(head), vector_P, shares, blobs["known"], blobs["lineage"], job)


def job_of(message: Message) -> str:
    """Return the job that a request to train asks for, without its vector."""
    return str(_head(message, {"version": int, "round": int, "job": str})["job"])


def train_reply(reply: TrainReply) -> RecordDict:
    """Encode a silo's update."""
    content = _update(reply, _array(reply.update_P))
    content.update(_blobs(head=reply.head))
    return content


def read_train_reply(message: Message) -> TrainReply:
    """Decode a silo's update."""
    _check_holds(message, _HEAD, _ARRAYS, _MESSAGES)
    head = _head(message, {"round": int, "charged": str})
    ledger = _read_blobs(message, "head")["head"]
    return TrainReply(_round(head), event_from_json(str(head["charged"])), _real_vector(message), ledger)


def masked_reply(reply: MaskedReply) -> RecordDict:
    """Encode a silo's update in words of a ring."""
    packed = ring.pack(reply.ring_bits, reply.words_P)
    content = _update(reply, _raw_array(f"uint{reply.ring_bits}", len(reply.words_P), packed))
    content.update(_blobs(mask=reply.mask, head=reply.head))
    return content


def read_masked_reply(message: Message, ring_bits: RingBits) -> MaskedReply:
    """Decode a silo's update in words of a ring."""
    _check_holds(message, _HEAD, _ARRAYS, _MESSAGES)
    head = _head(message, {"round": int, "charged": str})
    blobs = _read_blobs(message, "mask", "head")
    words_P, charged = ring_vector(the_array(message), ring_bits), event_from_json(str(head["charged"]))
    return MaskedReply(_round(head), charged, words_P, blobs["mask"], blobs["head"], ring_bits=ring_bits)


def pack_update(reply: TrainReply | MaskedReply) -> bytes:
    """Return what of a reply is kept to be sent again: all but the ledger's head, which may have moved on."""
    name, words, mask = b"float32", b"", b""
    if isinstance(reply, TrainReply):
        words = reply.update_P.astype("<f4", copy=False).tobytes()
    else:
        name, words, mask = b"uint%d" % reply.ring_bits, ring.pack(reply.ring_bits, reply.words_P), reply.mask
    number, charged = reply.round_number.to_bytes(4, "big"), event_to_json(reply.charged).encode()
    parts = (number, charged, name, words, mask)
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def unpack_update(packed: bytes) -> TrainReply | MaskedReply:
    """Read back what `pack_update` returned.

    Raises:
        ProtocolError: When it is something else.
        LedgerError: When the event in it is none.
    """
    parts, place = [], 0
    while place < len(packed):
        size = int.from_bytes(packed[place : place + 8], "big")
        parts.append(packed[place + 8 : place + 8 + size])
        place += 8 + size
    if len(parts) != 5 or place != len(packed) or parts[2] not in {name.encode() for name in _RAW}:
        raise ProtocolError("what was kept is no update")
    number, charged = int.from_bytes(parts[0], "big"), event_from_json(parts[1].decode())
    if parts[2] == b"float32":
        return TrainReply(number, charged, np.frombuffer(parts[3], dtype="<f4"))
    bits = _BITS[parts[2].decode()]
    return MaskedReply(number, charged, ring.unpack(bits, parts[3]), parts[4], ring_bits=bits)


def survivors_request(request: SurvivorsRequest) -> RecordDict:
    """Encode a request to commit or to reveal."""
    head = ConfigRecord({"version": VERSION, "round": request.round_number, "attempt": request.attempt})
    blobs = _blobs(
        context=request.context,
        survivors=pack_numbers(request.survivors),
        commits=join_messages(request.commits),
    )
    return _with_window(RecordDict({_HEAD: head, **blobs}), request.window)


def read_survivors_request(message: Message) -> SurvivorsRequest:
    """Decode a request to commit or to reveal."""
    head = _head(message, {"version": int, "round": int, "attempt": int})
    blobs = _read_blobs(message, "context", "survivors", "commits")
    return SurvivorsRequest(
        _round(head),
        _whole(head["attempt"], 2**16 - 1),
        blobs["context"],
        read_numbers(blobs["survivors"], _MOST_SILOS),
        tuple(split_messages(blobs["commits"])),
        _window(message),
    )


def reveal_reply(reply: RevealReply) -> RecordDict:
    """Encode a silo's REVEAL."""
    return RecordDict(_blobs(reveal=reply.reveal, advert=reply.advert))


def read_reveal_reply(message: Message) -> RevealReply:
    """Decode a silo's REVEAL."""
    _check_holds(message, _MESSAGES)
    blobs = _read_blobs(message, "reveal", "advert")
    return RevealReply(blobs["reveal"], blobs["advert"])


def countersign_request(request: CountersignRequest) -> RecordDict:
    """Encode a request to countersign a run's end."""
    head = ConfigRecord({"version": VERSION})
    return RecordDict({_HEAD: head, **_blobs(model=request.model, known=request.known)})


def read_countersign_request(message: Message) -> CountersignRequest:
    """Decode a request to countersign a run's end."""
    _head(message, {"version": int})
    blobs = _read_blobs(message, "model", "known")
    if len(blobs["model"]) != _HASH_SIZE:
        raise ProtocolError(f"the hash of a model is {_HASH_SIZE} bytes")
    return CountersignRequest(blobs["model"], blobs["known"])


def countersign_reply(head: bytes) -> RecordDict:
    """Encode the head of a ledger in which a run has ended."""
    return RecordDict(_blobs(head=head))


def read_countersign_reply(message: Message) -> bytes:
    """Decode the head of a ledger in which a run has ended."""
    _check_holds(message, _MESSAGES)
    return _read_blobs(message, "head")["head"]


def refusal(code: str) -> Error:
    """Return what a silo sends instead of an answer: a code and nothing of the reason.

    Raises:
        ProtocolError: When the code is none of the error tree's, since free text could carry a record.
    """
    if code not in error_codes():
        raise ProtocolError("a refusal carries a code of the error tree, never free text")
    return Error(code=_REFUSED, reason=code)


def refusal_code(error: Error) -> str:
    """Return the code in an error reply; `LOST` for errors that are Flower's own, whatever text they bring."""
    if error.code == _REFUSED and error.reason in error_codes():
        return error.reason
    return LOST


def foreign_error(error: Error) -> str:
    """Return what an error that is Flower's own says by its number, in words of ours: no text that it brings.

    >>> foreign_error(Error(8, "crashed at Ada Lovelace"))
    "the process of the silo's app crashed"
    """
    return _FOREIGN.get(error.code, "none of the errors that it has names for")


def _check_holds(message: Message, *records: str) -> None:
    """Refuse an answer that holds another record than these, whatever is in it: an answer has no room for more."""
    if message.has_content() and not set(message.content) <= set(records):
        raise ProtocolError("an answer carries a record that answers of its kind do not have")


def _head(message: Message, expected: dict[str, type]) -> ConfigRecord:
    """Return the message's head with exactly the expected keys and types."""
    record = message.content.get(_HEAD) if message.has_content() else None
    if not isinstance(record, ConfigRecord):
        raise ProtocolError(f"a message has no {_HEAD!r} record")
    if "version" in expected and record.get("version") != VERSION:
        raise ProtocolError(
            f"a message of another version is not understood; this is version {VERSION}: install the same fedmodel at"
            " the server and at every silo"
        )
    if {key: type(value) for key, value in record.items()} != expected:
        raise ProtocolError(f"a message's head must hold exactly {sorted(expected)}")
    return record


def _update(reply: TrainReply | MaskedReply, arrays: ArrayRecord) -> RecordDict:
    head = ConfigRecord({"round": reply.round_number, "charged": event_to_json(reply.charged)})
    return RecordDict({_HEAD: head, _ARRAYS: arrays})


def _round(head: ConfigRecord) -> int:
    return _whole(head["round"], 1_000_000)


def _whole(number: object, most: int) -> int:
    if not isinstance(number, int) or not 1 <= number <= most:
        raise ProtocolError("a round's number, or an attempt's, is out of range")
    return number


def _with_window(content: RecordDict, window: Window | None) -> RecordDict:
    """Add a window to a message, if there is one."""
    if window is not None:
        fields: dict[str, int | str] = {
            "run": f"{window.run:x}",
            "first": window.first,
            "attempt": window.attempt,
            "count": window.count,
        }
        content[_WINDOW] = ConfigRecord({**fields})  # a run has 64 bits, and Flower's integers are signed
    return content


def _window(message: Message) -> Window | None:
    """Return the window that a message names, if it names one."""
    record = message.content.get(_WINDOW)
    if record is None:
        return None
    if not isinstance(record, ConfigRecord):
        raise ProtocolError("a message's window is no record")
    if {key: type(value) for key, value in record.items()} != {"run": str, "first": int, "attempt": int, "count": int}:
        raise ProtocolError("a message's window must hold run, first, attempt and count")
    run = str(record["run"])
    if not 1 <= len(run) <= 16 or set(run) - set("0123456789abcdef"):
        raise ProtocolError("a window's run is not 64 bits in hexadecimal")
    first, attempt, count = (_whole(record[key], 1_000_000) for key in ("first", "attempt", "count"))
    return Window(int(run, 16), first, attempt, count)


def _blobs(**named: bytes) -> dict[str, ArrayRecord | ConfigRecord | MetricRecord]:
    """Return a record of byte strings, without those that are empty: Flower does not carry them."""
    present = {name: blob for name, blob in named.items() if blob}
    return {_MESSAGES: ConfigRecord({**present})} if present else {}


def _read_blobs(message: Message, *names: str) -> dict[str, bytes]:
    """Return a message's byte strings by name, empty where they are not there."""
    record = message.content.get(_MESSAGES) if message.has_content() else None
    if record is None:
        return dict.fromkeys(names, b"")
    if not isinstance(record, ConfigRecord) or not set(record) <= set(names):
        raise ProtocolError("a message carries byte strings that its kind does not have")
    blobs = {name: record.get(name, b"") for name in names}
    if not all(isinstance(blob, bytes) for blob in blobs.values()):
        raise ProtocolError("a message's byte strings must be bytes")
    return {name: blob for name, blob in blobs.items() if isinstance(blob, bytes)}


def _array(vector_P: NDArray[np.float32]) -> ArrayRecord:
    return _raw_array("float32", len(vector_P), vector_P.astype("<f4", copy=False).tobytes())


def _raw_array(name: str, count: int, data: bytes) -> ArrayRecord:
    return ArrayRecord({"vector": Array(name, (count,), _RAW[name], data)})


def the_array(message: Message) -> Array:
    """Return the one array of a message, as it came.

    Raises:
        ProtocolError: When there is none, or more than one.
    """
    record = message.content.get(_ARRAYS) if message.has_content() else None
    if not isinstance(record, ArrayRecord) or set(record) != {"vector"}:
        raise ProtocolError("a message must hold one array, named 'vector'")
    return record["vector"]


def ring_of(array: Array) -> RingBits | None:
    """Return which ring an array says that its words are of, None where it says float32.

    Raises:
        ProtocolError: When it says neither.
    """
    if array.dtype == "float32":
        return None
    if array.dtype not in _BITS:
        raise ProtocolError("a vector is of float32, or of the words of a ring")
    return _BITS[array.dtype]


def ring_vector(array: Array, bits: RingBits) -> Words:
    """Return the words of a ring that an array holds, each of them as wide as the ring.

    Raises:
        ProtocolError: When they are of another ring, or no whole words of it.
    """
    words_P = ring.unpack(bits, array.data) if array.dtype == f"uint{bits}" else np.empty(0, dtype=np.uint8)
    _check_raw(array, f"uint{bits}", len(words_P))
    return words_P


def _real_vector(message: Message) -> NDArray[np.float32]:
    """Return the one flat, finite float32 array of a message."""
    array = the_array(message)
    count, rest = divmod(len(array.data), 4)
    _check_raw(array, "float32", -1 if rest else count)
    vector_P = np.frombuffer(array.data, dtype="<f4").astype(np.float32)
    if not np.isfinite(vector_P).all():
        raise ProtocolError("a vector must be finite")
    return vector_P


def _check_raw(array: Array, name: str, count: int) -> None:
    """Refuse an array that is not so many raw words. Nothing is parsed: words are words."""
    if array.stype != _RAW[name] or array.dtype != name or tuple(array.shape) != (count,):
        raise ProtocolError(f"a vector must be flat {name} in whole raw little-endian words")
