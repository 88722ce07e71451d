"""What was read from a table, kept at rest for the rounds to come: sealed in the age format, and padded.

One file a data set, `NAME.age`, replaced whole. Inside stands a key, a digest of the schema and of what the source was
when it was read; a file whose key is another, that does not open or whose length does not fit is not used, and the
table is read again. Nothing is ever written in the clear.

Its length is padded (Padmé: Nikitin et al. 2019, PURBs, section 4), by a thirty-second at most, so that a thief of the
disk learns the number of records to about three parts in a hundred, and nothing of tables under 64 KiB.

Does NOT protect against whoever can write the silo's files: anybody can seal to a public recipient, and whoever could
put a cache there could as well change the table. Does not hide records from whom it is sealed to.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmodel.data.records import Records
from fedmodel.errors import CryptoError, DataError
from fedmodel.kinds.shape import ArrayShape

if TYPE_CHECKING:
    from fedmodel.crypto.sealed import Opener

_HEAD: Final = struct.Struct("<24s32sQ")
_MAGIC: Final = b"fedmodel/v1/table-cache\0"
_LEAST: Final = 65_536  # bytes: small tables are all of one length


@dataclass(frozen=True)
class Cache:
    """Where a party keeps what it read.

    Attributes:
        folder: Its own; made, 0700, where it is missing.
        recipients: Of age, who can open it: the party itself, and nobody else without a reason.
        opener: The party's.
        run: The run. What a query gave is kept for this run alone, since a database does not say when it changed.
    """

    folder: Path
    recipients: tuple[str, ...]
    opener: Opener = field(repr=False)
    run: str

    def get(self, name: str, key: bytes, features: tuple[int, ...], target: ArrayShape) -> Records | None:
        """Return what was kept under a key of 32 bytes, None where there is nothing that could be it."""
        from fedmodel.crypto.sealed import read_sealed  # who reads rows for a model has no cache and needs none

        try:
            plain = read_sealed(self._path(name), self.opener)
        except (CryptoError, OSError):
            return None
        return _unpacked(plain, key, features, target)

    def put(self, name: str, key: bytes, records: Records) -> None:
        """Keep records under a key, in place of any before.

        Raises:
            DataError: When they cannot be written.
        """
        from fedmodel.crypto.sealed import write_sealed

        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_sealed(self._path(name), _packed(key, records), self.recipients)
        except OSError as error:
            raise DataError(f"{self._path(name)}: the cache cannot be written: {error.strerror}") from error

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.age"


def _packed(key: bytes, records: Records) -> bytes:
    """Return a head, the three arrays as little-endian words, and padding."""
    targets = records.y_N.astype("<i8" if records.y_N.dtype.kind in "iu" else "<f4")
    arrays = (records.x_NF.astype("<f4"), targets, records.person_N.astype("<i8"))
    body = b"".join([_HEAD.pack(_MAGIC, key, len(records)), *(array.tobytes() for array in arrays)])
    return body.ljust(padded(len(body)), b"\0")


def _unpacked(plain: bytes, key: bytes, features: tuple[int, ...], target: ArrayShape) -> Records | None:
    """Return the records, None where the bytes are anything else."""
    if len(plain) < _HEAD.size:
        return None
    magic, found, records = _HEAD.unpack_from(plain)
    word, kind = ("<f4", np.float32) if target.below is None else ("<i8", np.int64)
    values, told = records * math.prod(features), records * math.prod(target.size)
    x_end = _HEAD.size + 4 * values
    y_end = x_end + np.dtype(word).itemsize * told
    if magic != _MAGIC or found != key or len(plain) != padded(y_end + 8 * records):
        return None
    x_NF = np.frombuffer(plain, "<f4", values, _HEAD.size).reshape(records, *features)
    y_N = np.frombuffer(plain, word, told, x_end).reshape(records, *target.size)
    person_N = np.frombuffer(plain, "<i8", records, y_end)
    return Records(x_NF.astype(np.float32), y_N.astype(kind), person_N.astype(np.int64))


def padded(size_bytes: int) -> int:
    """Return the length to which so many bytes are padded: few lengths, none of them a thirty-second over.

    >>> padded(10), padded(1_000_000), padded(1_000_001)
    (65536, 1015808, 1015808)
    """
    size_bytes = max(size_bytes, _LEAST)
    exponent = size_bytes.bit_length() - 1
    step = 1 << (exponent - exponent.bit_length())
    return -(-size_bytes // step) * step
