"""The only place where privacy's randomness comes from: lots, dropout masks, how copies differ, noise on a sum.

All are secrets. Whoever can predict the noise subtracts it; whoever knows the lot voids amplification by sampling;
whoever knows the masks, or how copies of records differ, can tell from them how many records came before.

`OsNoise` draws every bit from the operating system's CSPRNG. Gaussians are Box-Muller in float64 on 53-bit uniforms,
and each value is half the sum of four, so that recovering the uniforms behind a value by enumeration is infeasible
(Holohan and Braghin 2021, section 5.1, n = 2). A radius that is large, where 53 bits are coarse, is drawn with 53 more,
so that tails go on to 12 standard deviations of each of the four. What leaves is none of these bits:
`fedmodel.privacy.release` rounds the noised sum to an absolute grid, and `fedmodel.privacy.grid` says, as a number, how
far that is from a true Gaussian.

`SeededNoise` repeats itself. It exists so that two runs can be compared bit by bit, is marked "seeded-unsafe" wherever
it is used, and protects nobody who shares the seed.

Does NOT defend against timing of the sampler, nor against someone who reads this process's memory.

Shapes: P parameters, N records.
"""

from __future__ import annotations

import math
import os
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmodel.privacy.events import NoiseSourceName
from fedmodel.seeds import derive_seed

_SUMMANDS = 4  # 2n of Holohan and Braghin with n = 2; half the sum of four unit normals is a unit normal
_COARSE_BELOW = 1 << 40  # of 2^53: a uniform under 2^-13, whose last bit moves a radius too far, gets 53 bits more


class NoiseSource(Protocol):
    """Where lots and noise are drawn from; `name` is what the ledger records."""

    name: NoiseSourceName

    def lot(self, records: int, sample_rate: float) -> NDArray[np.intp]:
        """Return the indices of a Poisson lot: each record independently with probability `sample_rate`."""
        ...

    def gaussian(self, size: int, std: float, device: torch.device) -> Tensor:
        """Return float64 noise N(0, std^2) of shape `(size,)` on the device."""
        ...

    def keep(self, size: int, rate: float, device: torch.device) -> Tensor:
        """Return `size` booleans, each true independently with probability `rate` (to 2^-32): a dropout mask."""
        ...

    def uniform(self, size: int, device: torch.device) -> Tensor:
        """Return float64 of shape `(size,)`, each independently uniform on [0, 1): how copies of records differ."""
        ...


class OsNoise:
    """Lots and noise from the operating system's CSPRNG.

    Guarantee: a record enters a lot with probability floor(q * 2^64) / 2^64, never above q; draws are independent of
    one another and of anything an adversary sees.
    """

    name: NoiseSourceName = "os"

    def lot(self, records: int, sample_rate: float) -> NDArray[np.intp]:
        """Return the indices of a Poisson lot, ascending, shape `(L,)` with 0 <= L <= records."""
        if sample_rate >= 1:
            return np.arange(records, dtype=np.intp)
        drawn_N = np.frombuffer(os.urandom(8 * records), dtype=np.uint64)
        return np.flatnonzero(drawn_N < np.uint64(int(math.ldexp(sample_rate, 64))))

    def gaussian(self, size: int, std: float, device: torch.device) -> Tensor:
        """Return float64 noise of shape `(size,)`; bits come from the host, the transform runs on the device."""
        pairs = _SUMMANDS * size // 2
        uniform = _words(2 * pairs, device).view(2, pairs)
        # (k + 1) / 2^53 lies in (0, 1], so the logarithm is finite.
        share = (uniform[0] + 1).double() * 2.0**-53
        small = torch.nonzero(uniform[0] < _COARSE_BELOW)[:, 0]
        if len(small):
            more = (_words(len(small), device) + 1).double() * 2.0**-53
            share[small] = (uniform[0][small].double() + more) * 2.0**-53
        radius = torch.sqrt(-2.0 * torch.log(share))
        angle = uniform[1].double() * (2.0**-53 * 2.0 * math.pi)
        normals = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)])
        return normals.view(_SUMMANDS, size).sum(dim=0) * (std / 2.0)

    def keep(self, size: int, rate: float, device: torch.device) -> Tensor:
        """Return a mask of shape `(size,)` from as many words of the operating system."""
        drawn = np.frombuffer(os.urandom(4 * size), dtype=np.uint32)
        return torch.from_numpy(drawn < rate * 2.0**32).to(device)

    def uniform(self, size: int, device: torch.device) -> Tensor:
        """Return 53 bits of the operating system for each, over 2^53."""
        return _words(size, device).double() * 2.0**-53


def _words(size: int, device: torch.device) -> Tensor:
    """Return int64 of shape `(size,)`, uniform on [0, 2^53), from the operating system."""
    bits = np.frombuffer(bytearray(os.urandom(8 * size)), dtype=np.int64)
    # Arithmetic shift of a signed word, then the low 53 bits.
    return (torch.from_numpy(bits).to(device) >> 11) & ((1 << 53) - 1)


class SeededNoise:
    """Repeatable lots and noise. UNSAFE: whoever knows the seed can subtract all of it."""

    name: NoiseSourceName = "seeded-unsafe"

    def __init__(self, seed: int) -> None:
        self._masks = np.random.default_rng(derive_seed(seed, "masks"))
        self._lots = np.random.default_rng(derive_seed(seed, "lots"))
        self._noise = np.random.default_rng(derive_seed(seed, "noise"))
        self._copies = np.random.default_rng(derive_seed(seed, "copies"))

    def lot(self, records: int, sample_rate: float) -> NDArray[np.intp]:
        """Return the indices of a Poisson lot, ascending."""
        return np.flatnonzero(self._lots.random(records) < sample_rate)

    def gaussian(self, size: int, std: float, device: torch.device) -> Tensor:
        """Return float64 noise of shape `(size,)`, the same on every device."""
        return torch.from_numpy(self._noise.normal(0.0, std, size)).to(device)

    def keep(self, size: int, rate: float, device: torch.device) -> Tensor:
        """Return a mask of shape `(size,)`, the same on every device."""
        return torch.from_numpy(self._masks.random(size) < rate).to(device)

    def uniform(self, size: int, device: torch.device) -> Tensor:
        """Return float64 of shape `(size,)`, the same on every device."""
        return torch.from_numpy(self._copies.random(size)).to(device)
