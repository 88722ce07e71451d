"""Hashes, keys, signatures, sealing and keystreams, each under its own label.

Every use names a purpose, `b"fedmodel/v1/<purpose>"`, which enters the hash, signature or derivation. So bytes made for
one purpose never pass for another purpose. The exceptions are formats that other people's tools check: a signed note
here, and X.509 (`certificates`). One Ed25519 key may sign all three kinds, because their bytes differ: a labelled
message begins with a zero byte; X.509 begins with 0x30 and contains control characters; a note has only printable
characters and newlines. Lengths are checked before use. Whatever does not verify raises `CryptoError` without a reason,
except where the caller can do something about it.

| Here           | Is                                               | After                        |
|----------------|--------------------------------------------------|------------------------------|
| `digest`       | SHA-256 over a label and length-prefixed parts   | FIPS 180-4                   |
| `digest_words` | BLAKE3, for vectors of megabytes                 | BLAKE3, 2020                 |
| `derive_key`   | HKDF-SHA256                                      | RFC 5869                     |
| `SigningKey`   | Ed25519 over label, length and message           | RFC 8032                     |
| `sign_note`    | Ed25519 over a note's text alone, without a label | RFC 8032; C2SP signed-note  |
| `AgreementKey` | X25519; points of small order are refused        | RFC 7748, section 6.1        |
| `SealingKey`   | HPKE base mode: X25519, or X25519 with ML-KEM-768 | RFC 9180; FIPS 203; X-Wing  |
| `Keystream`    | AES-256 in counter mode from a zero counter      | SP 800-38A, section 6.5      |
| `SecretStream` | ChaCha20's keystream from a zero counter         | RFC 8439, section 2.4        |

Does NOT erase secrets from memory, because Python may copy bytes at any time. Does NOT authenticate the sender of a
sealed message; the protocol's own signatures do that.
"""

from __future__ import annotations

import secrets
from enum import Enum
from functools import lru_cache
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedmodel.errors import CryptoError

KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64

_PREFIX: Final = b"fedmodel/v1/"
_MOST_DERIVED: Final = 255 * 32
_MOST_LABEL: Final = 255
_MLKEM_SEED_SIZE: Final = 64
_MLKEM_PUBLIC_SIZE: Final = 1184
_FIELD: Final = 2**255 - 19
# Encodings of y (the sign of x cleared) of the points of edwards25519 whose order divides 8: 1, 2, 4, and 8 twice.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(encoded)
    for encoded in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)
