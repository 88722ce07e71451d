"""Threshold sharing of a secret in a prime field (Shamir 1979).

Guarantee: any `threshold` shares give the secret. The joint distribution of fewer shares is uniform and independent of
the secret, because the other coefficients of the polynomial are uniform in the field.

Does NOT detect a false share, nor too few shares: both give a wrong secret. The protocol commits to secrets and checks
them. If there are more shares than the threshold, half of the surplus may be false, and `agreeing` finds which
(Reed-Solomon decoding, S. Gao, *A New Algorithm for Decoding Reed-Solomon Codes*, 2003).

The field has p = 2^256 - 189 elements, where p is the largest prime under 2^256. So a secret of 32 bytes is a field
element for all but 189 of the 2^256 values. Points are silo numbers from 1; the secret is the value at 0.

The code uses plain integers: with points this small a product is not reduced until the end, and Python's integers are
fast enough. It is not constant-time. Secrets are used once, at a silo that lets nobody else time it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from fedmodel.errors import CryptoError

PRIME: Final = 2**256 - 189
SHARE_SIZE: Final = 32
_MOST_POINTS: Final = 2**20


def random_element() -> int:
    """Return a uniform field element from the operating system's CSPRNG."""
    return secrets.randbelow(PRIME)


def split(secret: int, threshold: int, points: Sequence[int], prime: int = PRIME) -> dict[int, int]:
    """Share a secret among points.

    Args:
        secret: In [0, prime).
        threshold: How many shares give the secret, from 1 to the number of points.
        points: Distinct, from 1.
        prime: The field; differs from the default only in tests, which count all elements of a small field.

    Returns:
        The share of each point.

    Raises:
        CryptoError: When an argument is out of range.
    """
    _check_points(points, prime)
    if not 0 <= secret < prime:
        raise CryptoError("a secret is not an element of the field")
    if not 1 <= threshold <= len(points):
        raise CryptoError(f"a threshold of {threshold} cannot be met by {len(points)} shares")
    # The leading coefficient may be zero: if it could not, shares could be distinguished from uniform ones.
    coefficients = [secret, *(secrets.randbelow(prime) for _ in range(threshold - 1))]
    return {point: _evaluate(coefficients, point, prime) for point in points}


def lagrange_at_zero(points: Sequence[int], prime: int = PRIME) -> dict[int, int]:
    """Return each point's coefficient in the value at 0; they serve every secret that is shared among these points.

    Raises:
        CryptoError: When points repeat or are out of range.
    """
    _check_points(points, prime)
    places = np.array(points, dtype=np.int64)
    differences = places[None, :] - places[:, None]
    np.fill_diagonal(differences, places)  # a point's own column stands for the point itself
    # As many differences as fit into a machine word are multiplied in machine words; the rest in plain integers.
    together = 62 // max(1, int(np.abs(differences).max()).bit_length())
    spare = np.ones((len(points), -len(points) % together), dtype=np.int64)
    packed = np.concatenate([differences, spare], axis=1).reshape(len(points), -1, together).prod(axis=2)
    denominators = [math.prod(row) % prime for row in packed.tolist()]
    numerator = math.prod(points) % prime
    return {
        point: numerator * inverse % prime
        for point, inverse in zip(points, _invert_all(denominators, prime), strict=True)
    }


def combine(shares: Mapping[int, int], coefficients: Mapping[int, int], prime: int = PRIME) -> int:
    """Return the secret from shares of exactly the points that the coefficients are for.

    Raises:
        CryptoError: When the points differ, or a share is not an element of the field.
    """
    if shares.keys() != coefficients.keys():
        raise CryptoError("shares and coefficients are not for the same points")
    if not all(0 <= share < prime for share in shares.values()):
        raise CryptoError("a share is not an element of the field")
    return sum(share * coefficients[point] for point, share in shares.items()) % prime


def extrapolate(shares: Mapping[int, int], point: int, prime: int = PRIME) -> int:
    """Return the value, at another point, of the polynomial through these shares.

    Moving the origin to the point makes it a value at 0.

    Raises:
        CryptoError: When a point is out of range, or the point is one of those with a share.
    """
    _check_points([point, *shares], prime)
    moved = [(other - point) % prime for other in shares]
    product = math.prod(moved)
    total = 0
    for place, share in zip(moved, shares.values(), strict=True):
        denominator = place * math.prod(other - place for other in moved if other != place)
        total += share * product * pow(denominator, -1, prime)
    return total % prime


