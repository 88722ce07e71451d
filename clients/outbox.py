"""The last update that a silo made, kept sealed until the next, so that a request asked again gets the same bytes.

Beside it, in the same file, lies what is carried into the next round of the run, if anything is (`clients.carried`):
the one is never there without the other, and neither is lost when a process ends.

Guarantee: an update is on disk here before it can leave the process, with the number of its charge in the ledger. So
where the update of the charge before the newest is here, the newest's never left. Before the first charge of a ledger
there is an empty file, which says with the number 0 that no update was ever made (`begin`). A file that is not there
says nothing: it was lost, or left away when a silo was restored. One process at a time makes updates for a silo.

A masked update is on disk before that, with the state in which its mask is used up (`clients.hiding`). It comes here
from there if a process was killed between the two, and then it is that of the newest charge.

Does NOT keep more than the last update of the silo, nor notice that it was put back from a backup: what is asked for
and is not here is made, and charged, again.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from fedmodel.crypto import SealingKey, Suite, seal
from fedmodel.errors import CryptoError
from fedmodel.provision import Kit
from fedmodel.system.durable import replace_file

_CONTEXT: Final = b"fedmodel/v1/outbox-2"
_KEY_SIZE: Final = 64
_STATE_AT: Final = _KEY_SIZE + 24  # after the numbers of charge and run, and the state's length


@dataclass(frozen=True)
class Release:
    """An update that may leave, and what lies beside it.

    Attributes:
        key: What it is asked for by, 64 characters.
        charge: The number of its charge.
        update: What leaves.
        run: The run that it is of.
        state: What the next round of the run begins with, besides the model. Noised, as the update is.

    Raises:
        CryptoError: When the key has another length.
    """

    key: str
    charge: int
    update: bytes
    run: int = 0
    state: bytes = b""

    def __post_init__(self) -> None:
        if len(self.key) != _KEY_SIZE:
            raise CryptoError(f"a key of {len(self.key)} characters, where {_KEY_SIZE} are needed")

    def to_bytes(self) -> bytes:
        """Return it as it lies in the outbox."""
        numbers = b"".join(number.to_bytes(8, "big") for number in (self.charge, self.run, len(self.state)))
        return self.key.encode() + numbers + self.state + self.update

    @classmethod
    def from_bytes(cls, kept: bytes) -> Self:
        """Read what `to_bytes` returned."""
        charge, run, size = (int.from_bytes(kept[at : at + 8], "big") for at in range(_KEY_SIZE, _STATE_AT, 8))
        state, update = kept[_STATE_AT : _STATE_AT + size], kept[_STATE_AT + size :]
        return cls(kept[:_KEY_SIZE].decode(), charge, update, run, state)


_NOTHING: Final = Release("\0" * _KEY_SIZE, 0, b"")


class Outbox:
    """An open outbox.

    Args:
        kit: The silo's.
        folder: The silo's own.
    """

    def __init__(self, kit: Kit, folder: Path) -> None:
        self._path = folder / "outbox"
        self._seal = SealingKey(Suite.CLASSIC, kit.identity.derive(b"fedmodel/v1/outbox-key", _CONTEXT), _CONTEXT)

    def recall(self, key: str) -> bytes | None:
        """Return what was kept under a key, or None where something else, nothing, or what cannot be opened, was."""
        try:
            kept = self._read()
        except (FileNotFoundError, CryptoError):
            return None
        return kept.update if kept.key == key else None

    def state(self, run: int) -> bytes:
        """Return what was kept for the next round of a run, empty where the last update is of another or gone."""
        try:
            kept = self._read()
        except (FileNotFoundError, CryptoError):
            return b""
        return kept.state if kept.run == run else b""

    def begin(self) -> None:
        """Say that no update was ever made, where nothing is kept. For a ledger in which nothing was ever charged."""
        if not self._path.exists():
            self._write(_NOTHING)

    @property
    def last(self) -> int | None:
        """The number of the charge whose update is here, 0 where none was ever made, None where the file is missing.

        Raises:
            CryptoError: When the file was not sealed by this silo.
        """
        if not self._path.exists():
            return None
        return self._read().charge

    def keep(self, release: Release) -> None:
        """Keep an update in place of the last one; it is on disk when this returns."""
        self._write(release)

    def _write(self, release: Release) -> None:
        replace_file(self._path, seal(Suite.CLASSIC, self._seal.public, release.to_bytes(), _CONTEXT))

    def _read(self) -> Release:
        return Release.from_bytes(self._seal.open(self._path.read_bytes(), _CONTEXT))


@contextmanager
def outbox(kit: Kit, folder: Path) -> Iterator[Outbox]:
    """Open a silo's outbox, and keep every other process that would make an update, or void one, waiting."""
    with (folder / "outbox.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Outbox(kit, folder)
