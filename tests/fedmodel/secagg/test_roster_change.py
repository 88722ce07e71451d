"""A roster, or a policy, that changes in the middle of a window: no silo goes on with what it kept under the other.

Numbers are places in the roster. A server chooses when a silo sees a newer roster, so it could have silos mask under
one and reveal under another, where those that it had "vanish" look like survivors; both secrets of a victim were given
then, and its update stood alone.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

from fedmodel.crypto import SigningKey, digest
from fedmodel.errors import AggregationRefused
from fedmodel.secagg import Participant, Roster, Setting, Window
from fedmodel.secagg.messages import Mask, MessageScope, Share
from fedmodel.secagg.parameters import Member, Policy
from fedmodel.secagg.ring import Words

NAMES = ("b", "c", "d", "e", "f")
RUN, WINDOW, VICTIM = 7, Window(7, 1, 1, 2), 3
POLICY = Policy(n_min=3, colluding=0, dropping=1, bound=1.0, largest_roster=10)
MODEL, CONFIGURATION = digest(b"fedmodel/v1/test", b"model"), digest(b"fedmodel/v1/test", b"configuration")


class Federation:
    """Five silos that keep their states as bytes, and a server that shows each whatever roster it likes."""

    def __init__(self) -> None:
        self.keys = {name: SigningKey.generate() for name in ("a", *NAMES)}
        self.states: dict[str, bytes] = {}

    def roster(self, *names: str) -> Roster:
        return Roster("fed", tuple(Member(name, self.keys[name].public) for name in names))

    def silo(self, name: str, roster: Roster, policy: Policy = POLICY) -> Participant:
        return Participant(self.keys[name], roster, policy, RUN, self.states.get(name))

    def mask_all(self) -> bytes:
        """Bring all to a masked first round under one roster, the victim with the shares of two others alone."""
        roster = self.roster(*NAMES)
        place = MessageScope(Setting(roster, POLICY, WINDOW), 1)
        silos = {name: self.silo(name, roster) for name in NAMES}
        adverts = [silos[name].advert(WINDOW) for name in NAMES]
        dealt = {}
        for number, name in enumerate(NAMES, start=1):
            for data in silos[name].deal(adverts):
                dealt[number, Share.read(data, place).receiver] = data
        context = b""
        for number, name in enumerate(NAMES, start=1):
            dealers = [2, 5] if number == VICTIM else [other for other in range(1, 6) if other != number]
            silos[name].receive([dealt[dealer, number] for dealer in dealers])
            words: Words = np.full(10, number, dtype=np.uint32)
            context = Mask.read(silos[name].mask(1, words, MODEL, CONFIGURATION), place).context
            self.states[name] = silos[name].state()
        return context


@pytest.mark.parametrize("names", [NAMES[1:], ("a", *NAMES)], ids=["one revoked", "one added"])
def test_what_was_dealt_under_one_roster_is_revealed_under_no_other(names: tuple[str, ...]) -> None:
    federation = Federation()
    context = federation.mask_all()
    other = federation.roster(*names)
    survivors = (1, 3, 4) if "a" not in names else (1, 2, 4)
    commits = []
    present = [name for name in NAMES if name in names]
    for name in present:
        silo = federation.silo(name, other)
        with suppress(AggregationRefused):  # it is on the list, and has no part in the round any more
            commits.append(silo.commit(1, 1, context, survivors))
        federation.states[name] = silo.state()
    for name in present:
        with pytest.raises(AggregationRefused):
            federation.silo(name, other).reveal(1, 1, context, survivors, commits)


def test_a_policy_that_changes_ends_the_window_as_well() -> None:
    federation = Federation()
    context = federation.mask_all()
    looser = Policy(n_min=3, colluding=0, dropping=1, bound=1.0, largest_roster=11)
    silo = federation.silo("c", federation.roster(*NAMES), looser)
    with pytest.raises(AggregationRefused):
        silo.reveal(1, 1, context, (1, 2, 4), [])
    assert not silo.has_received
    assert b"held" not in silo.state()


def test_under_the_same_roster_and_policy_a_window_goes_on() -> None:
    federation = Federation()
    context = federation.mask_all()
    silo = federation.silo("c", federation.roster(*NAMES))
    assert silo.has_received
    assert silo.commit(1, 1, context, (1, 2, 4))


def test_what_was_done_in_a_round_stays_done_under_another_roster() -> None:
    """Masked is masked: a silo is no fresh one for the round that it masked."""
    federation = Federation()
    federation.mask_all()
    silo = federation.silo("c", federation.roster("a", *NAMES))
    with pytest.raises(AggregationRefused):
        silo.advert(WINDOW)
    assert silo.advert(Window(RUN, 1, 2, 2))
