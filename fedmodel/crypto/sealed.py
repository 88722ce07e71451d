"""Files at rest, sealed in the age format: whoever has the key opens them with the ordinary `age` tool, without us.

The one module that imports `pyrage` (age-rs). Everything here is age v1 (C2SP age): a file key wrapped for each
recipient by X25519, or under a passphrase by scrypt; the body in chunks of 64 KiB under ChaCha20-Poly1305 (STREAM).

What is promised:

| Here                        | Promise                                                                               |
|-----------------------------|---------------------------------------------------------------------------------------|
| `write_sealed`              | the old file or the whole new one; 0600; nothing in the clear reaches a disk          |
| `read_sealed`, `open_bytes` | all of the plaintext, authenticated to its last byte, or an error and nothing         |
| `open_to`                   | each byte was authenticated before it was written; after an error, what was written   |
|                             | is a beginning of the plaintext and NOT the whole                                     |
| `opener_from_key_file`      | a file that others could read or wrote is refused before it is used                   |

So a sink of `open_to` should be one that can be thrown away, as `fedmodel.system.durable.replacing` gives.

NOT protected: who wrote a file. Recipients are public, so anybody who knows one can seal to it, and age has no sender.
Whoever needs to know keeps a signature or a secret of its own inside. Nor the length of the plaintext, nor for how many
recipients it is sealed. X25519 does not withstand a quantum computer: files that are copied today could be opened then.
A passphrase is as strong as it is hard to guess; scrypt costs whoever tries one, us too, a second and up to a gigabyte
of memory. Secrets are not erased from memory: Python copies bytes as it likes.
"""

from __future__ import annotations

import io
import os
import pwd
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import pyrage

from fedmodel.errors import ConfigError, CryptoError
from fedmodel.system.durable import replacing

_SECRET: Final = "AGE-SECRET-KEY-1"  # noqa: S105  # how every secret begins, and none of them
_MOST_KEY_FILE: Final = 64 * 1024
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Opener:
    """What opens sealed files: the keys of a key file, or a passphrase. Sensitive.

    Made by `opener_from_key_file`, `opener_from_passphrase` and `opener_from_secret`. Its repr says which, and no more.
    """

    __slots__ = ("_identities", "_passphrase")

    def __init__(self, identities: Sequence[pyrage.x25519.Identity] = (), passphrase: str | None = None) -> None:
        self._identities = tuple(identities)
        self._passphrase = passphrase

    def __repr__(self) -> str:
        return f"<Opener by {'a key' if self._passphrase is None else 'a passphrase'}>"

    def __reduce__(self) -> str:
        raise TypeError("an Opener is never pickled: it would put the secret where nobody looks for one")

    def open(self, source: BinaryIO, sink: BinaryIO) -> None:
        """Write what a sealed source holds into a sink, as `open_to` says.

        With a passphrase the whole is in memory, for age-rs offers no stream there; what we seal so is a page long.
        """
        if self._passphrase is None:
            _stream(pyrage.decrypt_io, source, sink, self._identities)
            return
        try:
            plain = pyrage.passphrase.decrypt(source.read(), self._passphrase)
        except pyrage.DecryptError as error:
            raise _unopened(error) from None
        sink.write(plain)


def opener_from_secret(secret: str) -> Opener:
    """Return what opens what is sealed to one age key, "AGE-SECRET-KEY-1...".

    Raises:
        ConfigError: When the text is none.
    """
    return Opener(identities=(_identity(secret),))


def opener_from_passphrase(passphrase: str) -> Opener:
    """Return what opens what is sealed under a passphrase.

    Raises:
        ConfigError: When it is empty.
    """
    return Opener(passphrase=_said(passphrase))


