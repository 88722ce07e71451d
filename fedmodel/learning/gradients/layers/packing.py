"""The squared norms and the weighted sum of all parts of a model, with small parts side by side.

Of a small model most time goes into calls, not into numbers: each parameter takes twenty of them. So gradients that are
kept, and outer products at one position, are put beside others of their kind where they are few numbers, and take one
pass together. Shapes alone decide.

Guarantee: what `fedmodel.learning.gradients.layers.parts` says of each part holds of all of them together. A norm of
columns side by side is the norm of all. A sum's entries are added up from the same products, of the same records.

Shapes: B rows of a physical batch, W parts, p outputs and d inputs of one, P entries of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

import torch
from torch import Tensor

from fedmodel.learning.gradients.layers.parts import BLOCK, Kept, Share, norms, weighed
from fedmodel.learning.gradients.layers.products import Outer

_SMALL: Final = 1 << 15  # values of a part, which take less time than a call


def squares(parts: Sequence[Share]) -> tuple[Tensor, Tensor]:
    """Return the squared norm of each record's gradient by all parts, bounded from above, and its squared reach.

    Args:
        parts: Of each trained parameter, at least one.
    """
    columns, products, others = _sorted(parts)
    found = [part.squares() for _, part in others]
    if columns:
        square_B = norms(torch.cat([part.grad_BP for _, part in columns], dim=1)).square_()
        found.append((square_B, square_B))
    if products:
        lefts = [norms(part.factors.left_BGTp[:, 0, 0]) for _, part in products]
        rights = [norms(part.factors.right(slice(None))[:, 0, 0]) for _, part in products]
        square_B = torch.stack(lefts).mul_(torch.stack(rights)).square_().sum(dim=0)
        found.append((square_B, square_B))
    if len(found) == 1:
        return found[0]
    each_square, each_reach = zip(*found, strict=True)
    return torch.stack(each_square).sum(dim=0), torch.stack(each_reach).sum(dim=0)


def summed(parts: list[Share], factor_B: Tensor) -> Tensor:
    """Return the sum of records' gradients times their factors, float64, in the order of parts.

    Args:
        parts: As of `squares`; the list is emptied, so that what one needs is let go as soon as its sum is there.
        factor_B: Float64.
    """
    columns, products, others = _sorted(parts)
    sums: list[Tensor | None] = [None] * len(parts)
    parts.clear()
    while others:
        place, part = others.pop()
        sums[place] = part.summed(factor_B)
    if len(sums) == 1 and sums[0] is not None:
        return sums[0]
    if columns:
        of_all = weighed(None, torch.cat([part.grad_BP for _, part in columns], dim=1), factor_B)[0]
        for (place, _), some in zip(columns, _beside([part.grad_BP for _, part in columns]), strict=True):
            sums[place] = of_all[some]
    if products:
        lefts = [part.factors.left_BGTp[:, 0, 0] for _, part in products]
        rights = [part.factors.right(slice(None))[:, 0, 0] for _, part in products]
        # Zero times infinity is NaN: what is not finite of a record that counts nothing is zeroed on both sides.
        left_BP = (torch.cat(lefts, dim=1) * factor_B[:, None]).nan_to_num_(0.0, 0.0, 0.0)
        right_BP = torch.cat(rights, dim=1).double().nan_to_num_(0.0, 0.0, 0.0)
        for (place, _), p, d in zip(products, _beside(lefts), _beside(rights), strict=True):
            sums[place] = (left_BP[:, p].mT @ right_BP[:, d]).view(-1)
    return torch.cat([one for one in sums if one is not None])


_Placed = list[tuple[int, Share]]


def _sorted(parts: Sequence[Share]) -> tuple[list[tuple[int, Kept]], list[tuple[int, Outer]], _Placed]:
    """Return small gradients that are kept, small products at one position, and all others, each with its place."""
    columns: list[tuple[int, Kept]] = []
    products: list[tuple[int, Outer]] = []
    others: _Placed = []
    for place, part in enumerate(parts):
        if type(part) is Kept and part.is_bare and part.grad_BP.numel() <= _SMALL:
            columns.append((place, part))
        elif type(part) is Outer and part.is_of_one_position and part.outputs * part.factors.inputs <= _SMALL:
            products.append((place, part))
        else:
            others.append((place, part))
    if products and products[0][1].batch > BLOCK:  # which is one product's
        others, products = [*others, *products], []
    return columns, products, others


def _beside(values: Sequence[Tensor]) -> Iterator[slice]:
    """Yield which columns are whose, of values that lie side by side."""
    ends = [*accumulate(one.shape[1] for one in values)]
    yield from (slice(end - one.shape[1], end) for one, end in zip(values, ends, strict=True))
