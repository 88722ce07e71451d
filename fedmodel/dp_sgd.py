"""One step of DP-SGD: per-record gradients, a clip, a sum, noise, a public denominator.

After Abadi et al. 2016, algorithm 1.

Guarantee, for one call of `DpSgd.step` on a lot: the gradient handed to the optimiser is

    ( sum over records of clip(g_i, C)  +  N(0, (noise_multiplier * C)^2 I) ) / denominator

where adding or removing one record moves the sum by at most C in L2, provided the model treats records independently.
Sums are float64, so that they do not round differently with and without a record however large the lot. What is left is
that a record's own float32 gradient may differ in its last bits with its place in a physical batch: some 1e-7 of C for
each record, measured under 1e-4 of C in all for 200,000.

| Edge case                                   | What happens                                                        |
|---------------------------------------------|---------------------------------------------------------------------|
| the lot is empty                            | the sum is zero and noise is added all the same                      |
| a record's gradient is NaN or infinite      | that record contributes zero; no other record is touched             |
| the lot is larger than a physical batch     | clipped sums of the chunks add up; noise is added once               |
| an exception, or a stop, in mid-lot         | the pending sum is discarded before the next lot begins              |
| a trainable parameter gets no gradient      | `PrivacyError`: part of the model would be released without noise    |

Per-record gradients are Opacus's `GradSampleModule`, and the optimiser around them is its `DPOptimizer` with clip, sum
and noise of our own. Ghost and adaptive clipping are not used: in Opacus 1.6 ghost clipping bounds nothing for losses
of shape (B, 1), and adaptive ghost clipping does not clip at all.

Shapes: B batch, F features, P parameters, N records, L parameter tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from fedmodel.errors import PrivacyError
from fedmodel.models import LossSum
from fedmodel.noise import NoiseSource

# Opacus hooks the first layer, whose input needs no gradient; torch warns of that on every run, and it is as intended.
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)


class DpSgd:
    """DP-SGD over one model: the clipped sum of a lot, and a noised step on it.

    Args:
        module: The model; its trainable parameters are updated in place.
        loss: The loss, summed over records.
        optimizer: A torch optimiser over exactly the module's trainable parameters.
        noise_multiplier: Standard deviation of the noise over `max_grad_norm`.
        max_grad_norm: The clip C in L2.
        denominator: The public divisor, an expected and never a counted lot size.
        noise: Where noise is drawn from.
        max_physical_batch: Most records in memory as per-record gradients at once.

    Raises:
        PrivacyError: When Opacus cannot compute per-record gradients for the model.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: LossSum,
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
        self._loss = loss
        self._max_physical_batch = max_physical_batch
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

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are clipped, noised and updated."""
        parameters: list[nn.Parameter] = self._optimizer.params
        return parameters

    def step(self, x_NF: Tensor, y_N: Tensor, lot: NDArray[np.intp]) -> None:
        """Take one noised step on the lot.

        Args:
            x_NF: All the silo's features, on the model's device. Sensitive.
            y_N: All the silo's labels, likewise. Sensitive.
            lot: Indices of the records drawn. Sensitive, its length included.
        """
        self._accumulate(x_NF, y_N, lot)
        self._optimizer.release()
        self._discard()

    def clipped_sum(self, x_BF: Tensor, y_B: Tensor) -> Tensor:
        """Return the sum of clipped per-record gradients, shape `(P,)`, WITHOUT noise.

        Sensitive: for measuring sensitivity on made-up records, never for release.
        """
        self._accumulate(x_BF, y_B, np.arange(len(y_B)))
        sum_P = torch.cat([p.summed_grad.reshape(-1) for p in self.parameters])  # type: ignore[attr-defined]
        self._discard()
        return sum_P

    def _accumulate(self, x_NF: Tensor, y_N: Tensor, lot: NDArray[np.intp]) -> None:
        """Leave the lot's clipped sum in each parameter's `summed_grad`, nothing older in it."""
        self._discard()
        for chunk in _chunks(torch.from_numpy(lot).to(y_N.device), self._max_physical_batch):
            torch.autograd.backward(self._loss(self._per_record(x_NF[chunk]), y_N[chunk]))
            self._optimizer.clip_and_accumulate()
            for parameter in self.parameters:
                parameter.grad_sample = None  # type: ignore[attr-defined]
                parameter.grad = None
        if len(lot) == 0:
            for parameter in self.parameters:
                parameter.summed_grad = torch.zeros_like(parameter, dtype=torch.float64)  # type: ignore[attr-defined]

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
    """Opacus's optimiser with noise from `NoiseSource`, and a clip that NaN cannot pass."""

    def __init__(self, optimizer: Optimizer, *, noise: NoiseSource, **rest: float) -> None:
        super().__init__(optimizer, **rest)
        self._noise = noise

    def clip_and_accumulate(self) -> None:
        """Clip per-record gradients and add them to the sum in float64, those with a NaN or infinity as zero."""
        for parameter in self.params:
            if not isinstance(parameter.grad_sample, Tensor):
                raise PrivacyError(
                    "a trainable parameter got no per-record gradient; it would be released without noise"
                )
        # Norms in float64: over ten million equal entries a float32 norm is a hundredth too small.
        norms_LB = [torch.linalg.vector_norm(p.grad_sample.flatten(1), dim=1, dtype=torch.float64) for p in self.params]
        norm_B = torch.linalg.vector_norm(torch.stack(norms_LB), dim=0)
        # An infinite norm makes a factor of zero; one that is NaN is made zero here.
        factor_B = (self.max_grad_norm / (norm_B + 1e-12)).clamp(max=1.0).nan_to_num(0.0)
        for parameter in self.params:
            # Zero times infinity is NaN, so a dropped record's entries are zeroed too.
            grad_BP = parameter.grad_sample.flatten(1).double().nan_to_num(0.0, 0.0, 0.0)
            part = (factor_B @ grad_BP).view(parameter.shape)
            parameter.summed_grad = part if parameter.summed_grad is None else parameter.summed_grad + part

    def release(self) -> None:
        """Add noise to the sum, divide by the public denominator, and let the inner optimiser step."""
        sizes = [parameter.numel() for parameter in self.params]
        device = self.params[0].device
        noise_P = self._noise.gaussian(sum(sizes), self.noise_multiplier * self.max_grad_norm, device)
        for parameter, part in zip(self.params, torch.split(noise_P, sizes), strict=True):
            noised = parameter.summed_grad + part.view_as(parameter)
            # Rounding to float32 comes after the noise: see fedmodel.noise on floating-point attacks.
            parameter.grad = noised.to(parameter.dtype) / self.expected_batch_size
        self.original_optimizer.step()


def _chunks(index_L: Tensor, size: int) -> Iterator[Tensor]:
    """Cut a lot into physical batches; an empty lot has none."""
    if len(index_L):
        yield from torch.split(index_L, size)
