"""Which words of an update a silo sends in a round: all of them, or a public random part that every silo has alike.

Random sparsification by a shared pattern (Konecny et al. 2016, "Federated Learning: Strategies for Improving
Communication Efficiency", section 3, subsampling). The pattern follows from the scenario's seed, the round and the
number of words, so that nobody sends it, and sums, masks and means are of the words that are sent alone.

Guarantees:
- every party that has the same scenario has the same pattern, whatever its library: it is drawn from AES in counter
  mode, not from a generator that another version may draw otherwise;
- each set of K of the P words is as likely as any other, so that the mean which the server puts back, times P / K, is
  right on average over patterns: its expected value is the mean of whole updates;
- a word that the pattern leaves out does not leave the silo, in this round or later.

It costs no privacy. What is left out is a part of an update that is differentially private as a whole, and was charged
for as a whole; which part is left out depends on no record. For the same reason it saves no privacy.

Does NOT keep the average error small: the variance that leaving words out adds is P / K - 1 times the squared length
of the mean, noise of privacy included. No silo keeps what it did not send: that rest would be a state which a later
round's update depends on, and which would have to be taken back with a charge that a person voids.

Shapes: P words of an update, K of them that are sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import TRAINING, Scenario
from fedmodel.crypto import BLOCK_SIZE, Keystream, digest
from fedmodel.seeds import derive_seed

_LABEL: Final = b"fedmodel/v1/update-pattern"


@dataclass(frozen=True)
class Pattern:
    """The places of the words that are sent.

    Attributes:
        size: P.
        places_K: Ascending, shape `(K,)`.
    """

    size: int
    places_K: NDArray[np.intp]

    @cached_property
    def digest(self) -> bytes:
        """A hash of it, which masks are bound to: silos of different patterns do not mask together."""
        return digest(_LABEL, self.size.to_bytes(8, "big"), self.places_K.astype("<i8").tobytes())

    def take(self, update_P: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the words that are sent, shape `(K,)`."""
        return update_P[self.places_K]

    def put(self, mean_K: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an estimate of the whole mean: P / K times what was sent, and zero elsewhere; shape `(P,)`."""
        mean_P = np.zeros(self.size, dtype=np.float32)
        mean_P[self.places_K] = mean_K * np.float32(self.size / len(self.places_K))
        return mean_P


def words_sent(share: float, size: int) -> int:
    """Return K, how many of P words are sent: at least one.

    >>> words_sent(0.25, 10), words_sent(0.001, 10), words_sent(1.0, 10)
    (2, 1, 10)
    """
    return min(size, max(1, round(share * size)))


def pattern_of(scenario: Scenario, round_number: int, size: int) -> Pattern | None:
    """Return a round's pattern, None where updates are sent whole; answers to jobs besides training always are.

    Args:
        scenario: Says which share of an update is sent, and the seed; without a seed it is that of 0.
        round_number: From 1.
        size: P.
    """
    if scenario.federation.update_share == 1 or scenario.job_of(round_number) != TRAINING:
        return None
    seed = derive_seed(scenario.seed or 0, "update-pattern", round_number)
    return _drawn(words_sent(scenario.federation.update_share, size), size, seed)


@lru_cache(maxsize=2)
def _drawn(kept: int, size: int, seed: int) -> Pattern:
    """Draw K of P places: those of the K smallest of P uniform numbers. Simulated silos of one process share it."""
    stream, drawn = Keystream(digest(_LABEL, seed.to_bytes(8, "big"))), np.empty(size, dtype="<u8")
    buffer, each = bytearray(BLOCK_SIZE + 15), BLOCK_SIZE // 8
    for start in range(0, size, each):
        block_B = drawn[start : start + each]
        stream.fill(buffer, block_B.nbytes)
        block_B[:] = np.frombuffer(buffer, dtype="<u8", count=len(block_B))
    largest = np.partition(drawn, kept - 1)[kept - 1]
    # Equal numbers are not to be expected among 2^64; the first of them counts, so that all parties agree.
    places_K = np.flatnonzero(drawn <= largest)[:kept]
    places_K.setflags(write=False)
    return Pattern(size, places_K)
