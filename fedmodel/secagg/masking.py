"""Masks: a 32-byte key stretched into a vector of ring elements, added to another vector in place.

Guarantee: if the key is uniform, secret and used for this one vector, a masked vector is indistinguishable from a
uniform one (AES-256 in counter mode as a pseudorandom generator). Adding and then subtracting the same mask restores
the vector exactly: sums are those of unsigned words of 8, 16 or 32 bits. A ring of 12 or 24 bits lies in wider words
(`fedmodel.secagg.ring`): a mask that is uniform in these is uniform in the ring too, and whoever sends takes the rest
away.

Does NOT check that a key is used once. The protocol derives every key from a context that never repeats.

All masks are applied to one part of the vector before the next part, so that the part stays in a core's cache.

Shapes: P coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal

import numpy as np

from fedmodel.crypto import BLOCK_SIZE, Keystream
from fedmodel.errors import CryptoError
from fedmodel.secagg.ring import WIDTHS, Words, carrier

Sign = Literal[1, -1]
_CARRIERS: Final = {carrier(bits) for bits in WIDTHS}


def add_mask(vector_P: Words, key: bytes) -> None:
    """Add the key's mask to a vector of little-endian ring elements, in place."""
    apply_masks(vector_P, [(key, 1)])


def subtract_mask(vector_P: Words, key: bytes) -> None:
    """Subtract the key's mask, in place."""
    apply_masks(vector_P, [(key, -1)])


def apply_masks(vector_P: Words, masks: Sequence[tuple[bytes, Sign]], workers: int = 1) -> None:
    """Add masks, or subtract those whose sign is -1, in place.

    Args:
        vector_P: Flat, contiguous, little-endian words of 8, 16 or 32 bits.
        masks: Keys and signs.
        workers: Threads, each with a range of the vector; the cipher and numpy release the interpreter's lock.

    Raises:
        CryptoError: When the vector is of another kind.
    """
    flat = vector_P.ndim == 1 and vector_P.flags.c_contiguous
    if not flat or vector_P.dtype not in _CARRIERS:
        raise CryptoError("a masked vector is a flat, contiguous array of little-endian words of 8, 16 or 32 bits")
    # Each range is a number of whole blocks, except the last: a thread with less than one block gains nothing.
    blocks = -(-vector_P.nbytes // BLOCK_SIZE)
    size = -(-blocks // max(1, workers)) * BLOCK_SIZE
    starts = range(0, vector_P.nbytes, size or 1)
    if len(starts) <= 1:
        _mask_range(vector_P, masks, 0)
        return
    width = vector_P.dtype.itemsize
    with ThreadPoolExecutor(len(starts)) as pool:
        parts = (vector_P[start // width : (start + size) // width] for start in starts)
        list(pool.map(lambda part, start: _mask_range(part, masks, start), parts, starts))


def _mask_range(part_P: Words, masks: Sequence[tuple[bytes, Sign]], start: int) -> None:
    """Apply every mask to the range of a vector that begins at byte `start`."""
    streams = [(Keystream(key, start), np.add if sign > 0 else np.subtract) for key, sign in masks]
    buffer = bytearray(BLOCK_SIZE + 15)
    width = part_P.dtype.itemsize
    for begin in range(0, len(part_P), BLOCK_SIZE // width):
        block = part_P[begin : begin + BLOCK_SIZE // width]
        mask = np.frombuffer(buffer, dtype=part_P.dtype, count=len(block))
        for stream, lay in streams:
            stream.fill(buffer, block.nbytes)
            lay(block, mask, out=block)
