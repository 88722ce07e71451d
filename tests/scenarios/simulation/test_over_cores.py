"""Silos over a processor's cores: the same updates to the last bit, and no process that outlives its run."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import DataError, DropoutError, FedmodelError
from fedmodel.learning.models import parameters_of
from fedmodel.secagg import FRESH
from fedmodel.system.durable import held
from scenarios.simulation import forks, stacks
from scenarios.simulation.forks import Forks
from scenarios.simulation.over_cores import OverCores, one_by_one
from scenarios.simulation.prepared import prepare
from scenarios.simulation.resuming import LOCK
from scenarios.simulation.stacked_trainer import Stacked
from scenarios.simulation.stacks_over_cores import StacksOverCores
from scenarios.simulation.trainers import OneByOne, Trained
from server.run_files import SERVING
from tests.conftest import TINY

CPU = torch.device("cpu")
MANY = ["federation.silos=9", "data.records=400", "data.partition.min_records=10", "privacy.noise=seeded-unsafe",
        "training.optimizer=adam", "training.learning_rate=0.05", "training.keep_optimizer_state=true",
        'model={kind="mlp",hidden=[3],dropout=0.5}']  # fmt: skip

GOING_ON = [*MANY[:3], *MANY[7:], "rounds=2"]  # with noise of the system, and nothing that would be in memory alone
ROUND = OneByOne.round

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forks, of Linux alone")


@pytest.fixture
def scenario(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), MANY)


def over(scenario: Scenario, processes: int = 2) -> OverCores:
    return OverCores(scenario, OneByOne(scenario, CPU), processes)


@pytest.fixture
def both(scenario: Scenario) -> Iterator[tuple[OverCores, OneByOne]]:
    with closing(over(scenario)) as several:
        yield several, OneByOne(scenario, CPU)


def rounds(trainer: Any, scenario: Scenario, cohorts: Sequence[Sequence[str]]) -> list[dict[str, bytes]]:
    """Return the updates of some rounds, each from another model."""
    model_P = np.zeros(parameters_of(scenario.model, scenario.data.shape), dtype=np.float32)
    found = []
    for number, cohort in enumerate(cohorts, start=1):
        trained = trainer.round(number, cohort, model_P + np.float32(number), FRESH if number == 1 else bytes(32))
        assert list(trained.updates) == list(cohort)
        found.append({silo: update.tobytes() for silo, update in trained.updates.items()})
    return found


def test_updates_are_those_of_one_process_to_the_last_bit_and_state_stays_with_its_silo(
    both: tuple[OverCores, OneByOne], scenario: Scenario
) -> None:
    silos = scenario.federation.silos
    cohorts = [silos, silos[3:8], tuple(reversed(silos))]
    several, alone = (rounds(trainer, scenario, cohorts) for trainer in both)
    assert several == alone
    assert len({update for found in several for update in found.values()}) == sum(map(len, cohorts))


def test_through_pipes_goes_the_model_once_to_each_process_and_no_update_comes(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, of a model of 385 parameters: what is sent a second time, or comes through a pipe, is red."""
    monkeypatch.setattr(stacks, "_CACHED", {"cpu": 1000})
    passed = Counter[str]()
    send, recv = Connection.send, Connection.recv

    def sent(self: Connection, told: Any) -> None:
        passed["sent"] += len(ForkingPickler.dumps(told))
        send(self, told)

    def came(self: Connection) -> Any:
        told = recv(self)
        passed["came"] += len(ForkingPickler.dumps(told))
        return told

    scenario = read_scenario(str(tiny_file), [*GOING_ON[:3], "model.hidden=[64]"])
    silos, model_P = scenario.federation.silos, np.zeros(385, dtype=np.float32)
    for made in (over(scenario), StacksOverCores(scenario, Stacked(scenario, CPU, threads=1), 2)):
        with closing(made), monkeypatch.context() as counting:
            counting.setattr(Connection, "send", sent)
            counting.setattr(Connection, "recv", came)
            passed.clear()
            assert len(made.round(1, silos, model_P, FRESH).updates) == 9
        assert 2 * model_P.nbytes < passed["sent"] < 2 * (model_P.nbytes + 250) + 16 * len(silos)
        assert passed["came"] < 2 * 20


