"""Signed heads against notes that other implementations signed, every refusal, and what a keeper of heads notices."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import example, given
from hypothesis import strategies as st

from fedmodel import crypto
from fedmodel.crypto import SigningKey
from fedmodel.errors import ConfigError, CryptoError, LedgerError, LedgerTampered
from fedmodel.ledger import merkle
from fedmodel.ledger.heads import (
    MOST_ENTRIES,
    MOST_NOTE,
    MOST_PROOF,
    Head,
    Proven,
    follow,
    open_head,
    sign_head,
    verifier_key,
)
from fedmodel.system.counts import counted

KEY, OTHER = SigningKey(bytes([7]) * 32), SigningKey(bytes([8]) * 32)
ORIGIN = "north.example/ledger"
ROOT = hashlib.sha256(b"some root").digest()
HEAD = Head(ORIGIN, 20852163, ROOT)
NOTE = sign_head(HEAD, KEY)

# The example of Go's golang.org/x/mod/sumdb/note, whose format C2SP's signed-note is.
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
NEUMANN_TEXT = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NEUMANN_SIGNED = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="

# Three checkpoints of Sigstore's log, whose origin is the name of its key, as public test suites quote them. A witness
# signed the second one too.
REKOR = "log2025-1.rekor.sigstore.dev"
REKOR_KEY = f"{REKOR}+cf119915+AbfK5adZJxsI323FwGD2AJJ9F4i89cfDuLdGJBIYntuO"
REKOR_NOTES = [
    (
        412115,
        "+8vUkEgBK/ansexBUomzocaWoPEmPIzxJC/y+xNMQN4=",
        "zxGZFahCZ/+MqTjH4rC5MWcdLDWbpetE5l30RZfQc4BQkRjWSoKipEUPjvHENeZDHIlAsuezJcLzUVvItpNjaSRoMAs=",
        "",
    ),
    (
        139911860,
        "EliTHtnx44DhEBH+5qIXBtQsSpc54Avam7mIYEvxnTA=",
        "zxGZFcOra4Y7QpuiQen+CmnUvDZbxSXfBOXJzL+HKIeR9aC58QTfao58ABqkhVyBhQDseS+TZdDNpcnZhoRxkh7IbQ0=",
        "— witness.stagemole.eu Z/euoAAAAABqxF18wrJCADsJ1G5Lc2JaRjZqqBwjpNqH24yQse4iJ4rKS6b5MtvHP+IbKYXwaWuWokdGA+BubLF"
        "i+TrwK7xpKr6XBw==\n",
    ),
    (
        34356369,
        "dA9mMr0smTXgo7nGsE01Zdc5KOOqTs2/zYfdSqxO+ks=",
        "zxGZFQZgTebN28s0D7vKP5gX8R+CsXCved700HCQAHgDHbdkaH3tfx7+DMPkccNhzsnSy7LijLzWMa+evZduylLs0wc=",
        "",
    ),
]

# The example of C2SP's tlog-checkpoint: the signature is that of Go's checksum database, of which the specification
# shows another origin.
SUMDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
SUMDB_TEXT = b"go.sum database tree\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
SUMDB_SIGNED = "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8="


def public_of(vkey: str) -> bytes:
    return base64.b64decode(vkey.split("+", 2)[2])[1:]


def refused(note: bytes | str, rule: str | None = None, origin: str = ORIGIN, public: bytes = KEY.public) -> None:
    with pytest.raises(LedgerTampered, match=rule) as caught:
        open_head(note if isinstance(note, bytes) else note.encode(), origin, public)
    assert str(caught.value).startswith(f"{origin}: ")
    assert "\n" not in str(caught.value)


def line(name: str, signature: bytes) -> bytes:
    return f"— {name} {base64.b64encode(signature).decode()}\n".encode()


def signed(text: bytes, key: SigningKey = KEY) -> bytes:
    """A text that need not be a head's, signed as one."""
    key_id = bytes.fromhex(verifier_key(ORIGIN, key.public).split("+")[1])
    return text + b"\n" + line(ORIGIN, key_id + key.sign_note(text))


