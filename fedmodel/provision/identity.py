"""A party's keys in one sealed file, `identity.age`, which the ordinary `age` tool opens too.

Its plaintext is an age identity file: with it, `age -d -i` opens the party's files at rest, without this software. Our
own seeds stand in its comments, which age skips:

    # fedmodel identity v1: NAME of FEDERATION ed25519: <64 hex> mldsa65: <64 hex> if the federation is post-quantum
    AGE-SECRET-KEY-1...

Does NOT say who sealed it: recipients are public. Only the roster shows that the keys are the party's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fedmodel.crypto import SigningKey
from fedmodel.crypto.postquantum import PostQuantumKey
from fedmodel.crypto.sealed import Opener, read_sealed, recipient_of
from fedmodel.errors import ConfigError, CryptoError
from fedmodel.system.durable import MISSING

SEALED_IDENTITY: Final = "identity.age"
_PASSWORD_LABEL: Final = b"fedmodel/v1/pem-password"
_HEADER: Final = re.compile(r"# fedmodel identity v1: ([a-z0-9-]+) of ([a-z0-9-]+)")
_SEED: Final = re.compile(r"# (ed25519|mldsa65): ([0-9a-f]{64})")


@dataclass(frozen=True)
class Unlocked:
    """A party's keys, opened. Sensitive; its repr shows none.

    Attributes:
        name: The party's.
        federation: The federation that it is a member of.
        identity: Its Ed25519 signing key.
        post_quantum: Its ML-DSA signing key, if the federation is post-quantum.
        age_secret: Opens its files at rest, in the form that the ordinary `age` tool reads.
        recipient: The age recipient that these files are sealed to.
        seed: The 32 bytes that `identity` is made from; an authority issues certificates with them.
    """

    name: str
    federation: str
    identity: SigningKey = field(repr=False)
    post_quantum: PostQuantumKey | None = field(repr=False)
    age_secret: str = field(repr=False)
    recipient: str
    seed: bytes = field(repr=False)

    @property
    def tls_password(self) -> str:
        """The password of `tls.key`. Sensitive."""
        return pem_password(self.identity, b"tls")

    @property
    def node_password(self) -> str:
        """The password of `node.key`. Sensitive."""
        return pem_password(self.identity, b"node")


def pem_password(identity: SigningKey, purpose: bytes) -> str:
    """Return the password of one of a kit's PKCS8 files, b"tls" or b"node". Sensitive."""
    return identity.derive(_PASSWORD_LABEL, purpose).hex()


def open_identity(folder: Path, opener: Opener) -> Unlocked:
    """Open the sealed keys of a folder, a party's or the authority's, without comparing them with a roster. Sensitive.

    Raises:
        ConfigError: When there are none.
        CryptoError: When the opener does not open them, or they are not in the form above.
    """
    path = folder / SEALED_IDENTITY
    try:
        text = read_sealed(path, opener).decode("ascii")
    except MISSING as error:
        raise ConfigError(f"{folder}: holds no {SEALED_IDENTITY}") from error
    except UnicodeDecodeError:
        raise CryptoError(f"{path}: opens, and holds no identity of fedmodel") from None
    return _parse(text, path)


def identity_text(name: str, federation: str, ed25519: bytes, mldsa65: bytes | None, age_secret: str) -> str:
    """Return an identity as an age identity file with our seeds in its comments. Sensitive."""
    lines = [f"# fedmodel identity v1: {name} of {federation}", f"# ed25519: {ed25519.hex()}"]
    if mldsa65 is not None:
        lines.append(f"# mldsa65: {mldsa65.hex()}")
    return "\n".join([*lines, age_secret]) + "\n"


def _parse(text: str, path: Path) -> Unlocked:
    """Read an identity in the form that `identity_text` writes. Sensitive."""
    lines = text.splitlines()
    header = _HEADER.fullmatch(lines[0]) if lines else None
    seeds = {found[1]: bytes.fromhex(found[2]) for line in lines[1:-1] if (found := _SEED.fullmatch(line))}
    if header is None or "ed25519" not in seeds or len(seeds) != len(lines) - 2:
        raise CryptoError(f"{path}: opens, and holds no identity of fedmodel")
    post_quantum = PostQuantumKey(seeds["mldsa65"]) if "mldsa65" in seeds else None
    seed, secret = seeds["ed25519"], lines[-1]
    return Unlocked(header[1], header[2], SigningKey(seed), post_quantum, secret, recipient_of(secret), seed)
