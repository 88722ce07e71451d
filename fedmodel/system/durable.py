"""Locks, and files that are replaced whole: after a crash there is the old file or the new one, and never a part."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from fedmodel.errors import ConfigError

MISSING: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""The errors that say that a file is not there; no other error of the system says whether there is one."""


def failed(error: OSError) -> str:
    """Return one line that says what the system could not do, and with which file."""
    what = error.strerror or type(error).__name__
    return what if error.filename is None else f"{error.filename}: {what}"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add a path to an error of the system: the system leaves it out when an open file is written to."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Make sure that what was made, renamed and erased in a folder is on disk."""
    with naming(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a new file beside `path`, and rename it to `path` when the block has ended and all of it is on disk.

    Only the owner can read it (mode 0600), from before its first byte, whatever was there before. If the block raises,
    the new file is removed and an earlier file at `path` stays. An error of the disk, such as a full disk, names a path
    (`naming`).

    Two processes that replace one file need a lock of their own, because they would write to the same partial file.
    """
    beside = path.with_name(path.name + ".partial")
    # A file left by a killed process may be open to others, or be a link to elsewhere, so it is never written into.
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with naming(path), os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    sync_folder(path.parent)  # the rename itself is on disk only when the folder is


def replace_file(path: Path, data: bytes) -> None:
    """Write a file beside `path`, and rename it to `path` when all of it is on disk; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def erase_folder(folder: Path) -> None:
    """Remove a folder and everything in it, if it exists; what cannot be removed raises."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


@contextmanager
def held(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file for the length of the block, without waiting; the kernel releases it when the process dies.

    Args:
        path: The file; it is made if it is missing, and stays.
        refusal: The error's text if another process holds the lock.

    Raises:
        ConfigError: When another process holds it.
    """
    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(refusal) from error
        yield
