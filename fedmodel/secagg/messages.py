"""The five signed messages, byte by byte. Each has one encoding, and nothing else is read.

    header (32)  |  body  |  signature (64), under the type's own label, over H(roster), header and body

Integers are big-endian. Every length is checked before it is used, every fixed field is compared, and numbers ascend.
Before a signature is checked, a message that does not fit is refused as malformed, and a message of another window as
replayed.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final, Self

from fedmodel.crypto import SIGNATURE_SIZE, SigningKey, check_sealing_key, digest, digest_words, verify
from fedmodel.errors import AggregationRefused, CryptoError, Rule
from fedmodel.secagg import ring
from fedmodel.secagg.keys import MASK_KEY_SIZE, OFFER_SIZE
from fedmodel.secagg.parameters import Setting
from fedmodel.secagg.ring import RingBits, Words
from fedmodel.secagg.shamir import PRIME, SHARE_SIZE

VERSION: Final = 1
HEADER_SIZE: Final = 32
_HEADER: Final = struct.Struct(">4sBBBBQIHHII")
_SHARE_ROW: Final = struct.Struct(f">IB{SHARE_SIZE}s")
_MAGIC: Final = b"FMSA"
_HASH: Final = 32
_MOST_BODY: Final = 16 * 2**20
_SHORT: Final = 2048  # bytes of a message of which it is kept that its signature was right


class Kind(Enum):
    """A message's type; its signature's label follows from it."""

    ADVERT = 1
    SHARE = 2
    MASK = 3
    COMMIT = 4
    REVEAL = 5

    @property
    def label(self) -> bytes:
        """What the signature is bound to."""
        return b"fedmodel/v1/sa-" + self.name.lower().encode()


class Secret(Enum):
    """Which of a peer's two secrets a revealed share belongs to."""

    B = 1
    ROOT = 2


@dataclass(frozen=True)
class MessageScope:
    """Where in a run a message belongs.

    Attributes:
        setting: Roster, policy and window. Only run and attempt of the window are in a header.
        round_number: The window's first round for ADVERT and SHARE, else the round.
    """

    setting: Setting
    round_number: int

    def header(self, kind: Kind, sender: int, body_size: int) -> bytes:
        """Return the 32 bytes before a body."""
        policy, window = self.setting.policy, self.setting.window
        return _HEADER.pack(
            _MAGIC,
            VERSION,
            kind.value,
            policy.suite.value,
            policy.ring_bits,
            window.run,
            self.round_number,
            window.attempt,
            0,
            sender,
            body_size,
        )

    def seal(self, kind: Kind, sender: int, body: bytes, identity: SigningKey) -> bytes:
        """Return a signed message."""
        message = self.header(kind, sender, len(body)) + body
        return message + identity.sign(kind.label, self._signed(message))

    def _signed(self, message: bytes) -> bytes:
        """Return the bytes to sign. They bind the roster: under another one with the same key a message is invalid."""
        return self.setting.roster.digest + message

    def open(self, kind: Kind, data: bytes, *, verified: bool = True) -> tuple[int, bytes]:
        """Check a message of this place, and return its sender and body.

        Args:
            kind: Its type.
            data: All of it.
            verified: Whether its signature is checked. If not, nothing in the message may be believed.

        Raises:
            AggregationRefused: As malformed, replayed, of an unknown sender, or with a bad signature.
        """
        sender = sender_of(data)
        body = data[HEADER_SIZE:-SIGNATURE_SIZE]
        ours = self.header(kind, sender, len(body))
        if data[:8] != ours[:8] or data[22:HEADER_SIZE] != ours[22:]:
            raise AggregationRefused(Rule.MALFORMED, f"a message is no {kind.name} of this version, suite and ring")
        if data[8:22] != ours[8:22]:
            raise AggregationRefused(Rule.REPLAYED, f"a {kind.name} is of another run, round or attempt")
        key = self.setting.roster.key(sender)
        if not verified:
            return sender, body
        try:
            signed = self._signed(data[:-SIGNATURE_SIZE])
            goes_to_many = kind in (Kind.ADVERT, Kind.COMMIT) and len(signed) <= _SHORT
            check = _verify_once if goes_to_many else verify
            check(key, kind.label, signed, data[-SIGNATURE_SIZE:])
        except CryptoError:
            raise AggregationRefused(Rule.BAD_SIGNATURE, f"a {kind.name} is not signed by silo {sender}") from None
        return sender, body


