"""Messages carry exactly what the protocol says, and bytes from the other side are checked before they are believed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from hypothesis import given
from hypothesis import strategies as st

from fedmodel import errors, wire
from fedmodel.crypto import PostQuantumKey, SigningKey, digest_words
from fedmodel.crypto.postquantum import post_quantum_hash
from fedmodel.errors import CryptoError, LedgerError, PolicyRefused, ProtocolError
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.secagg import Window
from fedmodel.secagg.ring import WIDTHS, RingBits, carrier
from fedmodel.wire.messages import the_array

EVENT = DpSgdEvent(1.1, 0.5, 0.01, 3, denominator=64)
VECTOR = np.arange(5, dtype=np.float32)
WINDOW = Window(2**64 - 1, 3, 2, 4)
MESSAGE = b"FMSA" + bytes(24) + (5).to_bytes(4, "big") + b"-body" + bytes(64)


def message(content: RecordDict | None = None, error: Error | None = None, kind: str = "train") -> Message:
    metadata = Metadata(1, "m", 1, 2, "", "", 0.0, 60.0, kind)
    return Message(metadata=metadata, content=content, error=error)  # type: ignore[call-overload, no-any-return]


def test_messages_go_there_and_back() -> None:
    wire.read_ready_request(message(wire.ready_request()))
    for asked in (wire.JoinRequest(), wire.JoinRequest(WINDOW), wire.JoinRequest(WINDOW, "a-run-20300101-1")):
        assert wire.read_join_request(message(wire.join_request(asked.window, asked.name))) == asked
    for joined in (
        wire.JoinReply("north", EVENT),
        wire.JoinReply("north", EVENT, MESSAGE),
        wire.JoinReply("north", EVENT, MESSAGE, b"a head"),
        wire.JoinReply("north", EVENT, head=b"a head"),
    ):
        assert wire.read_join_reply(message(wire.join_reply(joined))) == joined
    for known in (b"", b"a head"):
        request = wire.read_train_request(message(wire.train_request(wire.TrainRequest(3, VECTOR, known=known))))
        assert (request.round_number, request.model_P.tolist(), request.known) == (3, VECTOR.tolist(), known)
        reply = wire.read_train_reply(message(wire.train_reply(wire.TrainReply(3, EVENT, VECTOR, known))))
        found = (reply.round_number, reply.charged, reply.update_P.tolist(), reply.head)
        assert found == (3, EVENT, VECTOR.tolist(), known)


def test_messages_of_secure_aggregation_go_there_and_back() -> None:
    assert wire.read_advert_request(message(wire.advert_request(WINDOW))) == WINDOW
    assert wire.read_share_request(message(wire.share_request([MESSAGE, MESSAGE]))) == [MESSAGE, MESSAGE]
    assert wire.read_protocol_reply(message(wire.protocol_reply([MESSAGE]))) == [MESSAGE]
    for lineage in (b"", bytes(range(32))):
        request = wire.TrainRequest(3, VECTOR, (MESSAGE, MESSAGE), lineage=lineage)
        read = wire.read_train_request(message(wire.train_request(request)))
        assert (read.shares, read.lineage) == (request.shares, lineage)
    asked = wire.SurvivorsRequest(3, 2, bytes(range(32)), (1, 3, 4), (MESSAGE, MESSAGE), WINDOW)
    assert wire.read_survivors_request(message(wire.survivors_request(asked))) == asked
    bare = wire.SurvivorsRequest(3, 2, bytes(32), (1, 3, 4))
    assert wire.read_survivors_request(message(wire.survivors_request(bare))) == bare
    revealed = wire.RevealReply(MESSAGE, MESSAGE)
    assert wire.read_reveal_reply(message(wire.reveal_reply(revealed))) == revealed


@pytest.mark.parametrize("bits", WIDTHS)
def test_masked_words_go_there_and_back_as_wide_as_the_ring_and_not_as_another(bits: RingBits) -> None:
    words_P = np.array([0, 1, 2**bits - 1], dtype=carrier(bits))
    content = wire.masked_reply(wire.MaskedReply(3, EVENT, words_P, MESSAGE, b"a head", ring_bits=bits))
    assert len(the_array(message(content)).data) == {8: 3, 12: 5, 16: 6, 24: 9, 32: 12}[bits]
    reply = wire.read_masked_reply(message(content), bits)
    assert (reply.words_P.tolist(), reply.words_P.dtype, reply.mask) == (words_P.tolist(), words_P.dtype, MESSAGE)
    assert reply.head == b"a head"
    for other in set(WIDTHS) - {bits}:
        with pytest.raises(ProtocolError, match="whole raw little-endian"):
            wire.read_masked_reply(message(content), other)
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
        wire.read_advert_request(message(wire.ready_request()))
    with pytest.raises(ProtocolError, match="whether a silo is ready names a window"):
        wire.read_ready_request(message(wire.advert_request(WINDOW)))


@pytest.mark.parametrize("name", ["A", "a b", "-a", "a" * 101, "a\n", "\u00e4", "1234567890/", "4711"])
def test_a_run_is_called_by_small_letters_figures_and_hyphens(name: str) -> None:
    with pytest.raises(ProtocolError, match="a run's name is"):
        wire.read_join_request(message(wire.join_request(WINDOW, name)))


@pytest.mark.parametrize("blobs", [{"other": b"x"}, {"messages": "words"}, {"messages": b"cut short"}, {"messages": 1}])
def test_byte_strings_that_do_not_belong_are_refused(blobs: dict[str, bytes | str | int]) -> None:
    content = RecordDict({"fedmodel.messages": ConfigRecord({**blobs})})
    with pytest.raises(ProtocolError):
        wire.read_protocol_reply(message(content))


@pytest.mark.parametrize("size", [1, 31, 33])
def test_a_lineage_is_a_hash_or_is_not_there(size: int) -> None:
    with pytest.raises(ProtocolError, match="a lineage"):
        wire.read_train_request(message(wire.train_request(wire.TrainRequest(3, VECTOR, lineage=bytes(size)))))


def test_a_model_is_one_flat_array_on_the_wire() -> None:
    content = wire.train_request(wire.TrainRequest(1, VECTOR))
    arrays = [array for record in content.array_records.values() for array in record.values()]
    assert [(array.dtype, array.shape) for array in arrays] == [("float32", (5,))]


def test_an_update_has_no_room_for_a_training_metric() -> None:
    content = wire.train_reply(wire.TrainReply(1, EVENT, VECTOR, b"a head"))
    assert content.metric_records == {}
    assert {key for record in content.config_records.values() for key in record} == {"round", "charged", "head"}
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


GOOD_HEAD: dict[str, object] = {"version": wire.VERSION, "round": 1, "job": "training"}


def test_a_well_formed_request_is_read() -> None:
    assert wire.read_train_request(_train(GOOD_HEAD, words(VECTOR))).model_P.tolist() == VECTOR.tolist()


@pytest.mark.parametrize(
    ("head", "array"),
    [
        ({**GOOD_HEAD, "version": wire.VERSION - 1}, words(VECTOR)),
        ({**GOOD_HEAD, "version": wire.VERSION + 1}, words(VECTOR)),
        ({"round": 1, "job": "training"}, words(VECTOR)),
        ({"version": wire.VERSION, "round": 1}, words(VECTOR)),
        ({**GOOD_HEAD, "job": b"training"}, words(VECTOR)),
        ({**GOOD_HEAD, "job": "Training"}, words(VECTOR)),
        ({**GOOD_HEAD, "job": "a\nb"}, words(VECTOR)),
        ({**GOOD_HEAD, "job": "a" * 41}, words(VECTOR)),
        ({**GOOD_HEAD, "round": "1"}, words(VECTOR)),
        ({**GOOD_HEAD, "round": 0}, words(VECTOR)),
        ({**GOOD_HEAD, "round": True}, words(VECTOR)),
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


def test_a_request_names_its_job() -> None:
    request = wire.TrainRequest(3, VECTOR, job="label-counts")
    assert wire.read_train_request(message(wire.train_request(request))).job == "label-counts"


def test_a_peer_of_another_version_is_refused_in_a_line_that_says_what_to_do() -> None:
    """Version 5 named no job; what it sent is the same but for that."""
    with pytest.raises(ProtocolError, match="this is version 7: install the same fedmodel at the server and at every"):
        wire.read_train_request(_train({"version": 5, "round": 1}, words(VECTOR)))


RUN = 2**64 - 1
SCENARIO = bytes(range(32))
SERVER = SigningKey(bytes(range(32)))
OTHER = SigningKey(bytes(range(1, 33)))


def _asked() -> RecordDict:
    """A question with every kind of record that one can have."""
    content = wire.train_request(wire.TrainRequest(3, VECTOR, (MESSAGE,), b"a head"))
    content["fedmodel.window"] = wire.advert_request(WINDOW)["fedmodel.window"]
    return content


def _check(
    content: RecordDict,
    kind: str = wire.TRAIN,
    run: int = RUN,
    scenario: bytes = SCENARIO,
    servers: Sequence[SigningKey] = (SERVER,),
) -> None:
    wire.check_signature(message(content, kind=kind), run, scenario, [server.public.hex() for server in servers])


def _signed(content: RecordDict, change: Callable[[RecordDict], object] = lambda _: None) -> RecordDict:
    """Return a signed question that a carrier changed, without being able to sign it again."""
    signed = wire.sign_request(content, wire.TRAIN, RUN, SCENARIO, SERVER)
    record = signed["fedmodel.signed"]
    carried = copy.deepcopy(RecordDict({name: value for name, value in signed.items() if name != "fedmodel.signed"}))
    change(carried)
    return RecordDict({**carried, "fedmodel.signed": record})


def test_what_the_server_signed_is_answered() -> None:
    _check(_signed(_asked()))
    _check(_signed(_asked()), servers=(OTHER, SERVER))
    for content, kind in (
        (RecordDict(), wire.JOIN),
        (wire.join_request(WINDOW), wire.JOIN),
        (wire.share_request([MESSAGE]), wire.SHARE),
        (wire.survivors_request(wire.SurvivorsRequest(3, 2, bytes(32), (1, 3), (MESSAGE,), WINDOW)), wire.REVEAL),
    ):
        _check(wire.sign_request(content, kind, RUN, SCENARIO, SERVER), kind)
        _check(wire.sign_request(content, kind, 0, SCENARIO, SERVER), kind, 0)


LATTICE, OTHER_LATTICE = PostQuantumKey(bytes(range(32))), PostQuantumKey(bytes(range(1, 33)))


@pytest.mark.parametrize(
    ("signer", "known", "error"),
    [
        (LATTICE, (), None),
        (LATTICE, (LATTICE,), None),
        (LATTICE, (OTHER_LATTICE, LATTICE), None),
        (None, (LATTICE,), PolicyRefused),
        (OTHER_LATTICE, (LATTICE,), PolicyRefused),
    ],
)
def test_a_law_that_names_lattice_keys_asks_for_both_signatures(
    signer: PostQuantumKey | None, known: Sequence[PostQuantumKey], error: type[Exception] | None
) -> None:
    signed = wire.sign_request(_asked(), wire.TRAIN, RUN, SCENARIO, SERVER, signer)
    hashes = [post_quantum_hash(key.public) for key in known]
    asked = (message(signed, kind=wire.TRAIN), RUN, SCENARIO, [SERVER.public.hex()], hashes)
    if error is None:
        wire.check_signature(*asked)
    else:
        with pytest.raises(error):
            wire.check_signature(*asked)


@pytest.mark.parametrize("broken", ["signature", "mldsa65-signature", "mldsa65"])
def test_neither_signature_stands_for_the_other(broken: str) -> None:
    """Whoever breaks one of the two schemes makes that signature, and the other not."""
    signed = wire.sign_request(_asked(), wire.TRAIN, RUN, SCENARIO, SERVER, LATTICE)
    record = signed["fedmodel.signed"]
    assert isinstance(record, ConfigRecord)
    value = record[broken]
    assert isinstance(value, bytes)
    record[broken] = value[:-1] + bytes([value[-1] ^ 1])
    with pytest.raises((CryptoError, PolicyRefused)):
        wire.check_signature(
            message(signed, kind=wire.TRAIN), RUN, SCENARIO, [SERVER.public.hex()], [post_quantum_hash(LATTICE.public)]
        )


def _set(record: str, key: str, value: Any) -> Callable[[RecordDict], object]:
    return lambda content: content[record].__setitem__(key, value)


def _vector(**changed: Any) -> Callable[[RecordDict], object]:
    """Put an array into the question that differs from the one that was signed in one field."""
    fields = {"dtype": "float32", "shape": (5,), "stype": "fedmodel/v1/f32le", "data": VECTOR.tobytes()}
    return _set("fedmodel.arrays", "vector", Array(**{**fields, **changed}))


def _renamed(content: RecordDict, record: str, name: str) -> None:
    content[name] = content.pop(record)


def _moved(content: RecordDict, old: str, new: str) -> None:
    blobs = content.config_records["fedmodel.messages"]
    blobs[new] = blobs.pop(old)


def _swapped(content: RecordDict) -> None:
    _moved(content, "known", "other")
    _moved(content, "shares", "known")
    _moved(content, "other", "shares")


_CHANGES: dict[str, Callable[[RecordDict], object]] = {
    "a number": _set("fedmodel", "round", 4),
    "the job": _set("fedmodel", "job", "label-counts"),
    "a number's sign": _set("fedmodel", "round", -3),
    "a number as a float": _set("fedmodel", "round", 3.0),
    "a number as a word": _set("fedmodel", "round", "3"),
    "a number as a list": _set("fedmodel", "round", [3]),
    "a word": _set("fedmodel.window", "run", "fffffffffffffffe"),
    "a word as bytes": _set("fedmodel.window", "run", b"ffffffffffffffff"),
    "a word with its quotes": _set("fedmodel.window", "run", repr("ffffffffffffffff")),
    "a byte more": _set("fedmodel.messages", "known", b"a head\0"),
    "a byte less": _set("fedmodel.messages", "known", b"a hea"),
    "bytes as a word": _set("fedmodel.messages", "known", "a head"),
    "bytes as their writing": _set("fedmodel.messages", "known", repr(b"a head").encode()),
    "a key more": _set("fedmodel", "extra", 1),
    "a key less": lambda content: content["fedmodel"].pop("round"),
    "a key renamed": lambda content: _moved(content, "known", "shared"),
    "two keys swapped": _swapped,
    "a record more": lambda content: content.__setitem__("extra", ConfigRecord({})),
    "a record less": lambda content: content.pop("fedmodel.window"),
    "a record emptied": lambda content: content.__setitem__("fedmodel.window", ConfigRecord({})),
    "a record renamed": lambda content: _renamed(content, "fedmodel.window", "fedmodel.windows"),
    "a record of another kind": lambda content: content.__setitem__(
        "fedmodel", MetricRecord({"version": 3, "round": 3})
    ),
    "the array renamed": lambda content: content.__setitem__(
        "fedmodel.arrays", ArrayRecord({"vectors": words(VECTOR)})
    ),
    "another array beside it": _set("fedmodel.arrays", "more", words(VECTOR)),
    "no array": lambda content: content.__setitem__("fedmodel.arrays", ArrayRecord()),
    "the array's dtype": _vector(dtype="uint32"),
    "the array's shape": _vector(shape=(1, 5)),
    "the array's shape as another's": _vector(shape=(6,)),
    "the array's stype": _vector(stype="fedmodel/v1/u32le"),
    "the array's data": _vector(data=VECTOR[::-1].tobytes()),
    "the array's data cut": _vector(data=VECTOR.tobytes()[:-1]),
    "the array's data longer": _vector(data=VECTOR.tobytes() + bytes(1)),
}  # fmt: skip


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_a_question_changed_in_any_part_is_refused(change: Callable[[RecordDict], object]) -> None:
    with pytest.raises(CryptoError, match="does not verify"):
        _check(_signed(_asked(), change))


@pytest.mark.parametrize("place", range(4 * len(VECTOR)))
def test_a_model_changed_in_any_byte_is_refused(place: int) -> None:
    data = bytearray(VECTOR.tobytes())
    data[place] ^= 1
    with pytest.raises(CryptoError, match="does not verify"):
        _check(_signed(_asked(), _vector(data=bytes(data))))


@pytest.mark.parametrize(
    "kind", [wire.JOIN, wire.ADVERT, wire.SHARE, wire.COMMIT, wire.REVEAL, "train.default", "evaluate"]
)
def test_a_question_of_one_kind_is_none_of_another(kind: str) -> None:
    with pytest.raises(CryptoError, match="does not verify"):
        _check(_signed(_asked()), kind)


@pytest.mark.parametrize("run", [0, 1, 2**63, RUN - 1])
def test_a_question_of_one_run_is_none_of_another(run: int) -> None:
    with pytest.raises(CryptoError, match="does not verify"):
        _check(_signed(_asked()), run=run)


@pytest.mark.parametrize("scenario", [bytes(32), SCENARIO[:-1] + bytes(1), SCENARIO[:-1], b""])
def test_a_question_about_one_scenario_is_none_about_another(scenario: bytes) -> None:
    with pytest.raises(CryptoError, match="does not verify"):
        _check(_signed(_asked()), scenario=scenario)


_NAMES = st.sampled_from(["a", "ab", "b", "int", "ConfigRecord"])
_ONE = st.one_of(st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, 1.0, 2.0]), st.sampled_from(["", "a", "1"]),
                 st.sampled_from([b"", b"a", b"1"]))  # fmt: skip
_VALUES = st.one_of(
    _ONE, st.lists(st.integers(0, 2), max_size=2), st.lists(st.sampled_from(["a", "a', 'a"]), max_size=2)
)
_CONTENTS = st.dictionaries(_NAMES, st.dictionaries(_NAMES, _VALUES, max_size=2), max_size=2)


def _records(content: dict[str, dict[str, Any]]) -> RecordDict:
    return RecordDict({name: ConfigRecord(record) for name, record in content.items()})


@given(asked=_CONTENTS, carried=_CONTENTS)
def test_no_two_questions_share_a_signature(
    asked: dict[str, dict[str, Any]], carried: dict[str, dict[str, Any]]
) -> None:
    signed = wire.sign_request(_records(asked), wire.TRAIN, RUN, SCENARIO, SERVER)
    _check(signed)
    content = RecordDict({**_records(carried), "fedmodel.signed": signed["fedmodel.signed"]})
    # Python holds 1, 1.0 and True for one; their writing does not. The order of keys is nobody's.
    if repr([(name, sorted(record.items())) for name, record in sorted(asked.items())]) == repr(
        [(name, sorted(record.items())) for name, record in sorted(carried.items())]
    ):
        _check(content)
        return
    with pytest.raises(CryptoError, match="does not verify"):
        _check(content)


_DATA_HASH = digest_words(b"fedmodel/v1/request-array", b"data")


@pytest.mark.parametrize(
    ("asked", "carried"),
    [
        # One after the other, the parts of both are the same bytes.
        (
            {"a": ConfigRecord({"a": b"1bbytes2", "b": b""})},
            {"a": ConfigRecord({"a": b"1", "b": b"2bbytes"})},
        ),
        # And these have the same parts, were it not said how many are a record's.
        (
            {"a": ArrayRecord({"b": Array("ConfigRecord", (5,), "bytes", b"data")})},
            {"a": ArrayRecord(), "b": ConfigRecord({"5": _DATA_HASH})},
        ),
        ({"a": ConfigRecord({"a": "1"})}, {"a": ConfigRecord({"a": b"'1'"})}),
        ({"a": ConfigRecord({"a": "1"})}, {"a": ConfigRecord({"a": b"1"})}),
        ({"a": ConfigRecord({"a": [b"1"]})}, {"a": ConfigRecord({"a": ["1"]})}),
        ({"a": ConfigRecord({"a": ["1", "2"]})}, {"a": ConfigRecord({"a": ["1', '2"]})}),
        ({"a": ConfigRecord({"a": []})}, {"a": ConfigRecord({"a": "[]"})}),
    ],
)
def test_what_lies_in_one_part_of_a_question_does_not_run_into_another(
    asked: dict[str, ConfigRecord | ArrayRecord], carried: dict[str, ConfigRecord | ArrayRecord]
) -> None:
    for first, second in ((asked, carried), (carried, asked)):
        signed = wire.sign_request(RecordDict({**first}), wire.TRAIN, RUN, SCENARIO, SERVER)
        _check(signed)
        with pytest.raises(CryptoError, match="does not verify"):
            _check(RecordDict({**second, "fedmodel.signed": signed["fedmodel.signed"]}))


@pytest.mark.parametrize(
    "record",
    [
        None,
        ConfigRecord({}),
        ConfigRecord({"key": SERVER.public}),
        ConfigRecord({"signature": bytes(64)}),
        ConfigRecord({"key": SERVER.public.hex(), "signature": bytes(64)}),
        ConfigRecord({"key": SERVER.public, "signature": "words"}),
        MetricRecord({"key": 1, "signature": 1}),
        ArrayRecord({"key": words(VECTOR), "signature": words(VECTOR)}),
    ],
)
def test_a_question_without_a_signature_is_refused(record: ConfigRecord | MetricRecord | ArrayRecord | None) -> None:
    content = _asked()
    if record is not None:
        content["fedmodel.signed"] = record
    with pytest.raises(PolicyRefused, match="without a server's signature"):
        _check(content)
    with pytest.raises(PolicyRefused, match="without a server's signature"):
        wire.check_signature(message(error=Error(1, "")), RUN, SCENARIO, [SERVER.public.hex()])


def test_a_question_by_a_key_that_the_law_does_not_name_is_refused() -> None:
    foreign = wire.sign_request(_asked(), wire.TRAIN, RUN, SCENARIO, OTHER)
    for servers in ((SERVER,), ()):
        with pytest.raises(PolicyRefused, match=OTHER.public.hex()[:16]):
            _check(foreign, servers=servers)
    # Nor does it help to say that it was the other's.
    claimed = ConfigRecord({"key": SERVER.public, "signature": foreign.config_records["fedmodel.signed"]["signature"]})
    with pytest.raises(CryptoError, match="does not verify"):
        _check(RecordDict({**foreign, "fedmodel.signed": claimed}))


@pytest.mark.parametrize("change", ["flip", "cut", "longer", "empty"])
def test_a_signature_that_was_changed_is_refused(change: str) -> None:
    signed = _signed(_asked())
    signature = signed.config_records["fedmodel.signed"]["signature"]
    assert isinstance(signature, bytes)
    flipped = bytes([signature[0] ^ 1, *signature[1:]])
    changed = {"flip": flipped, "cut": signature[:-1], "longer": signature + b"\0", "empty": b""}[change]
    signed.config_records["fedmodel.signed"]["signature"] = changed
    with pytest.raises(CryptoError):
        _check(signed)


_UPDATES = [
    wire.TrainReply(3, EVENT, VECTOR),
    wire.TrainReply(1_000_000, EVENT, np.array([np.nan, -0.0, np.inf], dtype=np.float32)),
    wire.TrainReply(1, EVENT, np.zeros(0, dtype=np.float32)),
    *(
        wire.MaskedReply(3, EVENT, np.array([0, 1, 2**bits - 1], dtype=carrier(bits)), MESSAGE, ring_bits=bits)
        for bits in WIDTHS
    ),
    wire.MaskedReply(3, EVENT, np.array([7], dtype="<u4"), ring_bits=32),
]
_KEPT = pytest.mark.parametrize("update", _UPDATES, ids=lambda update: type(update).__name__)


@_KEPT
def test_an_update_that_was_kept_comes_back_as_it_was_but_for_the_head(
    update: wire.TrainReply | wire.MaskedReply,
) -> None:
    packed = wire.pack_update(update)
    assert wire.pack_update(replace(update, head=b"a head")) == packed
    found = wire.unpack_update(packed)
    assert type(found) is type(update)
    assert (found.round_number, found.charged, found.head) == (update.round_number, update.charged, b"")
    if isinstance(update, wire.TrainReply) and isinstance(found, wire.TrainReply):
        assert found.update_P.dtype == np.float32
        assert found.update_P.tobytes() == update.update_P.tobytes()
        assert wire.train_reply(found) == wire.train_reply(update)
    elif isinstance(update, wire.MaskedReply) and isinstance(found, wire.MaskedReply):
        assert found.words_P.dtype.itemsize == update.words_P.dtype.itemsize
        assert (found.words_P.tolist(), found.mask) == (update.words_P.tolist(), update.mask)
        assert wire.masked_reply(found) == wire.masked_reply(update)
    assert wire.pack_update(found) == packed


@_KEPT
def test_what_is_no_kept_update_is_refused(update: wire.TrainReply | wire.MaskedReply) -> None:
    packed = wire.pack_update(update)
    for size in range(len(packed)):
        with pytest.raises(ProtocolError, match="no update"):
            wire.unpack_update(packed[:size])
    for size in range(1, 40):
        for byte in (b"\0", b"\x01", b"\xff"):
            with pytest.raises(ProtocolError, match="no update"):
                wire.unpack_update(packed + byte * size)
    with pytest.raises(ProtocolError, match="no update"):
        wire.unpack_update(packed + packed)
    (name,) = (name for name in (b"float32", *(b"uint%d" % bits for bits in WIDTHS)) if name in packed)
    with pytest.raises(ProtocolError, match="no update"):
        wire.unpack_update(packed.replace(name, b"f" * len(name)))


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
    assert "Ada" not in wire.foreign_error(error)


def test_every_error_of_flowers_has_words_of_ours() -> None:
    codes = [code for name, code in vars(ErrorCode).items() if name.isupper()]
    assert codes
    told = [wire.foreign_error(Error(code)) for code in codes]
    assert len(set(told)) == len(told)
    assert wire.foreign_error(Error(1000)) not in told


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    kinds.remove(errors.DataError)  # on purpose: a bad record must look like any other failure
    assert errors.DataError.code == errors.FedmodelError.code
    assert len({kind.code for kind in kinds}) == len(kinds) == len(errors.error_codes())
