"""How a run begins, or is taken up again: who takes part, under which kind of aggregation, and waiting for them."""

from __future__ import annotations

import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, Final

from fedmodel.config import Scenario
from fedmodel.errors import DropoutError
from fedmodel.provision import read_roster
from fedmodel.secagg import Roster
from fedmodel.system.counts import counted
from server.aggregation import Aggregation, Taking, kind_of
from server.answers import reasons, too_few
from server.exchange import NOWHERE, Post
from server.joining import GIVEN_BACK, NOTHING_RESERVED, Joined, JoinedSilo, find_again, find_ready, join
from server.journal import Checkpoint, Dealt
from server.known_heads import KnownHeads
from server.lineages import Lineages
from server.strategies import Combining, Strategy

LOOK_S: Final = 0.5
"""Before a round, for silos that had not come back when the run was taken up again."""
_MOST_WAITS: Final = 10


def begin(post: Post, scenario: Scenario, strategy: Strategy, home: Path) -> Aggregation[Any]:
    """Let the silos that could take part join, if a run can begin with them, and return how rounds go among them.

    Raises:
        DropoutError: When those that could are too few to begin, and nobody reserved anything; or those that joined
            are, and none of them was charged.
    """
    kind, roster = kind_of(scenario), read_roster(home)
    known_heads = KnownHeads(home / "heads", roster)
    window = kind.first_window(scenario, post.run)
    ready = find_ready(post, scenario, known_heads)
    check_can_begin(scenario, roster, ready, NOTHING_RESERVED)
    joined = join(post, scenario, known_heads, ready, window, partial(kind.is_advert_of, scenario, roster, window))
    check_can_begin(scenario, roster, joined, GIVEN_BACK)
    return kind(_taking(post, scenario, strategy, roster, known_heads, joined, Lineages(scenario, post.run)))


def take_up(
    post: Post, scenario: Scenario, strategy: Strategy, home: Path, kept: Checkpoint, dealt: Dealt | None
) -> Aggregation[Any]:
    """Find the silos of a run again, and return how its rounds go on.

    Raises:
        DropoutError: When too few came back.
        ProtocolError: When the checkpoint, and what was dealt, are not of one moment.
    """
    roster = read_roster(home)
    known_heads, members = KnownHeads(home / "heads", roster), known_again(roster, kept)
    revoked = dict.fromkeys(kept.charges.keys() - members.keys(), "lost")
    joined = Joined(members, {**kept.absent, **revoked}, withdrawn=dict(kept.withdrawn))
    lineages = Lineages(scenario, post.run, kept.lineages)
    aggregation = kind_of(scenario)(_taking(post, scenario, strategy, roster, known_heads, joined, lineages))
    _wait_for_silos(aggregation.taking)
    if not aggregation.take_up(kept.secure, dealt):
        post.start_over()
    return aggregation


def _taking(
    post: Post,
    scenario: Scenario,
    strategy: Strategy,
    roster: Roster,
    known_heads: KnownHeads,
    joined: Joined,
    lineages: Lineages,
) -> Taking:
    kind = kind_of(scenario)

    def cohort(number: int) -> list[str]:
        return strategy.choose(joined.left, kind.cohort_round(scenario, number))

    combine = strategy.combine if isinstance(strategy, Combining) else None
    return Taking(post, scenario, roster, known_heads, joined, cohort, lineages, combine)


def check_can_begin(scenario: Scenario, roster: Roster, joined: Joined, then: str) -> None:
    """Refuse to begin a run with silos of which no round could come to a mean; none of them was charged yet.

    Guarantee: in a run that may begin, and whose silos all stay, every round has a cohort that its policy allows and
    a quorum to sign its list of survivors; and where all that joined train in each, their sum is even enough to be
    opened. Who did not join stays out of a run that began, so one that began with too few would fail in every round,
    whoever is back by then.

    Args:
        scenario: What is to be done.
        roster: Who is in the federation.
        joined: Who joined, or could.
        then: What of reservations, in a sentence, where it is too few.

    Raises:
        DropoutError: What is in the way, the keys that it follows from, and who did not join.
    """
    obstacle = kind_of(scenario).obstacle(scenario, roster, list(joined.members))
    if obstacle:
        gone = f"; did not join: {reasons(joined.absent)}. Each silo's own log says why" if joined.absent else ""
        raise DropoutError(f"{too_few(len(joined.members))} to begin: {obstacle}{gone}. {then}")


def known_again(roster: Roster, kept: Checkpoint) -> dict[str, JoinedSilo]:
    """Return those who joined a run that is taken up again and are still in the federation, wherever they are now."""
    silos = {member.name for member in roster.members}
    return {silo: JoinedSilo(NOWHERE, charge) for silo, charge in kept.charges.items() if silo in silos}


def wait_for_nodes(taking: Taking) -> None:
    """Wait, for a round's time-out at most, while fewer silos are connected than a round needs: it could only fail."""
    left = taking.joined.left
    needed = _needed(taking, left)
    deadline = time.monotonic() + taking.scenario.federation.round_timeout_s
    while time.monotonic() < deadline:
        there = set(taking.post.present())
        if sum(taking.joined.members[silo].node_id in there for silo in left) >= needed:
            return
        time.sleep(LOOK_S)


def _wait_for_silos(taking: Taking) -> None:
    """Wait until the silos of a run that is taken up again are back: for all as long as for a round, then for enough.

    Raises:
        DropoutError: When they are not after ten times the round's time-out.
    """
    joined, left = taking.joined, taking.joined.left
    timeout_s, started = taking.scenario.federation.round_timeout_s, time.monotonic()
    needed = _needed(taking, left)
    while True:
        find_again(taking.post, taking.scenario, taking.known_heads, joined.members, LOOK_S)
        back = [silo for silo in left if joined.members[silo].node_id != NOWHERE]
        waited_s = time.monotonic() - started
        if len(back) == len(left) or (len(back) >= needed and waited_s >= timeout_s):
            return
        if waited_s >= _MOST_WAITS * timeout_s:
            raise DropoutError(
                f"{counted(len(back), 'silo')} came back for a run that was taken up again, where a round needs"
                f" {needed}; start the others, and submit the scenario again"
            )
        time.sleep(LOOK_S)


def _needed(taking: Taking, silos: Collection[str]) -> int:
    """Return how many silos a round needs, all that can be asked where they are fewer."""
    return min(kind_of(taking.scenario).least_present(taking.scenario, taking.roster), len(silos))
