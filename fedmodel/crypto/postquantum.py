"""ML-DSA-65 (FIPS 204): signatures that a quantum computer does not forge, beside Ed25519 and never in its place.

The label is ML-DSA's context string, and is not put before the message as with Ed25519. FIPS 204 (section 5.2,
algorithms 2 and 3) frames a context by its length before hashing, which keeps labels apart as well. X.509 and CMS sign
with the empty context (RFC 9881, RFC 9882), so no signature made here passes for a certificate's, whatever the message.
Any implementation with a context string can check these signatures.

Signing is hedged: fresh randomness enters each signature, so two signatures of one message differ, and a weak generator
alone does not reveal the key. The private key is its 32-byte seed (FIPS 204, section 3.6.3).

Does NOT say that the holder of the Ed25519 key also holds this key: whoever relies on both must check both. The
cryptanalysis of ML-DSA is young, which is why it stands beside Ed25519.
"""

from __future__ import annotations

from typing import Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from fedmodel.crypto.primitives import KEY_SIZE, digest, random_bytes, signature_label, sized
from fedmodel.errors import CryptoError

POST_QUANTUM_PUBLIC_SIZE: Final = 1952
POST_QUANTUM_SIGNATURE_SIZE: Final = 3309


class PostQuantumKey:
    """An ML-DSA-65 key pair; signatures are bound to a label.

    Args:
        seed: 32 bytes, uniform. Sensitive.

    Raises:
        CryptoError: When the seed has another length, or this build of `cryptography` has no ML-DSA.
    """

    def __init__(self, seed: bytes) -> None:
        sized(seed, KEY_SIZE, "the seed of an ML-DSA-65 key")
        try:
            self._key = MLDSA65PrivateKey.from_seed_bytes(seed)
        except UnsupportedAlgorithm:
            raise _missing() from None
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        """Return a new key from the operating system's CSPRNG."""
        return cls(random_bytes(KEY_SIZE))

    def sign(self, label: bytes, message: bytes) -> bytes:
        """Return a 3,309-byte signature of a message for one purpose.

        Raises:
            CryptoError: When the label is not versioned, or longer than 255 bytes.
        """
        return self._key.sign(message, signature_label(label))


def verify_post_quantum(public: bytes, label: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature.

    Raises:
        CryptoError: When it is not the signature of this message, for this purpose, by this key.
    """
    sized(public, POST_QUANTUM_PUBLIC_SIZE, "an ML-DSA-65 verification key")
    sized(signature, POST_QUANTUM_SIGNATURE_SIZE, "an ML-DSA-65 signature")
    try:
        MLDSA65PublicKey.from_public_bytes(public).verify(signature, message, signature_label(label))
    except (InvalidSignature, ValueError):
        raise CryptoError("an ML-DSA-65 signature does not verify") from None
    except UnsupportedAlgorithm:
        raise _missing() from None


def post_quantum_hash(public: bytes) -> str:
    """Return the hash by which a `silo.toml` names a server's ML-DSA key, 64 hex digits: the key has 1,952 bytes."""
    return digest(b"fedmodel/v1/post-quantum-key", sized(public, POST_QUANTUM_PUBLIC_SIZE, "an ML-DSA-65 key")).hex()


def _missing() -> CryptoError:
    return CryptoError(
        "this build of `cryptography` has no ML-DSA-65, since its OpenSSL is too old; install its wheel from PyPI, or "
        "set post_quantum = false"
    )
