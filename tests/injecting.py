"""Commands run with one call of the system gone wrong: which, is counted in a trace, and not told by a list.

A small library in C (`injecting.c`), built with `cc` and loaded through LD_PRELOAD, counts every call that opens,
writes, syncs, renames, erases or makes something under one folder, SQLite's too, and lets one of them fail. One process
imports the program once; each trial is a fork of it, which costs what the command does and no import. A command that is
tried often is run once in that process itself, so that its forks find what it imports late, and what it keeps in memory
of its arguments alone (plans, checks of a model). Pages and pictures, which are made in memory, are blank in trials.

    python -m tests.injecting    that process: a trial a line of JSON on standard input, its outcome a line on output
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal
from unittest.mock import patch

Kind = Literal["read", "open", "create", "write", "sync", "rename", "unlink", "mkdir", "truncate", "mode"]
How = Literal["trace", "fail", "short", "kill", "torn"]

KINDS: Final = ("read", "open", "create", "write", "sync", "rename", "unlink", "mkdir", "truncate", "mode")
HOWS: Final = ("trace", "fail", "short", "kill", "torn")
CHANGING: Final = KINDS[1:]

_PROGRAM: Final = tuple(
    f"{Path(__file__).parents[1]}/{package}/" for package in ("clients", "fedmodel", "scenarios", "server")
)
_SILOS: Final = re.compile(r"(?<=[/.-])(north|south|west)(?=[/.-]|$)")
_SOURCE: Final = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        how: "fail" with an error, "short": half of the bytes is written and said to be, "kill" before the call, "torn":
            killed after half of the bytes; "trace" lets all pass.
        at: The number of the call, from 1.
        error: The error's name, as ENOSPC.
        lasting: The kinds of calls that fail from then on; empty where that one call alone does.
        counted: The kinds of calls that are counted.
    """

    how: How = "trace"
    at: int = 0
    error: str = ""
    lasting: tuple[str, ...] = ()
    counted: tuple[str, ...] = CHANGING


@dataclass(frozen=True)
class Call:
    """A call that was counted.

    Attributes:
        kind: Of call.
        path: Of what it changes or reads, from the folder.
        line: A number for the two innermost lines of the program that led to it; 0 where a fault is tried.
        stack: A number for all lines of the program that led to it; 0 where a fault is tried.
    """

    kind: str
    path: str
    line: int = 0
    stack: int = 0

    @property
    def role(self) -> str:
        """Its kind, and its path without what it holds of chance, and with one name for all silos."""
        return f"{self.kind} {_SILOS.sub('SILO', plain(self.path))}"


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes:
        status: The exit status; negative for the number of a signal.
        out: Standard output.
        err: Standard error.
        calls: Every call that was counted.
    """

    status: int
    out: str
    err: str
    calls: tuple[Call, ...]

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it."""
        return self.status < 0


class Injector:
    """The process that trials are forks of."""

    def __init__(self, library: Path) -> None:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.injecting"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **one_thread,
                "LD_PRELOAD": str(library),
                "CUDA_VISIBLE_DEVICES": "",  # a process that torch started threads in for a device cannot be forked
                "PYTHONWARNINGS": "ignore",
                "COLUMNS": "200",
            },
        )

    def run(self, argv: Sequence[str], folder: Path, fault: Fault = Fault()) -> Outcome:
        """Run `fedmodel ARGV` in a folder, with a fault in calls on what is under it."""
        told = self._ask({"argv": [*argv], "folder": str(folder), "fault": asdict(fault)})
        return Outcome(told["status"], told["out"], told["err"], tuple(map(_call, told["calls"])))

    def warm(self, argv: Sequence[str], folder: Path) -> None:
        """Run `fedmodel ARGV` in a folder in the process itself: trials after it cost less."""
        self._ask({"argv": [*argv], "folder": str(folder), "fault": None})

    def _ask(self, asked: dict[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that trials are forks of has ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def injector(compiler: Path, scratch: Path) -> Iterator[Injector]:
    """Build the library, and start the process."""
    library = scratch / "injecting.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl"], check=True, timeout=120)
    found = Injector(library)
    try:
        yield found
    finally:
        found.close()


def _call(line: str) -> Call:
    """Read a line of a trace."""
    site, kind, path = line.split(" ", 2)
    return Call(kind, path, int(site[:8], 16), int(site[8:], 16))


def faults_of(kind: str, counted: tuple[str, ...]) -> list[Fault]:
    """Return every fault that a call of a kind can have, those that last and kills first."""
    found = [Fault("fail", 0, error, kinds) for error, kinds in LASTING.values() if kind in kinds]
    found += [Fault("torn")] if kind == "write" else []
    found += [Fault("kill")] if kind != "read" else []  # what a kill leaves is what it leaves at the next call
    found += [Fault("short")] if kind == "write" else []
    return [replace(fault, counted=counted) for fault in (*found, *(Fault("fail", 0, name) for name in _ERRORS[kind]))]


_ERRORS: Final = {
    "read": ("EMFILE", "EIO"),
    "open": ("EMFILE", "EROFS", "EACCES"),
    "create": ("ENOSPC", "EDQUOT", "EMFILE", "EROFS", "EACCES"),
    "write": ("ENOSPC", "EDQUOT", "EIO"),
    "sync": ("EIO", "ENOSPC", "EDQUOT"),
    "rename": ("ENOSPC", "EIO", "EROFS", "EACCES"),
    "unlink": ("EROFS", "EIO", "EACCES"),
    "mkdir": ("ENOSPC", "EDQUOT", "EROFS", "EACCES"),
    "truncate": ("EIO", "ENOSPC"),
    "mode": ("EROFS", "EACCES"),
}
LASTING: Final = {
    "full": ("ENOSPC", ("create", "write", "mkdir")),
    "read-only": ("EROFS", ("open", "create", "write", "rename", "unlink", "mkdir", "truncate", "mode")),
    "no file descriptors": ("EMFILE", ("read", "open", "create")),
}
"""What does not end after one call: the error, and which calls meet it."""


