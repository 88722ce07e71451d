"""A simulation that is cut short at any moment, and the same command again.

A child process dies by `os._exit` at its k-th durable step: before or after a file is synced, put in its place, or a
ledger's transaction is committed. Nothing of it is left but what is on disk. Steps are counted, so that nothing hangs
on a clock, and noise is seeded, so that "as if it never was" can be said of every bit.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from clients import hiding
from clients.silo import Silo
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ConfigError, DropoutError
from fedmodel.learning.jobs._pipelines import forget_pipelines
from fedmodel.ledger import verify_ledger
from fedmodel.provision import provision, read_kit
from fedmodel.system.durable import held
from scenarios.cli import main
from scenarios.runs.summary import read_metrics
from scenarios.simulation import resuming
from scenarios.simulation.resuming import held_folder
from scenarios.simulation.simulate import simulate
from server.journal import Journal
from tests.conftest import TINY

BASE = ["privacy.noise=seeded-unsafe", "rounds=3"]
CARRYING = ["training.momentum=0.9", "training.keep_optimizer_state=true"]
FOUR = ['federation.silos=["north","south","west","east"]', "data.partition.min_records=10"]
HIDDEN = ["encryption.bound=50.0", "encryption.colluding=0"]
AVERAGED = ["federation.strategy=fedadam", "training.ema_decay=0.5"]  # behind what a strategy keeps
MODES = {
    "off": [*BASE, *FOUR, *CARRYING, "federation.cohort=3", "training.ema_decay=0.5"],
    "simulated": [*BASE, *HIDDEN, *AVERAGED, "encryption.secure_aggregation=simulated"],
    "on": [*BASE, *FOUR, *HIDDEN, *CARRYING, "encryption.secure_aggregation=on", "encryption.window=2"],
}
KILLED = 9


class Doom:
    """Counts durable steps, and ends the process at one of them, as a kill does: nothing is cleaned up."""

    def __init__(self, at: int) -> None:
        self.at, self.steps = at, 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            os._exit(KILLED)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count every durable step that is taken meanwhile."""
        with (
            mock.patch("os.fsync", self.around(os.fsync)),
            mock.patch("os.replace", self.around(os.replace)),
            mock.patch("sqlite3.connect", self.connect(sqlite3.connect)),
        ):
            yield

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call with a step before it and one after."""

        def call(*arguments: Any, **named: Any) -> Any:
            self.step()
            done = real(*arguments, **named)
            self.step()
            return done

        return call

    def connect(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return what opens a data base whose commits are steps."""
        doom = self

        class Doomed(sqlite3.Connection):
            def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
                run = doom.around(super().execute) if sql == "COMMIT" else super().execute
                return run(sql, *rest)

        return lambda *arguments, **named: real(*arguments, factory=Doomed, **named)


class Halts(Doom):
    """Halts at every durable step until it is told to go on, so that others see what a kill would leave there."""

    def __init__(self, halted: int, go_on: int) -> None:
        super().__init__(0)
        self._halted, self._go_on = halted, go_on

    def step(self) -> None:
        self.steps += 1
        os.write(self._halted, b".")
        os.read(self._go_on, 1)


def run(scenario: Scenario, folder: Path, engine: str = "in-process") -> dict[str, Any]:
    """Do what the command does once a scenario was checked."""
    with held_folder(scenario, folder, engine, "cpu") as run_dir:
        return simulate(scenario, 15, "in-process", "cpu", run_dir, nullcontext())


