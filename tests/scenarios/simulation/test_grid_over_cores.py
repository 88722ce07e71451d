"""Nodes over a processor's cores: the same run to the last bit, on disk before it is told, and no process left."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedmodel.errors import FedmodelError
from fedmodel.ledger import verify_ledger
from fedmodel.system import durable
from scenarios.simulation import forks, grid_over_cores
from scenarios.simulation.grid import InProcessGrid
from scenarios.simulation.grid_over_cores import GridOverCores
from scenarios.simulation.prepared import prepare
from server.run_files import SERVING
from tests.conftest import TINY
from tests.scenarios.simulation.test_over_cores import children

SIX = ["federation.silos=6", "data.partition.min_records=10", "rounds=2", "model.hidden=[3]"]
SEEDED = [*SIX, "privacy.noise=seeded-unsafe"]
MASKED = ["encryption.secure_aggregation=on", "encryption.bound=4.0"]
CARRIED = ["training.keep_optimizer_state=true", "training.optimizer=adam", "training.learning_rate=0.05"]
ANSWER = InProcessGrid._answer

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forks, of Linux alone")


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have two cores, and silos enough for both."""
    monkeypatch.setattr(forks, "cores", lambda: 2)
    monkeypatch.setattr(grid_over_cores, "LEAST", 3)


