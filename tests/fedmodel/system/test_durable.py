"""Files that are synced together: nothing is told before all are on disk, with one sync where the system has one."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedmodel.errors import ConfigError
from fedmodel.system import durable
from fedmodel.system.durable import held, is_put_off, replace_file, sync_folder, synced_together


class Disk:
    """Counts what is synced: single files by their names, and whole file systems."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, whole: bool, status: int = 0) -> None:
        self.files: list[str] = []
        self.wholes = 0
        fsync = os.fsync

        def one(descriptor: int) -> None:
            self.files.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
            fsync(descriptor)

        def all_of_it(descriptor: int) -> int:
            assert os.fstat(descriptor)
            self.wholes += 1
            return status

        found = SimpleNamespace(syncfs=all_of_it) if whole else SimpleNamespace()
        monkeypatch.setattr(os, "fsync", one)
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: found)


def write(folder: Path, names: str = "abc") -> None:
    for name in names:
        replace_file(folder / name, name.encode())


def test_what_is_written_together_is_synced_once_and_before_the_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, whole=True)
    with synced_together():
        write(tmp_path)
        sync_folder(tmp_path)
        assert is_put_off()
        assert (disk.files, disk.wholes) == ([], 0)
    assert not is_put_off()
    assert (disk.files, disk.wholes) == ([], 1)
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["a", "b", "c"]


def test_a_block_within_another_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, whole=True)
    with synced_together():
        with synced_together():
            write(tmp_path)
        assert (disk.wholes, is_put_off()) == (0, True)
    assert disk.wholes == 1


def test_where_the_system_syncs_no_file_system_each_file_and_its_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, whole=False)
    with synced_together():
        write(tmp_path)
        write(tmp_path, "a")
        (tmp_path / "b").unlink()
    assert sorted(disk.files) == sorted(["a", "c", tmp_path.name])


def test_nothing_is_synced_where_nothing_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, whole=True)
    with synced_together():
        pass
    assert (disk.files, disk.wholes) == ([], 0)


def test_outside_of_a_block_each_file_is_synced_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, whole=True)
    write(tmp_path, "a")
    assert (disk.files, disk.wholes) == (["a.partial", tmp_path.name], 0)


def test_a_block_that_fails_syncs_what_was_written_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, whole=True)
    with pytest.raises(ValueError, match="why"), synced_together():  # noqa: PT012 - what is written before counts
        write(tmp_path)
        raise ValueError("why")
    assert (disk.wholes, is_put_off()) == (1, False)


def test_a_sync_that_fails_is_told_with_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch, whole=True, status=-1)
    with pytest.raises(OSError) as told, synced_together():  # noqa: PT011 - whatever number the system gave
        write(tmp_path, "a")
    assert str(told.value.filename).startswith(str(tmp_path))


def test_the_systems_own_call_takes_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    real = durable._synced
    monkeypatch.setattr(durable, "_synced", lambda path, sync=None: (called.append(sync), real(path, sync)))
    with synced_together():
        write(tmp_path)
    assert called


def test_a_lock_is_held_for_its_block_and_not_by_what_was_forked_inside_it(tmp_path: Path) -> None:
    with held(tmp_path / "one", "taken"), held(tmp_path / "two", "taken"):
        begun, begins = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(begins, b"1")
            signal.pause()
        assert os.read(begun, 1) == b"1"
        with pytest.raises(ConfigError, match="taken"), held(tmp_path / "one", "taken"):
            pass
    try:
        with held(tmp_path / "one", "taken"), held(tmp_path / "two", "taken"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_an_error_of_the_block_is_no_refusal_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError, match="why"), held(tmp_path / "one", "taken"):
        raise BlockingIOError("why")