def run_in_a_child(scenario: Scenario, folder: Path, at: int = 0) -> tuple[int, int]:
    """Run the command in a process of its own, which ends at a step; return its status, and how many steps it took.

    It has what this process imported, so that a kill costs a run and no start of Python, and nothing that it measured.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            try:
                forget_pipelines()
                doom = Doom(at)
                with doom.counting():
                    run(scenario, folder)
                os.write(write, str(doom.steps).encode())
                os._exit(0)
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
        os._exit(1)
    os.close(write)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read) as told:
        return os.waitstatus_to_exitcode(status), int(told.read() or 0)


def halted_at_each_step(scenario: Scenario, folder: Path) -> Iterator[int]:
    """Run the command in a process of its own, and yield the number of each durable step while it halts there.

    What lies in the folder then is what a kill leaves: a process that dies takes nothing of its disk along.
    """
    (halted, halts), (goes_on, go_on) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.close(halted)
            os.close(go_on)  # so that its next read ends once the test has, whichever way
            try:
                forget_pipelines()
                with Halts(halts, goes_on).counting():
                    run(scenario, folder)
                os._exit(0)
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
        os._exit(1)
    os.close(halts)
    at = 0
    try:
        while os.read(halted, 1):
            at += 1
            yield at
            os.write(go_on, b".")
    finally:
        for one in (halted, goes_on, go_on):
            os.close(one)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def left(folder: Path) -> dict[str, Any]:
    """Return what must be as if the run had never been cut short."""
    lines = read_metrics(folder / "metrics.jsonl")
    for line in lines:
        del line["seconds"]
    summary = json.loads((folder / "summary.json").read_text())
    del summary["timing"]
    return {"lines": lines, "summary": summary, "model": (folder / "model.safetensors").read_bytes()}


def rounds_paid(scenario: Scenario, folder: Path) -> dict[str, list[int]]:
    """Return which rounds each silo's ledger, which is whole, was charged for, each as often as it was."""
    paid = {}
    for silo in scenario.federation.silos:
        path = folder / "ledgers" / f"{silo}.sqlite"
        found = verify_ledger(path, read_kit(folder / "silos" / silo).identity.public)
        paid[silo] = [int(entry.round or 0) for entry in found.entries if entry.kind == "charge"]
    return paid


@pytest.fixture(scope="module", params=MODES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Path, int]:
    """A run that was never cut short, in this process, and how many durable steps it took."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    scenario = read_scenario(str(folder / "tiny.toml"), MODES[request.param])
    doom = Doom(0)
    with doom.counting():
        run(scenario, folder / "run")
    return scenario, folder / "run", doom.steps


def cut_short(scenario: Scenario, whole: Path, folder: Path, moments: list[int]) -> bool:
    """Kill the command at these steps, one life after the other, let it end, and hold what it left to what it should.

    Returns:
        As `ended` does.
    """
    for at in moments:
        status, _ = run_in_a_child(scenario, folder, at)
        if (folder / "summary.json").exists():
            has_ended(scenario, folder)
            break
        assert status == KILLED
    else:
        assert run_in_a_child(scenario, folder)[0] == 0
    return ended(scenario, whole, folder, len(moments))


def has_ended(scenario: Scenario, folder: Path) -> None:
    """Give the same command again, which has nothing left to do but to erase what a kill left."""
    with pytest.raises(ConfigError, match="holds a run that has ended"):
        run(scenario, folder)


def ended(scenario: Scenario, whole: Path, folder: Path, kills: int) -> bool:
    """Hold what a run left that was killed so many times, and ended, to what it should.

    Returns:
        Whether some silo was charged for what it had not finished.
    """
    expected, found = left(whole), left(folder)
    assert [line["round"] for line in found["lines"]] == [1, 2, 3]
    for one in found["summary"]["privacy"]:
        assert one["steps"] <= one["steps_reserved"] == scenario.plan(one["silo"]).steps
        assert one["noise_source"] == "seeded-unsafe"
    assert not [name for name in ("checkpoint", "answers", "window") if (folder / name).exists()]
    paid = rounds_paid(scenario, folder)
    twice = {silo: len(rounds) - len(set(rounds)) for silo, rounds in paid.items() if len(rounds) > len(set(rounds))}
    # Charged for the last round and not done with it: there is nothing left to be charged for it again.
    late = {silo for silo, code in found["lines"][2]["dropouts"].items() if code == "budget-exceeded"} - twice.keys()
    if not twice and not late:
        assert found == expected
        assert paid == rounds_paid(scenario, whole)
        return False
    # Charged for what it had not finished, and its budget pays for three rounds: it may be asked no more in the third.
    assert sum(twice.values()) + len(late) <= kills
    assert all(paid[silo] == [1, 2, 3] for silo in late)
    assert found["lines"][:2] == expected["lines"][:2]
    withdrawn = found["lines"][2]["withdrawn"]
    assert withdrawn.keys() <= twice.keys() | late
    assert {one["code"] for one in withdrawn.values()} <= {"budget-exceeded"}
    return True


SLICES = 3


@pytest.mark.parametrize("part", range(SLICES))
def test_a_simulation_killed_at_a_durable_step_ends_as_if_it_never_was(
    part: int, whole: tuple[Scenario, Path, int], tmp_path: Path
) -> None:
    """A few steps of all; `make test-chaos` takes every one."""
    scenario, folder, steps = whole
    cut_short(scenario, folder, tmp_path / "run", [1 + (part * steps) // SLICES + 7 * part % 11])


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_a_simulation_killed_at_every_single_durable_step_ends_as_if_it_never_was(
    whole: tuple[Scenario, Path, int], tmp_path: Path
) -> None:
    """A run halts at every step, and what it has on disk there is taken up again in another place."""
    scenario, folder, steps = whole
    paid: list[int] = []
    for at in halted_at_each_step(scenario, tmp_path / "run"):
        place = tmp_path / str(at)
        if (tmp_path / "run").exists():
            shutil.copytree(tmp_path / "run", place)
        if (place / "summary.json").exists():
            has_ended(scenario, place)
        else:
            assert run_in_a_child(scenario, place)[0] == 0
        if ended(scenario, folder, place, 1):
            paid.append(at)
        shutil.rmtree(place)
    assert at == steps
    assert 0 < len(paid) < steps  # only between a charge and its update


def test_a_simulation_killed_again_and_again_ends_as_if_it_never_was(
    whole: tuple[Scenario, Path, int], tmp_path: Path
) -> None:
    """Also while it takes up what it had."""
    scenario, folder, steps = whole
    cut_short(scenario, folder, tmp_path / "run", [steps // 5, 9, steps // 4, 40])


def test_a_charge_that_was_not_finished_stands_and_with_fresh_noise_nothing_is_drawn_again(
    tiny_file: Path, tmp_path: Path
) -> None:
    """Killed in the second round's training: the charge stays, the round is done, and the plan is what was reserved."""
    scenario = read_scenario(str(tiny_file), ["rounds=3"])

    def killed(*_: Any) -> Any:
        if len(read_metrics(tmp_path / "r" / "metrics.jsonl")) == 1:
            raise KeyboardInterrupt
        return real(*_)

    from fedmodel.learning.jobs import training

    real = training.Answering.answer
    with mock.patch("fedmodel.learning.jobs.training.Answering.answer", killed), pytest.raises(KeyboardInterrupt):
        run(scenario, tmp_path / "r")
    assert rounds_paid(scenario, tmp_path / "r") == {"north": [1, 2], "south": [1], "west": [1]}
    first = read_metrics(tmp_path / "r" / "metrics.jsonl")
    summary = run(scenario, tmp_path / "r")
    lines = read_metrics(tmp_path / "r" / "metrics.jsonl")
    assert lines[:1] == first
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert lines[1]["dropouts"] == {}
    assert rounds_paid(scenario, tmp_path / "r") == {"north": [1, 2, 2], "south": [1, 2, 3], "west": [1, 2, 3]}
    assert summary["withdrawn"] == [{"silo": "north", "round": 3, "code": "budget-exceeded"}]
    assert summary["timing"]["seconds_total"] >= sum(line["seconds"] for line in lines)
    epsilons = {row["epsilon"] for row in summary["privacy"]}
    assert len(epsilons) == 1  # of the whole plan, for all: what it cost does not hang on the kill


