"""What the server of an audited run opened: each round's mean of updates, where the audit looks.

    server/audit/mean-00001.npy    round 1: the mean on the canaries' coordinates, then on those of the model itself

It is what the strategy was given, before it made a step of it, so that what a silo's update has come to can be told
under every strategy of means. A round that is taken up again writes its file anew. One that failed closed has none:
what a server wrote of it that was killed before its checkpoint is erased (`drop_mean`) before the checkpoint that says
that it failed.

Does NOT belong anywhere but in a simulated run's folder, and says nothing of what the model became.

Shapes: W coordinates where the audit looks, the canaries' K and the model's S together.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.crypto import digest
from fedmodel.errors import LedgerError, LedgerTampered
from fedmodel.system.durable import MISSING, naming, replace_file, sync_folder

_FOLDER: Final = "audit"
_NAME: Final = re.compile(r"mean-([0-9]{5,})\.npy")
_LABEL: Final = b"fedmodel/v1/audit-means"


def keep_mean(home: Path, number: int, mean_W: NDArray[np.float32]) -> None:
    """Write down what a round came to, where the audit looks (`probes.watched`), into a simulated server's folder."""
    folder, packed = home / _FOLDER, io.BytesIO()
    with naming(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    np.save(packed, mean_W)
    replace_file(folder / _named(number), packed.getvalue())


def drop_mean(home: Path, number: int) -> None:
    """Erase what was written of a round that failed closed when it was done again, if anything was."""
    path = home / _FOLDER / _named(number)
    if path.exists():
        path.unlink()
        sync_folder(path.parent)


def read_means(home: Path) -> dict[int, NDArray[np.float32]]:
    """Return what each round came to, float32 of shape `(W,)`, by its number; nothing of a run that kept none.

    Raises:
        LedgerTampered: When a file of it is not as it was written.
    """
    found: dict[int, NDArray[np.float32]] = {}
    for number, path in _files(home).items():
        try:
            mean_W = np.load(io.BytesIO(_read(path)), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise LedgerTampered(f"{path}: is not as it was written ({type(error).__name__})") from error
        if mean_W.dtype != np.float32 or mean_W.ndim != 1:
            raise LedgerTampered(f"{path}: is not as it was written: no vector is in it")
        found[number] = mean_W
    return found


def means_digest(home: Path) -> bytes | None:
    """Return the hash of all that was opened, 32 bytes; None of a run that kept nothing of it."""
    files = _files(home)
    parts = [part for number, path in files.items() for part in (number.to_bytes(4, "big"), _read(path))]
    return digest(_LABEL, *parts) if parts else None


def _named(number: int) -> str:
    return f"mean-{number:05}.npy"


def _files(home: Path) -> dict[int, Path]:
    """Return the files of rounds by their number, rising."""
    named = {path: _NAME.fullmatch(path.name) for path in sorted((home / _FOLDER).glob("mean-*"))}
    return dict(sorted((int(match[1]), path) for path, match in named.items() if match))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        kind = LedgerTampered if isinstance(error, MISSING) else LedgerError
        raise kind(f"{path}: what an audit saw cannot be read: {error.strerror}") from error
