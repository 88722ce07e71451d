"""Which rounds made the state that a silo keeps between rounds: a hash that all silos of one sum have in common.

State that crosses rounds enters the next update. Suppose that silos of one sum hold state of different rounds. Then
whoever chose who trains when, and from which model, also chose how large their updates are. A server could call one
silo late for three rounds, and send the others models that fill their optimisers' accumulators. The sum would then be
nearly that one silo's update.

A lineage is FRESH if nothing is kept. Otherwise it is a chain over the rounds whose training made the state. For each
round it covers the run, the round, the model received, the scenario, and the lineage before. The kept state depends on
these, on the silo's own records and on its own noise, and on nothing else. A kind of state that also depends on the
cohort must add the cohort here.

The server names the lineage that a round begins from. A silo either has state of that lineage, or begins fresh if the
server says so, or refuses (`clients.carried`). `configuration` puts the named lineage into ctx. So if the masks of two
silos cancel, either both began fresh, or both trained in the same rounds from the same models, as far back as their
state goes.

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
    """Return the hash of a model as it is sent, float32 of shape `(P,)`."""
    return digest_words(b"fedmodel/v1/sa-model", np.ascontiguousarray(model_P, dtype="<f4").data.cast("B"))


def configuration(scenario: bytes, lineage: bytes, pattern: bytes = b"") -> bytes:
    """Return the hash of what is done with a model.

    Args:
        scenario: The scenario's hash.
        lineage: The lineage that the round begins from.
        pattern: The hash of which words of an update are sent; empty where all are.
    """
    return digest(b"fedmodel/v1/sa-configuration", scenario, lineage, *([pattern] if pattern else []))


def lineage_after(lineage: bytes, run: int, round_number: int, model: bytes, scenario: bytes) -> bytes:
    """Return the lineage of the state that a round leaves.

    Args:
        lineage: The lineage that the round began from.
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