def begun(scenario: Scenario, folder: Path) -> dict[str, bytes]:
    """Begin a run in a folder and go no further; return what lies in it."""
    with held_folder(scenario, folder, "in-process", "cpu"):
        pass
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("settings", "engine", "device", "said"),
    [
        (["rounds=3"], "in-process", "cpu", "began with rounds = 2, where this is 3"),
        (["seed=6"], "in-process", "cpu", "began with seed = 5, where this is 6"),
        (["privacy.noise_multiplier=3.0"], "in-process", "cpu", "privacy.noise_multiplier = 2.0, where this is 3.0"),
        (["training.momentum=0.9"], "in-process", "cpu", "training.momentum"),
        ([], "flower", "cpu", "--engine in-process, where this is flower"),
        ([], "in-process", "cuda", "--device cpu, where this is cuda"),
    ],
)
def test_another_run_never_goes_on_in_a_runs_folder(
    settings: list[str], engine: str, device: str, said: str, tiny_file: Path, tmp_path: Path
) -> None:
    before = begun(read_scenario(str(tiny_file)), tmp_path / "r")
    other = read_scenario(str(tiny_file), settings)
    with (
        pytest.raises(ConfigError, match="never writes over another") as refused,
        held_folder(other, tmp_path / "r", engine, device),
    ):
        pass
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert contents(tmp_path / "r") == before


