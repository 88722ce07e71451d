"""Jobs: what one round asks of a silo's records, what it does with them, and what comes of it; a file each.

A kind is one file here. Its `asking` makes the server's side, which knows no records, and its `answering` the silo's,
which is given them once its ledger was charged. The loops on both sides know these two alone: a round's question and
its answers are vectors, whatever they mean.

    question    server   what a round asks, from what came of the rounds before
    check       silo     refuses what could not be answered, before anything is charged; reads no record
    answer      silo     after the charge: what is released of the records, as the event that was charged says
    fold        server   what a mean of answers makes of the state; of one that failed closed nothing is folded

Guarantee: an answer depends on records only through the releases that its event describes. Whatever `question` and
`fold` make of means is post-processing.

Which job a round is of is not said on the wire: there is one kind, and every round is of it. A reservation, which is
one event for a whole run, pays for one kind too.

Shapes: P words of a question, of an answer and of a mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fedmodel.data import Records
from fedmodel.learning.jobs._answering import Carried, Observer, Question, Site, Vector, Wrapper
from fedmodel.privacy.events import Event
from fedmodel.system.kinds import kinds

__all__ = [
    "KINDS",
    "Answering",
    "Apply",
    "Asking",
    "Carried",
    "Observer",
    "Question",
    "Site",
    "State",
    "Vector",
    "Wrapper",
]

Apply = Callable[[Vector, Vector, bytes], tuple[Vector, bytes]]
"""What a mean does to a vector, with what is kept from one mean to the next: a strategy's, at the server."""


@dataclass(frozen=True)
class State:
    """What a run has come to at the server.

    Attributes:
        vector_P: What the next round is asked about, float32 of shape `(P,)`; for training the model.
        kept: What `Apply` keeps for the next mean; bytes that it alone reads.
    """

    vector_P: Vector
    kept: bytes = b""


class Asking(Protocol):
    """A job at the server."""

    def question(self, number: int, state: State) -> Vector:
        """Return what a round, from 1, asks the silos of its cohort: a vector of shape `(P,)`."""

    def fold(self, state: State, mean_P: Vector) -> State:
        """Return what a round's mean makes of the state that its question was made of."""


class Answering(Protocol):
    """A job at a silo."""

    def check(self, question: Question, plan: Event) -> None:
        """Refuse what could not be answered, before anything is charged for it. Reads no record.

        Args:
            question: What is asked.
            plan: What the silo reserved for all of the run.
        """

    def answer(self, question: Question, records: Callable[[], Records], event: Event, carried: Carried) -> Vector:
        """Return what is released of the records, float32 of shape `(P,)`: so many releases as the event says.

        Args:
            question: What is asked.
            records: Reads the silo's records. Sensitive.
            event: What the ledger was charged; every figure of privacy is taken from here.
            carried: What the job carries between rounds; changed in place, and made of releases alone.
        """


KINDS = kinds(__name__)
"""By name, the modules of the jobs."""
