"""One round, whatever becomes of its answers: who is asked, what is refused, and what a failure leaves.

    open    the kind says who of the cohort is asked, and who is out from the start
    ask     the question goes out; every answer is held to its round, its model, its charge and its silo's ledger
    close   the kind makes one mean of what it was given, or says why there is none

Guarantee: the kind is given answers to this round's question alone, of the length of the vector that was sent, charged
as the silo's plan says for a round, and each with a head of its silo's ledger that extends the one known. Whatever is
wrong with one silo's answer costs that silo's part in the mean and nobody else's. Where the kind has no mean, the round
fails closed: there is no vector in its result. What silos say that they charged is in the result all the same.

Shapes: P words of the vector that is asked about, K of them that are sent (`fedmodel.learning.pattern`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from fedmodel import plans, wire
from fedmodel.config import TRAINING, Scenario
from fedmodel.errors import AggregationRefused, ProtocolError
from fedmodel.learning.pattern import Pattern, pattern_of
from fedmodel.privacy.events import Event
from fedmodel.provision import least_silos
from fedmodel.secagg import Roster, Window
from server.answers import answered, excused, log_dropouts, reasons
from server.exchange import Post
from server.joining import Joined
from server.journal import Dealt
from server.known_heads import KnownHeads
from server.lineages import Lineages

Answer = TypeVar("Answer", wire.TrainReply, wire.MaskedReply)
Combine = Callable[[Mapping[str, NDArray[np.float32]]], NDArray[np.float32]]


@dataclass(frozen=True)
class Taking:
    """What a run's rounds have in common.

    Attributes:
        post: Carries the questions.
        scenario: What they are about.
        roster: Of the whole federation.
        known_heads: Keeps the heads of its silos' ledgers.
        joined: Who takes part; silos leave it, and come back under other nodes.
        cohort_of: Who trains in a round.
        lineages: What silos hold between rounds.
        combine: What a round of training makes of single updates in place of their weighted mean, where the strategy
            says so; the kind of aggregation that sees them asks it, and no strategy says so under any other.
    """

    post: Post
    scenario: Scenario
    roster: Roster
    known_heads: KnownHeads
    joined: Joined
    cohort_of: Callable[[int], list[str]]
    lineages: Lineages
    combine: Combine | None = None

    def ask(self, kind: str, number: int, contents: Mapping[str, RecordDict]) -> Iterator[tuple[str, Message | None]]:
        """Ask silos, wherever they are now."""
        nodes = {silo: (self.joined.members[silo].node_id, content) for silo, content in contents.items()}
        return self.post.ask(kind, number, nodes)


@dataclass(frozen=True)
class Asked:
    """Who of a cohort is asked in a round.

    Attributes:
        silos: Those that are, in the order in which they are, each with the SHAREs that go along.
        missing: Codes of those that are out from the start.
    """

    silos: Mapping[str, tuple[bytes, ...]]
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mean:
    """What a kind makes of a round's answers.

    Attributes:
        mean_K: The weighted mean, or what the strategy made of single updates, float32 of shape `(K,)`.
        survivors: Whose answers are in it.
        threshold: Shares that brought each secret back, None without secure aggregation.
    """

    mean_K: NDArray[np.float32]
    survivors: tuple[str, ...]
    threshold: int | None = None


@dataclass(frozen=True)
class RoundResult:
    """One round's outcome.

    Attributes:
        mean_P: The weighted mean of the answers, float32 of shape `(P,)`, or an unbiased estimate of it where a part of
            each is sent; None where the round failed closed.
        charged: What each silo that answered says it charged, whether or not its answer is in the mean.
        dropouts: Code by silo for those of the cohort whose answer is not in the mean.
        failure: Why the round failed, empty where it did not.
        threshold: Shares that brought each secret back, None without secure aggregation.
        asked: Who was asked, or would have been had nothing gone wrong before; empty where nobody was.
        summed: How many answers are in the mean.
    """

    mean_P: NDArray[np.float32] | None
    charged: dict[str, Event] = field(default_factory=dict)
    dropouts: dict[str, str] = field(default_factory=dict)
    failure: str = ""
    threshold: int | None = None
    asked: tuple[str, ...] = ()
    summed: int = 0


class Aggregation(ABC, Generic[Answer]):
    """Rounds of one run under one kind of aggregation.

    Args:
        taking: What they have in common.

    `_counting` is the federation with the weights by which the round at hand counts its silos.
    """

    KEEPS_ANSWERS: ClassVar[bool] = False
    """Whether a round that is taken up again has to see its answers in the order in which they came."""

    def __init__(self, taking: Taking) -> None:
        self.taking = taking
        self._counting = taking.scenario.federation

    @classmethod
    def first_window(cls, _scenario: Scenario, _run: int) -> Window | None:
        """Return the window that silos advertise keys for as they join, None where there are none."""
        return None

    @classmethod
    def is_advert_of(
        cls, _scenario: Scenario, _roster: Roster, _window: Window | None, _silo: str, _advert: bytes
    ) -> bool:
        """Return whether bytes are the ADVERT for that window of the silo of this name."""
        return False

    @classmethod
    def obstacle(cls, _scenario: Scenario, _roster: Roster, _silos: list[str]) -> str:
        """Return why no round of these silos could come to a mean, empty where one can."""
        return ""

    @classmethod
    def cohort_round(cls, _scenario: Scenario, number: int) -> int:
        """Return the round whose cohort a round has."""
        return number

    @classmethod
    def least_present(cls, scenario: Scenario, _roster: Roster) -> int:
        """Return how many silos have to be connected for a round to come to a mean."""
        return least_silos(scenario)

    @property
    def needed(self) -> int:
        """How many silos the next round needs."""
        return least_silos(self.taking.scenario)

    def state(self) -> dict[str, Any]:
        """Return what the next round stands on besides what was dealt, as plain data; it lies in the checkpoint."""
        return {}

    def dealt(self) -> Dealt | None:
        """Return the messages that the next round stands on, None where it stands on none."""
        return None

    def take_up(self, _state: Mapping[str, Any], _dealt: Dealt | None) -> bool:
        """Go on from what `state` and `dealt` returned once, in a process that is gone.

        Returns:
            Whether what was answered in the round at hand still holds.
        """
        return True

    def round(self, cohort: list[str], request: wire.TrainRequest) -> RoundResult:
        """Bring a round to its mean, or to a closed failure with a reason.

        Args:
            cohort: Who is to be asked.
            request: What they are asked; lineage, shares and known heads are laid over it here.
        """
        number, self._counting = request.round_number, self.taking.scenario.federation_of(request.job)
        asked: tuple[str, ...] = ()
        charged: dict[str, Event] = {}
        dropouts: dict[str, str] = {}
        try:
            opened = self._open(number, cohort)
            dropouts.update(opened.missing)
            asked = tuple(sorted(opened.silos.keys() | opened.missing.keys()))
            self._check_asked(sorted(opened.silos))
            self._gather(opened, request, charged, dropouts)
            found = self._close()
        except ProtocolError as error:
            self._failed(dropouts)
            log_dropouts(number, dropouts)
            gone = f"; dropped out: {reasons(dropouts)}. Each silo's own log says why" if dropouts else ""
            return RoundResult(None, charged, dropouts, f"round {number} failed closed: {error}{gone}", asked=asked)
        for silo in charged.keys() - set(found.survivors):
            dropouts.setdefault(silo, AggregationRefused.code)
        log_dropouts(number, dropouts)
        summed = len(found.survivors)
        mean_P = put_back(found.mean_K, self._pattern(request))
        return RoundResult(mean_P, charged, dropouts, threshold=found.threshold, asked=asked, summed=summed)

    def _gather(
        self, opened: Asked, request: wire.TrainRequest, charged: dict[str, Event], dropouts: dict[str, str]
    ) -> None:
        """Ask, and hand every answer that holds to the kind; note what was charged, and why an answer is missing."""
        taking = self.taking
        request, took = taking.lineages.named(request, opened.silos), []
        pattern = self._pattern(request)
        words = len(request.model_P) if pattern is None else pattern.sent
        own = {
            silo: replace(request, shares=shares, known=taking.known_heads.known(silo))
            for silo, shares in opened.silos.items()
        }
        with taking.known_heads.kept_together():
            for silo, reply in taking.ask(wire.TRAIN, request.round_number, wire.train_requests(request, own)):
                with excused(dropouts, silo):
                    answer = self._read(answered(reply))
                    check_answer(answer, request.round_number, words, self._expected(silo, request))
                    taking.known_heads.follow(silo, answer.head)
                    charged[silo] = answer.charged
                    self._add(silo, answer)
                    took.append(silo)
        taking.lineages.answered(request, took)

    def _pattern(self, request: wire.TrainRequest) -> Pattern | None:
        """Return which words of an answer are sent, None where all are."""
        return pattern_of(self.taking.scenario, request.round_number, len(request.model_P))

    def _expected(self, silo: str, request: wire.TrainRequest) -> Event:
        """Return what a silo is to charge for a round: as it said on joining, or by the scenario's own figures."""
        scenario = self.taking.scenario
        if request.job == TRAINING:
            first = self.taking.joined.members[silo].charge
            return plans.event_of_round(scenario, silo, first, request.round_number)
        return plans.planned_event(scenario.plan_besides(silo, request.job))

    @abstractmethod
    def _open(self, number: int, cohort: list[str]) -> Asked:
        """Begin a round, and return who is asked; a `ProtocolError` fails it closed, and nobody is."""

    def _check_asked(self, silos: list[str]) -> None:
        """Refuse a round that could not come to a mean, before any of these silos pays for it."""

    @abstractmethod
    def _read(self, reply: Message) -> Answer:
        """Decode an answer."""

    @abstractmethod
    def _add(self, silo: str, answer: Answer) -> None:
        """Take in an answer that was found to be to this question; an error of ours drops its silo."""

    @abstractmethod
    def _close(self) -> Mean:
        """Make a mean of what was taken in; a `ProtocolError` fails the round closed."""

    def _failed(self, _dropouts: Mapping[str, str]) -> None:
        """Note that the round failed closed, and let go of what was taken in."""


def put_back(mean_K: NDArray[np.float32], pattern: Pattern | None) -> NDArray[np.float32]:
    """Return the whole mean, or an estimate of it where a part of each answer was sent."""
    return mean_K if pattern is None else pattern.put(mean_K)


def check_answer(answer: wire.TrainReply | wire.MaskedReply, round_number: int, words: int, expected: Event) -> None:
    """Refuse an answer to another round or another vector, or one charged otherwise than planned.

    Raises:
        ProtocolError: Which of them.
    """
    if answer.round_number != round_number:
        raise ProtocolError("an answer came for another round")
    if answer.vector.shape != (words,):
        raise ProtocolError("an update came for another model")
    if answer.charged != expected:
        raise ProtocolError("an update was charged otherwise than planned")
