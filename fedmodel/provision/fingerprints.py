"""A party's public keys as digits that two people can compare by telephone.

A fingerprint has twelve groups of five decimal digits: 60 digits, 199 bits. Making keys with the digits of another
party takes 2^199 trials; making two sets of keys with the same digits takes 2^99. Keys that match in ten digits, two
groups, would be found in hours on one machine. So compare all twelve groups.

A fingerprint covers federation, name, role and every public key of a party: its signing keys, Flower's node key, its
age recipient and its TLS key. So it stays the same when a certificate is renewed, and changes when any key changes.
"""

from __future__ import annotations

from fedmodel.crypto.signed_roster import AuthorityKeys, fingerprint
from fedmodel.provision.roster import FederationRoster, Party


def party_fingerprint(federation: str, party: Party) -> str:
    """Return the fingerprint of a member of a federation."""
    keys = (party.identity, party.post_quantum, party.node, party.age, party.tls)
    return fingerprint(federation, party.role, party.name, *(key or "" for key in keys))


def authority_fingerprint(federation: str, keys: AuthorityKeys) -> str:
    """Return the fingerprint of a federation's authority, whose signature every kit trusts."""
    return fingerprint(federation, "authority", "authority", keys.identity.hex(), (keys.post_quantum or b"").hex())


def fingerprints(roster: FederationRoster, keys: AuthorityKeys) -> dict[str, str]:
    """Return everybody's fingerprint by name: the authority's, the server's, then the silos'."""
    found = {"authority": authority_fingerprint(roster.federation, keys)}
    for party in (roster.server, *roster.silos):
        found[party.name] = party_fingerprint(roster.federation, party)
    return found
