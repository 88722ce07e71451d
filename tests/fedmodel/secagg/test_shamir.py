"""Any threshold of shares give the secret back; one fewer say nothing, counted exhaustively in a small field."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmodel.errors import CryptoError
from fedmodel.secagg import shamir
from fedmodel.secagg.shamir import PRIME, agreeing, combine, lagrange_at_zero, split


def is_probable_prime(number: int) -> bool:
    """Miller-Rabin on the first forty primes' worth of bases."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 120):
        value = pow(base, odd, number)
        if value in (1, number - 1):
            continue
        for _ in range(twos - 1):
            value = value * value % number
            if value == number - 1:
                break
        else:
            return False
    return True


def test_the_field_is_the_largest_prime_under_256_bits() -> None:
    assert PRIME == 2**256 - 189
    assert is_probable_prime(PRIME)
    assert not any(is_probable_prime(2**256 - gap) for gap in range(1, 189, 2))


@settings(deadline=None)
@given(st.integers(0, PRIME - 1), st.integers(1, 20), st.data())
def test_any_threshold_of_shares_gives_the_secret_back(secret: int, silos: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, silos))
    points = data.draw(st.lists(st.integers(1, 1000), min_size=silos, max_size=silos, unique=True))
    shares = split(secret, threshold, points)
    chosen = data.draw(st.permutations(points))[: data.draw(st.integers(threshold, silos))]
    assert combine({point: shares[point] for point in chosen}, lagrange_at_zero(chosen)) == secret


def test_one_share_fewer_gives_something_else() -> None:
    shares = split(12345, 5, range(1, 10))
    chosen = [1, 2, 3, 4]
    assert combine({point: shares[point] for point in chosen}, lagrange_at_zero(chosen)) != 12345


@pytest.mark.parametrize("secret", [0, 3])
def test_fewer_shares_are_uniform_whatever_the_secret(secret: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exhaustive in a field of five: over all polynomials, each pair of shares of a threshold of three comes once."""
    prime, threshold = 5, 3
    seen: Counter[tuple[int, ...]] = Counter()
    for coefficients in itertools.product(range(prime), repeat=threshold - 1):
        drawn = iter(coefficients)
        monkeypatch.setattr(shamir.secrets, "randbelow", lambda _, drawn=drawn: next(drawn))
        shares = split(secret, threshold, [1, 2, 4], prime)
        seen[shares[1], shares[4]] += 1
    assert seen == Counter(itertools.product(range(prime), repeat=2))


def test_coefficients_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def randbelow(bound: int) -> int:
        asked.append(bound)
        return 1

    monkeypatch.setattr(shamir.secrets, "randbelow", randbelow)
    split(0, 4, [1, 2, 3, 4])
    assert asked == [PRIME] * 3


def test_shares_are_linear() -> None:
    """Shares of two secrets add up to shares of the sum: what a curious server could do with them."""
    first, second = split(10, 2, [1, 2, 3]), split(20, 2, [1, 2, 3])
    total = {point: (first[point] + second[point]) % PRIME for point in (1, 3)}
    assert combine(total, lagrange_at_zero([1, 3])) == 30


@pytest.mark.parametrize(
    ("secret", "threshold", "points"),
    [(-1, 1, [1]), (PRIME, 1, [1]), (1, 0, [1]), (1, 2, [1]), (1, 1, []), (1, 1, [0]), (1, 2, [1, 1]), (1, 1, [2**20])],
)
def test_what_is_out_of_range_is_refused(secret: int, threshold: int, points: list[int]) -> None:
    with pytest.raises(CryptoError):
        split(secret, threshold, points)


def test_shares_of_other_points_and_of_another_field_are_refused() -> None:
    shares, coefficients = split(5, 2, [1, 2, 3]), lagrange_at_zero([1, 2])
    with pytest.raises(CryptoError, match="same points"):
        combine(shares, coefficients)
    with pytest.raises(CryptoError, match="not an element"):
        combine({1: shares[1], 2: PRIME}, coefficients)
    with pytest.raises(CryptoError, match="distinct"):
        lagrange_at_zero([1, 1])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, PRIME - 1), st.integers(1, 14), st.integers(0, 12), st.booleans(), st.data())
def test_half_of_the_spare_shares_may_be_false_whatever_they_are(
    secret: int, threshold: int, spare: int, small: bool, data: st.DataObject
) -> None:
    """False at random, or on a polynomial of their own; exactly those that are right come back."""
    points = data.draw(st.permutations(range(1, threshold + spare + 1)))
    dealt = split(secret, threshold, points)
    other = split(0, threshold, points)
    false = points[: data.draw(st.integers(0, spare // 2))]
    shares = {**dealt, **{point: other[point] if small else shamir.random_element() for point in false}}
    right = agreeing(shares, threshold)
    assert right == {point: share for point, share in shares.items() if dealt[point] == share}
    chosen = list(right)[:threshold]
    assert combine({point: right[point] for point in chosen}, lagrange_at_zero(chosen)) == secret


@pytest.mark.parametrize("prime", [11, 13])
def test_nothing_is_found_where_too_many_are_false_but_another_polynomial_that_as_many_lie_on(prime: int) -> None:
    """Exhaustive in a small field: what comes back is all that lies on one line, or nothing."""
    points, threshold = (1, 2, 3, 4, 5), 2
    lines = [{point: (slope * point + start) % prime for point in points}
             for slope in range(prime) for start in range(prime)]  # fmt: skip
    for values in itertools.product(range(0, prime, 3), repeat=5):
        shares = dict(zip(points, values, strict=True))
        near = [line for line in lines if sum(line[point] == shares[point] for point in points) >= 4]
        expected = {point: share for point, share in shares.items() if near[0][point] == share} if near else {}
        assert agreeing(shares, threshold, prime) == expected


def test_shares_that_are_none_are_not_decoded() -> None:
    for shares in ({}, {0: 1, 1: 2}, {1: PRIME, 2: 1}, {1: -1, 2: 1}):
        with pytest.raises(CryptoError):
            agreeing(shares, 1)
