"""Pictures that are made up: dead leaves, shapes of one grey each that fall on a grey ground and on one another.

They have what photographs have in common and nobody's data: edges, and shapes of every size, since of a leaf's radius r
the density goes as 1/r^3 (Lee, Mumford and Huang 2001; of use in learning, Baradad et al. 2021, section 3.1).

Guarantee: the same pictures in every process, a function of their number and size alone.

Shapes: N pictures, S height and width.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_SEED: Final = 0
_LEAVES: Final = 60  # of each picture, of which the first are mostly covered
_BEYOND: Final = 4.0  # pixels past an edge where a leaf's middle may lie
_NARROWEST: Final = 0.4  # of a leaf: one side by the other


def dead_leaves(count: int, side: int) -> NDArray[np.float32]:
    """Return pictures of shape `(count, side, side)`, from -1 to 1.

    Args:
        count: How many.
        side: Height and width in pixels; leaves have radii from one pixel to this.
    """
    rng = np.random.default_rng(_SEED)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    found_NSS = np.zeros((count, side, side), dtype=np.float32)
    for _ in range(_LEAVES):
        # What has a density as 1/r^3 from 1 to S, by the inverse of its distribution.
        radius_N11 = _each(1 / np.sqrt(1 - rng.random(count) * (1 - side**-2.0)))
        narrow_N11 = _each(rng.uniform(_NARROWEST, 1, count))
        angle_N11 = _each(rng.uniform(0, np.pi, count))
        row_N11, column_N11 = (_each(rng.uniform(-_BEYOND, side + _BEYOND, count)) for _ in range(2))
        grey_N11, is_box_N11 = _each(rng.uniform(-1, 1, count)), _each(rng.random(count)) < 0.5
        across_NSS, down_NSS = columns - column_N11, rows - row_N11
        cosine_N11, sine_N11 = np.cos(angle_N11), np.sin(angle_N11)
        long_NSS = np.abs(across_NSS * cosine_N11 + down_NSS * sine_N11) / radius_N11
        short_NSS = np.abs(down_NSS * cosine_N11 - across_NSS * sine_N11) / (radius_N11 * narrow_N11)
        far_NSS = np.where(is_box_N11, np.maximum(long_NSS, short_NSS), np.hypot(long_NSS, short_NSS))
        found_NSS = np.where(far_NSS <= 1, grey_N11, found_NSS)
    return found_NSS


def _each(value_N: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return a value of each picture as what goes beside its pixels."""
    return value_N.astype(np.float32)[:, None, None]
