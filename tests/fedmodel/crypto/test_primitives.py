"""Our primitives against published vectors, and each refusal that the protocol rests on.

Vectors come from the `cryptography-vectors` package: RFC 7748, RFC 8032's sign.input, RFC 5869, RFC 3686, NIST's, RFC
9180 and the post-quantum HPKE draft's. Where our own interface adds a label, the test computes the plain function.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from importlib.resources import files

import pytest
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl as rust
from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from fedmodel import crypto
from fedmodel.crypto import AgreementKey, SealingKey, SigningKey, Suite, primitives
from fedmodel.errors import CryptoError

LABEL = b"fedmodel/v1/test"


def vectors(path: str) -> Iterator[dict[str, str]]:
    """The records of a vector file in the `NAME = value` form."""
    record: dict[str, str] = {}
    for line in (files("cryptography_vectors") / path).read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() == "COUNT" and record:
            yield record
            record = {}
        if equals:
            record[name.strip().lower()] = value.strip()
    if record:
        yield record


def hkdf(secret: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869 from its text, on HMAC alone."""
    pseudorandom = hmac.digest(salt or bytes(32), secret, "sha256")
    output, block = b"", b""
    for counter in range(1, size // 32 + 2):
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), "sha256")
        output += block
    return output[:size]


def test_hkdf_is_rfc_5869() -> None:
    count = 0
    for record in vectors("KDF/rfc-5869-HKDF-SHA256.txt"):
        secret, salt, info = (bytes.fromhex(record[name]) for name in ("ikm", "salt", "info"))
        assert hkdf(secret, salt, info, int(record["l"])).hex() == record["okm"]
        count += 1
    assert count == 3
    secret, context = bytes(range(32)), b"somewhere"
    info = len(LABEL).to_bytes(2, "big") + LABEL + context
    assert crypto.derive_key(secret, LABEL, context, 77) == hkdf(secret, b"", info, 77)


def test_x25519_is_rfc_7748() -> None:
    count = 0
    for record in vectors("asymmetric/X25519/rfc7748.txt"):
        if "input_scalar" not in record:
            continue
        key = X25519PrivateKey.from_private_bytes(bytes.fromhex(record["input_scalar"]))
        shared = key.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(record["input_u"])))
        assert shared.hex() == record["output_u"]
        count += 1
    assert count >= 2


def test_agreement_is_x25519_on_a_derived_key() -> None:
    alice, bob = (AgreementKey(bytes([n]) * 32, LABEL, b"ctx") for n in (1, 2))
    plain = X25519PrivateKey.from_private_bytes(crypto.derive_key(bytes([1]) * 32, LABEL, b"ctx"))
    assert alice.agree(bob.public) == bob.agree(alice.public)
    assert alice.agree(bob.public) == plain.exchange(X25519PublicKey.from_public_bytes(bob.public))
    # The secret alone brings the key back; another context brings another.
    assert AgreementKey(bytes([1]) * 32, LABEL, b"ctx").public == alice.public
    assert AgreementKey(bytes([1]) * 32, LABEL, b"cty").public != alice.public


# The u-coordinates of small order (RFC 7748, section 6.1; the list that Wycheproof tests): 0, 1, the two of order 8,
# and p - 1, p and p + 1, where the last two are encodings that are not reduced.
SMALL_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    2**255 - 20,
    2**255 - 19,
    2**255 - 18,
]


@pytest.mark.parametrize("point", SMALL_ORDER)
@pytest.mark.parametrize("top_bit", [0, 1])
def test_points_of_small_order_are_refused(point: int, top_bit: int) -> None:
    key = AgreementKey(bytes(32), LABEL, b"")
    with pytest.raises(CryptoError, match="small order"):
        key.agree((point | top_bit << 255).to_bytes(32, "little"))


def test_ones_own_key_and_wrong_lengths_are_refused() -> None:
    key = AgreementKey(bytes(32), LABEL, b"")
    for echo in (key.public, key.public[:-1] + bytes([key.public[-1] | 0x80])):
        with pytest.raises(CryptoError, match="our own"):
            key.agree(echo)
    for peer in (b"", key.public[:-1], key.public + b"\0"):
        with pytest.raises(CryptoError, match="32 are needed"):
            key.agree(peer)


def test_signatures_are_ed25519_over_label_and_message() -> None:
    count = 0
    for line in (files("cryptography_vectors") / "asymmetric/Ed25519/sign.input").read_text().splitlines()[:200]:
        private, public, message, signed, _ = line.split(":")
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private)[:32])
        assert key.sign(bytes.fromhex(message)).hex() == signed[:128]
        ours = SigningKey(bytes.fromhex(private)[:32])
        assert ours.public.hex() == public
        framed = len(LABEL).to_bytes(2, "big") + LABEL + bytes.fromhex(message)
        assert ours.sign(LABEL, bytes.fromhex(message)) == key.sign(framed)
        count += 1
    assert count == 200