@lru_cache(maxsize=1 << 14)
def _verify_once(public: bytes, label: bytes, signed: bytes, signature: bytes) -> None:
    """Check a signature; one that was found right is not checked again by this process, and a wrong one is."""
    verify(public, label, signed, signature)


@dataclass(frozen=True)
class Advert:
    """A silo's keys for a window.

    Attributes:
        sender: The silo's number.
        transport: The key that shares to it are sealed to.
        nonce: 32 bytes that the silo chose, for the graph.
        mask_keys: One per round.
        commitments: To `b`, one per round.
    """

    sender: int
    transport: bytes
    nonce: bytes
    mask_keys: tuple[bytes, ...]
    commitments: tuple[bytes, ...]

    def sign(self, place: MessageScope, identity: SigningKey) -> bytes:
        """Return the message."""
        rounds = b"".join(key + told for key, told in zip(self.mask_keys, self.commitments, strict=True))
        body = place.setting.base + self.transport + self.nonce + rounds
        return place.seal(Kind.ADVERT, self.sender, body, identity)

    @classmethod
    def read(cls, data: bytes, place: MessageScope) -> Self:
        """Check and read a message."""
        sender, body = place.open(Kind.ADVERT, data)
        count, suite = place.setting.window.count, place.setting.policy.suite
        key_size = MASK_KEY_SIZE[suite]
        reader = _Reader(body, _HASH + key_size + _HASH + count * (key_size + _HASH))
        if reader.take(_HASH) != place.setting.base:
            raise AggregationRefused(Rule.REPLAYED, f"silo {sender}'s ADVERT is for another roster, policy or window")
        transport, nonce = reader.take(key_size), reader.take(_HASH)
        pairs = [(reader.take(key_size), reader.take(_HASH)) for _ in range(count)]
        return cls(sender, transport, nonce, tuple(key for key, _ in pairs), tuple(told for _, told in pairs))

    def check_keys(self) -> None:
        """Refuse keys that are not in their one encoding, or that repeat inside the message.

        Raises:
            AggregationRefused: When there is such a key.
        """
        keys = (self.transport, *self.mask_keys)
        if len(set(keys)) != len(keys):
            raise AggregationRefused(Rule.DUPLICATE, f"silo {self.sender} advertised one key twice")
        for key in keys:
            try:
                check_sealing_key(key)
            except CryptoError as error:
                raise AggregationRefused(Rule.WEAK_KEY, f"silo {self.sender}'s ADVERT: {error}") from error


@dataclass(frozen=True)
class Share:
    """What one silo deals to one neighbour.

    Attributes:
        sender: The silo that deals.
        cohort: The hash of all adverts.
        receiver: The silo that the shares are for.
        envelope: The shares of b and root for every round, sealed to the receiver's transport key.
        offers: In the post-quantum suite, what the silo with the lower number offers the other, one per round;
            otherwise empty.
    """

    sender: int
    cohort: bytes
    receiver: int
    envelope: bytes
    offers: tuple[bytes, ...]

    def sign(self, place: MessageScope, identity: SigningKey) -> bytes:
        """Return the message."""
        head = self.cohort + struct.pack(">II", self.receiver, len(self.envelope))
        return place.seal(Kind.SHARE, self.sender, head + self.envelope + b"".join(self.offers), identity)

    @classmethod
    def read(cls, data: bytes, place: MessageScope, *, verified: bool = True) -> Self:
        """Check and read a message."""
        sender, body = place.open(Kind.SHARE, data, verified=verified)
        reader = _Reader(body)
        cohort, receiver = reader.take(_HASH), reader.number()
        envelope = reader.take(reader.number())
        window, policy = place.setting.window, place.setting.policy
        size = OFFER_SIZE[policy.suite] if sender < receiver else 0
        offers = tuple(reader.take(size) for _ in range(window.count)) if size else ()
        reader.end()
        return cls(sender, cohort, receiver, envelope, offers)


