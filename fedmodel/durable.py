"""Files that are replaced whole: after a crash there is the old one or the new one, and never a part. And locks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fedmodel.errors import ConfigError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file beside a file's place, and put it there when the block has ended and all of it is on disk.

    It is readable by its owner alone (0600) before the first byte is in it, whatever was there before. When the block
    raises, it is taken away and what was at the place stays. An error of the disk, such as that it is full, names the
    place, which the system leaves out.

    Two processes that replace one file need a lock of their own: they would write beside it at one place.
    """
    beside = path.with_name(path.name + ".partial")
    # What a killed process left may be open to others, or be a link to elsewhere: never written into.
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    # The rename itself is on disk only when the folder is.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file beside its place, and put it there when all of it is on disk; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


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
