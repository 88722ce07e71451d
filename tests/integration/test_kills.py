"""A silo's process killed with SIGKILL, hundreds of times, at every step from reserving to releasing.

A silo here is a process that answers real signed messages with the real app, and puts its replies on a pipe, which is
the network: what the other end got, whole or in part, has left. It kills itself before or after a step (`STEPS`), or is
killed at a random moment; the next process on the same folder is asked again what no whole reply came for, as a server
asks. Where masks are on, the whole real server runs over it, with the other silos in the test's process.

Shown after every kill: the ledger verifies under the silo's key, its own head and every head that ever left. No round
has more distinct updates out, each counted from its first byte on, than charges. What had left, whole or in part,
leaves again to the last bit and costs nothing more; where nothing had, a process charges at most once. Charges stay
within the reservation, and that within the cap. How many there are when a step comes is what the order of
`clients.client_app._train` says. In the end the run completes.

Processes are forked from one that has imported everything and has never computed a gradient, since PyTorch refuses to
in a fork of one that has. A process takes a tenth of a second then, not the seconds of a new interpreter, and so all
kills are among the ordinary tests. Those that are killed at random moments measure their model before they charge, as
every silo does (`fedmodel.learning.preflight`). Of the others, which do all else, that would take half of the time: it
reads no record and writes nothing, and so they are spared it. All are spared the hash of their own code, which their
process has from the one that it is forked from; that takes longer than all that a silo does with a message.

Not shown: what a power cut leaves. SIGKILL spares the kernel's cache, so an fsync that is missing is not noticed here.
Inside one system call, or one commit of SQLite's, only the random moments can strike.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import signal
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.task_identity import TaskIdentity

from clients import answering, hiding  # noqa: F401 - so that no process has to
from clients.client_app import app
from clients.silo import ledger_path
from fedmodel import wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import LedgerError
from fedmodel.learning.jobs import _pipelines
from fedmodel.learning.models import build_model
from fedmodel.learning.vectors import flatten
from fedmodel.ledger import Entry, origin_of, verify_ledger
from fedmodel.ledger.heads import Proven, follow, open_head
from fedmodel.privacy.events import event_to_json
from fedmodel.provision import read_kit
from fedmodel.seeds import derive_seed
from scenarios.simulation.grid import delivered
from server.server_app import run_federation
from tests.fakes import FaultyGrid, run_config

SILO, NODE = "north", 2
READY = b"\0"
FORKS = multiprocessing.get_context("forkserver")
# Torch imports the first with its first optimiser, and a silo the next two with its first records.
IMPORTED = ["torch._dynamo", "sklearn.datasets", "sklearn.model_selection"]
FORKS.set_forkserver_preload([*IMPORTED, "tests.integration.hashed", __name__])
# More rounds than are asked for: each kill between a charge and the outbox costs one.
WIDE = ["model.hidden=[16]", "rounds=12", "encryption.bound=50.0", "encryption.colluding=0", "budgets={north=30.0}"]
ON = [*WIDE, "encryption.secure_aggregation=on", 'federation.silos=["north","south","west","east"]',
      "data.partition.min_records=10", "rounds=2", "encryption.window=2"]  # fmt: skip
RANDOM_KILLS = 15
VECTOR = re.compile(rb"fedmodel/v1/[fu]\d\dle\x22([\x80-\xff]*[\x00-\x7f])(.*)", re.DOTALL)  # Array.data follows stype
KILLS: Counter[str] = Counter()
ENDED: set[str] = set()  # tests, of this file


class Step(NamedTuple):
    """Where a silo kills itself.

    Attributes:
        at: What is called.
        when: Before or after the call.
        done: How far a round is by then.
        of: Calls about this alone: an SQL statement, or a file.
        nth: Of such calls while one message is handled.
    """

    at: str
    when: Literal["before", "after"]
    done: Literal["nothing", "charged", "kept"]
    of: str = ""
    nth: int = 1

    def __str__(self) -> str:
        place = f"{self.at.rpartition(':')[2]}{f'({self.of})' if self.of else ''}{f'#{self.nth}' * (self.nth > 1)}"
        return f"{self.when} {place}"


NOTHING: Final = "nothing"
CHARGED: Final = "charged"
KEPT: Final = "kept"
BOOK, HERE = "fedmodel.ledger.book:Ledger", f"{__name__}:"
SQL, CLOSE, PUT = f"{HERE}Watched.execute", f"{HERE}Watched.close", f"{HERE}put"
OPEN, FSYNC, RENAME = "os:open", "os:fsync", "pathlib:Path.replace"
RESERVED = Step("fedmodel.ledger.head_file:HeadFile.keep", "before", NOTHING, nth=2)
SENT = Step(PUT, "after", KEPT, nth=2)
STEPS = [
    # Making the ledger, or opening it.
    Step("clients.outbox:fcntl.flock", "after", NOTHING),
    Step(OPEN, "after", NOTHING, "north.sqlite"),
    Step(SQL, "after", NOTHING, "journal_mode"),
    Step(SQL, "after", NOTHING, "CREATE TABLE"),
    # Reserving, as the ledger's second head says. In a round the first commit is the charge's.
    Step(f"{BOOK}._enter_scope", "before", NOTHING),
    Step(f"{BOOK}._enter_scope", "after", NOTHING),
    Step(f"{BOOK}.reserve", "before", NOTHING),
    Step(f"{BOOK}.reserve", "after", NOTHING),
    Step(f"{BOOK}._enter_reservation", "after", NOTHING),
    RESERVED,
    # Charging.
    Step(f"{BOOK}.is_charged", "after", NOTHING),
    Step("fedmodel.learning.jobs.training:Answering.check", "after", NOTHING),
    Step(f"{BOOK}.charge", "before", NOTHING),
    Step(SQL, "after", NOTHING, "BEGIN IMMEDIATE"),
    Step(SQL, "after", NOTHING, "INSERT INTO entries"),
    Step(SQL, "before", NOTHING, "COMMIT"),
    Step(SQL, "after", CHARGED, "COMMIT"),
    Step("fedmodel.ledger.head_file:HeadFile.keep", "before", CHARGED),
    Step(OPEN, "after", CHARGED, "ledger.head.partial"),
    Step(FSYNC, "before", CHARGED, "ledger.head.partial"),
    Step(RENAME, "before", CHARGED, "ledger.head.partial"),
    Step(RENAME, "after", CHARGED, "ledger.head.partial"),
    Step(f"{BOOK}.charge", "after", CHARGED),
    # Training and noising.
    Step("fedmodel.learning.jobs.training:Answering.answer", "before", CHARGED),
    Step("clients.silo:Silo.records", "after", CHARGED),
    Step("fedmodel.privacy.noise:OsNoise.gaussian", "before", CHARGED),
    Step("fedmodel.learning.dp_sgd:DpSgd.step", "after", CHARGED),
    Step("fedmodel.learning.dp_sgd:DpSgd.step", "after", CHARGED, nth=2),
    Step("fedmodel.learning.jobs.training:Answering.answer", "after", CHARGED),
    # Hiding and keeping.
    Step("clients.hiding:hide", "after", CHARGED),
    Step("fedmodel.wire:pack_update", "after", CHARGED),
    Step(OPEN, "after", CHARGED, "outbox.partial"),
    Step(FSYNC, "before", CHARGED, "outbox.partial"),
    Step(RENAME, "before", CHARGED, "outbox.partial"),
    Step(RENAME, "after", KEPT, "outbox.partial"),
    Step("clients.outbox:Outbox.keep", "after", KEPT),
    # Releasing.
    Step(f"{BOOK}.proven", "after", KEPT),
    Step(CLOSE, "before", KEPT),
    Step(CLOSE, "after", KEPT),
    Step(PUT, "before", KEPT),
    Step(PUT, "after", KEPT),  # in the middle of the update
    SENT,
]
JOINING = [
    step
    for step in STEPS
    if step == RESERVED or step.at.endswith(("_enter_scope", "reserve", "_enter_reservation")) or "TABLE" in step.of
]
MASKED = {  # by step, how many of two processes come by there: what was masked is kept, and not masked again
    Step("fedmodel.learning.jobs.training:Answering.answer", "before", CHARGED): 2,
    Step("clients.hiding:_quantised", "after", CHARGED): 2,
    Step("fedmodel.secagg:Participant.mask", "before", CHARGED): 2,
    Step("fedmodel.secagg:Participant.mask", "after", CHARGED): 2,
    Step(OPEN, "after", CHARGED, "state.partial", 2): 2,
    Step(RENAME, "before", CHARGED, "state.partial", 2): 2,
    Step(RENAME, "after", KEPT, "state.partial", 2): 1,
    Step(f"{BOOK}.advance", "before", KEPT, nth=2): 1,
    Step(f"{BOOK}.advance", "after", KEPT, nth=2): 1,
    Step("clients.hiding:hide", "after", KEPT): 1,
    Step(RENAME, "before", KEPT, "outbox.partial"): 2,
    Step(RENAME, "after", KEPT, "outbox.partial"): 1,
    Step(PUT, "before", KEPT): 2,
    Step(PUT, "after", KEPT): 2,
}


class Watched(sqlite3.Connection):
    """A connection whose calls can be wrapped: those of SQLite's own class cannot."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        return super().execute(*arguments)

    def close(self) -> None:
        super().close()


