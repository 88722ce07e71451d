"""Joining a run: every node says, once, which silo it is and what it plans to spend; and who has left since.

A node that refuses, fails or is late is absent, by code.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from fedmodel import plans, wire
from fedmodel.config import Scenario
from fedmodel.errors import DropoutError, PrivacyBudgetExceeded, ProtocolError
from fedmodel.privacy import accounting
from fedmodel.privacy.events import Event
from fedmodel.secagg import Window
from server.answers import answered, excused, reasons
from server.exchange import NOWHERE, Post
from server.known_heads import KnownHeads

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S: Final = 0.2
_MORE_TRIES: Final = 3
_TRY_AGAIN_S: Final = 1.0


@dataclass(frozen=True)
class JoinedSilo:
    """A silo that joined: its node, `NOWHERE` while it has none, and what it will charge for each round."""

    node_id: int
    charge: Event


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
        """What each member charges for a round."""
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


def join(
    post: Post,
    scenario: Scenario,
    known_heads: KnownHeads,
    window: Window | None = None,
    signed: Callable[[str, bytes], bool] = lambda _, __: True,
) -> Joined:
    """Wait for the federation's nodes, and ask each who it is.

    A node whose answer breaks the protocol, plans other than the scenario asks, or bears a name that is not in the
    federation, is left out; so is one that claims a name whose key did not sign its ledger's head, and its ADVERT with
    secure aggregation. All nodes that claim one name are left out: a head can be shown by whoever carried it.

    Args:
        post: Carries the questions.
        scenario: What they are about.
        known_heads: Knows the silos' keys.
        window: What to advertise keys for, with secure aggregation.
        signed: Whether an ADVERT is that of the silo of this name.

    Raises:
        DropoutError: When fewer than `min_silos` joined before the deadline.
    """
    federation = scenario.federation
    deadline = time.monotonic() + federation.round_timeout_s
    claims, codes = _claims(post, scenario, known_heads, post.nodes(len(federation.silos)), window, signed)
    for _ in range(_MORE_TRIES):
        unheard = [int(node) for node, code in codes.items() if code in ("late", "lost")]
        if not unheard or all(claims[silo] for silo in federation.silos) or time.monotonic() >= deadline:
            break
        time.sleep(_TRY_AGAIN_S)  # a silo that has just been started again, or whose message was lost on the way
        more, still = _claims(post, scenario, known_heads, unheard, window, signed)
        codes = {node: code for node, code in codes.items() if int(node) not in unheard} | still
        for silo, claimed in more.items():
            claims[silo].extend(claimed)
    sure = {silo: claims[silo][0] for silo in federation.silos if len(claims[silo]) == 1}
    absent = [silo for silo in federation.silos if silo not in sure]
    certain = len(codes) == len(absent) and len(set(codes.values())) == 1
    dropouts = dict.fromkeys(absent, next(iter(codes.values())) if certain else "lost")
    if len(sure) < federation.min_silos:
        raise DropoutError(
            f"{len(sure)} silos are too few to begin, where federation.min_silos = {federation.min_silos}; dropped out:"
            f" {reasons(dropouts)}. Each silo's own log says why"
        )
    members = {silo: member for silo, (member, _) in sure.items()}
    return Joined(members, dropouts, {silo: advert for silo, (_, advert) in sure.items() if advert})


def find_again(
    post: Post, scenario: Scenario, known_heads: KnownHeads, members: dict[str, JoinedSilo], timeout_s: float
) -> None:
    """Look for the nodes of members that have none at present, in place, for so long at most.

    A silo that joined under one node may be back under another, once the SuperLink was started again. Nobody else is
    asked, where it is known whose nodes are: a silo that was not there when the run began would reserve it.
    """
    deadline = time.monotonic() + timeout_s
    asked = {member.node_id for member in members.values()}
    while lost := {silo for silo, member in members.items() if member.node_id == NOWHERE}:
        nodes = [node for node in post.present() if node not in asked]
        if post.owners:
            nodes = [node for node in nodes if post.owners.get(node) in lost]
        claims, _ = _claims(post, scenario, known_heads, nodes)
        for silo in lost:
            if len(claims[silo]) == 1 and claims[silo][0][0].charge == members[silo].charge:
                members[silo] = claims[silo][0][0]
        asked.update(nodes)
        if time.monotonic() >= deadline:
            return
        time.sleep(_LOOK_AGAIN_S)


def _claims(
    post: Post,
    scenario: Scenario,
    known_heads: KnownHeads,
    nodes: Iterable[int],
    window: Window | None = None,
    signed: Callable[[str, bytes], bool] = lambda _, __: True,
) -> tuple[defaultdict[str, list[tuple[JoinedSilo, bytes]]], dict[str, str]]:
    """Ask nodes whose they are. Returns who claims each name, with ADVERTs, and by node why there was no answer."""
    content = wire.join_request(window)
    claims: defaultdict[str, list[tuple[JoinedSilo, bytes]]] = defaultdict(list)
    codes: dict[str, str] = {}
    for node_id, reply in post.ask_nodes(wire.JOIN, dict.fromkeys(nodes, content)):
        with excused(codes, str(node_id)):
            answer = wire.read_join_reply(answered(reply))
            _check_plan(answer, scenario)
            known_heads.check(answer.silo, answer.head)
            if post.owners and post.owners.get(node_id) != answer.silo:
                raise ProtocolError("a node claims a name that its key is not registered for")
            if window is not None and not signed(answer.silo, answer.advert):
                raise ProtocolError("a node claims a name whose key did not sign for it")
            charge = replace(answer.plan, steps=scenario.plan(answer.silo).steps_per_round)
            claims[answer.silo].append((JoinedSilo(node_id, charge), answer.advert))
    return claims, codes


def _check_plan(answer: wire.JoinReply, scenario: Scenario) -> None:
    """Refuse a silo that is not of the federation, or that plans other than the scenario asks of it.

    Where a target is given, its noise may be any that meets it: a silo may always add more than it needs.
    """
    if answer.silo not in scenario.federation.silos:
        raise ProtocolError("a node joined under a name that is not in this federation")
    plan = scenario.plan(answer.silo)
    target = plan.target_epsilon
    if target is not None and answer.plan.mechanism == plan.mechanism:
        plan = replace(plan, epsilon=None, noise_multiplier=answer.plan.noise_multiplier)
    if answer.plan != plans.planned_event(plan):
        raise ProtocolError("a silo plans other than the scenario asks")
    if target is not None and accounting.epsilon([answer.plan], plan.delta) > target:
        raise ProtocolError("a silo plans less noise than its target epsilon needs")
