"""From an update to the words that leave the silo: weighed, quantised, and masked where the silo's law says so.

Guarantee: with secure aggregation on, what leaves is the sum of ring elements and masks that only a quorum of silos can
bring to fall, as `fedmodel.secagg.Participant.mask` says; a second update for the same round and attempt does not leave
at all. What leaves, and the state that is carried into the next round, are on disk in the very file that says that the
round was masked (`clients.aggregation_state`): so whenever a process is killed, either the round was not masked, or the
same bytes are there to be sent, for the charge that they were made for and no other, until the silo does a later stage
or makes its first keys for another run that it joins. What it refuses changes nothing of it.
The masks hang on the hash of the model as it was received, of the scenario as the silo reads it, of the rounds that
made the state which the round began from and of which words of an update are sent, so that silos that had others do not
mask together. Words that are not sent (`fedmodel.learning.pattern`) are dropped before anything else is done.

Simulated, the same words leave unmasked: the same numerics, and no secrecy.

Shapes: P parameters, K of them that are sent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clients import carried, policy
from clients.outbox import Release
from clients.silo import Silo
from fedmodel import wire
from fedmodel.crypto import digest
from fedmodel.learning.pattern import pattern_of
from fedmodel.ledger import Charge, Ledger
from fedmodel.privacy.events import Event
from fedmodel.provision import scenario_hash
from fedmodel.secagg import Participant, configuration, lineage_after
from fedmodel.secagg.quantize import Quantizer
from fedmodel.secagg.ring import Words
from fedmodel.seeds import derive_seed
from fedmodel.wire import TrainRequest


def prepare(silo: Silo, request: TrainRequest) -> None:
    """Take in what neighbours dealt, and refuse a round that could not be masked, before anything is spent on it.

    The pattern of what is sent is made here for the first time: that of a low rank builds the model.

    Raises:
        ConfigError: When it cannot be built.
        ProtocolError: When the vector received is of another model.
        AggregationRefused: When shares of the round are not held, or it was masked already.
        PolicyRefused: When no sum that this silo could be in is worth as many equal silos as its law asks for.
    """
    pattern_of(silo.scenario, request.round_number, len(request.model_P))
    if silo.kit.law.encryption.secure_aggregation != "on":
        return
    with silo.protocol() as protocol:
        if request.shares and not protocol.has_received:
            for place, found in protocol.receive(request.shares).items():
                silo.note("train", f"the share at place {place} counts as not dealt: {found}")
        protocol.check_can_mask(request.round_number)
        numbers = protocol.could_be_summed_with
    members = silo.kit.roster.members
    policy.check_survivors(silo.kit.law, silo.scenario, [members[number - 1].name for number in numbers])


def request_key(silo: Silo, request: TrainRequest) -> str:
    """Return what a request's charge and its update are known by: run, round, scenario, model and lineage.

    The job follows from the scenario and the round. Not the shares: they are left out when a request is made again.
    """
    place = (silo.run.encode(), request.round_number.to_bytes(4, "big"))
    parts = (scenario_hash(silo.scenario), request.model_hash, request.lineage)
    return digest(b"fedmodel/v1/round-key", *place, *parts).hex()


def lineage_left(silo: Silo, request: TrainRequest) -> bytes:
    """Return the lineage of the state that a round leaves at the silo."""
    model, scenario = request.model_hash, scenario_hash(silo.scenario)
    return lineage_after(request.lineage, silo.run_number, request.round_number, model, scenario)


def hide(
    silo: Silo, charged: Charge, request: TrainRequest, update_P: NDArray[np.float32], state: carried.Carried
) -> Release:
    """Return what leaves the silo for an update. Where it is masked, it is on disk when this returns.

    Args:
        silo: Whose.
        charged: What the ledger was charged for it.
        request: What it was trained from.
        update_P: The noised difference from the global model, shape `(P,)`.
        state: What the round ended with besides it. It is noised too, so it is kept only with what was charged.
    """
    key = request_key(silo, request)
    number, event, mode = request.round_number, charged.event, silo.kit.law.encryption.secure_aggregation

    def released(reply: wire.TrainReply | wire.MaskedReply) -> Release:
        left = carried.leave(state, lineage_left(silo, request)) if state else b""
        return Release(key, charged.sequence, wire.pack_update(reply), silo.run_number, left)

    pattern = pattern_of(silo.scenario, number, len(update_P))
    update_K = update_P if pattern is None else pattern.take(update_P)
    if mode == "off":
        return released(wire.TrainReply(number, event, update_K))
    words_K, bits = _quantised(silo, event, number, update_K), silo.kit.policy.ring_bits
    if mode == "simulated":
        return released(wire.MaskedReply(number, event, words_K, ring_bits=bits))

    def masked(protocol: Participant) -> bytes:
        sent = b"" if pattern is None else pattern.digest
        done = configuration(scenario_hash(silo.scenario), request.lineage, sent)
        mask = protocol.mask(number, words_K, request.model_hash, done)
        return released(wire.MaskedReply(number, event, words_K, mask, ring_bits=bits)).to_bytes()

    asked = _asked_for(key, charged.sequence)
    return Release.from_bytes(silo.answer(asked, masked))


def masked_before(silo: Silo, ledger: Ledger, key: str) -> Release | None:
    """Return what a killed process masked and could not put into the outbox; None if there is no such thing.

    Only for the newest charge of the ledger, while it stands: so the outbox never goes back to an older charge, and
    what a person voided leaves no more.

    Args:
        silo: Whose.
        ledger: The silo's.
        key: Of the request.
    """
    if silo.kit.law.encryption.secure_aggregation != "on" or (charge := ledger.newest_charge(key)) is None:
        return None
    kept = silo.answered(_asked_for(key, charge))
    return None if kept is None else Release.from_bytes(kept)


def _asked_for(key: str, charge: int) -> bytes:
    """Return what the mask of a request is known by: a request that is charged again is another one."""
    return digest(b"fedmodel/v1/masked-for", bytes.fromhex(key), charge.to_bytes(8, "big"))


def _quantised(silo: Silo, charged: Event, round_number: int, update_K: NDArray[np.float32]) -> Words:
    """Return what is sent of the update, weighed by the silo's public weight in the round's job, in ring elements."""
    scenario = silo.scenario
    weight = scenario.federation_of(scenario.job_of(round_number)).relative_weight(silo.name)
    quantizer: Quantizer = silo.kit.policy.quantizer
    weighed_K = update_K * np.float32(weight)
    if charged.drawn_from == "os":
        return quantizer.encode(weighed_K)
    # A run that claims nothing repeats itself to the last bit.
    seed = derive_seed(silo.scenario.seed or 0, "unsafe-rounding", silo.name, round_number)
    return quantizer.encode(weighed_K, np.random.default_rng(seed).bytes)
