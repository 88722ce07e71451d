"""Ledgers that a process keeps open between two messages: those of a simulation's silos, which share the process.

A silo's ledger is opened for every message: tables are read, the log is begun, and its head is looked at. A process of
many silos that asks for them over and over does that once each, inside `kept_open`.

Guarantee: whoever asks gets a ledger that was opened, and checked, as ever, at this very file. Where something else
lies at its path by now, or the last who used it failed, it is closed and opened again. Each silo's ledger is a file of
its own, as in a deployment: any tool reads it meanwhile.

Does NOT keep one open for a deployed silo, whose process has one and whose operator may put another in its place.
"""

from __future__ import annotations

import resource
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from fedmodel.crypto import SigningKey
from fedmodel.ledger.book import Ledger

_FILES_EACH: Final = 3  # the file, its log, and what processes that share the log look at
_SPARE_FILES: Final = 256
_MOST_FILES: Final = 65_536

_kept: ContextVar[Kept | None] = ContextVar("_kept", default=None)


class Kept:
    """Open ledgers by their paths, those used last at the end; no more of them than files may be open."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, tuple[Ledger, tuple[int, int] | None]] = OrderedDict()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        self._most = max(1, (max(soft, wanted) - _SPARE_FILES) // _FILES_EACH)

    def take(self, path: Path, silo: str, identity: SigningKey, head: Path) -> Ledger:
        """Return the open ledger of a path."""
        found = self._open.get(path)
        if found is not None and found[1] == _place(path):
            self._open.move_to_end(path)
            return found[0]
        self.drop(path)
        while len(self._open) >= self._most:
            self.drop(next(iter(self._open)))
        ledger = Ledger(path, silo, identity, head)
        self._open[path] = ledger, _place(path)
        return ledger

    def drop(self, path: Path) -> None:
        """Close the ledger of a path, if it is open."""
        if (found := self._open.pop(path, None)) is not None:
            found[0].close()

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            self.drop(next(iter(self._open)))


@contextmanager
def kept_open() -> Iterator[None]:
    """Keep ledgers open that are opened in the block (`opened`), to its end."""
    kept = Kept()
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)
        kept.close()


@contextmanager
def opened(path: Path, silo: str, identity: SigningKey, head: Path) -> Iterator[Ledger]:
    """Open a ledger for the block, or take the one that is kept open.

    Args:
        path: The file.
        silo: Whose ledger it is.
        identity: The silo's key.
        head: The file of the newest head.

    Raises:
        LedgerError: As `Ledger`.
    """
    kept = _kept.get()
    if kept is None:
        with Ledger(path, silo, identity, head) as ledger:
            yield ledger
        return
    try:
        yield kept.take(path, silo, identity, head)
    except BaseException:
        kept.drop(path)
        raise


def _place(path: Path) -> tuple[int, int] | None:
    """Return which file lies at a path, None for none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
