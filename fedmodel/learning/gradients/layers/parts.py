"""What a physical batch's records add to one parameter: its squared norm for each record, and its weighted sum.

Three ways. A family of layers says a gradient as outer products, and the cheaper way is taken by shapes alone, as in
mixed ghost clipping (Bu et al. 2022, arXiv 2205.10683, section 3):

| Way      | What is saved of a record             | Taken where             | Its squared norm                    |
|----------|---------------------------------------|-------------------------|-------------------------------------|
| `Kept`   | its gradient, float32                 | p d <= 2 T^2, T > 1     | of its entries                      |
| `Outer`  | L and R, its gradient the sum over    | otherwise               | sum over s, t of (L_s.L_t)(R_s.R_t) |
|          | positions t of L_t (x) R_t            |                         |                                     |
| `Looked` | likewise, L_t the unit vector of an   | of tables, as otherwise | likewise, L_s.L_t = 1 of equal ones |
|          | index                                 |                         |                                     |

Guarantee, of the bits of what is saved, for each record of which all is finite; the *reach* of a record is
A = sum over t of |L_t| |R_t|, and of a kept gradient its norm:

- `squares` returns an upper bound of the squared norm and the squared reach, but for factors within 1 +- 2^-22.
- `summed` returns the sum of records' gradients times their factors f, in L2 within `CHAIN` 2^-53 times the sum over
  records of f A, in whatever order a kernel adds up. Of a record whose factor is 0, what is not finite counts nothing.
- Neither branches on values.

Why. All is computed in float64 of float32 values, whose products are exact there, and nothing under- or overflows: no
product of four numbers from 2^-149 to 2^128 and a factor of 2^-600 or more is out of range. Gram matrices, their
product and its sum are off by at most (p + d + T^2 + 8) 2^-53 times the same sum of absolute values (Higham 2002,
section 3.1), which is at most A^2 by Cauchy-Schwarz; `squares` adds twice that. A sum of K products is off by at most
K 2^-53 times the sum of their absolute values, whose matrix is in L2 at most the sum of f A; at most `BLOCK` positions
are added up by one product, and so many blocks by hand that it comes to `CHAIN`.

Shapes: B rows of a physical batch, G groups of channels, T positions of a record, K = B T, p outputs and d inputs of a
group, V rows of a table, P entries of a gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from fedmodel.errors import PrivacyError

BLOCK: Final = 1024
"""Positions that one product adds up."""
CHAIN: Final = 4096
"""Roundings at most that an entry of a weighted sum goes through."""

_SPARE: Final = 4  # of them, for the factor's product, and for what is added to a sum from outside
_ROUNDING: Final = 2.0**-52  # twice that of float64
_CACHED: Final = 1 << 18  # values at once, which a core's cache holds in float64


class Part(ABC):
    """What records add to one parameter, or to some of its rows. Sensitive.

    Args:
        parameter: The parameter.
        rows: Which of its rows; all by default.
    """

    def __init__(self, parameter: nn.Parameter, rows: slice = slice(None)) -> None:
        self.parameter, self.rows = parameter, rows

    @abstractmethod
    def squares(self) -> tuple[Tensor, Tensor]:
        """Return each record's squared norm, bounded from above, and squared reach: float64 of shape `(B,)`."""

    @abstractmethod
    def summed(self, factor_B: Tensor) -> Tensor:
        """Return the sum of records' gradients times their factors, float64, of P entries."""

    @abstractmethod
    def kept(self) -> Kept:
        """Return each record's gradient."""

    @abstractmethod
    def saved(self) -> list[Tensor]:
        """Return what all is computed from, a row for each record."""


class Kept(Part):
    """The gradient of each record.

    Args:
        parameter: The parameter.
        grad_BP: Float32.
        rows: Which of the parameter's rows; all by default.
    """

    def __init__(self, parameter: nn.Parameter, grad_BP: Tensor, rows: slice = slice(None)) -> None:
        super().__init__(parameter, rows)
        self.grad_BP = grad_BP.flatten(1)

    def squares(self) -> tuple[Tensor, Tensor]:
        """Return each record's squared norm, twice."""
        norms = [torch.linalg.vector_norm(self.grad_BP[:, some].double(), dim=1) for some in _columns(self.grad_BP)]
        norm_B = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)
        square_B = norm_B.square()
        return square_B, square_B

    def summed(self, factor_B: Tensor) -> Tensor:
        """Return the weighted sum, a block of columns after the other."""
        sums = [_weighed(None, self.grad_BP[:, some], factor_B) for some in _columns(self.grad_BP)]
        return (sums[0] if len(sums) == 1 else torch.cat(sums, dim=1)).reshape(-1)

    def kept(self) -> Kept:
        """Return itself."""
        return self

    def saved(self) -> list[Tensor]:
        """Return the gradients, so that how they were computed is compared too."""
        return [self.grad_BP]


