"""Signed tree heads: what a ledger was at some size, signed by its owner, and what a keeper of one asks of the next.

A head is a C2SP checkpoint (c2sp.org/tlog-checkpoint), which is a signed note (c2sp.org/signed-note):

    north.example/ledger                            the origin: whose ledger it is
    20852163                                        its size, in entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=    the root of its Merkle tree (`fedmodel.ledger.merkle`)

    — north.example/ledger Az3grlgt...              key ID and Ed25519 signature of the three lines

so that any tool that reads checkpoints can check it, and a witness could sign it too. The name of the key is the
origin. Of C2SP's choices only one is written and read: no extension lines, no other kind of signature. Lines of keys
that are not ours are ignored, as C2SP says.

Whoever keeps the last head can follow the ledger: `follow` takes the next one only with a proof that it extends the
last. So changing, removing or reordering any entry of the last head is noticed by everybody who has kept it.

Does NOT notice what its owner left out from the start, nor changes after the last head that anybody kept. Does NOT by
itself notice an owner that shows two parties two histories: they have to compare their heads. A head says nothing about
when it was signed.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final, Self

from fedmodel.crypto import SigningKey, check_verification_key, verify_note
from fedmodel.errors import ConfigError, CryptoError, LedgerError, LedgerTampered
from fedmodel.ledger.merkle import EMPTY_ROOT, HASH_SIZE, check_consistency
from fedmodel.system.counts import counted

MOST_ORIGIN: Final = 200
MOST_NOTE: Final = 4096
# C2SP lets a verifier set a limit, of no fewer than this.
MOST_SIGNATURES: Final = 16
MOST_ENTRIES: Final = 2**63 - 1
# A consistency proof in a tree of fewer than 2^63 entries: a hash a level, and the one where it begins.
MOST_PROOF: Final = 64

# C2SP's type of signature: Ed25519 over the text.
_ED25519: Final = b"\x01"
_KEY_ID_SIZE: Final = 4
_DASH: Final = "— "
# C2SP asks that a key's name has no space and no plus. ASCII besides: no two origins look alike, and a note begins with
# a byte that `sign_note` takes.
_ORIGIN: Final = re.compile(rf"[!-*,-~]{{1,{MOST_ORIGIN}}}")
_DECIMAL: Final = re.compile("0|[1-9][0-9]{0,18}")
# Every control character but the newline that ends a line.
_CONTROL: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f]")
# The version of the encoding of `Proven`.
_PROVEN: Final = b"fedmodel/v1/proven-head\n"


@dataclass(frozen=True)
class Head:
    """What a ledger is at one size.

    Attributes:
        origin: Whose ledger it is; the name of its key. 1 to 200 printable ASCII characters, no space and no plus sign.
        size: Entries, 0 to 2^63 - 1.
        root: Of the Merkle tree over them, 32 bytes; with no entries, the one root of an empty tree.

    Raises:
        ConfigError: When the origin is none.
        LedgerError: When size or root are none.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        _check_origin(self.origin)
        if not 0 <= self.size <= MOST_ENTRIES:
            raise LedgerError(f"a ledger has 0 to {MOST_ENTRIES} entries, not {self.size}")
        if len(self.root) != HASH_SIZE:
            raise LedgerError(f"a root of {len(self.root)} bytes, where {HASH_SIZE} are needed")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise LedgerError("a ledger of 0 entries has one root, the hash of nothing, and this is another")

    def body(self) -> bytes:
        """Return the text that is signed: three lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


def sign_head(head: Head, key: SigningKey) -> bytes:
    """Return a head as a signed note.

    Whoever signs two heads of one origin, neither of which extends the other, has shown that the ledger was changed.
    """
    signature = _key_id(head.origin, key.public) + key.sign_note(head.body())
    line = f"{_DASH}{head.origin} {base64.b64encode(signature).decode()}\n"
    return head.body() + b"\n" + line.encode()


def open_head(note: bytes, origin: str, public: bytes) -> Head:
    """Check a signed head.

    Guarantee: the head returned was signed by the holder of the key, under this origin, as it is. Nothing else about it
    is checked; `follow` says whether it extends what was seen before.

    | The note                                                               | Is      |
    |------------------------------------------------------------------------|---------|
    | more than 4096 bytes, not UTF-8, or with a control character           | refused |
    | no blank line, or not exactly three lines before the last one          | refused |
    | no lines of signatures, more than 16, or one that is malformed         | refused |
    | of another origin                                                      | refused |
    | no signature by this name and key ID, two, or one that does not verify | refused |
    | a size that is not the one decimal of 0 to 2^63 - 1                    | refused |
    | a root that is not the one base64 of 32 bytes                          | refused |
    | no entries, and a root that is not the empty tree's                    | refused |
    | signatures of other names or key IDs besides                           | ignored |

    Args:
        note: All of it.
        origin: Whose ledger it must be.
        public: The owner's Ed25519 key, got from a source that is trusted.

    Raises:
        LedgerTampered: When it is refused; the message says which rule it breaks.
        ConfigError: When `origin` is none.
        CryptoError: When `public` is none, or one that anybody could sign for.
    """
    key_id = _key_id(origin, public)
    try:
        text, signatures = _parts(note)
    except LedgerTampered as error:
        raise LedgerTampered(f"{origin}: {error}") from None
    lines = text.split("\n")[:-1]
    if len(lines) != 3:
        raise LedgerTampered(f"{origin}: a head has three lines, origin, size and root, and this has {len(lines)}")
    if lines[0] != origin:
        raise LedgerTampered(f"{origin}: a head is of another origin, {lines[0][:MOST_ORIGIN]!a}")
    ours = [signature for name, signature in signatures if name == origin and signature[:_KEY_ID_SIZE] == key_id]
    if len(ours) != 1:
        raise LedgerTampered(f"{origin}: a head has one signature by the key {key_id.hex()}, and this has {len(ours)}")
    try:
        _verify_once(public, text.encode(), ours[0][_KEY_ID_SIZE:])
    except CryptoError as error:
        raise LedgerTampered(f"{origin}: a head is not as the key {key_id.hex()} signed it: {error}") from None
    if not _DECIMAL.fullmatch(lines[1]) or int(lines[1]) > MOST_ENTRIES:
        raise LedgerTampered(f"{origin}: a size is the one decimal of 0 to {MOST_ENTRIES}, not {lines[1][:40]!a}")
    try:
        return Head(origin, int(lines[1]), _decoded(lines[2]))
    except LedgerError as error:
        raise LedgerTampered(f"{origin}: {error}") from None


def verifier_key(origin: str, public: bytes) -> str:
    """Return the key to check heads with in the form that other tools read: name, key ID, type and key.

    Raises:
        ConfigError: When the origin is none.
        CryptoError: When the key is none, or one that anybody could sign for.
    """
    return f"{origin}+{_key_id(origin, public).hex()}+{base64.b64encode(_ED25519 + public).decode()}"


@dataclass(frozen=True)
class Proven:
    """A signed head with the proof that it extends an earlier one.

    Attributes:
        note: The signed head, as it was signed; at most 4096 bytes.
        since: The size of the earlier head; 0 when there was none.
        proof: From that size to the head's; at most 64 hashes of 32 bytes.

    Raises:
        LedgerError: When one of them is longer or larger.
    """

    note: bytes
    since: int
    proof: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if len(self.note) > MOST_NOTE:
            raise LedgerError(f"a signed head of {len(self.note)} bytes, where at most {MOST_NOTE} are read")
        if not 0 <= self.since <= MOST_ENTRIES:
            raise LedgerError(f"a proof is since a size of 0 to {MOST_ENTRIES} entries, not {self.since}")
        if len(self.proof) > MOST_PROOF:
            raise LedgerError(f"a consistency proof of {len(self.proof)} hashes, where {MOST_PROOF} are the most")
        if any(len(value) != HASH_SIZE for value in self.proof):
            raise LedgerError(f"a hash in a consistency proof is not of {HASH_SIZE} bytes")

    def to_bytes(self) -> bytes:
        """Return its one encoding: a line with the version; the note after its length; `since`; the counted hashes.

        The lengths are big-endian, of 4, 8 and 1 bytes.
        """
        size, count = len(self.note).to_bytes(4, "big"), len(self.proof).to_bytes(1, "big")
        return b"".join((_PROVEN, size, self.note, self.since.to_bytes(8, "big"), count, *self.proof))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote; nothing in it is believed yet.

        Raises:
            LedgerTampered: When it is in no, or not in its one, encoding.
        """
        if not data.startswith(_PROVEN):
            raise LedgerTampered(f"a proven head begins with {_PROVEN[:-1].decode()}, and this does not")
        start = len(_PROVEN) + 4
        end = start + int.from_bytes(data[start - 4 : start], "big")
        # A slice beyond the end is shorter, never an error, so the whole length is compared before anything is used.
        count = int.from_bytes(data[end + 8 : end + 9], "big")
        length = end + 9 + count * HASH_SIZE
        if len(data) != length:
            raise LedgerTampered(f"a proven head of {len(data)} bytes, where its lengths say {length}")
        hashes = tuple(data[place : place + HASH_SIZE] for place in range(end + 9, length, HASH_SIZE))
        try:
            return cls(data[start:end], int.from_bytes(data[end : end + 8], "big"), hashes)
        except LedgerError as error:
            raise LedgerTampered(str(error)) from None


