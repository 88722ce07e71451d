"""What the gateway does with a body, an answer and a refusal, as the server of HTTP calls it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from server.gateway import Gateway
from server.share import Limits, Shares

MIB = 2**20
PUSH = "/v1/fleet/push-object"


@dataclass
class Caller:
    """One request over a connection of south's: what it brings, and what it is told."""

    shares: Shares
    path: str = PUSH
    method: str = "POST"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    told: list[MutableMapping[str, Any]] = field(default_factory=list)
    hung_up: bool = False

    def __post_init__(self) -> None:
        self.coming: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.reads = asyncio.Event()
        self.reads.set()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await self.reads.wait()
        self.told.append(message)

    def hang_up(self) -> None:
        self.hung_up = True
        self.coming.put_nowait({"type": "http.disconnect"})

    def bring(self, body: bytes, more: bool = False) -> None:
        self.coming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    async def call(self, gateway: Gateway) -> None:
        state = {"share": self.shares.of("south"), "silo": "south", "hang_up": self.hang_up}
        scope = {
            "type": "http",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": b"",
            "headers": list(self.headers),
            "state": state,
        }
        await gateway(scope, self.coming.get, self.send)

    @property
    def status(self) -> int:
        return int(self.told[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(part.get("body", b"") for part in self.told)


def length(size: int) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"content-length", str(size).encode()),)


class Inside:
    """Stands for Flower: answers with as many bytes as it is told to, and notes what it was shown."""

    def __init__(self, answer: bytes = b"ok") -> None:
        self.answer = answer
        self.shown: list[bytes] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        self.shown.append((await receive())["body"])
        await self.goes_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.answer})


def gateway(inside: Inside, limits: Limits) -> tuple[Gateway, Shares]:
    shares = Shares(limits, ("south",))
    return Gateway(inside, Path("/nonexistent"), shares), shares


