"""Who asks: the server's signature on every question, which a silo checks against the keys that its law names.

Guarantee: a question that `check_signature` passes was signed, every record of it, by the holder of one of the keys
given, for its kind of message in this run of this scenario. Whoever carries messages can neither make nor change one,
nor use it in another run, nor say that it was about another scenario. Where the law names ML-DSA-65 keys, all of that
holds against whoever breaks Ed25519 as well: a question bears both signatures, over the same hash.

Does NOT say to which silo, nor how often, nor cover what else a run's configuration says (where a simulated silo's
folder is, on which device it trains). A question that is carried to another silo of the run, or again, is a question
there: a silo refuses what was for another, and pays for no more releases than its plan has.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from flwr.app import Array, ConfigRecord, Message, RecordDict

from fedmodel.crypto import SigningKey, digest, digest_words, verify
from fedmodel.crypto.postquantum import PostQuantumKey, post_quantum_hash, verify_post_quantum
from fedmodel.errors import PolicyRefused

_SIGNED: Final = "fedmodel.signed"
_LABEL: Final = b"fedmodel/v1/request"
_WORDS_LABEL: Final = b"fedmodel/v1/request-array"


def sign_request(
    content: RecordDict,
    kind: str,
    run: int,
    scenario: bytes,
    server: SigningKey,
    post_quantum: PostQuantumKey | None = None,
) -> RecordDict:
    """Return a question with the server's signature in it, good for this kind of message in this run.

    Args:
        content: What is asked, without a signature.
        kind: The message's type.
        run: The run, 64 bits.
        scenario: Hash of the scenario that is run; it comes to the silo beside the messages.
        server: The server's key.
        post_quantum: Its ML-DSA key, where it has one.
    """
    asked = _request_digest(content, kind, run, scenario)
    record = ConfigRecord({"key": server.public, "signature": server.sign(_LABEL, asked)})
    if post_quantum is not None:
        record["mldsa65"] = post_quantum.public
        record["mldsa65-signature"] = post_quantum.sign(_LABEL, asked)
    return RecordDict({**content, _SIGNED: record})


def check_signature(
    message: Message, run: int, scenario: bytes, servers: Collection[str], post_quantum: Collection[str] = ()
) -> bytes:
    """Refuse a question that is not signed by a server of these keys, for its kind and this run.

    Args:
        message: As received.
        run: The run, 64 bits.
        scenario: Hash of the scenario as it came to the silo.
        servers: Ed25519 keys in hexadecimal.
        post_quantum: Hashes of ML-DSA-65 keys; where there are any, one of them has to have signed besides.

    Returns:
        The hash of all that is asked, 32 bytes: the same for the very same question.

    Raises:
        PolicyRefused: When no signature is there, or its key is none of these.
        CryptoError: When it is not this question's.
    """
    record = message.content.get(_SIGNED) if message.has_content() else None
    key, signature = (record.get(name) if isinstance(record, ConfigRecord) else None for name in ("key", "signature"))
    if not isinstance(key, bytes) or not isinstance(signature, bytes):
        raise PolicyRefused("a question without a server's signature is not answered")
    if key.hex() not in servers:
        raise PolicyRefused(f"the server's key {key.hex()[:16]}... is none that silo.toml names")
    content = RecordDict({name: value for name, value in message.content.items() if name != _SIGNED})
    asked = _request_digest(content, message.metadata.message_type, run, scenario)
    verify(key, _LABEL, asked, signature)
    if post_quantum:
        _check_post_quantum(record, asked, post_quantum)
    return asked


def _check_post_quantum(record: object, asked: bytes, known: Collection[str]) -> None:
    """Refuse a question that none of these ML-DSA keys signed."""
    names = ("mldsa65", "mldsa65-signature")
    key, signature = (record.get(name) if isinstance(record, ConfigRecord) else None for name in names)
    if not isinstance(key, bytes) or not isinstance(signature, bytes):
        raise PolicyRefused("silo.toml asks for an ML-DSA signature of the server beside Ed25519's, and none is there")
    if post_quantum_hash(key) not in known:
        raise PolicyRefused("the server's ML-DSA key is none that silo.toml names")
    verify_post_quantum(key, _LABEL, asked, signature)


def _request_digest(content: RecordDict, kind: str, run: int, scenario: bytes) -> bytes:
    """Return the hash of all of a question: every record, key, type and value, none of which runs into another."""
    parts = [kind.encode(), run.to_bytes(8, "big"), scenario]
    for name, record in sorted(content.items()):
        parts += [name.encode(), type(record).__name__.encode(), len(record).to_bytes(4, "big")]
        for key, value in sorted(record.items()):
            parts.append(key.encode())
            if isinstance(value, Array):
                shape = ",".join(str(size) for size in value.shape)
                parts += [value.dtype.encode(), shape.encode(), value.stype.encode()]
                parts.append(digest_words(_WORDS_LABEL, value.data))
            elif isinstance(value, bytes):
                parts += [b"bytes", value]
            else:  # what Flower carries besides: words, numbers, and lists of them
                parts += [type(value).__name__.encode(), repr(value).encode()]
    return digest(_LABEL, *parts)
