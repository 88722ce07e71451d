"""From real coordinates to ring elements and back, so that sums of many silos' vectors are exact and cannot wrap.

A coordinate x in [-bound, bound] becomes floor(x * scale), or one more with a probability equal to the fraction that
was cut off. The draw comes from a keystream under a fresh key of the operating system's CSPRNG. scale = levels / bound,
and `levels` is the largest number for which the sum of the largest cohort stays inside the ring's signed range.

Guarantees, for coordinates within the bound:
- unbiased: the expected integer is x * scale, up to the rounding of that product in float64, 2^-22 of a level at worst;
- the error of one vector is under 1 / scale in every coordinate; the error of a sum of n vectors is under n / scale,
  with a standard deviation of at most sqrt(n) / (2 scale);
- no sum of up to `cohort` vectors wraps.

Coordinates outside the bound are clipped to it. For an update that is already differentially private, this is
post-processing. NaN and infinity are refused, because no integer represents them.

Does NOT add privacy: rounding is not accounted for.

Shapes: P coordinates, B of them in a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.crypto import random_stream
from fedmodel.errors import ConfigError, ProtocolError
from fedmodel.secagg import ring
from fedmodel.secagg.ring import RingBits, Words

_BLOCK: Final = 32 * 1024  # coordinates that stay in a core's cache as float64


@dataclass(frozen=True)
class Quantizer:
    """A public mapping that every silo of a round shares.

    Attributes:
        bound: Largest magnitude of a coordinate, above 0.
        ring_bits: 8, 12, 16, 24 or 32.
        cohort: The most vectors that will ever be added up.

    Raises:
        ConfigError: When the ring has no room for the cohort, or the bound is not a positive number.
    """

    bound: float
    ring_bits: RingBits
    cohort: int

    def __post_init__(self) -> None:
        if not 1e-30 <= self.bound <= 1e30:
            raise ConfigError(f"a quantisation bound of {self.bound} is not a positive number from 1e-30 to 1e30")
        if self.ring_bits not in ring.WIDTHS or self.cohort < 1 or self.levels < 1:
            raise ConfigError(
                f"a ring of {self.ring_bits} bits has no room for the sum of {self.cohort} silos' updates; take more"
                " encryption.ring_bits"
            )

    @property
    def levels(self) -> int:
        """The largest magnitude of one vector's integer, such that `cohort` of them stay under half the ring."""
        return ((1 << (self.ring_bits - 1)) - 1) // self.cohort

    @property
    def scale(self) -> float:
        """How many integer steps one unit of a coordinate has."""
        return self.levels / self.bound

    def encode(self, vector_P: NDArray[np.floating], draw: Callable[[int], bytes] = random_stream) -> Words:
        """Round a vector to ring elements, at random and without bias.

        Args:
            vector_P: Real coordinates, shape `(P,)`. Sensitive.
            draw: Returns as many uniform bytes as asked for; differs from the default only if a run claims no privacy.

        Raises:
            ProtocolError: When a coordinate is NaN or infinite.
        """
        if vector_P.ndim != 1 or not np.isfinite(vector_P).all():
            raise ProtocolError("what is quantised is a flat vector without a NaN or infinite coordinate")
        words_P: Words = np.empty(len(vector_P), dtype=ring.carrier(self.ring_bits))
        signed_P = words_P.view(f"<i{words_P.dtype.itemsize}")
        for start in range(0, len(vector_P), _BLOCK):
            block = slice(start, start + _BLOCK)
            scaled_B = np.clip(vector_P[block].astype(np.float64), -self.bound, self.bound) * self.scale
            # The floor of x + u is one more than the floor of x with a probability equal to the fraction of x.
            scaled_B += np.frombuffer(draw(4 * len(scaled_B)), dtype=np.uint32) * 2.0**-32
            np.floor(scaled_B, out=scaled_B)
            # A rounding of the product could give one more than `levels`, for which the sum has no room.
            np.clip(scaled_B, -self.levels, self.levels, out=scaled_B)
            # The two's complement of a negative integer is its ring element.
            signed_P[block] = scaled_B
        ring.reduce(self.ring_bits, words_P)
        return words_P

    def decode(self, sum_P: Words) -> NDArray[np.float64]:
        """Return the real sum that a sum of encoded vectors stands for, in float64 so that nothing is rounded again.

        Args:
            sum_P: In words of the ring's carrier, reduced modulo 2^ring_bits or not yet.

        Raises:
            ProtocolError: When the words are not of this ring.
        """
        if sum_P.dtype != ring.carrier(self.ring_bits):
            raise ProtocolError(f"a sum of {sum_P.dtype} words is not of the ring of {self.ring_bits} bits")
        return ring.signed(self.ring_bits, sum_P).astype(np.float64) / self.scale
