"""What one silo may take of the server, so that the others notice nothing of one that takes all it can get.

Every silo of the roster has a share of its own; certificates that are in no roster have one together. All shares
together are no more than there is, but for bytes on their way. Of these a part is kept for each share alone, in which
one object of the usual size, or its answer, always has its place. What is more is of what all have in common, which
eight shares can fill for as long as bodies may take; the others then do with what is kept, an object at a time.

| Of                        | one share                                     | past it                                |
|---------------------------|-----------------------------------------------|----------------------------------------|
| connections               | 16, fewer where files are few, never under 4  | 429, and closed; the fifth is closed   |
| requests at once          | 12                                            | 429 after a second, and closed         |
| requests in a while       | 200 at once, then 100 a second                | they wait                              |
| bytes on their way        | 32 MiB, both ways together, of which 5 MiB    | they wait, 30 s at most; then 503      |
|                           | and 64 KiB are kept for it                    |                                        |
| a header                  | 10 s from the last answer, 16 KiB, 64 fields  | closed; 400; 431                       |
| a body, an answer's too   | 30 s, a second more for each 16 KiB; no pause | closed                                 |
|                           | of 30 s                                       |                                        |

Who has shown no certificate yet is counted by address (of IPv6 by its first 64 bits): 32 handshakes at once, 10 s each,
and then the oldest gives way to the newest; 128 in all; 64 connections, or 4 for each silo of the roster, and then 20 a
second, or one for each.

Does NOT bound what several silos take together beyond the sum of their shares, nor what it costs to turn somebody away:
a flood of connections is the firewall's. Does NOT keep room for an object of more than the usual size. Nothing here
blocks, reads or writes.
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
# A chunk of an array, which an update is sent in, with what is around it. Flower then keeps it, whatever is kept here.
_KEPT_BYTES: Final = FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + 64 * 2**10
_TURNED_AWAY: Final = 4
# Of one address: what a few silos behind it open at a restart of the server, and then. A flood of more is one.
_LEAST_BURST, _MOST_BURST = 64.0, 512.0
_LEAST_RATE, _MOST_RATE = 20.0, 100.0
# Files that the process needs besides: the inside's socket and its clients, logs, the modules that are loaded late.
_OTHER_FILES: Final = 256
_QUIET_S: Final = 10.0
_MOST_KINDS: Final = 1_000


@dataclass(frozen=True)
class Limits:
    """How much there is, how much of it one may have, and for how long.

    Attributes:
        connections: Of one share.
        turned_away: Connections of one share that are being told that they are too many.
        requests: Of one share, at once.
        requests_burst: Of one share, before it is held to some a second.
        requests_rate: A second.
        room_bytes: Of one share, on their way.
        kept_bytes: Of these, what is kept for that share alone.
        common_bytes: What all shares have in common, besides what is kept for each.
        strangers: Connections without a certificate as yet, in all.
        strangers_at_one_address: The same, of one address.
        arrivals_burst: Connections that one address may open at once, before it is held to some a second.
        arrivals_rate: A second.
        handshake_s: For a handshake of TLS.
        header_s: From an answer's end to the end of the next request's header. A silo's HTTP client leaves a
            connection alone after 5 s, so no request of its meets one that is just being closed.
        closing_s: For the end of TLS, and what was written before it.
        grace_s: For a body or an answer of no bytes.
        least_rate: Bytes a second, for which it has a second more. A line of 1 Mbit/s is seven times as fast.
        penalty_s: For how long a refusal is held back: whoever asks again at once is slowed, and the server is not.
        room_s: For how long room is waited for.
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
        """Return the limits for a roster of so many silos and a process that may open so many files.

        Guarantee: all shares of connections, all strangers and what else the process opens fit into its files, unless
        that leaves fewer than four connections a share, which a silo cannot do without and which is logged.
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
        """Return for how long whoever sends a body, or reads an answer, has until the next part of it.

        What moved at once earns time for the rest, but never for a part of which nothing moves: of an answer the
        kernel takes some megabytes, whether anybody reads them or not.

        Args:
            waited_s: Since the first part was waited for.
            moved_bytes: How much moved since.
        """
        return min(self.grace_s, self.grace_s + moved_bytes / self.least_rate - waited_s)


class Bucket:
    """Allows `burst` at once, and `rate` a second in the long run.

    >>> bucket = Bucket(rate=2, burst=1, now=0.0)
    >>> [bucket.take(now) for now in (0.0, 0.0, 0.0, 10.0)]
    [0.0, 0.5, 1.0, 0.0]
    """

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._left, self._then = rate, burst, burst, now

    def take(self, now: float) -> float:
        """Take one, and return for how many seconds it is not there yet."""
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
        """Return whether nothing is missing, so that a new one would do as well."""
        self._refill(now)
        return self._left >= self._burst

    def _refill(self, now: float) -> None:
        self._left = min(self._burst, self._left + (now - self._then) * self._rate)
        self._then = now


class Room:
    """So many bytes; who finds too few left waits for its turn, which comes in the order of asking."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = self._left = size_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken_bytes(self) -> int:
        """What is taken at present."""
        return self.size_bytes - self._left

    def take_if_there(self, size_bytes: int) -> bool:
        """Take some of it if it is there and nobody waits; return whether it was. More than all of it never is."""
        if self._waiting or size_bytes > self._left:
            return False
        self._left -= size_bytes
        return True

    async def take(self, size_bytes: int) -> None:
        """Take some of it; more than all of it is all of it, so that nobody waits for ever."""
        size_bytes = min(size_bytes, self.size_bytes)
        if self.take_if_there(size_bytes):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size_bytes)  # the turn came, and whoever waited is gone
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
    """What one silo has of the server, and may have.

    Args:
        limits: What there is.
        common: The room that all shares have in common.
    """

    def __init__(self, limits: Limits, common: Room) -> None:
        self._limits = limits
        self._common, self._kept, self._own = common, Room(limits.kept_bytes), Room(limits.room_bytes)
        self._bucket = Bucket(limits.requests_rate, limits.requests_burst, time.monotonic())
        self.connections = self.turned_away = self.requests = 0

    def connect(self) -> str | None:
        """Count a connection; return what is against it, or None."""
        if self.connections >= self._limits.connections:
            return f"more than {self._limits.connections} connections"
        self.connections += 1
        return None

    def disconnect(self) -> None:
        """Count a connection no more."""
        self.connections -= 1

    def turn_away(self) -> bool:
        """Count a connection that is too many while it is told so; return whether there is a place for that."""
        if self.turned_away >= self._limits.turned_away:
            return False
        self.turned_away += 1
        return True

    def turned(self) -> None:
        """Count such a connection no more."""
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
        """Hold room for some bytes while the block lasts; wait for it before.

        Guarantee: what fits into the room that is kept for this share waits for nobody else's.

        Raises:
            TimeoutError: When there was none in time.
        """
        # Of its own first, so that its own waiting is in nobody's way.
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
        """Take some bytes where they are there, or else where they will be; return of which room."""
        for room in (self._kept, self._common):
            if room.take_if_there(size_bytes):
                return room
        room = self._kept if size_bytes <= self._kept.size_bytes else self._common
        await room.take(size_bytes)
        return room


class Shares:
    """All shares: one a silo of the roster, and one of all others that hold a certificate.

    Args:
        limits: What there is.
        silos: The roster's names.
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
        """Log that somebody was refused, and by which rule; the same, not again for a while."""
        if self._told.is_new((name, what)):
            logger.warning("refused: silo %.64r: %s", name, what)


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
