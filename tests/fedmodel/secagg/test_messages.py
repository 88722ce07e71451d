"""Each message has one encoding, of fixed offsets, and whatever is not it is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmodel.crypto import SIGNATURE_SIZE, SigningKey, Suite
from fedmodel.errors import AggregationRefused, ProtocolError, Rule
from fedmodel.secagg import Window, join_messages, messages, pack_numbers, read_numbers, split_messages
from fedmodel.secagg.keys import MASK_KEY_SIZE, OFFER_SIZE
from fedmodel.secagg.messages import (
    HEADER_SIZE,
    Advert,
    Commit,
    Kind,
    Mask,
    MessageScope,
    Reveal,
    Secret,
    Share,
    sender_of,
    survivors_digest,
    words_digest,
)
from fedmodel.secagg.ring import WIDTHS, carrier
from fedmodel.secagg.shamir import PRIME
from tests.fedmodel.secagg.peers import RUN, SUITES, Federation, refusal, words_of

FEDERATIONS = {suite: Federation(5, suite=suite) for suite in SUITES}
KINDS = (Advert, Share, Mask, Commit, Reveal)
EACH = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
LABELS = {Advert: Kind.ADVERT, Share: Kind.SHARE, Mask: Kind.MASK, Commit: Kind.COMMIT, Reveal: Kind.REVEAL}


def place_of(
    suite: Suite = Suite.CLASSIC, run: int = RUN, number: int = 1, attempt: int = 1, count: int = 2
) -> MessageScope:
    return MessageScope(FEDERATIONS[suite].setting(Window(run, number, attempt, count)), number)


def message_of(kind: type, suite: Suite = Suite.CLASSIC):
    """Return a message of silo 2, every field of it told apart by its bytes."""
    size = MASK_KEY_SIZE[suite]
    return {
        Advert: Advert(2, b"t" * size, b"n" * 32, (b"k" * size, b"l" * size), (b"c" * 32, b"d" * 32)),
        Share: Share(2, b"u" * 32, 3, b"e" * 150, (b"o" * 1168,) * 2 if OFFER_SIZE[suite] else ()),
        Mask: Mask(2, b"x" * 32, b"h" * 32, (1, 3, 5)),
        Commit: Commit(2, b"x" * 32, b"s" * 32),
        Reveal: Reveal(2, b"x" * 32, b"s" * 32, {1: (Secret.B, 7), 4: (Secret.ROOT, PRIME - 1)}),
    }[kind]


def signed(kind: type, suite: Suite = Suite.CLASSIC) -> bytes:
    return message_of(kind, suite).sign(place_of(suite), FEDERATIONS[suite].identities[2])


def resigned(kind: type, body: bytes, sender: int = 2, suite: Suite = Suite.CLASSIC) -> bytes:
    """Return a body of one's choice under the sender's own signature: what a hostile silo can send."""
    return place_of(suite).seal(LABELS[kind], sender, body, FEDERATIONS[suite].identities[sender])


@EACH
@pytest.mark.parametrize("suite", SUITES)
def test_a_message_is_read_as_it_was_written(kind: type, suite: Suite) -> None:
    data = signed(kind, suite)
    read = kind.read(data, place_of(suite))
    assert read == message_of(kind, suite)
    assert read.sign(place_of(suite), FEDERATIONS[suite].identities[2]) == data
    assert sender_of(data) == 2


@pytest.mark.parametrize("suite", SUITES)
def test_lengths_of_messages(suite: Suite) -> None:
    key, offer = MASK_KEY_SIZE[suite], 2 * OFFER_SIZE[suite]
    frame = 32 + 64
    assert (key, OFFER_SIZE[suite]) == {Suite.CLASSIC: (32, 0), Suite.POST_QUANTUM: (1216, 1168)}[suite]
    assert len(signed(Advert, suite)) == frame + 32 + key + 32 + 2 * (key + 32)
    assert len(signed(Share, suite)) == frame + 32 + 4 + 4 + 150 + offer
    assert len(signed(Mask, suite)) == frame + 32 + 32 + 4 + 3 * 4
    assert len(signed(Commit, suite)) == frame + 64
    assert len(signed(Reveal, suite)) == frame + 64 + 4 + 2 * (4 + 1 + 32)


@EACH
def test_the_header_is_at_fixed_offsets(kind: type) -> None:
    suite = Suite.POST_QUANTUM
    federation = FEDERATIONS[suite]
    place = place_of(suite, run=0x0102030405060708, number=0x11121314, attempt=0x2122)
    data = message_of(kind, suite).sign(place, federation.identities[2])
    header = data[:HEADER_SIZE]
    fields = {
        (0, 4): b"FMSA",
        (4, 5): b"\x01",
        (5, 6): bytes([{Advert: 1, Share: 2, Mask: 3, Commit: 4, Reveal: 5}[kind]]),
        (6, 7): b"\x02",
        (7, 8): b"\x20",
        (8, 16): bytes([1, 2, 3, 4, 5, 6, 7, 8]),
        (16, 20): bytes([0x11, 0x12, 0x13, 0x14]),
        (20, 22): bytes([0x21, 0x22]),
        (22, 24): b"\0\0",
        (24, 28): b"\0\0\0\x02",
        (28, 32): struct.pack(">I", len(data) - 96),
    }
    assert HEADER_SIZE == 32
    for (start, end), value in fields.items():
        assert header[start:end] == value, start


def test_bodies_are_at_fixed_offsets() -> None:
    """The specification's table of bodies, byte by byte; every offset from the header's end."""
    place = place_of()
    bodies = {kind: signed(kind)[32:-64] for kind in KINDS}
    rounds = b"k" * 32 + b"c" * 32 + b"l" * 32 + b"d" * 32
    assert bodies[Advert] == place.setting.base + b"t" * 32 + b"n" * 32 + rounds
    assert bodies[Share] == b"u" * 32 + struct.pack(">II", 3, 150) + b"e" * 150
    assert bodies[Mask] == b"x" * 32 + b"h" * 32 + struct.pack(">4I", 3, 1, 3, 5)
    assert bodies[Commit] == b"x" * 32 + b"s" * 32
    rows = struct.pack(">IB", 1, 1) + bytes(31) + b"\7" + struct.pack(">IB", 4, 2) + (PRIME - 1).to_bytes(32, "big")
    assert bodies[Reveal] == b"x" * 32 + b"s" * 32 + struct.pack(">I", 2) + rows


@EACH
@pytest.mark.parametrize("suite", SUITES)
def test_every_flipped_byte_is_refused(kind: type, suite: Suite) -> None:
    """All of a short message; of the post-quantum keys and offers, which nothing reads by parts, some."""
    data = signed(kind, suite)
    step = 1 if len(data) < 600 else 7
    places = [
        *range(HEADER_SIZE + 40),
        *range(HEADER_SIZE + 40, len(data) - 64, step),
        *range(len(data) - 64, len(data)),
    ]
    seen = set()
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        seen.add(refusal(kind.read, bytes(flipped), place_of(suite)))
    assert {Rule.MALFORMED, Rule.REPLAYED, Rule.UNKNOWN_SENDER, Rule.BAD_SIGNATURE} == seen


@EACH
def test_each_field_of_the_header_is_refused_by_its_rule(kind: type) -> None:
    data = signed(kind)
    rules = dict.fromkeys(range(8), Rule.MALFORMED)
    rules |= dict.fromkeys(range(8, 22), Rule.REPLAYED)
    rules |= dict.fromkeys((22, 23), Rule.MALFORMED)
    rules |= dict.fromkeys((24, 25, 26, 27), Rule.UNKNOWN_SENDER)
    rules |= dict.fromkeys((28, 29, 30, 31), Rule.MALFORMED)
    for place, rule in rules.items():
        changed = bytearray(data)
        changed[place] ^= 0x40
        assert refusal(kind.read, bytes(changed), place_of()) is rule, place


@EACH
def test_every_length_but_the_right_one_is_refused(kind: type) -> None:
    data = signed(kind)
    for size in range(len(data)):
        assert refusal(kind.read, data[:size], place_of()) is Rule.MALFORMED
    for more in (b"\0", data, bytes(64)):
        assert refusal(kind.read, data + more, place_of()) is Rule.MALFORMED


@EACH
@pytest.mark.parametrize("suite", SUITES)
def test_a_body_of_another_length_is_refused_even_if_signed(kind: type, suite: Suite) -> None:
    body = signed(kind, suite)[HEADER_SIZE:-64]
    for size in {*range(min(len(body), 100)), *range(max(0, len(body) - 100), len(body))}:
        assert refusal(kind.read, resigned(kind, body[:size], suite=suite), place_of(suite)) is Rule.MALFORMED
    for more in (b"\0", bytes(4), bytes(37), bytes(1168)):
        assert refusal(kind.read, resigned(kind, body + more, suite=suite), place_of(suite)) is Rule.MALFORMED


def test_a_message_past_the_largest_is_refused_unread() -> None:
    data = signed(Commit)
    size = 2**24 + 1
    huge = data[:28] + size.to_bytes(4, "big") + bytes(size + 64)
    assert refusal(sender_of, huge) is Rule.MALFORMED
    assert sender_of(huge[:-1]) == 2


@EACH
def test_signatures_are_bound_to_their_type(kind: type) -> None:
    """The same signed bytes under another type's label: what a COMMIT says is no MASK."""
    body = signed(kind)[HEADER_SIZE:-64]
    for other in Kind:
        if other is LABELS[kind]:
            continue
        place, identity = place_of(), FEDERATIONS[Suite.CLASSIC].identities[2]
        header = place.header(LABELS[kind], 2, len(body))
        forged = header + body + identity.sign(other.label, header + body)
        assert refusal(kind.read, forged, place) is Rule.BAD_SIGNATURE
        # Nor is it one with the other's type in the header.
        assert refusal(kind.read, place.seal(other, 2, body, identity), place) is Rule.MALFORMED


