"""The rings of sums: the integers modulo 2^bits, in memory and packed as they are sent.

In memory an element lies in the smallest word of 8, 16 or 32 bits that holds it, the carrier. Its sums and masks are
computed modulo 2^carrier. The ring's 2^bits divides that, so whoever reduces afterwards gets what reducing at every
step gives. On the wire an element takes `bits` bits and not one more:

| Bits      | Carrier        | Bytes of n elements                                                             |
|-----------|----------------|---------------------------------------------------------------------------------|
| 8, 16, 32 | as many bits   | n bits / 8, little-endian words                                                 |
| 12        | 16             | 3 for each two, the first in the low 12 bits of a little-endian number; an odd one at the end takes 2, with 4 bits of zero |
| 24        | 32             | 3 n, little-endian words                                                        |

Guarantee: each vector of a ring has one packed form; `unpack` refuses every other sequence of bytes, and how many
elements there are follows from how many bytes there are.

Does NOT hide anything: masks do.

Shapes: P elements.
"""  # noqa: E501 - a row of a table is one line

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedmodel.errors import ProtocolError

RingBits = Literal[8, 12, 16, 24, 32]
Words = NDArray[np.unsignedinteger]

WIDTHS: Final[tuple[RingBits, ...]] = get_args(RingBits)
"""The rings that there are, by bits."""

_CARRIERS: Final[dict[int, np.dtype[np.unsignedinteger]]] = {
    bits: np.dtype(f"<u{size}") for bits, size in ((8, 1), (12, 2), (16, 2), (24, 4), (32, 4))
}


def carrier(bits: RingBits) -> np.dtype[np.unsignedinteger]:
    """Return the words in which a ring's elements lie in memory.

    >>> [carrier(bits).itemsize for bits in WIDTHS]
    [1, 2, 2, 4, 4]
    """
    return _CARRIERS[bits]


def holds(bits: RingBits, words_P: Words) -> bool:
    """Return whether words are elements of a ring: of its carrier, and none of them 2^bits or more."""
    if words_P.dtype != _CARRIERS[bits]:
        return False
    return _is_full(bits) or not words_P.size or int(words_P.max()) < 1 << bits


def reduce(bits: RingBits, words_P: Words) -> None:
    """Take words of a ring's carrier modulo 2^bits, in place."""
    if not _is_full(bits):
        np.bitwise_and(words_P, words_P.dtype.type((1 << bits) - 1), out=words_P)


def signed(bits: RingBits, words_P: Words) -> NDArray[np.int32]:
    """Return the integers from -2^(bits - 1) on that words of a ring's carrier stand for, modulo 2^bits."""
    size = 8 * words_P.dtype.itemsize
    # An arithmetic shift back copies the sign, which is the ring's highest bit.
    shifted_P = (words_P << words_P.dtype.type(size - bits)).view(np.dtype(f"<i{size // 8}"))
    found_P: NDArray[np.int32] = (shifted_P >> shifted_P.dtype.type(size - bits)).astype(np.int32)
    return found_P


def packed_size(bits: RingBits, count: int) -> int:
    """Return how many bytes a vector takes as it is sent.

    >>> [packed_size(bits, 5) for bits in WIDTHS]
    [5, 8, 10, 15, 20]
    """
    return -(-count * bits // 8)


def pack(bits: RingBits, words_P: Words) -> bytes:
    """Return a vector as it is sent.

    Raises:
        ProtocolError: When the words are not of this ring.
    """
    if not holds(bits, words_P):
        raise ProtocolError(f"words of {words_P.dtype} are not all of the ring of {bits} bits")
    if _is_full(bits):
        return words_P.tobytes()
    if bits == 24:
        return _bytes_of(words_P)[:, :3].tobytes()
    pairs = np.zeros((len(words_P) + 1) // 2, dtype="<u4")
    pairs += words_P[::2]
    pairs[: len(words_P) // 2] |= words_P[1::2].astype("<u4") << np.uint32(12)
    return _bytes_of(pairs)[:, :3].tobytes()[: packed_size(bits, len(words_P))]


def unpack(bits: RingBits, data: bytes) -> Words:
    """Return the vector that bytes are the packed form of.

    Raises:
        ProtocolError: When they are the packed form of none.
    """
    count = 8 * len(data) // bits
    if packed_size(bits, count) != len(data):
        raise ProtocolError(f"{len(data)} bytes are no vector of elements of {bits} bits")
    if _is_full(bits):
        return np.frombuffer(data, dtype=_CARRIERS[bits])
    groups = np.zeros((-(-len(data) // 3), 4), dtype=np.uint8)
    groups[:, :3] = np.frombuffer(data.ljust(3 * len(groups), b"\0"), dtype=np.uint8).reshape(-1, 3)
    words: Words = groups.reshape(-1).view("<u4")
    if bits == 24:
        return words
    both = np.stack([words & np.uint32(0xFFF), words >> np.uint32(12)], axis=1).astype("<u2").reshape(-1)
    if both[count:].any():
        raise ProtocolError("the bits after the last of an odd number of elements of 12 bits are zero")
    return both[:count]


def _is_full(bits: RingBits) -> bool:
    """Return whether elements fill their carrier."""
    return 8 * _CARRIERS[bits].itemsize == bits


def _bytes_of(words: Words) -> NDArray[np.uint8]:
    """Return little-endian words of 32 bits as four bytes each, shape `(P, 4)`."""
    return np.ascontiguousarray(words, dtype="<u4").view(np.uint8).reshape(-1, 4)
