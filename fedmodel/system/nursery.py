"""Processes that are forked from one that has done nothing yet, whatever the process that asks for them has done since.

A library that runs threads of its own, or holds a card, leaves a fork waiting for them for ever; and a new interpreter
would read the code from files that may have changed. So a process is forked early, does nothing, and is asked for
forks of itself:

    this process  --- one more, with one end of a pair of sockets --->  the nursery  --- forks --->  a process
                  <--- a handle of it --------------------------------

Guarantee: a process runs what it was forked with, in memory. It ends where this one ends, however that is, and where
`Process.end` says so, whatever it is at. Nobody else has an end of its sockets, which have no name that another account
could find, and it holds none of this process's locks (`fedmodel.system.durable.held`).

Does NOT run where there is no Linux, whose handles of processes (`pidfd_open`) are safe from a number used again.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from fedmodel.errors import ConfigError, FedmodelError

_DIES_WITH_ITS_PARENT: Final = 1  # PR_SET_PDEATHSIG of prctl(2)
_ONE_MORE: Final = b"+"
_ENDS_S: Final = 10.0  # a process that was killed


@dataclass(frozen=True)
class Process:
    """A process that a nursery forked.

    Attributes:
        end_here: Our end of its sockets.
        handle: Of the process, as the kernel has it.
    """

    end_here: socket.socket
    handle: int

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended."""
        return bool(select.select([self.handle], [], [], 0)[0])

    def end(self) -> None:
        """Kill the process, whatever it is at, and return when it is gone; once only."""
        self.end_here.close()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        select.select([self.handle], [], [], _ENDS_S)
        os.close(self.handle)


def wait_for_one(processes: Sequence[Process], seconds: float) -> None:
    """Wait until one of several has ended, and no longer than this."""
    select.select([one.handle for one in processes], [], [], seconds)


def heard_or_gone(end: socket.socket, processes: Sequence[Process], seconds: float) -> bool:
    """Wait until something comes by one of our ends of the sockets, and return whether it did within this.

    Raises:
        EOFError: When one of these processes has ended, whichever it is.
    """
    ready, _, _ = select.select([end.fileno(), *(one.handle for one in processes)], [], [], seconds)
    if any(one.is_gone for one in processes):
        raise EOFError("a process is gone")
    return bool(ready)


class Nursery:
    """The process that is asked for forks of itself.

    Args:
        run: What each of them does with its end of the sockets; a process ends when this returns.

    Raises:
        ConfigError: Where there is no Linux.
        OSError: When no process could be begun.
    """

    def __init__(self, run: Callable[[socket.socket], None]) -> None:
        if not sys.platform.startswith("linux"):
            raise ConfigError("several processes of one silo are for Linux; say processes = 1")
        self._here, there = socket.socketpair()
        parent = os.getpid()
        with there:
            pid = _forked()
            if not pid:
                self._here.close()
                _become(lambda: _nurse(there, run), parent)
        self._pid = pid

    def process(self) -> Process:
        """Return one more process.

        Raises:
            FedmodelError: When none can be begun.
        """
        here, there = socket.socketpair()
        try:
            with there:
                socket.send_fds(self._here, [_ONE_MORE], [there.fileno()])
                _, handles, _, _ = socket.recv_fds(self._here, len(_ONE_MORE), 1)
            if handles:
                return Process(here, handles[0])
            reason = "the system begins no more processes"
        except OSError as error:
            reason = f"what begins them is gone ({error.strerror})"
        here.close()
        raise FedmodelError(f"a process could not be begun: {reason}; start this silo again")

    def close(self) -> None:
        """End the nursery, and with it all of its processes."""
        self._here.close()
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _nurse(end: socket.socket, run: Callable[[socket.socket], None]) -> None:
    """Fork for as long as anybody asks."""
    own = os.getpid()
    while True:
        asked, ends, _, _ = socket.recv_fds(end, len(_ONE_MORE), 1)
        if not asked:
            return
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # those that have ended, whose handles were given long ago
                pass
        with socket.socket(fileno=ends[0]) as there:
            try:
                pid = _forked()
            except OSError:
                end.send(_ONE_MORE)
                continue
            if not pid:
                end.close()
                _become(lambda: run(there), own)
            handle = os.pidfd_open(pid)  # nobody has waited for it, so that its number is still its own
            socket.send_fds(end, [_ONE_MORE], [handle])
            os.close(handle)


def _forked() -> int:
    """Fork; return 0 in the new process."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or it would be written twice
    with warnings.catch_warnings():
        # A thread that waits for the end of the process that started this one stays behind, and holds nothing.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _become(act: Callable[[], None], parent: int) -> NoReturn:
    """Act as a new process, and never return into its parent's code."""
    status = 1
    try:
        gc.freeze()  # what was inherited is let go by nobody here, who might wait for threads that it has not
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked for it hears of that, and it ends with them
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_DIES_WITH_ITS_PARENT, signal.SIGKILL)
        if os.getppid() == parent:  # else it was gone before that could be said
            act()
        status = 0
    except BaseException:  # nothing may get past here
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(status)