def follow(proven: Proven, origin: str, public: bytes, last: Head | None) -> Head:
    """Take the next head of a ledger, as one who keeps the last.

    Guarantee: under SHA-256's collision resistance, whatever entries the head returned is of, the first `last.size` of
    them are those that `last` is of. Without a last head there is nothing that it could contradict: the first is taken
    as it is.

    Args:
        proven: The next head with its proof.
        origin: Whose ledger it must be.
        public: The owner's key.
        last: The last head taken, or None.

    Returns:
        The new head, to be kept in place of the last.

    Raises:
        LedgerTampered: When it is not this owner's head, or does not extend the last.
        ConfigError: When `origin` is none, or the last head is of another.
        CryptoError: When `public` is none.
    """
    if last is not None and last.origin != origin:
        raise ConfigError(f"the head kept is of {last.origin}, and cannot be followed by one of {origin}")
    head = open_head(proven.note, origin, public)
    known = last.size if last else 0
    if head.size < known:
        raise LedgerTampered(f"{origin}: its ledger went back from {known} to {head.size} entries")
    if proven.since != known:
        raise LedgerTampered(
            f"{origin}: a proof since {counted(proven.since, 'entry', 'entries')}, where the last head that is known"
            f" is of {known}"
        )
    try:
        check_consistency(known, last.root if last else EMPTY_ROOT, head.size, head.root, proven.proof)
    except LedgerTampered as error:
        raise LedgerTampered(f"{origin}: {error}") from None
    return head


