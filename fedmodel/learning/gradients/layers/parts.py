"""What a physical batch's records add to one parameter: its squared norm for each record, and its weighted sum.

Ways to compute both, of which the cheaper one is taken by shapes alone, as in mixed ghost clipping (Bu et al. 2022,
arXiv 2205.10683, section 3). Where a gradient is the sum over positions t of outer products L_t (x) R_t:

| Way       | What is saved of a record            | Taken where                | Its squared norm                    |
|-----------|--------------------------------------|----------------------------|-------------------------------------|
| `Kept`    | its gradient, float32                | p d <= 2 T^2, T > 1, or    | of its entries                      |
|           |                                      | B P under 2^17, or it is   |                                     |
|           |                                      | no outer product           |                                     |
| `Again`   | L and R; its gradient is computed    | else, where                | of its entries                      |
|           | for the norm, and again for the sum  | T^2 (p + d) > 32 p d; kept |                                     |
|           |                                      | where B P is under 2^23    |                                     |
| `Anew`    | L and R; its gradient is computed    | otherwise, where T >= 32   | sum over s, t of (L_s.L_t)(R_s.R_t) |
|           | for the sum                          | on a processor             | and what float32 rounds             |
| `Outer`   | L and R                              | otherwise                  | sum over s, t of (L_s.L_t)(R_s.R_t) |
| `Looked`  | as `Outer`, L_t the unit vector of   | tables, unless they are    | likewise, L_s.L_t = 1 of equal ones |
|           | an index                             | kept                       |                                     |
| `Rows`    | L and R of all layers of a model     | all are linear, with T = 1 | sum over layers of |L|^2 (|R|^2+1)  |

Guarantee, of the bits of what is saved or kept, for each record of which all is finite; the *reach* of a record is
A = sum over t of |L_t| |R_t|, and of a gradient that is computed its norm:

- `squares` returns an upper bound of the squared norm and the squared reach, but for factors within 1 +- 2^-22.
- `summed` returns the sum of records' gradients times their factors f, in L2 within `CHAIN` 2^-53 times the sum over
  records of f A, in whatever order a kernel adds up. Of a record whose factor is 0, what is not finite counts nothing.
- Neither branches on values.

Why. Norms and sums are computed in float64 of float32 values, whose products are exact there, and nothing under- or
overflows: no product of four numbers from 2^-149 to 2^128 and a factor of 2^-600 or more is out of range. Gram
matrices, their product and its sum are off by at most (p + d + T^2 + 8) 2^-53 times the same sum of absolute values
(Higham 2002, section 3.1), which is at most A^2 by Cauchy-Schwarz; `squares` adds twice that. A sum of K products is
off by at most K 2^-53 times the sum of their absolute values, whose matrix is in L2 at most the sum of f A; at most
`BLOCK` positions are added up by one product, and so many blocks by hand that it comes to `CHAIN`. A gradient that is
kept or computed again is clipped and summed as float32 has it, whatever was rounded on the way: it is then a function
of the record's own bits, which `hashed` covers, and what is bounded is its own norm. That a kernel gives the same bits
when it is asked again is measured with that, by `fedmodel.learning.conformance`. Of `Anew` what is summed is such a
gradient too, and its norm is bounded by that of the true one: T products in float32, and their sum in any order, are
off by at most (T + 4) 2^-24 / (1 - (T + 4) 2^-24) times the sum of their absolute values (Higham 2002, section 3.1),
which is in L2 at most the reach, and by T 2^-125 an entry where they are too small for float32. That products are of
float32 is measured (`products.is_of_ieee`); elsewhere than on a processor another way is taken.

Shapes: B rows of a physical batch, G groups of channels, T positions of a record, K = B T, p outputs and d inputs of a
group, P entries of a gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from fedmodel.errors import PrivacyError

Family = Callable[[nn.Module, Tensor, Tensor], "list[Part]"]
"""From a layer, what went in and the gradient at what came out, both with a row for each record, to its parts."""

BLOCK: Final = 1024
"""Positions that one product adds up."""
CHAIN: Final = 4096
"""Roundings at most that an entry of a weighted sum goes through."""
CACHED: Final = 1 << 18
"""Values at once, which a core's cache holds in float64."""

_LONG: Final = 1 << 13  # entries of a gradient from which on it is added up by itself

_GOLDEN: Final = 0x9E3779B97F4A7C15
_MIXES: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_SPARE: Final = 4  # of a chain, for the factor's product and for what is added to a sum from outside


