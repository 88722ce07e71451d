"""Who asks: the server's signature on every question, which a silo checks against the keys that its law names.

Guarantee: a question that `check_request` passes was signed, every record of it, by the holder of one of the keys
given, for its kind of message in this run of this scenario. Whoever carries messages can neither make nor change one,
nor use it in another run, nor say that it was about another scenario.

Does NOT say to which silo, nor how often, nor cover what else a run's configuration says (where a simulated silo's
folder is, on which device it trains). A question that is carried to another silo of the run, or again, is a question
there: a silo refuses what was for another, and pays for no more releases than its plan has.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from flwr.app import Array, ConfigRecord, Message, RecordDict

from fedmodel.crypto import SigningKey, digest, digest_words, verify
from fedmodel.errors import PolicyRefused

_SIGNED: Final = "fedmodel.signed"
_LABEL: Final = b"fedmodel/v1/request"
_WORDS_LABEL: Final = b"fedmodel/v1/request-array"


def sign_request(content: RecordDict, kind: str, run: int, scenario: bytes, server: SigningKey) -> RecordDict:
    """Return a question with the server's signature in it, good for this kind of message in this run.

    Args:
        content: What is asked, without a signature.
        kind: The message's type.
        run: The run, 64 bits.
        scenario: Hash of the scenario that is run; it comes to the silo beside the messages.
        server: The server's key.
    """
    signature = server.sign(_LABEL, _request_digest(content, kind, run, scenario))
    record = ConfigRecord({"key": server.public, "signature": signature})
    return RecordDict({**content, _SIGNED: record})


def check_request(message: Message, run: int, scenario: bytes, servers: Collection[str]) -> bytes:
    """Refuse a question that is not signed by a server of these keys, for its kind and this run.

    Args:
        message: As received.
        run: The run, 64 bits.
        scenario: Hash of the scenario as it came to the silo.
        servers: Ed25519 keys in hexadecimal.

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
    return asked


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
