"""A clipped sum made a release: noise, the grid, the public denominator.

Guarantee: `release` is a function of S + Z, Z = N(0, std^2 I), rounded to the coarse grid (`fedmodel.privacy.grid`),
where S is the sum that is given, on the fine grid. Division, float32 and all that follows are of a value on that grid.
Noise of `OsNoise` is a true Gaussian's, rounded exactly.

Does NOT bound what one record does to S: `fedmodel.learning.gradients` does.

Shapes: P parameters, L parameter tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedmodel.privacy import grid
from fedmodel.privacy.noise import NoiseSource


def release(sums_L: list[Tensor], noise: NoiseSource, std: float, denominator: int) -> list[Tensor]:
    """Return a noised mean, float32, a tensor for each of the sum's.

    Args:
        sums_L: The clipped sum, float64 multiples of `grid.fine(std)`, at least one tensor, all on one device.
            Sensitive.
        noise: Where noise is drawn from: once, for all tensors in their order. What it returns is written over.
        std: Standard deviation of the noise on the sum: the noise multiplier times the clip.
        denominator: The public divisor, an expected and never a counted lot size.

    Raises:
        PrivacyError: When there is no noise for a grid to follow from.
    """
    fine, coarse = grid.fine(std), grid.coarse(std)
    sizes = [sum_.numel() for sum_ in sums_L]
    # All tensors in one, since calls cost more than numbers where a model is small; and in the noise's own memory.
    noised_P = round_(noise.gaussian(sum(sizes), std, sums_L[0].device), fine)
    # Exact: both are multiples of the fine grid, and under 2^53 of its steps.
    noised_P += torch.cat([sum_.reshape(-1) for sum_ in sums_L])
    mean_P = divided(round_(noised_P, coarse), denominator)
    return [part.view(sum_.shape) for part, sum_ in zip(mean_P.split_with_sizes(sizes), sums_L, strict=True)]


def divided(sum_: Tensor, denominator: int) -> Tensor:
    """Return a sum over the public denominator, float32."""
    return sum_.to(torch.float32) / denominator


def rounded(values: Tensor, step: float) -> Tensor:
    """Return float64 values at the nearest multiples of a power of two, ties to even, for a mechanism of one's own."""
    return round_(values.clone(), step)


def round_(values: Tensor, step: float) -> Tensor:
    """Round float64 values to the nearest multiples of a power of two, ties to even, in place; return them."""
    return values.mul_(1 / step).round_().mul_(step)  # to divide by a power of two is to multiply, and slower
