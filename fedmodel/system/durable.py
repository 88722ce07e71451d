"""Files that are replaced whole: after a crash there is the old one or the new one, and never a part. And locks."""

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
"""What says that a file is not there; any other error of the system says nothing about what there is."""


def failed(error: OSError) -> str:
    """Say in one line what the system did not do, and to which file."""
    what = error.strerror or type(error).__name__
    return what if error.filename is None else f"{error.filename}: {what}"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error of the system name a path: the system leaves it out where a file that is open is written to."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Put on disk what was made, renamed and erased in a folder."""
    with naming(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file beside a file's place, and put it there when the block has ended and all of it is on disk.

    It is readable by its owner alone (0600) before the first byte is in it, whatever was there before. When the block
    raises, it is taken away and what was at the place stays. An error of the disk, such as that it is full, names a
    path (`naming`).

    Two processes that replace one file need a lock of their own: they would write beside it at one place.
    """
    beside = path.with_name(path.name + ".partial")
    # What a killed process left may be open to others, or be a link to elsewhere: never written into.
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
    """Write a file beside its place, and put it there when all of it is on disk; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def erase_folder(folder: Path) -> None:
    """Take a folder away with all that is in it, where it is there: what cannot be taken away raises."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


@contextmanager
def held(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file for the length of the block, without waiting; the kernel lets go of it when the process dies.

    Args:
        path: The file; it is made where it is not there, and stays.
        refusal: What to say where another holds it.

    Raises:
        ConfigError: When another holds it.
    """
    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(refusal) from error
        yield
