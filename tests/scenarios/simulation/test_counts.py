"""What a round of a simulation in one process costs, counted: nothing is opened, parsed or made again for equal inputs.

A count hangs on no clock and on no other process, so that one more of anything is red.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import sqlite3
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest
from flwr.app import Message

from fedmodel.config import Scenario, read_scenario, reading
from fedmodel.learning import vectors
from fedmodel.learning.jobs import _pipelines
from fedmodel.learning.stacked import Stack
from fedmodel.privacy.events import Event
from fedmodel.privacy.mechanisms import event_from_json
from fedmodel.system import durable
from scenarios.runs import progress
from scenarios.runs.progress import line_in_words
from scenarios.simulation import grid
from scenarios.simulation.resuming import held_folder
from scenarios.simulation.simulate import simulate
from server import journal, metrics
from server.round_loop import RoundLoop
from tests.conftest import TINY

# Seeded, since a figure that is undefined of one model and not of another has a name in a line, or none.
FEW = ["federation.silos=3", "data.partition.min_records=5", "privacy.noise=seeded-unsafe"]
MORE = ["federation.silos=6", *FEW[1:]]


_FIGURES: Final = re.compile(r'(?<![\w"])-?\d+(\.\d+)?(e[+-]?\d+)?(?![\w"])|(?<=")\d{15,}(?=")')


def without_figures(text: str) -> int:
    """Return how long a text of JSON is but for its numbers and the run's, which are of other lengths by chance."""
    return len(_FIGURES.sub("0", text))


def carried(message: Message) -> int:
    """Return the bytes of all that a message holds: vectors, and what is in JSON or sealed beside them."""
    records = message.content.values() if message.has_content() else ()
    values = [value for record in records for value in record.values()]
    blobs = [getattr(value, "data", value) for value in values]
    return sum(len(blob) for blob in blobs if isinstance(blob, bytes | str))


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

    def cost(self: RoundLoop, silo: str, charge: Event) -> float | None:
        before = self._costs.get(silo)
        told = asked(self, silo, charge)
        found["costs asked for"] += 1
        found["costs computed"] += self._costs[silo] is not before
        return told

    def sized(name: str, real: Callable[..., Any], size: Callable[[Any], int]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            made = real(*arguments, **named)
            found[name] += size(made)
            return made

        return call

    def answered(self: grid.InProcessGrid, message: Message) -> Message:
        reply = answer(self, message)
        found["bytes asked"] += carried(message)
        found["bytes answered"] += carried(reply)
        return reply

    fsync, asked, answer = os.fsync, RoundLoop._cost, grid.InProcessGrid._answer
    with (
        mock.patch("os.fsync", synced),
        mock.patch.object(durable, "_sync_all", counting("synced together", durable._sync_all)),
        mock.patch.object(sqlite3, "connect", counting("ledgers opened", sqlite3.connect)),
        mock.patch.object(tomllib, "loads", counting("TOML parsed", tomllib.loads)),
        mock.patch.object(reading, "_validate", counting("scenarios validated", reading._validate)),
        mock.patch.multiple(
            Scenario,
            model_dump_json=counting("scenarios written", Scenario.model_dump_json),
            _plan=counting("plans made", Scenario._plan),
        ),
        mock.patch.object(_pipelines, "_built", counting("models built", _pipelines._built)),
        mock.patch.object(_pipelines, "_measured", counting("models measured", _pipelines._measured)),
        mock.patch.object(grid, "delivered", counting("messages", grid.delivered)),
        mock.patch.object(json, "loads", counting("JSON parsed", json.loads)),
        mock.patch.object(vectors, "load", counting("models loaded", vectors.load)),
        mock.patch.object(vectors, "flatten", counting("models copied", vectors.flatten)),
        mock.patch.object(Stack, "load", counting("stacks loaded", Stack.load)),
        mock.patch.object(journal, "event_to_json", counting("events written", journal.event_to_json)),
        mock.patch.object(RoundLoop, "_cost", cost),
        mock.patch.object(grid.InProcessGrid, "_answer", answered),
        mock.patch.object(json, "dumps", sized("bytes of JSON", json.dumps, without_figures)),
        mock.patch.object(pickle, "dumps", sized("bytes pickled", pickle.dumps, len)),
        mock.patch.object(ForkingPickler, "dumps", sized("bytes pickled", ForkingPickler.dumps, len)),
    ):
        yield found


def of_a_run(folder: Path, rounds: int, settings: list[str], engine: str = "in-process") -> Counter[str]:
    """Return what a whole run took, in a process that has run one like it before, and read none of its texts."""
    event_from_json.cache_clear()  # of which other tests may have read those of one length of run
    reading.scenario_from_json.cache_clear()
    folder.mkdir()
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    scenario = read_scenario(str(folder / "tiny.toml"), [*settings, f"rounds={rounds}"])
    run_dir = (folder / "run").resolve()
    with counted(run_dir) as found, held_folder(scenario, run_dir, engine, "cpu"):
        simulate(scenario, 15, engine, "cpu", run_dir, nullcontext())
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    found["files"] += len(files)
    found["bytes"] += sum(path.stat().st_size for path in files if path.suffix == ".jsonl")
    return found


def of_a_round(folder: Path, settings: list[str], engine: str = "in-process") -> dict[str, int]:
    """Return what each round took: what a run of four has over one of two, halved."""
    folder.mkdir()
    of_a_run(folder / "before", 3, settings, engine)  # what a process does once, of another scenario
    two, four = (of_a_run(folder / str(rounds), rounds, settings, engine) for rounds in (2, 4))
    for each in (two, four):
        del each["bytes"]  # of figures, which are of other lengths by chance
    assert all((four[name] - two[name]) % 2 == 0 for name in four), four - two
    return {name: (four[name] - two[name]) // 2 for name in four}


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], dict[str, int]]:
    folder = tmp_path_factory.mktemp("counts")
    return of_a_round(folder / "few", FEW), of_a_round(folder / "more", MORE)