def agreeing(shares: Mapping[int, int], threshold: int, prime: int = PRIME) -> dict[int, int]:
    """Return the right shares, if at most half of those above the threshold are false.

    Args:
        shares: For each point, its share; some may be false, whatever their makers knew.
        threshold: How many shares give the secret.
        prime: The field.

    Returns:
        All shares, at least `threshold`, that lie on one polynomial of at most `threshold` coefficients. Empty, if
        there is no such polynomial that all shares but at most `(len(shares) - threshold) // 2` lie on.

    Raises:
        CryptoError: When points repeat or are out of range, or a share is not an element of the field.
    """
    points = list(shares)
    _check_points(points, prime)
    if not all(0 <= share < prime for share in shares.values()):
        raise CryptoError("a share is not an element of the field")
    # Euclid's algorithm on the product of all (x - point) and the polynomial through all shares, stopped half way.
    upper, lower = _interpolated(shares, prime)
    before, factor = [], [1]
    while len(lower) and 2 * (len(lower) - 1) >= len(points) + threshold:
        quotient, rest = _divided(upper, lower, prime)
        upper, lower = lower, rest
        before, factor = factor, _less(before, _times(quotient, factor, prime), prime)
    found, rest = _divided(lower, factor, prime)
    if rest or len(found) > threshold:
        return {}
    right = {point: share for point, share in shares.items() if _evaluate(found, point, prime) == share}
    return right if 2 * (len(points) - len(right)) <= len(points) - threshold else {}


def _interpolated(shares: Mapping[int, int], prime: int) -> tuple[list[int], list[int]]:
    """Return the product of all (x - point), and the polynomial through all shares; the lowest coefficient first."""
    product = [1]
    for point in shares:
        product = _times(product, [-point % prime, 1], prime)
    through = [0] * len(shares)
    quotients = [_divided(product, [-point % prime, 1], prime)[0] for point in shares]
    slopes = [_evaluate(quotient, point, prime) for quotient, point in zip(quotients, shares, strict=True)]
    for quotient, share, inverse in zip(quotients, shares.values(), _invert_all(slopes, prime), strict=True):
        weight = share * inverse % prime
        through = [(one + weight * other) % prime for one, other in zip(through, quotient, strict=True)]
    return product, _trimmed(through)


def _divided(dividend: Sequence[int], divisor: Sequence[int], prime: int) -> tuple[list[int], list[int]]:
    """Return quotient and remainder of two polynomials; the divisor must not be zero."""
    rest, inverse = list(dividend), pow(divisor[-1], -1, prime)
    quotient = [0] * max(0, len(rest) - len(divisor) + 1)
    for place in reversed(range(len(quotient))):
        quotient[place] = factor = rest[place + len(divisor) - 1] * inverse % prime
        for at, coefficient in enumerate(divisor):
            rest[place + at] = (rest[place + at] - factor * coefficient) % prime
    return _trimmed(quotient), _trimmed(rest)


def _times(one: Sequence[int], other: Sequence[int], prime: int) -> list[int]:
    product = [0] * max(0, len(one) + len(other) - 1)
    for at, factor in enumerate(one):
        for place, coefficient in enumerate(other):
            product[at + place] += factor * coefficient
    return _trimmed([coefficient % prime for coefficient in product])


def _less(one: Sequence[int], other: Sequence[int], prime: int) -> list[int]:
    longest = max(len(one), len(other))
    first, second = (([*poly, *[0] * (longest - len(poly))]) for poly in (one, other))
    return _trimmed([(a - b) % prime for a, b in zip(first, second, strict=True)])


def _trimmed(coefficients: list[int]) -> list[int]:
    """Return a polynomial without zeros at its high end; the zero polynomial has no coefficient."""
    while coefficients and coefficients[-1] == 0:
        coefficients.pop()
    return coefficients


def _evaluate(coefficients: Sequence[int], point: int, prime: int) -> int:
    """Return the value at a point, by Horner's rule, reduced once: at small points it grows by a few bits per step."""
    value = 0
    for coefficient in reversed(coefficients):
        value = value * point + coefficient
    return value % prime


def _invert_all(values: Iterable[int], prime: int) -> list[int]:
    """Invert many elements for the cost of one inversion, and three products per element (Montgomery's trick)."""
    values = list(values)
    prefix = [1]
    for value in values:
        prefix.append(prefix[-1] * value % prime)
    inverse = pow(prefix[-1], -1, prime)
    inverses = []
    for value, before in zip(reversed(values), reversed(prefix[:-1]), strict=True):
        inverses.append(inverse * before % prime)
        inverse = inverse * value % prime
    return inverses[::-1]


def _check_points(points: Sequence[int], prime: int) -> None:
    if len(set(points)) != len(points) or not points:
        raise CryptoError("points of shares must be there, and distinct")
    if not all(1 <= point < min(prime, _MOST_POINTS) for point in points):
        raise CryptoError("a point of a share is out of range; points are silo numbers from 1")