def test_a_note_is_signed_as_go_signs_it() -> None:
    private = base64.b64decode(NEUMANN_PRIVATE.split("+", 4)[4])
    key = SigningKey(private[1:])
    assert private[:1] == b"\x01"
    assert verifier_key("PeterNeumann", key.public) == NEUMANN
    signature = base64.b64decode(NEUMANN_SIGNED)
    assert signature[:4].hex() == "c74f20a3"
    assert key.sign_note(NEUMANN_TEXT) == signature[4:]
    crypto.verify_note(key.public, NEUMANN_TEXT, signature[4:])


def test_the_specifications_checkpoint_verifies() -> None:
    signature = base64.b64decode(SUMDB_SIGNED)
    assert verifier_key("sum.golang.org", public_of(SUMDB)) == SUMDB
    assert signature[:4].hex() == "033de0ae"
    crypto.verify_note(public_of(SUMDB), SUMDB_TEXT, signature[4:])
    # Of an origin with spaces, that is not its key's name: not one of ours.
    note = SUMDB_TEXT + b"\n" + line("sum.golang.org", signature)
    refused(note, "another origin", "sum.golang.org", public_of(SUMDB))


@pytest.mark.parametrize(("size", "root", "signature", "witness"), REKOR_NOTES)
def test_another_logs_checkpoints_open(size: int, root: str, signature: str, witness: str) -> None:
    public = public_of(REKOR_KEY)
    assert verifier_key(REKOR, public) == REKOR_KEY
    note = f"{REKOR}\n{size}\n{root}\n\n— {REKOR} {signature}\n{witness}"
    assert open_head(note.encode(), REKOR, public) == Head(REKOR, size, base64.b64decode(root))
    refused(note, "another origin")
    refused(note, "this has 0", REKOR)
    refused(note.replace(f"\n{size}\n", f"\n{size + 1}\n"), "does not verify", REKOR, public)


def test_a_signed_head_is_frozen() -> None:
    text = f"{ORIGIN}\n20852163\n{base64.b64encode(ROOT).decode()}\n".encode()
    key_id = hashlib.sha256(ORIGIN.encode() + b"\n\x01" + KEY.public).digest()[:4]
    plain = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32).sign(text)
    assert HEAD.body() == text
    assert text + b"\n" + line(ORIGIN, key_id + plain) == NOTE
    assert open_head(NOTE, ORIGIN, KEY.public) == HEAD


# --- Notes and messages with labels, under one key -------------------------------------------------------------------


def test_a_note_begins_with_a_printable_character() -> None:
    for first in range(256):
        text = bytes([first]) + b" and so on\n"
        plain = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32).sign(text)
        if 0x21 <= first <= 0x7E:
            assert KEY.sign_note(text) == plain
            crypto.verify_note(KEY.public, text, plain)
            continue
        with pytest.raises(CryptoError, match="printable"):
            KEY.sign_note(text)
        with pytest.raises(CryptoError, match="printable"):
            crypto.verify_note(KEY.public, text, plain)


@pytest.mark.parametrize("text", [b"", b"x", b"x\n\n ", b"x\r"])
def test_a_note_ends_with_a_newline(text: bytes) -> None:
    plain = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32).sign(text)
    with pytest.raises(CryptoError, match="newline"):
        KEY.sign_note(text)
    with pytest.raises(CryptoError, match="newline"):
        crypto.verify_note(KEY.public, text, plain)


@pytest.mark.parametrize("control", [b"\0", b"\2", b"\6", b"\t", b"\r", b"\x1f"])
def test_a_note_has_no_control_characters(control: bytes) -> None:
    """Whatever X.509 signs has some, so that an authority's key signs both."""
    text = b"0 and" + control + b"so on\n"
    with pytest.raises(CryptoError, match="control characters"):
        KEY.sign_note(text)
    with pytest.raises(CryptoError, match="control characters"):
        crypto.verify_note(KEY.public, text, Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32).sign(text))