@lru_cache(maxsize=1 << 12)
def _verify_once(public: bytes, text: bytes, signature: bytes) -> None:
    """Check a signature; one that was found right is not checked again by this process, and a wrong one is."""
    verify_note(public, text, signature)


def _check_origin(origin: str) -> None:
    """Refuse a name that could not stand in a note."""
    if not _ORIGIN.fullmatch(origin):
        raise ConfigError(
            f"{origin[:MOST_ORIGIN]!a} cannot name a ledger: 1 to {MOST_ORIGIN} printable ASCII characters, without"
            " spaces and plus signs"
        )


def _key_id(origin: str, public: bytes) -> bytes:
    """Return C2SP's ID of a key under its name; not a commitment to it, since 4 bytes are found by trying."""
    _check_origin(origin)
    check_verification_key(public)
    return sha256(origin.encode() + b"\n" + _ED25519 + public).digest()[:_KEY_ID_SIZE]


def _parts(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """Split a note into its text and its signatures, each with its key's name; nothing is verified."""
    if len(note) > MOST_NOTE:
        raise LedgerTampered(f"a signed head of {len(note)} bytes, where at most {MOST_NOTE} are read")
    try:
        decoded = note.decode("utf-8")
    except UnicodeDecodeError:
        raise LedgerTampered("a signed head is UTF-8, and this is not") from None
    if _CONTROL.search(decoded):
        raise LedgerTampered("a signed head has no control characters but newlines, and this does")
    # The text may have blank lines, the signatures may not: they begin after the last one.
    text, blank, rest = decoded.rpartition("\n\n")
    if not blank or not rest.endswith("\n"):
        raise LedgerTampered("a signed head is text, a blank line and lines of signatures, and this is not")
    lines = rest.split("\n")[:-1]
    if len(lines) > MOST_SIGNATURES:
        raise LedgerTampered(f"a signed head with {len(lines)} signatures, where at most {MOST_SIGNATURES} are read")
    return text + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes]:
    """Return the key's name and the signature, key ID and all, of one line."""
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not name or "+" in name or any(map(str.isspace, name)):
        raise LedgerTampered("a signature's line is a dash, a key's name and base64, and one of this head's is not")
    signature = _decoded(encoded)
    if len(signature) <= _KEY_ID_SIZE:
        raise LedgerTampered(f"a signature begins with a key ID of {_KEY_ID_SIZE} bytes, and one has not even more")
    return name, signature


def _decoded(encoded: str) -> bytes:
    """Return what base64 stands for, when it is its one encoding: decoders pass over bits and characters."""
    try:
        value = base64.b64decode(encoded)
    except ValueError:
        value = b""
    if base64.b64encode(value).decode() != encoded:
        raise LedgerTampered(f"{encoded[:100]!a} is not the one base64 encoding of any bytes")
    return value