def test_a_silo_whose_training_fails_costs_its_own_part_in_whichever_process(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OneByOne._update

    def update(self: OneByOne, silo: str, *rest: Any) -> Any:
        if silo in ("silo-0002", "silo-0005"):
            raise DataError("it has a record that is no number")
        return real(self, silo, *rest)

    monkeypatch.setattr(OneByOne, "_update", update)
    model_P = np.zeros(parameters_of(scenario.model, scenario.data.shape), dtype=np.float32)
    with closing(over(scenario)) as several:
        found = several.round(1, scenario.federation.silos, model_P, FRESH)
    assert found.failed == dict.fromkeys(("silo-0002", "silo-0005"), DataError.code)
    assert len(found.updates) == 7


@pytest.mark.parametrize(
    ("number", "settings", "then"),
    [
        (1, [], "the run goes on from its last whole round by the command that began it"),
        (2, [], "the state of silos' optimisers was in its memory, so that the run begins again in a new folder"),
        (2, ["training.keep_optimizer_state=false"], "the run goes on from its last whole round by the command that"),
    ],
)
def test_a_process_that_is_gone_fails_the_run_in_a_sentence_and_the_others_end_with_it(
    number: int, settings: list[str], then: str, tiny_file: Path
) -> None:
    with closing(over(read_scenario(str(tiny_file), [*MANY, *settings]))) as several:
        several._forks._processes[1].kill()
        several._forks._processes[1].join()
        with pytest.raises(FedmodelError, match=rf"^a process that trained silos ended, .*; {then}"):
            several.round(number, ["silo-0000", "silo-0001"], np.zeros(23, dtype=np.float32), FRESH)
        assert children() == []


def test_what_began_ends_where_the_next_cannot(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = ForkProcess.start, []

    def start(self: ForkProcess) -> None:
        seen.append(children())
        if len(seen) == 3:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        real(self)

    monkeypatch.setattr(ForkProcess, "start", start)
    with pytest.raises(FedmodelError, match=r"^a process that trains silos could not begin: Resource temporarily"):
        over(scenario, 3)
    assert (list(map(len, seen)), children()) == ([0, 1, 2], [])


def test_each_process_has_its_own_pipe_alone_and_ends_when_nobody_can_ask_it(scenario: Scenario) -> None:
    with closing(over(scenario)) as several:
        for end, process in zip(several._forks._ends, several._forks._processes, strict=True):
            assert process.exitcode is None
            end.close()
            process.join(60)  # of which it takes some milliseconds
            assert process.exitcode == 0


def test_a_process_whose_parent_was_gone_before_it_could_be_said_ends_at_once() -> None:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=forks._live, args=(there, (), os.getppid(), None))
    process.start()
    process.join(60)
    code = process.exitcode
    process.kill()
    assert (code, here.closed) == (0, False)


def run(folder: Path) -> dict[str, Any]:
    """Run a scenario whose silos are shared out over two processes, and return its summary."""
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    prepared = prepare(folder / "tiny.toml", GOING_ON, "vectorised", "cpu", folder / "r")
    with prepared.held() as run_dir:
        return prepared.run(run_dir, nullcontext())


def assert_nothing_is_left(folder: Path) -> None:
    """Assert that nobody trains any more, and nobody holds the run's folder."""
    assert children() == []
    for name in (LOCK, SERVING):
        with held(folder / "r" / name, f"{name} is held"):
            pass


def killed(self: OneByOne, number: int, silos: Sequence[str], *rest: Any) -> Any:
    """End this process in the second round, in the middle of it, as the system does."""
    if number == 2 and "silo-0001" in silos:
        os.kill(os.getpid(), signal.SIGKILL)
    return ROUND(self, number, silos, *rest)


def interrupted(self: OneByOne, number: int, silos: Sequence[str], *rest: Any) -> Any:
    """Press Ctrl-C in the second round, as a person does until it is heard, and train for ever.

    Python hears no signal that comes just before it begins to wait for what a pipe brings.
    """
    while number == 2:
        if "silo-0001" in silos:
            os.kill(os.getppid(), signal.SIGINT)
        time.sleep(5)
    return ROUND(self, number, silos, *rest)


def useless(self: OneByOne, number: int, silos: Sequence[str], *rest: Any) -> Any:
    """Make no update in the second round."""
    found = ROUND(self, number, silos, *rest)
    return found if number == 1 else Trained({}, dict.fromkeys(silos, DataError.code))


@pytest.mark.usefixtures("hears")
@pytest.mark.parametrize(
    ("story", "raised"),
    [(None, None), (useless, DropoutError), (killed, FedmodelError), (interrupted, KeyboardInterrupt)],
    ids=["to its end", "an error", "a killed process", "Ctrl-C"],
)
def test_however_a_run_ends_no_process_of_it_is_left_and_the_same_call_goes_on(
    story: Callable[..., Any] | None,
    raised: type[BaseException] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forks, "cores", lambda: 2)
    began: list[int] = []
    begin = Forks._begin
    monkeypatch.setattr(Forks, "_begin", lambda *given: (begin(*given), began.append(len(children()))))
    if story is not None and raised is not None:
        with monkeypatch.context() as broken:
            broken.setattr(OneByOne, "round", story)
            with pytest.raises(raised):
                run(tmp_path)
        assert_nothing_is_left(tmp_path)
    summary = run(tmp_path)
    assert_nothing_is_left(tmp_path)
    assert began == ([1, 2] if story is None else [1, 2, 1, 2])
    assert (summary["rounds_completed"], summary["rounds_failed"]) == (2, 0)


def test_no_process_outlives_a_run_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    told = f"""
import sys, time, torch
from fedmodel.config import read_scenario
from scenarios.simulation.over_cores import OverCores
from scenarios.simulation.trainers import OneByOne
OneByOne.round = lambda *_: time.sleep(600)  # in the middle of a silo's training
scenario = read_scenario({str(tmp_path / "tiny.toml")!r}, {MANY!r})
over = OverCores(scenario, OneByOne(scenario, torch.device("cpu")), 2)
over.ask(1, [["silo-0000"], ["silo-0001"]], None, b"")
print(*(one.pid for one in over._forks._processes), flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", told], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pids = [int(pid) for pid in run.stdout.readline().split()]
        assert len(pids) == 2
        run.send_signal(signal.SIGKILL)
        run.wait()
    left, deadline = pids, time.monotonic() + 60  # of which a kill takes some milliseconds
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if runs(pid)]
        time.sleep(0.01)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def children() -> list[int | None]:
    """Return the processes that this one forked, and that are still there."""
    return [one.pid for one in multiprocessing.active_children()]


def runs(pid: int) -> bool:
    """Return whether a process is there, and does anything."""
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False


@pytest.mark.parametrize(
    ("settings", "kind"),
    [([], OverCores), (["federation.silos=7"], OneByOne), (["training.threads=2"], OneByOne)],
)
def test_cores_are_used_where_that_pays_and_threads_of_a_silo_are_not_forked(
    settings: list[str], kind: type, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "cores", lambda: 2)
    monkeypatch.setattr(forks, "threads_of", lambda said: 1 if said == "auto" else said)
    with closing(one_by_one(read_scenario(str(tiny_file), [*MANY, *settings]), CPU)) as made:
        assert type(made) is kind
