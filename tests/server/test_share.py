"""What one silo may take: counting, waiting in turn, and what is left for everybody else."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from server.gateway import _LIKELY_ANSWER, _MOST_OTHER_BODY
from server.share import Bucket, Limits, Room, Share, Shares


def test_all_shares_fit_into_the_files_that_may_be_open() -> None:
    for silos in (1, 2, 10, 100, 1_000):
        for files in (1_024, 4_096, 65_536, 2**20):
            limits = Limits.of(silos, files)
            fits = (limits.connections + limits.turned_away) * (silos + 1) + limits.strangers < files
            assert fits or limits.connections == 4


def test_too_few_files_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Limits.of(1_000, 1_024)
    assert "1024 open files are too few for 1000 silos; allow the server 8392" in caplog.text


def test_no_share_of_room_is_more_than_half_of_it() -> None:
    """There is a share for certificates in no roster, so even one silo has another's room beside its own."""
    for silos in (1, 2, 10, 1_000):
        limits = Limits.of(silos, 2**20)
        assert limits.room_bytes * min(silos + 1, 8) == limits.common_bytes


def test_one_object_of_the_usual_size_always_has_a_place_in_what_is_kept() -> None:
    assert Limits().kept_bytes >= max(_LIKELY_ANSWER.values()) + _MOST_OTHER_BODY


def test_of_forty_silos_eight_that_hold_all_they_can_keep_nobody_out() -> None:
    """They hold what all have in common for ever. The others' objects come and go, one of each at a time."""

    async def play() -> None:
        names = [f"silo-{number}" for number in range(40)]
        limits = replace(Limits.of(40, 2**20), room_s=0.05)
        shares = Shares(limits, names)
        usual = max(_LIKELY_ANSWER.values()) + _MOST_OTHER_BODY
        async with AsyncExitStack() as held:
            for name in names[:8]:
                await held.enter_async_context(shares.of(name).holding(limits.room_bytes))
            with pytest.raises(TimeoutError):
                await held.enter_async_context(shares.of(names[8]).holding(limits.room_bytes))
            for name in names[8:]:
                for _ in range(3):
                    async with shares.of(name).holding(usual):
                        pass

    asyncio.run(play())


def test_an_object_waits_for_the_one_before_in_what_is_kept_and_not_for_others() -> None:
    async def play() -> None:
        shares = Shares(Limits(room_bytes=10, kept_bytes=4, common_bytes=10, room_s=5.0), ("north", "south"))
        async with shares.of("south").holding(10):
            async with shares.of("north").holding(4):
                second = asyncio.create_task(entered(shares.of("north"), 3))
                await asyncio.sleep(0.01)
                assert not second.done()
            await second

    asyncio.run(play())


def test_a_bucket_allows_a_burst_and_then_a_rate() -> None:
    bucket = Bucket(rate=10.0, burst=5.0, now=0.0)
    assert [bucket.take(0.0) for _ in range(7)] == pytest.approx([0, 0, 0, 0, 0, 0.1, 0.2])
    assert bucket.take(1.0) == 0.0
    assert not Bucket(rate=1.0, burst=0.5, now=0.0).take_if_there(0.0)


def test_a_bucket_that_refuses_is_not_drawn_deeper() -> None:
    bucket = Bucket(rate=1.0, burst=1.0, now=0.0)
    assert bucket.take_if_there(0.0)
    assert not any(bucket.take_if_there(0.5) for _ in range(1_000))
    assert bucket.take_if_there(1.0)


def test_connections_past_the_share_are_refused_and_one_that_ends_makes_room() -> None:
    shares = Shares(Limits(connections=2), ("north", "south"))
    south = shares.of("south")
    assert [south.connect() for _ in range(4)] == [None, None, "more than 2 connections", "more than 2 connections"]
    assert shares.of("north").connect() is None
    south.disconnect()
    assert south.connect() is None


def test_few_are_told_that_they_are_too_many_and_the_rest_are_not() -> None:
    share = Shares(Limits(), ("south",)).of("south")
    assert [share.turn_away() for _ in range(6)] == [True, True, True, True, False, False]
    share.turned()
    assert share.turn_away()


