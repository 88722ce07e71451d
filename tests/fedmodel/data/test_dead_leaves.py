"""Made-up pictures are the same each time, of leaves of one grey, of sizes as the law says."""

from __future__ import annotations

import numpy as np
import pytest

from fedmodel.data.dead_leaves import dead_leaves


def test_pictures_are_the_same_each_time_and_cover_the_range() -> None:
    found = dead_leaves(200, 16)
    assert np.array_equal(found, dead_leaves(200, 16))
    assert found.shape == (200, 16, 16)
    assert found.dtype == np.float32
    assert np.abs(found).max() <= 1
    assert found.min() < -0.99
    assert found.max() > 0.99
    assert len(np.unique(found[:, 8, 8])) > 150  # no two pictures are of the same leaves


def test_leaves_are_of_one_grey_and_of_many_sizes() -> None:
    """Of large leaves two places far apart are alike, of small ones even neighbours are not; by 1/r^3 both are seen."""
    found = dead_leaves(400, 32)
    centre = found[:, 16, 16]
    beside = (found[:, 16, 17] == centre).mean()
    apart = (found[:, 16, 28] == centre).mean()
    assert 0.6 < beside < 0.95
    assert 0.1 < apart < 0.6
    assert np.corrcoef(found[:, 16, 16], found[:, 16, 18])[0, 1] > 0.4


def test_pictures_are_frozen() -> None:
    """Features of models that were trained hang on them: others need another version of scattering."""
    found = dead_leaves(3, 32).mean(axis=(1, 2), dtype=np.float64)
    assert found == pytest.approx([-0.16442, -0.04642, 0.0066], abs=1e-4)
