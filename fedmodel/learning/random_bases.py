"""Updates of low rank by public random bases: each matrix of an update is sent times r columns that all silos share.

A matrix U of R rows and n columns is a parameter of two axes or more: R is its first axis, n all others. So a weight of
a fully connected layer is one, and a convolution's is outputs by the rest. What is sent is U Q, where the n x r matrix
Q has orthonormal columns; what is put back is (n / r) times U Q Q^T, whose rank is r at most. Parameters of one axis,
and matrices of no more than r columns, are sent whole.

Q is the orthonormal factor of a matrix of independent numbers, each of one distribution that is symmetric about zero.
Its law does not change when two rows are exchanged, or the sign of one is, and so E[Q Q^T] = (r / n) I.

Guarantees (`fedmodel.learning.pattern` has the others):
- what is put back is U on average over the draws of Q, for any U, and so is the mean of many;
- the columns are orthonormal, so independent noise of one variance on each word of U is the same on each word of U Q;
- the numbers are drawn from AES in counter mode, and the factor is the one whose triangular part has a positive
  diagonal, of which there is one: so libraries agree on Q but for the rounding of float64.

The variance that this adds to one matrix is n / r - 1 times the squared length of U, which is that of a random share
r / n of its words. Over matrices of unlike n it is not that of one share of as many words in all: it hangs on which of
them the update is in.

Konecny et al. 2016 (section 2, "low rank") train the other factor alone, with Q fixed. Here the update is trained and
noised as a whole, and projected after that: it is post-processing, whatever the optimiser, the clip and the noise are.

Shapes: P words of an update, K of them that are sent; R rows and n columns of a matrix, r columns of its basis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.crypto import digest, public_words

Shapes = tuple[tuple[int, ...], ...]
"""Of a model's trainable parameters, in their order."""

_LABEL: Final = b"fedmodel/v1/update-basis"


@dataclass(frozen=True)
class Bases:
    """A basis for each matrix that is sent smaller.

    Attributes:
        rank: r.
        shapes: Of the parameters.
        seed: What all bases were drawn from; public.
        bases: Of each parameter, float64 of shape `(n, r)`; None of one that is sent whole.
    """

    rank: int
    shapes: Shapes
    seed: int
    bases: tuple[NDArray[np.float64] | None, ...]

    @property
    def sent(self) -> int:
        """K."""
        return words_sent(self.rank, self.shapes)

    @cached_property
    def digest(self) -> bytes:
        """A hash of what the bases follow from, which masks are bound to: their last bits may be another library's."""
        numbers = (
            self.rank,
            self.seed,
            len(self.shapes),
            *(one for shape in self.shapes for one in (len(shape), *shape)),
        )
        return digest(_LABEL, *(one.to_bytes(8, "big") for one in numbers))

    def take(self, update_P: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the words that are sent, shape `(K,)`: each matrix times its basis."""
        parts, start = [], 0
        for shape, basis_nr in zip(self.shapes, self.bases, strict=True):
            part = update_P[start : start + math.prod(shape)]
            start += len(part)
            parts.append(part if basis_nr is None else _times(part.reshape(-1, len(basis_nr)), basis_nr))
        return np.concatenate(parts)

    def put(self, mean_K: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an estimate of the whole mean, shape `(P,)`: n / r times what was sent, along the basis."""
        parts, start = [], 0
        for shape, basis_nr in zip(self.shapes, self.bases, strict=True):
            part = mean_K[start : start + _words(self.rank, shape)]
            start += len(part)
            if basis_nr is not None:
                columns, rank = basis_nr.shape
                part = _times(part.reshape(-1, rank), basis_nr.T * (columns / rank))
            parts.append(part)
        return np.concatenate(parts)


def words_of(shapes: Shapes) -> int:
    """Return P.

    >>> words_of(((4, 10), (4,), ()))
    45
    """
    return sum(map(math.prod, shapes))


def words_sent(rank: int, shapes: Shapes) -> int:
    """Return K: of each matrix of more than r columns, r words a row.

    >>> words_sent(3, ((4, 10), (4,), (8, 2, 3, 3), (5, 3)))
    55
    """
    return sum(_words(rank, shape) for shape in shapes)


def noise_grows(rank: int, shapes: Shapes) -> tuple[float, float]:
    """Return how much larger the variance of noise is as it is put back: on average over all words, and at most.

    >>> noise_grows(2, ((4, 10), (40,)))
    (3.0, 5.0)
    """
    grown = [math.prod(shape) / _words(rank, shape) for shape in shapes]
    whole = math.fsum(one * math.prod(shape) for one, shape in zip(grown, shapes, strict=True))
    return whole / words_of(shapes), max(grown)


@lru_cache(maxsize=2)
def drawn(rank: int, shapes: Shapes, seed: int) -> Bases:
    """Draw the bases of a round, each from numbers of its own. Simulated silos of one process share them."""
    each = [_columns(shape) if _is_smaller(rank, shape) else 0 for shape in shapes]
    numbers = iter(np.split(public_words(_LABEL, seed, rank * sum(each)), np.cumsum([rank * one for one in each])[:-1]))
    return Bases(rank, shapes, seed, tuple(_bases(each, rank, numbers)))


def _bases(
    columns: list[int], rank: int, numbers: Iterator[NDArray[np.uint64]]
) -> Iterator[NDArray[np.float64] | None]:
    """Yield a basis for each number of columns, None for 0."""
    for one in columns:
        drawn_nr = next(numbers).reshape(one, rank)
        yield _orthonormal(drawn_nr) if one else None


def _orthonormal(drawn_nr: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return the orthonormal factor of numbers between -1 and 1, of which each has its opposite as often."""
    # Odd numbers over 2^52: none of them is rounded, and none is zero.
    uniform_nr = ((drawn_nr >> np.uint64(11)).astype(np.int64) | 1).astype(np.float64) * 2.0**-52 - 1.0
    basis_nr, triangle_rr = np.linalg.qr(uniform_nr)
    basis_nr = basis_nr * np.where(np.diagonal(triangle_rr) < 0, -1.0, 1.0)
    basis_nr.setflags(write=False)
    return basis_nr


def _times(left: NDArray[np.float32], right: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the words of a product that is computed in float64."""
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused where it leaves
        product: NDArray[np.float32] = (left.astype(np.float64) @ right).astype(np.float32).reshape(-1)
    return product


def _columns(shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:])


def _is_smaller(rank: int, shape: tuple[int, ...]) -> bool:
    """Whether a parameter is a matrix of more than r columns."""
    return len(shape) > 1 and _columns(shape) > rank


def _words(rank: int, shape: tuple[int, ...]) -> int:
    """Return how many words of a parameter are sent."""
    return shape[0] * rank if _is_smaller(rank, shape) else math.prod(shape)
