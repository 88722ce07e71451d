"""A beginning that fails costs nothing: whose ever table, key, law, budget, clock or connection is wrong.

The real apps over the in-process grid, three silos of which a run needs all, each with a budget for one run. Something
is wrong at one silo, or a process is killed at a step; the run fails. Shown after each: no update that left is
uncharged, whole or in part of its way; a silo of which none left has no charge. Once what was wrong is mended, and an
hour has passed, every silo of which nothing left takes part in another run, for which its budget has to be whole.

A kill is an exception that nothing catches: what a process had in memory is gone, and what was on disk is there.
`tests/integration/test_kills.py` kills real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from flwr.app import Error, Message

from clients import policy
from clients.outbox import Outbox
from clients.silo import HELD, Silo
from fedmodel import wire
from fedmodel.config import Scenario, SiloFile, read_scenario, read_silo_file, silo_file_to_toml
from fedmodel.errors import DataError, FedmodelError, LedgerError, PolicyRefused
from fedmodel.ledger import Entry, Ledger, read_ledger, verify_ledger
from fedmodel.ledger import clock as clock_module
from fedmodel.ledger.head_file import HeadFile
from fedmodel.provision import provision, read_kit, read_roster
from scenarios.runs import inspection
from server import beginning
from server.exchange import Post
from server.joining import find_ready, join
from server.known_heads import KnownHeads
from server.server_app import run_federation
from tests.clients.test_client_app import model
from tests.fakes import FaultyGrid

SILOS: Final = {"north": 2, "south": 3, "west": 4}
AT, NODE = "south", 3
ALL = ["federation.min_silos=3", "federation.round_timeout_s=0.3"]
MASKED = [*ALL, "encryption.secure_aggregation=on", "encryption.bound=9.0", "encryption.colluding=0"]
CPU = torch.device("cpu")
BEGAN = datetime(2030, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """Nothing of ours catches it, as nothing catches SIGKILL."""


@dataclass
class Machine:
    """All that lies outside the program at the silos: clocks, what is wrong with them, and who acts at present."""

    folder: Path
    patch: pytest.MonkeyPatch
    now: datetime = BEGAN
    acting: int = 0
    kind: str = ""
    shift: timedelta = timedelta()
    lost: set[tuple[str, str]] = field(default_factory=set)
    mends: list[Callable[[], object]] = field(default_factory=list)

    def clock(self) -> datetime:
        """Return the time of the silo that acts."""
        return self.now + (self.shift if self.acting == NODE else timedelta())

    def law(self, **keys: Any) -> None:
        """Write the silo's law otherwise, until it is mended."""
        path = self.folder / "silos" / AT / "silo.toml"
        before = path.read_text()
        law = SiloFile.model_validate({**read_silo_file(path).model_dump(), **keys})
        path.write_text(silo_file_to_toml(law), encoding="utf-8")
        self.mends.append(lambda: path.write_text(before))

    def file(self, name: str, change: Callable[[Path], object]) -> None:
        """Change a file of the silo's, until it is mended."""
        path = self.folder / name
        before = path.read_bytes()
        change(path)
        self.mends.append(lambda: path.write_bytes(before))

    def at_silo(self, owner: object, name: str, act: Callable[..., object]) -> None:
        """Have another call in place of one, at the silo alone, until it is mended."""
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            return (act if self.acting == NODE else real)(*arguments, **named)

        self.patch.setattr(owner, name, call)
        self.mends.append(lambda: self.patch.setattr(owner, name, real))

    def dies(
        self, owner: object, name: str, *, after: bool = False, at: int = 1, kind: str = "", node: int = NODE
    ) -> None:
        """Kill whoever makes a call for the n-th time, while it answers a kind of message."""
        real, calls = getattr(owner, name), iter(range(1, 10_000))

        def call(*arguments: Any, **named: Any) -> Any:
            here = self.acting == node and kind in ("", self.kind)
            struck = here and next(calls) == at
            if struck and not after:
                raise Killed
            found = real(*arguments, **named)
            if struck:
                raise Killed
            return found

        self.patch.setattr(owner, name, call)
        self.mends.append(lambda: self.patch.setattr(owner, name, real))

    def mend(self) -> None:
        for mend in reversed(self.mends):
            mend()
        self.mends, self.shift, self.lost = [], timedelta(), set()


