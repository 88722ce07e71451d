"""What is public of scattering features (`fedmodel.data.scattering`): their shape, and which images have them."""

from __future__ import annotations

from typing import Final

VERSION: Final = b"fedmodel/v1/scattering"
"""Of what features are of an image, made-up pictures included: of others, none that were kept are used."""
DIRECTIONS: Final = 8
CHANNELS: Final = 1 + 2 * DIRECTIONS + DIRECTIONS**2
"""For each of an image's: no wavelet, one of two scales, one of each."""
_WHOLE: Final = 4
STEP: Final = 4
"""Of height and width a feature stands for so many pixels."""


def scattered_shape(size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape of an image's features.

    Behind the features of all colours stand planes of zeros, up to a multiple of four. Where a record is another number
    of numbers, rows of a batch begin at other places of a vector unit, and kernels round them by their place. Then
    records would be trained on one at a time (`fedmodel.learning.conformance`).

    >>> scattered_shape((1, 28, 28))
    (84, 7, 7)

    Raises:
        ValueError: When images are too small, or do not divide into what a feature stands for.
    """
    channels, height, width = size
    if height % STEP or width % STEP or min(height, width) <= STEP:
        raise ValueError(
            f'features = "scattering" needs a height and width that {STEP} divides, from {2 * STEP} on; found'
            f' {height}x{width}: other_sizes = "resize" makes them so, of images in a folder'
        )
    return -(-CHANNELS * channels // _WHOLE) * _WHOLE, height // STEP, width // STEP
