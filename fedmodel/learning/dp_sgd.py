"""One step of DP-SGD: per-record gradients, a clip, a sum, noise, a grid, a public denominator.

After Abadi et al. 2016, algorithm 1.

Guarantee, for one call of `DpSgd.step` on a lot: the gradient handed to the optimiser is a function of

    S + round_fine(Z),   S = sum over records of cut(clip(g_i, C)),   Z = N(0, (noise_multiplier * C)^2 I)

rounded to the coarse grid (`fedmodel.privacy.grid`), where adding or removing one record moves S by at most C in L2,
exactly:

- *A record's gradient is its own.* Every physical batch has the same number of rows, filled up with zeros that count
  nothing. g_i is then a function of record i and the model alone, bit for bit, whatever its place and its companions,
  where the kernels at that shape make it so; `fedmodel.learning.preflight` measures that they do, and takes a smaller
  shape, down to one record at a time, where they do not.
- *No clipped gradient is longer than C.* Squares of float32 values are exact in float64, and of 2^30 of them the
  computed norm n is the true one but for a factor within 1 +- 2^-23. A gradient is multiplied by
  f = min(1, C (1 - 2^-22) / n), so what comes out, each product rounded by at most 2^-53 of itself, is under C. Then
  each coordinate is cut to the fine grid, towards zero, which lengthens nothing.
- *The sum is exact.* Multiples of the fine grid add up without rounding while the sum stays under 2^53 steps of it, for
  `grid.most_records` of them; a silo with more is refused. So S does not hang on the order of records or on how they
  were cut into physical batches, and no noise is needed for an error of the sum.

With `left_out` set, none of this holds and nothing is promised: no noise is added and the sum is not rounded to the
coarse grid (`no-noise`), nor is a gradient clipped (`no-noise-no-clip`: its factor is 1). All else is the same code.

Cutting takes less than 2^-30 standard deviations of the noise from each coordinate of a record: of a lot of 10,000 it
biases no coordinate of S by more than 10^-5 of them. What the noise lacks to a true Gaussian, `grid.added` says.

| Edge case                                   | What happens                                                        |
|---------------------------------------------|---------------------------------------------------------------------|
| the lot is empty                            | the sum is zero and noise is added all the same                      |
| a record's gradient is NaN or infinite      | that record contributes zero; no other record is touched             |
| the lot is larger than a physical batch     | clipped sums of the chunks add up; noise is added once               |
| a physical batch is not full                | it is filled up; what fills it counts nothing, whatever its gradient |
| an exception, or a stop, in mid-lot         | the pending sum is discarded before the next lot begins              |
| a trainable parameter gets no gradient      | `PrivacyError`: part of the model would be released without noise    |
| the loss is not one for each record         | `PrivacyError`: a mean or a sum over records could couple them       |
| more records than sums are exact for        | `DataError`: it hangs on how many a silo holds, not on the lot       |

Per-record gradients are Opacus's `GradSampleModule`, and the optimiser around them is its `DPOptimizer` with clip, sum
and noise of our own. Ghost and adaptive clipping are not used: in Opacus 1.6 ghost clipping bounds nothing for losses
of shape (B, 1), and adaptive ghost clipping does not clip at all.

Does NOT hide how long a step takes, which hangs on how many physical batches a lot fills.

Shapes: B rows of a physical batch, R of them records, F features, P parameters, N records, L parameter tensors.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from fedmodel.errors import PrivacyError
from fedmodel.learning.models import RecordLoss
from fedmodel.privacy import grid
from fedmodel.privacy.events import Baseline
from fedmodel.privacy.noise import NoiseSource

# Opacus hooks the first layer, whose input needs no gradient; torch warns of that on every run, and it is as intended.
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)

_SLACK: Final = 2.0**-22  # of the clip, for the rounding of a norm; see the module's docstring
_MOST_PARAMETERS: Final = 2**30
_SMALLEST_BATCH: Final = 8  # smaller ones cost as much
_BLOCK: Final = 1 << 18  # float64 values at once while gradients are cut: 2 MB, which a core's cache holds


def physical_batch(expected: int, most: int) -> int:
    """Return how many rows every physical batch has: from public figures, a power of two that the expected lot fits.

    Powers of two, at which kernels mostly treat rows alike, as they do not at 7 or 30. Where they do not all the same,
    as with hidden layers of up to 8 units on one processor, `fedmodel.learning.conformance` finds it and takes fewer.

    Args:
        expected: The expected lot, at least 1.
        most: Most rows in memory at once, at least 1; never passed.

    >>> physical_batch(40, 512), physical_batch(60_000, 512), physical_batch(1, 512), physical_batch(40, 30)
    (64, 512, 8, 16)
    """
    fitting = 1 << (max(expected, _SMALLEST_BATCH) - 1).bit_length()
    return min(fitting, 1 << (most.bit_length() - 1))


class DpSgd:
    """DP-SGD over one model: the clipped sum of a lot, and a noised step on it.

    Args:
        module: The model; its trainable parameters are updated in place.
        losses: The loss of each record, `(B,)`.
        optimizer: A torch optimiser over exactly the module's trainable parameters.
        noise_multiplier: Standard deviation of the noise over `max_grad_norm`.
        max_grad_norm: The clip C in L2.
        denominator: The public divisor, an expected and never a counted lot size.
        noise: Where noise is drawn from.
        max_physical_batch: Most records in memory as per-record gradients at once.

    Attributes:
        physical_batch: Rows of every physical batch. `fedmodel.learning.preflight` makes it smaller where kernels ask
        for it. left_out: What every later step leaves out, so that it protects nobody; None, as it begins, where
        nothing is.

    Raises:
        PrivacyError: When Opacus cannot compute per-record gradients for the model, the model is too large or not of
            float32, as the bound of a norm asks for, or there is no noise for a grid to follow from.
    """

    def __init__(
        self,
        module: nn.Module,
        losses: RecordLoss,
        optimizer: Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        denominator: int,
        noise: NoiseSource,
        max_physical_batch: int,
    ) -> None:
        self.module = module.train()
        self.max_grad_norm = max_grad_norm
        self.physical_batch = physical_batch(denominator, max_physical_batch)
        self._losses = losses
        try:
            self._per_record = GradSampleModule(module, loss_reduction="sum", strict=True)
        except NotImplementedError as error:  # what Opacus raises for a layer that it does not know
            raise PrivacyError(f"the model has a layer without per-record gradients: {error}") from error
        self._optimizer = _GuardedOptimizer(
            optimizer,
            noise=noise,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=denominator,
        )
        parameters = sum(parameter.numel() for parameter in self.parameters)
        if parameters > _MOST_PARAMETERS:
            raise PrivacyError(f"the model has {parameters} parameters; norms are exact enough for {_MOST_PARAMETERS}")
        if any(parameter.dtype != torch.float32 for parameter in self.parameters):
            raise PrivacyError("the model has parameters that are not float32, which the bound of a norm is for")

    @property
    def left_out(self) -> Baseline | None:
        """What a step leaves out; None where nothing is."""
        return self._optimizer.left_out

    @left_out.setter
    def left_out(self, baseline: Baseline | None) -> None:
        self._optimizer.left_out = baseline

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are clipped, noised and updated."""
        parameters: list[nn.Parameter] = self._optimizer.params
        return parameters

    @property
    def unit(self) -> float:
        """The step of the fine grid, which every clipped sum is a multiple of."""
        return self._optimizer.unit

    def step(self, x_NF: Tensor, y_N: Tensor, lot: NDArray[np.intp]) -> None:
        """Take one noised step on the lot.

        Args:
            x_NF: All the silo's features, on the model's device. Sensitive.
            y_N: All the silo's labels, likewise. Sensitive.
            lot: Indices of the records drawn. Sensitive, its length included.

        Raises:
            DataError: When the silo has more records than sums are exact for.
            PrivacyError: When the pipeline is none of per-record losses and gradients.
        """
        self._accumulate(x_NF, y_N, lot)
        self._optimizer.release()
        self._discard()

    def clipped_sum(self, x_BF: Tensor, y_B: Tensor) -> Tensor:
        """Return the sum of clipped per-record gradients, float64 of shape `(P,)`, WITHOUT noise.

        Sensitive: for measuring sensitivity on made-up records, never for release.
        """
        self._accumulate(x_BF, y_B, np.arange(len(y_B)))
        sum_P = torch.cat([p.summed_grad.reshape(-1) for p in self.parameters])  # type: ignore[attr-defined]
        self._discard()
        return sum_P

    def fingerprints(self, x_RF: Tensor, y_R: Tensor, multipliers_P: Tensor) -> Tensor:
        """Return a hash of what each record of one physical batch adds to a sum, int64 of shape `(R,)`. Sensitive.

        Equal contributions have equal hashes: every bit of a record's gradient and of its clip's factor goes in, with
        the two zeros taken as one. With odd multipliers at random, unequal ones have equal hashes hardly ever.

        Args:
            x_RF: At most `physical_batch` records.
            y_R: Their labels.
            multipliers_P: int64, odd, shape `(P,)`.
        """
        self._discard()
        self._differentiate(x_RF, y_R)
        factor_B = self._optimizer.factors()
        found_B = factor_B.view(torch.int64).clone()
        offset = 0
        for parameter in self.parameters:
            grad_BP: Tensor = parameter.grad_sample.flatten(1)  # type: ignore[attr-defined]
            for columns in _columns(grad_BP):
                bits_BP = (grad_BP[:, columns] + 0.0).view(torch.int32).long()
                found_B += (bits_BP * multipliers_P[offset : offset + grad_BP.shape[1]][columns]).sum(dim=1)
            offset += grad_BP.shape[1]
        self._discard()
        return torch.where(factor_B > 0, found_B, 0)[: len(y_R)]

    def _accumulate(self, x_NF: Tensor, y_N: Tensor, lot: NDArray[np.intp]) -> None:
        """Leave the lot's clipped sum in each parameter's `summed_grad`, nothing older in it."""
        grid.check_records(len(y_N), self._optimizer.noise_multiplier)
        self._discard()
        for chunk in _chunks(torch.from_numpy(lot).to(y_N.device), self.physical_batch):
            self._differentiate(x_NF[chunk], y_N[chunk])
            self._optimizer.clip_and_accumulate(len(chunk))
            for parameter in self.parameters:
                parameter.grad_sample = None  # type: ignore[attr-defined]
                parameter.grad = None
        if len(lot) == 0:
            for parameter in self.parameters:
                parameter.summed_grad = torch.zeros_like(parameter, dtype=torch.float64)  # type: ignore[attr-defined]

    def _differentiate(self, x_RF: Tensor, y_R: Tensor) -> None:
        """Leave the gradient of each record, and of what fills the batch up, in each parameter's `grad_sample`."""
        label_B = padded(y_R, self.physical_batch)
        loss_B = self._losses(self._per_record(padded(x_RF, self.physical_batch)), label_B)
        if loss_B.shape != label_B.shape:
            raise PrivacyError(f"the loss has shape {tuple(loss_B.shape)}, where each record needs one of its own")
        torch.autograd.backward(loss_B.sum())

    def _discard(self) -> None:
        """Forget gradients, sums and activations, so that nothing of one lot reaches the next."""
        for parameter in self.parameters:
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]
            parameter.summed_grad = None  # type: ignore[attr-defined]
            # Opacus counts a parameter's open forward passes here.
            parameter._forward_counter = 0  # type: ignore[attr-defined]  # noqa: SLF001
        for module in self.module.modules():
            for attribute in ("activations", "max_batch_len"):
                if hasattr(module, attribute):
                    delattr(module, attribute)