def is_gone(reply: Message) -> bool:
    return reply.has_error() and reply.error.reason == "gone"


class Watched(FaultyGrid):
    """The in-process grid over such machines; it notes every update that left a silo, on whatever way it was lost."""

    def __init__(self, scenario: Scenario, machine: Machine) -> None:
        super().__init__(scenario, machine.folder, lambda _, reply: None if is_gone(reply) else reply)
        self._machine, self.scenario = machine, scenario
        self.left: dict[str, set[bytes]] = {silo: set() for silo in SILOS}

    def _answer(self, message: Message) -> Message:
        machine, node, kind = self._machine, message.metadata.dst_node_id, message.metadata.message_type
        gone = Message(Error(code=1, reason="gone"), reply_to=message)
        if node == NODE and (kind, "request") in machine.lost:
            return gone
        machine.acting, machine.kind = node, kind
        try:
            reply = super()._answer(message)
        except Killed:
            return gone
        finally:
            machine.acting = 0
        if kind == wire.TRAIN and not reply.has_error():
            name = next(silo for silo, its in SILOS.items() if its == node)
            self.left[name].add(reply.content.array_records["fedmodel.arrays"]["vector"].data)
        return gone if node == NODE and (kind, "reply") in machine.lost else reply


def entries(folder: Path, silo: str) -> tuple[Entry, ...]:
    """Return a silo's ledger, verified whole under its key and the head that it keeps."""
    path, kit = folder / "ledgers" / f"{silo}.sqlite", folder / "silos" / silo
    if not path.exists() or not (kit / "ledger.head").exists():
        return ()
    return verify_ledger(path, read_kit(kit).identity.public, [(kit / "ledger.head").read_bytes()]).entries


def count(folder: Path, silo: str, kind: str) -> int:
    return sum(entry.kind == kind for entry in entries(folder, silo))


# What is wrong at one silo. By name: what is done, after which message of the beginning it shows.


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _closed(*_: object) -> None:
    raise PolicyRefused("Sunday 12:00 is outside this silo's hours")


def _fails(*_: object) -> None:
    raise DataError("row 17 of the table is none")


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


