"""Processes that are forks of this one, each asked over a pipe of its own, one question after the other.

    this process  --- a question --->  a fork for each core, which keeps what it built
                  <--- its answer ---

Processes are forks, so that what this one read, dealt out and imported before is in memory once, and so that code and
objects of the user's own are there.

Guarantee: none outlives `close` or `end`, nor the process that forked it, however that ends; and none holds this one's
locks (`fedmodel.system.durable.held`) or pipes. What is raised in one is raised here.

Does NOT take work that needs several threads, or another device than a processor: a fork of a process whose libraries
run threads of their own would wait for these for ever (`processes_for`).
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, Final, TextIO

import torch

from fedmodel.config import Scenario
from fedmodel.errors import FedmodelError
from fedmodel.learning.devices import cores, threads_of
from fedmodel.system.durable import failed

COULD_NOT_BEGIN: Final = "a process that trains silos could not begin"
GOES_ON: Final = "the run goes on from its last whole round by the command that began it"
_ENDS_S: Final = 10.0  # in which a process is gone whose pipe is closed
_CLOSES_S: Final = 60.0  # in which all have closed what they keep open: ledgers of hundreds of silos each
_DIES_WITH_ITS_PARENT: Final = 1  # PR_SET_PDEATHSIG of prctl(2)

Life = AbstractContextManager[Callable[[Any], Any]]
"""Open for as long as a process lives; answers a question, which may be any object that can be pickled."""


def processes_for(scenario: Scenario, device: torch.device, least: int) -> int:
    """Return in how many processes a scenario's silos are worked at, `least` or more in each: 1 for this one alone."""
    alone = not are_forked(device) or threads_of(scenario.training.threads) > 1
    return 1 if alone else max(1, min(cores(), len(scenario.federation.silos) // least))


def are_forked(device: torch.device) -> bool:
    """Return whether processes that compute on a device are forked: on a processor, under Linux.

    Not where torch counts another device beside, whichever computes: its way back through a model has a thread for
    each then, which a fork does not have, and torch refuses. Nor by a daemon of Python, which may have no processes: a
    worker of a `multiprocessing.Pool` is one, as of whoever sweeps over scenarios.
    """
    is_alone = device.type == "cpu" and torch.accelerator.device_count() == 0
    return is_alone and sys.platform.startswith("linux") and not multiprocessing.current_process().daemon


@dataclass(frozen=True)
class _Raised:
    """What a process answers where its answer could not be made."""

    error: Exception


class Forks:
    """Processes.

    Args:
        lives: Of each of them, in which it answers.

    Raises:
        FedmodelError: When the system lets one not begin; those before it have ended then.
    """

    def __init__(self, lives: Iterable[Life]) -> None:
        self._ends: list[Connection] = []
        self._processes: list[ForkProcess] = []
        self._is_asked = False
        try:
            for life in lives:
                self._begin(life)
        except OSError as error:
            self.close()
            raise FedmodelError(f"{COULD_NOT_BEGIN}: {failed(error)}") from error
        except BaseException:
            self.close()
            raise

    def _begin(self, life: Life) -> None:
        """Fork a process."""
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        self._ends.append(here)
        with there:  # closed here, so that the end is seen where the process is gone
            told = (there, tuple(self._ends), os.getpid(), life)
            process = context.Process(target=_live, args=told, daemon=True)
            process.start()
            self._processes.append(process)

    def put(self, questions: Sequence[Any], then: str) -> None:
        """Ask each process its question, and wait for none; `answers` comes next.

        Args:
            questions: One for each process.
            then: What becomes of the run where one of them is gone, as a part of a sentence.

        Raises:
            FedmodelError: When a process is gone; the others have ended then.
        """
        self._is_asked, self._then = True, then
        try:
            for end, question in zip(self._ends, questions, strict=True):
                end.send(question)
        except OSError as error:
            raise self._gone() from error

    def answers(self) -> list[Any]:
        """Return the answers to what was put.

        Raises:
            FedmodelError: As `put`.
            Exception: What was raised in a process, where its answer could not be made.
        """
        try:
            answers = [end.recv() for end in self._ends]
        except (EOFError, OSError) as error:
            raise self._gone() from error
        self._is_asked = False
        for one in answers:
            if isinstance(one, _Raised):
                raise one.error
        return answers

    def _gone(self) -> FedmodelError:
        """End all processes where one is gone, and return what to raise."""
        gone, status = wait([process.sentinel for process in self._processes], timeout=_ENDS_S), None
        for process in self._processes:
            if process.sentinel in gone:  # closed as a process ends, a moment before it can be asked how
                process.join(_ENDS_S)
                status = process.exitcode
        self.close()
        how = "as one does that the system kills for want of memory"
        if status is not None and status >= 0:
            how = f"with the exit status {status}, as by code of your own that ends a process"
        return FedmodelError(f"a process that trained silos ended, {how}; {self._then}")

    def end(self) -> None:
        """End all processes: each closes what it keeps open, unless it is at a question, and then at once.

        One that is not gone soon after is ended all the same, as where code of a user's own left a thread behind.
        """
        if not self._is_asked:
            while self._ends:
                self._ends.pop().close()
            wait_until = time.monotonic() + _CLOSES_S
            for process in self._processes:
                process.join(max(0.0, wait_until - time.monotonic()))
        self.close()

    def close(self) -> None:
        """End all processes, whatever they are at."""
        for process in self._processes:
            process.kill()
        while self._processes:
            self._processes[-1].join()
            self._processes.pop().close()
        while self._ends:
            self._ends.pop().close()


def _live(end: Connection, others: Sequence[Connection], parent: int, life: Life) -> None:
    """Answer what is asked until nobody asks any more: a process's whole life.

    Args:
        end: Of its pipe.
        others: Ends that it inherited; it would wait for itself if it had that of its own pipe too.
        parent: Who forked it.
        life: Answers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the run's to end, and this ends with it
    ctypes.CDLL(None).prctl(_DIES_WITH_ITS_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before it could be said
        return
    for other in others:
        other.close()
    _tell_plainly()
    torch.set_num_threads(1)
    with life as answer:
        while True:
            try:
                question = end.recv()
            except EOFError:
                return
            end.send(_answered(answer, question))


def _answered(answer: Callable[[Any], Any], question: Any) -> Any:
    """Return an answer, or what was raised instead, in a form that goes through a pipe."""
    try:
        return answer(question)
    except Exception as raised:
        error, found = raised, traceback.format_exc()
    try:
        if not isinstance(error, FedmodelError):  # whose one line says it all
            error.add_note(f"in a process that was forked:\n{found}")
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own, of the line before
    except Exception:  # whatever a pipe does not carry: one that is made of more than its words
        return _Raised(RuntimeError(found))
    return _Raised(error)


def _tell_plainly() -> None:
    """Print and log line by line, to what the process was started with.

    What draws on a terminal, and what stands in place of standard output meanwhile, shares a lock with a thread that
    draws a bar. A fork that was made while that thread had it would wait for ever, since it has no such thread. What
    `logging` writes to files and elsewhere is left alone, but for queues, which a thread empties.
    """
    standing = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
    sys.stdout, sys.stderr = _stream(1), _stream(2)
    for logger in (logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))):
        for handler in list(logger.handlers):
            stream = getattr(handler, "stream", None)
            waits = isinstance(handler, QueueHandler) or any(stream is one for one in standing if one is not None)
            if waits or type(handler).__module__.partition(".")[0] != logging.__name__:
                is_output = stream is not None and stream in standing[::2]
                plain = logging.StreamHandler(sys.stdout if is_output else sys.stderr)
                plain.setLevel(handler.level)
                plain.setFormatter(handler.formatter)
                plain.filters = list(handler.filters)
                logger.removeHandler(handler)
                logger.addHandler(plain)


def _stream(descriptor: int) -> TextIO:
    """Return a stream of a descriptor that has no lock in common with another; of none where it was closed."""
    try:
        os.fstat(descriptor)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
