"""The silo's Flower app: a handler a message, each inside a wall that lets only an error code out.

Before any handler, every message is held to the silo's own law (`clients.policy`): who asks, what for, with what code.

A run begins in two steps: every silo says whether it could take part (`ready`), and only then is asked to reserve its
plan (`join`). Guarantee: a silo that is asked whether it is ready enters nothing for the run, makes no key, and leaves
what it holds of other runs as it is (one that has no ledger yet begins it: an entry that says whose it is, and a head);
and what it answers hangs on law, ledger, budget, keys, code, the names of its table's columns and whether another
budget counts that table, on no value of a record and on no number of them. A silo that joins reads its records before
it reserves, so that one whose records cannot be read reserves nothing, and what it answers may hang on that. It gives
up what it holds of other runs only for one that it would reserve, by then.

Order inside `train`, which the guarantee rests on: decode and check the request, the ledger that the server remembers,
what secure aggregation needs, the state to begin from and what the job checks; charge the ledger; only then have the
job read records and answer; mask, and keep the masked update with the state of its mask; put the update into the
outbox; and only then let it leave. Whatever fails after the charge leaves the charge standing. A charge pays for one
release: the same request asked again gets the bytes in the outbox, or those that were masked for this charge and did
not come there; where there are none, it is charged again, unless its round was masked. A stage of secure aggregation is
done once; the very same question again gets the very same bytes (`clients.aggregation_state`).

What a handler made is looked at once more before it leaves: an answer holds what answers of its kind hold, and nothing
besides (`fedmodel.wire.leaving`).

Flower sends a ClientApp's exception to the server word for word. A message of an exception can carry a record, so every
handler runs inside `_walled`: the server gets a code, the silo's own log the rest. That a silo fails is visible; why is
not, where it could hang on records.

Only the handler of a job imports torch: in a deployment each message starts a new process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients import policy
from clients.silo import Silo
from fedmodel import plans, wire
from fedmodel.config.scenario import TRAINING
from fedmodel.errors import ConfigError, FedmodelError, ProtocolError
from fedmodel.learning.job_names import check_jobs
from fedmodel.learning.pattern import words_sent
from fedmodel.ledger import verify_ledger
from fedmodel.privacy import grid
from fedmodel.privacy.events import Event, protects
from fedmodel.provision import scenario_hash
from fedmodel.secagg import MOST_ATTEMPTS, Window, join_messages, split_messages
from fedmodel.secagg import Participant as Protocol

Handler = Callable[[Message, Context, Silo, bytes], RecordDict]
"""Answers a message of a silo; the bytes are the hash of all that is asked."""

app = ClientApp()


def _walled(handler: Handler) -> Callable[[Message, Context], Message]:
    """Turn a handler's answer into a reply, and whatever goes wrong into a code."""

    def respond(message: Message, context: Context) -> Message:
        code = FedmodelError.code
        try:
            silo = Silo.from_context(context)
            try:
                asked = _check(message, silo)
                silo.open_own_code(str(context.run_config.get("own-code") or ""))
                silo.know_bases(str(context.run_config.get("base") or ""))
                answer = Message(handler(message, context, silo, asked), reply_to=message)
                wire.check_leaves(message, answer, partial(words_sent, silo.scenario))
            except Exception as error:  # whatever it is, its text must not leave the silo
                code = error.code if isinstance(error, FedmodelError) else code
                silo.log(message.metadata.message_type, error)
            else:
                return answer
        except ConfigError as error:
            code = error.code
        except Exception:  # noqa: S110 - the silo's own log failed, and no other place is the silo's own
            pass
        return Message(wire.refusal(code), reply_to=message)

    return respond


def _check(message: Message, silo: Silo) -> bytes:
    """Hold a message to the silo's law, whatever it asks, and return the hash of all of it."""
    law = silo.kit.law
    hashed = scenario_hash(silo.scenario)
    asked = wire.check_signature(message, silo.run_number, hashed, law.servers, law.post_quantum_servers)
    policy.check_code(law)
    policy.check_baseline(silo.scenario, simulated=silo.simulated)
    policy.check_admitted(law, silo.scenario)
    policy.check_own_code(law, silo.scenario, simulated=silo.simulated)
    policy.check_base(law, silo.scenario)
    return asked


