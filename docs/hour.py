"""Plays `docs/hour.md` and keeps what its commands print: `python -m docs.hour` runs them all and writes the page anew.

In the page a fence of `console` has commands, each behind "$ ", and beneath each what it printed. They are run in
order, by one shell, in a folder that holds the tables of `tests/hour` and nothing else, as somebody would who reads the
page. For 9443 a free port of this machine is taken. A command ends well unless its line ends in `# exit status N`.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedmodel.system.supervision import end_with_parent

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "hour.md"
TABLES: Final = ("north", "south", "west", "held-out")
WIDTH: Final = 100

_FENCE: Final = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
_PORT: Final = "9443"
_ENDED: Final = "=== the command ended with status "
_STATUS: Final = re.compile(r" # exit status (\d)$")
_CODES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@dataclass(frozen=True)
class Played:
    """A command of the page, and how it ended here.

    Attributes:
        command: Its lines, as the page has them.
        status: Its exit status.
        output: All that it printed.
    """

    command: str
    status: int
    output: str

    @property
    def as_said(self) -> bool:
        """Whether it ended as the page says that it does."""
        said = _STATUS.search(self.command)
        return self.status == (int(said[1]) if said else 0)


def kept(page: str) -> list[list[tuple[str, str]]]:
    """Return each fence's commands with what the page has beneath them; a command goes on behind "> "."""
    return [_kept(fence) for fence in _FENCE.findall(page)]


def _kept(fence: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    goes_on = False
    for line in fence.splitlines():
        goes_on = goes_on and (line == ">" or line.startswith("> "))
        if line.startswith("$ "):
            found.append((line[2:], ""))
            goes_on = True
        elif goes_on:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def play(folder: Path, page: str) -> Iterator[list[Played]]:
    """Run the page's commands in a folder, and yield a fence's as they end; whatever they started ends at last."""
    for table in TABLES:
        shutil.copy(ROOT / "tests" / "hour" / f"{table}.csv", folder)
    port = str(_free_port())
    with _Shell(folder) as shell:
        for fence in kept(page):
            yield [shell.run(command, port) for command, _ in fence]


class _Shell:
    """One shell, in which background jobs of one command outlive it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        scratch = Path(tempfile.mkdtemp(prefix="fm-"))  # sockets lie in it, so its path is short
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        asked = {"PATH": path, "HOME": str(folder), "COLUMNS": str(WIDTH), "TMPDIR": str(scratch), "NO_COLOR": "1"}
        self._scratch = scratch
        self._process = subprocess.Popen(
            ["/bin/bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**kept, **asked},
            preexec_fn=end_with_parent,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the shell has no pipes")
        self._input, self._output = self._process.stdin, self._process.stdout

    def __enter__(self) -> _Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self._say("kill $(jobs -p) 2>/dev/null; wait; exit")
        self._process.wait(120)
        for pipe in (self._input, self._output):
            pipe.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def run(self, command: str, port: str) -> Played:
        """Run one command, and return how it ended."""
        self._say(f'{command.replace(_PORT, port)}\nprintf "\\n{_ENDED}%s\\n" $?')
        lines: list[str] = []
        for line in iter(self._output.readline, ""):
            if line.startswith(_ENDED):
                output = "".join(lines).replace(str(self._folder), "~").replace(port, _PORT)
                return Played(command, int(line.removeprefix(_ENDED)), _CODES.sub("", output).rstrip())
            lines.append(line)
        raise RuntimeError(f"the shell ended at: {command}")

    def _say(self, line: str) -> None:
        self._input.write(f"{line}\n")
        self._input.flush()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def written(page: str, played: list[list[Played]]) -> str:
    """Return the page with what the commands printed."""
    fences = iter(played)
    return _FENCE.sub(lambda _: "".join(f"{_shown(one)}\n" for one in next(fences)), page)


def _shown(one: Played) -> str:
    first, *more = one.command.splitlines()
    lines = [f"$ {first}", *(f"> {line}".rstrip() for line in more)]
    lines += [line.rstrip() for line in one.output.splitlines()]
    return "\n".join(lines)


def main() -> int:
    """Play the page, and write it anew if each command ended as it says."""
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="hour-") as name:
        played = []
        for fence in play(Path(name), page):
            for one in fence:
                print(f"{one.status}  {one.command.splitlines()[0]}", flush=True)  # noqa: T201
                if not one.as_said:
                    print(one.output)  # noqa: T201
            played.append(fence)
    if not all(one.as_said for fence in played for one in fence):
        return 1
    PAGE.write_text(written(page, played), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
