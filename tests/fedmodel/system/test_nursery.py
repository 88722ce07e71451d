"""A forked process runs what it was forked with, and ends with whoever asked for it."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.system import nursery
from fedmodel.system.nursery import Nursery

said = "before"


def tell(end: socket.socket) -> None:
    """Say who this is, and what was said as it was forked; then wait for the other end to be gone."""
    end.sendall(f"{os.getpid()} {said}".encode())
    end.recv(1)


def stay(end: socket.socket) -> None:
    """Say who this is, and stay whatever becomes of the other end."""
    end.sendall(f"{os.getpid()} {said}".encode())
    while True:
        signal.pause()


def told(end: socket.socket) -> tuple[int, str]:
    end.settimeout(30)
    pid, words = end.recv(100).decode().split()
    return int(pid), words


@pytest.fixture
def telling() -> Iterator[Nursery]:
    with closing(Nursery(tell)) as one:
        yield one


def test_a_process_runs_what_the_nursery_was_forked_with(telling: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.said", "after")
    processes = [telling.process() for _ in range(3)]
    answers = [told(one.end_here) for one in processes]
    assert {words for _, words in answers} == {"before"}
    assert len({os.getpid(), *(pid for pid, _ in answers)}) == 4
    assert not any(one.is_gone for one in processes)
    for one in processes:
        one.end()


def gone(pid: int) -> bool:
    """Return whether a process is gone, or goes within seconds: its number is its own until somebody waited for it."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 30)[0])
    finally:
        os.close(handle)


def test_a_process_ends_when_it_is_told_to_whatever_it_is_at() -> None:
    with closing(Nursery(stay)) as one:
        staying, other = one.process(), one.process()
        pid, _ = told(staying.end_here)
        staying.end()
        assert gone(pid)
        pid, _ = told(other.end_here)
        assert not other.is_gone
    assert gone(pid)  # with the nursery
    assert other.is_gone
    other.end()  # of one that is gone already


def test_a_process_that_is_killed_is_known_to_be_gone(telling: Nursery) -> None:
    process = telling.process()
    os.kill(told(process.end_here)[0], signal.SIGKILL)
    nursery.wait_for_one([process], 30)
    assert process.is_gone
    process.end()
    other = telling.process()  # and another can be begun
    assert told(other.end_here)[1] == "before"
    other.end()


def test_no_process_outlives_the_one_that_asked_for_it() -> None:
    here, there = socket.socketpair()
    parent = os.fork()
    if not parent:
        try:
            process = Nursery(stay).process()
            there.sendall(process.end_here.recv(100))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    with here, there:
        pid, _ = told(here)
        assert os.WTERMSIG(os.waitpid(parent, 0)[1]) == signal.SIGKILL
    assert gone(pid)


def test_a_nursery_that_is_gone_begins_nothing(telling: Nursery) -> None:
    os.kill(telling._pid, signal.SIGKILL)
    os.waitpid(telling._pid, 0)
    with pytest.raises(FedmodelError, match="start this silo again"):
        telling.process()


def test_where_there_is_no_linux_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery.sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="processes = 1"):
        Nursery(tell)
