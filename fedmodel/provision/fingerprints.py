"""A party's public keys as digits that two people can compare by telephone.

A fingerprint has twelve groups of five decimal digits: 60 digits, 199 bits. Making keys with the digits of another
party takes 2^199 trials; making two sets of keys with the same digits takes 2^99. Keys that match in ten digits, two
groups, would be found in hours on one machine. So compare all twelve groups.

A fingerprint covers federation, name, role and every public key of a party: its signing keys, Flower's node key, its
age recipient and its TLS key. So it stays the same when a certificate is renewed, and changes when any key changes.
"""

from __future__ import annotations

import math
from typing import Final

from fedmodel.crypto import derive_key, digest
from fedmodel.provision.roster import AuthorityKeys, FederationRoster, Party

GROUPS: Final = 12
DIGITS: Final = 5
BITS: Final = math.floor(GROUPS * DIGITS * math.log2(10))
_LABEL: Final = b"fedmodel/v1/fingerprint"
# For each group: 2^40 over 10^5 makes no digit more likely than another by more than one part in ten million.
_GROUP_BYTES: Final = 5


def party_fingerprint(federation: str, party: Party) -> str:
    """Return the fingerprint of a member of a federation."""
    keys = (party.identity, party.post_quantum, party.node, party.age, party.tls)
    return _digits(federation, party.role, party.name, *(key or "" for key in keys))


def authority_fingerprint(federation: str, keys: AuthorityKeys) -> str:
    """Return the fingerprint of a federation's authority, whose signature every kit trusts."""
    return _digits(federation, "authority", "authority", keys.identity.hex(), (keys.post_quantum or b"").hex())


def fingerprints(roster: FederationRoster, keys: AuthorityKeys) -> dict[str, str]:
    """Return everybody's fingerprint by name: the authority's, the server's, then the silos'."""
    found = {"authority": authority_fingerprint(roster.federation, keys)}
    for party in (roster.server, *roster.silos):
        found[party.name] = party_fingerprint(roster.federation, party)
    return found


def _digits(*parts: str) -> str:
    """Return the hash of some words in groups of digits.

    >>> _digits("hospitals", "silo", "aurora").count(" ")
    11
    """
    wide = derive_key(digest(_LABEL, *(part.encode() for part in parts)), _LABEL, b"", GROUPS * _GROUP_BYTES)
    numbers = (int.from_bytes(wide[start : start + _GROUP_BYTES], "big") for start in range(0, len(wide), _GROUP_BYTES))
    return " ".join(f"{number % 10**DIGITS:0{DIGITS}d}" for number in numbers)
