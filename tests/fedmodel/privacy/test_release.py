"""What leaves is a function of the sum with a true Gaussian, rounded: attacks on floating point find nothing in it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedmodel.privacy import grid, normals
from fedmodel.privacy.noise import OsNoise
from fedmodel.privacy.release import release

STD, CLIP = 1.3, 1.0
FINE, COARSE = grid.fine(STD), grid.coarse(STD)
Made = Callable[[NDArray[np.int64], float], NDArray[np.float64]]

pytestmark = pytest.mark.usefixtures("same_bytes")


class Given(OsNoise):
    """Noise from words that an attacker tried."""

    def __init__(self, words_2W: NDArray[np.int64]) -> None:
        self.words_2W = words_2W

    def gaussian(self, size: int, std: float, device: torch.device) -> torch.Tensor:
        steps = normals.nearest(torch.from_numpy(self.words_2W.copy()), std / grid.fine(std))
        return (steps * grid.fine(std)).view(-1)


def textbook(words_2W: NDArray[np.int64], sum_: float) -> NDArray[np.float64]:
    """Return pairs that Box and Muller's method makes in float64 of 53 bits each, added to a sum, every bit of them."""
    radius_W = np.sqrt(-2 * np.log((words_2W[0] >> 10) * 2.0**-53))
    angle_W = (words_2W[1] >> 10) * (math.pi * 2.0**-53)
    return sum_ + STD * radius_W * np.stack([np.cos(angle_W), np.sin(angle_W)])


def released(words_2W: NDArray[np.int64], sum_: float) -> NDArray[np.float64]:
    """Return what this project releases of a sum, noised by those words."""
    sums = [torch.full((words_2W.shape[1],), sum_, dtype=torch.float64)] * 2
    return torch.stack(release(sums, Given(words_2W), STD, 1)).double().numpy()


def excluded(made: Made, seen_2W: NDArray[np.float64], sum_: float) -> float:
    """Return the share of released pairs that a sum cannot have led to, as far as an attacker finds.

    He takes the sum off, and looks among the words around those that lead to what is left, for such as lead to all of
    what he saw, bit by bit: Holohan and Braghin 2021, section 3; Mironov 2012.
    """
    x, y = (seen_2W - sum_) / STD
    share, turn = np.exp(-(x * x + y * y) / 2), np.arctan2(y, x) / math.pi
    around = np.stack(np.meshgrid(np.arange(-12, 13), np.arange(-12, 13))).reshape(2, -1)
    possible = np.zeros(seen_2W.shape[1], dtype=bool)
    middle = np.stack([(share * 2.0**53).astype(np.int64), (turn * 2.0**53).astype(np.int64)])
    for step in around.T:
        words_2W = (middle + step[:, None]) << 10
        possible |= (made(words_2W, sum_) == seen_2W).all(axis=0)
    return 1 - float(possible.mean())


def true_words(pairs: int) -> NDArray[np.int64]:
    """Return words that no attacker knows, of radii that are no extremes, of which he would find the words again."""
    rng = np.random.default_rng(1)
    radius, angle = rng.integers(2**51, 2**53 - 2**50, pairs), rng.integers(-(2**53) + 1, 2**53 - 1, pairs)
    return np.stack([radius, angle]) << 10


@pytest.mark.parametrize("sum_", [0.0, FINE * 12_345, CLIP])
def test_the_float_attack_rules_a_neighbour_out_of_textbook_noise_and_of_no_release(sum_: float) -> None:
    """The sum that was is always possible, which shows that the attack is sound; in a release every other is too."""
    words = true_words(60)
    others = [other for other in (0.0, FINE * 12_345, CLIP) if other != sum_]
    seen = textbook(words, sum_)
    assert excluded(textbook, seen, sum_) == 0
    assert all(excluded(textbook, seen, other) > 0.2 for other in others)
    seen = released(words, sum_)
    assert len(np.unique(seen)) > 100
    assert [excluded(released, seen, other) for other in (sum_, *others)] == [0, 0, 0]


def test_a_release_is_a_sum_with_its_noise_rounded_to_the_coarse_grid() -> None:
    """Not to the fine grid and then astray: beside exact arithmetic, on sums that are whole fine steps."""
    rng = np.random.default_rng(2)
    words = rng.integers(-(2**63), 2**63 - 1, (2, 300), dtype=np.int64)
    sums_L = [torch.from_numpy(np.trunc(rng.uniform(-4, 4, 300) / FINE) * FINE) for _ in range(2)]
    found_L = release(sums_L, Given(words), STD, 1)
    noise_L = Given(words).gaussian(600, STD, torch.device("cpu")).view(2, 300)
    for found, sum_, noise in zip(found_L, sums_L, noise_L, strict=True):
        steps = [round(a) + round(b) for a, b in zip((sum_ / FINE).tolist(), (noise / FINE).tolist(), strict=True)]
        coarse = [round(step / 2**14) for step in steps]  # exact, ties to even
        assert (found.double() / COARSE).tolist() == coarse


def test_noise_is_drawn_once_for_all_tensors() -> None:
    """And no tensor has another's."""
    asked: list[int] = []

    class Counting(OsNoise):
        def gaussian(self, size: int, std: float, device: torch.device) -> torch.Tensor:
            asked.append(size)
            return super().gaussian(size, std, device)

    shapes = [(3, 5), (15,), (1,), (5, 3)]
    means_L = release([torch.zeros(shape, dtype=torch.float64) for shape in shapes], Counting(), STD, 1)
    assert asked == [46]
    assert [mean.shape for mean in means_L] == [torch.Size(shape) for shape in shapes]
    assert len(torch.unique(torch.cat([mean.flatten() for mean in means_L]))) == 46