def test_no_signature_with_a_label_passes_for_a_notes() -> None:
    """What is signed with a label begins with a zero byte; a label so long that it would not is refused."""
    framed = (16).to_bytes(2, "big") + b"fedmodel/v1/test" + b"message\n"
    signature = KEY.sign(b"fedmodel/v1/test", b"message\n")
    Ed25519PublicKey.from_public_bytes(KEY.public).verify(signature, framed)
    with pytest.raises(CryptoError, match="printable"):
        crypto.verify_note(KEY.public, framed, signature)
    longest = b"fedmodel/v1/" + b"x" * 243
    crypto.verify(KEY.public, longest, b"m", KEY.sign(longest, b"m"))
    for size in (256, 0x2100 + 20):
        label = (b"fedmodel/v1/" + b"x" * size)[:size]
        with pytest.raises(CryptoError, match="at most 255"):
            KEY.sign(label, b"m\n")
        with pytest.raises(CryptoError, match="at most 255"):
            crypto.verify(KEY.public, label, b"m\n", bytes(64))


def test_a_notes_signature_holds_for_its_key_and_text_alone() -> None:
    signature = KEY.sign_note(b"text\n")
    for public, text, value in [
        (OTHER.public, b"text\n", signature),
        (KEY.public, b"test\n", signature),
        (KEY.public, b"text\n\n", signature),
        (KEY.public, b"text\n", bytes([signature[0] ^ 1]) + signature[1:]),
        (KEY.public, b"text\n", KEY.sign(b"fedmodel/v1/test", b"text\n")),
    ]:
        with pytest.raises(CryptoError, match="does not verify"):
            crypto.verify_note(public, text, value)
    for public, value in ((KEY.public[:-1], signature), (KEY.public, signature[:-1]), (KEY.public, signature + b"\0")):
        with pytest.raises(CryptoError, match="are needed"):
            crypto.verify_note(public, b"text\n", value)


# --- What a head is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["a", "north", "a.example/x-1_~!*,", "x" * 200, "~"])
def test_an_origin(origin: str) -> None:
    head = Head(origin, 1, ROOT)
    assert open_head(sign_head(head, KEY), origin, KEY.public) == head


@pytest.mark.parametrize(
    "origin",
    [
        "",
        " ",
        "a b",
        "a+b",
        "+",
        "a\n",
        "\na",
        "a\nb",
        "a\t",
        "a\0",
        "a\x7f",
        "a\u00a0b",
        "é",
        "aé",
        "\ud800",
        "x" * 201,
    ],
)
def test_what_is_no_origin(origin: str) -> None:
    for make in (
        lambda: Head(origin, 1, ROOT),
        lambda: verifier_key(origin, KEY.public),
        lambda: open_head(NOTE, origin, KEY.public),
        lambda: follow(Proven(NOTE, 0, ()), origin, KEY.public, None),
    ):
        with pytest.raises(ConfigError, match="cannot name a ledger"):
            make()


@pytest.mark.parametrize(
    ("size", "root", "rule"),
    [
        (-1, ROOT, "entries, not -1"),
        (MOST_ENTRIES + 1, ROOT, "entries, not"),
        (1, ROOT[:-1], "31 bytes"),
        (1, ROOT + b"\0", "33 bytes"),
        (0, ROOT, "0 entries has one root"),
    ],
)
def test_what_is_no_head(size: int, root: bytes, rule: str) -> None:
    with pytest.raises(LedgerError, match=rule):
        Head(ORIGIN, size, root)
    # Nor is it one when its owner signs it nevertheless.
    refused(signed(f"{ORIGIN}\n{size}\n{base64.b64encode(root).decode()}\n".encode()))


def test_heads_of_nothing_and_of_the_most() -> None:
    for head in (Head(ORIGIN, 0, merkle.EMPTY_ROOT), Head(ORIGIN, MOST_ENTRIES, ROOT)):
        assert open_head(sign_head(head, KEY), ORIGIN, KEY.public) == head


