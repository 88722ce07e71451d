"""Scattering features of an image: a fixed cascade of wavelets and moduli, of which nothing was learnt.

Two scales and eight directions give 81 channels for each of an image's, a quarter as high and as wide: the image's own
local mean, those of 16 moduli |x * psi| and those of 64 moduli of moduli ||x * psi| * psi'|, from fine to coarse
(Bruna and Mallat 2013, section 2.2; Oyallon and Mallat 2015). Wavelets are Morlet's with the constants of Andreux et
al. 2020 (Kymatio), and an image is mirrored at its edges. Each three channels are then brought to mean 0 and variance 1
by what they are in this one image (group normalisation, Wu and He 2018). A linear model of these is what learns best of
small images at a small epsilon, and without training data beside (Tramer and Boneh 2021, sections 3 and 4).

Features can be decorrelated besides: what is common to pictures is taken off, and channels that go together in pictures
are told apart. Of made-up pictures (`fedmodel.data.dead_leaves`) m is the mean of each channel, and Sigma the
covariance of channels; features phi of an image become Sigma^(-1/4) (phi - m). That is half the way, in exponents, to
whitening by Sigma^(-1/2) (Kessy, Lewin and Strimmer 2018, of ZCA), which would lift what is mostly noise. A clip then
bounds less of what all records share, and a record moves a linear model where records differ.

Guarantee: features of an image are a function of that image alone, to the bit. So adding or removing a record changes
no other's, and nothing about records is in the wavelets, in m or in Sigma.

Shapes: N images, C channels of one, K planes, H height, W width, D directions, P places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.dead_leaves import dead_leaves
from fedmodel.kinds.scattering import CHANNELS, DIRECTIONS, STEP, scattered_shape

if TYPE_CHECKING:
    from torch import Tensor

_GROUP: Final = 3  # channels that are normalised together: 27 groups, as Tramer and Boneh have for these images
_LEAST_VARIANCE: Final = 1e-5  # a group that is blank stays blank
_MADE_UP, _SIDE = 500, 32  # pictures that m and Sigma are of, whatever size images have; and their size
_LEAST_SHARE: Final = 1e-4  # of the largest eigenvalue of Sigma: what is less in made-up pictures is taken as this
_SIGMA, _FREQUENCY, _SLANT = 0.8, 0.75 * math.pi, 4 / DIRECTIONS  # of the finest wavelet; each scale halves and doubles


def scattered(x_NCHW: NDArray[np.float32], *, decorrelated: bool = False) -> NDArray[np.float32]:
    """Return features, shape `(N, K, H / 4, W / 4)`: 81 C planes, and zeros up to a multiple of four. Sensitive.

    Args:
        x_NCHW: Images, of a height and width that `fedmodel.kinds.scattering` admits. Sensitive.
        decorrelated: Whether to take off what is common to pictures, and to tell apart what goes together.
    """
    import torch  # who joins a run does without it

    count, channels, height, width = x_NCHW.shape
    found_NCHW = np.zeros((count, *scattered_shape((channels, height, width))), dtype=np.float32)
    bank = _bank(height, width)
    with torch.no_grad():
        # One by one: how torch adds up may hang on how many are computed together, and on an image's place among them.
        for place, x_CHW in enumerate(x_NCHW):
            planes_CKHW = _cascade(torch.tensor(x_CHW), bank)
            features_KHW = _normalised(planes_CKHW.flatten(0, 1))
            if decorrelated:
                features_KHW = _apart(features_KHW)
            found_NCHW[place, : len(features_KHW)] = features_KHW
    return found_NCHW


@dataclass(frozen=True)
class _Bank:
    """Filters for images of one size, mirrored by a step at each edge.

    Attributes:
        fine_DHW: Fourier transforms of the wavelets of the finer scale, which are real.
        coarse_DHW: Those of the coarser.
        full: Local means: what is multiplied from the left and from the right.
        half: The same of planes of half the height and width.
    """

    fine_DHW: Tensor
    coarse_DHW: Tensor
    full: tuple[Tensor, Tensor]
    half: tuple[Tensor, Tensor]


@cache
def _bank(height: int, width: int) -> _Bank:
    """Return the filters for images of a size."""
    import torch

    def means(sigma: float, step: int) -> tuple[Tensor, Tensor]:
        rows, columns = (_means((side + 2 * STEP) * step // STEP, sigma, step) for side in (height, width))
        return torch.from_numpy(rows), torch.from_numpy(np.ascontiguousarray(columns.T))

    around = (height + 2 * STEP, width + 2 * STEP)
    return _Bank(_wavelets(*around, 1.0), _wavelets(*around, 2.0), means(2 * _SIGMA, STEP), means(_SIGMA, STEP // 2))


def _means(side: int, sigma: float, step: int) -> NDArray[np.float32]:
    """Return a matrix of Gaussian means at each so many places, but not at those that mirror an edge.

    A Gaussian window of two dimensions is the product of one over rows and one over columns.
    """
    centre, place = np.arange(step, side - step, step)[:, None], np.arange(side)[None, :]
    turns = np.arange(-2, 3)[:, None, None] * side
    window = np.exp(-((place - centre + turns) ** 2) / (2 * sigma**2)).sum(axis=0)
    made: NDArray[np.float32] = (window / (math.sqrt(2 * math.pi) * sigma)).astype(np.float32)
    return made


def _wavelets(height: int, width: int, scale: float) -> Tensor:
    """Return Morlet wavelets: a wave under a window, less as much of the window as makes their sum 0."""
    import torch

    sigma, frequency = _SIGMA * scale, _FREQUENCY / scale
    made = []
    for direction in range(DIRECTIONS):
        angle = math.pi * direction / DIRECTIONS
        waves = _gabor(height, width, sigma, angle, frequency)
        window = _gabor(height, width, sigma, angle, 0.0)
        made.append(_transformed(waves - waves.sum() / window.sum() * window))
    return torch.stack(made)


def _gabor(height: int, width: int, sigma: float, angle: float, frequency: float) -> NDArray[np.complex128]:
    """Return a wave under a Gaussian window, wider across the wave's direction than along it, wrapped around."""
    # Beyond two and a half turns of the grid a window of these sizes is below the rounding of float64.
    rows = np.arange(-2 * height, 3 * height)[:, None]
    columns = np.arange(-2 * width, 3 * width)[None, :]
    along = rows * math.cos(angle) + columns * math.sin(angle)
    across = columns * math.cos(angle) - rows * math.sin(angle)
    wave = np.exp(-(along**2 + (_SLANT * across) ** 2) / (2 * sigma**2) + 1j * frequency * along)
    wrapped: NDArray[np.complex128] = wave.reshape(5, height, 5, width).sum(axis=(0, 2))
    return wrapped * _SLANT / (2 * math.pi * sigma**2)


