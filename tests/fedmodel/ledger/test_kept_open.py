"""Ledgers that are kept open: opened and checked once, at the file that lies there, and closed in the end."""

from __future__ import annotations

import ctypes
import os
import resource
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedmodel.crypto import SigningKey
from fedmodel.errors import LedgerTampered
from fedmodel.ledger import Ledger, kept_open, opened, verify_ledger
from fedmodel.system.durable import synced_together

KEYS = {name: SigningKey(bytes([number]) * 32) for number, name in enumerate(("north", "south", "west"), start=1)}


def ledger(folder: Path, name: str = "north") -> AbstractContextManager[Ledger]:
    return opened(folder / f"{name}.sqlite", name, KEYS[name], folder / f"{name}.head")


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose ledgers were opened, in order."""
    names: list[str] = []
    real = sqlite3.connect

    def connect(path: Path, **named: Any) -> sqlite3.Connection:
        names.append(Path(path).stem)
        return real(path, **named)

    monkeypatch.setattr(sqlite3, "connect", connect)
    return names


def test_a_ledger_is_opened_once_and_closed_with_the_block(tmp_path: Path, opening: list[str]) -> None:
    with kept_open(), synced_together():
        for _ in range(3):
            for name in KEYS:
                with ledger(tmp_path, name) as one:
                    one.audit({"subject": "looked"})
        assert opening == list(KEYS)
        assert (tmp_path / "north.sqlite-wal").exists()
        assert verify_ledger(tmp_path / "north.sqlite", KEYS["north"].public).head.size == 4  # while it is open
    assert not (tmp_path / "north.sqlite-wal").exists()
    for name, key in KEYS.items():
        head = (tmp_path / f"{name}.head").read_bytes()
        found = verify_ledger(tmp_path / f"{name}.sqlite", key.public, [head])
        assert (found.heads, found.unused_compared) == ((4,), True)


def test_outside_of_the_block_it_is_opened_for_each_use(tmp_path: Path, opening: list[str]) -> None:
    for _ in range(2):
        with ledger(tmp_path):
            pass
    assert opening == ["north", "north"]


def test_another_file_at_its_path_is_opened_and_checked_as_ever(tmp_path: Path, opening: list[str]) -> None:
    with ledger(tmp_path) as one:
        one.audit({"subject": "looked"})
    before = (tmp_path / "north.sqlite").read_bytes()
    with kept_open():
        with ledger(tmp_path) as one:
            one.audit({"subject": "looked again"})
        for end in ("", "-wal", "-shm"):
            (tmp_path / f"north.sqlite{end}").unlink()
        (tmp_path / "north.sqlite").write_bytes(before)
        with pytest.raises(LedgerTampered, match="newer ones are gone"), ledger(tmp_path):
            pass


def test_it_is_opened_anew_after_whoever_failed(tmp_path: Path, opening: list[str]) -> None:
    with kept_open():
        with pytest.raises(ValueError, match="why"), ledger(tmp_path):
            raise ValueError("why")
        with ledger(tmp_path):
            pass
    assert opening == ["north", "north"]


def test_no_more_are_open_than_the_system_lets_be(
    tmp_path: Path, opening: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256 + 2 * 3, 256 + 2 * 3))
    with kept_open():
        for name in [*KEYS, "west", "north"]:
            with ledger(tmp_path, name):
                pass
    assert opening == [*KEYS, "north"]


def test_where_files_are_synced_one_by_one_what_a_commit_lies_in_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry is in the write-ahead log, and the file itself may have none of it yet."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        real(descriptor)

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    monkeypatch.setattr(os, "fsync", fsync)
    with kept_open():
        with synced_together(), ledger(tmp_path) as found:
            found.audit({"subject": "looked"})
        assert {"north.sqlite", "north.sqlite-wal"} <= set(synced)