@pytest.mark.parametrize(
    "public", [bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little"), b"", KEY.public + b"\0"]
)
def test_a_key_for_which_anybody_can_sign_is_refused(public: bytes) -> None:
    with pytest.raises(CryptoError):
        verifier_key(ORIGIN, public)
    with pytest.raises(CryptoError):
        open_head(NOTE, ORIGIN, public)


# --- Reading strictly -------------------------------------------------------------------------------------------------


def test_every_changed_or_missing_byte_is_refused() -> None:
    for place in range(len(NOTE)):
        for bit in range(8):
            refused(NOTE[:place] + bytes([NOTE[place] ^ 1 << bit]) + NOTE[place + 1 :])
        refused(NOTE[:place] + NOTE[place + 1 :])
        refused(NOTE[:place])


@given(
    st.integers(0, len(NOTE) - 1),
    st.integers(0, 255),
    st.integers(0, MOST_ENTRIES),
    st.binary(min_size=32, max_size=32),
)
@example(0, 10, 0, merkle.EMPTY_ROOT)
def test_any_byte_changed_to_any_other_or_put_in_is_refused(place: int, value: int, size: int, root: bytes) -> None:
    head = Head(ORIGIN, size, root if size else merkle.EMPTY_ROOT)
    note = sign_head(head, KEY)
    assert open_head(note, ORIGIN, KEY.public) == head
    place %= len(note)
    if note[place] != value:
        refused(note[:place] + bytes([value]) + note[place + 1 :])
    refused(note[:place] + bytes([value]) + note[place:])
    refused(note + bytes([value]))


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_anything_else_is_refused(note: bytes) -> None:
    refused(note)


@pytest.mark.parametrize(
    "size",
    [
        *("", "00", "01", "020852163", "+1", "-1", "-0", " 1", "1 ", "1_0", "0x1", "1e3", "1.0", "٣", "１", "²"),
        *(str(2**63), str(2**64), "9" * 40, "9" * 3000),
    ],
)
def test_a_size_in_another_form_is_refused(size: str) -> None:
    note = signed(f"{ORIGIN}\n{size}\n{base64.b64encode(ROOT).decode()}\n".encode())
    refused(note, re.escape(f"the one decimal of 0 to {MOST_ENTRIES}"))


ENCODED = base64.b64encode(bytes(31) + b"\x01").decode()


@pytest.mark.parametrize(
    "root",
    [
        "",
        "AAAA",
        ENCODED[:-1],
        ENCODED + "=",
        ENCODED + "AAAA",
        ENCODED.replace("E=", "F="),  # a bit set that no byte has
        ENCODED.replace("E=", "E=="),
        " " + ENCODED,
        ENCODED + " ",
        "AA=A" + ENCODED[4:],
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        base64.urlsafe_b64encode(bytes([0xFF]) * 32).decode(),
        "é" + ENCODED[1:],
        ROOT.hex(),
    ],
)
def test_a_root_in_another_form_is_refused(root: str) -> None:
    assert open_head(signed(f"{ORIGIN}\n1\n{ENCODED}\n".encode()), ORIGIN, KEY.public).size == 1
    refused(signed(f"{ORIGIN}\n1\n{root}\n".encode()), "base64 encoding|where 32 are needed")


def test_more_or_fewer_lines_are_refused() -> None:
    origin, size, root = HEAD.body().splitlines(keepends=True)
    for text in (
        origin,
        origin + size,
        HEAD.body() + b"an extension\n",
        HEAD.body() + b"\n",
        HEAD.body() + b"\nanother paragraph\n",
        origin + b"\n" + size + root,
        HEAD.body() + HEAD.body(),
    ):
        refused(signed(text), "has three lines")
    # A blank line in front is no text that the key would sign.
    text = b"\n" + HEAD.body()
    plain = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32).sign(text)
    refused(text + b"\n" + line(ORIGIN, bytes(4) + plain), "has three lines")


