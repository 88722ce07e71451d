"""The part of Flower's server that can be reached from outside: the calls of a silo's node, and nothing else.

    POST /v1/fleet/activate-node ...   the ten calls of a node       to Flower, which checks the node's signature
    GET  /health                       whether the server is there, and what time it has
    GET  /v1/fedmodel/roster           the federation's signed roster
    anything else                      404, and never shown to Flower

Paths are compared whole and as they were sent. Nothing is decoded, folded or joined first, so a path that Flower would
read in another way than it is written is not on the list. A node cannot register itself: the server registers nodes,
from the roster.

Every request counts towards a silo's share (`server.share`). Its body must have a length that is stated beforehand
(else 411), be no longer than its call needs (else 413), and not be compressed (else 415). It is complete before Flower
gets the request, because Flower would read all of a body before it checks who sent it. Body and answer have to keep
moving. A refused client is told why, and its connection is closed, so that nobody goes on sending what nobody reads.

Does NOT replace TLS with client certificates, on which this listens, nor the bounds on connections (`server.port`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

from server.share import MOST_FIELDS, MOST_HEADER_BYTES, Seldom, Share, Shares

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ROSTER: Final = "/v1/fedmodel/roster"
HEALTH: Final = "/health"
_FLEET: Final = frozenset(
    f"/v1/fleet/{call}"
    for call in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
# An object of Flower's is a chunk of an array, 5 MiB, or a record: at most the shares for all silos of a large
# federation.
_MOST_OBJECT: Final = 32 * 2**20
# An announcement has some 70 bytes per object, so it names 900 objects, or an update of 4 GiB. The limit is small,
# because two bytes of an announcement may become a hundred in memory.
_MOST_ANNOUNCEMENT: Final = 64 * 2**10
_MOST_BODY: Final = {"/v1/fleet/push-object": _MOST_OBJECT, "/v1/fleet/push-messages": _MOST_ANNOUNCEMENT}
# A node's number, a key, a hash.
_MOST_OTHER_BODY: Final = 4 * 2**10
# The size of an answer is not known before it is made; as a rule it is a chunk with its envelope.
_LIKELY_ANSWER: Final = {
    "/v1/fleet/pull-object": FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + 2**10,
    "/v1/fleet/get-fab": FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE,
}
_SLICE: Final = 64 * 2**10
_ABOUT_BODIES: Final = frozenset({b"transfer-encoding", b"content-encoding", b"content-length"})
_MOST_DIGITS: Final = 12
_MOST_THROWN_AWAY: Final = 8 * 2**20
NOBODY: Final = "nobody"
"""The name of a caller without a connection, in this process."""


class Refused(Exception):
    """Raised for a request that is not passed on, with the reason and the status.

    Args:
        status: The HTTP status.
        detail: What the silo is told.
        late_s: For how long the answer is held back.
    """

    def __init__(self, status: int, detail: str, late_s: float = 0.0) -> None:
        super().__init__(detail)
        self.status, self.detail, self.late_s = status, detail, late_s


class Gone(Exception):
    """Raised when there is nobody to answer: the client is gone, or its connection was closed."""


class Gateway:
    """An ASGI app that lets the calls of silos through to another.

    Args:
        inside: Flower's own app.
        roster: The file to show; without it the answer is 404.
        shares: The shares that requests count towards.
    """

    def __init__(self, inside: App, roster: Path, shares: Shares) -> None:
        self._inside, self._roster, self._shares, self._told = inside, roster, shares, Seldom()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, answer it, or refuse it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            return
        asker = _Asker(scope, self._shares)
        send = _paced(send, asker)
        with contextlib.suppress(Gone):
            try:
                with asker.asking() as pause_s:
                    await asyncio.sleep(pause_s)
                    await self._answer(scope, receive, send, asker)
            except Refused as refused:
                asker.tell(refused.detail)
                await asyncio.sleep(refused.late_s)
                body = b'{"detail":"%s"}' % refused.detail.encode()
                await _turn_away(receive, send, refused.status, body, asker.limits.closing_s)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, asker: _Asker) -> None:
        """Answer a request that is within its silo's share."""
        match _asked(scope):
            case ("POST", path) if path in _FLEET:
                size_bytes = _told_length(scope, _MOST_BODY.get(path, _MOST_OTHER_BODY))
                async with asker.room(size_bytes + _LIKELY_ANSWER.get(path, 0)):
                    body = await _read(receive, size_bytes, asker)
                    await self._inside(scope, _given(body, receive), send)
            case ("GET" | "HEAD", "/health"):
                _told_length(scope, 0)
                await self._inside(scope, receive, send)
            case ("GET", path) if path == ROSTER and self._roster.is_file():
                _told_length(scope, 0)
                async with asker.room(self._roster.stat().st_size):
                    await _respond(send, 200, self._roster.read_bytes())
            case asked:
                if self._told.is_new(asked):
                    logger.warning("refused at the gateway: %s %.200r", scope["method"], scope["path"])
                await _turn_away(receive, send, 404, b"", asker.limits.closing_s)