def test_a_run_of_other_code_does_not_go_on(tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = begun(tiny, tmp_path / "r")
    monkeypatch.setattr(resuming, "installed_hash", lambda: "ab" * 32)
    with (
        pytest.raises(ConfigError, match=r"code [0-9a-f]{16}\.\.\., where abababab"),
        held_folder(tiny, tmp_path / "r", "in-process", "cpu"),
    ):
        pass
    assert contents(tmp_path / "r") == before


@pytest.mark.parametrize("name", ["scenario.toml", "data.csv", "model.safetensors", "metrics.jsonl", ".hidden"])
def test_a_folder_of_something_else_is_left_alone(name: str, tiny: Scenario, tmp_path: Path) -> None:
    (tmp_path / name).write_text("a person's own")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="is not an empty folder"), held_folder(tiny, tmp_path, "in-process", "cpu"):
        pass
    assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"run": "1"}', "not JSON"])
def test_a_file_of_another_tool_is_no_run_that_began(text: str, tiny: Scenario, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "run.json").write_text(text)
    with pytest.raises(ConfigError, match=r"run\.json says of no run"), held_folder(tiny, folder, "in-process", "cpu"):
        pass
    assert contents(folder) == {"run.json": text.encode()}


@pytest.mark.parametrize("lock", ["run.lock", "serving.lock"])
def test_a_run_that_is_being_run_is_refused_and_goes_on_once_it_is_not(
    lock: str, tiny: Scenario, tmp_path: Path
) -> None:
    """By its command, or by a server of Flower's that outlived its command."""
    before = begun(tiny, tmp_path / "r")
    with held(tmp_path / "r" / lock, "elsewhere"):
        with (
            pytest.raises(ConfigError, match="is being run by another process now"),
            held_folder(tiny, tmp_path / "r", "in-process", "cpu"),
        ):
            pass
        assert contents(tmp_path / "r") == before
    with held_folder(tiny, tmp_path / "r", "in-process", "cpu"):
        assert contents(tmp_path / "r") == before


def test_kits_that_were_not_all_made_are_made_anew(tiny: Scenario, tmp_path: Path) -> None:
    begun(tiny, tmp_path / "r")
    (tmp_path / "r" / "silos" / "north").mkdir(parents=True)
    (tmp_path / "r" / "silos" / "north" / "identity.key").write_text("half")
    begun(tiny, tmp_path / "r")
    assert not (tmp_path / "r" / "silos").exists()
    provision(tiny, tmp_path / "r")
    kept = contents(tmp_path / "r" / "silos")
    begun(tiny, tmp_path / "r")
    assert contents(tmp_path / "r" / "silos") == kept


def test_a_seed_of_the_operating_system_is_the_runs_for_good(tiny_file: Path, tmp_path: Path) -> None:
    first = read_scenario(str(tiny_file), ["seed="])
    begun(first, tmp_path / "r")
    found = resuming.begun_in(tmp_path / "r")
    assert found is not None
    again = read_scenario(str(tiny_file), ["seed="], found.seed)
    assert again == first
    assert read_scenario(str(tiny_file), ["seed=6"], found.seed).seed == 6  # a seed that is named is the person's
    begun(again, tmp_path / "r")


def test_a_run_whose_round_failed_for_good_is_tried_again_by_the_same_command(tiny: Scenario, tmp_path: Path) -> None:
    """Such as when a disk is full: the silos refuse, the round fails, and once there is room the run goes on."""
    full = mock.patch(
        "fedmodel.learning.jobs.training.Answering.answer", side_effect=OSError(28, "No space left on device")
    )
    with full, pytest.raises(DropoutError):
        run(tiny, tmp_path / "r")
    summary = run(tiny, tmp_path / "r")
    assert summary["rounds_completed"] + summary["rounds_failed"] == 2
    assert [line["round"] for line in read_metrics(tmp_path / "r" / "metrics.jsonl")] == [1, 2]


def test_a_masked_round_that_failed_for_good_is_tried_again_once_what_was_in_the_way_is_mended(
    tiny_file: Path, tmp_path: Path
) -> None:
    """A silo that could not read its disk for a moment is asked again; who answered is not, and nobody pays twice."""
    changes = [*HIDDEN, "encryption.secure_aggregation=on", "federation.min_silos=3"]
    scenario = read_scenario(str(tiny_file), changes)
    real = hiding.prepare

    def broken(silo: Silo, request: Any) -> None:
        if silo.name == "west":
            raise OSError(24, "Too many open files")
        real(silo, request)

    with mock.patch("clients.hiding.prepare", broken), pytest.raises(DropoutError, match=r"west \(internal\)"):
        run(scenario, tmp_path / "r")
    assert rounds_paid(scenario, tmp_path / "r") == {"north": [1], "south": [1], "west": []}
    summary = run(scenario, tmp_path / "r")
    assert summary["rounds_failed"] == 0
    assert rounds_paid(scenario, tmp_path / "r") == {silo: [1, 2] for silo in scenario.federation.silos}


