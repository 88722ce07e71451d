"""Jobs: what one round asks of a silo's records, what it does with them, and what comes of it; a file each.

A kind is one file here. Its `asking` makes the server's side, which knows no records, and its `answering` the silo's,
which is given them once its ledger was charged. The loops on both sides know these two alone: a round's question and
its answers are vectors, whatever they mean.

    question    server   what a round asks, from what came of the rounds before
    check       silo     refuses what could not be answered, before anything is charged; reads no record
    answer      silo     after the charge: what is released of the records, as the event that was charged says
    fold        server   what a mean of answers makes of the state; of one that failed closed nothing is folded
    tell        server   what a line of the run's files says of what it came to

Guarantee: an answer depends on records only through the releases that its event describes. Whatever `question` and
`fold` make of means is post-processing.

A run trains, and does what its scenario lists besides (`fedmodel.config.besides`), each job in a round of its own. A
request names its job, which a silo holds to the scenario and looks up here; each job is a part of the run's
reservation, and is charged to that part before it answers.

Shapes: P words of a question, of an answer and of a mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from fedmodel.config import Scenario
from fedmodel.data import Records
from fedmodel.errors import ConfigError
from fedmodel.learning.jobs._answering import Carried, Observer, Question, Site, Vector, Wrapper
from fedmodel.learning.jobs._asking import Apply, Serving, State
from fedmodel.privacy.events import Event
from fedmodel.system.kinds import kinds, not_known

__all__ = [
    "KINDS",
    "Answering",
    "Apply",
    "Asking",
    "Carried",
    "Observer",
    "Question",
    "Serving",
    "Site",
    "State",
    "Vector",
    "Wrapper",
    "job_named",
    "words_asked",
]


class Asking(Protocol):
    """A job at the server."""

    def question(self, number: int, state: State) -> Vector:
        """Return what a round, from 1, asks the silos of its cohort: a vector of shape `(P,)`."""

    def fold(self, state: State, mean_P: Vector) -> State:
        """Return what a round's mean makes of the state that its question was made of."""

    def tell(self, state: State, answers: int) -> Mapping[str, Any]:
        """Return what a line says of a state that the mean of so many answers was folded into, as plain data."""


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


def words_asked(scenario: Scenario, name: str) -> int:
    """Return how many words an answer to a job besides training has.

    Raises:
        ConfigError: When there is no job of that name.
    """
    nothing = np.zeros(0, dtype=np.float32)
    asking: Asking = job_named(name).asking(Serving(scenario, lambda *_: (nothing, b""), lambda _: {}))
    return len(asking.question(scenario.rounds + 1, State(nothing)))


def job_named(name: str) -> ModuleType:
    """Return the job of a name, one of this folder's own.

    Raises:
        ConfigError: When there is none of that name.
    """
    if name not in KINDS:
        raise ConfigError(not_known("job", name, KINDS))
    return KINDS[name]
