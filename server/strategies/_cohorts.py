"""Who trains in a round, and how the updates become one.

Cohorts are a pseudorandom function of the experiment's seed and the round, so that a run can be repeated. No privacy
amplification is claimed for cohorts: each silo's ledger is charged as if everyone knew who took part.

Averages are weighted by the scenario's public weights, never by how many records a silo holds.

Shapes: P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import FederationConfig
from fedmodel.errors import ProtocolError
from fedmodel.seeds import derive_seed


def choose_cohort(silos: Sequence[str], size: int, seed: int, round_number: int) -> list[str]:
    """Return `size` of the silos, each subset as likely as any other, sorted by name.

    >>> choose_cohort(["a", "b", "c"], 2, seed=1, round_number=1) == choose_cohort(["c", "b", "a"], 2, 1, 1)
    True
    """
    drawn = sorted(silos, key=lambda silo: (derive_seed(seed, "cohort", round_number, silo), silo))
    return sorted(drawn[:size])


def average_updates(updates: Mapping[str, NDArray[np.float32]], federation: FederationConfig) -> NDArray[np.float32]:
    """Return the weighted mean of the silos' updates, shape `(P,)`, summed in float64 in order of names.

    Args:
        updates: By silo, all of one length.
        federation: Holds the public weights.

    Raises:
        ProtocolError: When there is no update.
    """
    if not updates:
        raise ProtocolError("a round without updates has no average")
    total_P = np.zeros(len(next(iter(updates.values()))), dtype=np.float64)
    for silo in sorted(updates):
        total_P += federation.weight(silo) * updates[silo].astype(np.float64)
    return (total_P / sum(federation.weight(silo) for silo in updates)).astype(np.float32)
