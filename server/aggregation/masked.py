"""Rounds in which the server opens only the sum: the stages of secure aggregation over Flower's Grid.

    advert, share    once a window of rounds; adverts ride on joining and on the last reveal, unless a silo missed it
    train            the model goes out, with a window's shares; masked updates come back
    commit           every member of the roster is asked to sign one list of survivors
    reveal           at most one share a peer; the sum

A silo that misses a stage is a dropout of what that stage was for, and is back with the next round or window; one that
was left out because neighbours and it disagree on what was dealt, with the next window. Below
quorum or threshold the round fails closed: the model stays as it was, what was charged stays charged, and the next
round has secrets of its own. A failed dealing is begun again with fresh adverts and a higher attempt.

Simulated, the same words are summed without masks, and the server sees them.

Shapes: P parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict

from fedmodel import wire
from fedmodel.config import Scenario
from fedmodel.errors import AggregationRefused, DropoutError, PrivacyBudgetExceeded, ProtocolError
from fedmodel.privacy.events import Event
from fedmodel.provision import scenario_policy
from fedmodel.secagg import MOST_ATTEMPTS, Collection, Roster, Setting, Tally, Window, sender_of
from fedmodel.secagg.masking import Words
from server.exchange import Post
from server.known_heads import KnownHeads
from server.lineages import Lineages
from server.joining import (
    Joined,
    RoundResult,
    answered,
    check_answer,
    excused,
    log_dropouts,
    only,
    reasons,
    too_few,
)
from server.aggregation._sums import check_even_sum, mean_of_sum

logger = logging.getLogger(__name__)


class SecureRounds:
    """Secure aggregation in one run.

    Args:
        post: Carries the questions.
        scenario: Whose policy every silo is asked to have.
        roster: Of the whole federation.
        known_heads: Keeps the heads of its silos' ledgers.
        joined: Who takes part.
        cohort_of: Who trains in a round.
        lineages: What silos hold between rounds.
        withdrawn: Who is asked no more; it grows.
    """

    def __init__(
        self,
        post: Post,
        scenario: Scenario,
        roster: Roster,
        known_heads: KnownHeads,
        joined: Joined,
        cohort_of: Callable[[int], list[str]],
        lineages: Lineages,
        withdrawn: Container[str] = (),
    ) -> None:
        self._lineages = lineages
        self._post, self._scenario, self._roster, self._witness = post, scenario, roster, known_heads
        self._policy = scenario_policy(scenario)
        self._members, self._cohort_of, self._withdrawn = joined.members, cohort_of, withdrawn
        self._numbers = {member.name: number for number, member in enumerate(roster.members, start=1)}
        self._names = {number: name for name, number in self._numbers.items()}
        self._adverts: dict[Window, dict[str, bytes]] = {window_from(scenario, post.run, 1, 1): joined.adverts}
        self._collection: Collection | None = None
        self._missing: dict[str, str] = {}
        self._holding: set[str] = set()
        self._barred: set[str] = set()
        self._number = 0

    def state(self) -> dict[str, Any]:
        """Return what the next round stands on besides the live window's messages, as plain data."""
        (following, adverts), *_ = *self._adverts.items(), (None, {})
        return {
            "roster": self._roster.digest.hex(),
            "window": _fields(self._live_window),
            "following": _fields(following),
            "adverts": {silo: data.hex() for silo, data in adverts.items()},
            "missing": dict(self._missing),
            "holding": sorted(self._holding),
            "barred": sorted(self._barred),
        }

    def dealt(self) -> tuple[list[bytes], list[bytes]] | None:
        """Return the ADVERTs and SHAREs of the window that the next round stands on, None where it stands on none."""
        live = None if self._live_window is None else self._collection
        return None if live is None else live.messages()

    def take_up(self, state: Mapping[str, Any], dealt: tuple[list[bytes], list[bytes]] | None) -> bool:
        """Go on from what `state` and `dealt` returned once, in a process that is gone.

        Returns:
            Whether it goes on. Under another roster no secret of the window holds, at silos neither: the round at hand
            begins with fresh ones, and whoever was masked in it already is out of it.

        Raises:
            ProtocolError: When the two are not of one moment.
        """
        if state["roster"] != self._roster.digest.hex():
            logger.warning("the roster is another than the run's last round had; the round at hand begins afresh")
            self._adverts = {}
            return False
        window, following = (_window_of(state[key], self._post.run) for key in ("window", "following"))
        adverts = {silo: bytes.fromhex(data) for silo, data in state["adverts"].items()}
        self._adverts = {} if following is None else {following: adverts}
        self._missing, self._holding = dict(state["missing"]), set(state["holding"])
        self._barred = set(state["barred"])
        self._collection = None
        if window is not None:
            if dealt is None:
                raise ProtocolError("a window's messages are not where its round was kept")
            self._collection = Collection.again(Setting(self._roster, self._policy, window), *dealt)
        return True

    @property
    def _live_window(self) -> Window | None:
        """The window that the next round stands on, None where that round will be dealt for."""
        if self._collection is None or self._number >= self._collection.setting.window.rounds[-1]:
            return None
        return self._collection.setting.window

    @property
    def needed(self) -> int:
        """How many silos the next round needs: what a sum needs in a window that was dealt, or else a cohort."""
        return self._policy.least_cohort if self._live_window is None else self._policy.n_min

    def train_round(self, cohort: list[str], request: wire.TrainRequest) -> RoundResult:
        """Bring a round to its sum, or to a closed failure with a reason."""
        dropouts: dict[str, str] = {}
        charged: dict[str, Event] = {}
        number = self._number = request.round_number
        tally: Tally | None = None
        asked: tuple[str, ...] = ()
        try:
            collection = self._window(number, cohort)
            dropouts.update({silo: code for silo, code in self._missing.items() if silo not in self._withdrawn})
            tally = Tally(collection, number)
            asked = self._asked(collection)
            check_even_sum(self._scenario, [silo for silo in asked if silo not in self._missing])  # before any pays
            self._train(tally, request, charged, dropouts)
            try:
                survivors = [self._names[one] for one in tally.close_masked()]
            finally:  # asked for the window's other rounds, they would pay and be left out of each
                self._missing |= {self._names[one]: AggregationRefused.code for one in tally.at_odds}
            check_even_sum(self._scenario, survivors)
            self._commit(tally)
            total_P = self._reveal(tally)
        except ProtocolError as error:
            if tally is not None and tally.false_dealers:
                self._log_named(number, tally.blamed)
                self._barred |= {self._names[one] for one in tally.false_dealers}
                self._collection = None  # its other rounds would end alike
            if PrivacyBudgetExceeded.code in dropouts.values():
                self._collection = None  # dealt for silos that are asked no more
            log_dropouts(number, dropouts)
            gone = f"; dropped out: {reasons(dropouts)}" if dropouts else ""
            return RoundResult(None, charged, dropouts, f"round {number} failed closed: {error}{gone}", asked=asked)
        for silo in charged.keys() - set(survivors):
            dropouts.setdefault(silo, AggregationRefused.code)
        self._log_named(number, tally.blamed)
        log_dropouts(number, dropouts)
        update_P = mean_of_sum(total_P, survivors, self._policy.quantizer, self._scenario.federation)
        threshold = collection.topology.threshold
        return RoundResult(update_P, charged, dropouts, threshold=threshold, asked=asked, summed=len(survivors))

    def _asked(self, collection: Collection) -> tuple[str, ...]:
        """Return who of a window's cohort is asked, or would be had their shares come: all that have not left."""
        names = {self._names[number] for number in collection.dealt} | self._missing.keys()
        return tuple(sorted(name for name in names if name not in self._withdrawn))

    def _window(self, number: int, cohort: list[str]) -> Collection:
        """Return the live window, or deal for one that begins with this round."""
        live = self._collection
        if live is not None and number in live.setting.window.rounds:
            return live
        self._collection, why = None, ""
        for attempt in range(1, MOST_ATTEMPTS + 1):
            try:
                self._collection = self._deal(window_from(self._scenario, self._post.run, number, attempt), cohort)
            except ProtocolError as error:
                why = str(error)
                logger.warning("round %d, attempt %d: shares were not dealt: %s", number, attempt, error)
            else:
                return self._collection
        raise DropoutError(f"shares were not dealt in {MOST_ATTEMPTS} attempts: {why}")

    def _deal(self, window: Window, cohort: list[str]) -> Collection:
        """Collect adverts and shares for a window."""
        collection = Collection(Setting(self._roster, self._policy, window))
        self._missing, self._holding = dict.fromkeys(self._barred & set(cohort), AggregationRefused.code), set()
        cohort = [silo for silo in cohort if silo not in self._barred]
        adverts = self._adverts.pop(window, {})
        late = dict.fromkeys((silo for silo in cohort if silo not in adverts), wire.advert_request(window))
        for silo, reply in self._ask(wire.ADVERT, window.first, late):
            with excused(self._missing, silo):
                adverts[silo] = only(wire.read_protocol_reply(answered(reply)))
        for silo in sorted(adverts.keys() & set(cohort)):
            with excused(self._missing, silo):
                collection.add_advert(self._own(silo, adverts[silo]))
        told = wire.share_request(collection.close_adverts())
        everyone = dict.fromkeys((self._names[number] for number in collection.cohort), told)
        for silo, reply in self._ask(wire.SHARE, window.first, everyone):
            with excused(self._missing, silo):
                messages = wire.read_protocol_reply(answered(reply))
                collection.add_shares([self._own(silo, data) for data in messages])
        self._missing.update({self._names[number]: AggregationRefused.code for number in collection.blamed})
        self._log_named(window.first, collection.blamed)
        collection.check_enough_dealt()
        logger.info(
            "rounds %d to %d: %d silos dealt, %d neighbours each, threshold %d, quorum %d of %d",
            window.first,
            window.rounds[-1],
            len(collection.dealt),
            collection.topology.degree,
            collection.topology.threshold,
            self._policy.quorum(self._roster),
            len(self._roster),
        )
        return collection

    def _train(
        self, tally: Tally, request: wire.TrainRequest, charged: dict[str, Event], dropouts: dict[str, str]
    ) -> None:
        """Send the model, with the window's shares to whoever may not have them yet; take masked updates in."""
        collection = tally.collection
        numbers = {self._names[number]: number for number in sorted(collection.dealt)}
        gone = [silo for silo in numbers if silo in self._withdrawn or silo in self._missing]
        for silo in gone:
            del numbers[silo]
        request, own = self._lineages.named(request, numbers), {}
        for silo, number in numbers.items():
            shares = () if silo in self._holding else tuple(collection.shares_for(number))
            own[silo] = replace(request, shares=shares, known=self._witness.known(silo))
        for silo, reply in self._ask(wire.TRAIN, request.round_number, wire.train_requests(request, own)):
            with excused(dropouts, silo):
                answer = wire.read_masked_reply(answered(reply), self._policy.ring_bits)
                check_answer(answer, answer.words_P.shape, request, self._members[silo])
                self._witness.follow(silo, answer.head)
                charged[silo] = answer.charged
                self._holding.add(silo)
                tally.add_masked(self._own(silo, answer.mask), answer.words_P)
                self._lineages.answered(request, [silo])

    def _commit(self, tally: Tally) -> None:
        """Ask everybody in the roster to sign the list of survivors, until a quorum has."""
        if self._policy.consistency == "quorum":
            return
        failed: dict[str, str] = {}
        for silo, reply in self._ask(wire.COMMIT, tally.number, self._on_survivors(tally, self._members)):
            with excused(failed, silo):
                tally.add_commit(self._own(silo, only(wire.read_protocol_reply(answered(reply)))))
            if tally.has_quorum:
                break
        _log_failed(tally.number, "commit", failed)

    def _reveal(self, tally: Tally) -> Words:
        """Ask for shares until they give the sum, and for the next window's adverts."""
        failed: dict[str, str] = {}
        window, following = self._next_window(tally)
        dealers = [self._names[number] for number in sorted(tally.collection.dealt)]
        contents = self._on_survivors(tally, dealers, tuple(tally.commits()), window, following)
        adverts: dict[str, bytes] = {}
        tried = False
        for silo, reply in self._ask(wire.REVEAL, tally.number, contents):
            with excused(failed, silo):
                answer = wire.read_reveal_reply(answered(reply))
                if answer.advert:
                    adverts[silo] = answer.advert
                tally.add_reveal(self._own(silo, answer.reveal))
            if tally.is_recoverable and not following and not tried:
                tried = True
                with suppress(DropoutError):  # of a false share: all that are still to come may do without it
                    return tally.total()
        if window is not None:
            self._adverts[window] = adverts
        _log_failed(tally.number, "reveal", failed)
        return tally.total()

    def _next_window(self, tally: Tally) -> tuple[Window | None, list[str]]:
        """Return the window after this round, if this round is the last of its own, and who is to be in it."""
        number = tally.number
        if number != tally.collection.setting.window.rounds[-1] or number >= self._scenario.rounds:
            return None, []
        return window_from(self._scenario, self._post.run, number + 1, attempt=1), self._cohort_of(number + 1)

    def _on_survivors(
        self,
        tally: Tally,
        silos: Iterable[str],
        commits: tuple[bytes, ...] = (),
        window: Window | None = None,
        following: Sequence[str] = (),
    ) -> dict[str, RecordDict]:
        """Return what silos are asked about the list of survivors."""
        attempt = tally.collection.setting.window.attempt
        asked = wire.SurvivorsRequest(tally.number, attempt, tally.context, tally.survivors, commits)
        told, told_too = wire.survivors_request(asked), wire.survivors_request(replace(asked, window=window))
        return {silo: told_too if silo in following else told for silo in silos}

    def _ask(self, kind: str, number: int, contents: Mapping[str, RecordDict]) -> Iterator[tuple[str, Message | None]]:
        nodes = {silo: (self._members[silo].node_id, content) for silo, content in contents.items()}
        return self._post.ask(kind, number, nodes)

    def _own(self, silo: str, data: bytes) -> bytes:
        """Return a message that says it is of the silo that brought it."""
        if sender_of(data) != self._numbers[silo]:
            raise ProtocolError("a silo brought a message of another's")
        return data

    def _log_named(self, number: int, blamed: Mapping[int, str]) -> None:
        for silo, reason in sorted(blamed.items()):
            logger.warning("round %d: silo %s: %s", number, self._names[silo], reason)


