"""Kits: what each party of a federation is handed before it begins, and how it reads its own back.

| Module         | What it has                                                                             |
|----------------|-----------------------------------------------------------------------------------------|
| `laws`         | a silo's law, written from scenarios                                                    |
| `simulated`    | a simulation's kits, all on one machine                                                 |
| `authority`    | a deployed federation's kits: made, added, rotated, renewed, revoked (not imported here) |
| `changing`     | a change of those kits, made whole or not at all, wherever it is interrupted             |
| `roster`       | everybody's public keys, signed by the authority                                        |
| `identity`     | a party's keys in one sealed file                                                       |
| `kits`         | reading a kit of either kind; what this process has unlocked                            |
| `fingerprints` | a party's keys as digits to compare by telephone                                        |
"""

from fedmodel.crypto.signed_roster import AuthorityKeys, read_authority
from fedmodel.provision.fingerprints import authority_fingerprint, fingerprints, party_fingerprint
from fedmodel.provision.identity import Unlocked
from fedmodel.provision.influence import check_even, check_levels, unevenness
from fedmodel.provision.kits import (
    SIMULATED,
    Kit,
    accept_revocations,
    accept_roster,
    check_private,
    expiring,
    is_kit,
    is_sealed,
    policy_of,
    read_federation_roster,
    read_identity,
    read_kit,
    read_law,
    read_revocations,
    read_roster,
    read_server_law,
    unlock,
    unlocked,
)
from fedmodel.provision.laws import (
    bases_of,
    check_based,
    check_deployable,
    check_listed,
    joint_law,
    law_of,
    least_silos,
    scenario_hash,
    scenario_policy,
)
from fedmodel.provision.roster import FederationRoster, Party, Revocation, open_roster
from fedmodel.provision.simulated import provision, provision_server

__all__ = [
    "SIMULATED",
    "AuthorityKeys",
    "FederationRoster",
    "Kit",
    "Party",
    "Revocation",
    "Unlocked",
    "accept_revocations",
    "accept_roster",
    "authority_fingerprint",
    "bases_of",
    "check_based",
    "check_deployable",
    "check_even",
    "check_levels",
    "check_listed",
    "check_private",
    "expiring",
    "fingerprints",
    "is_kit",
    "is_sealed",
    "joint_law",
    "law_of",
    "least_silos",
    "open_roster",
    "party_fingerprint",
    "policy_of",
    "provision",
    "provision_server",
    "read_authority",
    "read_federation_roster",
    "read_identity",
    "read_kit",
    "read_law",
    "read_revocations",
    "read_roster",
    "read_server_law",
    "scenario_hash",
    "scenario_policy",
    "unevenness",
    "unlock",
    "unlocked",
]
