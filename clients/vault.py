"""Where a silo keeps the secrets of secure aggregation between two messages: a file a run, sealed, under a lock.

Guarantee: when the block of `protocol` ends without an error, the new state is on disk, and only then can a handler
return the stage's message. A process killed before that has sent nothing; killed after, it cannot be made to do the
stage again. Two processes never act on one state at once. What a stage refused leaves the file as it was.

A secret that a stage erased is gone from the file that replaces the old one, not from the blocks that a disk may keep
of it; those are sealed to a key that follows from the silo's identity.

Does NOT notice that a backup of the file was put back.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmodel.crypto import SealingKey, Suite, seal
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
    context = b"fedmodel/v1/aggregation-state" + run.to_bytes(8, "big")
    key = SealingKey(Suite.CLASSIC, kit.identity.derive(b"fedmodel/v1/state", context), context)
    with (folder / "aggregation.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = key.open(path.read_bytes(), context) if path.exists() else None
        silo = Silo(kit.identity, kit.roster, kit.policy, run, kept)
        yield silo
        _replace(path, seal(Suite.CLASSIC, key.public, silo.state(), context))


def _replace(path: Path, data: bytes) -> None:
    """Write a file beside its place, and put it there when all of it is on disk."""
    beside = path.with_suffix(".partial")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
