"""Kits: what each party of a federation is handed before it begins.

`simulated` makes and reads those of a simulation.
"""

from fedmodel.provision.simulated import (
    SIMULATED,
    Kit,
    is_kit,
    law_of,
    policy_of,
    provision,
    read_identity,
    read_kit,
    read_law,
    read_roster,
    scenario_hash,
    scenario_policy,
)

__all__ = [
    "SIMULATED",
    "Kit",
    "is_kit",
    "law_of",
    "policy_of",
    "provision",
    "read_identity",
    "read_kit",
    "read_law",
    "read_roster",
    "scenario_hash",
    "scenario_policy",
]
