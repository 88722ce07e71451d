"""What a silo says about a server that it cannot work with, and for how long it tries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from clients import reach
from clients.reach import Approach, Obstacle, split_address
from fedmodel.errors import ConfigError


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("server.example:9443", ("server.example", 9443)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:9443", ("::1", 9443)),
    ],
)
def test_an_address_is_split(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["server", "server:", ":9443", "server:https", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        split_address(address)


@pytest.mark.parametrize(
    ("ahead_s", "words"),
    [(0, None), (3, None), (-50, None), (8, "ahead of"), (3600, "ahead of"), (-70, "behind"), (-3600, "behind")],
)
def test_a_clock_that_is_off_is_said_with_seconds_and_direction(ahead_s: float, words: str | None) -> None:
    now = time.time()
    found = reach._about_clock(formatdate(now - ahead_s, usegmt=True), now, now + 0.1)
    if words is None:
        assert found is None
        return
    assert found is not None
    assert found.lasting
    assert words in found.line
    said = int(next(word for word in found.line.split() if word.isdecimal()))
    assert abs(said - abs(ahead_s)) <= 2


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_a_server_that_tells_no_time_is_no_obstacle(date: str | None) -> None:
    assert reach._about_clock(date, 0.0, 0.0) is None


class GaveUp(Exception):
    """Stands for the process's end."""


def approach(found: list[Obstacle | None], *, patient: bool) -> list[str]:
    """Approach a server that is found so, time after time; return what was said."""
    said: list[str] = []
    states: Iterator[Obstacle | None] = iter(found)

    def give_up(line: str) -> None:
        said.append(f"gave up: {line}")
        raise GaveUp

    Approach(lambda: next(states), said.append, give_up, patient=patient).wait(first_s=0.0)
    return said


DOWN, REVOKED = Obstacle("nobody answers", lasting=False), Obstacle("revoked", lasting=True)


def test_a_server_that_is_down_is_waited_for_and_told_of_once() -> None:
    assert approach([DOWN, DOWN, DOWN, None], patient=False) == [
        "nobody answers; trying again",
        "the server can be reached again",
    ]
    assert approach([None], patient=False) == []


def test_what_lasts_ends_it_at_the_start() -> None:
    with pytest.raises(GaveUp):
        approach([DOWN, REVOKED, None], patient=False)


def test_what_lasts_is_told_and_tried_again_later() -> None:
    assert approach([REVOKED, REVOKED, DOWN, None], patient=True) == [
        "revoked; trying again",
        "nobody answers; trying again",
        "the server can be reached again",
    ]
