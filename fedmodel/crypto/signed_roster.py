"""A federation's roster as a signed file, and the fingerprint of who signs it, before anything in it is read.

The file is `{"roster": ..., "signatures": ...}` in one encoding (sorted keys, no spaces, ASCII) and a newline. The
signatures cover the same encoding of the inner object. What a roster says is for `fedmodel.provision.roster` to read.

A fingerprint is keys as digits that two people can compare by telephone (`fedmodel.provision.fingerprints`).

Guarantee: what `opened_roster` returns is the one document that the holder of the authority's key signed, and of its
ML-DSA key if the reader has one.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedmodel.crypto.postquantum import verify_post_quantum
from fedmodel.crypto.primitives import derive_key, digest, verify
from fedmodel.crypto.renewing import authority_key
from fedmodel.errors import AggregationRefused, ConfigError, CryptoError, Rule
from fedmodel.system.durable import MISSING

AUTHORITY: Final = "authority.pem"
AUTHORITY_POST_QUANTUM: Final = "authority.mldsa65"
ROSTER_LABEL: Final = b"fedmodel/v1/roster-file"
GROUPS: Final = 12
DIGITS: Final = 5
BITS: Final = math.floor(GROUPS * DIGITS * math.log2(10))
_FINGERPRINT_LABEL: Final = b"fedmodel/v1/fingerprint"
# For each group: 2^40 over 10^5 makes no digit more likely than another by more than one part in ten million.
_GROUP_BYTES: Final = 5
_MOST_BYTES: Final = 64 * 1024 * 1024  # 10,000 members of 4.5 kB, with room


@dataclass(frozen=True)
class AuthorityKeys:
    """The keys that verify a roster; each kit has them from the administrator, and no message changes them.

    Attributes:
        identity: The Ed25519 key of the authority's certificate.
        post_quantum: Its ML-DSA-65 key, if the federation is post-quantum.
    """

    identity: bytes
    post_quantum: bytes | None


def opened_roster(data: bytes, authority: AuthorityKeys) -> dict[str, Any]:
    """Return the document that a roster's file holds, as the authority signed it.

    Args:
        data: The file.
        authority: The keys that the administrator gave to the reader.

    Raises:
        AggregationRefused: When the authority did not sign it, or it is not in its one encoding.
    """
    document = _parse(data)
    inner: dict[str, Any] = document["roster"]
    _check_signatures(canonical_roster(inner), document["signatures"], authority)
    return inner


def read_authority(folder: Path) -> AuthorityKeys:
    """Read the authority's keys, under which a deployed kit's roster is verified.

    Raises:
        ConfigError: When they are missing or are no keys.
    """
    try:
        public = authority_key((folder / AUTHORITY).read_bytes())
        beside = folder / AUTHORITY_POST_QUANTUM
        post_quantum = bytes.fromhex(beside.read_text(encoding="ascii").strip()) if beside.exists() else None
    except (*MISSING, ValueError, CryptoError) as error:
        raise ConfigError(f"{folder / AUTHORITY}: is not the certificate of an authority") from error
    return AuthorityKeys(public, post_quantum)


def canonical_roster(document: Any) -> bytes:
    """Return the one encoding of a document."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def fingerprint(*parts: str) -> str:
    """Return the hash of some words in groups of digits.

    >>> fingerprint("hospitals", "silo", "aurora").count(" ")
    11
    """
    wide = derive_key(
        digest(_FINGERPRINT_LABEL, *(part.encode() for part in parts)), _FINGERPRINT_LABEL, b"", GROUPS * _GROUP_BYTES
    )
    numbers = (int.from_bytes(wide[start : start + _GROUP_BYTES], "big") for start in range(0, len(wide), _GROUP_BYTES))
    return " ".join(f"{number % 10**DIGITS:0{DIGITS}d}" for number in numbers)


def _parse(data: bytes) -> dict[str, Any]:
    """Return the outer document of a file in its one encoding."""
    if len(data) > _MOST_BYTES:
        raise AggregationRefused(Rule.MALFORMED, f"a roster of {len(data)} bytes, more than {_MOST_BYTES}")
    try:
        document = json.loads(data)
        whole = canonical_roster(document) + b"\n" == data
    except (ValueError, RecursionError) as error:
        raise AggregationRefused(Rule.MALFORMED, "the roster is not JSON") from error
    # A reader that treats repeated keys in another way would see another roster under the same signature.
    if not whole:
        raise AggregationRefused(Rule.MALFORMED, "the roster is not in its one encoding")
    if not isinstance(document, dict) or document.keys() != {"roster", "signatures"}:
        raise AggregationRefused(Rule.MALFORMED, "the roster's file holds a roster and its signatures, and no more")
    if not isinstance(document["signatures"], dict) or document["signatures"].keys() != {"ed25519", "mldsa65"}:
        raise AggregationRefused(Rule.MALFORMED, "the roster's signatures are ed25519 and mldsa65")
    return document


def _check_signatures(message: bytes, signatures: dict[str, Any], authority: AuthorityKeys) -> None:
    """Refuse a roster without a signature for each of the reader's keys, or with one that they cannot verify."""
    try:
        verify(authority.identity, ROSTER_LABEL, message, bytes.fromhex(signatures["ed25519"]))
        if authority.post_quantum is not None:
            verify_post_quantum(
                authority.post_quantum, ROSTER_LABEL, message, bytes.fromhex(signatures["mldsa65"] or "")
            )
        elif signatures["mldsa65"] is not None:
            raise CryptoError("a signature by ML-DSA that this kit has no key for")
    except (CryptoError, TypeError, ValueError) as error:
        raise AggregationRefused(
            Rule.BAD_SIGNATURE, "the roster is not signed by the authority that this kit was handed"
        ) from error