def test_a_round_syncs_once_for_all_silos_once_for_their_heads_and_no_file_of_theirs_by_itself(
    rounds: tuple[dict[str, int], dict[str, int]],
) -> None:
    for found in rounds:
        assert found["synced together"] == 2
        assert found.get("synced by itself, a silo's", 0) == 0


def test_a_round_opens_parses_and_builds_nothing_again(rounds: tuple[dict[str, int], dict[str, int]]) -> None:
    for found in rounds:
        for name in ("ledgers opened", "TOML parsed", "scenarios validated", "scenarios written", "plans made"):
            assert found.get(name, 0) == 0, name
        assert found.get("models built", 0) == 0


def test_a_round_measures_the_model_once_whatever_silos_there_are(
    rounds: tuple[dict[str, int], dict[str, int]],
) -> None:
    assert [found["models measured"] for found in rounds] == [1, 1]


def test_a_silo_gets_one_copy_of_one_message_in_a_round(rounds: tuple[dict[str, int], dict[str, int]]) -> None:
    assert [found["messages"] for found in rounds] == [3, 6]


@pytest.fixture(scope="module")
def booked(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], dict[str, int]]:
    folder = tmp_path_factory.mktemp("booked")
    return of_a_round(folder / "few", FEW, "vectorised"), of_a_round(folder / "more", MORE, "vectorised")


def test_a_silo_costs_a_round_so_many_parses_copies_and_syncs_and_no_file(
    rounds: tuple[dict[str, int], dict[str, int]],
) -> None:
    few, more = rounds
    each = {"JSON parsed": 3, "a server's": 0, "models loaded": 1, "models copied": 1, "events written": 1}
    assert {name: (more[name] - few[name]) / 3 for name in each} == each
    assert few["files"] == more["files"] == 0


def test_a_silo_costs_a_round_so_many_bytes_in_messages_and_no_pickle(
    rounds: tuple[dict[str, int], dict[str, int]],
) -> None:
    """Of a model of 15 parameters, which is in a silo's messages once each way: a second time is 60 bytes more."""
    few, more = rounds
    assert 300 < (more["bytes asked"] - few["bytes asked"]) / 3 < 360
    assert 540 < (more["bytes answered"] - few["bytes answered"]) / 3 < 600
    assert 4_500 < (more["bytes of JSON"] - few["bytes of JSON"]) / 3 < 5_600
    assert few.get("bytes pickled", 0) == more.get("bytes pickled", 0) == 0


def test_a_silo_side_by_side_costs_a_round_a_hundred_bytes_and_no_message(
    booked: tuple[dict[str, int], dict[str, int]],
) -> None:
    few, more = booked
    assert 80 < (more["bytes of JSON"] - few["bytes of JSON"]) / 3 < 110
    assert few["bytes of JSON"] < 1_600
    for found in booked:
        assert [found.get(name, 0) for name in ("bytes asked", "bytes answered", "bytes pickled")] == [0, 0, 0]


def test_a_round_of_silos_side_by_side_costs_what_one_of_fewer_does(
    booked: tuple[dict[str, int], dict[str, int]],
) -> None:
    few, more = booked
    grows = {"costs asked for": 0, "bytes of JSON": 0}
    assert {**few, **grows} == {**more, **grows}
    told = {"JSON parsed": 2, "a server's": 8, "stacks loaded": 1, "events written": 1, "models copied": 0, "files": 0}
    assert {name: few[name] for name in told} == told


def test_what_a_silo_costs_is_computed_once_a_run(
    rounds: tuple[dict[str, int], dict[str, int]], booked: tuple[dict[str, int], dict[str, int]]
) -> None:
    for found in (*rounds, *booked):
        assert found.get("costs computed", 0) == 0
        assert found["costs asked for"] in (3, 6)


def test_a_line_of_many_silos_says_equal_epsilons_once() -> None:
    bounds: dict[str, float | None] = dict.fromkeys((f"silo-{number:04d}" for number in range(1000)), 2.0)
    bounds["silo-0007"] = None
    told = metrics.told_together(bounds)
    assert len(json.dumps(told)) < 40
    line = {"epsilon": told, "noise": "os", "loss": 0.5, "summed": 1000, "seconds": 0.5}
    assert sorted(map(str, metrics.epsilons_of(line))) == ["2.0", "None"]
    assert "2,000 silos/s" in line_in_words(line)
    assert metrics.epsilons_of({"epsilon": metrics.told_together({"a": 1.0, "b": 1.0})}) == [1.0, 1.0]


def test_a_bar_reads_nothing_again_while_nothing_was_written(tmp_path: Path) -> None:
    """What follows a run looks several times a second, and a line may name thousands of silos."""
    log, newest = metrics.MetricsLog(tmp_path / "metrics.jsonl"), progress.Newest(tmp_path / "metrics.jsonl")
    assert newest.look() is None
    line = {"epsilon": {"a": 1.0}, "noise": "os", "loss": 0.5, "seconds": 0.1}
    for number in (1, 2):
        log.append({"round": number, **line})
    with mock.patch.object(json, "loads", side_effect=json.loads) as parsed:
        assert newest.look() == (2, {"round": 2, **line})
        assert [newest.look() for _ in range(5)] == [None] * 5
        assert parsed.call_count == 1
        log.append({"round": 3, **line})
        assert newest.look() == (3, {"round": 3, **line})
        assert newest.look(again=True) == (3, {"round": 3, **line})
        assert parsed.call_count == 3
