"""Rows of several public lengths, of which each text is computed at the shortest that holds it: padding without waste.

A text that is shorter than a scenario's `length` is filled up to it, and what fills it up costs what text costs. With
`model.lengths` there are several lengths; a text's rows are cut to the first of them that all of it fits into.

Guarantee: at which length a record is computed is a function of that record and of public figures alone, and of no
other record. A physical batch has one length and one number of rows, so that what is computed of a record is what the
model makes of it in a batch of that shape: all that `fedmodel.learning.gradients` says of a record's gradient holds at
each length. `fedmodel.learning.preflight` measures each, and lots of records that end at each, with one more that ends
at any. A gradient may be rounded otherwise at another length; no record is ever at two. A record that enters or leaves
a lot changes how many physical batches there are by one at most, as it does without lengths.

This is not packing, of several records into one row. There a record's companions are in its row: what is attended to
with weight 0 is multiplied all the same, and 0 times infinity, which one record can bring a model to, is no number.

An audit's probe canaries end at each length in turn (`fedmodel.canaries.probes`): it measures the clip at each.

Does NOT hide how long a lot takes. It hangs on how many physical batches of which length the lot fills, where it hangs
on how many of them without lengths.

Shapes: B made-up records, L records of a lot, N records, K lengths, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedmodel.kinds.shape import IGNORED, DataShape
from fedmodel.kinds.tokens import check_lengths, text_arrays
from fedmodel.learning.inputs import Inputs, taken


@dataclass(frozen=True)
class Lengths:
    """At which lengths rows are computed.

    Attributes:
        cuts: In rising order, all but the whole.
        whole: T, of records as they are kept.
        tokens: The array of tokens.
        mask: The array that says where one stands.
        of_each_token: Whether a target has a value at each position.
    """

    cuts: tuple[int, ...]
    whole: int
    tokens: str
    mask: str
    of_each_token: bool

    @property
    def every(self) -> tuple[int, ...]:
        """All K of them, in rising order."""
        return *self.cuts, self.whole

    def shapes(self, shape: DataShape) -> tuple[DataShape, ...]:
        """Return what records look like at each length, the whole first."""
        return shape, *(self._shape(shape, length) for length in reversed(self.cuts))

    def parts(self, x_N: Inputs, y_N: Tensor, index_L: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield each length with those of a lot that are computed at it, in the lot's order. Sensitive.

        Args:
            x_N: All records.
            y_N: Their targets.
            index_L: Which of them are in the lot.
        """
        length_L = self.of(taken(x_N, index_L), y_N[index_L])
        for length in self.every:
            yield length, index_L[length_L == length]

    def of(self, x_L: Inputs, y_L: Tensor) -> Tensor:
        """Return the length at which each record is computed, `(L,)`. Sensitive.

        It is the first past which no token stands and no position of the target counts.
        """
        assert isinstance(x_L, Mapping)  # noqa: S101 - `of_shape` takes no others
        counts_LT = x_L[self.mask] != 0
        if self.of_each_token:
            counts_LT = counts_LT | (y_L != IGNORED)
        place_T = torch.arange(1, self.whole + 1, device=counts_LT.device)
        needed_L = (counts_LT * place_T).amax(dim=1)
        length_K = torch.tensor(self.every, device=counts_LT.device)
        return length_K[torch.bucketize(needed_L, length_K)]

    def cut(self, x_R: Inputs, y_R: Tensor, length: int) -> tuple[Inputs, Tensor]:
        """Return records of rows as long as that, of records that are computed at it."""
        assert isinstance(x_R, Mapping)  # noqa: S101 - `of_shape` takes no others
        at_tokens = (self.tokens, self.mask)  # an audit tells canaries by a number beside them
        cut_R = {name: one[:, :length].contiguous() if name in at_tokens else one for name, one in x_R.items()}
        return cut_R, y_R[:, :length] if self.of_each_token else y_R

    def ended(self, x_B: Mapping[str, Tensor], y_B: Tensor, turn_B: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return made-up records that end where their turn is: a token stands at every place up to there.

        Past it no token stands, and no position of the target counts.

        Args:
            x_B: Records.
            y_B: Their targets.
            turn_B: Whole numbers of any size: 0 is the first of the lengths, and after the last the first comes again.
        """
        length_B = torch.tensor(self.every, device=y_B.device)[turn_B.to(y_B.device) % len(self.every)]
        stands_BT = torch.arange(self.whole, device=y_B.device) < length_B[:, None]
        tokens_BT, mask_BT = x_B[self.tokens] * stands_BT, stands_BT.to(x_B[self.mask].dtype)
        ended_B = {**x_B, self.tokens: tokens_BT, self.mask: mask_BT}
        return ended_B, torch.where(stands_BT, y_B, IGNORED) if self.of_each_token else y_B

    def _shape(self, shape: DataShape, length: int) -> DataShape:
        """Return what records look like at a length."""
        inputs = {name: replace(one, size=(length,)) for name, one in (shape.inputs or {}).items()}
        target = shape.target
        if self.of_each_token and target is not None:
            target = replace(target, size=(length,))
        return replace(shape, inputs=inputs, target=target)


def of_shape(cuts: tuple[int, ...], shape: DataShape) -> Lengths | None:
    """Return the lengths of rows; None where there is one alone.

    Args:
        cuts: In rising order.
        shape: What records look like.

    Raises:
        ConfigError: When records are no texts, have no mask, or are no longer than the lengths.
    """
    if not cuts:
        return None
    check_lengths(cuts, shape)
    tokens, mask = text_arrays(shape)
    (whole,) = (shape.inputs or {})[tokens].size
    of_each_token = shape.targets.size == (whole,) and shape.targets.ignores
    return Lengths(cuts, whole, tokens, str(mask), of_each_token=of_each_token)
