"""Fingerprints: digits that stay while keys stay, and change when any key, name, role or federation does."""

from __future__ import annotations

import math
import re

import pytest

from fedmodel.crypto.signed_roster import BITS
from fedmodel.provision import AuthorityKeys, authority_fingerprint, fingerprints, party_fingerprint
from tests.fedmodel.provision.test_roster import HYBRID, party, roster

FROZEN = "79638 76050 48379 32719 20834 13322 72879 73540 03739 56001 40176 38492"
NORTH = party(3, "north", lattice=True)
DIGITS = party_fingerprint("northern", NORTH)


def test_twelve_groups_of_five_digits() -> None:
    assert re.fullmatch(r"(\d{5} ){11}\d{5}", DIGITS)
    assert BITS == 199 == math.floor(60 / math.log10(2))


def test_the_digits_are_frozen() -> None:
    """Two versions of the software have to show two people the same digits."""
    classic = party(3, "north")
    assert party_fingerprint("northern", classic) == FROZEN


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "south"},
        {"role": "server"},
        {"identity": "ab" * 32},
        {"post_quantum": "ab" * 1952},
        {"post_quantum": None},
        {"node": "another"},
        {"node": None},
        {"age": "age1another"},
        {"tls": "ab" * 32},
    ],
)
def test_they_change_with_every_key(changed: dict[str, str | None]) -> None:
    assert party_fingerprint("northern", NORTH.model_copy(update=changed)) != DIGITS
    assert party_fingerprint("southern", NORTH) != DIGITS


def test_they_stay_when_a_certificate_is_renewed() -> None:
    assert party_fingerprint("northern", NORTH.model_copy(update={"certificate": "ab" * 32})) == DIGITS


def test_fields_are_not_run_together() -> None:
    one = NORTH.model_copy(update={"node": "ab", "age": "c"})
    other = NORTH.model_copy(update={"node": "a", "age": "bc"})
    assert party_fingerprint("northern", one) != party_fingerprint("northern", other)


def test_everybody_has_one_and_the_authority_first() -> None:
    found = fingerprints(roster(lattice=True), HYBRID)
    assert list(found) == ["authority", "server", "north", "south", "west"]
    assert len(set(found.values())) == 5
    assert authority_fingerprint("northern", AuthorityKeys(HYBRID.identity, None)) != found["authority"]


def test_digits_are_even() -> None:
    """Over 2,000 groups no digit is more than five standard errors from a tenth."""
    groups = "".join(
        party_fingerprint("northern", NORTH.model_copy(update={"age": str(number)})).replace(" ", "")
        for number in range(167)
    )
    sigma = math.sqrt(len(groups) * 0.1 * 0.9)
    for digit in "0123456789":
        assert abs(groups.count(digit) - len(groups) / 10) < 5 * sigma
