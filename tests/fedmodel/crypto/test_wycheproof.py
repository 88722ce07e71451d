"""X25519 against Wycheproof's vectors, and against a ladder of our own at the points that they aim at.

`vectors/x25519.json` holds each vector's keys, shared secret and flags, and names their source and licence.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from fedmodel import crypto
from fedmodel.crypto import AgreementKey
from fedmodel.errors import CryptoError

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "x25519.json").read_text(encoding="utf-8"))
P = 2**255 - 19


class Scalar(AgreementKey):
    """The key pair under test, with a scalar that is given and not derived."""

    def __init__(self, private: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()


def ladder(private: bytes, public: bytes) -> bytes:
    """X25519 by RFC 7748, section 5, in plain integers."""
    scalar = int.from_bytes(private, "little") & ~(7 | 1 << 255) & (2**256 - 1) | 1 << 254
    u = int.from_bytes(public, "little") % 2**255 % P
    x2, z2, x3, z3 = 1, 0, u, 1
    for place in range(254, -1, -1):
        if scalar >> place & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        x3, z3 = (d * a + c * b) ** 2 % P, u * (d * a - c * b) ** 2 % P
        x2, z2 = a * a * b * b % P, (a * a - b * b) * (a * a + 121665 * (a * a - b * b)) % P
        if scalar >> place & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, -1, P) % P if z2 else 0).to_bytes(32, "little")


def check(private: bytes, public: bytes, shared: bytes) -> str:
    """Hold one vector: what we take agrees, and what we refuse is of small order or not in its one encoding."""
    canonical = int.from_bytes(public, "little") < P
    if shared == bytes(32):
        with pytest.raises(CryptoError):
            crypto.check_agreement_key(public)
        with pytest.raises(CryptoError, match="small order"):
            Scalar(private).agree(public)
        return "small order"
    if not canonical:
        with pytest.raises(CryptoError, match="one encoding"):
            crypto.check_agreement_key(public)
    else:
        crypto.check_agreement_key(public)
    assert Scalar(private).agree(public) == shared
    return "agrees" if canonical else "not canonical"


def test_every_vector_of_wycheproof() -> None:
    assert "at commit 531e301a" in VECTORS["source"]
    outcomes: Counter[str] = Counter()
    for *keys, flags in VECTORS["vectors"]:
        private, public, shared = map(bytes.fromhex, keys)
        assert ladder(private, public) == shared
        outcome = check(private, public, shared)
        assert (outcome == "small order") == ("ZeroSharedSecret" in flags)
        assert outcome != "agrees" or "NonCanonicalPublic" not in flags
        outcomes[outcome] += 1
    assert outcomes == {"agrees": 474, "small order": 31, "not canonical": 13}


# What the file's flags are about: small keys, keys on the twist, keys near the modulus and past it, the top bit, and
# private keys of few or of all bits.
EDGES = [*range(20), *(P + place for place in range(-20, 19)), *(2**255 + place for place in (2, 9, 2**254)),
         *(1 << bit for bit in range(2, 255, 23)), 2**255 - 1]  # fmt: skip
PRIVATE = [bytes(32), b"\xff" * 32, (1 << 254).to_bytes(32, "little"), bytes(range(32))]


@pytest.mark.parametrize("private", PRIVATE)
def test_keys_at_the_edges_agree_with_the_ladder_or_are_refused(private: bytes) -> None:
    outcomes = set()
    for value in EDGES:
        public = value.to_bytes(32, "little")
        outcomes.add(check(private, public, ladder(private, public)))
    assert outcomes == {"small order", "not canonical", "agrees"}


@given(private=st.binary(min_size=32, max_size=32), public=st.binary(min_size=32, max_size=32))
def test_any_key_agrees_with_the_ladder(private: bytes, public: bytes) -> None:
    """Half of these are on the twist."""
    ours = X25519PrivateKey.from_private_bytes(private)
    try:
        shared = ours.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        shared = bytes(32)
    assert shared == ladder(private, public)
