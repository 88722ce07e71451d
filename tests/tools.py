"""What some tests use and pip cannot bring: what each is for, and what goes untested without it.

A test that needs a program is marked `tools.needed("age")`, or calls `tools.require("age")` in a fixture; what takes a
machine of another kind (a GPU, root) is skipped by `tools.absent("a CUDA device")`. The last line of the run then says
which guarantees nobody tested, and what brings them: one command for all programs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Tool:
    """A program.

    Attributes:
        package: Debian's package of it.
        guarantee: What is shown by the tests that use it.
        also: Where it lies when it is not on the path.
    """

    package: str
    guarantee: str
    also: str = ""


TOOLS = {
    "age": Tool("age", "the ordinary age tool opens models, identities and caches"),
    "cc": Tool("build-essential", "no fault of a disk leaves a traceback or half of a file"),
    "chromium": Tool("chromium", "the report's page in a browser: nothing fetched, nothing active, a phone's width"),
    "faketime": Tool("faketime", "a silo whose clock is wrong is told so"),
    "initdb": Tool(
        "postgresql", "records are read from PostgreSQL by an account that can only read", "/usr/lib/postgresql/*/bin"
    ),
    "ip": Tool("iproute2", "a rehearsal in networks of its own"),
    "openssl": Tool("openssl", "the ordinary openssl verifies certificates and revocations"),
    "systemd-analyze": Tool("systemd", "systemd takes the units"),
}
# What no package brings: the guarantee, and what shows it.
MACHINES = {
    "a CUDA device": (
        "on a GPU, a record's gradient is the same in any batch and on every path, and training ends near the CPU's",
        "a machine with one and a torch that is built for it",
    ),
    "root": ("a run on a disk that fills ends in one line, and its ledgers verify", "running as root"),
    "an account for PostgreSQL": (
        "records are read from PostgreSQL by an account that can only read",
        "an account named postgres and runuser, or running as another user than root",
    ),
}
_SAYS = "needs `{}`, which is not here"
_SAID = re.compile(re.escape(_SAYS).replace(r"\{\}", r"([\w -]+)"))


def path_of(name: str) -> Path | None:
    """Return where a tool lies, None where it is missing."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    also = TOOLS[name].also
    return max(Path("/").glob(f"{also[1:]}/{name}"), default=None) if also else None


def absent(name: str) -> str:
    """Return why a test is skipped that needs one of `TOOLS` or `MACHINES`."""
    if name not in TOOLS and name not in MACHINES:
        raise KeyError(name)
    return _SAYS.format(name)


def needed(name: str) -> pytest.MarkDecorator:
    """Return the mark of a test that a tool is needed for."""
    return pytest.mark.skipif(path_of(name) is None, reason=absent(name))


def require(name: str) -> Path:
    """Return where a tool lies, or skip the test that asks."""
    path = path_of(name)
    if path is None:
        pytest.skip(absent(name))
    return path


def untested(reasons: Iterable[str]) -> str:
    """Return one line on what went untested, by why tests were skipped; empty where nothing was missing.

    >>> untested(["needs `ip`, which is not here"] * 2)
    'NOT TESTED, for want of ip: a rehearsal in networks of its own; `apt-get install iproute2` brings it'
    """
    names = sorted({name for reason in reasons for name in _SAID.findall(reason)})
    programs = [name for name in names if name in TOOLS]
    told = []
    if programs:
        guarantees = "; ".join(TOOLS[name].guarantee for name in programs)
        packages = " ".join(sorted({TOOLS[name].package for name in programs}))
        brings = f"`apt-get install {packages}` brings {'it' if len(programs) == 1 else 'them all'}"
        told.append(f"for want of {', '.join(programs)}: {guarantees}; {brings}")
    for name in names:
        if name in MACHINES:
            guarantee, brings = MACHINES[name]
            told.append(f"for want of {name}: {guarantee}; {brings} shows it")
    return f"NOT TESTED, {'. And '.join(told)}" if told else ""