def test_an_address_may_open_what_silos_behind_it_open_and_not_what_a_large_roster_would() -> None:
    bursts = [
        (limits.arrivals_burst, limits.arrivals_rate)
        for limits in (Limits.of(silos, 2**20) for silos in (1, 50, 10_000))
    ]
    assert bursts == [(64, 20), (200, 50), (512, 100)]


def test_certificates_in_no_roster_have_one_share_together() -> None:
    shares = Shares(Limits(connections=1), ("north",))
    assert shares.of("mallory") is shares.of("eve")
    assert shares.of("mallory") is not shares.of("north")


def test_room_is_given_in_turn_and_a_large_one_is_not_passed_by() -> None:
    async def play() -> list[str]:
        room, order = Room(10), []

        async def want(name: str, size: int) -> None:
            await room.take(size)
            order.append(name)

        await want("first", 8)
        waiting = [asyncio.create_task(want("large", 9)), asyncio.create_task(want("small", 1))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["first"]
        room.give(8)
        await asyncio.gather(*waiting)
        assert room.taken_bytes == 10
        return order

    assert asyncio.run(play()) == ["first", "large", "small"]


@pytest.mark.parametrize("after_its_turn", [False, True])
def test_who_gives_up_waiting_leaves_nothing_taken(after_its_turn: bool) -> None:
    async def play() -> None:
        room = Room(10)
        await room.take(10)
        gone, next_one = asyncio.create_task(room.take(10)), asyncio.create_task(room.take(1))
        await asyncio.sleep(0)
        if after_its_turn:
            room.give(10)  # its turn comes, and it is gone before it hears of that
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        if not after_its_turn:
            room.give(10)
        await next_one
        room.give(1)
        assert room.taken_bytes == 0

    asyncio.run(play())


def test_more_than_there_is_waits_for_all_of_it_and_not_for_ever() -> None:
    async def play() -> None:
        room = Room(10)
        await room.take(1_000)
        assert room.taken_bytes == 10
        room.give(1_000)
        assert room.taken_bytes == 0

    asyncio.run(play())


async def entered(share: Share, size_bytes: int) -> None:
    """Hold room, and give it back at once."""
    async with share.holding(size_bytes):
        pass


def test_one_that_fills_its_own_room_leaves_the_others_theirs() -> None:
    async def play() -> None:
        limits = Limits(room_bytes=10, kept_bytes=0, common_bytes=20, room_s=0.01)
        shares = Shares(limits, ("north", "south"))
        async with shares.of("south").holding(10):
            with pytest.raises(TimeoutError):
                await entered(shares.of("south"), 1)
            await entered(shares.of("north"), 10)
        await entered(shares.of("south"), 10)

    asyncio.run(play())


def test_no_room_of_all_gives_ones_own_back() -> None:
    async def play() -> None:
        limits = Limits(room_bytes=10, kept_bytes=0, common_bytes=10, room_s=0.01)
        shares = Shares(limits, ("north", "south"))
        async with shares.of("south").holding(10):
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await entered(shares.of("north"), 6)
        await entered(shares.of("north"), 10)

    asyncio.run(play())


def test_what_moves_earns_time_and_what_stands_still_does_not() -> None:
    limits = Limits(grace_s=30.0, least_rate=1_000.0)
    assert limits.left_s(29.0, 0) == 1.0
    assert limits.left_s(31.0, 0) < 0
    assert limits.left_s(31.0, 2_000) == 1.0
    assert limits.left_s(0.0, 10**9) == 30.0


def test_a_refusal_names_who_and_which_rule_and_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    shares = Shares(Limits(), ("south",))
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            shares.tell("south", "more than 16 connections")
        shares.tell("south\x1b[2J\n", "more than 16 connections")
    assert [record.getMessage() for record in caplog.records] == [
        "refused: silo 'south': more than 16 connections",
        "refused: silo 'south\\x1b[2J\\n': more than 16 connections",
    ]
