"""What is made once for all workers is made by one, whole, and anew after whoever failed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from tests.once import once


class Factory:
    """Pytest's, of a worker whose base lies beside those of the others."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def getbasetemp(self) -> Path:
        return self.base


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    return [Factory(tmp_path / f"gw{number}") for number in range(4)]


def test_one_makes_it_and_the_others_wait_until_it_is_whole(workers: list[Any]) -> None:
    made: list[Path] = []
    all_ask = Barrier(len(workers))

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "whole").touch()

    def ask(worker: Any) -> tuple[Path, list[str]]:
        all_ask.wait()
        folder = once(worker, "run", make)
        return folder, [path.name for path in folder.iterdir()]

    with ThreadPoolExecutor(len(workers)) as pool:
        found = list(pool.map(ask, workers))
    assert found == [(made[0], ["whole"])] * len(workers)
    assert len(made) == 1
    assert once(workers[0], "another", make) != made[0]


def test_of_one_who_failed_nothing_is_kept(workers: list[Any]) -> None:
    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(workers[0], "run", fails)
    folder = once(workers[1], "run", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_without_workers_it_lies_in_the_sessions_own_folder(
    workers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER")
    workers[0].base.mkdir()
    assert once(workers[0], "run", lambda _: None) == workers[0].base / "once" / "run"