@dataclass(frozen=True)
class Mask:
    """The message that is sent beside a masked update.

    Attributes:
        sender: The silo's number.
        context: ctx, as the silo derived it.
        words: The hash of the masked update.
        masked_with: The neighbours that it masked with, ascending.
    """

    sender: int
    context: bytes
    words: bytes
    masked_with: tuple[int, ...]

    def sign(self, place: MessageScope, identity: SigningKey) -> bytes:
        """Return the message."""
        return place.seal(Kind.MASK, self.sender, self.context + self.words + pack_numbers(self.masked_with), identity)

    @classmethod
    def read(cls, data: bytes, place: MessageScope) -> Self:
        """Check and read a message."""
        sender, body = place.open(Kind.MASK, data)
        reader = _Reader(body)
        message = cls(sender, reader.take(_HASH), reader.take(_HASH), reader.numbers(len(place.setting.roster)))
        reader.end()
        return message


@dataclass(frozen=True)
class Commit:
    """One silo's signature on one survivor list, in one context."""

    sender: int
    context: bytes
    survivors: bytes

    def sign(self, place: MessageScope, identity: SigningKey) -> bytes:
        """Return the message."""
        return place.seal(Kind.COMMIT, self.sender, self.context + self.survivors, identity)

    @classmethod
    def read(cls, data: bytes, place: MessageScope) -> Self:
        """Check and read a message."""
        sender, body = place.open(Kind.COMMIT, data)
        reader = _Reader(body, 2 * _HASH)
        return cls(sender, reader.take(_HASH), reader.take(_HASH))


@dataclass(frozen=True)
class Reveal:
    """The shares that a silo gives: one per peer.

    Attributes:
        sender: The silo's number.
        context: As in the COMMITs.
        survivors: The hash of the survivor list that was signed.
        shares: For each dealer, which secret, and the share.
    """

    sender: int
    context: bytes
    survivors: bytes
    shares: Mapping[int, tuple[Secret, int]]

    def sign(self, place: MessageScope, identity: SigningKey) -> bytes:
        """Return the message."""
        rows = b"".join(
            _SHARE_ROW.pack(dealer, secret.value, share.to_bytes(SHARE_SIZE, "big"))
            for dealer, (secret, share) in sorted(self.shares.items())
        )
        body = self.context + self.survivors + struct.pack(">I", len(self.shares)) + rows
        return place.seal(Kind.REVEAL, self.sender, body, identity)

    @classmethod
    def read(cls, data: bytes, place: MessageScope) -> Self:
        """Check and read a message."""
        sender, body = place.open(Kind.REVEAL, data)
        reader = _Reader(body)
        context, survivors, count = reader.take(_HASH), reader.take(_HASH), reader.number()
        if count > len(place.setting.roster):
            raise AggregationRefused(Rule.MALFORMED, "a REVEAL has more shares than the roster has silos")
        rows = list(_SHARE_ROW.iter_unpack(reader.take(_SHARE_ROW.size * count)))
        reader.end()
        kinds = {secret.value: secret for secret in Secret}
        shares = {dealer: (kinds[kind], int.from_bytes(share, "big")) for dealer, kind, share in rows if kind in kinds}
        ascending = all(one < other for one, other in itertools.pairwise([0, *(row[0] for row in rows)]))
        if len(shares) != count or not ascending or any(share >= PRIME for _, share in shares.values()):
            raise AggregationRefused(Rule.MALFORMED, "a REVEAL's shares ascend, each of b or root, in the field")
        return cls(sender, context, survivors, shares)


def sender_of(data: bytes) -> int:
    """Return the sender's number as the message states it. Unchecked."""
    if not HEADER_SIZE + SIGNATURE_SIZE <= len(data) <= HEADER_SIZE + _MOST_BODY + SIGNATURE_SIZE:
        raise AggregationRefused(Rule.MALFORMED, f"{len(data)} bytes are no message")
    return int.from_bytes(data[24:28], "big")