class _GuardedOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus ships no types
    """Opacus's optimiser with noise from `NoiseSource`, and a clip and a sum that neither NaN nor rounding can pass."""

    def __init__(
        self, optimizer: Optimizer, *, noise: NoiseSource, noise_multiplier: float, max_grad_norm: float, **rest: float
    ) -> None:
        super().__init__(optimizer, noise_multiplier=noise_multiplier, max_grad_norm=max_grad_norm, **rest)
        self._noise = noise
        self.left_out: Baseline | None = None
        self.unit = grid.fine(noise_multiplier * max_grad_norm)
        self._step = grid.coarse(noise_multiplier * max_grad_norm)

    def factors(self) -> Tensor:
        """Return what each row's gradient is multiplied with, float64 of shape `(B,)`: zero where it is no number.

        At the full shape of the batch, since how a kernel adds up a row may hang on how many there are.
        """
        for parameter in self.params:
            if not isinstance(parameter.grad_sample, Tensor):
                raise PrivacyError(
                    "a trainable parameter got no per-record gradient; it would be released without noise"
                )
        # Norms in float64: over ten million equal entries a float32 norm is a hundredth too small.
        norms_LB = [torch.linalg.vector_norm(p.grad_sample.flatten(1), dim=1, dtype=torch.float64) for p in self.params]
        norm_B = torch.linalg.vector_norm(torch.stack(norms_LB), dim=0)
        clip = math.inf if self.left_out == "no-noise-no-clip" else self.max_grad_norm * (1 - _SLACK)
        factor_B: Tensor = (clip / norm_B).clamp(max=1.0)
        return torch.where(norm_B.isfinite(), factor_B, 0.0)

    def clip_and_accumulate(self, records: int) -> None:
        """Clip the gradients of the first so many rows, cut them to the grid, and add them to the sum."""
        factor_R = self.factors()[:records]
        for parameter in self.params:
            part = _cut_sum(parameter.grad_sample[:records].flatten(1), factor_R, self.unit).view(parameter.shape)
            parameter.summed_grad = part if parameter.summed_grad is None else parameter.summed_grad + part

    def release(self) -> None:
        """Add noise to the sum, round to the grid, divide by the denominator, and let the inner optimiser step.

        Without noise nothing is rounded either: the grid is there for the noise.
        """
        if self.left_out is not None:
            for parameter in self.params:
                parameter.grad = parameter.summed_grad.to(parameter.dtype) / self.expected_batch_size
            self.original_optimizer.step()
            return
        sizes = [parameter.numel() for parameter in self.params]
        device = self.params[0].device
        noise_P = self._noise.gaussian(sum(sizes), self.noise_multiplier * self.max_grad_norm, device)
        for parameter, part in zip(self.params, torch.split(noise_P, sizes), strict=True):
            # Exact: both are multiples of the fine grid, and under 2^53 of its steps.
            noised = parameter.summed_grad + rounded(part, self.unit).view_as(parameter)
            # All that follows, float32 included, is of a value on the grid.
            parameter.grad = rounded(noised, self._step).to(parameter.dtype) / self.expected_batch_size
        self.original_optimizer.step()


