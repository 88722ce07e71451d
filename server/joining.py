"""Joining a run: every node says which silo it is and whether it could take part, and then reserves; and who has left.

    find_ready   asks all nodes; no silo reserves anything for it
    join         asks those that were ready, once they are enough for a run, to reserve what they plan to spend

A node that refuses, fails or is late is absent, by code. So a silo that cannot take part costs the others nothing. One
that was ready and does not join, as it was killed in between, leaves reservations of the others behind where they are
too few without it: those are given back by the silos themselves (`clients.silo.HELD`).
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from fedmodel import plans, wire
from fedmodel.config import Scenario
from fedmodel.errors import DropoutError, PrivacyBudgetExceeded, ProtocolError
from fedmodel.privacy import accounting
from fedmodel.privacy.events import Event
from fedmodel.secagg import Window
from server.answers import answered, excused, reasons, too_few
from server.exchange import NOWHERE, Post
from server.known_heads import KnownHeads

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S: Final = 0.2
_MORE_TRIES: Final = 3
_TRY_AGAIN_S: Final = 1.0
NOTHING_RESERVED: Final = "No silo has reserved anything for it"
GIVEN_BACK: Final = (
    "What the others reserved is held for an hour, and then given back by each as soon as another run asks for it;"
    " `fedmodel ledger void` at a silo gives it back at once"
)
"""Said where a run does not begin though some silos reserved for it."""


@dataclass(frozen=True)
class JoinedSilo:
    """A silo that joined: its node, `NOWHERE` while it has none, and what it will charge for each round."""

    node_id: int
    charge: Event


_Claims = defaultdict[str, list[tuple[JoinedSilo, bytes]]]


@dataclass(frozen=True)
class Joined:
    """Who takes part in a run.

    Attributes:
        members: By silo.
        absent: Codes of the silos that are not among them; "lost" where it is not certain whose a code is, since a
            node that refuses does not say its name.
        adverts: By silo, its ADVERT for the first window, where it sent one.
        withdrawn: Members that are asked no more, and since when.
    """

    members: dict[str, JoinedSilo]
    absent: dict[str, str]
    adverts: dict[str, bytes] = field(default_factory=dict)
    withdrawn: dict[str, dict[str, str | int]] = field(default_factory=dict)

    @property
    def charges(self) -> dict[str, Event]:
        """What each member charges for a round; of the first phase, where lots grow."""
        return {silo: member.charge for silo, member in self.members.items()}

    @property
    def left(self) -> list[str]:
        """Who can still be asked."""
        return [silo for silo in self.members if silo not in self.withdrawn]

    def let_go(self, silo: str, code: str, round_number: int) -> bool:
        """Ask a silo no more that says its budget is spent, and return whether that is new."""
        if code != PrivacyBudgetExceeded.code or silo in self.withdrawn:
            return False
        self.withdrawn[silo] = {"round": round_number, "code": code}
        logger.warning("silo %s left in round %d: %s", silo, round_number, code)
        return True

    def take_back(self, since: int) -> None:
        """Ask those again that left after the run began, and before the first round of a phase: it is paid for apart.

        Args:
            since: The first round of the phase at hand; 1 where lots do not grow, and then nobody comes back.
        """
        for silo in [silo for silo in self.members if 0 < self.left_in(silo) < since]:
            del self.withdrawn[silo]
            logger.info("silo %s is asked again: lots grow, and the rounds of larger ones are paid for apart", silo)

    def left_in(self, silo: str) -> int:
        """Return the round that a silo left in; 0 where it did not, or was never there."""
        return int(self.withdrawn.get(silo, {"round": 0})["round"])


def find_ready(post: Post, scenario: Scenario, known_heads: KnownHeads) -> Joined:
    """Wait for the federation's nodes, and ask each who it is and whether it could take part.

    A node whose answer breaks the protocol, plans other than the scenario asks, or bears a name that is not in the
    federation, is left out; so is one that claims a name whose key did not sign its ledger's head. All nodes that claim
    one name are left out: a head can be shown by whoever carried it.

    Args:
        post: Carries the questions.
        scenario: What they are about.
        known_heads: Knows the silos' keys.

    Returns:
        Who could take part, and codes of the others; nobody reserved anything.

    Raises:
        DropoutError: When fewer than `min_silos` could.
    """
    silos = scenario.federation.silos
    claims, codes = _insisting(post, scenario, known_heads, _Question(wire.READY), post.nodes(len(silos)))
    sure = {silo: claims[silo][0][0] for silo in silos if len(claims[silo]) == 1}
    absent = [silo for silo in silos if silo not in sure]
    certain = len(codes) == len(absent) and len(set(codes.values())) == 1
    dropouts = dict.fromkeys(absent, next(iter(codes.values())) if certain else "lost")
    _check_enough(scenario, sure, dropouts, NOTHING_RESERVED)
    return Joined(sure, dropouts)


def join(
    post: Post,
    scenario: Scenario,
    known_heads: KnownHeads,
    ready: Joined,
    window: Window | None = None,
    signed: Callable[[str, bytes], bool] = lambda _, __: True,
) -> Joined:
    """Ask the silos that could take part to join and to reserve what they plan to spend.

    Who is left out is as in `find_ready`; so is, with secure aggregation, whoever claims a name whose key did not sign
    its ADVERT, and who is another silo now than it was.

    Args:
        post: Carries the questions.
        scenario: What they are about.
        known_heads: Knows the silos' keys.
        ready: Who could take part.
        window: What to advertise keys for, with secure aggregation.
        signed: Whether an ADVERT is that of the silo of this name.

    Raises:
        DropoutError: When fewer than `min_silos` joined before the deadline.
    """
    nodes = {silo: member.node_id for silo, member in ready.members.items()}
    question = _Question(wire.JOIN, window, signed)
    claims, codes = _insisting(post, scenario, known_heads, question, nodes.values())
    sure = {silo: claimed for silo, node in nodes.items() for claimed in claims[silo] if claimed[0].node_id == node}
    gone = {silo: codes.get(str(node), ProtocolError.code) for silo, node in nodes.items() if silo not in sure}
    members = {silo: member for silo, (member, _) in sure.items()}
    dropouts = {**ready.absent, **gone}
    _check_enough(scenario, members, dropouts, GIVEN_BACK)
    return Joined(members, dropouts, {silo: advert for silo, (_, advert) in sure.items() if advert})


def _check_enough(scenario: Scenario, members: Mapping[str, JoinedSilo], dropouts: dict[str, str], then: str) -> None:
    """Refuse to begin with fewer silos than the scenario asks for."""
    least = scenario.federation.min_silos
    if len(members) < least:
        raise DropoutError(
            f"{too_few(len(members))} to begin, where federation.min_silos = {least}; dropped out:"
            f" {reasons(dropouts)}. Each silo's own log says why. {then}"
        )


def find_again(
    post: Post, scenario: Scenario, known_heads: KnownHeads, members: dict[str, JoinedSilo], timeout_s: float
) -> None:
    """Look for the nodes of members that have none at present, in place, for so long at most.

    A silo that joined under one node may be back under another, once the SuperLink was started again. One that gave
    back what it had reserved, since nothing was charged in time, reserves it again or refuses. Nobody else is asked,
    where it is known whose nodes are: a silo that was not there when the run began would reserve it.
    """
    deadline = time.monotonic() + timeout_s
    asked = {member.node_id for member in members.values()}
    while lost := {silo for silo, member in members.items() if member.node_id == NOWHERE}:
        nodes = [node for node in post.present() if node not in asked]
        if post.owners:
            nodes = [node for node in nodes if post.owners.get(node) in lost]
        claims, _ = _claims(post, scenario, known_heads, _Question(wire.JOIN), nodes)
        for silo in lost:
            if len(claims[silo]) == 1 and claims[silo][0][0].charge == members[silo].charge:
                members[silo] = claims[silo][0][0]
        asked.update(nodes)
        if time.monotonic() >= deadline:
            return
        time.sleep(_LOOK_AGAIN_S)


@dataclass(frozen=True)
class _Question:
    """What nodes are asked: READY or JOIN, with the window to advertise for and who may have signed for it."""

    kind: str
    window: Window | None = None
    signed: Callable[[str, bytes], bool] = lambda _, __: True


def _insisting(
    post: Post, scenario: Scenario, known_heads: KnownHeads, question: _Question, nodes: Iterable[int]
) -> tuple[_Claims, dict[str, str]]:
    """Ask nodes whose they are, and those that are not heard of once more, some times and until the deadline."""
    silos, deadline = scenario.federation.silos, time.monotonic() + scenario.federation.round_timeout_s
    claims, codes = _claims(post, scenario, known_heads, question, nodes)
    for _ in range(_MORE_TRIES):
        unheard = [int(node) for node, code in codes.items() if code in ("late", "lost")]
        if not unheard or all(claims[silo] for silo in silos) or time.monotonic() >= deadline:
            break
        time.sleep(_TRY_AGAIN_S)  # a silo that has just been started again, or whose message was lost on the way
        more, still = _claims(post, scenario, known_heads, question, unheard)
        codes = {node: code for node, code in codes.items() if int(node) not in unheard} | still
        for silo, claimed in more.items():
            claims[silo].extend(claimed)
    return claims, codes


def _claims(
    post: Post, scenario: Scenario, known_heads: KnownHeads, question: _Question, nodes: Iterable[int]
) -> tuple[_Claims, dict[str, str]]:
    """Ask nodes whose they are. Returns who claims each name, with ADVERTs, and by node why there was no answer."""
    window = question.window
    content = wire.ready_request() if question.kind == wire.READY else wire.join_request(window, post.name)
    claims: _Claims = defaultdict(list)
    codes: dict[str, str] = {}
    for node_id, reply in post.ask_nodes(question.kind, dict.fromkeys(nodes, content)):
        with excused(codes, str(node_id)):
            answer = wire.read_join_reply(answered(reply))
            _check_plan(answer, scenario)
            known_heads.check(answer.silo, answer.head)
            if post.owners and post.owners.get(node_id) != answer.silo:
                raise ProtocolError("a node claims a name that its key is not registered for")
            if window is not None and not question.signed(answer.silo, answer.advert):
                raise ProtocolError("a node claims a name whose key did not sign for it")
            charge = replace(answer.plan, steps=scenario.plan(answer.silo).steps_per_round)
            claims[answer.silo].append((JoinedSilo(node_id, charge), answer.advert))
    return claims, codes


def _check_plan(answer: wire.JoinReply, scenario: Scenario) -> None:
    """Refuse a silo that is not of the federation, or that plans other than the scenario asks of it.

    Where a target is given, its noise is what meets that, to the tolerance of a calibration: of more, a report would
    claim less than the scenario asks for, by a silo's word alone. It says what it plans in the first phase of training;
    where lots grow, the later phases have that noise, or are not answered.
    """
    if answer.silo not in scenario.federation.silos:
        raise ProtocolError("a node joined under a name that is not in this federation")
    plan = scenario.plan(answer.silo)
    target = plan.target_epsilon
    if answer.plan != plans.allowed_event(plan, answer.plan):
        raise ProtocolError("a silo plans other than the scenario asks")
    parts = plans.parts_beginning(scenario, answer.silo, answer.plan)
    if target is not None and accounting.epsilon(parts, plan.delta) > target:
        raise ProtocolError("a silo plans less noise than its target epsilon needs")
    if plans.spares_noise(scenario, answer.silo, answer.plan):
        raise ProtocolError("a silo plans more noise than its target epsilon needs")
