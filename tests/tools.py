"""The programs that some tests use and that pip cannot bring: what each is for, and what goes untested without it.

A test that needs one is marked `tools.needed("age")`, or calls `tools.require("age")` in a fixture. It is skipped where
the program is missing, and the last line of the run then says which guarantees nobody tested, and what brings them.
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
    "chromium": Tool("chromium", "the report's page in a browser: nothing fetched, nothing active, a phone's width"),
    "faketime": Tool("faketime", "a silo whose clock is wrong is told so"),
    "initdb": Tool(
        "postgresql", "records are read from PostgreSQL by an account that can only read", "/usr/lib/postgresql/*/bin"
    ),
    "ip": Tool("iproute2", "a rehearsal in networks of its own"),
    "openssl": Tool("openssl", "the ordinary openssl verifies certificates and revocations"),
    "systemd-analyze": Tool("systemd", "systemd takes the units"),
}
_SAYS = "needs `{}`, which is not installed here"
_SAID = re.compile(re.escape(_SAYS).replace(r"\{\}", r"([\w-]+)"))


def path_of(name: str) -> Path | None:
    """Return where a tool lies, None where it is missing."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    also = TOOLS[name].also
    return max(Path("/").glob(f"{also[1:]}/{name}"), default=None) if also else None


def needed(name: str) -> pytest.MarkDecorator:
    """Return the mark of a test that a tool is needed for."""
    return pytest.mark.skipif(path_of(name) is None, reason=_SAYS.format(name))


def require(name: str) -> Path:
    """Return where a tool lies, or skip the test that asks."""
    path = path_of(name)
    if path is None:
        pytest.skip(_SAYS.format(name))
    return path


def untested(reasons: Iterable[str]) -> str:
    """Return one line on what went untested, by why tests were skipped; empty where no tool was missing.

    >>> untested(["needs `ip`, which is not installed here"] * 2)
    'NOT TESTED, for want of ip: a rehearsal in networks of its own. `apt-get install iproute2` mends it'
    """
    names = sorted({name for reason in reasons for name in _SAID.findall(reason)})
    if not names:
        return ""
    packages = " ".join(sorted({TOOLS[name].package for name in names}))
    guarantees = "; ".join(TOOLS[name].guarantee for name in names)
    return f"NOT TESTED, for want of {', '.join(names)}: {guarantees}. `apt-get install {packages}` mends it"
