"""What a round of a simulation in one process costs, counted: nothing is opened, parsed or made again for equal inputs.

A count hangs on no clock and on no other process, so that one more of anything is red.
"""

from __future__ import annotations

import os
import sqlite3
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fedmodel.config import Scenario, read_scenario, reading
from fedmodel.learning.jobs import training
from fedmodel.system import durable
from scenarios.simulation import grid
from scenarios.simulation.resuming import held_folder
from scenarios.simulation.simulate import simulate
from tests.conftest import TINY

FEW = ["federation.silos=3", "data.partition.min_records=5"]
MORE = ["federation.silos=6", "data.partition.min_records=5"]


@contextmanager
def counted(folder: Path) -> Iterator[Counter[str]]:
    """Count what is done meanwhile."""
    found: Counter[str] = Counter()

    def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            found[name] += 1
            return real(*arguments, **named)

        return call

    def synced(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        within = path.relative_to(folder).parts if path.is_relative_to(folder) else ("elsewhere",)
        found["synced by itself, a silo's" if within[:1] in (("silos",), ("ledgers",)) else "a server's"] += 1
        fsync(descriptor)

    fsync = os.fsync
    with (
        mock.patch("os.fsync", synced),
        mock.patch.object(durable, "_sync_all", counting("synced together", durable._sync_all)),
        mock.patch.object(sqlite3, "connect", counting("ledgers opened", sqlite3.connect)),
        mock.patch.object(tomllib, "loads", counting("TOML parsed", tomllib.loads)),
        mock.patch.object(reading, "_validate", counting("scenarios validated", reading._validate)),
        mock.patch.object(Scenario, "model_dump_json", counting("scenarios written", Scenario.model_dump_json)),
        mock.patch.object(training, "_built", counting("models built", training._built)),
        mock.patch.object(training, "_measured", counting("models measured", training._measured)),
        mock.patch.object(grid, "_delivered", counting("messages", grid._delivered)),
    ):
        yield found


def of_a_run(folder: Path, rounds: int, settings: list[str]) -> Counter[str]:
    """Return what a whole run took, in a process that has run one like it before."""
    folder.mkdir()
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    scenario = read_scenario(str(folder / "tiny.toml"), [*settings, f"rounds={rounds}"])
    run_dir = (folder / "run").resolve()
    with counted(run_dir) as found, held_folder(scenario, run_dir, "in-process", "cpu"):
        simulate(scenario, 15, "in-process", "cpu", run_dir, nullcontext())
    return found


def of_a_round(folder: Path, settings: list[str]) -> dict[str, int]:
    """Return what each round took: what a run of four has over one of two, halved."""
    folder.mkdir()
    two, four = (of_a_run(folder / str(rounds), rounds, settings) for rounds in (2, 4))
    assert all((four[name] - two[name]) % 2 == 0 for name in four), four - two
    return {name: (four[name] - two[name]) // 2 for name in four}


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], dict[str, int]]:
    folder = tmp_path_factory.mktemp("counts")
    return of_a_round(folder / "few", FEW), of_a_round(folder / "more", MORE)


def test_a_round_syncs_once_for_all_silos_and_no_file_of_theirs_by_itself(
    rounds: tuple[dict[str, int], dict[str, int]],
) -> None:
    for found in rounds:
        assert found["synced together"] == 1
        assert found.get("synced by itself, a silo's", 0) == 0


def test_a_round_opens_parses_and_builds_nothing_again(rounds: tuple[dict[str, int], dict[str, int]]) -> None:
    for found in rounds:
        for name in ("ledgers opened", "TOML parsed", "scenarios validated", "scenarios written", "models built"):
            assert found.get(name, 0) == 0, name


def test_a_round_measures_the_model_once_whatever_silos_there_are(
    rounds: tuple[dict[str, int], dict[str, int]],
) -> None:
    assert [found["models measured"] for found in rounds] == [1, 1]


def test_a_silo_gets_one_copy_of_one_message_in_a_round(rounds: tuple[dict[str, int], dict[str, int]]) -> None:
    assert [found["messages"] for found in rounds] == [3, 6]
