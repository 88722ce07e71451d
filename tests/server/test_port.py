"""The port's own part, in this process: what a connection is when it comes to HTTP."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from fedmodel.crypto import Purpose
from server.port import Port, listen_at, name_in
from server.share import Limits
from tests.tls_kits import kit


class Told(asyncio.Protocol):
    """Says whose a connection is, and how it sends."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        delay = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.write(f"{name_in(transport.get_extra_info('peercert'))} {bool(delay)}".encode())
        transport.close()


def test_a_connection_is_the_certificates_and_sends_what_it_has_at_once(tmp_path: Path) -> None:
    """An answer in two parts would wait for the other side's delayed acknowledgement, 40 ms a call."""
    server, north = kit(tmp_path / "server", Purpose.SERVER), kit(tmp_path / "north")
    told: list[bytes] = []

    def ask(port: int) -> None:
        plain = socket.create_connection(("127.0.0.1", port), 120)
        with north.client().wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            told.append(secure.recv(100))

    async def play() -> None:
        listening = listen_at("127.0.0.1", 0)
        port = Port(listening, server.server(), Limits(), Told)
        await asyncio.to_thread(ask, listening[0].getsockname()[1])
        port.close()
        await port.wait_closed()

    asyncio.run(play())
    assert told == [b"north True"]