def opener_from_key_file(path: Path) -> Opener:
    """Return what opens what is sealed to any key of an age key file, as `age-keygen` writes it.

    Raises:
        ConfigError: When the file cannot be read, is another account's, can be read or written by anybody but its
            owner, or holds no key.
    """
    try:
        with path.open("rb") as file:
            check_private_file(path, os.fstat(file.fileno()))
            text = file.read(_MOST_KEY_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: the key file cannot be read: {error.strerror}") from None
    if len(text) > _MOST_KEY_FILE:
        raise ConfigError(f"{path}: more than {_MOST_KEY_FILE} bytes, so no key file")
    lines = [line.strip() for line in text.decode("utf-8", errors="replace").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"{path}: no key in it; a line begins with {_SECRET}, as `age-keygen` writes it")
    try:
        return Opener(identities=[_identity(key) for key in keys])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def check_private_file(path: Path, found: os.stat_result, what: str = "a key file") -> None:
    """Refuse a file with a secret that anybody but this process's account can get at.

    A credential of systemd may belong to root, and may show its group's read bit: there it is the mask of an access
    list that names the service's user and nobody else, in a folder that systemd made for the service alone. All other
    bits are refused there as well.

    Args:
        path: Where it lies.
        found: Its owner and permissions, read from the file that was opened.
        what: What it is, for the message.

    Raises:
        ConfigError: With the path, what was found and the command that mends it.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    credential = bool(folder) and path.resolve().parent == Path(folder or "").resolve()
    check_owner(path, found, root_too=credential)
    mode = stat.S_IMODE(found.st_mode)
    if mode & _OTHERS & ~(stat.S_IRGRP if credential else 0):
        raise ConfigError(
            f"{path}: {what} is its owner's alone, and this has mode {mode:04o}, which lets others at it; "
            f"run: chmod 600 {path}"
        )


def check_owner(path: Path, found: os.stat_result, *, root_too: bool = False) -> None:
    """Refuse what belongs to another account than this process's, which could change it, and its mode, at any time.

    Raises:
        ConfigError: With the path, both accounts and the command that mends it.
    """
    own = os.geteuid()
    if found.st_uid != own and not (root_too and found.st_uid == 0):
        raise ConfigError(
            f"{path}: belongs to {_account(found.st_uid)}, and this runs as {_account(own)}; run as its owner, or, if"
            f" what is in it is to be trusted: chown {_account(own)} {path}"
        )


def _account(uid: int) -> str:
    """Return an account's name, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def new_age_key() -> tuple[str, str]:
    """Return a new key's secret, "AGE-SECRET-KEY-1...", Sensitive, and its recipient, "age1...", which is public."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def recipient_of(secret: str) -> str:
    """Return the recipient of a key's secret: what others seal to.

    Raises:
        ConfigError: When the text is no secret of age.
    """
    return str(_identity(secret).to_public())


def check_recipient(recipient: str) -> None:
    """Refuse what nothing can be sealed to.

    Raises:
        ConfigError: When it is no X25519 recipient of age, "age1...".
    """
    try:
        pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError:
        # A secret pasted in its place must not end in a log.
        shown = "an age SECRET key" if recipient.strip().upper().startswith(_SECRET) else repr(recipient[:80])
        raise ConfigError(f"{shown} is no age recipient; one begins with age1, as `age-keygen -y` shows it") from None


def seal_bytes(data: bytes, recipients: Sequence[str]) -> bytes:
    """Return bytes sealed to recipients, any of whom opens them.

    Raises:
        ConfigError: When there is no recipient, or one is none.
    """
    sink = io.BytesIO()
    _stream(pyrage.encrypt_io, io.BytesIO(data), sink, _recipients(recipients))
    return sink.getvalue()


def seal_bytes_under(data: bytes, passphrase: str) -> bytes:
    """Return bytes sealed under a passphrase.

    Raises:
        ConfigError: When it is empty.
    """
    try:
        return bytes(pyrage.passphrase.encrypt(data, _said(passphrase)))
    except pyrage.EncryptError as error:
        raise CryptoError(f"sealing under a passphrase failed: {error}") from None


def open_bytes(sealed: bytes, opener: Opener) -> bytes:
    """Return what was sealed, all of it authenticated.

    Raises:
        CryptoError: When it is no age file, is sealed to others, or is not as it was sealed.
    """
    # What a failure leaves in this buffer is dropped with it.
    sink = io.BytesIO()
    opener.open(io.BytesIO(sealed), sink)
    return sink.getvalue()


def write_sealed(path: Path, data: bytes | BinaryIO, recipients: Sequence[str]) -> None:
    """Put a file, sealed to recipients, in its place: whole or not at all, 0600, and never in the clear beside it.

    Memory holds no more than some chunks of an open file's data; of `bytes` it holds what the caller does.

    Raises:
        ConfigError: When there is no recipient, or one is none.
        OSError: When it cannot be written, or the data cannot be read; what was at the place stays.
    """
    known = _recipients(recipients)
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    with replacing(path) as sink:
        _stream(pyrage.encrypt_io, source, sink, known)


def read_sealed(path: Path, opener: Opener) -> bytes:
    """Return what a sealed file holds, all of it authenticated.

    Raises:
        CryptoError: When it is no age file, is sealed to others, or is not as it was sealed.
        OSError: When it cannot be read.
    """
    sink = io.BytesIO()
    open_to(path, opener, sink)
    return sink.getvalue()


def open_to(path: Path, opener: Opener, sink: BinaryIO) -> None:
    """Write what a sealed file holds into a sink, chunk by chunk.

    Each chunk is authenticated before it is written, and at its place; that there is no more is known only at the end.
    So after a CryptoError the sink holds a true beginning of the plaintext, and nobody may take it for the whole.

    Raises:
        CryptoError: When it is no age file, is sealed to others, is not as it was sealed, or was cut short.
        OSError: When it cannot be read, or the sink not be written.
    """
    with path.open("rb") as source:
        try:
            opener.open(source, sink)
        except CryptoError as error:
            raise CryptoError(f"{path}: {error}") from None


class _Ends:
    """A source or a sink for age-rs that remembers what it raised, of which age-rs hands on the text alone."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.raised: BaseException | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except BaseException as error:
            self.raised = error
            raise

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except BaseException as error:
            self.raised = error
            raise

    def flush(self) -> None:
        """Nothing: whoever gave the sink flushes it."""


def _stream(work: Callable[..., None], source: BinaryIO, sink: BinaryIO, keys: Sequence[object]) -> None:
    """Run one of age-rs's streams, and tell what failed: a disk's error as it was raised, all else as ours."""
    reader, writer = _Ends(source), _Ends(sink)
    try:
        work(reader, writer, list(keys))
    except (pyrage.EncryptError, pyrage.DecryptError, OSError) as error:
        raised = reader.raised or writer.raised
        if raised is not None:
            raise raised from None
        if isinstance(error, pyrage.EncryptError):
            raise CryptoError(f"sealing failed: {error}") from None
        raise _unopened(error) from None


def _unopened(error: Exception) -> CryptoError:
    """Say what may be wrong with a file that does not open, which age-rs says in words of its own."""
    found = str(error)
    if found == "No matching keys found":
        return CryptoError("sealed to another key than the one given, or not in this way: key file or passphrase")
    if found == "Decryption failed":
        return CryptoError("the key or the passphrase does not open it")
    if "truncated" in found:
        return CryptoError("cut short: the end that was sealed is missing; take it from a backup")
    if "work" in found.lower():
        return CryptoError("its passphrase was made slower to try than this machine allows; open it with `age`")
    if found == "decryption error":
        return CryptoError("not as it was sealed: changed or cut short since; take it from a backup")
    return CryptoError("no age file, or its beginning was changed or cut off")


def _identity(secret: str) -> pyrage.x25519.Identity:
    """Return age's key of its text; an error never shows any of it."""
    try:
        return pyrage.x25519.Identity.from_str(secret.strip())
    except pyrage.IdentityError:
        raise ConfigError(f"not a secret key of age: one begins with {_SECRET}, in one line") from None


def _recipients(recipients: Sequence[str]) -> list[pyrage.x25519.Recipient]:
    if isinstance(recipients, str) or not recipients:
        raise ConfigError("nothing is sealed to nobody: name at least one age recipient, in a list")
    for recipient in recipients:
        check_recipient(recipient)
    return [pyrage.x25519.Recipient.from_str(recipient) for recipient in recipients]


def _said(passphrase: str) -> str:
    if not passphrase:
        raise ConfigError("the passphrase is empty; anybody would open it")
    return passphrase
