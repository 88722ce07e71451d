"""Masks: a 32-byte key stretched into a vector of ring elements, added to another vector in place.

Guarantee: if the key is uniform, secret and used for this one vector, a masked vector is indistinguishable from a
uniform one (AES-256 in counter mode as a pseudorandom generator). Adding and then subtracting the same mask gives the
vector back exactly: the ring is Z_2^16 or Z_2^32, and its sums are those of unsigned words.

Does NOT check that a key is used once. The protocol derives every key from a context that never repeats.

Shapes: P coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedmodel.crypto import keystream
from fedmodel.errors import CryptoError

RingBits = Literal[16, 32]
Words = NDArray[np.unsignedinteger]


def add_mask(vector_P: Words, key: bytes) -> None:
    """Add the key's mask to a vector of little-endian ring elements, in place."""
    for part, mask in _parts(vector_P, key):
        np.add(part, mask, out=part)


def subtract_mask(vector_P: Words, key: bytes) -> None:
    """Take the key's mask away again, in place."""
    for part, mask in _parts(vector_P, key):
        np.subtract(part, mask, out=part)


def _parts(vector_P: Words, key: bytes) -> Iterator[tuple[Words, Words]]:
    """Yield the vector piece by piece, each with its piece of the mask, both small enough for a core's cache.

    Raises:
        CryptoError: When the vector is not a flat, contiguous one of 16- or 32-bit unsigned words.
    """
    flat = vector_P.ndim == 1 and vector_P.flags.c_contiguous
    if not flat or vector_P.dtype not in (np.dtype("<u2"), np.dtype("<u4")):
        raise CryptoError("a masked vector is a flat, contiguous array of little-endian 16- or 32-bit words")
    width = vector_P.dtype.itemsize
    start = 0
    for block in keystream(key, width * len(vector_P)):
        mask: Words = np.frombuffer(block, dtype=vector_P.dtype)
        yield vector_P[start : start + len(mask)], mask
        start += len(mask)