def test_the_shape_of_a_note() -> None:
    body, own = HEAD.body(), NOTE[len(HEAD.body()) + 1 :]
    assert body + b"\n" + own == NOTE
    for note, rule in [
        (body + own, "a blank line"),
        (body, "a blank line"),
        (body + b"\n", "a blank line"),
        (NOTE[:-1], "a blank line"),
        (NOTE + b"\n", "a blank line"),
        (NOTE.replace(b"\n", b"\r\n"), "control characters"),
        (NOTE.replace(b"example", b"exam\tle"), "control characters"),
        (NOTE.replace(b"example", b"exam\x7fle"), "control characters"),
        (NOTE + b"\0", "control characters"),
        (b"\xef\xbb\xbf" + NOTE, "another origin"),
        (NOTE.replace("—".encode(), b"--"), "a dash, a key's name and base64"),
        (NOTE.replace("— ".encode(), "—".encode()), "a dash"),
        (NOTE.replace("— ".encode(), "—  ".encode()), "a dash"),
        (NOTE.replace("— ".encode(), " — ".encode()), "a dash"),
        (body + b"\n" + own[:-1] + b" \n", "base64"),
        (body + b"\n" + own[:-1] + b" more\n", "base64"),
        (body + b"\n" + own[:-1] + b"=\n", "base64"),
        (NOTE + b"words\n", "a dash"),
        (NOTE + line("a+b", bytes(68)), "a dash"),
        (NOTE + line("a\u00a0b", bytes(68)), "a dash"),
        (NOTE + line("", bytes(68)), "a dash"),
        (NOTE + "— witness\n".encode(), "a dash"),
        (NOTE + "— witness AB==\n".encode(), "base64"),
        (NOTE + line("witness", bytes(4)), "key ID"),
        (NOTE + line("witness", b""), "key ID"),
        (NOTE[:-10] + b"\xff" + NOTE[-9:], "UTF-8"),
        (NOTE + b"\xe2\x80\n", "UTF-8"),
    ]:
        refused(note, rule)


def test_a_head_is_its_owners_own() -> None:
    body, own = HEAD.body(), NOTE[len(HEAD.body()) + 1 :]
    key_id = base64.b64decode(own.split()[2])[:4]
    others = sign_head(HEAD, OTHER)[len(body) + 1 :]
    refused(body + b"\n" + others, "has one signature by the key [0-9a-f]{8}, and this has 0")
    refused(body + b"\n" + line("witness", key_id + KEY.sign_note(body)), "this has 0")
    refused(body + b"\n" + line(ORIGIN, bytes(4) + KEY.sign_note(body)), "this has 0")
    refused(body + b"\n" + line(ORIGIN, key_id + OTHER.sign_note(body)), "does not verify")
    refused(body + b"\n" + line(ORIGIN, key_id + KEY.sign_note(body)[:-1]), "63 bytes")
    refused(body + b"\n" + line(ORIGIN, key_id + KEY.sign_note(body) + b"\0"), "65 bytes")
    refused(NOTE + own, "this has 2")
    refused(NOTE + line(ORIGIN, key_id + bytes(64)), "this has 2")
    # Signed by the right key under the right name for another ledger, and for this one under another name.
    elsewhere = Head("south.example/ledger", HEAD.size, ROOT)
    refused(sign_head(elsewhere, KEY), "another origin, 'south.example/ledger'")
    refused(signed(elsewhere.body()), "another origin")
    refused(body + b"\n" + sign_head(elsewhere, KEY)[len(elsewhere.body()) + 1 :], "this has 0")
    # The signature that this key makes of the same bytes for a purpose of its own.
    refused(body + b"\n" + line(ORIGIN, key_id + KEY.sign(b"fedmodel/v1/test", body)), "does not verify")


def test_lines_of_others_are_ignored_up_to_16() -> None:
    body, own = HEAD.body(), NOTE[len(HEAD.body()) + 1 :]
    witness = line("witness.example/é", bytes(76))
    others = sign_head(HEAD, OTHER)[len(body) + 1 :]
    for lines in ([witness, own], [own, witness], [others, own], [witness] * 8 + [own] + [witness] * 7):
        assert open_head(body + b"\n" + b"".join(lines), ORIGIN, KEY.public) == HEAD
    refused(body + b"\n" + own + witness * 16, "17 signatures")


def test_a_note_is_of_at_most_4096_bytes() -> None:
    note = NOTE + line("witness", bytes(2700))
    note += line("w" * (MOST_NOTE - len(note) - len(line("", bytes(5)))), bytes(5))
    assert len(note) == MOST_NOTE
    assert open_head(note, ORIGIN, KEY.public) == HEAD
    refused(note.replace(b"witness", b"witnesss"), "4097 bytes")


def test_what_a_refusal_quotes_is_short_and_plain() -> None:
    found = "é\u202e\u2028" + "x" * 1000
    for text in (f"{ORIGIN}\n{found}\n{ENCODED}\n", f"{ORIGIN}\n1\n{found}\n"):
        with pytest.raises(LedgerTampered) as caught:
            open_head(signed(text.encode()), ORIGIN, KEY.public)
        assert str(caught.value).isascii()
        assert len(str(caught.value)) < 300
    with pytest.raises(LedgerTampered) as caught:
        open_head(f"{found}\n1\n{ENCODED}\n\n".encode() + line(ORIGIN, bytes(68)), ORIGIN, KEY.public)
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 300


