"""Scattering features are what their definition says, of each image by itself, and contract distances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedmodel.data.dead_leaves import dead_leaves
from fedmodel.data.scattering import scattered
from fedmodel.kinds.scattering import CHANNELS, scattered_shape

RNG = np.random.default_rng(2)
IMAGES = RNG.uniform(-1, 1, (70, 1, 12, 8)).astype(np.float32)


@pytest.mark.parametrize("decorrelated", [False, True])
def test_an_images_features_are_its_own_to_the_bit_whatever_stands_beside_it(decorrelated: bool) -> None:
    found = scattered(IMAGES, decorrelated=decorrelated)
    assert found.shape == (70, *scattered_shape((1, 12, 8)))
    others = np.concatenate([IMAGES[:1], 9 * IMAGES[30:33], IMAGES[5:6]])
    beside = scattered(others, decorrelated=decorrelated)
    assert np.array_equal(beside[0], found[0])
    assert np.array_equal(beside[4], found[5])
    assert np.array_equal(scattered(IMAGES[64:65], decorrelated=decorrelated)[0], found[64])


def test_of_made_up_pictures_decorrelated_features_have_mean_0_and_the_root_of_their_covariance() -> None:
    """Sigma^(-1/4) on both sides of Sigma leaves its root; frozen, since whoever uses a model needs the same."""
    pictures = dead_leaves(500, 32)[:, None]
    plain_KP, apart_KP = (
        scattered(pictures, decorrelated=whether)[:, :CHANNELS].swapaxes(0, 1).reshape(CHANNELS, -1).astype(np.float64)
        for whether in (False, True)
    )
    assert np.abs(apart_KP.mean(axis=1)).max() < 1e-4
    sigma, root = np.cov(plain_KP), np.cov(apart_KP)
    value_K, vector_KK = np.linalg.eigh(sigma)
    # Along eigenvectors that are less than the floor the root is not reached.
    whole = vector_KK[:, value_K > 1e-4 * value_K.max()]
    assert whole.shape[1] > 60
    assert whole.T @ root @ root @ whole == pytest.approx(whole.T @ sigma @ whole, abs=1e-3)
    assert np.trace(sigma) == pytest.approx(46.737357, rel=1e-4)
    assert np.trace(root) == pytest.approx(37.462910, rel=1e-4)


def test_three_channels_together_have_mean_0_and_variance_1_in_each_image() -> None:
    groups = scattered(IMAGES)[:, :CHANNELS].reshape(70, CHANNELS // 3, -1)
    assert np.abs(groups.mean(axis=2)).max() < 1e-5
    assert np.all(groups.var(axis=2) < 1.0001)
    # But for what keeps a blank group blank, which planes that are of low contrast come near.
    assert groups[:, 0].var(axis=1).min() > 0.99
    blank = scattered(np.full((1, 1, 8, 8), 0.3, np.float32))
    assert np.abs(blank[0, 3:]).max() < 0.01


@pytest.mark.parametrize("decorrelated", [False, True])
def test_a_colour_is_scattered_as_a_grey_image_of_it_is(decorrelated: bool) -> None:
    three = np.random.default_rng(3).uniform(-1, 1, (2, 3, 8, 8)).astype(np.float32)
    found = scattered(three, decorrelated=decorrelated)
    for place in range(3):
        alone = scattered(three[:, place : place + 1], decorrelated=decorrelated)
        assert np.allclose(found[:, CHANNELS * place : CHANNELS * (place + 1)], alone[:, :CHANNELS], atol=1e-4)


def filtered(
    x_HW: NDArray[np.float64], sigma: float, frequency: float, angle: float, slant: float
) -> NDArray[np.complex128]:
    """Return an image filtered by a Morlet wavelet, or by a window where there is no frequency, sum by sum."""
    reach = range(-14, 15)  # of the filter: past that, under 1e-4 of its height
    rows, columns = np.meshgrid(reach, reach, indexing="ij")
    along = rows * math.cos(angle) + columns * math.sin(angle)
    across = columns * math.cos(angle) - rows * math.sin(angle)
    window = np.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2)) * slant / (2 * math.pi * sigma**2)
    wave = window * np.exp(1j * frequency * along)
    taps = wave - wave.sum() / window.sum() * window if frequency else window
    return np.array(sum(tap * np.roll(x_HW, (row, column), (0, 1))
                        for tap, row, column in zip(taps.flat, rows.flat, columns.flat, strict=True)))  # fmt: skip


def test_channels_are_local_means_of_moduli_by_the_definition() -> None:
    """Bruna and Mallat 2013, section 2.2, summed up tap by tap on the mirrored image: one channel of each order."""
    x_HW = RNG.uniform(-1, 1, (8, 8))
    mirrored = np.pad(x_HW, 4, mode="reflect")
    one, two = 0.8, 1.6
    first = np.abs(filtered(mirrored, one, 0.75 * math.pi, math.pi * 3 / 8, 0.5))
    coarse = np.abs(filtered(mirrored, two, 0.375 * math.pi, math.pi * 6 / 8, 0.5))[::2, ::2]
    both = np.abs(filtered(first, two, 0.375 * math.pi, math.pi * 2 / 8, 0.5))[::2, ::2]

    def mean(plane: NDArray[np.float64], sigma: float, step: int) -> NDArray[np.float64]:
        kept: NDArray[np.float64] = filtered(plane, sigma, 0.0, 0.0, 1.0).real[::step, ::step]
        return kept[1:-1, 1:-1]

    channels = {0: mean(mirrored, two, 4), 1 + 3: mean(first, two, 4), 9 + 6: mean(coarse, one, 2),
                17 + 8 * 3 + 2: mean(both, one, 2)}  # fmt: skip
    found = _unnormalised(x_HW)
    for place, right in channels.items():
        assert found[place] == pytest.approx(right, abs=2e-4), place


def _unnormalised(x_HW: NDArray[np.float64]) -> NDArray[np.float32]:
    from fedmodel.data import scattering

    planes = scattering._cascade(torch.from_numpy(x_HW[None].astype(np.float32)), scattering._bank(8, 8))
    made: NDArray[np.float32] = planes[0].numpy()
    return made


def test_images_are_no_farther_apart_by_features_than_by_pixels() -> None:
    """Mirrored, as they are filtered; a scattering transform contracts (Mallat 2012, proposition 2.5)."""
    for one, other in zip(IMAGES[:10, 0, :8], IMAGES[10:20, 0, :8], strict=True):
        features = _unnormalised(one.astype(np.float64)) - _unnormalised(other.astype(np.float64))
        pixels = np.pad(one - other, 4, mode="reflect")
        assert 16 * (features**2).sum() < (pixels**2).sum()  # a feature stands for 16 pixels


def test_decorrelated_features_of_images_are_less_of_what_all_have() -> None:
    """The squared mean of unit rows: what a clip bounds in vain, as it is of every record."""

    def shared(x_NF: NDArray[np.float32]) -> float:
        rows_NF = x_NF.reshape(len(x_NF), -1)
        mean_F = (rows_NF / np.linalg.norm(rows_NF, axis=1, keepdims=True)).mean(axis=0)
        return float((mean_F**2).sum())

    assert shared(scattered(IMAGES, decorrelated=True)) < 0.8 * shared(scattered(IMAGES))


@pytest.mark.parametrize("size", [(1, 28, 28), (3, 28, 28), (3, 12, 20), (1, 8, 8)])
def test_features_are_so_many_that_rows_of_a_batch_begin_alike(size: tuple[int, int, int]) -> None:
    """Else a linear layer of them rounds rows by their place, and a physical batch has one record."""
    shape = scattered_shape(size)
    assert math.prod(shape) % 4 == 0
    x_NF = scattered(RNG.uniform(-1, 1, (8, *size)).astype(np.float32)).reshape(8, -1)
    weight_KF = torch.from_numpy(RNG.normal(size=(10, x_NF.shape[1])).astype(np.float32))
    found_NK = torch.from_numpy(x_NF) @ weight_KF.T
    assert torch.equal(torch.from_numpy(np.roll(x_NF, 1, axis=0)) @ weight_KF.T, found_NK.roll(1, 0))


@pytest.mark.parametrize("size", [(28, 30), (4, 4), (27, 28)])
def test_a_size_without_such_features_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r'features = "scattering" needs a height and width that 4 divides'):
        scattered_shape((1, *size))