@given(st.binary(max_size=64), st.integers(0, 63 * 8 + 7))
def test_a_signature_holds_for_its_key_purpose_and_message_alone(message: bytes, bit: int) -> None:
    key, other = SigningKey(bytes([7]) * 32), SigningKey(bytes([8]) * 32)
    signature = key.sign(LABEL, message)
    crypto.verify(key.public, LABEL, message, signature)
    flipped = (int.from_bytes(signature, "big") ^ 1 << bit).to_bytes(64, "big")
    for public, label, text, signed in [
        (other.public, LABEL, message, signature),
        (key.public, LABEL + b"2", message, signature),
        (key.public, LABEL, message + b"\0", signature),
        (key.public, LABEL, message, flipped),
        (key.public, LABEL, message, signature[:-1]),
    ]:
        with pytest.raises(CryptoError):
            crypto.verify(public, label, text, signed)


def test_a_label_and_a_message_cannot_trade_bytes() -> None:
    key = SigningKey(bytes([7]) * 32)
    with pytest.raises(CryptoError):
        crypto.verify(key.public, b"fedmodel/v1/ab", b"c", key.sign(b"fedmodel/v1/a", b"bc"))


@pytest.mark.parametrize("label", [b"", b"test", b"fedmodel/v1/", b"fedmodel/v2/test"])
def test_a_label_is_versioned_and_names_a_purpose(label: bytes) -> None:
    with pytest.raises(CryptoError, match="names a purpose"):
        crypto.digest(label)


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_a_digest_tells_lists_of_parts_apart(first: list[bytes], second: list[bytes]) -> None:
    assert (crypto.digest(LABEL, *first) == crypto.digest(LABEL, *second)) == (first == second)


def test_the_digest_is_frozen() -> None:
    framed = (16).to_bytes(8, "big") + LABEL + (2).to_bytes(8, "big") + b"ab"
    assert crypto.digest(LABEL, b"ab") == hashlib.sha256(framed).digest()


def test_suites_share_no_key() -> None:
    classic, hybrid = (
        SealingKey(suite, bytes([3]) * 32, b"ctx").public for suite in (Suite.CLASSIC, Suite.POST_QUANTUM)
    )
    assert hybrid[-32:] != classic


def test_a_short_secret_derives_nothing() -> None:
    for size in (0, 8161):
        with pytest.raises(CryptoError, match="cannot be derived"):
            crypto.derive_key(bytes(32), LABEL, b"", size)
    with pytest.raises(CryptoError, match="too short"):
        crypto.derive_key(bytes(31), LABEL, b"")


@pytest.mark.parametrize(
    ("path", "kem"), [("HPKE/test-vectors.json", 0x20), ("HPKE/hpke-pq-test-vectors.json", 0x647A)]
)
def test_hpke_opens_the_published_ciphertexts(path: str, kem: int) -> None:
    """Both suites as used here: base mode, HKDF-SHA256, ChaCha20-Poly1305 (RFC 9180; X-Wing for the hybrid)."""
    opened = 0
    for record in json.loads((files("cryptography_vectors") / path).read_text()):
        if (record["mode"], record["kem_id"], record["kdf_id"], record["aead_id"]) != (0, kem, 1, 3):
            continue
        suite = Suite.CLASSIC if kem == 0x20 else Suite.POST_QUANTUM
        first = record["encryptions"][0]
        private = bytes.fromhex(record["skRm"])
        if suite is Suite.CLASSIC:
            key = X25519PrivateKey.from_private_bytes(private)
        else:
            expanded = hashlib.shake_256(private).digest(96)
            key = primitives.hpke.MLKEM768X25519PrivateKey(
                mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
                X25519PrivateKey.from_private_bytes(expanded[64:]),
            )
        plaintext = rust.hpke._decrypt_with_aad(
            primitives._hpke(suite),
            bytes.fromhex(record["enc"]) + bytes.fromhex(first["ct"]),
            key,
            bytes.fromhex(record["info"]),
            bytes.fromhex(first["aad"]),
        )
        assert plaintext.hex() == first["pt"]
        opened += 1
    assert opened == 1


