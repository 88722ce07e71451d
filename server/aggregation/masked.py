"""Rounds in which the server opens only the sum: the stages of secure aggregation over Flower's Grid.

    advert, share    once a window of rounds (`server.aggregation._windows`)
    train            the model goes out, with a window's shares; masked updates come back
    commit           every member of the roster is asked to sign one list of survivors
    reveal           at most one share a peer; the sum

A silo that misses a stage is a dropout of what that stage was for, and is back with the next round or window; one that
was left out because neighbours and it disagree on what was dealt, with the next window. Below
quorum or threshold the round fails closed: the model stays as it was, what was charged stays charged, and the next
round has secrets of its own.

Shapes: P parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from flwr.app import Message, RecordDict

from fedmodel import wire
from fedmodel.config import Scenario
from fedmodel.errors import AggregationRefused, DropoutError, PrivacyBudgetExceeded, ProtocolError
from fedmodel.provision import least_silos, scenario_policy
from fedmodel.secagg import Policy, Roster, Tally, Window
from fedmodel.secagg.ring import Words
from server.aggregation._loop import Aggregation, Asked, Mean, Taking
from server.aggregation._sums import check_even_sum, mean_of_sum, uneven
from server.aggregation._windows import Windows, cohort_round, is_advert_of, window_from
from server.answers import answered, excused, only
from server.journal import Dealt

MODE: Final = "on"
logger = logging.getLogger(__name__)


class Rounds(Aggregation[wire.MaskedReply]):
    """No update is seen: each round opens one sum of them, of as many as every silo's law asks for."""

    KEEPS_ANSWERS = True
    """Silos sign one list of survivors, which follows from the order in which masked updates came."""

    def __init__(self, taking: Taking) -> None:
        super().__init__(taking)
        self._policy = scenario_policy(taking.scenario)
        self._windows = Windows(taking)
        self._tally: Tally | None = None

    @classmethod
    def first_window(cls, scenario: Scenario, run: int) -> Window | None:
        """Return the window that begins with the first round."""
        return window_from(scenario, run, first=1, attempt=1)

    @classmethod
    def is_advert_of(cls, scenario: Scenario, roster: Roster, window: Window | None, silo: str, advert: bytes) -> bool:
        """Return whether the ADVERT is signed by the key that the roster has for the silo."""
        return window is not None and is_advert_of(scenario, roster, window, silo, advert)

    @classmethod
    def obstacle(cls, scenario: Scenario, roster: Roster, silos: list[str]) -> str:
        """Return which rule of secure aggregation asks for more silos, or for other ones, than these."""
        policy = scenario_policy(scenario)
        if short := _too_few(policy, roster, len(silos)):
            return short
        try:
            policy.topology(min(scenario.federation.cohort_size, len(silos)))
        except ProtocolError as error:
            return str(error)
        return uneven(scenario, silos)

    @classmethod
    def cohort_round(cls, scenario: Scenario, number: int) -> int:
        """Return the first round of a round's window: secrets are dealt among one cohort for all of it."""
        return cohort_round(scenario, number)

    @classmethod
    def least_present(cls, scenario: Scenario, roster: Roster) -> int:
        """Return how many begin a round, or sign its list of survivors where that is more."""
        least = least_silos(scenario)
        return max(least, scenario_policy(scenario).quorum(roster)) if _signs(scenario_policy(scenario)) else least

    @property
    def needed(self) -> int:
        """How many silos the next round needs: what a sum needs in a window that was dealt, or else a cohort."""
        return self._policy.least_cohort if self._windows.live is None else self._policy.n_min

    def state(self) -> dict[str, Any]:
        """Return what the windows stand on."""
        return self._windows.state()

    def dealt(self) -> Dealt | None:
        """Return the live window's messages."""
        return self._windows.dealt()

    def take_up(self, state: Mapping[str, Any], dealt: Dealt | None) -> bool:
        """Go on in the window that was live, unless the roster is another by now."""
        return self._windows.take_up(state, dealt)

    def _open(self, number: int, cohort: list[str]) -> Asked:
        """Deal where the round is the first of its window; who was lost then, or since, and has not left, is out."""
        self._tally = None
        windows, withdrawn = self._windows, self.taking.joined.withdrawn
        collection = windows.at(number, cohort)
        self._tally = Tally(collection, number)
        missing = {silo: code for silo, code in windows.missing.items() if silo not in withdrawn}
        dealt = sorted(collection.dealt)
        shares = {
            silo: () if silo in windows.holding else tuple(collection.shares_for(number_of))
            for number_of, silo in zip(dealt, windows.names(dealt), strict=True)
            if silo not in withdrawn and silo not in windows.missing
        }
        return Asked(shares, missing)

    def _check_asked(self, silos: list[str]) -> None:
        check_even_sum(self.taking.scenario, silos)

    def _read(self, reply: Message) -> wire.MaskedReply:
        return wire.read_masked_reply(reply, self._policy.ring_bits)

    def _add(self, silo: str, answer: wire.MaskedReply) -> None:
        self._windows.holding.add(silo)
        self._under_way.add_masked(self._windows.own(silo, answer.mask), answer.words_P)

    def _close(self) -> Mean:
        """Fix who is in the sum, have the list signed, and open it."""
        tally, windows, scenario = self._under_way, self._windows, self.taking.scenario
        try:
            survivors = tuple(windows.names(tally.close_masked()))
        finally:  # asked for the window's other rounds, they would pay and be left out of each
            windows.missing |= dict.fromkeys(windows.names(tally.at_odds), AggregationRefused.code)
        check_even_sum(scenario, survivors)
        self._commit(tally)
        total_P = self._reveal(tally)
        windows.log_named(tally.number, tally.blamed)
        mean_P = mean_of_sum(total_P, survivors, self._policy.quantizer, self._counting)
        self._tally = None  # it holds every masked update
        return Mean(mean_P, survivors, tally.collection.topology.threshold)

    def _failed(self, dropouts: Mapping[str, str]) -> None:
        tally, self._tally = self._tally, None
        if tally is not None and tally.false_dealers:
            self._windows.log_named(tally.number, tally.blamed)
            self._windows.bar(tally.false_dealers)  # the window's other rounds would end alike
        if PrivacyBudgetExceeded.code in dropouts.values():
            self._windows.end()  # dealt for silos that are asked no more

    @property
    def _under_way(self) -> Tally:
        if self._tally is None:
            raise ProtocolError("no round was begun")
        return self._tally

    def _commit(self, tally: Tally) -> None:
        """Ask everybody in the roster to sign the list of survivors, until a quorum has."""
        if not _signs(self._policy):
            return
        failed: dict[str, str] = {}
        contents = self._on_survivors(tally, self.taking.joined.members)
        for silo, reply in self.taking.ask(wire.COMMIT, tally.number, contents):
            with excused(failed, silo):
                tally.add_commit(self._windows.own(silo, only(wire.read_protocol_reply(answered(reply)))))
            if tally.has_quorum:
                break
        _log_failed(tally.number, "commit", failed)

    def _reveal(self, tally: Tally) -> Words:
        """Ask for shares until they give the sum, and for the next window's adverts."""
        failed: dict[str, str] = {}
        window, following = self._windows.after(tally)
        dealers = self._windows.names(sorted(tally.collection.dealt))
        contents = self._on_survivors(tally, dealers, tuple(tally.commits()), window, following)
        adverts: dict[str, bytes] = {}
        tried = False
        for silo, reply in self.taking.ask(wire.REVEAL, tally.number, contents):
            with excused(failed, silo):
                answer = wire.read_reveal_reply(answered(reply))
                if answer.advert:
                    adverts[silo] = answer.advert
                tally.add_reveal(self._windows.own(silo, answer.reveal))
            if tally.is_recoverable and not following and not tried:
                tried = True
                with suppress(DropoutError):  # of a false share: all that are still to come may do without it
                    return tally.total()
        if window is not None:
            self._windows.keep(window, adverts)
        _log_failed(tally.number, "reveal", failed)
        return tally.total()

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


def _signs(policy: Policy) -> bool:
    """Return whether every silo of the roster is asked to sign a list of survivors."""
    return policy.consistency == "commit"


def _too_few(policy: Policy, roster: Roster, found: int) -> str:
    """Return which rule of secure aggregation asks for more silos than these, empty where none does."""
    quorum = policy.quorum(roster) if _signs(policy) else 0
    if found < policy.least_cohort:
        return (
            f"under secure aggregation {policy.least_cohort} silos begin a round at least (federation.min_silos ="
            f" {policy.n_min} is how many must be left in its sum); if the others stay out, name more under"
            " federation.silos, or turn encryption.secure_aggregation off"
        )
    if found < quorum:
        return (
            f"{quorum} of the {len(roster)} in federation.silos have to sign each list of survivors"
            f" (encryption.colluding = {policy.colluding}); if the others stay out, name those alone that take part"
        )
    return ""


def _log_failed(number: int, stage: str, failed: Mapping[str, str]) -> None:
    """Keep for the log alone who missed a stage that the round can do without them."""
    for silo, code in failed.items():
        logger.info("round %d: silo %s did not %s: %s", number, silo, stage, code)