def join_messages(messages: Iterable[bytes]) -> bytes:
    """Return messages as one blob: each states its own length."""
    return b"".join(messages)


def split_messages(blob: bytes) -> list[bytes]:
    """Cut a blob into messages, by the lengths that they state.

    Raises:
        AggregationRefused: When the lengths do not add up.
    """
    messages = []
    place = 0
    while place < len(blob):
        if len(blob) - place < HEADER_SIZE + SIGNATURE_SIZE:
            raise AggregationRefused(Rule.MALFORMED, "a sequence of messages is cut short")
        size = HEADER_SIZE + int.from_bytes(blob[place + 28 : place + HEADER_SIZE], "big") + SIGNATURE_SIZE
        if size > len(blob) - place:
            raise AggregationRefused(Rule.MALFORMED, "a sequence of messages is cut short")
        messages.append(blob[place : place + size])
        place += size
    return messages


def pack_numbers(numbers: Sequence[int]) -> bytes:
    """Return a count and numbers of four bytes each."""
    return struct.pack(f">I{len(numbers)}I", len(numbers), *numbers)


def read_numbers(data: bytes, most: int) -> tuple[int, ...]:
    """Read what `pack_numbers` wrote, to its end: silo numbers, ascending.

    Raises:
        AggregationRefused: When they do not ascend, or one is not in the roster.
    """
    reader = _Reader(data)
    numbers = reader.numbers(most)
    reader.end()
    return numbers


def survivors_digest(survivors: Sequence[int]) -> bytes:
    """Return the hash of a survivor list, which stands for it in COMMIT and REVEAL."""
    return digest(b"fedmodel/v1/sa-survivors", pack_numbers(survivors))


def cohort_digest_of(setting: Setting, adverts: Sequence[bytes]) -> bytes:
    """Return the hash of U1: all ADVERTs whole, in order of numbers."""
    return digest(b"fedmodel/v1/sa-cohort", setting.base, *adverts)


def graph_seed(setting: Setting, adverts: Sequence[Advert]) -> bytes:
    """Return the seed of the graph's order: the hash of every nonce, in order of numbers."""
    return digest(b"fedmodel/v1/sa-graph", setting.base, *(advert.nonce for advert in adverts))


def words_digest(bits: RingBits, words_P: Words) -> bytes:
    """Return the hash of a flat vector of a ring as it is sent; the ring's width is in the label.

    Raises:
        ProtocolError: When the words are not of this ring.
    """
    # What fills its words is hashed where it lies: a copy of a large update takes longer than the hash.
    packed = words_P.data.cast("B") if 8 * words_P.dtype.itemsize == bits else ring.pack(bits, words_P)
    return digest_words(b"fedmodel/v1/sa-update-%d" % bits, packed)


class _Reader:
    """Reads a body from its front; refuses to read beyond its end, and to leave a rest."""

    def __init__(self, data: bytes, size: int | None = None) -> None:
        if size is not None and len(data) != size:
            raise AggregationRefused(Rule.MALFORMED, f"a body of {len(data)} bytes, where {size} are needed")
        self._data = data
        self._place = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        if size > len(self._data) - self._place:
            raise AggregationRefused(Rule.MALFORMED, "a body is cut short")
        self._place += size
        return self._data[self._place - size : self._place]

    def number(self) -> int:
        """Return the next number of four bytes."""
        return int.from_bytes(self.take(4), "big")

    def numbers(self, most: int) -> tuple[int, ...]:
        """Return a counted list of silo numbers, ascending."""
        count = self.number()
        if count > most:
            raise AggregationRefused(Rule.MALFORMED, f"{count} silo numbers, where the roster has {most}")
        numbers: tuple[int, ...] = struct.unpack(f">{count}I", self.take(4 * count))
        if any(low >= high for low, high in zip((0, *numbers), numbers, strict=False)) or numbers[-1:] > (most,):
            raise AggregationRefused(Rule.MALFORMED, "silo numbers ascend, from 1 to the roster's size")
        return numbers

    def end(self) -> None:
        """Refuse a rest that was not read."""
        if self._place != len(self._data):
            raise AggregationRefused(Rule.MALFORMED, "a body goes on after its end")
