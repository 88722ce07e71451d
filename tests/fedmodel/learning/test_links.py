"""What passes between two processes of a silo is what was sent, and whoever has not their secret is told nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from fedmodel.errors import CryptoError
from fedmodel.learning import links
from fedmodel.learning.links import Meeting, Words

SECRET, ANOTHER = b"s" * 32, b"t" * 32


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_words_and_arrays_come_as_they_were_sent(ends: tuple[socket.socket, socket.socket]) -> None:
    here, there = map(Words, ends)
    sent = [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.array([[1.5, np.nan], [-0.0, np.inf]], dtype=np.float32)[:, ::-1],
        np.array([True, False]),
        np.array(7.0),
    ]
    here.tell({"do": "batch", "names": ["tokens"]}, sent)
    said, arrays = there.hear()
    assert said == {"do": "batch", "names": ["tokens"]}
    for one, other in zip(sent, arrays, strict=True):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def test_an_end_that_is_gone_is_noticed_in_the_middle_of_an_array(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    header = b'{"said": {}, "arrays": [["<f4", [100]]]}'
    one.sendall(len(header).to_bytes(8, "big") + header + bytes(8))
    one.close()
    with pytest.raises(EOFError):
        Words(other).hear()


def test_an_end_that_tells_nothing_is_waited_for_no_longer_than_is_said(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    with pytest.raises(TimeoutError):
        Words(ends[1]).hear(0.01)


def both(*acts: Callable[[], Any]) -> list[Any]:
    """Do two things at once, and return what came of them: values, or errors."""
    found: list[Any] = [None] * len(acts)

    def do(place: int) -> None:
        try:
            found[place] = acts[place]()
        except Exception as error:
            found[place] = error

    threads = [threading.Thread(target=do, args=(place,)) for place in range(len(acts))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return found


def test_two_that_share_a_secret_meet_on_this_machine_alone(tmp_path: Path) -> None:
    before = listening()
    here, there = both(*(lambda rank=rank: Meeting(tmp_path, rank, 2, SECRET) for rank in range(2)))
    ports = listening() - before
    assert ports
    assert {address for address, _ in ports} == {"127.0.0.1"}
    sent = torch.tensor([1 + 2.0**-52, -0.0, torch.inf], dtype=torch.float64)
    _, received = both(lambda: there.send(0, sent), lambda: here.receive(1, torch.empty(3, dtype=torch.float64)))
    assert torch.equal(received, sent)


def listening() -> set[tuple[str, int]]:
    found = psutil.Process().net_connections(kind="tcp")
    return {(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN}


def test_whoever_has_not_the_secret_is_told_nothing_and_is_not_believed(tmp_path: Path) -> None:
    found = both(lambda: Meeting(tmp_path, 0, 2, SECRET), lambda: Meeting(tmp_path, 1, 2, ANOTHER))
    assert all(isinstance(one, CryptoError) for one in found)
    assert "somebody else connected to a process of this silo" in str(found[0])


def test_a_proof_that_was_shown_is_no_proof_the_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An impostor who sends back what it is shown has shown nothing."""
    shown: list[bytes] = []
    digest = links.digest

    def noted(label: bytes, *parts: bytes) -> bytes:
        shown.append(digest(label, *parts))
        return shown[-1]

    monkeypatch.setattr(links, "digest", noted)
    both(*(lambda rank=rank: Meeting(tmp_path, rank, 2, SECRET) for rank in range(2)))
    assert len(shown) == 4  # each makes its own, and the other's to compare
    assert len(set(shown)) == 2


def test_one_that_does_not_come_is_waited_for_no_longer_than_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "MEETS_S", 0.2)
    with pytest.raises(ConnectionError):
        Meeting(tmp_path, 0, 2, SECRET)
