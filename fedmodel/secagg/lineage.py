"""Which rounds made what a silo keeps between rounds: a hash that all silos of one sum have in common.

State that crosses rounds goes into the next update. Where silos of one sum hold state of different rounds, whoever
chose who trains when, and from which model, chose how large their updates are: the server that calls one silo late for
three rounds, and sends the others models that fill their optimisers' accumulators, is left with a sum that is that one
silo's update.

A lineage is FRESH where nothing is kept, else a chain over the rounds whose training made the state: of each the run,
the round, the model received and the scenario, and the lineage before. What a silo keeps hangs on these, on its own
records and on its own noise, and on nothing else; a kind of state that hangs on the cohort too adds the cohort here.

The server names the lineage that a round begins from, and a silo either holds it, or begins fresh where the server says
so, or refuses (`clients.carried`). `configuration` puts what was named into ctx. So of two silos whose masks cancel
both began fresh, or both trained in the same rounds from the same models, as far back as their state goes.

Does NOT bind the silo's records or what they made of the state: silos of one lineage hold different states.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.crypto import KEY_SIZE, digest, digest_words

FRESH: Final = b""
LINEAGE_SIZE: Final = KEY_SIZE


def model_digest(model_P: NDArray[np.float32]) -> bytes:
    """Return the hash of a model as it crosses, float32 of shape `(P,)`."""
    return digest_words(b"fedmodel/v1/sa-model", np.ascontiguousarray(model_P, dtype="<f4").data.cast("B"))


def configuration(scenario: bytes, lineage: bytes) -> bytes:
    """Return the hash of what is done with a model: the scenario's, and what the round begins from besides it."""
    return digest(b"fedmodel/v1/sa-configuration", scenario, lineage)


def lineage_after(lineage: bytes, run: int, round_number: int, model: bytes, scenario: bytes) -> bytes:
    """Return the lineage of the state that a round leaves.

    Args:
        lineage: What the round began from.
        run: 64 bits.
        round_number: From 1.
        model: The hash of the model received.
        scenario: The scenario's hash.

    >>> first = lineage_after(FRESH, 7, 1, bytes(32), bytes(32))
    >>> len(first), first == lineage_after(first, 7, 1, bytes(32), bytes(32))
    (32, False)
    """
    place = run.to_bytes(8, "big") + round_number.to_bytes(4, "big")
    return digest(b"fedmodel/v1/sa-lineage", lineage, place, model, scenario)
