"""The whole numbers nearest to Gaussians: by float64 where that is sure to be right, by integers where it is not.

Two words of 63 and 64 random bits are the first bits of a uniform U and of a uniform angle A, and so of two independent
Gaussians, ratio R cos A and ratio R sin A with R = sqrt(-2 ln U) (Box and Muller 1958). What float64 makes of the words
is within ratio 2^-46 of both, whatever the bits are that were not drawn. So where a value is farther than that from the
middle between two whole numbers, its nearest whole number is the Gaussian's. Else, about once in 2^13 pairs,
`fedmodel.privacy.exact_normals` decides, and draws more bits if it must.

Guarantee: if the words' bits are uniform, `nearest` returns what the nearest whole numbers to independent N(0, ratio^2)
are, exactly in distribution. It rests on the bound, hence on a logarithm, a sine and a cosine that are within two units
in the last place, and on IEEE 754 for all else; `check_device` measures them.

The bound, in units of u = 2^-53, for 2^-16 <= U <= 1 - 2^-16; all other pairs are decided by integers:

    U       drawn to 2^-63 and rounded, so that ln U moves by at most u + 2^-63 / U, and near U = 1 by half as much; R
            moves by that over R, at most 14 at U = 2^-16 and 91 at U = 1 - 2^-16, where R is over 2^-7.5
    R       4 of itself: 2 from a logarithm within two units in the last place, 1 from -2 ratio^2 and the product with
            it, 1 from the root. R is at most 4.71
    A       3 of itself: the word, pi 2^-63, their product; the bits not drawn are far less than that
    both    4 of the sine or cosine, 1 of the product: with R and A, 9 R times the one and 3 |A| R times the other. The
            sum is at most 12 R, which is 57 at U = 2^-16 and under 1 at U = 1 - 2^-16

Together under 92, and 2^-46 is 128 of them.

Shapes: W pairs of words, and so 2 W values.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from fedmodel.errors import PrivacyError
from fedmodel.privacy.exact_normals import nearest_pair

_BITS: Final = 63  # of a word, but for its sign
_APART: Final = 2.0**-46  # times the ratio: how far float64 is from the Gaussian, at most
_RARE: Final = 2.0**-16  # from 0 and from 1: where U is so near, it is left to integers
_NO_SIGN: Final = (1 << _BITS) - 1
_TRIED: Final = 256  # pairs at which a device is measured


def nearest(words_2W: Tensor, ratio: float) -> Tensor:
    """Return the whole numbers nearest to Gaussians of a standard deviation, float64 `(2, W)`.

    Args:
        words_2W: Uniform int64, on any device: radii, whose sign is cleared in place, and angles. Sensitive.
        ratio: The standard deviation in whole numbers' unit, under 2^31, as long as a middle is to be told from others.
    """
    values_2W, sure_W = _values(words_2W, ratio)
    steps_2W = values_2W.round()
    apart_2W = _are_under(values_2W.sub_(steps_2W).abs_(), 0.5 - ratio * _APART)
    xp, _ = _quickest(steps_2W)
    open_U = xp.argwhere(~(sure_W & apart_2W[0] & apart_2W[1]))[:, 0]
    if len(open_U):
        radii_U, angles_U = words_2W[:, open_U].tolist()
        decided = [nearest_pair(*words, _BITS, ratio) for words in zip(radii_U, angles_U, strict=True)]
        steps_2W[:, open_U] = torch.tensor(decided, dtype=torch.float64, device=steps_2W.device).T
    return steps_2W


@lru_cache
def check_device(device: torch.device) -> None:
    """Refuse a device on which float64 is farther from a Gaussian than three quarters of what is allowed for.

    Measured once a process, on public words beside integers. Functions within two units in the last place come to no
    more than 92 of 128 parts, so that a device is refused only if its functions are less exact.

    Raises:
        PrivacyError: How far it is, and where to compute instead.
    """
    words_2W, ratio, finer = _tried(), 2.0**30 * 1.7, 2.0**20
    values_2W, _ = _values(words_2W.to(device), ratio)
    pairs = zip(*words_2W.tolist(), values_2W.T.tolist(), strict=True)
    apart = max(
        abs(value * finer - exact)
        for radius, angle, values in pairs
        for value, exact in zip(values, nearest_pair(radius, angle, _BITS, ratio * finer), strict=True)
    )
    if not apart <= 0.75 * ratio * finer * _APART:
        raise PrivacyError(
            f"noise computed on {device} is {apart / (ratio * finer * _APART):.2g} times as far from a Gaussian as its"
            " rounding allows for: logarithm, sine or cosine is not exact to two units in the last place there; use"
            " another device, such as cpu; nothing was trained"
        )


def _tried() -> Tensor:
    """Return words of which the bound holds, `(2, W)`: radii near both ends, angles near the axes, and any others."""
    made_up = torch.Generator().manual_seed(0)
    share_W = torch.rand(_TRIED, generator=made_up, dtype=torch.float64) * (1 - 16 * _RARE) + 2 * _RARE
    share_W[::4] = _RARE * (1 + share_W[::4])
    share_W[1::4] = 1 - _RARE * (1 + share_W[1::4])
    turn_W = 2 * torch.rand(_TRIED, generator=made_up, dtype=torch.float64) - 1
    off_W = torch.logspace(-12, -1, _TRIED // 2, dtype=torch.float64)
    turn_W[::2] = (4 * turn_W[::2]).round() * 0.25 + turn_W[::2] * off_W
    words_2W = (torch.stack([share_W, turn_W.clamp(-0.999, 0.999)]) * 2.0**_BITS).long()
    return words_2W + torch.randint(0, 1 << 9, (2, _TRIED), generator=made_up)  # bits that float64 rounds away


def _values(words_2W: Tensor, ratio: float) -> tuple[Tensor, Any]:
    """Return what float64 makes of words, `(2, W)`, and of which pairs the bound holds, of the quickest kind."""
    share_W = words_2W[0].bitwise_and_(_NO_SIGN).double().mul_(2.0**-_BITS)
    sure_W = _are_under((share_W - 0.5).abs_(), 0.5 - _RARE)
    radius_W = share_W
    xp, numbers_W = _quickest(radius_W)
    with np.errstate(divide="ignore"):  # of U = 0, which integers decide
        xp.log(numbers_W, out=numbers_W)
    radius_W.mul_(-2.0 * ratio * ratio)
    xp.sqrt(numbers_W, out=numbers_W)
    values_2W = torch.empty(words_2W.shape, dtype=torch.float64, device=words_2W.device)
    cosine_W, sine_W = values_2W
    # Converted first: torch multiplies whole numbers by a fraction in float32.
    sine_W.copy_(words_2W[1]).mul_(math.pi * 2.0**-_BITS)
    cosine_W.copy_(sine_W).cos_()
    sine_W.sin_()
    return values_2W.mul_(radius_W), sure_W


def _are_under(values: Tensor, bound: float) -> Any:
    """Return which values are under a bound, of the quickest kind."""
    xp, numbers = _quickest(values)
    return xp.less(numbers, bound)


def _quickest(values: Tensor) -> tuple[Any, Any]:
    """Return numpy and the same memory on a processor, else torch and the tensor; both name what is used here alike.

    On a processor numpy takes a third of torch's time for a logarithm, half for a root, and a fifth to compare.
    """
    return (np, values.numpy()) if values.device.type == "cpu" else (torch, values)