@pytest.mark.parametrize("suite", list(Suite))
def test_what_is_sealed_opens_for_its_key_and_context_alone(suite: Suite) -> None:
    key = SealingKey(suite, bytes([3]) * 32, b"round 1")
    sealed = crypto.seal(suite, key.public, b"a share", b"from 1 to 2")
    assert key.open(sealed, b"from 1 to 2") == b"a share"
    assert SealingKey(suite, bytes([3]) * 32, b"round 1").open(sealed, b"from 1 to 2") == b"a share"
    assert crypto.seal(suite, key.public, b"a share", b"from 1 to 2") != sealed
    others = [(key, b"from 1 to 3"), (SealingKey(suite, bytes([3]) * 32, b"round 2"), b"from 1 to 2")]
    for other, context in others:
        with pytest.raises(CryptoError, match="does not open"):
            other.open(sealed, context)
    flipped = [bytes([sealed[0] ^ 1]) + sealed[1:], sealed[:-1] + bytes([sealed[-1] ^ 1])]
    for broken in (b"", sealed[:-1], sealed + b"\0", *flipped):
        if broken != sealed:
            with pytest.raises(CryptoError, match="does not open"):
                key.open(broken, b"from 1 to 2")


@pytest.mark.parametrize("suite", list(Suite))
def test_sealing_to_what_is_no_key_is_refused(suite: Suite) -> None:
    size = len(SealingKey(suite, bytes(32), b"").public)
    for public in (b"", bytes(size - 1), bytes(size + 1)):
        with pytest.raises(CryptoError, match="are needed"):
            crypto.seal(suite, public, b"x", b"")
    with pytest.raises(CryptoError):
        crypto.seal(suite, bytes(size), b"x", b"")  # the all-zero point is of small order


def test_the_two_suites_do_not_open_each_others() -> None:
    classic, hybrid = (SealingKey(suite, bytes([3]) * 32, b"") for suite in (Suite.CLASSIC, Suite.POST_QUANTUM))
    with pytest.raises(CryptoError):
        hybrid.open(crypto.seal(Suite.CLASSIC, classic.public, b"x", b""), b"")


def test_the_cipher_beneath_the_keystream_is_aes_256_in_counter_mode() -> None:
    count = 0
    for record in vectors("ciphers/AES/CTR/aes-256-ctr.txt"):
        key, start, plain = (bytes.fromhex(record[name]) for name in ("key", "iv", "plaintext"))
        encryptor = Cipher(algorithms.AES256(key), modes.CTR(start)).encryptor()
        assert encryptor.update(plain).hex() == record["ciphertext"].lower()
        count += 1
    assert count == 3


def stream(key: bytes, size: int, start: int = 0) -> bytes:
    """The stream in pieces of a block and a rest, as a mask takes it."""
    source, buffer, pieces = crypto.Keystream(key, start), bytearray(crypto.BLOCK_SIZE + 15), []
    for begin in range(0, size, crypto.BLOCK_SIZE):
        length = min(crypto.BLOCK_SIZE, size - begin)
        source.fill(buffer, length)
        pieces.append(bytes(buffer[:length]))
    return b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 256 * 1024, 256 * 1024 + 1, 700_000])
def test_the_keystream_is_the_cipher_from_a_zero_counter(size: int) -> None:
    key = bytes(range(32))
    expected = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(size))
    assert stream(key, size) == expected


def test_the_keystreams_first_block_is_nists_aes_256() -> None:
    """SP 800-38A's F.1.5 key: the block cipher itself on a zero block, which is what counter zero encrypts."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update(bytes(16))  # noqa: S305 - one known block
    assert stream(key, 16) == block
    nist = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305
    assert nist.update(bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")).hex() == "f3eed1bdb5d2a03c064b5a7e3db181f8"


@pytest.mark.parametrize("start", [16, 4096, 256 * 1024])
def test_a_keystream_from_a_later_byte_is_the_rest_of_it(start: int) -> None:
    key = bytes(range(32))
    assert stream(key, 300_000, start) == stream(key, start + 300_000)[start:]
    with pytest.raises(CryptoError, match="multiple of 16"):
        crypto.Keystream(key, start + 1)


def test_the_cipher_beneath_secret_streams_is_chacha20() -> None:
    count = 0
    for record in vectors("ciphers/ChaCha20/rfc7539.txt"):
        start = int(record["initial_block_counter"]).to_bytes(4, "little") + bytes.fromhex(record["nonce"])
        encryptor = Cipher(algorithms.ChaCha20(bytes.fromhex(record["key"]), start), mode=None).encryptor()
        assert encryptor.update(bytes.fromhex(record["plaintext"])).hex() == record["ciphertext"].lower()
        count += 1
    assert count == 3


def secret_stream(key: bytes, *sizes: int) -> bytes:
    source, pieces = crypto.SecretStream(key), [bytearray(size) for size in sizes]
    for piece in pieces:
        source.fill(piece)
    return b"".join(pieces)


def test_a_secret_stream_begins_as_the_standard_says() -> None:
    """RFC 8439, appendix A.1: the blocks of counters 0 and 1, under a key and a nonce of zeros."""
    assert secret_stream(bytes(32), 128).hex() == (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )


@pytest.mark.parametrize("sizes", [(0,), (1, 2, 61), (64, 5), (256 * 1024, 1), (256 * 1024 + 1, 77), (700_000, 3)])
def test_a_secret_stream_goes_on_where_it_was(sizes: tuple[int, ...]) -> None:
    key = bytes(range(32))
    expected = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(sum(sizes)))
    assert secret_stream(key, *sizes) == expected


def test_a_secret_stream_ends_before_its_counter_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(primitives, "_MOST_STREAMED", 100)
    assert len(secret_stream(bytes(32), 60, 40)) == 100
    source, buffer = crypto.SecretStream(bytes(32)), bytearray(41)
    source.fill(bytearray(60))
    with pytest.raises(CryptoError, match="at most 100 bytes; draw another key"):
        source.fill(buffer)
    assert buffer == bytes(41)
    with pytest.raises(CryptoError, match="32 are needed"):
        crypto.SecretStream(bytes(31))


def test_random_streams_are_never_the_same_and_have_their_length() -> None:
    for size in (0, 1, 16, 300_001):
        assert len(crypto.random_stream(size)) == size
    assert crypto.random_stream(32) != crypto.random_stream(32)


def test_long_vectors_are_hashed_by_blake3_under_their_label() -> None:
    """The reference's own vectors: 251 repeating bytes, its derive_key mode, its context string."""
    context, published = "BLAKE3 2019-12-27 16:29:52 test vectors context", {
        0: "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d",
        1: "b3e2e340a117a499c6cf2398a19ee0d29cca2bb7404c73063382693bf66cb06c",
    }  # fmt: skip
    for size, expected in published.items():
        data = bytes(place % 251 for place in range(size))
        assert blake3(data, derive_key_context=context).hexdigest() == expected
    label = b"fedmodel/v1/doctest"
    assert crypto.digest_words(label, b"ab") == blake3(b"ab", derive_key_context=label.decode()).digest()
    assert crypto.digest_words(label, b"ab") != crypto.digest_words(label + b"2", b"ab")


