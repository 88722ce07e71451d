"""The grid that sums and noise lie on, and for how many records a sum on it is exact.

Floating point is not the real line: the values that float64 noise can take differ from one sum to another, so that the
last bits of a noised sum can rule a neighbouring data set out for certain (Mironov 2012). Two grids, both powers of two
that follow from public figures alone, close that:

    fine    every record's clipped gradient is cut to it, towards zero, or sums of them are rounded to it, as a kind of
            gradients has it, and the noise is rounded to it; sums on it are exact, whatever their order, while they
            stay under 2^53 of its units: hence `most_records`
    coarse  the noised sum is rounded to it, before it is divided, made float32 or used: all that leaves lies on it

With s the standard deviation of the noise, coarse is over s 2^-17 and at most s 2^-16; fine is 2^-14 of coarse.

Guarantee: where noise Z is rounded to the fine grid and added to a sum S on that grid, what comes out is S + Z,
rounded; and so it is when that is rounded again to the coarse grid. So what is released is a function of S + Z, for a
sum that one record moves by at most the clip, and costs no more than that. It rests on noise that is a true Gaussian,
rounded exactly, as that of `fedmodel.privacy.noise.OsNoise` is; `docs/floating-point.md` has the proof.

Does NOT cover noise from another source, and nothing of a sampler's timing.
"""

from __future__ import annotations

import math
from typing import Final

from fedmodel.errors import DataError, PrivacyError

MOST_STEPS: Final = 2.0**52
"""Of the fine grid, that a sum without noise may come to."""

MOST_RECORDS: Final = 2**22
"""Of a silo, whatever the noise: for so many, kinds of gradients that round a sum themselves bound what that does."""

_COARSE_BITS: Final = 16
_FINE_BITS: Final = 14
_EXTREME: Final = 2.0**100  # where powers of two and float32 sums are still ordinary numbers


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
    """Return for how many records a sum on the fine grid is exact at any clip: never more than `MOST_RECORDS`.

    One record is at most C = std / noise_multiplier, under 2^31 / noise_multiplier units. So noise_multiplier 2^21
    records come to at most 2^52 units, and with noise of up to 2^21 standard deviations, which nobody will see, to at
    most 2^53, up to which every whole number is a float64. Fewer records come to less. `MOST_RECORDS` is asked for here
    and not only where a kind of gradients is known, so that a silo is refused as it joins, and nothing is charged.

    >>> most_records(1.0), most_records(0.2), most_records(9.0)
    (2097152, 419430, 4194304)
    """
    return min(math.floor(noise_multiplier * 2.0**21), MOST_RECORDS)


def too_many(noise_multiplier: float) -> str:
    """Return what is wrong with more records than `most_records`, and what to do."""
    most = most_records(noise_multiplier)
    more = ", or with more noise" if most < MOST_RECORDS else ""
    return (
        f"more than {most} records, past which a sum would be rounded too far as it is added up at a noise multiplier"
        f" of {noise_multiplier:g}; take part with fewer{more}"
    )


def check_records(records: int, noise_multiplier: float) -> None:
    """Refuse a silo of more records than sums are exact for: of all that it holds, so that no lot decides.

    Raises:
        DataError: Whose code is that of any failure, since the answer hangs on a count.
    """
    if records > most_records(noise_multiplier):
        raise DataError(f"the silo has {too_many(noise_multiplier)}")
