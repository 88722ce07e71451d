"""How much of the server one silo may take, so that a silo that takes all it can does not disturb the others.

Every silo of the roster has a share of its own. All certificates that are in no roster have one share together. All
shares together are no more than the server has, except for bytes on their way. Of these, each share has a part that is
kept for it alone, with room for one object of the usual size, or its answer. Further bytes come from a part that all
shares have in common. Eight shares can fill the common part for as long as bodies may take; the other shares then use
what is kept for them, one object at a time.

| Of                        | one share                                     | beyond it                              |
|---------------------------|-----------------------------------------------|----------------------------------------|
| connections               | 16, fewer where files are few, never under 4  | 429, and closed; the fifth is closed   |
| requests at once          | 12                                            | 429 after a second, and closed         |
| rate of requests          | 200 at once, then 100 a second                | they wait                              |
| bytes on their way        | 32 MiB, both ways together, of which 5 MiB    | they wait, 30 s at most; then 503      |
|                           | and 64 KiB are kept for it                    |                                        |
| a header                  | 10 s from the last answer, 16 KiB, 64 fields  | closed; 400; 431                       |
| a body, an answer's too   | 30 s, a second more for each 16 KiB; no pause | closed                                 |
|                           | of 30 s                                       |                                        |

A connection without a certificate yet is counted by its address (an IPv6 address by its first 64 bits). One address may
have 32 handshakes at once, of 10 s each; then the oldest gives way to the newest. All addresses together may have 128.
One address may open 64 connections, or 4 for each silo of the roster, and then 20 a second, or one for each silo.

Does NOT bound several silos together beyond the sum of their shares. Does NOT bound the cost of turning connections
away: floods of connections are the firewall's task. Does NOT keep room for an object of more than the usual size.
Nothing here blocks, reads or writes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, Self

from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

logger = logging.getLogger(__name__)

MOST_HEADER_BYTES: Final = 16 * 2**10
MOST_FIELDS: Final = 64

# A node of Flower's has one connection for messages, one for its heartbeat, and two for objects each way at most.
_LEAST_CONNECTIONS: Final = 4
_ROOM_BYTES: Final = 32 * 2**20
_MOST_ROOMS: Final = 8
# A chunk of an array, in which updates are sent, with its envelope. Flower keeps it afterwards, whatever is kept here.
_KEPT_BYTES: Final = FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + 64 * 2**10
_TURNED_AWAY: Final = 4
# For one address: what a few silos behind it open at a restart of the server, and afterwards. More counts as a flood.
_LEAST_BURST, _MOST_BURST = 64.0, 512.0
_LEAST_RATE, _MOST_RATE = 20.0, 100.0
# Other files that the process needs: the inside's socket and its clients, logs, modules that are loaded late.
_OTHER_FILES: Final = 256
_QUIET_S: Final = 10.0
_MOST_KINDS: Final = 1_000


@dataclass(frozen=True)
class Limits:
    """How much the server has, how much of it one share or address may have, and for how long.

    Attributes:
        connections: Of one share.
        turned_away: Connections of one share that are being told that they are too many.
        requests: Of one share, at once.
        requests_burst: Of one share, before it is limited to `requests_rate`.
        requests_rate: Per second.
        room_bytes: Bytes of one share on their way.
        kept_bytes: The part of these that is kept for that share alone.
        common_bytes: What all shares have in common, in addition to what is kept for each.
        strangers: Connections without a certificate yet, in all.
        strangers_at_one_address: The same, for one address.
        arrivals_burst: Connections that one address may open at once, before it is limited to `arrivals_rate`.
        arrivals_rate: Per second.
        handshake_s: For a TLS handshake.
        header_s: From an answer's end to the end of the next request's header. A silo's HTTP client stops using a
            connection after 5 s, so none of its requests meets a connection that is just being closed.
        closing_s: For the end of TLS, and for what was written before it.
        grace_s: For a body or an answer of no bytes.
        least_rate: For so many bytes, a body or an answer gets one more second. A line of 1 Mbit/s is seven times as
            fast.
        penalty_s: For how long a refusal is held back, which slows a silo that asks again at once, and not the server.
        room_s: How long a request waits for room.
    """

    connections: int = 16
    turned_away: int = _TURNED_AWAY
    requests: int = 12
    requests_burst: float = 200.0
    requests_rate: float = 100.0
    room_bytes: int = _ROOM_BYTES
    kept_bytes: int = _KEPT_BYTES
    common_bytes: int = _ROOM_BYTES * _MOST_ROOMS
    strangers: int = 128
    strangers_at_one_address: int = 32
    arrivals_burst: float = _LEAST_BURST
    arrivals_rate: float = _LEAST_RATE
    handshake_s: float = 10.0
    header_s: int = 10
    closing_s: float = 10.0
    grace_s: float = 30.0
    least_rate: float = 16 * 2**10
    penalty_s: float = 1.0
    room_s: float = 30.0

    @classmethod
    def of(cls, silos: int, files: int) -> Self:
        """Return the limits for a roster of `silos` silos and a process that may open `files` files.

        Guarantee: the connections of all shares, all strangers and the process's other files fit into its open files.
        The exception is logged: a silo needs four connections, so a share has four even if they do not fit.
        """
        shares, others = silos + 1, cls.strangers + _OTHER_FILES
        fitting = (files - others) // shares - cls.turned_away
        if fitting < _LEAST_CONNECTIONS:
            needed = (_LEAST_CONNECTIONS + cls.turned_away) * shares + others
            logger.warning("%d open files are too few for %d silos; allow the server %d", files, silos, needed)
        return cls(
            connections=max(_LEAST_CONNECTIONS, min(cls.connections, fitting)),
            common_bytes=_ROOM_BYTES * min(shares, _MOST_ROOMS),
            arrivals_burst=min(max(_LEAST_BURST, float(_LEAST_CONNECTIONS * silos)), _MOST_BURST),
            arrivals_rate=min(max(_LEAST_RATE, float(silos)), _MOST_RATE),
        )

    def left_s(self, waited_s: float, moved_bytes: int) -> float:
        """Return how many seconds the sender of a body, or the reader of an answer, has until the next part.

        Bytes that moved quickly earn time for the rest, but never more than `grace_s` for one part: the kernel takes
        some megabytes of an answer, whether anybody reads them or not.

        Args:
            waited_s: Time since the wait for the first part began.
            moved_bytes: How much has moved since.
        """
        return min(self.grace_s, self.grace_s + moved_bytes / self.least_rate - waited_s)


class Bucket:
    """Allows `burst` at once, and `rate` per second in the long run.

    >>> bucket = Bucket(rate=2, burst=1, now=0.0)
    >>> [bucket.take(now) for now in (0.0, 0.0, 0.0, 10.0)]
    [0.0, 0.5, 1.0, 0.0]
    """

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._left, self._then = rate, burst, burst, now

    def take(self, now: float) -> float:
        """Take one, and return in how many seconds it will be there."""
        self._refill(now)
        self._left -= 1
        return max(0.0, -self._left / self._rate)

    def take_if_there(self, now: float) -> bool:
        """Take one if there is one, and return whether there was."""
        self._refill(now)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def is_full(self, now: float) -> bool:
        """Return whether nothing is missing, so that a new bucket would be the same."""
        self._refill(now)
        return self._left >= self._burst

    def _refill(self, now: float) -> None:
        self._left = min(self._burst, self._left + (now - self._then) * self._rate)
        self._then = now


class Room:
    """A number of bytes to share; a taker that finds too few left waits for its turn, in the order of asking."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = self._left = size_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken_bytes(self) -> int:
        """How many bytes are taken at present."""
        return self.size_bytes - self._left

    def take_if_there(self, size_bytes: int) -> bool:
        """Take some bytes if they are there and nobody waits; return whether they were. More than all never are."""
        if self._waiting or size_bytes > self._left:
            return False
        self._left -= size_bytes
        return True

    async def take(self, size_bytes: int) -> None:
        """Take some bytes, but at most all of them, so that nobody waits for ever."""
        size_bytes = min(size_bytes, self.size_bytes)
        if self.take_if_there(size_bytes):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size_bytes)  # the turn came, but the taker is gone
            else:
                self._waiting.remove((size_bytes, turn))
                self._serve()
            raise

    def give(self, size_bytes: int) -> None:
        """Give back what was taken."""
        self._left += min(size_bytes, self.size_bytes)
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size_bytes, turn = self._waiting.popleft()
            self._left -= size_bytes
            turn.set_result(None)