BUDGET = {"unit": "record", "delta": 1e-3, "epsilon": 9.0}
PERSONS = {**BUDGET, "unit": "person", "max_records": 3}
WRONG: dict[str, tuple[str, Callable[[Machine], object]]] = {
    # Its law.
    "law: no such scenario": (wire.READY, lambda m: m.law(scenarios=["ab" * 32])),
    "law: no such code": (wire.READY, lambda m: m.law(code=["ab" * 32])),
    "law: no such server": (wire.READY, lambda m: m.law(servers=["ab" * 32])),
    "law: more noise": (wire.READY, lambda m: m.law(least_noise_multiplier=3.0)),
    "law: less clip": (wire.READY, lambda m: m.law(largest_clip=0.5)),
    "law: larger cohorts": (wire.READY, lambda m: m.law(smallest_cohort=4, largest_roster=9)),
    "law: larger sums": (wire.READY, lambda m: m.law(min_silos=4, smallest_cohort=4, largest_roster=9)),
    "law: no noise of the system": (wire.READY, lambda m: m.law(noise_sources=["seeded-unsafe"])),
    "law: closed at this hour": (wire.READY, lambda m: m.at_silo(policy, "check_hours", _closed)),
    "law: masked": (wire.READY, lambda m: m.law(encryption={"secure_aggregation": "on", "bound": 2.0, "colluding": 0})),
    "law: not a law": (wire.READY, lambda m: m.file(f"silos/{AT}/silo.toml", lambda path: path.write_text("name ="))),
    # Its budget.
    "budget: none": (wire.READY, lambda m: m.law(budgets={})),
    "budget: of other data": (wire.READY, lambda m: m.law(budgets={"hearts": BUDGET})),
    "budget: too small": (wire.READY, lambda m: m.law(budgets={"synthetic": {**BUDGET, "epsilon": 0.01}})),
    "budget: of another unit": (wire.READY, lambda m: m.law(budgets={"synthetic": PERSONS})),
    "budget: a smaller delta": (wire.READY, lambda m: m.law(budgets={"synthetic": {**BUDGET, "delta": 1e-6}})),
    # Its keys.
    "key: none": (wire.READY, lambda m: m.file(f"silos/{AT}/identity.key", lambda path: path.write_text("none"))),
    "key: gone": (wire.READY, lambda m: m.file(f"silos/{AT}/identity.key", Path.unlink)),
    "key: a roster that nobody signed": (wire.READY, lambda m: m.file(f"silos/{AT}/roster", _cut)),
    # Its table: what a simulated silo reads when it joins.
    "table: cannot be read": (wire.JOIN, lambda m: m.at_silo(Silo, "records", _fails)),
    "table: has other columns": (wire.READY, lambda m: m.at_silo(Silo, "check_data", _fails)),
    # Its clock.
    "clock: set back": (wire.READY, lambda m: _with_clock(m, -timedelta(days=1))),
    "clock: a year ahead": ("", lambda m: _with_clock(m, timedelta(days=365))),
    # Its disk.
    "disk: full at the reservation": (wire.JOIN, lambda m: m.at_silo(Ledger, "reserve", _full)),
    "disk: full at the outbox": (wire.JOIN, lambda m: m.at_silo(Outbox, "begin", _full)),
    "disk: full at the charge": (wire.TRAIN, lambda m: m.at_silo(Ledger, "charge", _full)),
    # Its connection.
    **{
        f"connection: no {half} of {kind}": (kind, partial(lambda kind, half, m: m.lost.add((kind, half)), kind, half))
        for kind in (wire.READY, wire.JOIN, wire.TRAIN)
        for half in ("request", "reply")
    },
    # A kill of its process.
    "killed: its ledger is made": (wire.READY, lambda m: m.dies(Ledger, "_begin", after=True, kind=wire.READY)),
    "killed: what it would reserve is tried": (
        wire.READY, lambda m: m.dies(Ledger, "_insert", after=True, at=3, kind=wire.READY)),
    "killed: ready, and says so": (wire.READY, lambda m: m.dies(wire, "join_reply", kind=wire.READY)),
    "killed: before its budget is made": (wire.JOIN, lambda m: m.dies(Ledger, "_enter_scope", kind=wire.JOIN)),
    "killed: its budget is made": (wire.JOIN, lambda m: m.dies(Ledger, "_enter_scope", after=True, kind=wire.JOIN)),
    "killed: in the reservation": (wire.JOIN, lambda m: m.dies(Ledger, "_insert", after=True, at=2, kind=wire.JOIN)),
    "killed: reserved, its head not kept": (wire.JOIN, lambda m: m.dies(HeadFile, "keep", kind=wire.JOIN)),
    "killed: reserved": (wire.JOIN, lambda m: m.dies(Ledger, "reserve", after=True, kind=wire.JOIN)),
    "killed: before the charge": (wire.TRAIN, lambda m: m.dies(Ledger, "charge", kind=wire.TRAIN)),
    "killed: charged": (wire.TRAIN, lambda m: m.dies(Ledger, "charge", after=True, kind=wire.TRAIN)),
    "killed: before the update is kept": (wire.TRAIN, lambda m: m.dies(Outbox, "keep", kind=wire.TRAIN)),
    "killed: the update is kept": (wire.TRAIN, lambda m: m.dies(Outbox, "keep", after=True, kind=wire.TRAIN)),
    # A kill of the server's.
    "killed: the server, once all are ready": (wire.JOIN, lambda m: m.dies(beginning, "join", node=0)),
    "killed: the server, once all have joined": ("joined", lambda m: m.dies(beginning, "join", after=True, node=0)),
}  # fmt: skip


