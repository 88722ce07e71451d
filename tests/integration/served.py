"""A real server with the certificates of two silos, north and south, and what a client of its port needs."""

from __future__ import annotations

import http.client
import itertools
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration import authority
from tests.integration.deployed import free_port, started, wait_until

_ADDRESSES = itertools.cycle([f"127.1.0.{number}" for number in range(1, 201)])


@dataclass(frozen=True)
class Served:
    """A server that is up."""

    folder: Path
    issuer: authority.Authority
    port: int
    process: subprocess.Popen[bytes]

    @property
    def socket(self) -> Path:
        return Path((self.folder / "server.socket").read_text())

    @property
    def log(self) -> str:
        return (self.folder / "logs" / "superlink.log").read_text()

    def connect(self, silo: str | None = "north", source: str = "", receive_bytes: int = 0) -> ssl.SSLSocket:
        """Speak TLS from an address of this machine, by default each time from another, as clients far apart do.

        What comes is kept in a small buffer where one is given.
        """
        plain = socket.socket()
        plain.settimeout(60)
        if receive_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as HTTP clients do
            plain.bind((source or next(_ADDRESSES), 0))
            plain.connect(("127.0.0.1", self.port))
            return authority.silo_tls(self.folder, silo).wrap_socket(plain, server_hostname="127.0.0.1")
        except OSError:
            plain.close()
            raise

    def ask(self, line: str, body: bytes = b"", *headers: str, silo: str = "north") -> tuple[int, bytes]:
        """Send a request line as it stands; return status and body."""
        with self.connect(silo) as secure:
            fields = ("Host: x", f"Content-Length: {len(body)}", "Connection: close", *headers)
            secure.sendall("\r\n".join((f"{line} HTTP/1.1", *fields, "", "")).encode("latin-1") + body)
            return answered(secure)


def answered(secure: ssl.SSLSocket) -> tuple[int, bytes]:
    """Read one answer."""
    answer = http.client.HTTPResponse(secure)
    answer.begin()
    return answer.status, answer.read()


@contextmanager
def serving(*roster: str, role: str = "server", padding_bytes: int = 0) -> Iterator[Served]:
    """Start a server for the silos of a roster; north and south have certificates whether they are in it or not."""
    with tempfile.TemporaryDirectory(prefix="fm-") as name:
        folder = Path(name)
        issuer = authority.Authority(folder)
        issuer.issue("server", host="127.0.0.1")
        for silo in ("north", "south"):
            issuer.issue(silo)
            authority.new_node(folder, silo)
        authority.write_roster(folder, roster, padding_bytes)
        (folder / "logs").mkdir()
        (folder / "home" / "runs").mkdir(parents=True)
        port = free_port()
        with started(role, str(folder), str(port), log=folder / "logs" / "out") as process:
            registered = folder / "logs" / "coordinator.log"
            wait_until(lambda: registered.exists() and f"{len(roster)} nodes are registered" in registered.read_text())
            yield Served(folder, issuer, port, process)