def _join(message: Message, context: Context, silo: Silo, asked: bytes) -> RecordDict:  # noqa: ARG001 - one shape
    """Check that the silo can take part, reserve the run's plan, and say so."""
    request = wire.read_join_request(message)
    event, besides = _admitted(silo)
    with silo.ledger() as ledger:
        verify_ledger(ledger.path, silo.kit.identity.public, unused=False)  # once a run, all of it is read again
        # What could fail comes first: a run that the silo cannot take part in reserves nothing.
        # A baseline's later phases have no noise, and the pipeline of the first.
        parts = (plans.pipeline_event(silo.plan, event), *filter(protects, besides))
        least = min(one.noise_multiplier for one in parts)
        grid.check_records(len(silo.records()), least)
        silo.check_base()
        advert = b""
        if request.window is not None:
            silo.check_reserves(ledger, event, besides)  # new keys give up those of another run
            advert = _keys(silo, request.window)
        silo.begin_outbox(ledger)
        reserved = silo.reserve(ledger, event, request.name, besides)
        head = ledger.head()
    if reserved.steps < event.steps:
        silo.note("join", f"the budget pays for {reserved.steps} of the {event.steps} steps planned, and no more")
    return wire.join_reply(wire.JoinReply(silo.name, event, advert, head))


def _ready(message: Message, context: Context, silo: Silo, asked: bytes) -> RecordDict:  # noqa: ARG001 - one shape
    """Say whether the silo could take part: what it would reserve is tried, and undone."""
    wire.read_ready_request(message)
    event, besides = _admitted(silo)
    with silo.ledger() as ledger:
        verify_ledger(ledger.path, silo.kit.identity.public, unused=False)
        silo.check_data()
        silo.check_base()
        silo.check_aggregates()
        silo.check_reserves(ledger, event, besides)
        head = ledger.head()
    return wire.join_reply(wire.JoinReply(silo.name, event, head=head))


def _admitted(silo: Silo) -> tuple[Event, tuple[Event, ...]]:
    """Hold a run that begins to the law, and return the first part that the silo reserves for it, and the others."""
    law = silo.kit.law
    policy.check_hours(law, datetime.now().astimezone())
    check_jobs(silo.scenario.besides)
    event, *besides = plans.planned_parts(silo.scenario, silo.name)
    pipeline = plans.pipeline_event(silo.plan, event)
    for part in (event, *besides):
        policy.check_event(law, part, simulated=silo.simulated)
    policy.check_noise_levels(law, silo.scenario, pipeline)
    return event, tuple(besides)


def _advert(message: Message, context: Context, silo: Silo, asked: bytes) -> RecordDict:  # noqa: ARG001 - one shape
    """Make secrets for a window of rounds, and advertise their public halves."""
    window = wire.read_advert_request(message)
    silo.check_joined()
    return wire.protocol_reply([_keys(silo, window)])


def _share(message: Message, context: Context, silo: Silo, asked: bytes) -> RecordDict:  # noqa: ARG001 - one shape
    """Check the cohort, and deal shares of the window's secrets to every neighbour in it."""
    adverts = wire.read_share_request(message)
    policy.check_cohort(silo.kit.law, len(adverts))
    shares = silo.answer(asked, lambda protocol: join_messages(protocol.deal(adverts)))
    return wire.protocol_reply(split_messages(shares))


def _commit(message: Message, context: Context, silo: Silo, asked: bytes) -> RecordDict:  # noqa: ARG001 - one shape
    """Sign one list of survivors."""
    list_ = _asked(message, silo)
    signed = silo.answer(
        asked, lambda protocol: protocol.commit(list_.round_number, list_.attempt, list_.context, list_.survivors)
    )
    return wire.protocol_reply([signed])


def _reveal(message: Message, context: Context, silo: Silo, asked: bytes) -> RecordDict:  # noqa: ARG001 - one shape
    """Give one share a peer, and advertise for the next window if asked to.

    What was revealed is in the ledger before new keys replace the state that tells of it.
    """
    list_ = _asked(message, silo)
    place = (list_.round_number, list_.attempt, list_.context)

    def reveal(protocol: Protocol) -> bytes:
        return protocol.reveal(*place, list_.survivors, list_.commits)

    if list_.window is None:
        return wire.reveal_reply(wire.RevealReply(silo.answer(asked, reveal), b""))
    window = _within(list_.window, silo)
    both = silo.answer(asked, reveal, lambda protocol, shares: join_messages([shares, protocol.advert(window)]))
    return wire.reveal_reply(wire.RevealReply(*split_messages(both)))


def _keys(silo: Silo, window: Window) -> bytes:
    """Return a fresh ADVERT; what the silo held of other runs is given up for it."""
    window = _within(window, silo)
    with silo.protocol() as protocol:
        return protocol.advert(window)


def _within(window: Window, silo: Silo) -> Window:
    """Refuse a window past the scenario's rounds: taken up, it would leave the silo out of all that are left."""
    _check_attempt(window.attempt)
    if window.rounds[-1] > silo.scenario.last_round:
        raise ProtocolError("a window goes past the rounds of the scenario")
    return window