async def settled() -> None:
    """Let all that can go on, go on."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_flower_is_shown_a_body_when_all_of_it_is_there() -> None:
    async def play() -> None:
        inside = Inside()
        gate, shares = gateway(inside, Limits())
        caller = Caller(shares, headers=length(6))
        call = asyncio.create_task(caller.call(gate))
        caller.bring(b"abc", more=True)
        await settled()
        assert inside.shown == []
        caller.bring(b"def")
        await call
        assert (inside.shown, caller.status, caller.body) == ([b"abcdef"], 200, b"ok")

    asyncio.run(play())


def test_a_body_waits_for_room_while_another_of_its_silo_is_under_way_and_small_ones_do_not() -> None:
    async def play() -> None:
        inside = Inside()
        inside.goes_on.clear()
        gate, shares = gateway(inside, Limits(room_bytes=10_000, kept_bytes=0, common_bytes=20_000))
        first, second = Caller(shares, headers=length(8_000)), Caller(shares, headers=length(8_000))
        small = Caller(shares, "/v1/fleet/send-node-heartbeat", headers=length(10))
        calls = []
        for caller, size in ((first, 8_000), (second, 8_000), (small, 10)):
            caller.bring(bytes(size))
            calls.append(asyncio.create_task(caller.call(gate)))
            await settled()
        assert [len(body) for body in inside.shown] == [8_000, 10]
        assert not second.coming.empty(), "nothing of it is read before there is room"
        inside.goes_on.set()
        await asyncio.gather(*calls)
        assert [len(body) for body in inside.shown] == [8_000, 10, 8_000]

    asyncio.run(play())


def test_who_finds_no_room_in_time_is_told_to_come_again() -> None:
    async def play() -> None:
        inside = Inside()
        inside.goes_on.clear()
        gate, shares = gateway(
            inside, Limits(room_bytes=10_000, kept_bytes=0, common_bytes=20_000, room_s=0.01, closing_s=0.01)
        )
        first, second = Caller(shares, headers=length(8_000)), Caller(shares, headers=length(8_000))
        first.bring(bytes(8_000))
        call = asyncio.create_task(first.call(gate))
        await settled()
        await second.call(gate)
        assert second.status == 503
        inside.goes_on.set()
        await call

    asyncio.run(play())


def test_an_answer_goes_out_in_slices_and_who_does_not_read_is_left() -> None:
    async def play() -> None:
        inside = Inside(bytes(10 * MIB))
        gate, shares = gateway(inside, Limits(grace_s=0.05))
        reader, sleeper = Caller(shares, headers=length(0)), Caller(shares, headers=length(0))
        reader.bring(b"")
        await reader.call(gate)
        assert len(reader.body) == 10 * MIB
        assert max(len(part.get("body", b"")) for part in reader.told) == 64 * 1_024
        sleeper.bring(b"")
        sleeper.reads.clear()
        await sleeper.call(gate)
        assert sleeper.hung_up
        assert sleeper.told == []

    asyncio.run(play())


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def play() -> None:
        inside = Inside()
        gate, shares = gateway(inside, Limits(grace_s=0.05))
        caller = Caller(shares, headers=length(5_000))
        caller.bring(b"x", more=True)
        await caller.call(gate)
        assert (caller.hung_up, caller.told, inside.shown) == (True, [], [])

    asyncio.run(play())


def test_requests_at_once_past_the_share_are_refused_and_nothing_stays_counted() -> None:
    async def play() -> None:
        inside = Inside()
        inside.goes_on.clear()
        gate, shares = gateway(inside, Limits(requests=2, penalty_s=0.0))
        callers = [Caller(shares, "/v1/fleet/pull-messages", headers=length(1)) for _ in range(5)]
        calls = []
        for caller in callers:
            caller.bring(b"x")
            calls.append(asyncio.create_task(caller.call(gate)))
            await settled()
        inside.goes_on.set()
        await asyncio.gather(*calls)
        assert [caller.status for caller in callers] == [200, 200, 429, 429, 429]
        assert json.loads(callers[2].body) == {"detail": "more than 2 requests at once"}
        assert (b"connection", b"close") in callers[2].told[0]["headers"]
        assert shares.of("south").requests == 0

    asyncio.run(play())


def test_who_is_turned_away_may_end_what_it_says_and_no_more_than_that() -> None:
    """One that is still sending when the connection is closed would not read why."""

    async def play() -> None:
        gate, shares = gateway(Inside(), Limits())
        caller = Caller(shares, headers=length(40 * MIB))
        for _ in range(40):
            caller.bring(bytes(MIB), more=True)
        await caller.call(gate)
        assert (caller.status, caller.coming.qsize()) == (413, 40 - 8)
        polite = Caller(shares, headers=((b"transfer-encoding", b"chunked"),))
        polite.bring(b"x", more=True)
        polite.bring(b"y")
        await polite.call(gate)
        assert (polite.status, polite.coming.qsize()) == (411, 0)

    asyncio.run(play())


@pytest.mark.parametrize("outcome", ["refused", "gone", "failed"])
def test_room_is_given_back_however_a_request_ends(outcome: str) -> None:
    class Failing(Inside):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            raise ValueError(outcome)

    async def play() -> None:
        gate, shares = gateway(Failing(), Limits(room_bytes=10_000, kept_bytes=0, common_bytes=10_000, closing_s=0.01))
        for _ in range(5):
            caller = Caller(shares, headers=length(9_000))
            if outcome == "refused":
                caller.bring(bytes(9_001))
                await caller.call(gate)
                assert caller.status == 413
            elif outcome == "gone":
                caller.hang_up()
                await caller.call(gate)
            else:
                caller.bring(bytes(9_000))
                with pytest.raises(ValueError, match="failed"):
                    await caller.call(gate)
        async with asyncio.timeout(5), shares.of("south").holding(10_000):
            pass

    asyncio.run(play())