def simulated_round(
    post: Post,
    scenario: Scenario,
    known_heads: KnownHeads,
    joined: Joined,
    cohort: list[str],
    request: wire.TrainRequest,
    lineages: Lineages,
) -> RoundResult:
    """Sum the same words as secure aggregation would, unmasked: the same numerics, and no secrecy."""
    policy, number = scenario_policy(scenario), request.round_number
    request = lineages.named(request, cohort)
    contents = wire.train_requests(request, {silo: replace(request, known=known_heads.known(silo)) for silo in cohort})
    words: dict[str, Words] = {}
    charged: dict[str, Event] = {}
    dropouts: dict[str, str] = {}
    nodes = {silo: (joined.members[silo].node_id, content) for silo, content in contents.items()}
    for silo, reply in post.ask(wire.TRAIN, number, nodes):
        with excused(dropouts, silo):
            answer = wire.read_masked_reply(answered(reply), policy.ring_bits)
            check_answer(answer, answer.words_P.shape, request, joined.members[silo])
            known_heads.follow(silo, answer.head)
            words[silo], charged[silo] = answer.words_P, answer.charged
    lineages.answered(request, words)
    log_dropouts(number, dropouts)
    if len(words) < policy.n_min:
        failure = too_few(f"to finish round {number}", len(words), policy.n_min, dropouts)
        return RoundResult(None, charged, dropouts, failure)
    try:
        check_even_sum(scenario, list(words))
    except DropoutError as error:
        return RoundResult(None, charged, dropouts, f"round {number} failed closed: {error}")
    first, *others = words.values()
    total_P = first.copy()
    for words_P in others:
        np.add(total_P, words_P, out=total_P)
    update_P = mean_of_sum(total_P, list(words), policy.quantizer, scenario.federation)
    return RoundResult(update_P, charged, dropouts, summed=len(words))


