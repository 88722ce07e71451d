"""The only place where privacy's randomness comes from: lots, dropout masks, how copies differ, noise on a sum.

All are secrets. Whoever can predict the noise subtracts it; whoever knows the lot voids amplification by sampling;
whoever knows the masks, or how copies of records differ, can tell from them how many records came before.

`OsNoise` makes every draw from a keystream of its own: ChaCha20 under 32 bytes that the operating system's CSPRNG gave
for that draw, and that are forgotten after it. No key is kept between draws. Neither is anything else, so that nothing
is there to be repeated by a process that was forked, to be pickled or to be logged; unless whoever made the source said
for how many sums there will be noise. Then noise of several small sums is one draw, and what is not yet handed out is
kept for the sums that follow: it hangs on no record. Each value is handed out once and wiped here as it is; a process
that was forked, and a copy, draw their own. Noise is what nearest multiples of the fine grid are to
true Gaussians, exactly (`fedmodel.privacy.normals`): with uniform bits nothing is lacking, at any number of parameters
and steps, and no bit of a value tells how it was made. That the keystream's bits pass for uniform is a computational
assumption, on ChaCha20 and on the operating system, and is all that stands between.

`SeededNoise` repeats itself. It exists so that two runs can be compared bit by bit, is marked "seeded-unsafe" wherever
it is used, and protects nobody who shares the seed.

`ExperimentNoise` is from a seed too, and is there to be fast: for experiments on data that need no protection. It is
marked "experiment" wherever it is used, and protects nobody either.

Does NOT defend against timing of the sampler, nor against someone who reads this process's memory.

Shapes: P parameters, N records, W pairs of words, from each of which come two values of noise.
"""

from __future__ import annotations

import math
import os
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from fedmodel.crypto import KEY_SIZE, SecretStream
from fedmodel.errors import PrivacyError
from fedmodel.privacy import grid
from fedmodel.privacy.events import EXPERIMENT, NoiseSourceName
from fedmodel.privacy.normals import check_device, nearest
from fedmodel.seeds import derive_seed

_PAIRS: Final = 1 << 14  # at once, so that words and all that is made of them stay in a core's second-level cache
_PAIRS_ON_A_CARD: Final = 1 << 21  # whose cost is a kernel's start
_MOST_AHEAD: Final = 2 * _PAIRS  # values that are drawn at once for several sums


class NoiseSource(Protocol):
    """Where lots and noise are drawn from; `name` is what the ledger records."""

    name: NoiseSourceName

    def lot(self, records: int, sample_rate: float) -> NDArray[np.intp]:
        """Return the indices of a Poisson lot: each record independently with probability `sample_rate`."""
        ...

    def gaussian(self, size: int, std: float, device: torch.device) -> Tensor:
        """Return float64 noise N(0, std^2) of shape `(size,)` on the device, in memory of the caller's own."""
        ...

    def keep(self, size: int, rate: float, device: torch.device) -> Tensor:
        """Return `size` booleans, each true independently with probability `rate` (to 2^-32): a dropout mask."""
        ...

    def uniform(self, size: int, device: torch.device) -> Tensor:
        """Return float64 of shape `(size,)`, each independently uniform on [0, 1): how copies of records differ."""
        ...


class OsNoise:
    """Lots and noise from the operating system's CSPRNG, drawn out by a keystream.

    Guarantee, for uniform bits: a record enters a lot with probability floor(q * 2^64) / 2^64, never above q; noise is
    distributed as true Gaussians rounded to the fine grid; draws are independent of one another and of anything an
    adversary sees. An adversary of bounded means cannot tell the bits from uniform ones (`fedmodel.crypto`).

    Args:
        sums: For how many sums of one size and standard deviation noise will be asked for, as for the steps of a round.
            Noise of several of them is then drawn at once, of no more than that many, and of few values.
    """

    name: NoiseSourceName = "os"
    _ahead: _Ahead | None = None

    def __init__(self, sums: int = 1) -> None:
        if sums > 1:
            self._ahead = _Ahead(sums)

    def lot(self, records: int, sample_rate: float) -> NDArray[np.intp]:
        """Return the indices of a Poisson lot, ascending, shape `(L,)` with 0 <= L <= records."""
        if sample_rate >= 1:
            return np.arange(records, dtype=np.intp)
        return np.flatnonzero(_drawn(records, np.uint64) < np.uint64(int(math.ldexp(sample_rate, 64))))

    def gaussian(self, size: int, std: float, device: torch.device) -> Tensor:
        """Return the multiples of `grid.fine(std)` nearest to noise N(0, std^2), float64 of shape `(size,)`.

        The bits come from the host, and all else happens on the device.

        Raises:
            PrivacyError: When there is no grid for such noise, or the device's functions are not exact enough for it.
        """
        return _gaussian(size, std, device) if self._ahead is None else self._ahead.next(size, std, device)

    def keep(self, size: int, rate: float, device: torch.device) -> Tensor:
        """Return a mask of shape `(size,)` from as many words of 32 bits."""
        return torch.from_numpy(_drawn(size, np.uint32) < rate * 2.0**32).to(device)

    def uniform(self, size: int, device: torch.device) -> Tensor:
        """Return 53 bits for each, over 2^53."""
        return torch.from_numpy((_drawn(size, np.uint64) >> np.uint64(11)) * 2.0**-53).to(device)