def test_a_masked_run_that_too_few_joined_pays_nothing_and_begins_once_they_are_back(
    tiny_file: Path, tmp_path: Path
) -> None:
    """Begun with two, it would have failed in every round: who did not join stays out of a run that began."""
    scenario = read_scenario(str(tiny_file), [*HIDDEN, "encryption.secure_aggregation=on"])
    real = Silo.ledger

    def broken(self: Silo) -> Any:
        if self.name == "north":
            raise OSError(28, "No space left on device", "north.sqlite")
        return real(self)

    for _ in range(2):
        with mock.patch.object(Silo, "ledger", broken), pytest.raises(DropoutError) as failed:
            run(scenario, tmp_path / "r")
        assert re.search(r"2 silos are too few to begin: .*did not join: north .* No space left", str(failed.value))
        for silo in ("south", "west"):
            identity = read_kit(tmp_path / "r/silos" / silo).identity.public
            entries = verify_ledger(tmp_path / f"r/ledgers/{silo}.sqlite", identity).entries
            assert [entry.kind for entry in entries if entry.kind == "charge"] == []
    assert run(scenario, tmp_path / "r")["dropouts"] == []
    assert [line["cohort"] for line in read_metrics(tmp_path / "r/metrics.jsonl")] == [["north", "south", "west"]] * 2
    assert rounds_paid(scenario, tmp_path / "r") == {silo: [1, 2] for silo in scenario.federation.silos}


def test_a_full_disk_under_the_journal_ends_in_what_goes_on_afterwards(tiny: Scenario, tmp_path: Path) -> None:
    real = Journal.keep

    def full(self: Journal, checkpoint: Any, dealt: Any = None) -> None:
        if checkpoint.round_number == 1:
            raise OSError(28, "No space left on device", str(tmp_path))
        real(self, checkpoint, dealt)

    with mock.patch.object(Journal, "keep", full), pytest.raises(OSError, match="No space left"):
        run(tiny, tmp_path / "r")
    summary = run(tiny, tmp_path / "r")
    assert (summary["rounds_completed"], summary["withdrawn"]) == (2, [])  # what was sent is sent again, and not paid


def test_ctrl_c_ends_with_the_command_that_goes_on(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As typed into a shell, quotes and all; without --out it names the folder that was made."""
    monkeypatch.chdir(tmp_path)
    odd = tiny_file.rename(tmp_path / "my tiny.toml")
    setting = 'summary=it\'s "odd" $HOME'
    typed = ["fedmodel", "simulate", odd.name, "--set", setting, "--set", "seed=", "--json", "--no-report"]
    monkeypatch.setattr(sys, "argv", typed)
    with mock.patch("server.server_app.Post.begin", side_effect=KeyboardInterrupt), pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 130
    out, err = capsys.readouterr()
    assert out == ""
    again = shlex.split(err.splitlines()[-1])
    assert again[: len(typed) - 2] == typed[:-2]
    assert set(again[len(typed) - 2 :]) > {"--json", "--no-report", "--out"}
    monkeypatch.setattr(sys, "argv", again)
    with suppress(SystemExit):
        main.main()
    summary = json.loads(capsys.readouterr().out)
    assert summary["rounds_completed"] == 2
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert "holds a run that has ended" in capsys.readouterr().err
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_what_an_ended_run_would_have_gone_on_from_is_erased_by_the_same_command(
    tiny: Scenario, tmp_path: Path
) -> None:
    """Killed between its summary and that: it holds the model of the last round, and answers of single silos."""
    killed = mock.patch("scenarios.simulation.simulate.forget_all", side_effect=KeyboardInterrupt)
    with killed, pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path / "r")
    assert (tmp_path / "r" / "checkpoint").exists()
    before = contents(tmp_path / "r")
    with held(tmp_path / "r" / "run.lock", "elsewhere"), pytest.raises(ConfigError, match="is being run by another"):
        run(tiny, tmp_path / "r")
    assert contents(tmp_path / "r") == before
    has_ended(tiny, tmp_path / "r")
    assert contents(tmp_path / "r") == {name: one for name, one in before.items() if name != "checkpoint"}
    has_ended(tiny, tmp_path / "r")
