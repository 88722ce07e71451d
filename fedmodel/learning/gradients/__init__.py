"""The clipped sum of a lot, apart from noise and from the optimiser: one kind per file, named as a scenario names it.

Guarantee of every kind that passes `fedmodel.learning.preflight`, for the sum S that `ClippedSum.of` returns for a lot:

    Adding or removing one record moves S by at most C in L2, exactly, and S lies on the fine grid.

"hooks", "functional" and "one-by-one" have it so, with S = sum over records of cut(clip(g_i, C)):

- *A record's gradient is its own.* Every physical batch has the same number of rows, filled up with zeros that count
  nothing. g_i is then a function of record i and the model alone, bit for bit, whatever its place and its companions,
  where the kernels at that shape make it so; the preflight measures that they do, and takes a smaller shape, down to
  one record at a time, where they do not.
- *No clipped gradient is longer than C*, with the rounding of the clip counted. Each coordinate is cut to the fine grid
  (`fedmodel.privacy.grid`), towards zero, which lengthens nothing.
- *The sum is exact.* Multiples of the fine grid add up without rounding while the sum stays under 2^53 steps of it, for
  `grid.most_records` of them; `fedmodel.learning.dp_sgd` refuses a silo with more. So S does not hang on the order of
  records or on how they were cut into physical batches, and no noise is needed for an error of the sum.

A kind may round its sums instead, as "book-keeping" does: it then says by how much at most (`rounding`) and clips to so
much less than C (`clip`) that two sums which a record moves apart still differ by at most C, as they are computed. The
preflight holds it to both. The last bits of such a sum hang on the order of records and on how they were cut into
physical batches.

Cutting takes less than 2^-30 standard deviations of the noise from each coordinate of a record: of a lot of 10,000 it
biases no coordinate of S by more than 10^-5 of them.

| Edge case                                   | What happens                                                        |
|---------------------------------------------|---------------------------------------------------------------------|
| the lot is empty                            | the sum is zero                                                      |
| a record's gradient is NaN or infinite      | that record contributes zero; no other record is touched             |
| the lot is larger than a physical batch     | clipped sums of the chunks add up                                    |
| a physical batch is not full                | it is filled up; what fills it counts nothing, whatever its gradient |
| an exception, or a stop, in mid-lot         | the pending sum is discarded before the next lot begins              |
| a trainable parameter gets no gradient      | `PrivacyError`: part of the model would be released without noise    |
| the loss is not one for each record         | `PrivacyError`: a mean or a sum over records could couple them       |
| one of a record's views is not finite        | the record contributes zero; no other record is touched              |
| a record has another number of views than K | `PrivacyError`: rows of two records would be taken for one           |
| the clip is infinite, as in a baseline      | each factor is 1: nothing is clipped, and nothing is promised        |
| a pass writes into the model                | made-up records: `PrivacyError`; in training it is put back, see below |

*A model is the same after a physical batch as before it.* What a pass wrote into a parameter would be released without
noise, and what it kept would reach other records' gradients. `flat`, which measures, refuses that by name. `of`, which
trains, puts all back that `fedmodel.learning.keeping` lists, after each physical batch, and says nothing: whether
records reached a branch that writes must not be told. So a record's gradient is a function of it, of its companions in
one physical batch, which the preflight measures, and of the model as the round began. What a pass keeps in places that
`keeping` does not look into is not covered.

*Several views of a record are one record.* With `views` = K, a record is trained on as K copies of it (augmentation
multiplicity, De et al. 2022, section 3.2), and

    g_i = mean over k of the gradient of the loss of view k of record i

which is clipped and cut as one. For any fixed draws, g_i is a function of record i, of its own draws and of the model,
so that all of the above holds of it as of any gradient: whatever K is and whatever the views are, adding or removing
one record moves S by at most C. A view that is NaN or infinite takes its record's other views with it, and no other
record. The model is given `rows` K rows, the views of one record side by side; loss and gradient are a record's own
from `losses_of` on. A kind adds up a record's K rows before it takes a norm: of gradients in memory by `folded`; of
factors whose product over positions is a gradient, the views are so many more positions. The preflight measures with
made-up views that are unlike each other (`fedmodel.learning.inputs.unlike`).

A new kind is one file in this folder with a class derived from `ClippedSum`, which the file names `KIND`.

Does NOT add noise: what is returned is sensitive. Does NOT hide how long a lot takes, which hangs on how many physical
batches it fills.

Shapes: B rows of a physical batch, R of them records, K views of a record, V = R K rows or B K, P parameters, N
records, L parameter tensors.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.data.named import arrays
from fedmodel.errors import ConfigError, PrivacyError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.gradients.layers.parts import added_up
from fedmodel.learning.inputs import Inputs, taken, unlike
from fedmodel.learning.keeping import Kept, undone
from fedmodel.learning.lengths import Lengths
from fedmodel.learning.tasks import RecordLoss
from fedmodel.system.kinds import kinds, not_known

_MOST_PARAMETERS: Final = 2**30  # of which a computed norm is near enough to the true one
_SMALLEST_BATCH: Final = 8  # smaller ones cost as much


class ClippedSum(ABC):
    """The clipped sum of a lot over one model. Sensitive until noise is added.

    Args:
        module: The model, of float32; it is put into training mode.
        losses: The loss of each record, `(B,)`.
        max_grad_norm: The clip C in L2; infinite in a baseline that clips nothing.
        unit: The step of the fine grid, a power of two, which clipped gradients are cut to, or their sum is rounded to.
        rows: Rows of every physical batch.

    Attributes:
        parameters: The parameters that are clipped, the module's trainable ones, in its order.
        rows: Records that a physical batch has room for; `fedmodel.learning.preflight` makes it smaller where kernels
            ask for it.
        views: K, how many views of each record there are; whoever builds the sum sets it, before anything is measured.
        lengths: At which lengths rows are computed (`fedmodel.learning.lengths`), where there are several; set so, too.
        most_records: Of a silo, for which the guarantee holds.

    Raises:
        PrivacyError: When the kind cannot compute the model's gradients, or the model is too large or not of float32,
            as the bound of a norm asks for.
    """

    most_records: ClassVar[float] = math.inf

    def __init__(self, module: nn.Module, losses: RecordLoss, *, max_grad_norm: float, unit: float, rows: int) -> None:
        self.module = module.train()
        self.losses = losses
        self.max_grad_norm = max_grad_norm
        self.unit = unit
        self.rows = rows
        self._kept: Kept | None = None
        self._as_kept = False  # whether the model holds what was kept of it
        self.refuses = False  # whether `of` was asked to refuse a model that changes
        self.views = 1
        self.lengths: Lengths | None = None
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        count = sum(parameter.numel() for parameter in self.parameters)
        if count > _MOST_PARAMETERS:
            raise PrivacyError(f"the model has {count} parameters; norms are exact enough for {_MOST_PARAMETERS}")
        if any(parameter.dtype != torch.float32 for parameter in self.parameters):
            raise PrivacyError("the model has parameters that are not float32, which the bound of a norm is for")

    def add(self, x_V: Inputs, y_R: Tensor) -> None:
        """Add the clipped gradients of one physical batch to the sum: at most `rows` records.

        Args:
            x_V: The views of the records, those of one side by side.
            y_R: The records' targets.

        Raises:
            PrivacyError: When the losses or the gradients are not per record.
        """
        self.put(self.summed(x_V, y_R))

    @abstractmethod
    def summed(self, x_V: Inputs, y_R: Tensor) -> Tensor:
        """Return what `add` puts to the sum, float64 of shape `(P,)`: of these records and the model alone. Sensitive.

        Whichever process computes it, of one device and one shape of batches, it has the same bits.

        Args:
            x_V: The views of the records, those of one side by side.
            y_R: The records' targets.

        Raises:
            PrivacyError: When the losses or the gradients are not per record.
        """

    @abstractmethod
    def put(self, sum_P: Tensor) -> None:
        """Put to the sum what `summed` returned of one physical batch, here or elsewhere; the order is part of it.

        Args:
            sum_P: Float64 of shape `(P,)`; it is given away, and may be written into.
        """

    @abstractmethod
    def take(self) -> list[Tensor]:
        """Return the sum, float64, a tensor of multiples of `unit` for each of `parameters`, and forget it."""

    @abstractmethod
    def forget(self) -> None:
        """Forget sums, gradients and activations, so that nothing of one lot reaches the next."""

    @abstractmethod
    def prints(self, x_V: Inputs, y_R: Tensor, multipliers_P: Tensor) -> Tensor:
        """Return a hash of what each record of one physical batch adds to a sum, int64 of shape `(R,)`. Sensitive.

        Equal contributions have equal hashes: every bit that decides what a record adds goes in, also those that
        cutting takes away. With odd multipliers at random, unequal ones have equal hashes hardly ever. A record that
        adds nothing has the hash 0. Whatever sum is pending is forgotten.

        Args:
            x_V: The views of at most `rows` records, those of one side by side.
            y_R: The records' targets.
            multipliers_P: int64, odd, shape `(P,)`.
        """

    @property
    def clip(self) -> float:
        """What each record's gradient is clipped to: C, or less by what a sum may be rounded by."""
        return self.max_grad_norm

    def rounding(self, records: int) -> float:  # noqa: ARG002 - of a kind whose sums are exact
        """Return how far a sum of so many records may be from that of their clipped gradients, in L2."""
        return 0.0

    def of(
        self,
        x_N: Inputs,
        y_N: Tensor,
        lot: NDArray[np.intp],
        augment: Callable[[Inputs], Inputs] | None = None,
        *,
        refuse: bool = False,
        whole: bool = False,
    ) -> list[Tensor]:
        """Return the clipped sum of a lot, as `take` does, with nothing older in it.

        Args:
            x_N: All the silo's records, on the model's device: one tensor, or several by name. Sensitive.
            y_N: Their targets, likewise. Sensitive.
            lot: Indices of the records drawn. Sensitive, its length included.
            augment: Makes the views of records that are trained on, each of its own record and of draws of its own
                (`fedmodel.learning.augmenting`); None for the records themselves.
            refuse: Whether a model that writes into its parameters or buffers is refused, and not only put back to what
                it was after each physical batch: of made-up records alone.
            whole: Whether rows stay as long as they are, where there are several lengths: as they are measured.
        """
        self.begin(refuse=refuse)
        for x_V, y_R in self.batches(x_N, y_N, lot, augment, whole=whole):
            with self.undone():
                self.add(x_V, y_R)
        return self.take()

    def begin(self, *, refuse: bool = False) -> None:
        """Begin a lot, as `of` does, with nothing older in it.

        Args:
            refuse: As `of` has it.
        """
        self.forget()
        self.refuses, self._as_kept = refuse, False
        if self._kept is None:  # once hooks are where they stay
            self._kept = Kept(self.module)

    def batches(
        self,
        x_N: Inputs,
        y_N: Tensor,
        lot: NDArray[np.intp],
        augment: Callable[[Inputs], Inputs] | None = None,
        *,
        whole: bool = False,
    ) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield a lot's physical batches in their order: views of records and targets. Sensitive.

        Each record of the lot is in one of them, with all of its views.

        Args:
            x_N: All the silo's records, as `of` has them.
            y_N: Their targets.
            lot: Indices of the records drawn.
            augment: Makes views of records.
            whole: As `of` has it.
        """
        lengths, index_L = None if whole else self.lengths, torch.from_numpy(lot).to(y_N.device)
        for length, own_L in [(0, index_L)] if lengths is None else lengths.parts(x_N, y_N, index_L):
            for chunk in _chunks(own_L, self.rows):
                x_R, y_R = taken(x_N, chunk), y_N[chunk]
                if lengths is not None:
                    x_R, y_R = lengths.cut(x_R, y_R, length)
                x_V = x_R if augment is None else augment(x_R)
                if any(len(one) != len(chunk) * self.views for one in arrays(x_V)):
                    raise PrivacyError(f"records came without {self.views} views each, and rows of two would be one's")
                yield x_V, y_R

    def shapes(self, shape: DataShape) -> tuple[DataShape, ...]:
        """Return what records look like at each length at which they are computed, as they are kept first."""
        return (shape,) if self.lengths is None else self.lengths.shapes(shape)

    def summed_apart(self, x_V: Inputs, y_R: Tensor) -> Tensor:
        """Return what `summed` does once a lot has begun; the model is after it as it was before. Sensitive."""
        with self.undone():
            return self.summed(x_V, y_R)

    def undone(self) -> AbstractContextManager[None]:
        """Put the model back to what it was, after a physical batch of a lot that has begun."""
        # Between two physical batches of a lot nothing but augmentation runs, which the model is not given to.
        as_kept, self._as_kept = self._as_kept, True
        return undone(self.module, refuse=self.refuses, kept=self._kept, as_kept=as_kept)

    def made_up_views(self, x_R: Inputs) -> Inputs:
        """Return views of made-up records, as they are measured with: the records themselves where each has one."""
        return x_R if self.views == 1 else unlike(x_R, self.views)

    def losses_of(self, output_V: Tensor, y_B: Tensor) -> Tensor:
        """Return the loss of each record, `(B,)`: the mean of its views' losses, from what the model makes of views.

        Raises:
            PrivacyError: When the losses are not one for each view.
        """
        views = self.views
        loss_V = self.losses(output_V, y_B if views == 1 else y_B.repeat_interleave(views, dim=0))
        if loss_V.shape != (len(y_B) * views,):
            raise PrivacyError(f"the loss has shape {tuple(loss_V.shape)}, where each record needs one of its own")
        return loss_V if views == 1 else loss_V.view(-1, views).mean(dim=1)

    def folded(self, grad_V: Tensor) -> Tensor:
        """Return the gradient of each record, from those of its views: their sum, added up one after the other."""
        return added_up(grad_V, self.views)

    def flat(self, x_N: Inputs, y_N: Tensor, *, whole: bool = True) -> Tensor:
        """Return the clipped sum of all the records, by made-up views of them, float64 of shape `(P,)`, WITHOUT noise.

        Sensitive: for measuring sensitivity on made-up records, never for release. Rows stay as long as they are, or
        are cut as in training where `whole` is false.

        Raises:
            PrivacyError: Where the model writes into its parameters or buffers as records pass.
        """
        sums = self.of(x_N, y_N, np.arange(len(y_N)), self.made_up_views, refuse=True, whole=whole)
        return torch.cat([part.reshape(-1) for part in sums])


def physical_batch(expected: int, most: int) -> int:
    """Return how many rows every physical batch has: from public figures, a power of two that the expected lot fits.

    Powers of two, at which kernels mostly treat rows alike, as they do not at 7 or 30. Where they do not all the same,
    `fedmodel.learning.conformance` finds it and takes fewer.

    Args:
        expected: The expected lot, at least 1.
        most: Most rows in memory at once, at least 1; never passed.

    >>> physical_batch(40, 512), physical_batch(60_000, 512), physical_batch(1, 512), physical_batch(40, 30)
    (64, 512, 8, 16)
    """
    fitting = 1 << (max(expected, _SMALLEST_BATCH) - 1).bit_length()
    return min(fitting, 1 << (most.bit_length() - 1))


def kind(name: str) -> type[ClippedSum]:
    """Return the kind of a name, one of this folder's own.

    Raises:
        ConfigError: When there is none of that name.
    """
    if name not in KINDS:
        raise ConfigError(f"training.gradients: {not_known('kind of gradients', name, KINDS)}")
    return KINDS[name]


def _chunks(index_L: Tensor, size: int) -> Iterator[Tensor]:
    """Cut a lot into physical batches; an empty lot has none."""
    if len(index_L):
        yield from torch.split(index_L, size)


KINDS: Final[dict[str, type[ClippedSum]]] = {name: found.KIND for name, found in kinds(__name__).items()}
