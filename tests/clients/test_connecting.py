"""What a silo says about a server that it cannot work with, and for how long it tries."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

import pytest

from clients import connecting
from clients.connecting import Approach, Obstacle, find_obstacle
from fedmodel.crypto import Purpose
from tests.tls_kits import kit


@pytest.mark.parametrize(
    ("ahead_s", "words"),
    [(0, None), (3, None), (-50, None), (8, "ahead of"), (3600, "ahead of"), (-70, "behind"), (-3600, "behind")],
)
def test_a_clock_that_is_off_is_said_with_seconds_and_direction(ahead_s: float, words: str | None) -> None:
    now = time.time()
    found = connecting._about_clock(formatdate(now - ahead_s, usegmt=True), now, now + 0.1)
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
    assert connecting._about_clock(date, 0.0, 0.0) is None


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


# --- What is read -----------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
SHORT = OK + b"content-length: 2\r\n\r\nok"


@contextmanager
def answering(server: ssl.SSLContext, *answers: Iterator[bytes]) -> Iterator[tuple[str, list[int]]]:
    """A server that answers so, a request after the other; its address, and how many bytes it got rid of in the end."""
    sent: list[int] = [0]
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.settimeout(120)

        def serve() -> None:
            with suppress(OSError), server.wrap_socket(plain.accept()[0], server_side=True) as connection:
                for answer in answers:
                    connection.recv(65536)
                    for part in answer:
                        connection.sendall(part)
                        sent[0] += len(part)
                connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{plain.getsockname()[1]}", sent
        finally:
            thread.join(120)
    assert not thread.is_alive()


def endless(first: bytes, again: bytes, most: int) -> Iterator[bytes]:
    yield first
    for _ in range(most // len(again)):
        yield again


MANY = 64 * 2**20
CHUNKS = b"1\r\nx\r\n" * 2000
ENDLESS = {
    "length": (OK + b"content-length: 99999999999\r\n\r\n", bytes(16384)),
    "no length": (OK + b"\r\n", bytes(16384)),
    "chunks": (OK + b"transfer-encoding: chunked\r\n\r\n", CHUNKS),
    "trailers": (OK + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"a: " + b"x" * 16000 + b"\r\n"),
    "wait": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 600),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_that_does_not_end_is_not_read_to_its_end(kind: str, tmp_path: Path) -> None:
    server, silo = kit(tmp_path / "server", Purpose.SERVER), kit(tmp_path / "north")
    first, again = ENDLESS[kind]
    with answering(server.server(), endless(first, again, MANY)) as (address, sent):
        found = find_obstacle(address, silo.client(), lambda *_: None)
    assert found is not None
    assert ("no server of a federation" in found.line) or ("does not end" in found.line)
    assert sent[0] < MANY // 8  # what lay in the socket's buffers besides


def test_answers_of_the_size_that_they_may_have_are_read(tmp_path: Path) -> None:
    server, silo = kit(tmp_path / "server", Purpose.SERVER), kit(tmp_path / "north")
    roster = bytes(3 * 2**20)
    health = iter([OK + b"content-length: 65536\r\n\r\n", bytes(65536)])
    shown: list[bytes] = []
    chunked = [OK + b"transfer-encoding: chunked\r\n\r\n", b"%x\r\n" % len(roster), roster, b"\r\n0\r\n\r\n"]
    with answering(server.server(), health, iter(chunked)) as (address, _):
        assert find_obstacle(address, silo.client(), lambda _, roster: shown.append(roster)) is None
    assert shown == [roster]


def test_a_roster_that_is_too_long_is_refused_and_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "_LARGEST_ROSTER_BYTES", 1000)
    server, silo = kit(tmp_path / "server", Purpose.SERVER), kit(tmp_path / "north")
    roster = iter([OK + b"content-length: 1001\r\n\r\n" + bytes(1001)])
    with answering(server.server(), iter([SHORT]), roster) as (address, _):
        found = find_obstacle(address, silo.client(), lambda *_: pytest.fail("was shown"))
    assert found is not None
    assert found.lasting
    assert "/v1/fedmodel/roster is over 1000 bytes" in found.line