class Crash(NamedTuple):
    """A step to die at, once so many messages are behind this process."""

    step: Step
    spared: int = 0


# Below: in the silo's process


def be_silo(
    network: Connection,
    run: int,
    config: dict[str, Any],
    nodes: int,
    asked: list[bytes],
    crash: Crash | None,
    measures: bool,
) -> None:
    """Answer each question in turn, and put every reply on the network in two parts."""
    torch.set_num_threads(1)
    if not measures:
        _pipelines.preflight = lambda gradients, *_: gradients.rows
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = run, 1, NODE
    identity = {"partition-id": 0, "num-partitions": nodes}
    context = Context(run_id=run, node_id=NODE, node_config=identity, state=RecordDict(), run_config=config)
    sqlite3.connect = partial(sqlite3.connect, factory=Watched)
    handled: list[int] = []
    if crash is not None:
        arm(crash, handled)
    os.write(network.fileno(), READY)
    for question in asked:
        reply = app(message_from_proto(ProtoMessage.FromString(question)), context)
        data = message_to_proto(reply).SerializeToString()
        vector = VECTOR.search(data)
        cut = (vector.start(2) + vector.end(2)) // 2 if vector else len(data) // 2
        put(network.fileno(), len(data).to_bytes(8, "big") + data[:cut])
        put(network.fileno(), data[cut:])
        handled.append(1)