def _fields(window: Window | None) -> list[int] | None:
    """Return a window of the run as plain data."""
    return None if window is None else [window.first, window.attempt, window.count]


def _window_of(fields: Sequence[int] | None, run: int) -> Window | None:
    """Return the window of the run that `_fields` wrote down."""
    return None if fields is None else Window(run, *fields)


def window_from(scenario: Scenario, run: int, first: int, attempt: int) -> Window:
    """Return the window that begins with a round; windows end where multiples of their length do, or with the run."""
    last = min(cohort_round(scenario, first) + scenario.encryption.window - 1, scenario.rounds)
    return Window(run, first, attempt, last - first + 1)


def is_advert_of(scenario: Scenario, roster: Roster, window: Window | None, silo: str, advert: bytes) -> bool:
    """Return whether bytes are the ADVERT for a window of the silo of this name."""
    if window is None:
        return False
    names = [member.name for member in roster.members]
    try:
        number = Collection(Setting(roster, scenario_policy(scenario), window)).add_advert(advert)
    except AggregationRefused:
        return False
    return names[number - 1] == silo


def cohort_round(scenario: Scenario, number: int) -> int:
    """Return the round whose cohort a round has: within a window, it stays."""
    if scenario.encryption.secure_aggregation == "off":
        return number
    return number - (number - 1) % scenario.encryption.window


def _log_failed(number: int, stage: str, failed: Mapping[str, str]) -> None:
    """Keep for the log alone who missed a stage that the round can do without them."""
    for silo, code in failed.items():
        logger.info("round %d: silo %s did not %s: %s", number, silo, stage, code)