def test_labels_are_versioned_and_distinct() -> None:
    labels = {kind.label for kind in Kind}
    assert labels == {b"fedmodel/v1/sa-" + name for name in (b"advert", b"share", b"mask", b"commit", b"reveal")}


@EACH
def test_a_message_of_another_silo_is_refused(kind: type) -> None:
    """Signed by somebody of the roster, or by nobody of it, in another's name."""
    message, place = message_of(kind), place_of()
    assert refusal(kind.read, message.sign(place, SigningKey.generate()), place) is Rule.BAD_SIGNATURE
    assert (
        refusal(kind.read, message.sign(place, FEDERATIONS[Suite.CLASSIC].identities[3]), place) is Rule.BAD_SIGNATURE
    )
    for outside in (0, 6, 2**32 - 1):
        other = replace(message, sender=outside).sign(place, SigningKey.generate())
        assert refusal(kind.read, other, place) is Rule.UNKNOWN_SENDER


@EACH
@pytest.mark.parametrize("where", [{"run": RUN + 1}, {"number": 2}, {"attempt": 2}], ids=str)
def test_a_message_from_elsewhere_is_refused(kind: type, where: dict[str, int]) -> None:
    data = message_of(kind).sign(place_of(**where), FEDERATIONS[Suite.CLASSIC].identities[2])
    assert refusal(kind.read, data, place_of()) is Rule.REPLAYED


