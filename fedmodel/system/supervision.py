"""Processes that are started, watched, restarted and ended together.

A supervisor forks its children from a process that has imported everything, so that a child starts within milliseconds.
It keeps them running until it is told to end.

    a child dies              it is restarted after 0.2 s; the delay doubles each time up to 30 s, and is 0.2 s again
                              once the child has lived for 60 s
    a child takes others along  they are ended and restarted with it
    a child gives up          all end, and the reason is raised: another try would not go better
    SIGTERM, SIGINT           all are asked to end, and killed after 5 s
    the supervisor is killed  all end at once, because a pipe that it alone holds open closes

In each of these cases, the processes that a child started end with it, unless one left the child's session and process
group and the supervisor was killed at that moment.

Does NOT restart anything that hangs without dying, and does not rotate logs.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

import psutil

from fedmodel.errors import ConfigError
from fedmodel.system.inert import InertStream

logger = logging.getLogger(__name__)

GAVE_UP: Final = 2
_FIRST_DELAY_S: Final = 0.2
_LONGEST_DELAY_S: Final = 30.0
_HEALTHY_S: Final = 60.0
_POLITE_S: Final = 5.0
_IDLE_S: Final = 3600.0
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
_WATCHED: Final = (*_ENDING, signal.SIGCHLD)
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36


class Facts:
    """What a child tells its supervisor, so that a child started in its place knows it too."""

    def __init__(self, known: Mapping[str, str], descriptor: int | None = None) -> None:
        self._known, self._descriptor = dict(known), descriptor

    def get(self, name: str) -> str | None:
        """Return a fact that this child, or an earlier one in its place, has told."""
        return self._known.get(name)

    def tell(self, name: str, value: str) -> None:
        """Tell the supervisor a fact, which it remembers as long as it lives."""
        self._known[name] = value
        self._send({"fact": name, "value": value})

    def say(self, line: str) -> None:
        """Write a line to this child's own log, and let the supervisor show it too."""
        sys.stderr.write(line + "\n")
        self._send({"said": line})

    def give_up(self, reason: str) -> NoReturn:
        """End this child, and with it everything else, because another attempt would not go better."""
        sys.stderr.write(reason + "\n")
        sys.stderr.flush()
        self._send({"gave_up": reason})
        os._exit(GAVE_UP)

    def _send(self, frame: dict[str, str]) -> None:
        if self._descriptor is not None:
            os.write(self._descriptor, json.dumps(frame).encode() + b"\n")


@dataclass(frozen=True)
class Child:
    """A process to be kept up.

    Attributes:
        name: What it is called in notices.
        run: The work of the process, which ends when this returns.
        log: The file that its standard output and error are appended to; readable by its owner alone.
        takes_along: Names of children that are ended and restarted when this one dies.
    """

    name: str
    run: Callable[[Facts], None]
    log: Path
    takes_along: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chore:
    """Work that a supervisor itself repeats, beginning at its start.

    Attributes:
        run: The work. Children wait meanwhile, so it has to be short. What it raises is logged, and ends nothing.
        every_s: The seconds between two runs.
    """

    run: Callable[[], None]
    every_s: float


@dataclass
class _Watched:
    """A child and its present state."""

    child: Child
    pid: int = 0
    started: float = 0.0
    delay_s: float = _FIRST_DELAY_S
    due: float = 0.0
    kill_at: float | None = None
    descriptor: int = -1
    unread: bytes = b""
    facts: dict[str, str] = field(default_factory=dict)