class Share(ABC):
    """What records add to some parameters. Sensitive."""

    @property
    @abstractmethod
    def parameters(self) -> Sequence[Tensor]:
        """Which they are."""

    @abstractmethod
    def squares(self) -> tuple[Tensor, Tensor]:
        """Return each record's squared norm, bounded from above, and squared reach: float64 of shape `(B,)`."""

    @abstractmethod
    def summed(self, factor_B: Tensor) -> Tensor:
        """Return the sum of records' gradients times their factors, float64, of P entries."""

    @abstractmethod
    def hashed(self, multipliers_P: Tensor) -> Tensor:
        """Return a hash of all that a record's gradient is computed from here, int64 of shape `(B,)`."""


class Part(Share):
    """What records add to one parameter, or to some of its rows. Sensitive.

    Args:
        parameter: The parameter.
        rows: Which of its rows; all by default.
    """

    def __init__(self, parameter: Tensor, rows: slice = slice(None)) -> None:
        self.parameter, self.rows = parameter, rows

    @property
    def parameters(self) -> Sequence[Tensor]:
        """The one."""
        return (self.parameter,)

    @abstractmethod
    def kept(self) -> Kept:
        """Return each record's gradient."""

    @abstractmethod
    def folded(self, views: int) -> Part:
        """Return the part of records of which each has so many rows here, side by side: their sum for each record."""

    def cheapest(self) -> Part:
        """Return the way that takes less, by shapes."""
        return self

    def freed(self) -> Part:
        """Return the same in the way that takes less, where that holds less than this, and else itself."""
        return self


class Kept(Part):
    """The gradient of each record.

    Args:
        parameter: The parameter.
        grad_BP: Float32.
        rows: Which of the parameter's rows; all by default.
        square_B: Squared norms, where they were computed with the gradients.
    """

    def __init__(
        self, parameter: Tensor, grad_BP: Tensor, rows: slice = slice(None), square_B: Tensor | None = None
    ) -> None:
        super().__init__(parameter, rows)
        self.grad_BP, self._square_B = grad_BP.flatten(1), square_B

    @property
    def is_bare(self) -> bool:
        """Whether the squared norms are yet to be computed."""
        return self._square_B is None

    def squares(self) -> tuple[Tensor, Tensor]:
        """Return each record's squared norm, twice."""
        if self._square_B is None:
            found = [norms(self.grad_BP[:, some]) for some in _columns(self.grad_BP)]
            norm_B = found[0] if len(found) == 1 else torch.linalg.vector_norm(torch.stack(found), dim=0)
            self._square_B = norm_B.square()
        return self._square_B, self._square_B

    def summed(self, factor_B: Tensor) -> Tensor:
        """Return the weighted sum."""
        return weighed_rows(lambda block: [(block, self.grad_BP[block])], factor_B)

    def kept(self) -> Kept:
        """Return itself."""
        return self

    def hashed(self, multipliers_P: Tensor) -> Tensor:
        """Return a hash of the gradients, so that how they were computed is covered too."""
        return hashed(self.grad_BP, multipliers_P)

    def folded(self, views: int) -> Kept:
        """Return each record's gradient."""
        return Kept(self.parameter, added_up(self.grad_BP, views), self.rows)


def added_up(grad_VP: Tensor, views: int) -> Tensor:
    """Return the sum of each record's rows, added one after the other."""
    total_BP, *others = torch.unflatten(grad_VP, 0, (-1, views)).unbind(dim=1)
    for other_BP in others:
        total_BP = total_BP + other_BP
    return total_BP


def norms(values_NK: Tensor) -> Tensor:
    """Return the norm of each row, float64: over ten million equal entries a float32 norm is a hundredth too small."""
    norm_N: Tensor = torch.linalg.vector_norm(values_NK.double(), dim=-1)
    return norm_N


def weighed(left_Kp: Tensor | None, right_Kd: Tensor, factor_K: Tensor) -> Tensor:
    """Return the sum over positions of factor times outer product, float64 `(p, d)`; of ones where left is None."""
    total_pd: Tensor | None = None
    for some in blocks(factor_K.shape[0]):
        factor_K1 = factor_K[some, None]
        # Zero times infinity is NaN: what is not finite of a record that counts nothing is zeroed on both sides.
        left = factor_K1 if left_Kp is None else (left_Kp[some] * factor_K1).nan_to_num_(0.0, 0.0, 0.0)
        part_pd = left.mT @ right_Kd[some].double().nan_to_num_(0.0, 0.0, 0.0)
        total_pd = part_pd if total_pd is None else total_pd.add_(part_pd)
    assert total_pd is not None  # noqa: S101 - a physical batch has rows
    return total_pd


