"""The grid that sums and noise lie on, and how far a computed Gaussian is from a true one, as a number.

Floating point is not the real line: the values that float64 noise can take differ from one sum to another, so that the
last bits of a noised sum can rule a neighbouring data set out for certain (Mironov 2012). Two grids, both powers of two
that follow from public figures alone, close that:

    fine    every record's clipped gradient is cut to it, towards zero, and the noise is rounded to it; sums on it are
            exact, whatever their order, while they stay under 2^53 of its units: hence `most_records`
    coarse  the noised sum is rounded to it, before it is divided, made float32 or used: all that leaves lies on it

With s the standard deviation of the noise, coarse is over s 2^-17 and at most s 2^-16; fine is 2^-14 of coarse.

Guarantee: the mechanism on ideal noise is the Gaussian mechanism on a sum that one record moves by at most the clip,
followed by a rounding, which costs nothing. Of the noise as it is computed (`fedmodel.privacy.noise.OsNoise`) every
cell of the coarse grid has the ideal probability but for a factor within exp(+-`RELATIVE_ERROR`), but for an event of
probability `TAIL`; `added` says what both may add to epsilon and delta. `docs/floating-point.md` has the proof. It
rests on a logarithm, a sine and a cosine that are within two units in the last place, and on IEEE 754 for all else.

Does NOT cover noise from another source, and nothing of a sampler's timing.
"""

from __future__ import annotations

import math
from typing import Final

from fedmodel.errors import DataError, PrivacyError

RELATIVE_ERROR: Final = 2.0**-26
"""How far the logarithm of a cell's probability under computed noise is from the ideal, at most."""
TAIL: Final = 2.0**-64
"""The probability of a draw, of one coordinate, for which nothing is said of that."""

MOST_STEPS: Final = 2.0**52
"""Of the fine grid, that a sum without noise may come to."""

_COARSE_BITS: Final = 16
_FINE_BITS: Final = 14
_EXTREME: Final = 2.0**100  # where powers of two and float32 sums are still ordinary numbers
_SHARE: Final = 2.0**-20  # of delta, for the events whose probability may be chosen


def coarse(std: float) -> float:
    """Return the step of the grid that a noised sum is released on.

    Args:
        std: Standard deviation of the noise on the sum, in the sum's own unit.

    Raises:
        PrivacyError: When there is no noise, or it is so little or so much that float64 has no room around it.

    >>> coarse(1.0) == 2**-16, coarse(1.99) == 2**-16, coarse(0.3) == 2**-18
    (True, True, True)
    """
    if not 1 / _EXTREME <= std <= _EXTREME:
        raise PrivacyError(
            f"noise of standard deviation {std:g} has no grid; the clip times the noise multiplier must be"
            f" from {1 / _EXTREME:.0e} to {_EXTREME:.0e}"
        )
    return math.ldexp(1.0, math.frexp(std)[1] - 1 - _COARSE_BITS)


def fine(std: float) -> float:
    """Return the step of the grid that records are cut to and summed on."""
    return math.ldexp(coarse(std), -_FINE_BITS)


def most_records(noise_multiplier: float) -> int:
    """Return for how many records a sum on the fine grid is exact, at any clip.

    One record is at most C = std / noise_multiplier, under 2^31 / noise_multiplier units. So many records come to at
    most 2^52 units, and noise, under 18 standard deviations, to less than 2^36: together under 2^53, where every whole
    number is a float64.

    >>> most_records(1.0), most_records(0.2)
    (2097152, 419430)
    """
    return math.floor(noise_multiplier * 2.0**21)


def check_records(records: int, noise_multiplier: float) -> None:
    """Refuse a silo of more records than sums are exact for: of all that it holds, so that no lot decides.

    Raises:
        DataError: Whose code is that of any failure, since the answer hangs on a count.
    """
    if records > most_records(noise_multiplier):
        raise DataError(
            f"the silo has more than {most_records(noise_multiplier)} records, past which a sum would be rounded as it"
            f" is added up at a noise multiplier of {noise_multiplier:g}; take part with fewer, or with more noise"
        )


def added(coordinates: int, epsilon: float, delta: float, *, draws: int = 1) -> tuple[float, float]:
    """Return what computing in floating point may add to epsilon and to delta.

    Args:
        coordinates: Coordinates that noise was added to, in all: parameters times steps.
        epsilon: What holds on ideal noise,
        delta: with this delta.
        draws: How many draws the noise of each is the sum of; so many are as many times as far from ideal noise.

    Returns:
        Both are upper bounds: (epsilon + first, delta + second) holds for the mechanism as it is computed.

    >>> more_epsilon, more_delta = added(31 * 40, 3.0, 1e-3)
    >>> more_epsilon < 1e-5, more_delta < 1e-8
    (True, True)
    """
    rho, chosen = draws * RELATIVE_ERROR, delta * _SHARE * math.exp(-epsilon)
    # The logarithm of a likelihood ratio of sums: its mean is at most rho^2 / 2 each, the rest is Azuma's inequality.
    apart = coordinates * rho**2 / 2 + rho * math.sqrt(2 * coordinates * math.log(1 / chosen))
    tails = draws * coordinates * TAIL
    more_delta = (
        math.expm1(apart) * delta
        + (1 + math.exp(epsilon + apart)) * chosen
        + (1 + math.exp(epsilon + 2 * apart)) * tails
    )
    return 2 * apart, more_delta