def _transformed(filter_HW: NDArray[np.complex128]) -> Tensor:
    """Return a filter's Fourier transform, which is real: it is at minus a place the conjugate of what it is there."""
    import torch

    return torch.from_numpy(np.fft.fft2(filter_HW).real.astype(np.float32))


def _cascade(x_CHW: Tensor, bank: _Bank) -> Tensor:
    """Return 81 planes of each channel, from no wavelet to two."""
    import torch
    from torch.nn.functional import pad

    mirrored = pad(x_CHW[:, None], (STEP,) * 4, mode="reflect")
    transform = torch.fft.fft2(mirrored)
    fine = torch.fft.ifft2(transform * bank.fine_DHW).abs()
    coarse = _every_second(transform, bank.coarse_DHW).abs()
    both = _every_second(torch.fft.fft2(fine)[:, :, None], bank.coarse_DHW).abs().flatten(1, 2)
    full = bank.full[0] @ torch.cat([mirrored, fine], dim=1) @ bank.full[1]
    half = bank.half[0] @ torch.cat([coarse, both], dim=1) @ bank.half[1]
    return torch.cat([full, half], dim=1)


def _every_second(transform: Tensor, filters_DHW: Tensor) -> Tensor:
    """Return every second value of what is filtered, in both directions.

    They are of the mean of the transform's parts that fall together on a grid of half the height and width.
    """
    import torch

    # As pairs of real numbers: a complex number times a real one is computed as one times a complex one.
    product = torch.view_as_real(transform) * filters_DHW[..., None]
    height, width = product.shape[-3:-1]
    parts = product.view(*product.shape[:-3], 2, height // 2, 2, width // 2, 2)
    rows = parts.select(-5, 0) + parts.select(-5, 1)
    folded = (rows.select(-3, 0) + rows.select(-3, 1)) / 4
    made: Tensor = torch.fft.ifft2(torch.view_as_complex(folded))
    return made


def _normalised(planes_KHW: Tensor) -> Tensor:
    """Return each group of an image's channels with mean 0 and variance 1."""
    from torch.nn.functional import group_norm

    return group_norm(planes_KHW[None], len(planes_KHW) // _GROUP, eps=_LEAST_VARIANCE)[0]


def _apart(features_KHW: Tensor) -> Tensor:
    """Return features of an image, those of each of its channels decorrelated as those of a grey picture are."""
    mean_K1, factor_KK = _common()
    features_CKP = features_KHW.view(-1, CHANNELS, features_KHW[0].numel())
    made: Tensor = (factor_KK @ (features_CKP - mean_K1)).view_as(features_KHW)
    return made


@cache
def _common() -> tuple[Tensor, Tensor]:
    """Return m and Sigma^(-1/4), of made-up pictures. The root is the symmetric one, of which there is one."""
    import torch

    found_NKHW = scattered(dead_leaves(_MADE_UP, _SIDE)[:, None])[:, :CHANNELS]
    features_KP = found_NKHW.swapaxes(0, 1).reshape(CHANNELS, -1).astype(np.float64)
    mean_K1 = features_KP.mean(axis=1, keepdims=True)
    value_K, vector_KK = np.linalg.eigh(np.cov(features_KP))
    scale_K = np.maximum(value_K, _LEAST_SHARE * value_K.max()) ** -0.25
    factor_KK = (vector_KK * scale_K) @ vector_KK.T
    return torch.from_numpy(mean_K1.astype(np.float32)), torch.from_numpy(factor_KK.astype(np.float32))
