"""Commands run with one call of the system gone wrong: which, is counted in a trace, and not told by a list.

A small library in C (`injecting.c`), built with `cc` and loaded through LD_PRELOAD, counts every call that opens,
writes, syncs, renames, erases or makes something under one folder, SQLite's too, and lets one of them fail. One process
imports the whole command once; each trial is a fork of it, so that a trial costs what the command does and no import.

    python -m tests.injecting    that process: a trial a line of JSON on standard input, its outcome a line on output
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

Kind = Literal["read", "open", "create", "write", "sync", "rename", "unlink", "mkdir", "truncate", "mode"]
How = Literal["trace", "fail", "short", "kill", "torn"]

KINDS: Final = ("read", "open", "create", "write", "sync", "rename", "unlink", "mkdir", "truncate", "mode")
HOWS: Final = ("trace", "fail", "short", "kill", "torn")
CHANGING: Final = KINDS[1:]

_SOURCE: Final = Path(__file__).with_suffix(".c")
# Loaded before the first trial, so that none pays for them.
_WARM: Final = (
    "scenarios.cli.main", "scenarios.simulation.simulate", "scenarios.simulation.grid",
    "scenarios.deployment.rehearsal", "scenarios.deployment.runs", "scenarios.audit.evaluate",
    "scenarios.selftest.selftest", "scenarios.report.illustrated", "scenarios.report.anchors",
    "scenarios.runs.inspection", "server.party", "clients.party",
    "server.server_app", "server.coordinator", "clients.client_app", "clients.training",
    "clients.hiding", "clients.carried", "scenarios.report.page.plots", "fedmodel.audit.inversion",
    "fedmodel.provision.authority", "sklearn.datasets",
)  # fmt: skip


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
class Outcome:
    """What a trial came to.

    Attributes:
        status: The exit status; negative for the number of a signal.
        out: Standard output.
        err: Standard error.
        calls: Every call that was counted, "KIND PATH".
    """

    status: int
    out: str
    err: str
    calls: tuple[str, ...]

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
            env={**os.environ, **one_thread, "LD_PRELOAD": str(library), "PYTHONWARNINGS": "ignore", "COLUMNS": "200"},
        )

    def run(self, argv: list[str], folder: Path, fault: Fault = Fault()) -> Outcome:
        """Run `fedmodel ARGV` in a folder, with a fault in calls on what is under it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"argv": argv, "folder": str(folder), "fault": asdict(fault)}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that trials are forks of has ended"
        told = json.loads(line)
        return Outcome(told["status"], told["out"], told["err"], tuple(told["calls"]))

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


def faults_of(call: str, number: int) -> list[Fault]:
    """Return every fault that a call of a trace can have."""
    kind = call.partition(" ")[0]
    found = [Fault("fail", number, name) for name in _ERRORS[kind]]
    found += [Fault("fail", number, error, kinds) for error, kinds in LASTING.values() if kind in kinds]
    if kind == "write":
        found += [Fault("short", number), Fault("torn", number)]
    return [*found, Fault("kill", number)]


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


def classes(calls: tuple[str, ...], most: int = 3) -> list[int]:
    """Return the numbers of calls that differ: of those of one kind on one file the first, the second and the last.

    What a name holds of chance (a run's number, a temporary name) is left out of the comparison.
    """
    seen: dict[str, list[int]] = {}
    for number, call in enumerate(calls, start=1):
        seen.setdefault(plain(call), []).append(number)
    return sorted({number for found in seen.values() for number in [*found[: most - 1], *found[-1:]]})


def plain(call: str) -> str:
    """Return a call without what its path holds of chance."""
    return re.sub(r"(?<=[/.-])(tmp\w{8}|[\da-f]{12,}|\d+|fm-\w{8}|[\w-]+-\d{8}-\d{6}-\w+|\w{8})(?=[/. -]|$)", "*", call)


def _serve() -> None:
    """Fork a trial for each line of standard input."""
    import torch

    library = ctypes.CDLL(None)
    for name in _WARM:
        importlib.import_module(name)
    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
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


def _trial(library: ctypes.CDLL, asked: dict[str, object], out: int, err: int, calls: int) -> None:
    """Run the command as the shell would, and end."""
    from scenarios.cli.main import main

    status = 70
    try:
        folder = str(asked["folder"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(folder)
        scratch = Path(folder) / "tmp"
        scratch.mkdir(exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
        os.environ.pop("LD_PRELOAD", None)
        logging.getLogger().handlers.clear()  # what was imported put one there, before the command could
        _end_soon()
        sys.argv = ["fedmodel", *map(str, asked["argv"])]  # type: ignore[call-overload]
        fault = Fault(**asked["fault"])  # type: ignore[arg-type]
        bits = {name: 1 << place for place, name in enumerate(KINDS)}
        library.inject_arm(
            folder.encode(), sum(map(bits.__getitem__, fault.counted)), ctypes.c_long(fault.at), HOWS.index(fault.how),
            getattr(errno, fault.error) if fault.error else 0, sum(map(bits.__getitem__, fault.lasting)), calls,
        )  # fmt: skip
        main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    finally:
        library.inject_arm(b"", 0, ctypes.c_long(0), 0, 0, 0, -1)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_soon() -> None:
    """Let what would go on for long end when all that it needs has been written."""
    from clients import start
    from fedmodel.errors import FedmodelError
    from fedmodel.system.supervision import Supervisor
    from scenarios.cli import silo
    from scenarios.deployment import rehearsal, runs
    from server import party

    @contextmanager
    def running(*_: object) -> Iterator[None]:
        yield

    def followed(*_: object) -> None:
        raise FedmodelError("not followed: no silo is started here, and the path is /")

    ends: list[tuple[object, str, object]] = [
        (Supervisor, "run", lambda _: signal.SIGINT),
        (party, "check_listen", lambda _: None),
        (runs, "check_server_runs", lambda _: None),
        (runs, "follow", followed),
        (rehearsal, "_running", running),
        (silo, "_become", lambda words: start.run(words[words.index("clients.start") + 1 :])),
    ]
    for where, what, instead in ends:
        setattr(where, what, instead)


if __name__ == "__main__":
    _serve()