@pytest.mark.parametrize("numbers", [(), (1,), (1, 5), (1, 2, 3, 4, 5)])
def test_numbers_are_read_as_they_were_written(numbers: tuple[int, ...]) -> None:
    packed = pack_numbers(numbers)
    assert packed == struct.pack(f">{len(numbers) + 1}I", len(numbers), *numbers)
    assert read_numbers(packed, 5) == numbers


@pytest.mark.parametrize("numbers", [(0,), (6,), (1, 1), (2, 1), (1, 2, 3, 4, 5, 6), (0, 1), (2**32 - 1,)])
def test_numbers_that_do_not_ascend_in_the_roster_are_refused(numbers: tuple[int, ...]) -> None:
    assert refusal(read_numbers, pack_numbers(numbers), 5) is Rule.MALFORMED
    body = b"x" * 64 + pack_numbers(numbers)
    assert refusal(Mask.read, resigned(Mask, body), place_of()) is Rule.MALFORMED


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0", b"\0\0\0\1", b"\0\0\0\0\0", b"\xff" * 4, pack_numbers((1, 2))[:-1], pack_numbers((1,)) * 2]
)
def test_numbers_of_another_length_are_refused(data: bytes) -> None:
    assert refusal(read_numbers, data, 5) is Rule.MALFORMED


