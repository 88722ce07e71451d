"""The whole numbers nearest to two Gaussians, by integer arithmetic alone, from as many random bits as it takes.

Box and Muller (1958): for U uniform on [0, 1] and A uniform on [-pi, pi], R = sqrt(-2 ln U) gives two independent unit
normals, R cos A and R sin A. Here U and A are real numbers of which only the first bits were drawn. Each lies in an
interval, and so do both Gaussians; where all of such an interval has one nearest whole number, that is it, whatever the
other bits are. Where not, 64 bits more of each are drawn.

Guarantee: if the bits are uniform, what comes out is distributed as the nearest whole numbers to true Gaussians are. No
distance from that is left, not in the tails either: a process that draws bits without end would give real U and A, and
this one stops where the rest of them no longer matters. It stops with probability 1.

Logarithm, root, cosine and sine are fixed-point numbers of p binary places. Each step of a series drops at most two of
the last place, a series has fewer than p steps after its terms have begun to fall, and a logarithm takes a series up to
p times. So all that is computed is within `_error`, 4 p^2 of the last place, and an interval is widened by as much.

It takes some 20 microseconds, and is asked for what `fedmodel.privacy.normals` cannot tell by floating point.

Does NOT hide from a clock how many bits it drew.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_MORE: Final = 64  # bits that are drawn at once
_GUARD: Final = 65  # places under the last bit drawn, so that the error of a series is small beside what is not drawn


def nearest_pair(
    radius: int, angle: int, bits: int, ratio: float, more: Callable[[int], int] = secrets.randbits
) -> tuple[int, int]:
    """Return the whole numbers nearest to ratio R cos A and ratio R sin A, exactly.

    Args:
        radius: The first bits of U: it lies between radius / 2^bits and (radius + 1) / 2^bits.
        angle: The same of an angle from -pi to pi: A lies between angle and angle + 1, times pi / 2^bits.
        bits: How many, but for the angle's sign.
        ratio: The standard deviation in whole numbers' unit, positive. Taken as the binary fraction that it is.
        more: Draws so many random bits more.

    >>> nearest_pair(1 << 62, 0, 63, 1000.0)
    (1177, 0)
    """
    while (found := _decided(radius, angle, bits, ratio)) is None:
        radius = radius << _MORE | more(_MORE)
        angle = angle << _MORE | more(_MORE)
        bits += _MORE
    return found


def _decided(radius: int, angle: int, bits: int, ratio: float) -> tuple[int, int] | None:
    """Return the nearest whole numbers to both if these bits decide them."""
    if radius == 0:
        return None  # U may be 0
    places = bits + _GUARD
    radii = _root(radius + 1, bits, places, -_error(places)), _root(radius, bits, places, _error(places))
    pi = _pi(places)
    cosine, sine = _cosine_and_sine((2 * angle + 1) * pi >> bits + 1, places)
    # Both are no farther from those of the interval's middle than the angle is.
    apart = (pi >> bits + 1) + _error(places)
    both = _nearest(radii, cosine, apart, places, ratio), _nearest(radii, sine, apart, places, ratio)
    return None if both[0] is None or both[1] is None else (both[0], both[1])


def _error(places: int) -> int:
    """Return what a logarithm, cosine or sine is off by at most, in its last place."""
    return 4 * places * places


def _nearest(radii: tuple[int, int], factor: int, apart: int, places: int, ratio: float) -> int | None:
    """Return the whole number nearest to all of ratio times a radius times a factor, if it is one."""
    ends = [radius * (factor + by) for radius in radii for by in (-apart, apart)]
    whole, parts = ratio.as_integer_ratio()
    one = parts << 2 * places
    low, high = ((2 * whole * end + one) // (2 * one) for end in (min(ends), max(ends)))
    return low if low == high else None


def _root(radius: int, bits: int, places: int, error: int) -> int:
    """Return sqrt(-2 ln(radius / 2^bits)), rounded to the side of the error."""
    square = 2 * max(0, bits * _log_of_two(places) - _log(radius, places) + error)
    return math.isqrt(square << places) + (error > 0)


def _log(number: int, places: int) -> int:
    """Return ln(number) for a whole number from 1."""
    exponent = number.bit_length() - 1
    one = 1 << places
    mantissa = number << places >> exponent
    return exponent * _log_of_two(places) + 2 * _arctanh(((mantissa - one) << places) // (mantissa + one), places)


@lru_cache(maxsize=8)
def _log_of_two(places: int) -> int:
    return 2 * _arctanh((1 << places) // 3, places)


def _arctanh(value: int, places: int) -> int:
    """Return artanh of a value from 0 to 1/3, by its series."""
    square, power, total, odd = value * value >> places, value, value, 1
    while power:
        power = power * square >> places
        odd += 2
        total += power // odd
    return total


@lru_cache(maxsize=8)
def _pi(places: int) -> int:
    """Return pi by Machin's formula (1706)."""
    return 4 * (4 * _arctan_of_one_over(5, places) - _arctan_of_one_over(239, places))


def _arctan_of_one_over(number: int, places: int) -> int:
    power = total = (1 << places) // number
    odd, sign = 1, 1
    while power:
        power //= number * number
        odd, sign = odd + 2, -sign
        total += sign * (power // odd)
    return total


def _cosine_and_sine(angle: int, places: int) -> tuple[int, int]:
    """Return both by their series, of an angle from -pi to pi."""
    square = angle * angle >> places
    even, odd, cosine, sine, place, sign = 1 << places, abs(angle), 0, 0, 0, 1
    while even or odd:
        cosine, sine = cosine + sign * even, sine + sign * odd
        place, sign = place + 2, -sign
        even = (even * square >> places) // (place * (place - 1))
        odd = (odd * square >> places) // (place * (place + 1))
    return cosine, sine if angle >= 0 else -sine