def _with_clock(machine: Machine, shift: timedelta) -> None:
    """Shift the silo's clock, once its ledger has an entry."""
    kit = machine.folder / "silos" / AT
    (machine.folder / "ledgers").mkdir()
    with Ledger(machine.folder / "ledgers" / f"{AT}.sqlite", AT, read_kit(kit).identity, kit / "ledger.head"):
        machine.shift = shift


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Silos that hold what they reserve for an hour, as deployed ones do."""
    found = Machine(tmp_path / "run", monkeypatch)
    found.folder.mkdir()
    monkeypatch.setattr(clock_module, "now", found.clock)
    monkeypatch.setattr(Silo, "held", HELD)
    yield found
    found.mend()


def begins(grid: Watched, scenario: Scenario, folder: Path) -> set[str]:
    """Return who joins a run, of whoever is asked."""
    post = Post(grid, scenario, grid._server)
    heads = KnownHeads(folder / "server" / "heads", read_roster(folder / "server"))
    fewer = scenario.model_copy(update={"federation": scenario.federation.model_copy(update={"min_silos": 1})})
    with suppress(FedmodelError):
        return set(join(post, fewer, heads, find_ready(post, fewer, heads)).members)
    return set()


def spoilt(machine: Machine, tiny_file: Path, settings: list[str], wrong: Callable[[Machine], object]) -> Watched:
    """Begin a run with something wrong, to its end or its error, and return what was seen of it."""
    scenario = read_scenario(str(tiny_file), settings)
    provision(scenario, machine.folder)
    wrong(machine)
    grid = Watched(scenario, machine)
    with suppress(FedmodelError, Killed):
        run_federation(grid, scenario, machine.folder, CPU)
    for silo in SILOS:
        assert len(grid.left[silo]) <= count(machine.folder, silo, "charge"), "an update left that nobody paid for"
    return grid


def mended(machine: Machine, grid: Watched) -> set[str]:
    """Mend what was wrong, let an hour pass, and return who takes part in another run."""
    machine.mend()
    machine.now += HELD
    return begins(Watched(grid.scenario, machine), grid.scenario, machine.folder)


@pytest.mark.parametrize("name", WRONG)
def test_whoevers_fault_it_is_no_silo_loses_budget_for_a_run_that_got_nothing_from_it(
    name: str, machine: Machine, tiny_file: Path
) -> None:
    shows, wrong = WRONG[name]
    grid = spoilt(machine, tiny_file, ALL, wrong)
    reserved = {silo for silo in SILOS if count(machine.folder, silo, "reserve")}
    charged = {silo for silo in SILOS if count(machine.folder, silo, "charge")}
    if shows == wire.READY:
        assert reserved == set(), "a silo reserved before all were ready"
    if shows in (wire.READY, wire.JOIN, "joined"):
        assert charged == set()
    if shows in (wire.JOIN, wire.TRAIN):
        assert name.startswith("killed: the server") or reserved >= {"north", "west"}
    left = {silo for silo, updates in grid.left.items() if updates}
    assert (left == set(SILOS)) == (shows == "" or name == f"connection: no reply of {wire.TRAIN}")
    machine.mend()
    for silo in charged - left:  # charged, and killed before the update was on its way: for a person to say
        _given_back(machine, silo)
    kept = {AT} if name == "killed: the update is kept" else set()
    assert mended(machine, grid) == set(SILOS) - left - kept


def _given_back(machine: Machine, silo: str) -> None:
    """Have a person give back what a silo was charged and holds, where the outbox shows that nothing left."""
    ledger = machine.folder / "ledgers" / f"{silo}.sqlite"
    (run,) = read_ledger(ledger).runs
    with suppress(LedgerError):
        place = inspection.LedgerFiles.of(ledger)
        inspection.give_back(place, run, 1, "killed before it left")
        inspection.give_back(place, run, None, "the run failed")


def test_at_least_thirty_things_go_wrong() -> None:
    assert len(WRONG) >= 30


@pytest.mark.parametrize("stage", [wire.SHARE, wire.TRAIN])
def test_a_masked_update_that_left_is_a_release_opened_or_not_and_one_that_did_not_costs_nothing(
    stage: str, machine: Machine, tiny_file: Path
) -> None:
    """A sum needs all three: without the one, shares are not dealt to enough, or no sum is ever opened."""
    settings = [*MASKED, "privacy.noise_multiplier=2.0"]
    grid = spoilt(machine, tiny_file, settings, lambda m: m.lost.add((stage, "request")))
    left = {silo for silo, updates in grid.left.items() if updates}
    assert left == {wire.SHARE: set(), wire.TRAIN: {"north", "west"}}[stage]
    assert not (machine.folder / "model.safetensors").exists()
    assert {silo for silo in SILOS if count(machine.folder, silo, "charge")} == left
    assert mended(machine, grid) == set(SILOS) - left


def test_a_run_is_taken_up_by_silos_that_reserve_again_or_refuse(machine: Machine, tiny_file: Path) -> None:
    """Its server was away for an hour, before the first charge; meanwhile another run asked at two of them."""
    grid = spoilt(machine, tiny_file, ALL, WRONG["killed: the server, once all have joined"][1])
    machine.mend()
    machine.now += HELD
    other = Watched(grid.scenario, machine)
    for node in (2, 3):
        (reply,) = other.send_and_receive([other.asked(wire.join_request(), wire.JOIN, node)])
        assert not reply.has_error()
    run = str(grid.run.run_id)
    for silo, reserved in (("north", False), ("south", False), ("west", True)):
        standing = read_ledger(machine.folder / "ledgers" / f"{silo}.sqlite")
        assert standing.runs[run].lapsed != reserved
    late = wire.train_request(wire.TrainRequest(1, model(grid.scenario)))
    (reply,) = grid.send_and_receive([grid.asked(late, wire.TRAIN, 2)])
    assert wire.refusal_code(reply.error) == "protocol-violated"
    assert "what this silo reserved for the run was given back" in (machine.folder / "logs" / "north.log").read_text()
    machine.now += HELD
    (reply,) = other.send_and_receive([other.asked(late, wire.TRAIN, 3)])  # south is charged by the other run
    assert not reply.has_error()
    assert begins(grid, grid.scenario, machine.folder) == {"north", "west"}
    (reply,) = grid.send_and_receive([grid.asked(late, wire.TRAIN, 2)])
    assert not reply.has_error()
    assert [count(machine.folder, silo, "charge") for silo in SILOS] == [1, 1, 0]


def test_a_silo_that_is_asked_whether_it_is_ready_enters_nothing_and_keeps_what_it_holds_of_other_runs(
    machine: Machine, tiny_file: Path
) -> None:
    """Byte for byte: its ledger's entries and head, its outbox, and its secrets of a run under way."""
    scenario = read_scenario(str(tiny_file), [*MASKED, "rounds=1", "budgets={south=40.0}"])
    provision(scenario, machine.folder)
    grid = Watched(scenario, machine)
    run_federation(grid, scenario, machine.folder, CPU)
    kit = machine.folder / "silos" / AT

    def held() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in kit.iterdir() if path.is_file()}

    before, size = held(), len(entries(machine.folder, AT))
    again = Watched(scenario, machine)
    for _ in range(3):
        (reply,) = again.send_and_receive([again.asked(wire.ready_request(), wire.READY, NODE)])
        assert not reply.has_error()
    assert held() == before
    assert len(entries(machine.folder, AT)) == size
    assert not (machine.folder / "logs").exists()


def test_what_a_silo_answers_whether_it_is_ready_hangs_on_no_record(machine: Machine, tiny_file: Path) -> None:
    scenario = read_scenario(str(tiny_file), ALL)
    provision(scenario, machine.folder)
    grid = Watched(scenario, machine)
    machine.at_silo(Silo, "records", _fails)
    (reply,) = grid.send_and_receive([grid.asked(wire.ready_request(), wire.READY, NODE)])
    assert not reply.has_error()
    (reply,) = grid.send_and_receive([grid.asked(wire.join_request(), wire.JOIN, NODE)])
    assert wire.refusal_code(reply.error) == "internal"
    assert count(machine.folder, AT, "reserve") == 0