def rounded(values: Tensor, step: float) -> Tensor:
    """Return float64 values at the nearest multiples of a power of two, ties to even."""
    return torch.round(values / step) * step


def padded(values_R: Tensor, size: int) -> Tensor:
    """Return a physical batch of so many rows: the records, then zeros."""
    filled_B = values_R.new_zeros((size, *values_R.shape[1:]))
    filled_B[: len(values_R)] = values_R
    return filled_B


def _cut_sum(grad_RP: Tensor, factor_R: Tensor, unit: float) -> Tensor:
    """Return the sum of rows times their factors, each cut towards zero to a multiple of `unit`; float64, `(P,)`."""
    # Dividing by a power of two is exact, so that one product is rounded, as if there were no grid.
    scale_R1 = (factor_R / unit)[:, None]
    # Zero times infinity is NaN, so entries of a dropped record are zeroed too.
    parts = [
        grad_RP[:, columns].double().mul_(scale_R1).nan_to_num_(0.0, 0.0, 0.0).trunc_().sum(dim=0)
        for columns in _columns(grad_RP)
    ]
    return torch.cat(parts).mul_(unit)


def _columns(grad_BP: Tensor) -> Iterator[slice]:
    """Cut the columns into blocks that stay in a cache once they are float64."""
    width = max(1, _BLOCK // max(1, len(grad_BP)))
    yield from (slice(start, start + width) for start in range(0, grad_BP.shape[1], width))


def _chunks(index_L: Tensor, size: int) -> Iterator[Tensor]:
    """Cut a lot into physical batches; an empty lot has none."""
    if len(index_L):
        yield from torch.split(index_L, size)
