"""Children that are watched: real processes, real signals."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fedmodel.errors import ConfigError
from fedmodel.system import supervision
from fedmodel.system.supervision import Child, Chore, Facts, Supervisor, forbid_dumps


def wait_until(condition: Callable[[], object], timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.02)


def pids(folder: Path, name: str) -> list[int]:
    """Every process that a child of this name has been, in order."""
    path = folder / f"{name}.pids"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


SUPERVISOR = """
import os, signal, subprocess, sys, time
from pathlib import Path
from fedmodel.system.supervision import Child, Supervisor

folder = Path(sys.argv[1])

def being(name):
    with (folder / f"{name}.pids").open("a") as file:
        file.write(f"{os.getpid()}\\n")

def sleeper(facts):
    being("sleeper")
    print("asleep", flush=True)
    time.sleep(600)

def parent(facts):
    inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with (folder / "grandchild.pids").open("a") as file:
        file.write(f"{inner.pid}\\n")
    being("parent")
    time.sleep(600)

def stubborn(facts):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    being("stubborn")
    time.sleep(600)

def counting(facts):
    before = int(facts.get("lives") or 0)
    facts.tell("lives", str(before + 1))
    being("counting")
    (folder / "lives").write_text(str(before + 1))
    time.sleep(600)

def failing(facts):
    being("failing")
    raise RuntimeError("on purpose")

runs = {name: globals()[name] for name in ("sleeper", "parent", "stubborn", "counting", "failing")}
children = []
for word in sys.argv[2:]:
    name, _, along = word.partition(":")
    children.append(Child(name, runs[name], folder / "logs" / f"{name}.log", tuple(filter(None, along.split(",")))))