def run(folder: Path, settings: Sequence[str] = SIX) -> dict[str, Any]:
    """Run a scenario by the engine, and return its summary."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    prepared = prepare(folder / "tiny.toml", settings, "in-process", "cpu", folder / "r")
    with prepared.held() as run_dir:
        return prepared.run(run_dir, nullcontext())


@pytest.mark.parametrize(
    "settings",
    [
        [*SEEDED, *CARRIED, "faults.train=0.4", "federation.tolerated_failures=9", "federation.min_silos=1"],
        [*SEEDED, *MASKED, "federation.cohort=5", "federation.min_silos=3"],
    ],
    ids=["carried and lost", "masked"],
)
def test_a_run_over_the_cores_is_that_of_one_process_to_the_last_bit(
    settings: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    end = GridOverCores.end
    monkeypatch.setattr(GridOverCores, "end", lambda grid: (seen.append(len(children())), end(grid)))
    over = run(tmp_path / "over", settings)
    assert (seen, children()) == ([2], [])
    monkeypatch.setattr(grid_over_cores, "LEAST", 4)
    alone = run(tmp_path / "alone", settings)
    assert seen == [2]
    for name in ("privacy", "metrics", "dropouts", "rounds_completed", "rounds_failed", "encryption"):
        assert over[name] == alone[name], name
    models = [(tmp_path / name / "r" / "model.safetensors").read_bytes() for name in ("over", "alone")]
    assert models[0] == models[1]


def test_ledgers_are_closed_and_whole_when_the_run_has_ended(tmp_path: Path) -> None:
    run(tmp_path)
    ledgers = sorted((tmp_path / "r" / "ledgers").iterdir())
    assert len({path.stem for path in ledgers}) == len(ledgers) == 6  # and no log beside any
    for path in ledgers:
        verify_ledger(path)


def useless(grid: InProcessGrid, message: Message) -> Message:
    """Fail at every silo in the second round."""
    if message.metadata.group_id == "2":
        raise RuntimeError
    return ANSWER(grid, message)


def killed(grid: InProcessGrid, message: Message) -> Message:
    """End this process in the second round, in the middle of it, as the system does."""
    if message.metadata.group_id == "2" and message.metadata.dst_node_id == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return ANSWER(grid, message)


def interrupted(grid: InProcessGrid, message: Message) -> Message:
    """Press Ctrl-C in the second round, as a person does until it is heard, and answer never."""
    while message.metadata.group_id == "2":
        if message.metadata.dst_node_id % 2:
            os.kill(os.getppid(), signal.SIGINT)
        time.sleep(0.2)
    return ANSWER(grid, message)


@pytest.mark.usefixtures("hears")
@pytest.mark.parametrize(
    ("story", "raised"),
    [(useless, RuntimeError), (killed, FedmodelError), (interrupted, KeyboardInterrupt)],
    ids=["an error", "a killed process", "Ctrl-C"],
)
def test_however_a_run_ends_no_process_of_it_is_left_and_the_same_call_goes_on(
    story: Callable[[InProcessGrid, Message], Message],
    raised: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(InProcessGrid, "_answer", story)
        with pytest.raises(raised):
            run(tmp_path)
    assert children() == []
    with durable.held(tmp_path / "r" / SERVING, "it is held"):
        pass
    summary = run(tmp_path)
    assert (summary["rounds_completed"], summary["rounds_failed"], children()) == (2, 0, [])
    for path in (tmp_path / "r" / "ledgers").iterdir():
        verify_ledger(path)


app = ClientApp()


@app.train()
def who(message: Message, context: Context) -> Message:
    """Write a file, and say whose process this is and how often it was asked here."""
    count = context.state.setdefault("count", ConfigRecord({"asked": 0}))
    count["asked"] += 1
    durable.replace_file(Path(str(context.run_config["folder"])) / str(context.node_id), b"asked")
    told = {"process": os.getpid(), "node": context.node_id, "asked": count["asked"]}
    return Message(RecordDict({"told": ConfigRecord(told)}), reply_to=message)


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[GridOverCores]:
    made = GridOverCores(app, 5, {"folder": str(tmp_path)}, 2)
    yield made
    made.end()
    assert children() == []


def asked(grid: GridOverCores) -> list[Message]:
    """Return what is sent to every node."""
    return [grid.create_message(RecordDict(), "train", node, "1") for node in grid.get_node_ids()]


def test_a_node_is_the_same_process_in_every_exchange_and_has_a_state_of_its_own(grid: GridOverCores) -> None:
    answers = []
    for times in (1, 2):
        ids = list(grid.push_messages(asked(grid)))
        replies = list(grid.pull_messages(ids))
        assert [one.metadata.reply_to_message_id for one in replies] == ids
        told = [dict(one.content["told"]) for one in replies]
        assert [(one["node"], one.pop("asked")) for one in told] == [(node, times) for node in grid.get_node_ids()]
        answers.append(told)
        assert list(grid.pull_messages(ids)) == []
    assert answers[0] == answers[1]
    assert {one["process"] for one in answers[0]} == set(children())


def test_what_nodes_wrote_is_on_disk_before_a_reply_can_be_pulled_by_one_sync_of_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(written: dict[Path, None]) -> None:
        with (tmp_path / "synced").open("a", encoding="utf-8") as file:
            file.write("".join(f"{os.getpid()} {path.name}\n" for path in written if path.is_file()))

    monkeypatch.setattr(durable, "_sync_all", sync)
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("a file was synced by itself"))
    grid = GridOverCores(app, 5, {"folder": str(tmp_path)}, 2)
    try:
        grid.push_messages(asked(grid))
        lines = [line.split() for line in (tmp_path / "synced").read_text(encoding="utf-8").splitlines()]
        assert sorted(int(name) for _, name in lines) == list(grid.get_node_ids())
        assert len({process for process, _ in lines}) == 2
    finally:
        grid.end()


def test_a_disk_that_fails_at_the_sync_fails_the_exchange_and_no_reply_can_be_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(written: dict[Path, None]) -> None:
        if tmp_path / "3" in written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "3"))

    monkeypatch.setattr(durable, "_sync_all", full)
    grid = GridOverCores(app, 5, {"folder": str(tmp_path)}, 2)
    try:
        messages = asked(grid)
        with pytest.raises(OSError, match="No space left on device") as failed:
            grid.push_messages(messages)
        assert failed.value.filename == str(tmp_path / "3")
        assert list(grid.pull_messages([str(number) for number in range(10)])) == []
    finally:
        grid.end()