# The same for Montgomery's curve and its twist, by u: orders 4 and 2 (0), 4 (1 and -1), 8.
_SMALL_ORDER_U: Final = frozenset(
    (
        0,
        1,
        _FIELD - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)
# Small enough to stay in a core's second-level cache beside the part of a vector that it is added to, and large enough
# that the time goes into the cipher and not into Python's call.
BLOCK_SIZE: Final = 256 * 1024
_ZEROS: Final = memoryview(bytes(BLOCK_SIZE))
_MOST_STREAMED: Final = 64 << 32  # 2^32 blocks of 64 bytes: then a counter of 32 bits would begin again


class Suite(Enum):
    """Which key encapsulation seals messages; both use HKDF-SHA256 and ChaCha20-Poly1305."""

    CLASSIC = 1
    POST_QUANTUM = 2


def random_bytes(size: int) -> bytes:
    """Return bytes of the operating system's CSPRNG."""
    return secrets.token_bytes(size)


def random_stream(size: int) -> bytes:
    """Return many unpredictable bytes: a keystream under a fresh key of the CSPRNG, which is faster than the CSPRNG."""
    buffer = bytearray(size)
    SecretStream(random_bytes(KEY_SIZE)).fill(buffer)
    return bytes(buffer)


def digest(label: bytes, *parts: bytes) -> bytes:
    """Return the 32-byte hash of some parts for one purpose; lists with the same concatenation have different hashes.

    >>> digest(b"fedmodel/v1/doctest", b"ab", b"c") == digest(b"fedmodel/v1/doctest", b"a", b"bc")
    False
    """
    state = hashes.Hash(hashes.SHA256())
    for part in (checked_label(label), *parts):
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.finalize()


def digest_words(label: bytes, data: bytes | memoryview) -> bytes:
    """Return the 32-byte hash of one long vector's bytes for one purpose: SHA-256 would take longer than a mask.

    BLAKE3 has the same collision resistance as SHA-256, 128 bits. Its mode with a label does not need the length.
    """
    from blake3 import blake3  # silos alone mask; whoever verifies needs no more than `cryptography`

    return blake3(data, derive_key_context=checked_label(label).decode()).digest()


def derive_key(secret: bytes, label: bytes, context: bytes, size: int = KEY_SIZE) -> bytes:
    """Derive a key for one purpose in one context from a secret of at least 32 uniform bytes.

    Raises:
        CryptoError: When the secret is shorter than 32 bytes, or the size is not from 1 to 8,160 bytes.
    """
    if not 1 <= size <= _MOST_DERIVED:
        raise CryptoError(f"{size} bytes cannot be derived at once; HKDF gives from 1 to {_MOST_DERIVED}")
    if len(secret) < KEY_SIZE:
        raise CryptoError(f"a secret of {len(secret)} bytes is too short to derive a key from; {KEY_SIZE} are needed")
    # No salt: the secret is uniform already (RFC 5869, section 3.1). The length keeps label and context apart.
    info = len(checked_label(label)).to_bytes(2, "big") + label + context
    return HKDF(algorithm=hashes.SHA256(), length=size, salt=None, info=info).derive(secret)


class SigningKey:
    """An Ed25519 key pair; signatures are deterministic and bound to a label."""

    def __init__(self, private: bytes) -> None:
        self._private = sized(private, KEY_SIZE, "a signing key")
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        """Return a new key from the operating system's CSPRNG."""
        return cls(random_bytes(KEY_SIZE))

    def sign(self, label: bytes, message: bytes) -> bytes:
        """Return the 64-byte signature of a message for one purpose."""
        return self._key.sign(_framed(label, message))

    def sign_note(self, text: bytes) -> bytes:
        """Return the 64-byte signature of a note's text, unchanged, as in C2SP's signed-note.

        It has no label, so that ordinary tools can check it. It is safe beside `sign` with the same key: there the
        signed bytes begin with a zero byte (see `_framed`), and here with a printable character, so neither signature
        ever passes for the other. It is safe beside an authority's key (`certificates.Authority`) too.

        Raises:
            CryptoError: When the text does not begin with a printable ASCII character, has a control character other
                than a newline, or does not end with a newline.
        """
        return self._key.sign(_note(text))

    def derive(self, label: bytes, context: bytes) -> bytes:
        """Return a 32-byte key for its owner's use alone. Sensitive."""
        return derive_key(self._private, label, context)


def verify(public: bytes, label: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature.

    This holds for an honest key. A key that its owner chose to be of small order verifies more than it signed, so the
    keys of a roster are those that their owners proved to hold.

    Raises:
        CryptoError: When it is not the signature of this message, for this purpose, by this key.
    """
    key = Ed25519PublicKey.from_public_bytes(sized(public, KEY_SIZE, "a verification key"))
    try:
        key.verify(sized(signature, SIGNATURE_SIZE, "a signature"), _framed(label, message))
    except InvalidSignature:
        raise CryptoError("a signature does not verify") from None


def verify_note(public: bytes, text: bytes, signature: bytes) -> None:
    """Check the signature of a note's text, made by `sign_note` or by another implementation of C2SP's signed-note.

    This holds for an honest key, as for `verify`. A text that `sign_note` would not sign is refused before its
    signature is checked: a signature made by `sign` for another purpose must not pass for a note's.

    Raises:
        CryptoError: When it is not the signature of this text by this key.
    """
    key = Ed25519PublicKey.from_public_bytes(sized(public, KEY_SIZE, "a verification key"))
    try:
        key.verify(sized(signature, SIGNATURE_SIZE, "a signature"), _note(text))
    except InvalidSignature:
        raise CryptoError("a note's signature does not verify") from None


def check_verification_key(public: bytes) -> None:
    """Refuse an Ed25519 key of small order, for which anybody could sign, or one that is not in its one encoding.

    Raises:
        CryptoError: When it is such a key, or has another length.
    """
    masked = bytes([*sized(public, KEY_SIZE, "a verification key")[:-1], public[-1] & 0x7F])
    if masked in _SMALL_ORDER or int.from_bytes(masked, "little") >= _FIELD:
        raise CryptoError("a verification key is a point of small order, or not in its one encoding")


def check_agreement_key(public: bytes) -> None:
    """Refuse an X25519 key that is of small order, or not in its one encoding.

    Two different keys may still agree on the same secret with everybody: u and 1/u do. Code that derives keys from the
    agreed secret binds the parties' names, and so needs no more than this check.

    Raises:
        CryptoError: When it is such a key, or has another length.
    """
    value = int.from_bytes(sized(public, KEY_SIZE, "an agreement key"), "little")
    if value >= _FIELD or value in _SMALL_ORDER_U:
        raise CryptoError("an agreement key is a point of small order, or not in its one encoding")


def check_sealing_key(public: bytes) -> None:
    """Refuse an unusable key of either suite: its X25519 part as above, its ML-KEM part as FIPS 203 says.

    Raises:
        CryptoError: When it cannot be used, or has another length.
    """
    check_agreement_key(public[-KEY_SIZE:])
    if len(public) != KEY_SIZE:
        lattice = sized(public[:-KEY_SIZE], _MLKEM_PUBLIC_SIZE, "an ML-KEM-768 key")
        try:
            mlkem.MLKEM768PublicKey.from_public_bytes(lattice)
        except ValueError:
            raise CryptoError("the ML-KEM-768 part of a key is not in its one encoding") from None


class AgreementKey:
    """An X25519 key pair derived from a secret, so that whoever recovers the secret recovers the key."""

    def __init__(self, secret: bytes, label: bytes, context: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(derive_key(secret, label, context))
        self.public = self._key.public_key().public_bytes_raw()

    def agree(self, peer: bytes) -> bytes:
        """Return the 32 bytes shared with a peer's public key. Derive keys from them; never use them as a key.

        Raises:
            CryptoError: When the peer's key is our own, or a point of small order, with which every peer would share
                the same known secret.
        """
        # X25519 ignores the top bit, so a key with it set is the same key.
        if bytes([*sized(peer, KEY_SIZE, "an agreement key")[:-1], peer[-1] & 0x7F]) == self.public:
            raise CryptoError("a peer's agreement key is our own, sent back")
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError:
            raise CryptoError("a peer's agreement key is a point of small order") from None


class SealingKey:
    """A key pair to which others seal messages, derived from a secret."""

    def __init__(self, suite: Suite, secret: bytes, context: bytes) -> None:
        self._suite = suite
        # One label per suite: the same secret gives another key under the other suite.
        label = b"fedmodel/v1/seal-x25519" if suite is Suite.CLASSIC else b"fedmodel/v1/seal-hybrid-x25519"
        curve = X25519PrivateKey.from_private_bytes(derive_key(secret, label, context))
        self._key: X25519PrivateKey | hpke.MLKEM768X25519PrivateKey = curve
        self.public = curve.public_key().public_bytes_raw()
        if suite is Suite.POST_QUANTUM:
            seed = derive_key(secret, b"fedmodel/v1/seal-mlkem768", context, _MLKEM_SEED_SIZE)
            lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed)
            self._key = hpke.MLKEM768X25519PrivateKey(lattice, curve)
            self.public = lattice.public_key().public_bytes_raw() + self.public

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Return what was sealed to this key in this context.

        Raises:
            CryptoError: When it does not open, whatever the reason.
        """
        try:
            return _hpke(self._suite).decrypt(sealed, self._key, context)
        except (InvalidTag, ValueError):
            raise CryptoError("a sealed message does not open with this key in this context") from None


def seal(suite: Suite, public: bytes, plaintext: bytes, context: bytes) -> bytes:
    """Seal a message to a public key; only the holder of its private key can open it, and only in the same context.

    Raises:
        CryptoError: When the public key has the wrong length or is not a key.
    """
    size = KEY_SIZE if suite is Suite.CLASSIC else _MLKEM_PUBLIC_SIZE + KEY_SIZE
    sized(public, size, "a sealing key")
    try:
        key: X25519PublicKey | hpke.MLKEM768X25519PublicKey = X25519PublicKey.from_public_bytes(public[-KEY_SIZE:])
        if suite is Suite.POST_QUANTUM:
            lattice = mlkem.MLKEM768PublicKey.from_public_bytes(public[:-KEY_SIZE])
            key = hpke.MLKEM768X25519PublicKey(lattice, X25519PublicKey.from_public_bytes(public[-KEY_SIZE:]))
        return _hpke(suite).encrypt(plaintext, key, context)
    except ValueError:
        raise CryptoError("a sealing key is not a usable public key") from None


class Keystream:
    """The pseudorandom bytes that follow from a key, in order, as many as are asked for.

    The counter starts at zero, which is safe because a key is used for one stream and never again.

    Args:
        key: 32 bytes, uniform and secret.
        start: The byte to begin at, a multiple of 16. Streams of one key with different starts are parts of one stream.
    """

    def __init__(self, key: bytes, start: int = 0) -> None:
        if start % 16:
            raise CryptoError("a keystream begins at a multiple of 16 bytes")
        counter = (start // 16).to_bytes(16, "big")
        cipher = Cipher(algorithms.AES256(sized(key, KEY_SIZE, "a keystream key")), modes.CTR(counter))
        self._update_into = cipher.encryptor().update_into

    def fill(self, buffer: bytearray | memoryview, size: int) -> None:
        """Write the next bytes of the stream to the front of a buffer.

        Args:
            buffer: Of at least `size` + 15 bytes, because the cipher needs room for one more block than it writes.
            size: From 0 to `BLOCK_SIZE`. In each call for a stream except the last, a multiple of 16.
        """
        self._update_into(_ZEROS[:size], buffer)


class SecretStream:
    """Unpredictable bytes for one owner's own use, in order, as many as are asked for: nobody else makes them again.

    Guarantee: whoever tells them from uniform bytes, without the key, tells ChaCha20 from a random function, which is
    believed to take 2^256 work. A block cipher in counter mode would fall short of uniform bytes by itself, since no
    two of its blocks are the same: by n^2 / 2^129 after n blocks. ChaCha20 is no permutation, and lacks nothing.

    Nonce and counter start at zero, which is safe because a key is used for one stream and never again.

    Args:
        key: 32 bytes, uniform and secret. Drawn for one purpose, such as one vector of noise, and dropped with it: a
            stream that is kept would go on alike in both processes after a fork.
    """

    def __init__(self, key: bytes) -> None:
        cipher = Cipher(algorithms.ChaCha20(sized(key, KEY_SIZE, "a secret stream's key"), bytes(16)), mode=None)
        self._update_into = cipher.encryptor().update_into
        self._left = _MOST_STREAMED

    def fill(self, buffer: bytearray | memoryview) -> None:
        """Write the next bytes of the stream over a whole buffer.

        Args:
            buffer: Of bytes (format "B"), contiguous, of any length.

        Raises:
            CryptoError: When the stream would be longer than its counter counts.
        """
        view = memoryview(buffer)
        if len(view) > self._left:
            raise CryptoError(f"a secret stream has at most {_MOST_STREAMED} bytes; draw another key for more")
        self._left -= len(view)
        for start in range(0, len(view), BLOCK_SIZE):
            part = view[start : start + BLOCK_SIZE]
            self._update_into(_ZEROS[: len(part)], part)


@lru_cache(maxsize=2)
def _hpke(suite: Suite) -> hpke.Suite:
    kem = hpke.KEM.X25519 if suite is Suite.CLASSIC else hpke.KEM.MLKEM768_X25519
    return hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


def checked_label(label: bytes) -> bytes:
    """Return a label; refuse one that is not versioned.

    Raises:
        CryptoError: When it does not begin as every label does, or names no purpose.
    """
    if not label.startswith(_PREFIX) or len(label) == len(_PREFIX):
        raise CryptoError(f"a label begins with {_PREFIX.decode()} and names a purpose")
    return label


def signature_label(label: bytes) -> bytes:
    """Return a label if signatures may use it: both kinds of signature have room for 255 bytes.

    Raises:
        CryptoError: When it is longer, or not versioned.
    """
    if len(label) > _MOST_LABEL:
        raise CryptoError(f"a label of {len(label)} bytes, where a signature's has at most {_MOST_LABEL}")
    return checked_label(label)


def sized(value: bytes, size: int, what: str) -> bytes:
    """Return a value; refuse one of another length.

    Raises:
        CryptoError: When it has another length; the message names it by `what`.
    """
    if len(value) != size:
        raise CryptoError(f"{what} of {len(value)} bytes, where {size} are needed")
    return value


def _framed(label: bytes, message: bytes) -> bytes:
    """Return the bytes to sign: the label's length, the label, the message.

    A label is shorter than 256 bytes, so the first byte is 0. This alone distinguishes these bytes from a note.
    """
    return len(signature_label(label)).to_bytes(2, "big") + label + message


def _note(text: bytes) -> bytes:
    """Refuse a note's text that could be mistaken for a message with its label or for X.509, or that is no text.

    Everything that X.509 signs names its algorithm, whose tag is the control character 0x06.
    """
    if not text or not 0x21 <= text[0] <= 0x7E or not text.endswith(b"\n"):
        raise CryptoError("a note's text begins with a printable ASCII character, not a space, and ends with a newline")
    if any(byte < 0x20 and byte != 0x0A for byte in text):
        raise CryptoError("a note's text has no control characters but newlines")
    return text
