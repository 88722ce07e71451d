"""A ledger's newest signed head, kept in a file of its own beside the silo's keys."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedmodel.errors import LedgerError
from fedmodel.ledger.heads import Head, open_head
from fedmodel.system.durable import replace_file


@dataclass(frozen=True)
class HeadFile:
    """Where a ledger's head is kept.

    Attributes:
        path: The file.
        origin: What heads of the ledger are signed for.
        public: The silo's key.
    """

    path: Path
    origin: str
    public: bytes

    def read(self) -> Head | None:
        """Return the head that is kept, None where none is.

        Raises:
            LedgerError: When it cannot be read.
            LedgerTampered: When it is no head of this ledger's.
        """
        try:
            note = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerError(f"{self.path}: the ledger's head cannot be read: {error.strerror}") from error
        return open_head(note, self.origin, self.public)

    def keep(self, newest: Callable[[], bytes]) -> None:
        """Write the newest head in its place. One process at a time, so that no older one comes after a newer.

        Args:
            newest: Returns the head as it is once the file is locked.

        Raises:
            LedgerError: When it cannot be written; what was entered stands.
        """
        try:
            with self.path.with_suffix(".lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                replace_file(self.path, newest())
        except OSError as error:
            raise LedgerError(
                f"{self.path}: the ledger's head cannot be written: {error.strerror}; what was entered stands, and"
                " nothing was released for it"
            ) from error