class Supervisor:
    """Keeps children running until SIGTERM or SIGINT comes, or one of them gives up.

    It owns its process: it waits for every child of the process, known or adopted, and handles signals. So it has to
    run in the main thread of a process that does nothing else and has no other threads, because a lock that another
    thread holds at a fork stays locked in the child.
    """

    def __init__(self, children: Sequence[Child], chore: Chore | None = None) -> None:
        self._chore, self._chore_due = chore, time.monotonic()
        self._watched = {child.name: _Watched(child) for child in children}
        for child in children:
            if unknown := set(child.takes_along) - set(self._watched):
                raise ConfigError(f"{child.name} takes {sorted(unknown)} along, and no such child is watched")
        self._ended_by: int | None = None
        self._gave_up: str | None = None
        self._life = (-1, -1)
        self._wake = (-1, -1)

    def run(self) -> int:
        """Keep all children running; return the number of the signal that ended them.

        Raises:
            ConfigError: When a child gave up, with its reason.
        """
        with self._in_charge():
            try:
                while self._ended_by is None and self._gave_up is None:
                    self._do_chore()
                    self._start_due()
                    self._wait(self._next_s())
                    self._reap()
                    self._kill_late()
            finally:
                self._end_all()
        if self._gave_up is not None:
            raise ConfigError(self._gave_up)
        return self._ended_by or 0

    @contextmanager
    def _in_charge(self) -> Iterator[None]:
        """Handle signals and adopt orphans, for as long as the block lasts."""
        self._life, self._wake = os.pipe(), os.pipe()
        for descriptor in self._wake:
            os.set_blocking(descriptor, False)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        before = {number: signal.signal(number, self._note) for number in _WATCHED}
        wakeup = signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            _prctl(_PR_SET_CHILD_SUBREAPER, 0)
            for descriptor in (*self._life, *self._wake):
                os.close(descriptor)

    def _note(self, number: int, _frame: object) -> None:
        if number in _ENDING:
            self._ended_by = number

    def _start_due(self) -> None:
        now = time.monotonic()
        for watched in self._watched.values():
            if not watched.pid and watched.due <= now:
                self._fork(watched)

    def _do_chore(self) -> None:
        """Do the chore if it is due."""
        if self._chore is None or time.monotonic() < self._chore_due:
            return
        self._chore_due = time.monotonic() + self._chore.every_s
        try:
            self._chore.run()
        except Exception:  # children are worth more than a chore
            logger.exception("what is done by the way failed")

    def _next_s(self) -> float:
        """Return for how many seconds there is nothing to do unless something happens."""
        times = [watched.kill_at if watched.pid else watched.due for watched in self._watched.values()]
        times += [] if self._chore is None else [self._chore_due]
        return max(0.0, min([_IDLE_S, *(each - time.monotonic() for each in times if each is not None)]))

    def _wait(self, timeout_s: float) -> None:
        """Wait for a signal, for a fact, or for the time to pass."""
        by_descriptor = {watched.descriptor: watched for watched in self._watched.values() if watched.descriptor >= 0}
        ready, _, _ = select.select([self._wake[0], *by_descriptor], [], [], timeout_s)
        for descriptor in ready:
            if descriptor in by_descriptor:
                self._read_facts(by_descriptor[descriptor])
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(descriptor, 4096)

    def _read_facts(self, watched: _Watched) -> None:
        """Read what a child told; at the end of its data, close the pipe."""
        while True:
            try:
                read = os.read(watched.descriptor, 65536)
            except BlockingIOError:
                return
            if not read:
                os.close(watched.descriptor)
                watched.descriptor = -1
                return
            *lines, watched.unread = (watched.unread + read).split(b"\n")
            for line in lines:
                frame = json.loads(line)
                if "gave_up" in frame:
                    self._gave_up = self._gave_up or str(frame["gave_up"])
                elif "said" in frame:
                    logger.warning("%s: %s", watched.child.name, frame["said"])
                else:
                    watched.facts[str(frame["fact"])] = str(frame["value"])

    def _reap(self, options: int = os.WNOHANG) -> None:
        """Find children that have died, and set when they are restarted."""
        dead = {}
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, options))[0]:
                dead[found[0]] = os.waitstatus_to_exitcode(found[1])
        for watched in [one for one in self._watched.values() if one.pid in dead]:
            self._bury(watched, dead[watched.pid])

    def _bury(self, watched: _Watched, status: int) -> None:
        """Clean up after a dead child, and have it restarted, with those that it takes along."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(watched.pid, signal.SIGKILL)  # what it started and left behind
        if watched.descriptor >= 0:
            self._read_facts(watched)
        if watched.descriptor >= 0:
            os.close(watched.descriptor)
        now = time.monotonic()
        asked = watched.kill_at is not None
        watched.pid, watched.descriptor, watched.unread, watched.kill_at = 0, -1, b"", None
        if self._ended_by is not None or self._gave_up is not None:
            return
        if now - watched.started >= _HEALTHY_S:
            watched.delay_s = _FIRST_DELAY_S
        watched.due = now if asked else now + watched.delay_s
        if asked:
            return
        logger.warning("%s ended (%s); again in %.1f s", watched.child.name, _status(status), watched.delay_s)
        watched.delay_s = min(watched.delay_s * 2, _LONGEST_DELAY_S)
        for name in watched.child.takes_along:
            other = self._watched[name]
            if other.pid and other.kill_at is None:
                logger.warning("%s is started again with it", name)
                self._ask_to_end(other)

    def _ask_to_end(self, watched: _Watched) -> None:
        watched.kill_at = time.monotonic() + _POLITE_S
        with contextlib.suppress(ProcessLookupError):
            os.kill(watched.pid, signal.SIGTERM)

    def _kill_late(self) -> None:
        """Kill children that were asked to end and have not."""
        now = time.monotonic()
        for watched in self._watched.values():
            if watched.pid and watched.kill_at is not None and watched.kill_at <= now:
                _kill([watched.pid])
                watched.kill_at = now + _POLITE_S

    def _end_all(self) -> None:
        """End all children and all processes that they started, adopted ones too."""
        self._ended_by = self._ended_by or 0
        for watched in self._watched.values():
            if watched.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(watched.pid, signal.SIGTERM)
        deadline = time.monotonic() + _POLITE_S
        while left := _descendants():
            self._reap()
            if time.monotonic() >= deadline:
                _kill([one.pid for one in left])
            self._wait(0.05)
        self._reap(0)  # waits: all have ended, but one whose other threads are still ending cannot be reaped yet

    def _fork(self, watched: _Watched) -> None:
        """Start a child."""
        read, write = os.pipe()
        os.set_blocking(read, False)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or the child would write it again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        try:
            with warnings.catch_warnings():
                # OpenBLAS's idle threads make Python 3.12 warn; OpenBLAS itself handles them at a fork.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if not pid:
                os.close(read)
                self._become(watched, write)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(write)
        watched.pid, watched.descriptor, watched.started = pid, read, time.monotonic()

    def _become(self, watched: _Watched, facts: int) -> NoReturn:
        """Run as the child; never return into the supervisor's code."""
        status = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in _WATCHED:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            others = [one.descriptor for one in self._watched.values() if one.descriptor >= 0]
            for descriptor in (self._life[1], *self._wake, *others):
                os.close(descriptor)
            _redirect(watched.child.log)
            threading.Thread(target=_end_with, args=(self._life[0],), name="supervisor-watch", daemon=True).start()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
            watched.child.run(Facts(watched.facts, facts))
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # nothing may get past here, into the parent's code
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)


