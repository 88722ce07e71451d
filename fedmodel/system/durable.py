"""Locks, and files that are replaced whole: after a crash there is the old file or the new one, and never a part.

Many files that nobody is told of before the last one is written need one sync, not two each: inside `synced_together`
they are put off to the end of the block. Guarantee: once the block has ended without an error, all that was written in
it is on disk. Until then a killed process loses nothing of it, and a machine whose power fails may lose any part of it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO, BinaryIO, Final

from fedmodel.errors import ConfigError

MISSING: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""The errors that say that a file is not there; no other error of the system says whether there is one."""


_put_off: ContextVar[dict[Path, None] | None] = ContextVar("_put_off", default=None)
_locks: set[IO[bytes]] = set()  # that this process holds


def failed(error: OSError) -> str:
    """Return one line that says what the system could not do, and with which file."""
    what = error.strerror or type(error).__name__
    if error.filename is None:
        return what
    name = str(error.filename)
    return f"{name if name.strip('.') else Path(name).resolve()}: {what}"  # "." names no place to a reader


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add a path to an error of the system: the system leaves it out when an open file is written to."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def synced_together() -> Iterator[None]:
    """Put the syncs of what is written in the block off to its end, and make one of them; within another, to its end.

    The block's own error goes first: what was written before it is synced too.

    Raises:
        OSError: When something of it is not on disk, with a path that it may be.
    """
    if is_put_off():
        yield
        return
    written: dict[Path, None] = {}  # in their order, so that the same run syncs the same way
    token = _put_off.set(written)
    try:
        yield
    finally:
        _put_off.reset(token)
        _sync_all(written)


def is_put_off() -> bool:
    """Whether syncs are put off here (`synced_together`)."""
    return _put_off.get() is not None


def put_off(path: Path) -> bool:
    """Put off the sync of a file, or a folder, that was written; False where it is to be made now."""
    written = _put_off.get()
    if written is None:
        return False
    written[path] = None
    return True


def _sync_all(written: Iterable[Path]) -> None:
    """Sync files and folders: each file system once where the system can, each of them elsewhere."""
    sync_file_system = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    by_device = {path.stat().st_dev: path for path in written if path.exists()}  # the last of each
    for path in written if sync_file_system is None else by_device.values():
        with suppress(FileNotFoundError):  # it was replaced, or erased, since
            _synced(path, sync_file_system)


def _synced(path: Path, sync: Callable[[int], int] | None = None) -> None:
    """Sync a file or a folder, or by a function of the system's all that it lies among."""
    with naming(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if sync is None:
                os.fsync(descriptor)
            elif sync(descriptor):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
        finally:
            os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make sure that what was made, renamed and erased in a folder is on disk."""
    if not put_off(folder):
        _synced(folder)


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
            if not put_off(path):
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

    Guarantee: no process that is forked inside the block holds it too, however long that lives.

    Args:
        path: The file; it is made if it is missing, and stays.
        refusal: The error's text if another process holds the lock.

    Raises:
        ConfigError: When another process holds it.
    """
    with path.open("ab", buffering=0) as lock:
        _locks.add(lock)
        try:
            _take(lock, refusal)
            yield
        finally:
            _locks.discard(lock)


def _take(lock: IO[bytes], refusal: str) -> None:
    """Take a lock, or refuse where another has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(refusal) from error


def _let_go() -> None:
    """Close what a fork inherited of its parent's locks, which are held for as long as anybody has them open."""
    while _locks:
        _locks.pop().close()


os.register_at_fork(after_in_child=_let_go)