def row(dealer: int, kind: int, share: int) -> bytes:
    return struct.pack(">IB", dealer, kind) + share.to_bytes(32, "big")


@pytest.mark.parametrize(
    "rows",
    [
        [row(2, 1, 5), row(1, 1, 5)],
        [row(1, 1, 5), row(1, 2, 5)],
        [row(1, 1, 5), row(1, 1, 5)],
        [row(0, 1, 5)],
        [row(1, 0, 5)],
        [row(1, 3, 5)],
        [row(1, 1, PRIME)],
        [row(1, 2, 2**256 - 1)],
        [row(number, 1, 5) for number in range(1, 7)],
    ],
    ids=["order", "both secrets", "twice", "zero", "no secret", "third secret", "field", "top", "too many"],
)
def test_a_reveal_gives_one_share_a_dealer_in_the_field(rows: list[bytes]) -> None:
    body = b"x" * 64 + struct.pack(">I", len(rows)) + b"".join(rows)
    assert refusal(Reveal.read, resigned(Reveal, body), place_of()) is Rule.MALFORMED


@pytest.mark.parametrize("count", [0, 1, 3, 5, 6, 2**32 - 1])
def test_a_reveal_that_counts_wrongly_is_refused(count: int) -> None:
    body = b"x" * 64 + struct.pack(">I", count) + row(1, 1, 5) + row(2, 2, 5)
    assert refusal(Reveal.read, resigned(Reveal, body), place_of()) is Rule.MALFORMED


@pytest.mark.parametrize("length", [0, 149, 151, 2**32 - 1])
def test_an_envelope_of_another_length_is_refused(length: int) -> None:
    body = b"u" * 32 + struct.pack(">II", 3, length) + b"e" * 150
    assert refusal(Share.read, resigned(Share, body), place_of()) is Rule.MALFORMED


def test_an_advert_of_another_base_is_refused() -> None:
    body = signed(Advert)[HEADER_SIZE:-64]
    assert refusal(Advert.read, resigned(Advert, bytes(32) + body[32:]), place_of()) is Rule.REPLAYED


def test_offers_go_from_the_lower_to_the_upper_only() -> None:
    suite = Suite.POST_QUANTUM
    identity = FEDERATIONS[suite].identities[2]
    upward = message_of(Share, suite)
    downward = replace(upward, receiver=1, offers=())
    assert Share.read(downward.sign(place_of(suite), identity), place_of(suite)) == downward
    for wrong in (replace(upward, receiver=1), replace(upward, offers=upward.offers[:1]), replace(upward, offers=())):
        assert refusal(Share.read, wrong.sign(place_of(suite), identity), place_of(suite)) is Rule.MALFORMED


# A sequence of messages


def test_messages_are_split_as_they_were_joined() -> None:
    messages = [signed(kind) for kind in KINDS]
    assert split_messages(join_messages(messages)) == messages
    assert split_messages(b"") == []


def test_a_sequence_that_is_cut_or_goes_on_is_refused() -> None:
    blob = join_messages([signed(Commit), signed(Mask)])
    ends = {0, len(signed(Commit)), len(blob)}
    for size in set(range(len(blob))) - ends:
        assert refusal(split_messages, blob[:size]) is Rule.MALFORMED
    for more in (b"\0", bytes(95), b"\xff" * 96):
        assert refusal(split_messages, blob + more) is Rule.MALFORMED


@pytest.mark.parametrize("length", [129, 2**24 + 1, 2**31, 2**32 - 1])
def test_a_length_past_the_end_is_refused(length: int) -> None:
    data = signed(Commit)
    assert refusal(split_messages, data[:28] + length.to_bytes(4, "big") + data[32:]) is Rule.MALFORMED


@given(st.binary(max_size=400))
def test_any_bytes_split_into_themselves_or_are_refused(blob: bytes) -> None:
    try:
        assert join_messages(split_messages(blob)) == blob
    except AggregationRefused as error:
        assert error.rule is Rule.MALFORMED  # noqa: PT017


# Hashes