def weighed_rows(rows: Callable[[slice], Iterable[tuple[slice, Tensor]]], factor_B: Tensor) -> Tensor:
    """Return the sum of gradients times their factors, float64 `(P,)`, a block of records after the other.

    Args:
        rows: From a block of records to gradients of theirs, a few at once, with whose they are.
        factor_B: Float64.
    """

    def sum_of(block: slice) -> Tensor:
        pieces = iter(rows(block))
        total_P = _of_few(*next(pieces), factor_B)
        for some, grad_RP in pieces:
            if _is_long(grad_RP):
                _add_rows(total_P, grad_RP, factor_B[some])
            else:
                total_P += _of_few(some, grad_RP, factor_B)
        return total_P

    total_P, *others = [sum_of(block) for block in blocks(factor_B.shape[0])]
    for one_P in others:
        total_P += one_P
    return total_P


def _of_few(some: slice, grad_RP: Tensor, factor_B: Tensor) -> Tensor:
    """Return the weighted sum of some records."""
    if not _is_long(grad_RP):
        return weighed(None, grad_RP, factor_B[some])[0]
    _add_rows(total_P := grad_RP.new_zeros(grad_RP.shape[1], dtype=torch.float64), grad_RP, factor_B[some])
    return total_P


def _is_long(grad_RP: Tensor) -> bool:
    """Tell whether rows are so long that a product with them costs more than they do one by one."""
    return grad_RP.device.type == "cpu" and grad_RP.shape[1] >= _LONG


def _add_rows(total_P: Tensor, grad_RP: Tensor, factor_R: Tensor) -> None:
    """Add rows times their factors to a sum, one after the other, each product in float64."""
    finite_P = torch.empty_like(grad_RP[0])
    for grad_P, factor in zip(grad_RP, factor_R.tolist(), strict=True):
        # Zero times infinity is NaN, and of a record that counts nothing no branch may tell.
        total_P.add_(torch.nan_to_num(grad_P, 0.0, 0.0, 0.0, out=finite_P), alpha=factor)


def blocks(positions: int) -> Iterator[slice]:
    """Cut positions into blocks.

    Raises:
        PrivacyError: When there are so many that sums of their sums are not near enough.
    """
    if positions <= BLOCK:
        yield slice(0, BLOCK)
        return
    count, most = -(-positions // BLOCK), CHAIN - BLOCK - _SPARE
    if count > most:
        raise PrivacyError(
            f"the sum of one layer's gradients over a physical batch would be added up from {count} pieces, and is near"
            f" enough for {most}; lower training.max_physical_batch"
        )
    yield from (slice(start, start + BLOCK) for start in range(0, positions, BLOCK))


def hashed(values_BK: Tensor, multipliers_P: Tensor) -> Tensor:
    """Return a hash of each row's bits, with the two zeros taken as one: int64 of shape `(B,)`.

    Args:
        values_BK: Float32, or whole numbers.
        multipliers_P: Odd, at random. Columns past the last take the same again; their hashes are put together.
    """
    found = []
    for some_BP in torch.split(values_BK.flatten(1), len(multipliers_P), dim=1):
        bits_BP = (some_BP + 0.0).view(torch.int32) if some_BP.is_floating_point() else some_BP
        found.append((bits_BP.long() * multipliers_P[: some_BP.shape[1]]).sum(dim=1))
    return put_together(found)


def put_together(hashes: Iterable[Tensor]) -> Tensor:
    """Return one hash of several that were taken with the same multipliers, in their order: int64 of shape `(B,)`.

    A hash that is a sum of products is linear: what one tensor has more and another has less in one column cancels in
    a weighted sum of their hashes, whatever the multipliers are. So each goes through a permutation that is not linear
    first, of its own for each place: that of SplitMix64 (Steele et al. 2014, figure 16).
    """
    found: Tensor | None = None
    for place, hash_B in enumerate(hashes, start=1):
        mixed_B = hash_B + _signed(place * _GOLDEN)
        for shift, odd in _MIXES:
            # The shift of a signed number repeats its sign, which is no part of the permutation.
            mixed_B = (mixed_B ^ ((mixed_B >> shift) & ((1 << 64 - shift) - 1))) * _signed(odd)
        mixed_B = mixed_B ^ ((mixed_B >> 31) & ((1 << 33) - 1))
        found = mixed_B if found is None else found + mixed_B
    assert found is not None  # noqa: S101 - whoever calls has one at least
    return found


def _signed(number: int) -> int:
    """Return the int64 of the same lowest 64 bits."""
    return (number + 2**63) % 2**64 - 2**63


def _columns(grad_BP: Tensor) -> Iterator[slice]:
    """Cut the columns into blocks that stay in a cache once they are float64."""
    width = max(1, CACHED // max(1, grad_BP.shape[0]))
    yield from (slice(start, start + width) for start in range(0, grad_BP.shape[1], width))