class _Asker:
    """The silo that makes a request, as the connection says."""

    def __init__(self, scope: Scope, shares: Shares) -> None:
        state = scope.get("state", {})
        self.name: str = state.get("silo", NOBODY)
        self._share: Share = state.get("share") or shares.of(self.name)
        self._hang_up: Callable[[], None] = state.get("hang_up", _nothing)
        self._shares, self._headers, self.limits = shares, scope["headers"], shares.limits

    @contextmanager
    def asking(self) -> Iterator[float]:
        """Count the request; yield for how many seconds it has to wait.

        Raises:
            Refused: When there are too many, or its header is too large.
        """
        header_bytes = sum(len(name) + len(value) + 4 for name, value in self._headers)
        if len(self._headers) > MOST_FIELDS or header_bytes > MOST_HEADER_BYTES:
            raise Refused(431, f"a header of {len(self._headers)} fields and {header_bytes} bytes")
        if self._share.is_busy:
            raise Refused(429, f"more than {self.limits.requests} requests at once", self.limits.penalty_s)
        with self._share.asking() as pause_s:
            yield pause_s

    @asynccontextmanager
    async def room(self, size_bytes: int) -> AsyncIterator[None]:
        """Hold room for bytes on their way. Small requests need none, so that no heartbeat waits for an update.

        Raises:
            Refused: When there is no room for too long.
        """
        if size_bytes <= _MOST_OTHER_BODY:
            yield
            return
        async with AsyncExitStack() as held:
            try:
                await held.enter_async_context(self._share.holding(size_bytes))
            except TimeoutError:
                raise Refused(503, "the server has no room for this at present") from None
            yield

    def tell(self, what: str) -> None:
        """Log what was refused."""
        self._shares.tell(self.name, what)

    def hang_up(self, why: str) -> None:
        """Close the connection at once."""
        self.tell(why)
        self._hang_up()


async def _read(receive: Receive, size_bytes: int, asker: _Asker) -> bytes:
    """Return a body, which has to arrive fast enough.

    Raises:
        Gone: When it did not, or its sender is gone.
    """
    parts: list[bytes] = []
    came, begun = 0, time.monotonic()
    while True:
        try:
            async with asyncio.timeout(asker.limits.left_s(time.monotonic() - begun, came)):
                part = await receive()
        except TimeoutError:
            asker.hang_up("a request's body that comes too slowly")
            raise Gone from None
        if part["type"] != "http.request":
            raise Gone
        parts.append(part.get("body", b""))
        came += len(parts[-1])
        if came > size_bytes:  # an HTTP parser prevents this; a caller without one does not
            raise Refused(413, "a body that is longer than it says")
        if not part.get("more_body", False):
            return b"".join(parts)


def _given(body: bytes, receive: Receive) -> Receive:
    """Return a function that gives a complete body, and then waits for the end of the connection."""
    given = False

    async def give() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


def _paced(send: Send, asker: _Asker) -> Send:
    """Return a function that sends an answer slice by slice, and hangs up on a client that reads too slowly."""
    sent, begun, gone = 0, 0.0, False

    async def paced(message: MutableMapping[str, Any]) -> None:
        nonlocal sent, begun, gone
        begun = begun or time.monotonic()
        for part in _sliced(message):
            if gone:
                return
            try:
                async with asyncio.timeout(asker.limits.left_s(time.monotonic() - begun, sent)):
                    await send(part)
            except TimeoutError:
                gone = True
                asker.hang_up("an answer that is read too slowly")
            sent += len(part.get("body", b""))

    return paced


def _sliced(message: MutableMapping[str, Any]) -> Iterator[MutableMapping[str, Any]]:
    """Cut a part of an answer into slices, of which the HTTP server takes one at a time."""
    body, place = message.get("body", b""), 0
    while len(body) - place > _SLICE:
        yield {"type": message["type"], "body": body[place : place + _SLICE], "more_body": True}
        place += _SLICE
    yield {**message, "body": body[place:]} if place else message


def _nothing() -> None:
    """Do nothing: a caller in this process has no connection to close."""


def _asked(scope: Scope) -> tuple[str, str]:
    """Return method and path of a request; the path is empty if it was not sent exactly as it is written."""
    path: str = scope["path"]
    as_sent = scope.get("raw_path") == path.encode("utf-8", "replace") and not scope.get("query_string")
    return scope["method"], path if as_sent and not scope.get("root_path") else ""


def _told_length(scope: Scope, most_bytes: int) -> int:
    """Return the length that a request states for its body.

    Raises:
        Refused: When it has a body and states no length, states more than its call needs, or is compressed.
    """
    told = {name: value for name, value in scope["headers"] if name in _ABOUT_BODIES}
    if b"transfer-encoding" in told:
        raise Refused(411, "a body whose length is not said beforehand")
    if told.get(b"content-encoding", b"identity") != b"identity":
        raise Refused(415, "a body that is compressed")
    length = told.get(b"content-length", b"0")
    if not length.isdigit():
        raise Refused(400, "a body whose length is no number")
    if len(length) > _MOST_DIGITS or int(length) > most_bytes:
        raise Refused(413, f"a body of more than the {most_bytes} bytes that this call has at most")
    return int(length)


async def _respond(send: Send, status: int, body: bytes) -> None:
    """Answer."""
    await send({"type": "http.response.start", "status": status, "headers": _headers(body)})
    await send({"type": "http.response.body", "body": body})


async def _turn_away(receive: Receive, send: Send, status: int, body: bytes, patience_s: float) -> None:
    """Send the last answer, and close the connection when the client had time to read it.

    A client that is still sending does not read yet, and would find the connection closed without a reason. So some of
    what it sends is read and discarded first.
    """
    headers = [*_headers(body), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    came = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            while came < _MOST_THROWN_AWAY:
                part = await receive()
                came += len(part.get("body", b""))
                if not part.get("more_body", False):
                    break
    await send({"type": "http.response.body", "body": b""})


def _headers(body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
