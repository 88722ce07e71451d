"""What a job is given at the server: the run, and what it has come to.

Shapes: P words of what a round asks about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedmodel.config import Scenario
from fedmodel.learning.jobs._answering import Vector

Apply = Callable[[Vector, Vector, bytes], tuple[Vector, bytes]]
"""What a mean does to a vector, with what is kept from one mean to the next: a strategy's, at the server."""


@dataclass(frozen=True)
class Serving:
    """A run, as a job knows it at the server.

    Attributes:
        scenario: What it does.
        apply: What a mean does to the model: the strategy's.
        measure: Returns the figures of a model on the server's own records.
    """

    scenario: Scenario
    apply: Apply
    measure: Callable[[Vector], Mapping[str, Any]]


@dataclass(frozen=True)
class State:
    """What a job has come to at the server.

    Attributes:
        vector_P: What the next round is asked about, float32 of shape `(P,)`; for training the model.
        kept: What `Apply` keeps for the next mean; bytes that it alone reads.
    """

    vector_P: Vector
    kept: bytes = b""