# The eight points of edwards25519 whose order divides 8, found here by arithmetic and not by a list.
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P


def _add(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = one, other
    cross = _D * x1 * x2 * y1 * y2 % _P
    x = (x1 * y2 + x2 * y1) * pow(1 + cross, -1, _P) % _P
    return x, (y1 * y2 + x1 * x2) * pow(1 - cross, -1, _P) % _P


def _x_of(y: int) -> int | None:
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    root = pow(square, (_P + 3) // 8, _P)
    if root * root % _P != square:
        root = root * pow(2, (_P - 1) // 4, _P) % _P
    return root if root * root % _P == square else None


def _times(point: tuple[int, int], count: int) -> tuple[int, int]:
    total = (0, 1)
    for bit in bin(count)[2:]:
        total = _add(total, total)
        if bit == "1":
            total = _add(total, point)
    return total


def test_every_verification_key_of_small_order_is_refused() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    small: set[int] = set()
    for y in range(2, 60):
        x = _x_of(y)
        if x is not None:
            point = _times((x, y), order)  # what is left has an order that divides 8
            small |= {_times(point, times)[1] for times in range(8)}
    assert len(small) == 5
    for y in small:
        for sign in (0, 0x80):
            encoded = bytearray(y.to_bytes(32, "little"))
            encoded[-1] |= sign
            with pytest.raises(CryptoError, match="small order"):
                crypto.check_verification_key(bytes(encoded))
    for value in (_P, _P + 1, 2**255 - 1):
        with pytest.raises(CryptoError, match="one encoding"):
            crypto.check_verification_key(value.to_bytes(32, "little"))
    crypto.check_verification_key(SigningKey.generate().public)


@pytest.mark.parametrize("value", [_P, _P + 9, 2**255 - 1, 2**255 + 9])
def test_an_agreement_key_in_another_encoding_is_refused(value: int) -> None:
    with pytest.raises(CryptoError, match="one encoding"):
        crypto.check_agreement_key(value.to_bytes(32, "little"))
    crypto.check_agreement_key((9).to_bytes(32, "little"))


def test_the_cipher_of_sealed_messages_is_rfc_8439() -> None:
    """HPKE's published ciphertexts, above, are in AES-GCM and in this; here is the cipher alone."""
    count = 0
    for record in vectors("ciphers/ChaCha20Poly1305/openssl.txt"):
        key, nonce, aad, plain, tag, cipher = (
            bytes.fromhex(record[name]) for name in ("key", "iv", "aad", "plaintext", "tag", "ciphertext")
        )
        if len(nonce) != 12:
            continue
        if "result" in record:
            with pytest.raises(InvalidTag):
                ChaCha20Poly1305(key).decrypt(nonce, cipher + tag, aad)
        else:
            assert ChaCha20Poly1305(key).encrypt(nonce, plain, aad) == cipher + tag
        count += 1
    assert count >= 2