def plain(path: str) -> str:
    """Return a path without what it holds of chance."""
    return re.sub(r"(?<=[/.-])(tmp\w{8}|[\da-f]{12,}|\d+|fm-\w{8}|[\w-]+-\d{8}-\d{6}-\w+|\w{8})(?=[/. -]|$)", "*", path)


def _serve() -> None:
    """Fork a trial for each line of standard input, or run a command here where no fault is asked for."""
    import torch

    import scenarios.cli.main  # noqa: F401 - so that no trial pays for it

    library = ctypes.CDLL(None)
    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["fault"] is None:
            _run_here(asked)
            print(json.dumps({}), flush=True)  # noqa: T201
            continue
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as calls:
            child = os.fork()
            if child == 0:
                _trial(library, asked, out.fileno(), err.fileno(), calls.fileno())
            _, ended = os.waitpid(child, 0)
            texts = []
            for file in (out, err, calls):
                file.seek(0)
                texts.append(file.read().decode("utf-8", "replace"))
        told = {"status": os.waitstatus_to_exitcode(ended), "out": texts[0], "err": texts[1]}
        print(json.dumps({**told, "calls": texts[2].splitlines()}), flush=True)  # noqa: T201


def _run_here(asked: dict[str, Any]) -> None:
    """Run the command in this process, and let nothing stay of it but what it imported and remembers."""
    streams, folder, temporary = [os.dup(number) for number in range(3)], Path.cwd(), os.environ.get("TMPDIR")
    with tempfile.TemporaryFile() as out, _shortened(asked["argv"][0]):
        _enter(asked, out.fileno(), out.fileno())
        _command()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
    os.chdir(folder)
    tempfile.tempdir = None
    os.environ.pop("TMPDIR")
    os.environ.update({} if temporary is None else {"TMPDIR": temporary})


def _trial(library: ctypes.CDLL, asked: dict[str, Any], out: int, err: int, calls: int) -> None:
    """Run the command with a fault, in a fork, and end."""
    status = 70
    try:
        _enter(asked, out, err)
        fault = Fault(**asked["fault"])
        bits = {name: 1 << place for place, name in enumerate(KINDS)}
        with _shortened(asked["argv"][0]):
            library.inject_sites(_site if fault.how == "trace" else None)
            library.inject_arm(
                asked["folder"].encode(), sum(map(bits.__getitem__, fault.counted)), ctypes.c_long(fault.at),
                HOWS.index(fault.how), getattr(errno, fault.error) if fault.error else 0,
                sum(map(bits.__getitem__, fault.lasting)), calls,
            )  # fmt: skip
            status = _command()
    finally:
        library.inject_arm(b"", 0, ctypes.c_long(0), 0, 0, 0, -1)
        sys.stderr.flush()
        os._exit(status)


def _enter(asked: dict[str, Any], out: int, err: int) -> None:
    """Give the process the folder, streams and arguments of a command."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(asked["folder"])
    scratch = Path(asked["folder"]) / "tmp"
    scratch.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    os.environ.pop("LD_PRELOAD", None)
    logging.getLogger().handlers.clear()  # what was imported or ran before put one there
    sys.argv = ["fedmodel", *asked["argv"]]


def _command() -> int:
    """Run the command as the shell would, and return its status."""
    from scenarios.cli.main import main

    try:
        main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


@ctypes.CFUNCTYPE(ctypes.c_ulonglong)
def _site() -> int:
    """Return a number for where in the program a call is made, the two innermost lines of it above, all of it below."""
    frame, lines = sys._getframe(1), []
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PROGRAM):
            lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    return zlib.crc32("|".join(lines[:2]).encode()) << 32 | zlib.crc32("|".join(lines[:4]).encode())


@contextmanager
def _shortened(command: str) -> Iterator[None]:
    """Let what would go on for long end when all that it needs has been written, and draw nothing."""
    import fedmodel.audit.inversion
    from clients import start
    from fedmodel.errors import FedmodelError
    from fedmodel.system.supervision import Supervisor
    from scenarios.cli import silo
    from scenarios.deployment import rehearsal, runs
    from scenarios.report.page import plots, render
    from scenarios.report.page.passive import BEGINNING
    from server import party

    @contextmanager
    def running(*_: object) -> Iterator[None]:
        yield

    def followed(*_: object) -> None:
        raise FedmodelError("not followed: no silo is started here, and the path is /")

    instead: list[tuple[object, str, object]] = [
        (Supervisor, "run", lambda _: signal.SIGINT),
        (party, "check_listen", lambda _: None),
        (runs, "check_server_runs", lambda _: None),
        (runs, "follow", followed),
        (rehearsal, "_running", running),
        (silo, "_become", lambda words: start.run(words[words.index("clients.start") + 1 :])),
        (render, "render", lambda *_: f"{BEGINNING}</head></html>"),
    ]
    if command != "demo":
        instead += [
            (fedmodel.audit.inversion, "inversion", lambda *_, **__: SimpleNamespace(pictures=())),
            (plots, "pictures_row", lambda *_: "<svg/>"),
        ]
    with ExitStack() as patched:
        for where, name, value in instead:
            patched.enter_context(patch.object(where, name, value))
        yield


if __name__ == "__main__":
    _serve()
