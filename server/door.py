"""What of Flower's server can be reached from outside: the calls that a silo's node makes, and nothing else.

    POST /v1/fleet/activate-node ...   the ten calls of a node       to Flower, which checks the node's signature
    GET  /health                       is it there, and what time is it
    GET  /v1/fedmodel/roster           the federation's signed roster
    anything else                      404, and never shown to Flower

Paths are compared whole and as they were sent: nothing is decoded, folded or joined first, so that a path which Flower
would read in another way than it stands is no path of the list. A node that would register itself is among what is
refused: nodes are registered by the server, from the roster.

A request's body is bounded, by its length as told and as it comes, and has to keep coming: Flower reads all of one
before it looks at who sent it.

Does NOT replace TLS with client certificates, on which this listens. Does NOT bound how many holders of certificates
ask at once: the server of HTTP does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

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
# An object of Flower's is a record or a chunk of an array, of 20 MiB at most; all else is small.
_MOST_BODY: Final = {"/v1/fleet/push-object": 32 * 2**20}
_MOST_OTHER_BODY: Final = 4 * 2**20
_SILENCE_S: Final = 30.0
_QUIET_S: Final = 10.0
_MOST_KINDS: Final = 1_000


class Door:
    """An ASGI app that lets the calls of silos through to another.

    Args:
        inside: Flower's own app.
        roster: The file to show; a silo without one gets 404.
    """

    def __init__(self, inside: App, roster: Path) -> None:
        self._inside, self._roster, self._told = inside, roster, Seldom()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, answer it, or refuse it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            return
        match _asked(scope):
            case ("POST", path) if path in _FLEET:
                await self._let_in(scope, receive, send)
            case ("GET" | "HEAD", "/health"):
                await self._inside(scope, receive, send)
            case ("GET", path) if path == ROSTER and self._roster.is_file():
                await _respond(send, 200, self._roster.read_bytes())
            case asked:
                if self._told.is_new(asked):
                    logger.warning("refused at the door: %s %.200r", scope["method"], scope["path"])
                await _respond(send, 404, b"")

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a silo's call on, its body bounded."""
        most = _MOST_BODY.get(scope["path"], _MOST_OTHER_BODY)
        if _told_length(scope) > most:
            await _respond(send, 413, b"")
            return
        came = 0

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal came
            try:
                part = await (receive() if came < 0 else asyncio.wait_for(receive(), _SILENCE_S))
            except TimeoutError:
                return {"type": "http.disconnect"}
            if part["type"] == "http.request" and came >= 0:
                came += len(part.get("body", b""))
                if came > most:
                    return {"type": "http.disconnect"}
                if not part.get("more_body", False):
                    came = -1  # all of it is there: whoever listens on waits for the end of the connection
            return part

        await self._inside(scope, bounded, send)


class Seldom:
    """Says whether something is worth a line: the same is, once in ten seconds."""

    def __init__(self) -> None:
        self._last: dict[object, float] = {}

    def is_new(self, what: object) -> bool:
        """Return whether this was not told lately, and note that it is now."""
        now = time.monotonic()
        if now - self._last.get(what, -_QUIET_S) < _QUIET_S:
            return False
        if len(self._last) >= _MOST_KINDS:
            self._last.clear()  # whoever asks for thousands of things does not fill the memory
        self._last[what] = now
        return True


def _asked(scope: Scope) -> tuple[str, str]:
    """Return method and path of a request, the path empty where it did not come as it stands."""
    path: str = scope["path"]
    as_sent = scope.get("raw_path") == path.encode("utf-8", "replace") and not scope.get("query_string")
    return scope["method"], path if as_sent and not scope.get("root_path") else ""


def _told_length(scope: Scope) -> int:
    """Return the length that a request says its body has, 0 where it does not say."""
    told = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(told[0]) if told and told[0].isdigit() else 0


async def _respond(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