class _Ahead:
    """Noise of several sums, of which each is handed out once. Sensitive.

    Args:
        sums: How many there will be; noise of more is never drawn.
    """

    def __init__(self, sums: int) -> None:
        self._sums = sums
        self._of: tuple[int, float, torch.device, int] | None = None
        self._noise: list[Tensor] = []

    def __reduce__(self) -> tuple[type[_Ahead], tuple[int]]:
        """Copy and pickle how many sums there will be, and none of their noise."""
        return _Ahead, (self._sums,)

    def next(self, size: int, std: float, device: torch.device) -> Tensor:
        """Return the noise of the next sum, as `OsNoise.gaussian` has it."""
        of = size, std, device, os.getpid()  # since a process that was forked has what was kept before
        if self._of not in (None, of):
            self._sums = 1  # other sums than were told of
        if self._of != of or not self._noise:
            count = max(1, min(self._sums, _MOST_AHEAD // max(1, size)))
            self._of, self._noise = of, [*_gaussian(count * size, std, device).view(count, size)]
        self._sums = max(1, self._sums - 1)
        kept_P = self._noise.pop()
        noise_P = kept_P.clone()
        kept_P.zero_()
        return noise_P


def _gaussian(size: int, std: float, device: torch.device) -> Tensor:
    """Return noise from one keystream, as `OsNoise.gaussian` has it."""
    check_device(device)
    fine, noise_P = grid.fine(std), torch.empty(size, dtype=torch.float64, device=device)
    pairs = min(_PAIRS if device.type == "cpu" else _PAIRS_ON_A_CARD, -(-size // 2))
    stream, words_2W = SecretStream(os.urandom(KEY_SIZE)), np.empty((2, pairs), dtype=np.int64)
    for part_P in torch.split(noise_P, 2 * pairs) if size else ():
        stream.fill(_bytes(words_2W))
        # The ratio is exact, since a grid's step is a power of two; so is the product.
        steps_2W = nearest(torch.from_numpy(words_2W).to(device), std / fine)
        torch.mul(steps_2W.view(-1)[: len(part_P)], fine, out=part_P)
    return noise_P


def _drawn(size: int, kind: DTypeLike) -> NDArray[np.unsignedinteger]:
    """Return uniform words of shape `(size,)`, under a key of their own."""
    words = np.empty(size, dtype=kind)
    SecretStream(os.urandom(KEY_SIZE)).fill(_bytes(words))
    return words


def _bytes(words: NDArray[np.integer]) -> memoryview:
    """Return the memory of an array."""
    return words.reshape(-1).view(np.uint8).data


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


class ExperimentNoise:
    """Lots and noise for experiments, from a seed. UNSAFE: whoever knows the seed can subtract all of it.

    Guarantee, statistical alone: lots are Poisson at the rate asked for, noise is Gaussian to float32's 24 bits, and
    draws are independent as torch's and numpy's generators are. No value is over 6 standard deviations, where one of
    five hundred million would be. It repeats itself on one kind of device, and on another is other noise.

    Args:
        seed: Of all that is drawn.
    """

    name: NoiseSourceName = EXPERIMENT

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._lots = np.random.Generator(np.random.SFC64(derive_seed(seed, "lots")))
        self._on: dict[torch.device, torch.Generator] = {}

    def lot(self, records: int, sample_rate: float) -> NDArray[np.intp]:
        """Return the indices of a Poisson lot, ascending."""
        return np.flatnonzero(self._lots.random(records) < sample_rate)

    def gaussian(self, size: int, std: float, device: torch.device) -> Tensor:
        """Return float64 noise of shape `(size,)`, drawn in float32 on the device."""
        drawn = torch.empty(size, dtype=torch.float32, device=device).normal_(generator=self._generator(device))
        return drawn.to(torch.float64).mul_(std)

    def keep(self, size: int, rate: float, device: torch.device) -> Tensor:
        """Return a mask of shape `(size,)`."""
        return self.uniform(size, device) < rate

    def uniform(self, size: int, device: torch.device) -> Tensor:
        """Return float64 of shape `(size,)`."""
        return torch.rand(size, dtype=torch.float64, device=device, generator=self._generator(device))

    def _generator(self, device: torch.device) -> torch.Generator:
        """Return what draws on a device, which begins there from the seed."""
        if device not in self._on:
            self._on[device] = torch.Generator(device).manual_seed(derive_seed(self._seed, "noise"))
        return self._on[device]


def source_of(name: NoiseSourceName, seed: int, *whose: str | int, sums: int = 1) -> NoiseSource:
    """Return where one silo's lots and noise of one round come from, as an event names it.

    Args:
        name: What was charged.
        seed: The scenario's, of which the operating system's noise takes no notice.
        whose: The silo and the round, so that no two have the same.
        sums: For how many sums of one size there will be noise.
    """
    match name:
        case "os":
            return OsNoise(sums)
        case "seeded-unsafe":
            return SeededNoise(derive_seed(seed, "unsafe-noise", *whose))
        case "experiment":
            return ExperimentNoise(derive_seed(seed, "experiment-noise", *whose))
    raise PrivacyError(f"noise would come from {name!r}, of which this version knows nothing; nothing was drawn")
