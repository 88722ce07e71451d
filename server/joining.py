"""Joining a run, and a round in which the server sees every update.

    join    once:        every node says which silo it is and what it plans to spend
    train   each round:  the cohort gets the global model and answers with updates

A silo that refuses, fails or is late counts as a dropout of that exchange, by code. A round with fewer than `min_silos`
answers fails closed: the model stays as it was. Nothing that a silo sends but a code of the error tree is ever logged.

With secure aggregation, `server.aggregation` has the rounds.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from fedmodel import plans, wire
from fedmodel.config import FederationConfig, Scenario
from fedmodel.errors import DropoutError, FedmodelError, ProtocolError
from fedmodel.privacy import accounting
from fedmodel.privacy.events import DpSgdEvent, Event
from fedmodel.secagg import Window
from server.exchange import NOWHERE, Post
from server.known_heads import KnownHeads
from server.lineages import Lineages

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S: Final = 0.2
_MORE_TRIES: Final = 3
_TRY_AGAIN_S: Final = 1.0


class NoAnswer(Exception):
    """There is no answer to read; `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


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
    """

    members: dict[str, JoinedSilo]
    absent: dict[str, str]
    adverts: dict[str, bytes]


@dataclass(frozen=True)
class RoundResult:
    """One round's outcome.

    Attributes:
        update_P: The weighted mean of the updates, float32 of shape `(P,)`; None where the round failed closed.
        charged: What each silo that answered says it charged, whether or not its update is in the mean.
        dropouts: Code by silo for those of the cohort whose update is not in the mean.
        failure: Why the round failed, empty where it did not.
        threshold: Shares that brought each secret back, None without secure aggregation.
        asked: Who was asked to train; the cohort given, where it is not said.
        summed: How many updates are in the mean.
    """

    update_P: NDArray[np.float32] | None
    charged: dict[str, Event] = field(default_factory=dict)
    dropouts: dict[str, str] = field(default_factory=dict)
    failure: str = ""
    threshold: int | None = None
    asked: tuple[str, ...] = ()
    summed: int = 0


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
        raise DropoutError(too_few("to begin", len(sure), federation.min_silos, dropouts))
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


def plain_round(
    post: Post,
    federation: FederationConfig,
    known_heads: KnownHeads,
    members: Mapping[str, JoinedSilo],
    cohort: list[str],
    request: wire.TrainRequest,
    lineages: Lineages,
) -> RoundResult:
    """Send the model to the cohort, and average what comes back; too few answers fail the round."""
    request = lineages.named(request, cohort)
    contents = wire.train_requests(request, {silo: replace(request, known=known_heads.known(silo)) for silo in cohort})
    nodes = {silo: (members[silo].node_id, content) for silo, content in contents.items()}
    updates: dict[str, NDArray[np.float32]] = {}
    charged: dict[str, Event] = {}
    dropouts: dict[str, str] = {}
    for silo, reply in post.ask(wire.TRAIN, request.round_number, nodes):
        with excused(dropouts, silo):
            answer = wire.read_train_reply(answered(reply))
            check_answer(answer, answer.update_P.shape, request, members[silo])
            known_heads.follow(silo, answer.head)
            updates[silo], charged[silo] = answer.update_P, answer.charged
    lineages.answered(request, updates)
    log_dropouts(request.round_number, dropouts)
    if len(updates) < federation.min_silos:
        aim = f"to finish round {request.round_number}"
        return RoundResult(None, charged, dropouts, too_few(aim, len(updates), federation.min_silos, dropouts))
    return RoundResult(average_updates(updates, federation), charged, dropouts, summed=len(updates))


def average_updates(updates: Mapping[str, NDArray[np.float32]], federation: FederationConfig) -> NDArray[np.float32]:
    """Return the weighted mean of the silos' updates, shape `(P,)`, summed in float64 in order of names.

    Weights are the scenario's public ones, never how many records a silo holds.

    Args:
        updates: By silo, all of one length.
        federation: Holds the public weights.

    Raises:
        ProtocolError: When there is no update.
    """
    if not updates:
        raise ProtocolError("a round without updates has no average")
    total_P = np.zeros(len(next(iter(updates.values()))), dtype=np.float64)
    for silo in sorted(updates):
        total_P += federation.weight(silo) * updates[silo].astype(np.float64)
    return (total_P / sum(federation.weight(silo) for silo in updates)).astype(np.float32)


def check_answer(
    answer: wire.TrainReply | wire.MaskedReply, shape: tuple[int, ...], request: wire.TrainRequest, member: JoinedSilo
) -> None:
    """Refuse an update for another round or another model, or one charged otherwise than planned.

    Raises:
        ProtocolError: Which of them.
    """
    if answer.round_number != request.round_number:
        raise ProtocolError("an answer came for another round")
    if shape != request.model_P.shape:
        raise ProtocolError("an update came for another model")
    if answer.charged != member.charge:
        raise ProtocolError("an update was charged otherwise than planned")


def answered(reply: Message | None) -> Message:
    """Return a reply that is one.

    Raises:
        NoAnswer: When it is late, or a refusal.
    """
    if reply is None:
        raise NoAnswer("late")
    if reply.has_error():
        raise NoAnswer(wire.refusal_code(reply.error))
    return reply


@contextmanager
def excused(into: dict[str, str], silo: str) -> Iterator[None]:
    """Let what is wrong with one silo's answer cost that silo's part and nobody else's: keep why, by code."""
    try:
        yield
    except NoAnswer as missing:
        into[silo] = missing.code
    except FedmodelError as error:
        into[silo] = error.code


def only(messages: list[bytes]) -> bytes:
    """Return the one message of a list.

    Raises:
        ProtocolError: When there is another number of them.
    """
    if len(messages) != 1:
        raise ProtocolError(f"{len(messages)} messages came where one was asked for")
    return messages[0]


def log_dropouts(round_number: int, dropouts: Mapping[str, str]) -> None:
    """Say which silos a round goes on without."""
    for silo, code in dropouts.items():
        logger.warning("round %d: silo %s dropped out: %s", round_number, silo, code)


def too_few(aim: str, found: int, needed: int, dropouts: Mapping[str, str]) -> str:
    """Return one line on a stage that too few silos answered."""
    return (
        f"{found} silos are too few {aim}, where federation.min_silos = {needed}; dropped out: {reasons(dropouts)}."
        " Each silo's own log says why"
    )


def reasons(dropouts: Mapping[str, str]) -> str:
    """Return each silo that dropped out, with its code."""
    return ", ".join(f"{silo} ({code})" for silo, code in sorted(dropouts.items()))


def _check_plan(answer: wire.JoinReply, scenario: Scenario) -> None:
    """Refuse a silo that is not of the federation, or that plans other than the scenario asks of it.

    Where a target is given, its noise may be any that meets it: a silo may always add more than it needs.
    """
    if answer.silo not in scenario.federation.silos:
        raise ProtocolError("a node joined under a name that is not in this federation")
    plan = scenario.plan(answer.silo)
    if plan.baseline is not None:
        if answer.plan != plans.planned_event(plan):
            raise ProtocolError("a silo plans other than the scenario asks")
        return
    expected = DpSgdEvent(
        noise_multiplier=answer.plan.noise_multiplier if plan.noise_multiplier is None else plan.noise_multiplier,
        max_grad_norm=plan.max_grad_norm,
        sample_rate=plan.sample_rate,
        steps=plan.steps,
        denominator=plan.expected_batch_size,
        noise_source=plan.noise,
        max_records=plan.max_records,
    )
    if answer.plan != expected:
        raise ProtocolError("a silo plans other than the scenario asks")
    if plan.epsilon is not None and accounting.epsilon([answer.plan], plan.delta) > plan.epsilon:
        raise ProtocolError("a silo plans less noise than its target epsilon needs")