def test_hashes_tell_lists_rings_and_vectors_apart() -> None:
    assert survivors_digest([1, 2]) != survivors_digest([1, 2, 3])
    words = words_of(32, 8, 1)
    assert words_digest(32, words) != words_digest(16, words.view("<u2"))
    assert words_digest(32, words) != words_digest(32, words[:-1].copy())
    some = words_of(8, 8, 1)
    assert len({words_digest(bits, some.astype(carrier(bits))) for bits in WIDTHS}) == len(WIDTHS)
    with pytest.raises(ProtocolError, match="not all of the ring of 12 bits"):
        words_digest(12, np.array([4096], dtype="<u2"))


# Mutations


def read_any(kind: type, data: bytes, suite: Suite) -> None:
    """A message is refused, or is one that its sender signed."""
    try:
        read = kind.read(data, place_of(suite))
    except AggregationRefused:
        return
    assert read.sign(place_of(suite), FEDERATIONS[suite].identities[read.sender]) == data


def mutated(data: bytes, draw: Callable) -> bytes:
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, len(changed)))
        match draw(st.sampled_from(("set", "cut", "insert", "repeat"))):
            case "set":
                changed[where : where + 1] = draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del changed[where : where + draw(st.integers(1, 40))]
            case "insert":
                changed[where:where] = draw(st.binary(max_size=40))
            case "repeat":
                changed[where:where] = changed[where : where + draw(st.integers(1, 40))]
    return bytes(changed)


@EACH
@settings(max_examples=80)
@given(data=st.data())
def test_a_mutated_message_is_refused(kind: type, data: st.DataObject) -> None:
    original = signed(kind)
    changed = mutated(original, data.draw)
    if changed != original:
        with pytest.raises(AggregationRefused):
            kind.read(changed, place_of())


@EACH
@settings(max_examples=80)
@given(data=st.data(), suite=st.sampled_from(SUITES))
def test_a_mutated_body_is_refused_or_is_another_message(kind: type, data: st.DataObject, suite: Suite) -> None:
    """Signed again by its sender, so that it is read to the end: what is accepted has just this encoding."""
    read_any(kind, resigned(kind, mutated(signed(kind, suite)[HEADER_SIZE:-64], data.draw), suite=suite), suite)


@pytest.mark.parametrize("kind", [Advert, Commit])
def test_a_right_signature_is_checked_once_and_a_wrong_one_each_time(kind: type) -> None:
    """Whoever else reads the very same short message has it checked; one changed bit, or another key, is read anew."""
    place, data = (
        place_of(run=RUN + 1),
        message_of(kind).sign(place_of(run=RUN + 1), FEDERATIONS[Suite.CLASSIC].identities[2]),
    )
    with mock.patch.object(messages, "verify", side_effect=messages.verify) as checked:
        for _ in range(3):
            kind.read(data, place)
        assert checked.call_count == 1
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        for _ in range(2):
            assert refusal(kind.read, flipped, place) is Rule.BAD_SIGNATURE
        assert checked.call_count == 3
        kind.read(data, place)
        assert checked.call_count == 3
        others = message_of(kind).sign(place, FEDERATIONS[Suite.CLASSIC].identities[3])
        assert refusal(kind.read, others, place) is Rule.BAD_SIGNATURE


@pytest.mark.parametrize("kind", [Share, Mask, Reveal])
def test_of_a_message_for_one_reader_nothing_is_kept(kind: type) -> None:
    place = place_of(run=RUN + 2)
    data = message_of(kind).sign(place, FEDERATIONS[Suite.CLASSIC].identities[2])
    with mock.patch.object(messages, "verify", side_effect=messages.verify) as checked:
        for _ in range(2):
            kind.read(data, place)
        assert checked.call_count == 2


def test_a_long_message_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_of(run=RUN + 3)
    data = message_of(Commit).sign(place, FEDERATIONS[Suite.CLASSIC].identities[2])
    monkeypatch.setattr(messages, "_SHORT", len(data) - SIGNATURE_SIZE + 31)  # the digest of the roster is signed too
    with mock.patch.object(messages, "verify", side_effect=messages.verify) as checked:
        for _ in range(2):
            Commit.read(data, place)
        assert checked.call_count == 2