def _check_attempt(attempt: int) -> None:
    """Refuse more attempts than a server makes: each may leave entries in the ledger, which every JOIN reads."""
    if attempt > MOST_ATTEMPTS:
        raise ProtocolError(f"attempt {attempt} is past the {MOST_ATTEMPTS} that a window has")


def _asked(message: Message, silo: Silo) -> wire.SurvivorsRequest:
    """Read what is asked about survivors, of a round that the scenario has and a sum that the law allows."""
    asked = wire.read_survivors_request(message)
    if asked.round_number > silo.scenario.last_round:
        raise ProtocolError(f"round {asked.round_number} is past the {silo.scenario.last_round} of the scenario")
    _check_attempt(asked.attempt)
    roster = silo.kit.roster.members
    named = [roster[number - 1].name for number in asked.survivors if 1 <= number <= len(roster)]
    policy.check_survivors(silo.kit.law, silo.scenario, named)
    return asked


def _train(message: Message, context: Context, silo: Silo, asked: bytes) -> RecordDict:  # noqa: ARG001 - one shape
    """Charge the ledger for a job, answer from the silo's records, and send the noised answer, perhaps masked."""
    from clients import carried
    from clients.answering import job_at
    from clients.hiding import hide, masked_before, prepare, request_key

    request = wire.read_train_request(message)
    _check_job(silo, request)
    policy.check_hours(silo.kit.law, datetime.now().astimezone())
    with silo.outbox() as outbox, silo.ledger() as ledger:
        since = ledger.check_extends(request.known, "the server") if request.known else 0
        part = silo.scenario.part_of(request.round_number)
        plan = silo.reserved(ledger, part)
        key = request_key(silo, request)
        kept = outbox.recall(key) if ledger.is_charged(key) else None
        if kept is None:
            _check_goes_on(request.round_number, ledger.newest_round(silo.run))
            release = masked_before(silo, ledger, key)
            if release is None:
                prepare(silo, request)
                state = carried.begin(outbox.state(silo.run_number), request.lineage)
                job, question = job_at(silo, request)
                job.check(question, plan)
                trains = request.job == TRAINING
                steps = silo.scenario.plan(silo.name, part).steps_per_round if trains else plan.steps
                charged = ledger.charge(silo.run, request.round_number, steps, key, part)
                update_P = job.answer(question, silo.records, charged.event, state)
                release = hide(silo, charged, request, update_P, state)
            outbox.keep(release)
            kept = release.update
        head = ledger.proven(since).to_bytes()
    update = wire.unpack_update(kept)
    if isinstance(update, wire.TrainReply):
        return wire.train_reply(replace(update, head=head))
    return wire.masked_reply(replace(update, head=head))


def _check_job(silo: Silo, request: wire.TrainRequest) -> None:
    """Refuse a round that the scenario does not have, and a job that its round is not of."""
    scenario, number = silo.scenario, request.round_number
    if number > scenario.last_round:
        raise ProtocolError(f"round {number} is past the {scenario.last_round} of the scenario")
    check_jobs([request.job])
    if request.job != scenario.job_of(number):
        raise ProtocolError(
            f"round {number} is asked to be of job {request.job!r}, and by the scenario it is of"
            f" {scenario.job_of(number)!r}; nothing was charged"
        )


def _check_goes_on(round_number: int, newest: int) -> None:
    """Refuse a round before the newest that was charged: a server that goes back releases a round twice."""
    if round_number < newest:
        raise ProtocolError(
            f"round {round_number} is asked for, where round {newest} of the run was charged: the server's checkpoint"
            " was put back; its operator begins a new run"
        )


def _countersign(message: Message, context: Context, silo: Silo, asked: bytes) -> RecordDict:  # noqa: ARG001 - one shape
    """Enter that the run has ended, and with which model as the server says, and return the ledger's head.

    Nothing else is signed: run and scenario are those that the request is bound to and the ledger knows. No round of
    the run is charged after that; the same question again enters nothing more, and another model is refused.
    """
    request, law = wire.read_countersign_request(message), silo.kit.law
    with silo.ledger() as ledger:
        since = ledger.check_extends(request.known, "the server") if request.known else 0
        ledger.countersign(
            silo.run, scenario_hash(silo.scenario).hex(), request.model.hex(), policy.own_code(law.packages)
        )
        return wire.countersign_reply(ledger.proven(since).to_bytes())


for _kind, _handler in (
    (wire.READY, _ready),
    (wire.JOIN, _join),
    (wire.ADVERT, _advert),
    (wire.SHARE, _share),
    (wire.COMMIT, _commit),
    (wire.REVEAL, _reveal),
    (wire.COUNTERSIGN, _countersign),
):
    app.query(_kind.removeprefix("query."))(_walled(_handler))
app.train()(_walled(_train))