class Share:
    """What one silo uses of the server, and may use.

    Args:
        limits: The server's limits.
        common: The room that all shares have in common.
    """

    def __init__(self, limits: Limits, common: Room) -> None:
        self._limits = limits
        self._common, self._kept, self._own = common, Room(limits.kept_bytes), Room(limits.room_bytes)
        self._bucket = Bucket(limits.requests_rate, limits.requests_burst, time.monotonic())
        self.connections = self.turned_away = self.requests = 0

    def connect(self) -> str | None:
        """Count a connection; return the reason to refuse it, or None."""
        if self.connections >= self._limits.connections:
            return f"more than {self._limits.connections} connections"
        self.connections += 1
        return None

    def disconnect(self) -> None:
        """Stop counting a connection."""
        self.connections -= 1

    def turn_away(self) -> bool:
        """Count a connection above the limit while it is told so; return whether there is a place for that."""
        if self.turned_away >= self._limits.turned_away:
            return False
        self.turned_away += 1
        return True

    def turned(self) -> None:
        """Stop counting such a connection."""
        self.turned_away -= 1

    @property
    def is_busy(self) -> bool:
        """Whether it has as many requests under way as it may."""
        return self.requests >= self._limits.requests

    @contextmanager
    def asking(self) -> Iterator[float]:
        """Count a request while the block lasts; yield for how many seconds it has to wait."""
        self.requests += 1
        try:
            yield self._bucket.take(time.monotonic())
        finally:
            self.requests -= 1

    @asynccontextmanager
    async def holding(self, size_bytes: int) -> AsyncIterator[None]:
        """Wait for room for some bytes, and hold it while the block lasts.

        Guarantee: bytes that fit into the room that is kept for this share wait for no other share.

        Raises:
            TimeoutError: When there was none in time.
        """
        # First from the share's own room, so that its waiting delays nobody else.
        async with asyncio.timeout(self._limits.room_s):
            await self._own.take(size_bytes)
            try:
                room = await self._taken(size_bytes)
            except BaseException:
                self._own.give(size_bytes)
                raise
        try:
            yield
        finally:
            room.give(size_bytes)
            self._own.give(size_bytes)

    async def _taken(self, size_bytes: int) -> Room:
        """Take some bytes from a room that has them, or wait for a room that will; return that room."""
        for room in (self._kept, self._common):
            if room.take_if_there(size_bytes):
                return room
        room = self._kept if size_bytes <= self._kept.size_bytes else self._common
        await room.take(size_bytes)
        return room


