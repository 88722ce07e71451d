"""ML-DSA-65 against published answers, its context against FIPS 204's text, and each refusal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files

import pytest
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from hypothesis import given
from hypothesis import strategies as st

from fedmodel.crypto import PostQuantumKey, postquantum, verify_post_quantum
from fedmodel.errors import CryptoError

LABEL = b"fedmodel/v1/test"
KEY, OTHER = PostQuantumKey(bytes([1]) * 32), PostQuantumKey(bytes([2]) * 32)
SIGNATURE = KEY.sign(LABEL, b"message")
VECTORS = "asymmetric/MLDSA/kat_MLDSA_65_det_pure.rsp"


def known_answers() -> Iterator[dict[str, str]]:
    record: dict[str, str] = {}
    for line in (files("cryptography_vectors") / VECTORS).read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() == "count" and record:
            yield record
            record = {}
        if equals:
            record[name.strip()] = value.strip()
    yield record


def message_representative(public: bytes, context: bytes, message: bytes) -> bytes:
    """FIPS 204, algorithms 2 and 7, on SHAKE256 alone: mu = H(H(pk, 64) || 0 || |ctx| || ctx || M, 64)."""
    framed = bytes([0, len(context)]) + context + message
    return hashlib.shake_256(hashlib.shake_256(public).digest(64) + framed).digest(64)


def test_keys_and_signatures_are_the_published_ones() -> None:
    """A seed gives the published public key, and the published signature of a message in a context verifies."""
    count = 0
    for record in known_answers():
        key = PostQuantumKey(bytes.fromhex(record["xi"]))
        message, context = bytes.fromhex(record["msg"]), bytes.fromhex(record["ctx"])
        signed = bytes.fromhex(record["sm"])
        assert signed[postquantum.POST_QUANTUM_SIGNATURE_SIZE :] == message
        assert key.public == bytes.fromhex(record["pk"])
        public = MLDSA65PublicKey.from_public_bytes(key.public)
        public.verify(signed[:3309], message, context)
        with pytest.raises(InvalidSignature):
            public.verify(signed[:3309], message, context + b"x")
        count += 1
    assert count >= 10


def test_the_label_is_the_context_of_fips_204() -> None:
    public = MLDSA65PublicKey.from_public_bytes(KEY.public)
    public.verify(SIGNATURE, b"message", LABEL)
    public.verify_mu(SIGNATURE, message_representative(KEY.public, LABEL, b"message"))
    for context in (b"", LABEL + b"m"):
        with pytest.raises(InvalidSignature):
            public.verify_mu(SIGNATURE, message_representative(KEY.public, context, b"message"))


def test_what_another_signer_signs_in_our_context_verifies_here() -> None:
    seed = bytes([1]) * 32
    verify_post_quantum(KEY.public, LABEL, b"m", MLDSA65PrivateKey.from_seed_bytes(seed).sign(b"m", LABEL))
    plain = MLDSA65PrivateKey.from_seed_bytes(seed).sign(b"m")
    with pytest.raises(CryptoError, match="does not verify"):
        verify_post_quantum(KEY.public, LABEL, b"m", plain)


@given(st.binary(max_size=200))
def test_what_was_signed_verifies(message: bytes) -> None:
    verify_post_quantum(KEY.public, LABEL, message, KEY.sign(LABEL, message))


def test_signatures_are_hedged() -> None:
    assert KEY.sign(LABEL, b"message") != SIGNATURE
    assert (len(KEY.public), len(SIGNATURE)) == (1952, 3309)
    assert PostQuantumKey.generate().public != PostQuantumKey.generate().public


@pytest.mark.parametrize(
    ("public", "label", "message"),
    [
        (OTHER.public, LABEL, b"message"),
        (KEY.public, LABEL + b"2", b"message"),
        (KEY.public, LABEL + b"m", b"essage"),
        (KEY.public, LABEL, b"messagf"),
        (KEY.public, LABEL, b""),
        (b"\xff" * 1952, LABEL, b"message"),
    ],
)
def test_it_holds_for_its_key_label_and_message_alone(public: bytes, label: bytes, message: bytes) -> None:
    with pytest.raises(CryptoError, match="does not verify"):
        verify_post_quantum(public, label, message, SIGNATURE)


@given(st.integers(min_value=0, max_value=3309 * 8 - 1))
def test_one_flipped_bit_is_refused(bit: int) -> None:
    changed = bytearray(SIGNATURE)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CryptoError, match="does not verify"):
        verify_post_quantum(KEY.public, LABEL, b"message", bytes(changed))


def test_other_lengths_and_labels_are_refused() -> None:
    for size in (0, 31, 33, 64):
        with pytest.raises(CryptoError, match=f"seed of an ML-DSA-65 key of {size} bytes, where 32"):
            PostQuantumKey(bytes(size))
    with pytest.raises(CryptoError, match="1951 bytes, where 1952"):
        verify_post_quantum(KEY.public[:-1], LABEL, b"message", SIGNATURE)
    with pytest.raises(CryptoError, match="3310 bytes, where 3309"):
        verify_post_quantum(KEY.public, LABEL, b"message", SIGNATURE + b"x")
    for label, words in [
        (b"", "a label begins"),
        (b"other/v1/x", "a label begins"),
        (LABEL + b"x" * 250, "at most 255"),
    ]:
        with pytest.raises(CryptoError, match=words):
            KEY.sign(label, b"message")
        with pytest.raises(CryptoError, match=words):
            verify_post_quantum(KEY.public, label, b"message", SIGNATURE)
    longest = LABEL + b"x" * (255 - len(LABEL))
    verify_post_quantum(KEY.public, longest, b"m", KEY.sign(longest, b"m"))


def test_a_build_without_it_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        @staticmethod
        def refuse(_: bytes) -> None:
            raise UnsupportedAlgorithm("ML-DSA-65 is not supported by this backend.")

        from_seed_bytes = from_public_bytes = refuse

    monkeypatch.setattr(postquantum, "MLDSA65PrivateKey", Without)
    monkeypatch.setattr(postquantum, "MLDSA65PublicKey", Without)
    with pytest.raises(CryptoError, match="has no ML-DSA-65"):
        PostQuantumKey(bytes(32))
    with pytest.raises(CryptoError, match="has no ML-DSA-65"):
        verify_post_quantum(KEY.public, LABEL, b"message", SIGNATURE)