def put(network: int, data: bytes) -> None:
    assert os.write(network, data) == len(data)


def arm(crash: Crash, handled: list[int]) -> None:
    """Wrap the step's call, so that the process dies at it."""
    step = crash.step
    place, _, name = step.at.rpartition("." if "." in step.at.partition(":")[2] else ":")
    owner = resolve_name(place)
    real: Callable[..., Any] = getattr(owner, name)
    calls: dict[int, Iterator[int]] = defaultdict(lambda: count(1))

    def call(*arguments: Any, **named: Any) -> Any:
        counts = len(handled) >= crash.spared and step.of in about(arguments)
        struck = counts and next(calls[len(handled)]) == step.nth
        if struck and step.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if struck:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, call)


def about(arguments: Sequence[Any]) -> str:
    """Say which file or statement a call is about."""
    told = [
        str(Path(f"/proc/self/fd/{one}").readlink()) if type(one) is int else str(one)[:200] for one in arguments[:1]
    ]
    return " ".join([*told, *(str(one)[:200] for one in arguments[1:2])])


# Below: outside it


@dataclass
class Silo:
    """A silo as those outside know it: what it was asked, what left it, and what lies in its ledger."""

    scenario: Scenario
    folder: Path
    run: int
    kills: int = 0
    heads: list[bytes] = field(default_factory=list)
    asked: dict[int, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    left: dict[tuple[int, bytes], list[bytes]] = field(default_factory=lambda: defaultdict(list))
    whole: dict[tuple[int, bytes], set[tuple[str, bytes, bytes]]] = field(default_factory=lambda: defaultdict(set))
    paid: dict[tuple[int, bytes], tuple[int, int]] = field(default_factory=dict)
    tries: Counter[int] = field(default_factory=Counter)
    is_made: bool = False
    measures: bool = False
    is_steady: bool = True  # no request is asked again once another was answered

    def start(self, asked: Sequence[Message], crash: Crash | None = None) -> tuple[ForkServerProcess, Connection]:
        """Begin a process of the silo's."""
        here, there = FORKS.Pipe(duplex=False)
        config, nodes = run_config(self.scenario, self.folder), len(self.scenario.federation.silos)
        data = [message_to_proto(message).SerializeToString() for message in asked]
        process = FORKS.Process(target=be_silo, args=(there, self.run, config, nodes, data, crash, self.measures))
        process.start()
        there.close()
        for message in asked:
            if message.metadata.message_type == wire.TRAIN:
                request = wire.read_train_request(message)
                self.asked[request.round_number].add(request.model_P.tobytes())
                self.tries[request.round_number] += 1
        assert os.read(here.fileno(), 1) == READY
        return process, here

    def hear(self, process: ForkServerProcess, network: Connection, asked: Sequence[Message]) -> list[Message]:
        """Take in what leaves a process until its end, and return the replies that are whole."""
        stream = b""
        while part := os.read(network.fileno(), 1 << 16):
            stream += part
        network.close()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        self.kills += process.exitcode == -signal.SIGKILL
        process.close()
        replies = []
        for message in asked:
            data = stream[8 : 8 + int.from_bytes(stream[:8], "big")]
            is_whole = len(stream) >= 8 and len(data) == int.from_bytes(stream[:8], "big")
            stream = stream[8 + len(data) :]
            reply = message_from_proto(ProtoMessage.FromString(data)) if is_whole else None
            if message.metadata.message_type == wire.TRAIN:
                self._note(wire.read_train_request(message), data, reply)
            replies.extend([reply] if reply else [])
        return replies

    def ask(
        self, asked: Sequence[Message], crash: Crash | None = None, after_s: float | None = None
    ) -> tuple[list[Message], bool]:
        """Ask a new process, check everything, and return the whole replies and whether it was killed."""
        before = self.kills
        process, network = self.start(asked, crash)
        if after_s is not None:
            process.join(after_s)
            process.kill()
        replies = self.hear(process, network, asked)
        self.check()
        return replies, self.kills > before

    def charges(self, round_number: int | None = None) -> list[Entry]:
        """Return the charges in the ledger, of one round or of all."""
        return [one for one in self.entries() if one.kind == "charge" and round_number in (None, one.round)]

    def entries(self) -> tuple[Entry, ...]:
        """Verify the ledger by everything that is known of it, and return its entries."""
        kit, head = self.folder / "silos" / SILO, self.folder / "silos" / SILO / "ledger.head"
        heads = [*self.heads, *([head.read_bytes()] if head.exists() else [])]
        try:
            found = verify_ledger(ledger_path(self.folder, SILO), read_kit(kit).identity.public, heads).entries
        except LedgerError:
            assert not self.is_made
            assert not heads
            assert not self.left
            return ()
        self.is_made = True
        return found

    def check(self) -> None:
        """Hold what left, and what is in the ledger, to everything that is claimed."""
        entries = self.entries()
        charges = [one for one in entries if one.kind == "charge"]
        of_round = Counter(one.round for one in charges)
        out: Counter[int] = Counter()
        for (number, _), parts in self.left.items():
            out[number] += distinct(parts)
        for number, updates in out.items():
            assert updates <= of_round[number], "an update left uncharged"
            assert updates == 1 or self.scenario.encryption.secure_aggregation != "on", "a round was masked twice"
        for number, times in of_round.items():
            assert times <= self.tries[number or 0], "one process charged twice"
        for (number, _), answers in self.whole.items():
            for charged, _, _ in answers:
                assert charged in [event_of(one) for one in charges if one.round == number]
        plans = [one.content["event"]["steps"] for one in entries if one.kind == "reserve"]
        assert len(plans) <= 1
        assert sum(one.content["event"]["steps"] for one in charges) <= sum(plans)
        assert all(0 <= one.spent <= one.reserved <= one.cap for one in entries)
        if self.is_steady:
            self._check_repeated(of_round)

    def _check_repeated(self, of_round: Mapping[int | None, int]) -> None:
        """What has left, if only its first byte, leaves again as it is and costs nothing, until another is made."""
        assert all(distinct(parts) == 1 for parts in self.left.values()), "one request was answered with two updates"
        assert all(len(answers) == 1 for answers in self.whole.values()), "one request was answered in two ways"
        for of in self.left:
            now = of_round[of[0]], len(self.asked[of[0]])
            charges, models = self.paid.setdefault(of, now)
            assert now[0] == charges or now[1] > models, "what had left was charged again"

    def _note(self, request: wire.TrainRequest, data: bytes, reply: Message | None) -> None:
        """Keep what left in answer to a request."""
        of = request.round_number, request.model_P.tobytes()
        found = VECTOR.search(data)
        if found and found[2]:
            size = sum((byte & 127) << 7 * place for place, byte in enumerate(found[1]))
            self.left[of].append(found[2][:size])
        if reply is None or not reply.has_content():
            return
        answer: wire.TrainReply | wire.MaskedReply
        if self.scenario.encryption.secure_aggregation == "off":
            answer, mask = (plain := wire.read_train_reply(reply)), b""
            vector = plain.update_P.tobytes()
        else:
            answer = masked = wire.read_masked_reply(reply, 32)
            vector, mask = masked.words_P.tobytes(), masked.mask
        assert self.left[of][-1] == vector
        event = json.dumps(json.loads(event_to_json(answer.charged)), sort_keys=True)
        self.whole[of].add((event, vector, mask))
        kit, origin = read_kit(self.folder / "silos" / SILO), origin_of(SILO)
        proven = Proven.from_bytes(answer.head)
        known = open_head(request.known, origin, kit.identity.public) if request.known else None
        follow(proven, origin, kit.identity.public, known)
        self.heads.append(proven.note)


def event_of(charge: Entry) -> str:
    return json.dumps(charge.content["event"], sort_keys=True)


def distinct(parts: Sequence[bytes]) -> int:
    """Count byte strings of which none is the beginning of another."""
    ordered = sorted(set(parts))
    return sum(not later.startswith(one) for one, later in zip(ordered, [*ordered[1:], b""], strict=True))


class Server:
    """Asks one silo to join and to train some rounds, each until a whole answer is there."""

    def __init__(self, settings: Sequence[str], tiny_file: Path, folder: Path, rounds: int = 3) -> None:
        self.scenario = read_scenario(str(tiny_file), [*WIDE, *settings])
        self._grid = FaultyGrid(self.scenario, folder)
        self.silo = Silo(self.scenario, folder, self._grid.run.run_id)
        self._shape = flatten(build_model(self.scenario.model, self.scenario.data.shape, seed=1))
        self.models = {number: self._shape + np.float32(number / 8) for number in range(1, rounds + 1)}
        self.open = list(range(rounds + 1))  # 0 stands for joining

    def question(self, number: int) -> Message:
        """Return what a round asks, or round 0, with the newest head that is known."""
        known = self.silo.heads[-1] if self.silo.heads else b""
        request = wire.TrainRequest(number, self.models[number], known=known) if number else None
        content = wire.train_request(request) if request else wire.join_request()
        return delivered(self._grid.asked(content, wire.TRAIN if number else wire.JOIN, NODE), str(number + 1))

    def join(self) -> None:
        """Ask for the first answer alone."""
        ((reply,), _) = self.silo.ask([self.question(self.open.pop(0))])
        assert reply.has_content()

    def ask(self, crash: Crash | None = None, after_s: float | None = None) -> bool:
        """Ask a new process everything that is open; return whether it was killed."""
        replies, killed = self.silo.ask([self.question(number) for number in self.open], crash, after_s)
        assert [wire.refusal_code(reply.error) for reply in replies if reply.has_error()] == []
        assert killed or len(replies) == len(self.open)
        del self.open[: len(replies)]
        return killed

    def give_up(self) -> None:
        """Go on with another model in the round that is open, as a server does that lost its own."""
        if self.open and self.open[0]:
            self.models[self.open[0]] = self.models[self.open[0]] + np.float32(1 / 16)


class KillingGrid(FaultyGrid):
    """The in-process grid, but that one node is a process that is killed, and asked again until an answer is whole.

    Args:
        scenario: The run's.
        folder: Its folder.
        doom: Says for a message, and for how many times it was asked before, at which step the process dies, or after
            which time.
        strays: Whether a round is asked again with another model.
    """

    def __init__(
        self, scenario: Scenario, folder: Path, doom: Callable[[str, int], Step | float | None], strays: bool = False
    ) -> None:
        super().__init__(scenario, folder)
        self.silo, self._doom, self._strays = Silo(scenario, folder, self.run.run_id), doom, strays

    def _answer(self, message: Message) -> Message:
        if message.metadata.dst_node_id != NODE:
            return super()._answer(message)
        for times in count():
            doom = self._doom(message.metadata.message_type, times)
            crash, after_s = (Crash(doom), None) if isinstance(doom, Step) else (None, doom)
            replies, _ = self.silo.ask([message], crash, after_s)
            if replies:
                return replies[0]
            if self._strays and message.metadata.message_type == wire.TRAIN:
                request = wire.read_train_request(message)
                other = wire.train_request(replace(request, model_P=request.model_P + np.float32(1 / 16)))
                message = delivered(self.asked(other, wire.TRAIN, NODE), message.metadata.message_id)
        raise AssertionError


def dropouts(folder: Path, rounds: int) -> list[bool]:
    """Return in which rounds the silo was not in the sum; all rounds ended well, and no other was left out."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == rounds
    assert not any("failed" in line or set(line["dropouts"]) - {SILO} for line in lines)
    return [SILO in line["dropouts"] for line in lines]


def chances(*words: str | int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(0, *words))


def folders(under: Path) -> Iterator[Path]:
    for number in count():
        (under / str(number)).mkdir()
        yield under / str(number)


@pytest.mark.parametrize(
    ("mode", "step"), [*(("off", step) for step in STEPS), *(("simulated", step) for step in STEPS[-17:])], ids=str
)
def test_a_silo_killed_at_any_step_of_any_round_pays_for_all_that_leaves_and_sends_the_same_again(
    mode: str, step: Step, tiny_file: Path, tmp_path: Path
) -> None:
    """Twice in each round, if the second process comes by there too; then the round is let through."""
    server = Server([f"encryption.secure_aggregation={mode}"], tiny_file, tmp_path, rounds=3 if mode == "off" else 2)
    silo, struck, chance = server.silo, Counter[int](), chances(mode, str(step))
    while server.open:
        killed = server.ask(Crash(step, spared=struck[server.open[0]] >= 2))
        at = server.open[0] if server.open else 0
        struck[at] += killed
        if killed and step is not SENT:
            wanted = {NOTHING: 0, CHARGED: struck[at], KEPT: len(silo.asked[at])}[step.done]
            assert len(silo.charges(at)) == (wanted if at else 0)
            if step.of.endswith(".partial") and at:
                there = list((tmp_path / "silos" / SILO).glob(step.of))
                assert bool(there) == ((step.at, step.when) != (RENAME, "after"))
            if chance.random() < 0.25:
                server.give_up()
    for at in server.models:
        wanted = {NOTHING: 1, CHARGED: struck[at] + 1, KEPT: len(silo.asked[at])}[step.done]
        assert len(silo.charges(at)) == wanted
    KILLS["at a step"] += silo.kills
    assert silo.kills >= (1 if step in JOINING else 2)


@pytest.mark.parametrize("mode", ["off", "simulated"])
@pytest.mark.parametrize("seed", range(2))
def test_a_silo_killed_at_random_moments_pays_for_all_that_leaves_and_sends_the_same_again(
    seed: int, mode: str, tiny_file: Path, tmp_path: Path
) -> None:
    """Half of the moments come early, where a ledger is made. Now and then the server loses its own model."""
    settings, chance = [f"encryption.secure_aggregation={mode}", "rounds=40"], chances(mode, seed)
    alone = Server(settings, tiny_file, tmp_path / "alone", rounds=6)
    alone.silo.measures = True
    asked = [alone.question(number) for number in alone.open]
    process, network = alone.silo.start(asked)
    started = time.monotonic()
    assert all(reply.has_content() for reply in alone.silo.hear(process, network, asked))
    usual_s, kills = time.monotonic() - started, 0
    for folder in folders(tmp_path):
        if kills >= RANDOM_KILLS:
            break
        server = Server(settings, tiny_file, folder, rounds=6)
        server.silo.measures = True
        for times in count(4):  # so that it ends on a machine that has become slow
            if not server.open:
                break
            if server.ask(after_s=usual_s * chance.random() ** 2 * times / 4) and chance.random() < 0.25:
                server.give_up()
        kills += server.silo.kills
    KILLS["at random"] += kills


@pytest.mark.parametrize("seed", range(2))
def test_of_two_processes_asked_at_once_one_may_be_killed_and_one_update_leaves(
    seed: int, tiny_file: Path, tmp_path: Path
) -> None:
    """As where a node is taken for dead, and another is started in its place. One waits for the other."""
    server, chance = Server(["rounds=40"], tiny_file, tmp_path, rounds=10), chances("pair", seed)
    silo, dooms = server.silo, [step for step in STEPS if step.done != NOTHING]
    server.join()
    for number in range(1, 11):
        doom = dooms[chance.integers(len(dooms))] if number % 3 else None
        asked = [server.question(number)]
        pair = [silo.start(asked, doom and Crash(doom)), silo.start(asked)]
        _, replies = [silo.hear(*one, asked) for one in pair]
        assert replies[0].has_content()
        silo.check()
        assert len(silo.charges(number)) <= 2
    KILLS["beside another"] += silo.kills


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_request_asked_again_after_another_is_paid_for_again(
    is_killed: bool, tiny_file: Path, tmp_path: Path
) -> None:
    """Whole, or half of it before the silo was killed: its update is gone, and another one has another charge."""
    server = Server([], tiny_file, tmp_path)
    silo = server.silo
    silo.is_steady = False
    server.join()
    _, killed = silo.ask([server.question(1)], Crash(Step(PUT, "after", KEPT)) if is_killed else None)
    KILLS["between two"] += killed
    assert killed == is_killed
    models = (server.models[1] + np.float32(1), server.models[1])
    for turn in range(4):  # another model for the round, and the first one again
        server.models[1] = models[turn % 2]
        ((reply,), _) = silo.ask([server.question(1)])
        assert reply.has_content()
    for number, answered in ((2, True), (1, False), (2, True), (3, True)):  # a round that is past is not made again
        ((reply,), _) = silo.ask([server.question(number)])
        assert reply.has_content() == answered
    assert [len(silo.charges(number)) for number in (1, 2, 3)] == [5, 1, 1]


@pytest.mark.parametrize("step", MASKED, ids=str)
def test_a_silo_killed_while_it_masks_never_sends_two_masked_updates_for_a_round(
    step: Step, tiny_file: Path, tmp_path: Path
) -> None:
    """Under the real server. With the mask its update is on disk, and leaves; the silo is in the sum."""
    scenario = read_scenario(str(tiny_file), [*ON, "rounds=6", "stop_below_loss=1e9"])
    grid = KillingGrid(scenario, tmp_path, lambda kind, times: step if kind == wire.TRAIN and times < 2 else None)
    run_federation(grid, scenario, tmp_path, torch.device("cpu"))
    assert dropouts(tmp_path, 1) == [False]
    KILLS["while masking"] += grid.silo.kills
    assert grid.silo.kills == MASKED[step]
    assert len(grid.silo.charges()) == (1 + grid.silo.kills if step.done == CHARGED else 1)


@pytest.mark.parametrize("step", [step for step in MASKED if step.at in ("clients.hiding:hide", PUT)], ids=str)
def test_a_round_that_was_masked_is_not_masked_for_another_model(step: Step, tiny_file: Path, tmp_path: Path) -> None:
    """Whether or not any of the first had left."""
    scenario = read_scenario(str(tiny_file), [*ON, "rounds=6", "stop_below_loss=1e9"])
    doom = {(wire.TRAIN, 0): step}
    grid = KillingGrid(scenario, tmp_path, lambda kind, times: doom.get((kind, times)), strays=True)
    run_federation(grid, scenario, tmp_path, torch.device("cpu"))
    assert dropouts(tmp_path, 1) == [True]
    assert (len(grid.silo.asked[1]), len(grid.silo.charges())) == (2, 1)
    KILLS["while masking"] += grid.silo.kills


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_silo_killed_in_every_stage_never_acts_twice_in_one(
    when: Literal["before", "after"], tiny_file: Path, tmp_path: Path
) -> None:
    """Before its state is in place, the next process does the stage; after, it gives the same answer once more."""
    scenario, step = read_scenario(str(tiny_file), ON), Step(RENAME, when, NOTHING, "state.partial")
    grid = KillingGrid(scenario, tmp_path, lambda kind, times: step if times < 1 else None)
    run_federation(grid, scenario, tmp_path, torch.device("cpu"))
    assert dropouts(tmp_path, scenario.rounds) == [False] * scenario.rounds
    KILLS["in every stage"] += grid.silo.kills
    assert grid.silo.kills >= 8


def test_a_silo_killed_at_random_moments_of_the_whole_protocol_leaves_every_sum_whole(
    tiny_file: Path, tmp_path: Path
) -> None:
    scenario, chance = read_scenario(str(tiny_file), ON), chances("protocol")
    kills = 0
    for folder in folders(tmp_path):
        if kills >= RANDOM_KILLS:
            break
        grid = KillingGrid(scenario, folder, lambda kind, times: 0.1 * (times + 1) * chance.random())
        grid.silo.measures = True
        run_federation(grid, scenario, folder, torch.device("cpu"))
        dropouts(folder, scenario.rounds)
        kills += grid.silo.kills
    KILLS["at random of the protocol"] += kills


@pytest.fixture(autouse=True)
def _ended(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    ENDED.add(request.node.nodeid)


def test_two_hundred_kills_and_more_were_real(request: pytest.FixtureRequest) -> None:
    """Counts what the others of this file did, so it is skipped where one of them is not run before it, or failed."""
    others = {item.nodeid for item in request.session.items if item.path == request.path} - {request.node.nodeid}
    if len(KILLS) < 7 or others - ENDED:
        pytest.skip(f"counts the kills of the whole module, and not all of it ran before: {dict(KILLS)}")
    logging.getLogger(__name__).info("%d kills: %s", sum(KILLS.values()), dict(KILLS))
    assert sum(KILLS.values()) >= 200
