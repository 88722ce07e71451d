"""The fleet's port: who may connect, and how long a connection is kept that sends nothing.

    accepted    counted by its address, until a certificate was shown; the handshake has a deadline
    TLS         the name in the certificate says to whose share the connection counts
    HTTP/1.1    each request's header has a deadline that no byte extends; one request at a time

uvicorn's own server accepts every connection, and counts all of them, even those with half a header or none, towards
one common limit. Here the owner of a connection is known before a byte of HTTP is read from it, and it counts only
towards the owner's share.

Does NOT look at the content of requests: `server.gateway` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import time
from asyncio import sslproto
from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.share import MOST_HEADER_BYTES, Bucket, Limits, Seldom, Share, Shares

logger = logging.getLogger(__name__)

_BACKLOG: Final = 2_048
# How much is read from one connection before the next has its turn. asyncio's own 256 KiB hold ten thousand of TLS's
# smallest records, which take as long as many requests.
_TURN_BYTES: Final = 64 * 2**10
_FULL_S: Final = 0.1
_MOST_ADDRESSES: Final = 10_000
# How much waits for a slow reader, here and again in asyncio's own buffer of the same size, instead of a whole answer.
_WRITE_BUFFER: Final = 64 * 2**10
_IPV6_BLOCK_BITS: Final = 64  # the smallest block that a subscriber gets, so one owner has all of it
_TOO_MANY: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n"
)


class Line(H11Protocol):
    """One silo's connection.

    The time for a request's header runs from the end of the handshake, or of the last answer, to the header's end.
    Neither a header that trickles nor an idle connection extends it. The header is fed to the parser in small pieces,
    so that no header above the limit is parsed. A request that is sent before the last one was answered ends the
    connection; none of our clients does that.
    """

    def __init__(self, shares: Shares, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._shares, self._name = shares, ""
        self._release: Callable[[], None] | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or refuse it."""
        self._name = name_in(transport.get_extra_info("peercert"))
        share = self._shares.of(self._name)
        against = share.connect()
        if against is not None:
            self._turn_away(transport, share, against)
            return
        self._release = share.disconnect
        self.app_state = {"share": share, "silo": self._name, "hang_up": transport.abort}
        transport.set_write_buffer_limits(_WRITE_BUFFER)
        super().connection_made(transport)
        due_s = self._shares.limits.header_s
        self.timeout_keep_alive_task = self.loop.call_later(due_s, self.timeout_keep_alive_handler)

    def _turn_away(self, transport: asyncio.Transport, share: Share, against: str) -> None:
        """Tell a connection why it is refused, and close it."""
        self._refused = True
        self._shares.tell(self._name, against)
        if not share.turn_away():
            transport.abort()
            return
        self._release = share.turned
        body = b'{"detail":"%s"}' % against.encode()
        transport.write(_TOO_MANY % len(body) + body)
        transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse what came. uvicorn's own method would extend the deadline with every byte."""
        place = 0
        while place < len(data) and not self._refused and not self.transport.is_closing():
            piece = data[place : place + MOST_HEADER_BYTES] if self.conn.their_state is h11.IDLE else data[place:]
            place += len(piece)
            self.conn.receive_data(piece)
            self.handle_events()
            if self._is_ahead():
                self._shares.tell(self._name, "a request before the last one was answered")
                self.transport.abort()

    def _is_ahead(self) -> bool:
        """Return whether the client sent more than one request before the answer began.

        Once the answer began, its length may have shown the client that all of it is there, before it has ended here.
        """
        if self.cycle is None or self.conn.their_state not in (h11.DONE, h11.MUST_CLOSE):
            return False
        return len(self.conn.trailing_data[0]) > (MOST_HEADER_BYTES if self.cycle.response_started else 0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting the connection."""
        if self._release is not None:
            self._release()
            self._release = None
        if not self._refused:
            super().connection_lost(exc)
            self._unset_keepalive_if_required()


def name_in(certificate: Any) -> str:
    """Return the common name in a verified certificate, in the form that the ssl module gives; "" if there is none.

    >>> name_in({"subject": ((("organizationName", "x"),), (("commonName", "north"),))})
    'north'
    """
    for names in (certificate or {}).get("subject", ()):
        for kind, value in names:
            if kind == "commonName":
                return str(value)
    return ""


class Port:
    """Accepts connections, as asyncio's servers do, and bounds those that have shown no certificate.

    Args:
        listening: Sockets that listen.
        tls: The TLS context for them.
        limits: Says how many connections without a certificate there may be.
        line: Makes the protocol of a connection.
    """

    def __init__(
        self,
        listening: list[socket.socket],
        tls: ssl.SSLContext,
        limits: Limits,
        line: Callable[[], asyncio.Protocol],
    ) -> None:
        self.sockets, self._tls, self._limits, self._line = listening, tls, limits, line
        self._strangers: dict[asyncio.Task[None], str] = {}  # in the order of arrival
        self._buckets: dict[str, Bucket] = {}
        self._told = Seldom()
        self._accepting = [asyncio.create_task(self._accept(one)) for one in listening]

    async def _accept(self, listening: socket.socket) -> None:
        """Accept connections for as long as the socket is open."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                plain, address = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in (errno.EBADF, errno.EINVAL):
                    return  # closed
                if self._told.is_new(error.errno):
                    logger.warning("no connection can be accepted: %s", error.strerror)
                await asyncio.sleep(_FULL_S)
                continue
            self._arrive(plain, block_of(address[0]))

    def _arrive(self, plain: socket.socket, address: str) -> None:
        """Begin a handshake, unless its address opens connections faster than it may."""
        if not self._bucket(address).take_if_there(time.monotonic()):
            plain.close()
            if self._told.is_new(address):
                logger.warning("refused at the port: %s opens connections too fast", address)
            return
        own = [task for task, whose in self._strangers.items() if whose == address]
        if len(own) >= self._limits.strangers_at_one_address:
            self._give_way(own[0])
        elif len(self._strangers) >= self._limits.strangers:
            addresses = list(self._strangers.values())
            most = max(addresses, key=addresses.count)
            self._give_way(next(task for task, whose in self._strangers.items() if whose == most))
        # asyncio sets this only for sockets that are marked as TCP, which these are not; without it, an answer in two
        # parts waits 40 ms.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.create_task(self._greet(plain))
        self._strangers[task] = address
        task.add_done_callback(self._strangers.pop)

    def _bucket(self, address: str) -> Bucket:
        if address not in self._buckets:
            now = time.monotonic()
            if len(self._buckets) >= _MOST_ADDRESSES:
                self._buckets = {whose: bucket for whose, bucket in self._buckets.items() if not bucket.is_full(now)}
            self._buckets[address] = Bucket(self._limits.arrivals_rate, self._limits.arrivals_burst, now)
        return self._buckets[address]

    def _give_way(self, task: asyncio.Task[None]) -> None:
        """End the oldest handshake of an address that has too many, so that slow ones do not delay quick ones."""
        address = self._strangers.pop(task)
        task.remove_done_callback(self._strangers.pop)
        task.cancel()
        if self._told.is_new((address, "slow")):
            logger.warning("refused at the port: %s leaves many handshakes open", address)

    async def _greet(self, plain: socket.socket) -> None:
        """Do the TLS handshake; asyncio then calls the protocol. The TLS context logs who is refused."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(
                self._line,
                plain,
                ssl=self._tls,
                ssl_handshake_timeout=self._limits.handshake_s,
                ssl_shutdown_timeout=self._limits.closing_s,
            )

    def close(self) -> None:
        """Accept no more."""
        for task in (*self._accepting, *self._strangers):
            task.cancel()
        for listening in self.sockets:
            listening.close()

    async def wait_closed(self) -> None:
        """Return when no connection is being accepted any more."""
        await asyncio.gather(*self._accepting, *self._strangers, return_exceptions=True)


def block_of(address: str) -> str:
    """Return the block that stands for an address and all others that its owner has.

    >>> block_of("192.0.2.7"), block_of("2001:db8:1:2:3:4:5:6%eth0")
    ('192.0.2.7', '2001:db8:1:2::')
    """
    found = ip_address(address.partition("%")[0])
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Address(int(found) >> _IPV6_BLOCK_BITS << _IPV6_BLOCK_BITS))


def listen_at(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on all addresses of a name.

    Raises:
        OSError: When one of the addresses cannot be used.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listening: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            listening.append(socket.create_server(address[:2], family=family, backlog=_BACKLOG))
            listening[-1].setblocking(False)
    except OSError:
        for one in listening:
            one.close()
        raise
    return listening


class FleetServer(uvicorn.Server):
    """uvicorn behind our own port; it leaves signals to the code that runs it.

    Args:
        config: uvicorn's; its address and TLS are not used.
        listening: Sockets that listen.
        tls: The TLS context for them.
        shares: The shares that connections count towards.
    """

    def __init__(
        self, config: uvicorn.Config, listening: list[socket.socket], tls: ssl.SSLContext, shares: Shares
    ) -> None:
        super().__init__(config)
        self._listening, self._tls, self._shares = listening, tls, shares

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - as overridden
        """Begin to accept."""
        await self.lifespan.startup()
        sslproto.SSLProtocol.max_size = _TURN_BYTES
        line = partial(Line, self._shares, config=self.config, server_state=self.server_state, app_state={})
        self.servers = [Port(self._listening, self._tls, self._shares.limits, line)]  # type: ignore[list-item]
        self.started = True
