"""What an audit saw at a silo: coins before the run, a file a release while it runs, and all of it read back.

    silos/NAME/audit/coins              which canaries are in the data, with a nonce; hashed into the ledger before
    silos/NAME/audit/release-00001.npz  what one trained round released on the canaries' coordinates

Coins are fair and come from the operating system. The commitment is a hash of the file, with its nonce: whoever has it
can tell that the coins were not chosen after the run, and learns nothing of them before they are shown.

Does NOT belong anywhere but in a simulated silo's folder: lot sizes tell how many records the silo holds.

Shapes: T steps, K canaries, R releases (one a trained round), N records, canaries' included, L tensors of parameters,
S coordinates of the model itself, drawn once for all silos.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.crypto import digest, random_bytes
from fedmodel.errors import LedgerError, LedgerTampered
from fedmodel.system.durable import MISSING, naming, replace_file

FOLDER: Final = "audit"
_COINS: Final = "coins"
_STATES: Final = "states"
_LABEL: Final = b"fedmodel/v1/audit-coins"
_OBSERVED: Final = b"fedmodel/v1/audit-observations"


@dataclass(frozen=True)
class Release:
    """What one trained round released, as its silo saw it. Sensitive: all but sums, update and model.

    Attributes:
        round_number: The round.
        started: UTC, ISO 8601 to the millisecond, as a ledger writes time: before records were read for it.
        sums_TK: Each step's noised sum on the canaries' coordinates, gradient times the public denominator, float32.
        poison_T: The same on the coordinate of the record whose gradient is not a number.
        lots_T: Records drawn, a step.
        drawn_N: How often each record was drawn.
        update_K: The silo's update on the canaries' coordinates, as it left training.
        model_K: The global model on them, as the silo received it.
        noise_TL: Mean square of what was added to each tensor's clipped sum, of every tensor that is trained.
        sizes_L: Coordinates of each.
        update_S: The update on coordinates of the model itself.
        model_S: The global model on them.
        followed_TS: What was added to the clipped sum on those coordinates, each step.
        unexplained: How far the update is from what the inner optimiser makes of the noised gradients that were seen,
            at the coordinate where it is farthest, over the largest coordinate of the update.
        off_grid: How far a noised sum is from a multiple of the grid that it is to lie on, in steps of that grid, at
            the coordinate where it is farthest, of those where float32 can tell; None in a file from before there was
            one.
    """

    round_number: int
    started: str
    sums_TK: NDArray[np.float32]
    poison_T: NDArray[np.float32]
    lots_T: NDArray[np.int64]
    drawn_N: NDArray[np.int64]
    update_K: NDArray[np.float32]
    model_K: NDArray[np.float32]
    noise_TL: NDArray[np.float64]
    sizes_L: NDArray[np.int64]
    update_S: NDArray[np.float32]
    model_S: NDArray[np.float32]
    followed_TS: NDArray[np.float32]
    unexplained: float
    off_grid: float | None = None


@dataclass(frozen=True)
class Observations:
    """What one silo's audit saw of one run. Sensitive: coins, lot sizes and counts say what is in the silo's data.

    Attributes:
        silo: Its name.
        coins_K: Which canaries are in its data.
        sums_TK: Noised sums on the canaries' coordinates: gradient times the public denominator.
        poison_T: The same on the coordinate of the record whose gradient is not a number.
        lots_T: Records drawn.
        drawn_N: How often each record was drawn.
        round_T: The round of each step, rising.
        round_R: The round of each release.
        update_RK: The silo's update on the canaries' coordinates, as it left training.
        model_RK: The global model on them, as the silo received it for that round.
        started_R: UTC, ISO 8601 to the millisecond: before records were read for the release.
        noise_TL: Mean square of what was added to each tensor's clipped sum, of every tensor that is trained.
        sizes_L: Coordinates of each.
        update_RS: The silo's update on coordinates of the model itself.
        model_RS: The global model on them.
        followed_TS: What was added to the clipped sums on those coordinates, each step.
        unexplained_R: How far each update is from what the inner optimiser makes of the noised gradients, relatively.
        off_grid_R: How far the noised sums of each release are from their grid, in steps of it.
    """

    silo: str
    coins_K: NDArray[np.bool_]
    sums_TK: NDArray[np.float32]
    poison_T: NDArray[np.float32]
    lots_T: NDArray[np.int64]
    drawn_N: NDArray[np.int64]
    round_T: NDArray[np.int64]
    round_R: NDArray[np.int64]
    update_RK: NDArray[np.float32]
    model_RK: NDArray[np.float32]
    started_R: tuple[str, ...]
    noise_TL: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    sizes_L: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    update_RS: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    model_RS: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    followed_TS: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    unexplained_R: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    off_grid_R: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def records(self) -> int:
        """N."""
        return len(self.drawn_N)


def toss(silo_folder: Path, count: int) -> str:
    """Toss a silo's coins, keep them in its folder, and return the commitment to them, in hexadecimal.

    Args:
        silo_folder: A simulated silo's.
        count: K.

    Raises:
        FileExistsError: When coins are there already: they are tossed once.
    """
    folder = silo_folder / FOLDER
    folder.mkdir(mode=0o700)
    coins = "".join(f"{byte:08b}" for byte in random_bytes(-(-count // 8)))[:count]
    data = json.dumps({"coins": coins, "nonce": random_bytes(16).hex()}, sort_keys=True).encode()
    replace_file(folder / _COINS, data)
    return digest(_LABEL, data).hex()


def commitment(silo_folder: Path) -> str:
    """Return the commitment to the coins in a silo's folder, in hexadecimal."""
    return digest(_LABEL, _read(silo_folder / FOLDER / _COINS)).hex()


