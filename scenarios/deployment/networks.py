"""Networks for a rehearsal: a namespace a party where the machine allows it, or loopback for all.

    server namespace    bridge, 198.18.0.1/24, and one end of each silo's cable
    silo namespaces     the other end, 198.18.0.2 and so on, and nothing else

The bridge is in the server's namespace, so the machine's own network has no part of it. The addresses are those that
RFC 2544 sets aside for such use. Linux, iproute2 and the right to make namespaces are needed.

Does NOT keep parties apart in any other way: they share files and users.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import psutil

from fedmodel.errors import ConfigError

_HOST: Final = "198.18.0.1"
_PORT: Final = 9443
_PREFIX: Final = "fedmodel-"
_MOST: Final = 200  # parties in one small network


@dataclass(frozen=True)
class Networks:
    """Where parties find the server.

    Attributes:
        kind: "namespaces" or "loopback".
        host: The server's address.
        port: The fleet's.
        names: By party, its namespace; none on loopback.
    """

    kind: str
    host: str
    port: int
    names: Mapping[str, str] = field(default_factory=dict)

    def inside(self, party: str) -> list[str]:
        """Return what a party's command begins with."""
        return ["ip", "netns", "exec", self.names[party]] if self.names else []


def loopback() -> Networks:
    """Return the loopback interface, with a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Networks("loopback", "127.0.0.1", int(probe.getsockname()[1]))


@contextmanager
def namespaces(parties: Sequence[str], *, required: bool) -> Iterator[Networks | None]:
    """Make a namespace a party, the first one the server's, and take all down again.

    Args:
        parties: Their names, the server's first.
        required: Raise where the machine does not allow it, rather than give None.

    Raises:
        ConfigError: When namespaces are required and cannot be made.
    """
    _clear_up()
    names = {party: f"{_PREFIX}{os.getpid()}-{number}" for number, party in enumerate(parties)}
    try:
        reason = _obstacle(len(parties)) or _make(list(names.values()))
        if reason and required:
            raise ConfigError(f"network namespaces cannot be made here: {reason}; leave them out, or run as root")
        yield None if reason else Networks("namespaces", _HOST, _PORT, names)
    finally:
        for name in names.values():
            _ip("netns", "del", name)


def _clear_up() -> None:
    """Take down what a rehearsal left that was killed."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)  # noqa: S607 - fixed words
    for line in listed.stdout.splitlines():
        name = line.partition(" ")[0]
        owner = name.removeprefix(_PREFIX).partition("-")[0]
        if name.startswith(_PREFIX) and owner.isdecimal() and not psutil.pid_exists(int(owner)):
            _ip("netns", "del", name)


def _obstacle(parties: int) -> str:
    if shutil.which("ip") is None:
        return "there is no `ip` command"
    if os.geteuid() != 0:
        return "this is not root"
    return f"{parties} parties are more than {_MOST}" if parties > _MOST else ""


def _make(names: Sequence[str]) -> str:
    """Make namespaces and cables; return what failed, empty where nothing did."""
    server = names[0]
    steps: list[tuple[str, ...]] = [("netns", "add", name) for name in names]
    steps += [("-n", name, "link", "set", "lo", "up") for name in names]
    steps += [
        ("-n", server, "link", "add", "bridge", "type", "bridge"),
        ("-n", server, "addr", "add", f"{_HOST}/24", "dev", "bridge"),
        ("-n", server, "link", "set", "bridge", "up"),
    ]
    for number, silo in enumerate(names[1:], start=2):
        cable, address = f"silo{number}", f"{_HOST.rsplit('.', 1)[0]}.{number}/24"
        steps += [
            ("-n", server, "link", "add", cable, "type", "veth", "peer", "name", "server", "netns", silo),
            ("-n", server, "link", "set", cable, "master", "bridge", "up"),
            ("-n", silo, "addr", "add", address, "dev", "server"),
            ("-n", silo, "link", "set", "server", "up"),
        ]
    return next((failed for step in steps if (failed := _ip(*step))), "")


def _ip(*arguments: str) -> str:
    """Run iproute2; return what it complained of, empty where it did not."""
    if shutil.which("ip") is None:
        return "there is no `ip` command"
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607 - fixed words
    if done.returncode == 0:
        return ""
    return (done.stderr or done.stdout).strip().splitlines()[0] if (done.stderr or done.stdout).strip() else "ip failed"
