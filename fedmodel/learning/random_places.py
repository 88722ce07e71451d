"""A public random part of the words of an update: sparsification by a pattern that all silos share.

Subsampling with one mask for all (Konecny et al. 2016, section 3). Guarantee: each set of K of the P words is as likely
as any other, so that the mean which the server puts back, times P / K, is right on average over patterns
(`fedmodel.learning.pattern` has the other guarantees).

Shapes: P words of an update, K of them that are sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.crypto import digest, public_words

_LABEL: Final = b"fedmodel/v1/update-pattern"


@dataclass(frozen=True)
class Places:
    """The places of the words that are sent.

    Attributes:
        size: P.
        places_K: Ascending, shape `(K,)`.
    """

    size: int
    places_K: NDArray[np.intp]

    @property
    def sent(self) -> int:
        """K."""
        return len(self.places_K)

    @cached_property
    def digest(self) -> bytes:
        """A hash of it, which masks are bound to."""
        return digest(_LABEL, self.size.to_bytes(8, "big"), self.places_K.astype("<i8").tobytes())

    def take(self, update_P: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the words that are sent, shape `(K,)`."""
        return update_P[self.places_K]

    def put(self, mean_K: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an estimate of the whole mean: P / K times what was sent, and zero elsewhere; shape `(P,)`."""
        mean_P = np.zeros(self.size, dtype=np.float32)
        mean_P[self.places_K] = mean_K * np.float32(self.size / self.sent)
        return mean_P


def words_sent(share: float, size: int) -> int:
    """Return K, how many of P words are sent: at least one.

    >>> words_sent(0.25, 10), words_sent(0.001, 10), words_sent(1.0, 10)
    (2, 1, 10)
    """
    return min(size, max(1, round(share * size)))


@lru_cache(maxsize=2)
def drawn(kept: int, size: int, seed: int) -> Places:
    """Draw K of P places: those of the K smallest of P uniform numbers. Simulated silos of one process share it."""
    drawn_P = public_words(_LABEL, seed, size)
    largest = np.partition(drawn_P, kept - 1)[kept - 1]
    is_sent_P = drawn_P < largest
    # Equal numbers are not to be expected among 2^64; the first of them count, so that all parties agree.
    is_sent_P[np.flatnonzero(drawn_P == largest)[: kept - np.count_nonzero(is_sent_P)]] = True
    places_K = np.flatnonzero(is_sent_P)
    places_K.setflags(write=False)
    return Places(size, places_K)
