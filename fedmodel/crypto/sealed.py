"""Files at rest, sealed in the age format: whoever has the key can open them with the ordinary `age` tool alone.

This is the one module that imports `pyrage` (age-rs). Everything here is age v1 (C2SP age). A file key is wrapped for
each recipient by X25519, or under a passphrase by scrypt. The body is encrypted in chunks of 64 KiB under
ChaCha20-Poly1305 (STREAM).

Promises:

| Here                        | Promise                                                                               |
|-----------------------------|---------------------------------------------------------------------------------------|
| `write_sealed`              | leaves the old file or the whole new one; mode 0600; no plaintext reaches a disk      |
| `read_sealed`, `open_bytes` | return the whole plaintext, authenticated to its last byte, or raise and return none  |
| `open_to`                   | authenticates each byte before it writes it; after an error, what was written is a    |
|                             | beginning of the plaintext and NOT the whole                                          |
| `opener_from_key_file`      | refuses, before use, a file that others can read or write                             |

So the sink of `open_to` should be one that can be discarded, as `fedmodel.system.durable.replacing` gives.

NOT protected: who wrote a file. Recipients are public, so anybody who knows one can seal to it, and age has no sender.
Code that needs to know keeps a signature or a secret of its own inside. The length of the plaintext and the number of
recipients are not hidden either. X25519 does not withstand a quantum computer: files that are copied today could be
opened one day. A passphrase is as strong as it is hard to guess. Each try, ours too, costs about a second and up to a
gigabyte of memory for scrypt. age-rs finds out how much work a second is by one short measurement, which a busy machine
falsifies: it would seal with a fraction of the work, and refuse what an idle machine sealed. So sealing is repeated
where the work is less than `_LEAST_WORK`, and the strongest result is kept; opening is tried again before it is refused
as too much work. Secrets are not erased from memory, because Python may copy bytes at any time.
"""

from __future__ import annotations

import io
import os
import pwd
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import pyrage

from fedmodel.errors import ConfigError, CryptoError
from fedmodel.system.durable import replacing

