"""Independent seeds for independent purposes, all from one experiment seed.

One seed makes a run's partition, initial model and cohorts repeatable. Each purpose hashes the seed with a versioned
label and its own words, so no two purposes ever share a stream, and adding a purpose changes no other.

Does NOT produce secrets: whoever knows the experiment seed knows everything derived here. Privacy noise and lot
sampling come from the operating system (`fedmodel.privacy.noise`), never from here, unless a scenario says
"seeded-unsafe".
"""

from __future__ import annotations

import hashlib

_LABEL = b"fedmodel/v1/seed"


def derive_seed(seed: int, *words: str | int) -> int:
    """Return a 63-bit seed for one purpose.

    Args:
        seed: The experiment's seed, non-negative.
        *words: What the seed is for, such as `"cohort", 3`. Order and type count.

    Returns:
        An integer in [0, 2**63), which every generator in use here accepts.

    >>> derive_seed(7, "cohort", 1) == derive_seed(7, "cohort", 1)
    True
    >>> derive_seed(7, "cohort", 1) == derive_seed(7, "cohort", "1")
    False
    """
    digest = hashlib.sha256(_LABEL)
    for part in (seed, *words):
        # repr separates 1 from "1"; the length prefix keeps ("ab", "c") apart from ("a", "bc").
        encoded = repr(part).encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return int.from_bytes(digest.digest()[:8], "big") >> 1
