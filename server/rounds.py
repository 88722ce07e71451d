"""The exchanges of a run over Flower's Grid, each with a deadline of our own.

    join    once:        every node says which silo it is and what it plans to spend
    train   each round:  the cohort gets the global model and answers with updates

A silo that refuses, fails or is late counts as a dropout of that exchange, by code. A round with fewer than `min_silos`
answers fails closed: the model stays as it was. Nothing that a silo sends but a code of the error tree is ever logged.

Flower's own strategies wait without end for nodes that are gone; these do not.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedmodel import accounting, wire
from fedmodel.config import FederationConfig, Scenario
from fedmodel.errors import DropoutError, FedmodelError, ProtocolError
from fedmodel.mechanisms import DpSgdEvent
from server.strategy import average_updates

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5


@dataclass(frozen=True)
class Member:
    """A silo that joined: its node, and what it will charge for each round."""

    node_id: int
    charge: DpSgdEvent


@dataclass(frozen=True)
class RoundResult:
    """One round's outcome.

    Attributes:
        update_P: The weighted mean of the updates, float32 of shape `(P,)`.
        charged: What each silo that answered says it charged.
        dropouts: Code by silo for those that did not.
    """

    update_P: NDArray[np.float32]
    charged: dict[str, DpSgdEvent]
    dropouts: dict[str, str]


def join(grid: Grid, scenario: Scenario) -> tuple[dict[str, Member], dict[str, str]]:
    """Wait for the federation's nodes, and ask each who it is.

    A node whose answer breaks the protocol, plans other than the scenario asks, or bears a name that is not in the
    federation, is left out; so are all nodes that claim one name.

    Returns:
        Members by silo, and the codes of the silos that are not among them; "lost" where it is not certain whose a
        code is, since a node that refuses does not say its name.

    Raises:
        DropoutError: When fewer than `min_silos` joined before the deadline.
    """
    federation = scenario.federation
    nodes = _wait_for_nodes(grid, len(federation.silos), federation.round_timeout_s)
    replies = _exchange(grid, dict.fromkeys(nodes, wire.join_request()), wire.JOIN, 0, federation.round_timeout_s)
    claims: dict[str, list[Member]] = defaultdict(list)
    codes: list[str] = []
    for node_id, reply in replies.items():
        if reply is None or reply.has_error():
            codes.append(_code(reply))
            continue
        try:
            answer = wire.read_join_reply(reply)
            _check_plan(answer, scenario)
        except FedmodelError as error:
            codes.append(error.code)
            continue
        charge = replace(answer.plan, steps=scenario.plan(answer.silo).steps_per_round)
        claims[answer.silo].append(Member(node_id, charge))
    members = {silo: claims[silo][0] for silo in federation.silos if len(claims[silo]) == 1}
    absent = [silo for silo in federation.silos if silo not in members]
    certain = len(codes) == len(absent) and len(set(codes)) == 1
    dropouts = dict.fromkeys(absent, codes[0] if certain else "lost")
    if len(members) < federation.min_silos:
        raise DropoutError(_too_few("to begin", len(members), federation.min_silos, dropouts))
    return members, dropouts


def train_round(
    grid: Grid,
    federation: FederationConfig,
    members: Mapping[str, Member],
    cohort: list[str],
    request: wire.TrainRequest,
) -> RoundResult:
    """Send the model to the cohort, and average what comes back.

    Raises:
        DropoutError: When fewer than `min_silos` answered in time.
    """
    content = wire.train_request(request)
    nodes = {members[silo].node_id: content for silo in cohort}
    replies = _exchange(grid, nodes, wire.TRAIN, request.round_number, federation.round_timeout_s)
    updates: dict[str, NDArray[np.float32]] = {}
    charged: dict[str, DpSgdEvent] = {}
    dropouts: dict[str, str] = {}
    for silo in cohort:
        reply = replies[members[silo].node_id]
        if reply is None or reply.has_error():
            dropouts[silo] = _code(reply)
            continue
        try:
            answer = wire.read_train_reply(reply)
            _check_answer(answer, request, members[silo])
        except FedmodelError as error:
            dropouts[silo] = error.code
            continue
        updates[silo], charged[silo] = answer.update_P, answer.charged
    for silo, code in dropouts.items():
        logger.warning("round %d: silo %s dropped out: %s", request.round_number, silo, code)
    if len(updates) < federation.min_silos:
        raise DropoutError(
            _too_few(f"to finish round {request.round_number}", len(updates), federation.min_silos, dropouts)
        )
    return RoundResult(average_updates(updates, federation), charged, dropouts)


def _check_plan(answer: wire.JoinReply, scenario: Scenario) -> None:
    """Refuse a silo that is not of the federation, or that plans other than the scenario asks of it.

    Where a target is given, its noise may be any that meets it: a silo may always add more than it needs.
    """
    if answer.silo not in scenario.federation.silos:
        raise ProtocolError("a node joined under a name that is not in this federation")
    plan = scenario.plan(answer.silo)
    expected = DpSgdEvent(
        noise_multiplier=answer.plan.noise_multiplier if plan.noise_multiplier is None else plan.noise_multiplier,
        max_grad_norm=plan.max_grad_norm,
        sample_rate=plan.sample_rate,
        steps=plan.steps,
        denominator=plan.expected_batch_size,
        noise_source=plan.noise,
    )
    if answer.plan != expected:
        raise ProtocolError("a silo plans other than the scenario asks")
    if plan.epsilon is not None and accounting.epsilon([answer.plan], plan.delta) > plan.epsilon:
        raise ProtocolError("a silo plans less noise than its target epsilon needs")


def _check_answer(answer: wire.TrainReply, request: wire.TrainRequest, member: Member) -> None:
    """Refuse an update for another round or another model, or one charged otherwise than planned."""
    if answer.round_number != request.round_number:
        raise ProtocolError("an answer came for another round")
    if answer.update_P.shape != request.model_P.shape:
        raise ProtocolError("an update came for another model")
    if answer.charged != member.charge:
        raise ProtocolError("an update was charged otherwise than planned")


def _wait_for_nodes(grid: Grid, expected: int, timeout_s: float) -> list[int]:
    """Return node ids as soon as all are there, or those that are when the deadline passes."""
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) >= expected or time.monotonic() >= deadline:
            return nodes
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _exchange(
    grid: Grid, contents: Mapping[int, RecordDict], message_type: str, round_number: int, timeout_s: float
) -> dict[int, Message | None]:
    """Send one message to each node, and return each node's reply, None for those that were late."""
    deadline = time.monotonic() + timeout_s
    messages = [
        Message(content, node_id, message_type, ttl=timeout_s, group_id=str(round_number))
        for node_id, content in contents.items()
    ]
    sent = dict(zip(grid.push_messages(messages), contents, strict=True))
    replies: dict[int, Message | None] = dict.fromkeys(contents)
    pause_s = _FIRST_PAUSE_S
    while sent:
        for reply in grid.pull_messages(list(sent)):
            node_id = sent.pop(reply.metadata.reply_to_message_id, None)
            if node_id is not None:
                replies[node_id] = reply
        if not sent or time.monotonic() >= deadline:
            break
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
    return replies


def _code(reply: Message | None) -> str:
    return "late" if reply is None else wire.refusal_code(reply.error)


def _too_few(aim: str, found: int, needed: int, dropouts: Mapping[str, str]) -> str:
    reasons = ", ".join(f"{silo} ({code})" for silo, code in sorted(dropouts.items()))
    return (
        f"{found} silos are too few {aim}, where federation.min_silos = {needed}; dropped out: {reasons}."
        " Each silo's own log says why"
    )