_SECRET: Final = "AGE-SECRET-KEY-1"  # noqa: S105  # how every secret begins, and none of them
_MOST_KEY_FILE: Final = 64 * 1024
_LEAST_WORK: Final = 17  # log2 of scrypt's N, at 1 KiB each: 128 MiB and, on a core of 2020, an eighth of a second
_SEALINGS: Final = 4  # a machine that is too slow for the least work seals with what it can
_OPENINGS: Final = 100  # each costs a few milliseconds where it is refused, before any scrypt of the file's own
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Opener:
    """Opens sealed files, with the keys of a key file or with a passphrase. Sensitive.

    Made by `opener_from_key_file`, `opener_from_passphrase` and `opener_from_secret`. Its repr says only which of the
    two it has.
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
        """Write the plaintext of a sealed source into a sink, as `open_to` says.

        With a passphrase all of it is in memory, because age-rs has no stream for that. What fedmodel seals in this way
        is a page long.
        """
        if self._passphrase is None:
            _stream(pyrage.decrypt_io, source, sink, self._identities)
            return
        sealed = source.read()
        for left in reversed(range(_OPENINGS)):
            try:
                plain = pyrage.passphrase.decrypt(sealed, self._passphrase)
                break
            except pyrage.DecryptError as error:
                if not (_is_too_much_work(error) and left):
                    raise _unopened(error) from None
        sink.write(plain)


def opener_from_secret(secret: str) -> Opener:
    """Return the opener of files sealed to one age key, "AGE-SECRET-KEY-1...".

    Raises:
        ConfigError: When the text is no such key.
    """
    return Opener(identities=(_identity(secret),))


def opener_from_passphrase(passphrase: str) -> Opener:
    """Return the opener of files sealed under a passphrase.

    Raises:
        ConfigError: When the passphrase is empty.
    """
    return Opener(passphrase=_said(passphrase))


def opener_from_key_file(path: Path) -> Opener:
    """Return the opener of files sealed to any key of an age key file, as `age-keygen` writes it.

    Raises:
        ConfigError: When the file cannot be read, belongs to another account, can be read or written by anybody but its
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
    """Refuse a file with a secret that anybody but this process's account can access.

    A credential of systemd may belong to root, and may show its group's read bit. There this bit is the mask of an
    access list that names the service's user and nobody else, in a folder that systemd made for the service alone. All
    other bits are refused there as well.

    Args:
        path: Where it lies.
        found: Its owner and permissions, read from the file that was opened.
        what: What it is, for the message.

    Raises:
        ConfigError: With the path, what was found and the command that repairs it.
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
    """Refuse a file of another account than this process's: that account could change it, and its mode, at any time.

    Raises:
        ConfigError: With the path, both accounts and the command that repairs it.
    """
    own = os.geteuid()
    if found.st_uid != own and not (root_too and found.st_uid == 0):
        raise ConfigError(
            f"{path}: belongs to {_account(found.st_uid)}, and this runs as {_account(own)}; run as its owner, or, if"
            f" what is in it is to be trusted: chown {_account(own)} {path}"
        )


def _account(uid: int) -> str:
    """Return an account's name, or its number if it has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def new_age_key() -> tuple[str, str]:
    """Return a new key's secret, "AGE-SECRET-KEY-1...", Sensitive, and its recipient, "age1...", which is public."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def recipient_of(secret: str) -> str:
    """Return the recipient for a key's secret, to which others seal.

    Raises:
        ConfigError: When the text is no secret of age.
    """
    return str(_identity(secret).to_public())


def check_recipient(recipient: str) -> None:
    """Refuse a text that is no age recipient.

    Raises:
        ConfigError: When it is no X25519 recipient of age, "age1...".
    """
    try:
        pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError:
        # A secret that was pasted here by mistake must not end up in a log.
        shown = "an age SECRET key" if recipient.strip().upper().startswith(_SECRET) else repr(recipient[:80])
        raise ConfigError(f"{shown} is no age recipient; one begins with age1, as `age-keygen -y` shows it") from None


def seal_bytes(data: bytes, recipients: Sequence[str]) -> bytes:
    """Return bytes sealed to recipients, any of whom can open them.

    Raises:
        ConfigError: When there is no recipient, or one of the texts is none.
    """
    sink = io.BytesIO()
    _stream(pyrage.encrypt_io, io.BytesIO(data), sink, _recipients(recipients))
    return sink.getvalue()


def seal_bytes_under(data: bytes, passphrase: str) -> bytes:
    """Return bytes sealed under a passphrase, each guess of which costs scrypt's work of about a second.

    Raises:
        ConfigError: When it is empty.
    """
    sealings: list[bytes] = []
    while len(sealings) < _SEALINGS and not (sealings and _work(sealings[-1]) >= _LEAST_WORK):
        try:
            sealings.append(bytes(pyrage.passphrase.encrypt(data, _said(passphrase))))
        except pyrage.EncryptError as error:
            raise CryptoError(f"sealing under a passphrase failed: {error}") from None
    return max(sealings, key=_work)


def open_bytes(sealed: bytes, opener: Opener) -> bytes:
    """Return what was sealed, all of it authenticated.

    Raises:
        CryptoError: When it is no age file, is sealed to others, or is not as it was sealed.
    """
    # If opening fails, this buffer is dropped with what was written into it.
    sink = io.BytesIO()
    opener.open(io.BytesIO(sealed), sink)
    return sink.getvalue()


def write_sealed(path: Path, data: bytes | BinaryIO, recipients: Sequence[str]) -> None:
    """Write a file, sealed to recipients: whole or not at all, with mode 0600, and never as plaintext beside its place.

    Of an open file, memory holds only a few chunks at a time.

    Raises:
        ConfigError: When there is no recipient, or one of the texts is none.
        OSError: When it cannot be written, or the data cannot be read; an earlier file in its place stays.
    """
    known = _recipients(recipients)
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    with replacing(path) as sink:
        _stream(pyrage.encrypt_io, source, sink, known)


def read_sealed(path: Path, opener: Opener) -> bytes:
    """Return the plaintext of a sealed file, all of it authenticated.

    Raises:
        CryptoError: When it is no age file, is sealed to others, or is not as it was sealed.
        OSError: When it cannot be read.
    """
    sink = io.BytesIO()
    open_to(path, opener, sink)
    return sink.getvalue()


def open_to(path: Path, opener: Opener, sink: BinaryIO) -> None:
    """Write the plaintext of a sealed file into a sink, chunk by chunk.

    Each chunk, and its position, is authenticated before it is written. Only at the end is it known that the file is
    complete. So after a CryptoError the sink holds a true beginning of the plaintext, which must not be taken for the
    whole.

    Raises:
        CryptoError: When it is no age file, is sealed to others, is not as it was sealed, or was cut short.
        OSError: When the file cannot be read, or the sink cannot be written.
    """
    with path.open("rb") as source:
        try:
            opener.open(source, sink)
        except CryptoError as error:
            raise CryptoError(f"{path}: {error}") from None


class _Ends:
    """A source or a sink for age-rs that remembers what it raised, because age-rs passes on only the text of it."""

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
        """Do nothing: the owner of the sink flushes it."""


def _stream(work: Callable[..., None], source: BinaryIO, sink: BinaryIO, keys: Sequence[object]) -> None:
    """Run one of age-rs's streams; raise a disk's error as it was, and any other failure as our own."""
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
    """Return an error that says why a file may not open, from what age-rs says."""
    found = str(error)
    if found == "No matching keys found":
        return CryptoError("sealed to another key than the one given, or not in this way: key file or passphrase")
    if found == "Decryption failed":
        return CryptoError("the key or the passphrase does not open it")
    if "truncated" in found:
        return CryptoError("cut short: the end that was sealed is missing; take it from a backup")
    if _is_too_much_work(error):
        return CryptoError("its passphrase was made slower to try than this machine allows; open it with `age`")
    if found == "decryption error":
        return CryptoError("not as it was sealed: changed or cut short since; take it from a backup")
    return CryptoError("no age file, or its beginning was changed or cut off")


def _is_too_much_work(error: Exception) -> bool:
    """Return whether age-rs refuses a file because, by its measurement, scrypt would take too long here."""
    return "work" in str(error).lower()


def _work(sealed: bytes) -> int:
    """Return the log2 of scrypt's N from a sealed file's header; 0 where it has none (C2SP age, "scrypt recipient")."""
    found = re.match(rb"age-encryption\.org/v1\n-> scrypt [A-Za-z0-9+/]{22} ([1-9][0-9]?)\n", sealed)
    return 0 if found is None else int(found[1])


def _identity(secret: str) -> pyrage.x25519.Identity:
    """Return the age key that a text stands for; an error never shows any part of it."""
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