def coins(silo_folder: Path) -> NDArray[np.bool_]:
    """Return which canaries are in a silo's data, shape `(K,)`. Sensitive while the run goes on."""
    path = silo_folder / FOLDER / _COINS
    try:
        tossed = json.loads(_read(path))["coins"]
        return np.array([{"0": False, "1": True}[coin] for coin in tossed])
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerTampered(f"{path}: is not as it was written: no row of coins is in it") from error


def keep(silo_folder: Path, release: Release) -> None:
    """Write what a release was into the silo's folder, after those before it."""
    folder = silo_folder / FOLDER
    number = len(list(folder.glob("release-*.npz"))) + 1
    packed = io.BytesIO()
    values: dict[str, Any] = {one.name: np.asarray(getattr(release, one.name)) for one in fields(Release)}
    np.savez(packed, **values)
    replace_file(folder / f"release-{number:05}.npz", packed.getvalue())


def keep_state(silo_folder: Path, lineage: bytes, digest_of: str) -> None:
    """Note the hash of a state that the audit's own optimiser ended a round with, and the state's lineage."""
    path = silo_folder / FOLDER / _STATES
    with naming(path):
        kept = path.read_bytes() if path.exists() else b""
    replace_file(path, kept + f"{lineage.hex()} {digest_of}\n".encode("ascii"))


def known_states(silo_folder: Path, lineage: bytes) -> list[str]:
    """Return the hashes of states of one lineage that rounds ended with, oldest first."""
    path = silo_folder / FOLDER / _STATES
    kept = [line.split() for line in path.read_text(encoding="ascii").splitlines()] if path.exists() else []
    return [digest_of for of, digest_of in kept if of == lineage.hex()]


def observations_digest(silo_folder: Path) -> str:
    """Return the hash of everything that a silo's audit saw, in hexadecimal: a changed byte is another."""
    return digest(_OBSERVED, *(_read(path) for path in [silo_folder / FOLDER / _COINS, *_releases(silo_folder)])).hex()


def read_observations(silo_folder: Path, silo: str) -> Observations:
    """Return all that a silo's audit saw.

    Raises:
        LedgerTampered: When a file of it is missing or is not as it was written.
    """
    tossed_K = coins(silo_folder)
    seen = [_release(path) for path in _releases(silo_folder)]
    block = len(tossed_K) if seen and seen[0].sums_TK.shape[1] else 0
    try:
        return Observations(
            silo=silo,
            coins_K=tossed_K,
            sums_TK=np.concatenate([np.empty((0, block), np.float32), *(one.sums_TK for one in seen)]),
            poison_T=np.concatenate([np.empty(0, np.float32), *(one.poison_T for one in seen)]),
            lots_T=np.concatenate([np.empty(0, np.int64), *(one.lots_T for one in seen)]),
            drawn_N=sum((one.drawn_N for one in seen[1:]), seen[0].drawn_N) if seen else np.empty(0, np.int64),
            round_T=np.repeat([one.round_number for one in seen], [len(one.lots_T) for one in seen]),
            round_R=np.array([one.round_number for one in seen], dtype=np.int64),
            update_RK=np.stack([one.update_K for one in seen]) if seen else np.empty((0, block), np.float32),
            model_RK=np.stack([one.model_K for one in seen]) if seen else np.empty((0, block), np.float32),
            started_R=tuple(one.started for one in seen),
            noise_TL=np.concatenate([one.noise_TL for one in seen]) if seen else np.empty((0, 0)),
            sizes_L=seen[0].sizes_L if seen else np.empty(0, np.int64),
            update_RS=np.stack([one.update_S for one in seen]) if seen else np.empty((0, 0), np.float32),
            model_RS=np.stack([one.model_S for one in seen]) if seen else np.empty((0, 0), np.float32),
            followed_TS=np.concatenate([one.followed_TS for one in seen]) if seen else np.empty((0, 0), np.float32),
            unexplained_R=np.array([one.unexplained for one in seen]),
            off_grid_R=np.array([one.off_grid for one in seen if one.off_grid is not None]),
        )
    except ValueError as error:
        raise LedgerTampered(f"{silo_folder / FOLDER}: what was seen does not fit together: {error}") from error


def _releases(silo_folder: Path) -> list[Path]:
    """Return the files of releases, oldest first; a number that is left out is refused when it is read."""
    found = len(list((silo_folder / FOLDER).glob("release-*.npz")))
    return [silo_folder / FOLDER / f"release-{number:05}.npz" for number in range(1, found + 1)]


def _release(path: Path) -> Release:
    """Read one release."""
    try:
        with np.load(io.BytesIO(_read(path)), allow_pickle=False) as held:
            known = (one.name for one in fields(Release) if one.name != "off_grid" or one.name in held)
            values: dict[str, Any] = {name: held[name] for name in known}
        for name, kind in (("round_number", int), ("started", str), ("unexplained", float), ("off_grid", float)):
            if name in values:
                values[name] = kind(values[name])
        return Release(**values)
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise LedgerTampered(f"{path}: is not as it was written ({type(error).__name__})") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        kind = (
            LedgerTampered if isinstance(error, MISSING) else LedgerError
        )  # a disk that fails shows nothing of changes
        raise kind(f"{path}: what an audit saw cannot be read: {error.strerror}") from error
