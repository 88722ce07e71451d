"""Windows of secure aggregation: which rounds share one dealing of secrets, and the dealing itself.

    advert, share    once a window of rounds; adverts ride on joining and on the last reveal, unless a silo missed it

A failed dealing is begun again with fresh adverts and a higher attempt. A silo that misses it is a dropout of every
round of the window, and is back with the next.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedmodel import wire
from fedmodel.config import Scenario
from fedmodel.errors import AggregationRefused, DropoutError, ProtocolError
from fedmodel.provision import scenario_policy
from fedmodel.secagg import MOST_ATTEMPTS, Collection, Roster, Setting, Tally, Window, sender_of
from server.aggregation._loop import Taking
from server.answers import answered, excused, only
from server.journal import Dealt

logger = logging.getLogger(__name__)


class Windows:
    """The windows of one run, of which one at most is live: dealt for, and not at its end.

    Attributes:
        missing: Codes of silos that are out of the live window, or out of the rounds of it that are left.
        holding: Silos that have the window's shares, so that they need not be sent again.

    Args:
        taking: What the run's rounds have in common.
    """

    def __init__(self, taking: Taking) -> None:
        self._taking, self._policy = taking, scenario_policy(taking.scenario)
        self._numbers = {member.name: number for number, member in enumerate(taking.roster.members, start=1)}
        self._names = {number: name for name, number in self._numbers.items()}
        first = window_from(taking.scenario, taking.post.run, 1, 1)
        self._adverts: dict[Window, dict[str, bytes]] = {first: taking.joined.adverts}
        self._collection: Collection | None = None
        self.missing: dict[str, str] = {}
        self.holding: set[str] = set()
        self._barred: set[str] = set()
        self._number = 0

    def state(self) -> dict[str, Any]:
        """Return what the next round stands on besides the live window's messages, as plain data."""
        (following, adverts), *_ = *self._adverts.items(), (None, {})
        return {
            "roster": self._taking.roster.digest.hex(),
            "window": _fields(self.live),
            "following": _fields(following),
            "adverts": {silo: data.hex() for silo, data in adverts.items()},
            "missing": dict(self.missing),
            "holding": sorted(self.holding),
            "barred": sorted(self._barred),
        }

    def dealt(self) -> Dealt | None:
        """Return the ADVERTs and SHAREs of the window that the next round stands on, None where it stands on none."""
        live = None if self.live is None else self._collection
        return None if live is None else live.messages()

    def take_up(self, state: Mapping[str, Any], dealt: Dealt | None) -> bool:
        """Go on from what `state` and `dealt` returned once, in a process that is gone.

        Returns:
            Whether it goes on. Under another roster no secret of the window holds, at silos neither: the round at hand
            begins with fresh ones, and whoever was masked in it already is out of it.

        Raises:
            ProtocolError: When the two are not of one moment.
        """
        roster = self._taking.roster
        if state["roster"] != roster.digest.hex():
            logger.warning("the roster is another than the run's last round had; the round at hand begins afresh")
            self._adverts = {}
            return False
        window, following = (_window_of(state[key], self._taking.post.run) for key in ("window", "following"))
        adverts = {silo: bytes.fromhex(data) for silo, data in state["adverts"].items()}
        self._adverts = {} if following is None else {following: adverts}
        self.missing, self.holding = dict(state["missing"]), set(state["holding"])
        self._barred = set(state["barred"])
        self._collection = None
        if window is not None:
            if dealt is None:
                raise ProtocolError("a window's messages are not where its round was kept")
            self._collection = Collection.again(Setting(roster, self._policy, window), *dealt)
        return True

    @property
    def live(self) -> Window | None:
        """The window that the next round stands on, None where that round will be dealt for."""
        if self._collection is None or self._number >= self._collection.setting.window.rounds[-1]:
            return None
        return self._collection.setting.window

    def at(self, number: int, cohort: list[str]) -> Collection:
        """Return the live window, or deal for one that begins with this round.

        Raises:
            DropoutError: When shares could not be dealt.
        """
        self._number = number
        live = self._collection
        if live is not None and number in live.setting.window.rounds:
            return live
        self._collection, why = None, ""
        for attempt in range(1, MOST_ATTEMPTS + 1):
            try:
                window = window_from(self._taking.scenario, self._taking.post.run, number, attempt)
                self._collection = self._deal(window, cohort)
            except ProtocolError as error:
                why = str(error)
                logger.warning("round %d, attempt %d: shares were not dealt: %s", number, attempt, error)
            else:
                return self._collection
        raise DropoutError(f"shares were not dealt in {MOST_ATTEMPTS} attempts: {why}")

    def end(self) -> None:
        """Deal afresh for the next round, whatever is left of the window."""
        self._collection = None

    def bar(self, dealers: Iterable[int]) -> None:
        """Leave silos whose shares were false out of every dealing to come, and end the window."""
        self._barred |= {self._names[one] for one in dealers}
        self.end()

    def keep(self, window: Window, adverts: dict[str, bytes]) -> None:
        """Keep the adverts that came for the next window."""
        self._adverts[window] = adverts

    def after(self, tally: Tally) -> tuple[Window | None, list[str]]:
        """Return the window after this round, if this round is the last of its own, and who is to be in it."""
        number, scenario = tally.number, self._taking.scenario
        if number != tally.collection.setting.window.rounds[-1] or number >= scenario.last_round:
            return None, []
        return window_from(scenario, self._taking.post.run, number + 1, attempt=1), self._taking.cohort_of(number + 1)

    def names(self, numbers: Iterable[int]) -> list[str]:
        """Return the names of silos by their numbers in the roster."""
        return [self._names[number] for number in numbers]

    def own(self, silo: str, data: bytes) -> bytes:
        """Return a message that says it is of the silo that brought it.

        Raises:
            ProtocolError: When it says another.
        """
        if sender_of(data) != self._numbers[silo]:
            raise ProtocolError("a silo brought a message of another's")
        return data

    def log_named(self, number: int, blamed: Mapping[int, str]) -> None:
        """Say whose messages did not fit."""
        for silo, reason in sorted(blamed.items()):
            logger.warning("round %d: silo %s: %s", number, self._names[silo], reason)

    def _deal(self, window: Window, cohort: list[str]) -> Collection:
        """Collect adverts and shares for a window."""
        taking = self._taking
        collection = Collection(Setting(taking.roster, self._policy, window))
        self.missing, self.holding = dict.fromkeys(self._barred & set(cohort), AggregationRefused.code), set()
        cohort = [silo for silo in cohort if silo not in self._barred]
        adverts = self._adverts.pop(window, {})
        late = dict.fromkeys((silo for silo in cohort if silo not in adverts), wire.advert_request(window))
        for silo, reply in taking.ask(wire.ADVERT, window.first, late):
            with excused(self.missing, silo):
                adverts[silo] = only(wire.read_protocol_reply(answered(reply)))
        for silo in sorted(adverts.keys() & set(cohort)):
            with excused(self.missing, silo):
                collection.add_advert(self.own(silo, adverts[silo]))
        told = wire.share_request(collection.close_adverts())
        everyone = dict.fromkeys(self.names(collection.cohort), told)
        for silo, reply in taking.ask(wire.SHARE, window.first, everyone):
            with excused(self.missing, silo):
                messages = wire.read_protocol_reply(answered(reply))
                collection.add_shares([self.own(silo, data) for data in messages])
        self.missing.update(dict.fromkeys(self.names(collection.blamed), AggregationRefused.code))
        self.log_named(window.first, collection.blamed)
        collection.check_enough_dealt()
        logger.info(
            "rounds %d to %d: %d silos dealt, %d neighbours each, threshold %d, quorum %d of %d",
            window.first,
            window.rounds[-1],
            len(collection.dealt),
            collection.topology.degree,
            collection.topology.threshold,
            self._policy.quorum(taking.roster),
            len(taking.roster),
        )
        return collection


def _fields(window: Window | None) -> list[int] | None:
    """Return a window of the run as plain data."""
    return None if window is None else [window.first, window.attempt, window.count]


def _window_of(fields: Sequence[int] | None, run: int) -> Window | None:
    """Return the window of the run that `_fields` wrote down."""
    return None if fields is None else Window(run, *fields)


def window_from(scenario: Scenario, run: int, first: int, attempt: int) -> Window:
    """Return the window that begins with a round; windows end where multiples of their length do, or with the run."""
    last = min(cohort_round(scenario, first) + scenario.encryption.window - 1, scenario.last_round)
    return Window(run, first, attempt, last - first + 1)


def cohort_round(scenario: Scenario, number: int) -> int:
    """Return the first round of the window that a round is in: within it, the cohort stays."""
    return number - (number - 1) % scenario.encryption.window


def is_advert_of(scenario: Scenario, roster: Roster, window: Window, silo: str, advert: bytes) -> bool:
    """Return whether bytes are the ADVERT for a window of the silo of this name."""
    names = [member.name for member in roster.members]
    try:
        number = Collection(Setting(roster, scenario_policy(scenario), window)).add_advert(advert)
    except AggregationRefused:
        return False
    return names[number - 1] == silo