class Outer(Part):
    """Outer products, from which each record's gradient could be computed.

    Args:
        parameter: The parameter, or those of its rows that are meant, of G p rows of d entries each.
        left_BGTp: The gradient of the loss at what came out, float32.
        right: From rows of the batch to what went in there, float32 of shape `(B, G, T, d)`.
        given: What went in, as it is to be compared.
        rows: Which of the parameter's rows; all by default.
    """

    def __init__(
        self,
        parameter: nn.Parameter,
        left_BGTp: Tensor,
        right: Callable[[slice], Tensor],
        given: list[Tensor],
        rows: slice = slice(None),
    ) -> None:
        super().__init__(parameter, rows)
        self.left_BGTp, self.right, self.given = left_BGTp, right, given
        _, self._groups, self._positions, self._outputs = left_BGTp.shape
        self._inputs = parameter.numel() // len(parameter)

    @classmethod
    def beside(cls, several: Sequence[Outer]) -> Outer:
        """Return the positions of several uses of the same rows as those of one."""
        left_BGTp = torch.cat([one.left_BGTp for one in several], dim=2)
        given = [factor for one in several for factor in one.saved()]

        def right(some: slice) -> Tensor:
            return torch.cat([one.right(some) for one in several], dim=2)

        return cls(several[0].parameter, left_BGTp, right, given, several[0].rows)

    def cheapest(self) -> Part:
        """Return the way that takes less, by shapes."""
        kept = self._positions > 1 and self._outputs * self._inputs <= 2 * self._positions**2
        return self.kept() if kept else self

    def squares(self) -> tuple[Tensor, Tensor]:
        """Return the squared norms from Gram matrices, and the squared reaches, group by group."""
        found = [self._squares(some) for some in self._chunks(self._positions * (self._outputs + self._inputs))]
        squares, reaches = zip(*found, strict=True)
        return torch.cat(squares), torch.cat(reaches)

    def _squares(self, some: slice) -> tuple[Tensor, Tensor]:
        """Return both of some records."""
        left_NTp = self.left_BGTp[some].double().flatten(0, 1)
        right_NTd = self.right(some).double().flatten(0, 1)
        reach_NT = torch.linalg.vector_norm(left_NTp, dim=2) * torch.linalg.vector_norm(right_NTd, dim=2)
        if self._positions == 1:
            reach_BG = reach_NT.view(-1, self._groups).square()
            return (square_B := reach_BG.sum(dim=1)), square_B
        gram_NTT = torch.bmm(left_NTp, left_NTp.mT).mul_(torch.bmm(right_NTd, right_NTd.mT))
        return bounded(gram_NTT.sum(dim=(1, 2)), reach_NT, self._outputs + self._inputs, self._groups)

    def summed(self, factor_B: Tensor) -> Tensor:
        """Return the weighted sum, of a group after the other."""
        factor_K = factor_B.repeat_interleave(self._positions) if self._positions > 1 else factor_B
        right_BGTd = self.right(slice(None))
        sums = [
            _weighed(self.left_BGTp[:, group].flatten(0, 1), right_BGTd[:, group].flatten(0, 1), factor_K)
            for group in range(self._groups)
        ]
        return (sums[0] if len(sums) == 1 else torch.cat(sums)).reshape(-1)

    def kept(self) -> Kept:
        """Return each record's gradient, in float32, which is then what is clipped and summed."""
        parts = [
            torch.matmul(self.left_BGTp[some].mT, self.right(some)).flatten(1)
            for some in self._chunks(self._positions * self._inputs)
        ]
        return Kept(self.parameter, parts[0] if len(parts) == 1 else torch.cat(parts), self.rows)

    def saved(self) -> list[Tensor]:
        """Return both factors."""
        return [self.left_BGTp, *self.given]

    def _chunks(self, of_a_group: int) -> Iterator[slice]:
        """Cut the batch into rows that stay in a cache, by what one has in each group."""
        size = max(1, _CACHED // max(1, self._groups * of_a_group))
        yield from (slice(start, start + size) for start in range(0, len(self.left_BGTp), size))


class Looked(Part):
    """Rows that were looked up in a table: outer products of unit vectors and gradients.

    Args:
        parameter: The table, `(V, d)`.
        index_BT: Which rows were taken.
        right_BTd: The gradient of the loss at each, float32; zeros where a position counts nothing.
    """

    def __init__(self, parameter: nn.Parameter, index_BT: Tensor, right_BTd: Tensor) -> None:
        super().__init__(parameter)
        self.index_BT, self.right_BTd = index_BT, right_BTd

    @classmethod
    def beside(cls, several: Sequence[Looked]) -> Looked:
        """Return the positions of several uses of a table as those of one."""
        return cls(
            several[0].parameter,
            torch.cat([one.index_BT for one in several], dim=1),
            torch.cat([one.right_BTd for one in several], dim=1),
        )

    def cheapest(self) -> Part:
        """Return the way that takes less, by shapes."""
        return self.kept() if self.parameter.numel() <= 2 * self.index_BT.shape[1] ** 2 else self

    def squares(self) -> tuple[Tensor, Tensor]:
        """Return the squared norms from Gram matrices, in which only positions of one row meet."""
        right_BTd = self.right_BTd.double()
        meet_BTT = self.index_BT[:, :, None] == self.index_BT[:, None, :]
        gram_BTT = torch.bmm(right_BTd, right_BTd.mT).mul_(meet_BTT)
        reach_BT = torch.linalg.vector_norm(right_BTd, dim=2)
        return bounded(gram_BTT.sum(dim=(1, 2)), reach_BT, right_BTd.shape[2])

    def summed(self, factor_B: Tensor) -> Tensor:
        """Return the weighted sum, of a block of positions after the other."""
        factor_K1 = factor_B.repeat_interleave(self.index_BT.shape[1])[:, None]
        index_K, right_Kd = self.index_BT.flatten(), self.right_BTd.flatten(0, 1)
        total_Vd = right_Kd.new_zeros(self.parameter.shape, dtype=torch.float64)
        for some in _blocks(len(index_K)):
            weighed_Kd = (right_Kd[some].double() * factor_K1[some]).nan_to_num_(0.0, 0.0, 0.0)
            if some.start == 0:
                total_Vd.index_add_(0, index_K[some], weighed_Kd)
            else:
                total_Vd += torch.zeros_like(total_Vd).index_add_(0, index_K[some], weighed_Kd)
        return total_Vd.reshape(-1)

    def kept(self) -> Kept:
        """Return each record's gradient of the whole table."""
        grad_BVd = self.right_BTd.new_zeros((len(self.right_BTd), *self.parameter.shape))
        grad_BVd.scatter_add_(1, self.index_BT[:, :, None].expand_as(self.right_BTd), self.right_BTd)
        return Kept(self.parameter, grad_BVd)

    def saved(self) -> list[Tensor]:
        """Return both factors."""
        return [self.index_BT, self.right_BTd]


def bounded(square_N: Tensor, reach_NT: Tensor, terms: int, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Return upper bounds of squared norms from Gram matrices, and squared reaches, over each record's groups.

    Args:
        square_N: As computed, a row for each group of each record.
        reach_NT: Of each position.
        terms: Products that the two Gram matrices add up for an entry, in all.
        groups: Of a record.
    """
    reach_N = reach_NT.sum(dim=1).square()
    rounding = (terms + reach_NT.shape[1] ** 2 + 8) * _ROUNDING
    # No less than nothing: of positions that cancel, what is computed may be negative.
    square_N = square_N.clamp(min=0.0) + rounding * reach_N
    return square_N.view(-1, groups).sum(dim=1), reach_N.view(-1, groups).sum(dim=1)


def _weighed(left_Kp: Tensor | None, right_Kd: Tensor, factor_K: Tensor) -> Tensor:
    """Return the sum over positions of factor times outer product, float64 `(p, d)`; of ones where left is None."""
    total_pd: Tensor | None = None
    for some in _blocks(len(factor_K)):
        factor_K1 = factor_K[some, None]
        left = factor_K1 if left_Kp is None else (left_Kp[some].double() * factor_K1).nan_to_num_(0.0, 0.0, 0.0)
        # Zero times infinity is NaN: what is not finite of a record that counts nothing is zeroed on both sides.
        part_pd = left.mT @ right_Kd[some].double().nan_to_num_(0.0, 0.0, 0.0)
        total_pd = part_pd if total_pd is None else total_pd.add_(part_pd)
    assert total_pd is not None  # noqa: S101 - a physical batch has rows
    return total_pd


def _blocks(positions: int) -> Iterator[slice]:
    """Cut positions into blocks.

    Raises:
        PrivacyError: When there are so many that sums of their sums are not near enough.
    """
    if positions > BLOCK * (most := CHAIN - BLOCK - _SPARE):
        raise PrivacyError(
            f"a physical batch has {positions} positions in one layer, and sums are near enough for {BLOCK * most};"
            " lower training.max_physical_batch"
        )
    yield from (slice(start, start + BLOCK) for start in range(0, positions, BLOCK))


def _columns(grad_BP: Tensor) -> Iterator[slice]:
    """Cut the columns into blocks that stay in a cache once they are float64."""
    width = max(1, _CACHED // max(1, len(grad_BP)))
    yield from (slice(start, start + width) for start in range(0, grad_BP.shape[1], width))
