"""Uniform numbers that whoever knows a public seed draws alike, in any version of any library.

A generator of numpy's or torch's may draw otherwise in another version, and parties whose draws differ would add up
what does not belong together. AES-256 in counter mode is the same everywhere.

Does NOT make secrets: whoever knows the seed knows the numbers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.crypto.primitives import BLOCK_SIZE, Keystream, digest

_WORD: Final = 8  # bytes


def public_words(label: bytes, seed: int, count: int) -> NDArray[np.uint64]:
    """Return uniform numbers from 0 up to 2^64, shape `(count,)`.

    Args:
        label: Of one purpose, versioned. With the seed it makes a key, of which this is the only stream.
        seed: From 0 up to 2^63.
        count: How many; those of a smaller count are the first of them.
    """
    stream, drawn = Keystream(digest(label, seed.to_bytes(8, "big"))), np.empty(count, dtype="<u8")
    buffer, each = bytearray(BLOCK_SIZE + 15), BLOCK_SIZE // _WORD
    for start in range(0, count, each):
        block_B = drawn[start : start + each]
        stream.fill(buffer, block_B.nbytes)
        block_B[:] = np.frombuffer(buffer, dtype="<u8", count=len(block_B))
    return drawn
