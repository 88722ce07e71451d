"""Where a silo keeps the secrets of secure aggregation between two messages: a file a run, sealed, under a lock.

Guarantee: when the block of `protocol` ends without an error, the new state is on disk, and only then can a handler
return the stage's message. A process killed before that has sent nothing; killed after, it cannot be made to do the
stage again. Two processes never act on one state at once. What a stage refused leaves the file as it was.

A secret that a stage erased is gone from the file that replaces the old one. What a run that ended in the middle left
behind is erased when the next one begins, all but how far it had come.

Does NOT erase the blocks that a disk may keep of an old file: whoever has them and the identity key reads them. Does
NOT notice that a backup of the file was put back.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedmodel.crypto import SealingKey, Suite, seal
from fedmodel.durable import replace_file
from fedmodel.errors import CryptoError
from fedmodel.provision import Kit
from fedmodel.secagg import Silo


@contextmanager
def protocol(kit: Kit, folder: Path, run: int) -> Iterator[Silo]:
    """Open a silo's side of secure aggregation in one run, and keep what became of it.

    Args:
        kit: The silo's.
        folder: The silo's own.
        run: The run.

    Raises:
        CryptoError: When the state was not sealed by this silo for this run.
    """
    path = folder / f"aggregation-{run}.state"
    with (folder / "aggregation.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for cut_short in folder.glob("aggregation-*.partial"):
            cut_short.unlink()  # of a process that was killed while it wrote
        if not path.exists():
            for other in sorted(folder.glob("aggregation-*.state")):
                _forget(kit, other)
        silo = _read(kit, path, run)
        yield silo
        _write(kit, path, run, silo)


def _forget(kit: Kit, path: Path) -> None:
    """Erase the secrets of another run; a file that cannot be read is left to whoever asks for its run."""
    number = path.stem.removeprefix("aggregation-")
    with suppress(CryptoError, ValueError):
        silo = _read(kit, path, int(number))
        silo.forget()
        _write(kit, path, int(number), silo)


def _read(kit: Kit, path: Path, run: int) -> Silo:
    """Return a silo's side as it was kept, or from the beginning where nothing was."""
    key, context = _seal_of(kit, run)
    kept = key.open(path.read_bytes(), context) if path.exists() else None
    return Silo(kit.identity, kit.roster, kit.policy, run, kept)


def _write(kit: Kit, path: Path, run: int, silo: Silo) -> None:
    key, context = _seal_of(kit, run)
    replace_file(path, seal(Suite.CLASSIC, key.public, silo.state(), context))


def _seal_of(kit: Kit, run: int) -> tuple[SealingKey, bytes]:
    """Return what a run's state is sealed under, and bound to."""
    context = b"fedmodel/v1/aggregation-state" + run.to_bytes(8, "big")
    return SealingKey(Suite.CLASSIC, kit.identity.derive(b"fedmodel/v1/state", context), context), context