class Shares:
    """All shares: one per silo of the roster, and one for all others that hold a certificate.

    Args:
        limits: The server's limits.
        silos: The names in the roster.
    """

    def __init__(self, limits: Limits, silos: Iterable[str]) -> None:
        self.limits = limits
        common = Room(limits.common_bytes)
        self._shares = {name: Share(limits, common) for name in silos}
        self._others = Share(limits, common)
        self._told = Seldom()

    def of(self, name: str) -> Share:
        """Return a certificate's share, by the name in it."""
        return self._shares.get(name, self._others)

    def tell(self, name: str, what: str) -> None:
        """Log that somebody was refused, and by which rule; a repeated line is left out for a while."""
        if self._told.is_new((name, what)):
            logger.warning("refused: silo %.64r: %s", name, what)


class Seldom:
    """Says whether something is worth a line: the same thing is only once in ten seconds."""

    def __init__(self) -> None:
        self._last: dict[object, float] = {}

    def is_new(self, what: object) -> bool:
        """Return whether this was not told lately, and note that it is now."""
        now = time.monotonic()
        if now - self._last.get(what, -_QUIET_S) < _QUIET_S:
            return False
        if len(self._last) >= _MOST_KINDS:
            self._last.clear()  # thousands of different things must not fill the memory
        self._last[what] = now
        return True
