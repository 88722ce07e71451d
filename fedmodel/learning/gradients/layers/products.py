"""Gradients that are sums of outer products: of what went into a layer, and of the gradient of what came out.

`fedmodel.learning.gradients.layers.parts` says what is promised, and why.

Shapes: B rows of a physical batch, G groups of channels, T positions of a record, p outputs and d inputs of a group, P
entries of a gradient, N = B G.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.grad import conv1d_weight

from fedmodel.learning.gradients.layers.parts import (
    BLOCK,
    CACHED,
    Kept,
    Part,
    added_up,
    hashed,
    norms,
    put_together,
    weighed,
    weighed_rows,
)

_ROUNDING: Final = 2.0**-52  # twice that of float64
_AGAIN: Final = 32  # products of float32 for each entry that cost as much as turning it into float64 and adding it up

_MANY: Final = 32
"""Positions of a record from which on its gradient in float32 costs less than its part of a product in float64."""
_SINGLE: Final = 2.0**-24  # half of the last place of float32
_TINY: Final = 2.0**-125  # what a product of float32 and its sum lose at most where they are too small for it
_FEW: Final = 1 << 17  # values of a physical batch's gradients that take less time than Gram matrices do
_SMALL: Final = 1 << 23  # values, 32 MB, that are kept of a parameter rather than computed again


@dataclass(frozen=True)
class Factors:
    """What outer products are made of. Sensitive.

    Attributes:
        left_BGTp: The gradient of the loss at what came out, float32.
        right: From rows of the batch to what went in there, float32 of shape `(B, G, T, d)`.
        grads: From rows of the batch to records' gradients, float32 of shape `(B, P)`.
        given: What went in, as it is to be compared.
        inputs: d.
    """

    left_BGTp: Tensor
    right: Callable[[slice], Tensor]
    grads: Callable[[slice], Tensor]
    given: tuple[Tensor, ...]
    inputs: int


class Outer(Part):
    """Outer products, from which each record's gradient could be computed.

    Args:
        parameter: The parameter, or those of its rows that are meant, of G p rows of d entries each.
        factors: What its gradient is made of.
        rows: Which of the parameter's rows; all by default.
    """

    def __init__(self, parameter: Tensor, factors: Factors, rows: slice = slice(None)) -> None:
        super().__init__(parameter, rows)
        self.factors = factors
        self.batch, self._groups, self._positions, self.outputs = factors.left_BGTp.shape

    @property
    def is_of_one_position(self) -> bool:
        """Whether there is one position and one group: a record's gradient is one outer product."""
        return self._positions == self._groups == 1

    @property
    def groups(self) -> int:
        """G."""
        return self._groups

    def cheapest(self) -> Part:
        """Return the way that takes less, by shapes."""
        positions, inputs, entries = self._positions, self.factors.inputs, self.outputs * self.factors.inputs
        if positions == 1:
            return self
        if entries <= 2 * positions**2 or self.batch * self._groups * entries <= _FEW:
            return self.kept()
        if positions**2 * (self.outputs + inputs) <= _AGAIN * entries:
            return Anew(self.parameter, self.factors, self.rows) if self._is_cheaper_anew() else self
        if self.batch * self._groups * entries <= _SMALL:
            return self.kept()
        return Again(self.parameter, self.factors, self.rows)

    def freed(self) -> Part:
        """Return kept gradients at once only where they are fewer numbers than the factors that they are made of."""
        held = self.factors.left_BGTp.numel() + sum(one.numel() for one in self.factors.given)
        return self.cheapest() if self.batch * self._groups * self.outputs * self.factors.inputs <= held else self

    def _is_cheaper_anew(self) -> bool:
        """Tell whether gradients in float32 cost less than a product in float64, and are rounded as `Anew` has it."""
        of_processor = self.factors.left_BGTp.device.type == "cpu"
        return self._positions >= _MANY and of_processor and is_of_ieee(_asked())

    def squares(self) -> tuple[Tensor, Tensor]:
        """Return the squared norms from Gram matrices, and the squared reaches, group by group."""
        found = [self._squares(some) for some in self._chunks(self._positions * (self.outputs + self.factors.inputs))]
        if len(found) == 1:
            return found[0]
        squares, reaches = zip(*found, strict=True)
        return torch.cat(squares), torch.cat(reaches)

    def _squares(self, some: slice) -> tuple[Tensor, Tensor]:
        """Return both of some records."""
        left_NTp = self.factors.left_BGTp[some].flatten(0, 1).double()
        right_NTd = self.factors.right(some).flatten(0, 1).double()
        reach_NT = norms(left_NTp) * norms(right_NTd)
        if self._positions == 1:
            square_BG = reach_NT.view(-1, self._groups).square()
            square_B = square_BG[:, 0] if self._groups == 1 else square_BG.sum(dim=1)
            return square_B, square_B
        gram_NTT = torch.bmm(left_NTp, left_NTp.mT).mul_(torch.bmm(right_NTd, right_NTd.mT))
        return bounded(gram_NTT.sum(dim=(1, 2)), reach_NT, self.outputs + self.factors.inputs, self._groups)

    def summed(self, factor_B: Tensor) -> Tensor:
        """Return the weighted sum, of a group after the other."""
        factor_K = factor_B.repeat_interleave(self._positions) if self._positions > 1 else factor_B
        right_BGTd, left_BGTp = self.factors.right(slice(None)), self.factors.left_BGTp
        sums = [
            weighed(left_BGTp[:, group].flatten(0, 1), right_BGTd[:, group].flatten(0, 1), factor_K)
            for group in range(self._groups)
        ]
        return (sums[0] if len(sums) == 1 else torch.cat(sums)).reshape(-1)

    def kept(self) -> Kept:
        """Return each record's gradient, in float32, which is then what is clipped and summed."""
        grad_BP = self.factors.left_BGTp.new_empty((self.batch, self._groups * self.outputs * self.factors.inputs))
        found = []
        for some, grads in self._gradients():
            grad_BP[some] = grads
            found.append(norms(grads))  # while a core's cache has them
        return Kept(self.parameter, grad_BP, self.rows, torch.cat(found).square())

    def hashed(self, multipliers_P: Tensor) -> Tensor:
        """Return a hash of both factors."""
        return put_together(hashed(one, multipliers_P) for one in (self.factors.left_BGTp, *self.factors.given))

    def folded(self, views: int) -> Outer:
        """Return the positions of all of a record's rows as its own."""
        factors = self.factors

        def rows(some: slice) -> slice:
            start, stop, _ = some.indices(self.batch // views)
            return slice(start * views, stop * views)

        def positions(one_VGT: Tensor) -> Tensor:
            return torch.unflatten(one_VGT, 0, (-1, views)).transpose(1, 2).flatten(2, 3)

        folded = replace(
            factors,
            left_BGTp=positions(factors.left_BGTp),
            right=lambda some: positions(factors.right(rows(some))),
            grads=lambda some: added_up(factors.grads(rows(some)), views),
            given=tuple(torch.unflatten(one, 0, (-1, views)) for one in factors.given),
        )
        return Outer(self.parameter, folded, self.rows)

    def _gradients(self, block: slice = slice(None)) -> Iterator[tuple[slice, Tensor]]:
        """Yield records' gradients, of a few at once."""
        for some in self._chunks(self.outputs * self.factors.inputs, block):
            yield some, self.factors.grads(some)

    def _chunks(self, of_a_group: int, block: slice = slice(None)) -> Iterator[slice]:
        """Cut the batch, or a block, into rows that stay in a cache, by what one has in each group."""
        fitting = min(BLOCK, max(1, CACHED // max(1, self._groups * of_a_group)))
        size = 1 << (fitting.bit_length() - 1)  # which divides a block, so that both are cut at the same places
        start, stop, _ = block.indices(self.batch)
        yield from (slice(at, min(at + size, stop)) for at in range(start, stop, size))


class Again(Outer):
    """Outer products, from which each record's gradient is computed, for its norm and once more for the sum.

    That the norm bounds what is summed rests on both computations giving the same bits, which the conformance test
    measures: it hashes what is computed, twice. They are asked of the same kernels at the same shapes.
    """

    def cheapest(self) -> Part:
        """Return itself."""
        return self

    def squares(self) -> tuple[Tensor, Tensor]:
        """Return each record's squared norm, twice."""
        square_B = torch.cat([norms(grads) for _, grads in self._gradients()]).square()
        return square_B, square_B

    def summed(self, factor_B: Tensor) -> Tensor:
        """Return the weighted sum, of a few records after the other, and of a block after the other."""
        return weighed_rows(self._gradients, factor_B)

    def hashed(self, multipliers_P: Tensor) -> Tensor:
        """Return a hash of the gradients, so that how they are computed is covered too."""
        return torch.cat([hashed(grads, multipliers_P) for _, grads in self._gradients()])


class Anew(Again):
    """Outer products with a norm from Gram matrices, and each record's gradient computed in float32 for the sum.

    What is summed is that gradient as float32 has it, whatever was rounded on the way; its norm is at most that of the
    true one and what is rounded: (T + 4) 2^-24 of the reach for T products and as many sums of them in any order, of
    several views and uses too, and what an entry loses where products are too small for float32.
    """

    def squares(self) -> tuple[Tensor, Tensor]:
        """Return an upper bound of the squared norm of what is summed, twice."""
        square_B, reach_B = Outer.squares(self)
        rounding = (self._positions + 4) * _SINGLE
        tiny = math.sqrt(self._groups * self.outputs * self.factors.inputs) * self._positions * _TINY
        bound_B = (square_B.sqrt() + reach_B.sqrt() * (rounding / (1 - rounding)) + tiny).square_()
        return bound_B, bound_B


def _asked() -> str:
    """Return what is asked of torch for products of float32: "highest", or by which settings something else."""
    library: Any = torch.backends.mkldnn
    others = {str(one.fp32_precision) for one in (library, library.conv, library.matmul)}
    return " ".join([torch.get_float32_matmul_precision(), *sorted(others - {"none", "ieee"})])


@lru_cache
def is_of_ieee(asked: str) -> bool:
    """Tell whether products of float32 on the processor are rounded as IEEE 754 has it, and not as numbers of 16 bits.

    Measured once a process for what is asked of torch, since a variable of the environment may ask it of a library.
    """
    left_Tp, right_Td = torch.randn(2, _MANY, 64, generator=torch.Generator().manual_seed(0)).unbind()
    exact_pd = left_Tp.double().mT @ right_Td.double()
    allowed_pd = left_Tp.double().norm(dim=0)[:, None] * right_Td.double().norm(dim=0) * (_MANY * _SINGLE)
    found = (
        left_Tp.mT @ right_Td,
        torch.bmm(left_Tp[None].mT, right_Td[None])[0],
        conv1d_weight(right_Td[None].mT, (64, 64, 1), left_Tp[None].mT)[:, :, 0],  # type: ignore[no-untyped-call]
    )
    return asked == "highest" and all(bool(((one - exact_pd).abs() <= allowed_pd).all()) for one in found)


def beside(several: Sequence[Outer]) -> Outer:
    """Return the positions of several uses of the same rows as those of one."""
    factors = [one.factors for one in several]

    def right(some: slice) -> Tensor:
        return torch.cat([one.right(some) for one in factors], dim=2)

    def grads(some: slice) -> Tensor:
        return torch.stack([one.grads(some) for one in factors]).sum(dim=0)

    left_BGTp = torch.cat([one.left_BGTp for one in factors], dim=2)
    given = tuple(tensor for one in factors for tensor in one.given)
    joined = replace(factors[0], left_BGTp=left_BGTp, right=right, grads=grads, given=given)
    return Outer(several[0].parameter, joined, several[0].rows)


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