sys.exit(128 + Supervisor(children).run())
"""


@contextlib.contextmanager
def supervised(folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(folder), *words])
    names = [word.partition(":")[0] for word in words]
    try:
        wait_until(lambda: all(pids(folder, name) for name in names))
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        left = [pid for name in (*names, "grandchild") for pid in pids(folder, name) if alive(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)


def test_a_killed_child_is_started_again_and_later_each_time(tmp_path: Path) -> None:
    with supervised(tmp_path, "sleeper") as process:
        pauses = []
        for life in range(1, 4):
            killed = time.monotonic()  # before it, so that a pause is never measured too short
            os.kill(pids(tmp_path, "sleeper")[-1], signal.SIGKILL)
            wait_until(lambda life=life: len(pids(tmp_path, "sleeper")) > life)  # type: ignore[misc]
            pauses.append(time.monotonic() - killed)
        assert [pause > least for pause, least in zip(pauses, (0.2, 0.4, 0.8), strict=True)] == [True] * 3
        assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_end_when_the_supervisor_is_told_to_and_grandchildren_too(number: signal.Signals, tmp_path: Path) -> None:
    with supervised(tmp_path, "sleeper", "parent") as process:
        process.send_signal(number)
        assert process.wait(300) == 128 + number
        assert not any(alive(pid) for name in ("sleeper", "parent", "grandchild") for pid in pids(tmp_path, name))


def test_a_child_that_does_not_listen_is_killed_after_a_while(tmp_path: Path) -> None:
    with supervised(tmp_path, "stubborn") as process:
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 128 + signal.SIGTERM
        assert time.monotonic() - started >= 4.5
        assert not alive(pids(tmp_path, "stubborn")[0])


def test_children_and_grandchildren_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with supervised(tmp_path, "sleeper", "parent", "stubborn") as process:
        process.kill()
        process.wait()
        for name in ("sleeper", "parent", "stubborn", "grandchild"):
            wait_until(lambda name=name: not alive(pids(tmp_path, name)[0]))  # type: ignore[misc]


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    with supervised(tmp_path, "parent"):
        os.kill(pids(tmp_path, "parent")[0], signal.SIGKILL)
        wait_until(lambda: len(pids(tmp_path, "parent")) == 2)
        assert not alive(pids(tmp_path, "grandchild")[0])
        assert alive(pids(tmp_path, "grandchild")[1])


def test_children_are_tied_in_one_direction(tmp_path: Path) -> None:
    with supervised(tmp_path, "sleeper:counting", "counting"):
        first = pids(tmp_path, "counting")[0]
        os.kill(pids(tmp_path, "sleeper")[0], signal.SIGKILL)
        wait_until(lambda: len(pids(tmp_path, "counting")) == 2)
        wait_until(lambda: len(pids(tmp_path, "sleeper")) == 2)
        assert not alive(first)
        os.kill(pids(tmp_path, "counting")[1], signal.SIGKILL)
        wait_until(lambda: len(pids(tmp_path, "counting")) == 3)
        assert len(pids(tmp_path, "sleeper")) == 2


def test_a_child_that_is_started_again_knows_what_the_last_one_told(tmp_path: Path) -> None:
    with supervised(tmp_path, "counting"):
        for life in (1, 2, 3):
            wait_until(lambda life=life: (tmp_path / "lives").read_text() == str(life))  # type: ignore[misc]
            os.kill(pids(tmp_path, "counting")[-1], signal.SIGKILL)
            wait_until(lambda life=life: len(pids(tmp_path, "counting")) > life)  # type: ignore[misc]


def test_what_a_child_prints_is_appended_to_a_log_of_its_owner_alone(tmp_path: Path) -> None:
    with supervised(tmp_path, "sleeper", "failing"):
        wait_until(lambda: len(pids(tmp_path, "failing")) >= 2)  # and it fails again meanwhile
        os.kill(pids(tmp_path, "sleeper")[0], signal.SIGKILL)
        wait_until(lambda: (tmp_path / "logs" / "sleeper.log").read_text() == "asleep\nasleep\n")
        assert (tmp_path / "logs" / "sleeper.log").stat().st_mode & 0o777 == 0o600
        wait_until(lambda: (tmp_path / "logs" / "failing.log").read_text().count("RuntimeError: on purpose") >= 2)


def test_a_child_that_gives_up_ends_all_with_its_reason(tmp_path: Path) -> None:
    def give_up(facts: Facts) -> None:
        facts.give_up("the server does not know this silo")

    def sleep(facts: Facts) -> None:
        (tmp_path / "other").write_text(str(os.getpid()))
        time.sleep(600)

    logs = tmp_path / "logs"
    with pytest.raises(ConfigError, match="does not know this silo"):
        Supervisor([Child("other", sleep, logs / "a"), Child("node", give_up, logs / "b")]).run()
    assert not (tmp_path / "other").exists() or not alive(int((tmp_path / "other").read_text()))
    assert "does not know this silo" in (logs / "b").read_text()
    assert psutil.Process().children() == []


def test_an_unknown_companion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such child"):
        Supervisor([Child("a", lambda facts: None, tmp_path / "log", ("b",))])


def test_a_chore_is_done_again_and_again_and_whatever_it_raises_ends_nothing(tmp_path: Path) -> None:
    done: list[float] = []

    def chore() -> None:
        done.append(time.monotonic())
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("on purpose")

    children = [Child("sleeper", lambda _: time.sleep(600), tmp_path / "log")]
    assert Supervisor(children, Chore(chore, 0.3)).run() == signal.SIGTERM
    assert all(later - earlier >= 0.3 for earlier, later in itertools.pairwise(done))


def test_memory_that_the_system_does_not_keep_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_PR_SET_DUMPABLE", 999_999)
    monkeypatch.setattr(supervision.resource, "setrlimit", lambda *_: None)
    with pytest.raises(ConfigError, match=r"does not keep this process's memory .* Invalid argument"):
        forbid_dumps()


def test_a_childs_log_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("")
    (tmp_path / "log").symlink_to(tmp_path / "theirs")

    def write(_: Facts) -> None:
        sys.stdout.write("mine\n")

    children = [Child("writer", write, tmp_path / "log")]
    ends = Chore(lambda: os.kill(os.getpid(), signal.SIGTERM) if time.monotonic() > started + 0.5 else None, 0.2)
    started = time.monotonic()
    Supervisor(children, ends).run()
    assert (tmp_path / "theirs").read_text() == ""