# --- Following --------------------------------------------------------------------------------------------------------


class Ledger:
    """A ledger as its owner keeps it."""

    def __init__(self, entries: list[bytes]) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        for size, entry in enumerate(entries):
            for level, index, value in merkle.new_nodes(size, merkle.leaf_hash(entry), self.node):
                self.nodes[level, index] = value

    def node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    def head(self, size: int) -> Head:
        return Head(ORIGIN, size, merkle.root(size, self.node))

    def proven(self, since: int, size: int) -> Proven:
        return Proven(sign_head(self.head(size), KEY), since, merkle.consistency_proof(since, size, self.node))


HONEST = Ledger([bytes([place]) for place in range(20)])
REWRITTEN = Ledger([bytes([place if place != 3 else 99]) for place in range(20)])


def follow_refused(proven: Proven, last: Head | None, rule: str | None = None) -> None:
    with pytest.raises(LedgerTampered, match=rule) as caught:
        follow(proven, ORIGIN, KEY.public, last)
    assert str(caught.value).startswith(ORIGIN)
    assert "\n" not in str(caught.value)


def test_an_honest_ledger_is_followed_from_anywhere_to_anywhere() -> None:
    for size in range(21):
        assert follow(HONEST.proven(0, size), ORIGIN, KEY.public, None) == HONEST.head(size)
        for since in range(size + 1):
            proven = Proven.from_bytes(HONEST.proven(since, size).to_bytes())
            assert follow(proven, ORIGIN, KEY.public, HONEST.head(since)) == HONEST.head(size)


def test_a_ledger_that_went_back_is_noticed() -> None:
    for size in range(20):
        for known in range(size + 1, 21):
            # With whatever proof there is: of nothing, or from the smaller to the larger.
            for proven in (
                HONEST.proven(0, size),
                replace(HONEST.proven(size, known), note=HONEST.proven(0, size).note),
            ):
                follow_refused(proven, HONEST.head(known), f"went back from {known} to {size} entries")


def test_a_rewritten_entry_is_noticed() -> None:
    for known in range(4, 21):
        for size in range(known, 21):
            follow_refused(REWRITTEN.proven(known, size), HONEST.head(known), "roots differ|two histories")
            mixed = replace(HONEST.proven(known, size), note=REWRITTEN.proven(0, size).note)
            follow_refused(mixed, HONEST.head(known), "roots differ|two histories")
    # Before the entry both are alike.
    assert follow(REWRITTEN.proven(3, 20), ORIGIN, KEY.public, HONEST.head(3)) == REWRITTEN.head(20)


def test_a_proof_is_since_the_head_that_is_known() -> None:
    for since in range(20):
        if since != 7:
            follow_refused(
                HONEST.proven(since, 20), HONEST.head(7), f"since {counted(since, 'entry', 'entries')}, .* of 7"
            )
        if since:
            follow_refused(HONEST.proven(since, 20), None, f"since {counted(since, 'entry', 'entries')}, .* of 0")
    right = HONEST.proven(7, 20)
    follow_refused(replace(right, since=6), HONEST.head(7), "since 6")
    follow_refused(replace(right, since=7, proof=right.proof[:-1]), HONEST.head(7), "too short")
    follow_refused(replace(right, proof=(*right.proof, right.proof[0])), HONEST.head(7), "too long")
    follow_refused(replace(right, proof=()), HONEST.head(7), "too short")


def test_a_first_head_has_no_proof_and_a_same_head_neither() -> None:
    follow_refused(Proven(NOTE, 0, (ROOT,)), None, "is empty")
    follow_refused(Proven(NOTE, HEAD.size, (ROOT,)), HEAD, "is empty")
    assert follow(Proven(NOTE, HEAD.size, ()), ORIGIN, KEY.public, HEAD) == HEAD
    follow_refused(Proven(NOTE, HEAD.size, ()), replace(HEAD, root=bytes(32)), "two histories")