def forbid_dumps() -> None:
    """Keep the memory of this process and its children out of core files, and from other processes of the same account.

    Call it before the first secret is read. Does NOT keep the memory from the administrator of the machine. On systems
    other than Linux it only keeps the memory out of core files.

    Raises:
        ConfigError: When the kernel refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if refused := _prctl(_PR_SET_DUMPABLE, 0):
        raise ConfigError(
            f"the system does not keep this process's memory from other processes: {os.strerror(refused)}; no key is"
            " read here: look whether a filter of system calls is in the way"
        )


def end_with_parent() -> None:
    """Let the kernel send this process SIGTERM when its parent dies; a child calls it before its program begins."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> int:
    """Set a property of this process if the system is Linux; return 0, or the number of the error."""
    if not sys.platform.startswith("linux"):
        return 0
    failed = ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
    return ctypes.get_errno() if failed else 0


def _redirect(log: Path) -> None:
    """Append standard output and error to a file, and make standard input empty."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    os.close(nothing)
    sys.stdout, sys.stderr = (_line_by_line(number) for number in (1, 2))


def _line_by_line(descriptor: int) -> InertStream:
    """Return the stream that a child prints on, for as long as it lives; it makes the words of peers inert."""
    return InertStream(open(descriptor, "wb", closefd=False), encoding="utf-8", line_buffering=True)


def _end_with(life: int) -> None:
    """Wait for the supervisor's end, and then end this process and all of its group."""
    while True:
        try:
            if not os.read(life, 1):
                break
        except InterruptedError:
            continue
    with contextlib.suppress(OSError):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _descendants() -> list[psutil.Process]:
    """Return every living process beneath this one."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended in between
            if one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


def _kill(pids: Sequence[int]) -> None:
    """Kill processes and all beneath them."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for one in (*process.children(recursive=True), process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


def _status(status: int) -> str:
    """Return how a process ended, in words."""
    return f"status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