def test_who_follows_checks_origin_and_key() -> None:
    follow_refused(replace(HONEST.proven(7, 20), note=sign_head(HONEST.head(20), OTHER)), HONEST.head(7), "this has 0")
    other = sign_head(replace(HONEST.head(20), origin="south"), KEY)
    follow_refused(replace(HONEST.proven(7, 20), note=other), HONEST.head(7), "another origin")
    with pytest.raises(ConfigError, match="cannot be followed"):
        follow(HONEST.proven(7, 20), ORIGIN, KEY.public, replace(HONEST.head(7), origin="south"))


# --- The encoding of a proven head ------------------------------------------------------------------------------------


def test_the_encoding_is_frozen() -> None:
    proven = Proven(b"note", 7, (bytes([1]) * 32, bytes([2]) * 32))
    data = b"fedmodel/v1/proven-head\n\0\0\0\4note" + bytes(7) + b"\7\2" + bytes([1]) * 32 + bytes([2]) * 32
    assert proven.to_bytes() == data
    assert Proven.from_bytes(data) == proven


def test_every_missing_trailing_or_changed_byte_of_a_proven_head_is_refused() -> None:
    data, last = HONEST.proven(7, 20).to_bytes(), HONEST.head(7)
    assert follow(Proven.from_bytes(data), ORIGIN, KEY.public, last) == HONEST.head(20)
    for place in range(len(data)):
        with pytest.raises(LedgerTampered):
            Proven.from_bytes(data[:place])
        for bit in range(8):
            with pytest.raises(LedgerTampered):
                follow(
                    Proven.from_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]),
                    ORIGIN,
                    KEY.public,
                    last,
                )
    for more in (b"\0", b"\n", bytes(32), data):
        with pytest.raises(LedgerTampered, match="its lengths say"):
            Proven.from_bytes(data + more)


@given(
    st.binary(max_size=100),
    st.integers(0, MOST_ENTRIES),
    st.lists(st.binary(min_size=32, max_size=32), max_size=MOST_PROOF),
)
def test_an_encoding_reads_back(note: bytes, since: int, proof: list[bytes]) -> None:
    proven = Proven(note, since, tuple(proof))
    assert Proven.from_bytes(proven.to_bytes()) == proven


@given(st.binary(max_size=200))
def test_what_is_read_has_one_encoding(tail: bytes) -> None:
    for data in (tail, b"fedmodel/v1/proven-head\n" + tail, b"fedmodel/v1/proven-head\n\0\0\0" + tail):
        try:
            proven = Proven.from_bytes(data)
        except LedgerTampered:
            continue
        assert proven.to_bytes() == data


def test_what_is_too_long_is_neither_written_nor_read() -> None:
    prefix = b"fedmodel/v1/proven-head\n"
    for note, since, proof, rule in [
        (bytes(MOST_NOTE + 1), 0, (), "4097 bytes"),
        (b"", MOST_ENTRIES + 1, (), "0 to"),
        (b"", 0, (bytes(32),) * (MOST_PROOF + 1), "65 hashes"),
    ]:
        with pytest.raises(LedgerError, match=rule):
            Proven(note, since, proof)
        data = prefix + len(note).to_bytes(4, "big") + note + since.to_bytes(8, "big") + bytes([len(proof)])
        with pytest.raises(LedgerTampered, match=rule):
            Proven.from_bytes(data + b"".join(proof))
    for wrong in (bytes(31), bytes(33), b""):
        with pytest.raises(LedgerError, match="not of 32 bytes"):
            Proven(b"", 0, (bytes(32), wrong))
    with pytest.raises(LedgerError, match="not -1"):
        Proven(b"", -1, ())
    with pytest.raises(LedgerTampered, match="begins with"):
        Proven.from_bytes(b"fedmodel/v2/proven-head\n" + bytes(13))
    with pytest.raises(LedgerTampered, match="lengths say"):
        Proven.from_bytes(prefix + b"\xff\xff\xff\xff" + bytes(100))


def test_the_longest_proof_fits() -> None:
    """Of the most entries, since the third: a hash a level, and the one where it begins."""
    proof = merkle.consistency_proof(3, MOST_ENTRIES, lambda level, index: bytes(32))
    assert len(proof) == MOST_PROOF
    Proven(NOTE, 3, proof)
