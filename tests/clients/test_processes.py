"""A silo that trains in several processes: its law says so, and one that is killed costs what any failure costs."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from flwr.app import Context

from clients import executor
from clients.silo import Silo
from fedmodel import wire
from fedmodel.config import Scenario, read_scenario, read_silo_file, silo_file_to_toml
from fedmodel.errors import ConfigError
from fedmodel.learning import ranks
from fedmodel.learning.jobs import _rank
from fedmodel.learning.models import build_model
from fedmodel.learning.vectors import flatten
from fedmodel.ledger import read_ledger, verify_ledger
from fedmodel.provision import provision
from scenarios.cli import main
from tests.fakes import FaultyGrid

LEDGER = Path("ledgers") / "north.sqlite"
NODE = 2  # of the silo "north"


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the silos of a simulation train in two processes, as a deployed silo's law can say."""
    from_context = Silo.from_context.__func__  # type: ignore[attr-defined]

    def in_two(cls: type[Silo], context: Context) -> Silo:
        return replace(from_context(cls, context), processes=2)

    monkeypatch.setattr(Silo, "from_context", classmethod(in_two))
    yield
    ranks.close()


def ask(grid: FaultyGrid, scenario: Scenario) -> bytes | str:
    """Ask for the first round; return the update's bytes, or the code of the refusal."""
    request = wire.TrainRequest(1, flatten(build_model(scenario.model, scenario.data.shape, seed=1)))
    (reply,) = grid.send_and_receive([grid.asked(wire.train_request(request), wire.TRAIN, NODE)])
    return wire.refusal_code(reply.error) if reply.has_error() else wire.read_train_reply(reply).update_P.tobytes()


def charges(folder: Path) -> int:
    return sum(len(run.charges) for run in verify_ledger(folder / LEDGER).standing.runs.values())


def test_a_process_that_is_killed_in_mid_step_releases_nothing_and_charges_nothing_more(
    several: None, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9, of a real process, in the middle of a step; then the same round again, by another process."""
    scenario = read_scenario(str(tiny_file), ["training.max_physical_batch=8", "privacy.sample_rate=1.0", "rounds=1"])
    grid = FaultyGrid(scenario, tmp_path)
    (joined,) = grid.send_and_receive([grid.asked(wire.join_request(), wire.JOIN, NODE)])
    assert not joined.has_error()
    outbox = tmp_path / "silos" / "north" / "outbox"
    before = outbox.read_bytes()
    read, write = os.pipe()
    summed, asked = _rank._Rank._summed, []

    def waits(self: _rank._Rank, *given: Any) -> Any:
        """Compute the batches of what is measured; in the first step of training, say who this is and wait."""
        if vars(self)["begun"] > 1:
            os.write(write, f"{os.getpid()}\n".encode())
            signal.pause()
        return summed(self, *given)

    begin = _rank._Rank._begin

    def begins(self: _rank._Rank, given: Any) -> None:
        vars(self)["begun"] = vars(self).get("begun", 0) + 1  # the first time to be measured, the second to train
        begin(self, given)

    def kills() -> None:
        if select.select([read], [], [], 120)[0]:
            asked.append(int(os.read(read, 40).split(b"\n")[0]))
            os.kill(asked[0], signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(_rank._Rank, "_summed", waits)
        patch.setattr(_rank._Rank, "_begin", begins)
        ranks.prepare(_rank.work)
    killing = threading.Thread(target=kills)
    killing.start()
    assert ask(grid, scenario) == "internal"
    killing.join()
    for one in (read, write):
        os.close(one)
    assert asked
    assert charges(tmp_path) == 1  # before the step, as ever
    assert outbox.read_bytes() == before
    (line,) = [one for one in (tmp_path / "logs" / "north.log").read_text().splitlines() if "that train for" in one]
    assert "train: FedmodelError: process 1 ended, of the 2 that train for this silo" in line
    assert not psutil.pid_exists(asked[0]) or psutil.Process(asked[0]).status() == psutil.STATUS_ZOMBIE

    # It released nothing, which the outbox shows: a person takes the charge back, and the round costs what it costs.
    (run,) = read_ledger(tmp_path / LEDGER).runs
    words = ["ledger", "void", str(tmp_path / LEDGER), run, "--round", "1", "--reason", "a process was killed"]
    monkeypatch.setattr("sys.argv", ["fedmodel", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert not ended.value.code
    ranks.prepare(_rank.work)
    assert isinstance(ask(grid, scenario), bytes)
    assert charges(tmp_path) == 1


def test_a_kit_whose_law_says_several_is_prepared_for_them(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision(tiny, tmp_path)
    kit, prepared = tmp_path / "silos" / "north", []
    monkeypatch.setattr(ranks, "prepare", prepared.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    executor.prepare_processes(kit)
    assert prepared == []
    assert "OMP_NUM_THREADS" not in os.environ
    law = read_silo_file(kit / "silo.toml")
    assert law.processes == 1
    assert "processes" not in silo_file_to_toml(law)
    text = silo_file_to_toml(law.model_copy(update={"processes": 64}))
    (kit / "silo.toml").write_text(text, encoding="utf-8")
    assert read_silo_file(kit / "silo.toml").processes == 64
    executor.prepare_processes(kit)
    assert prepared == [_rank.work]
    assert os.environ["OMP_NUM_THREADS"] == "1"  # of so many, each has no more than a core
    (kit / "silo.toml").unlink()
    executor.prepare_processes(kit)  # a message that asks for the law is refused, by a code
    assert prepared == [_rank.work]


@pytest.mark.parametrize("said", ["0", "65", "1.5", '"auto"', "true"])
def test_no_other_number_of_processes_is_read(said: str, tiny: Scenario, tmp_path: Path) -> None:
    provision(tiny, tmp_path)
    path = tmp_path / "silos" / "north" / "silo.toml"
    path.write_text(f"processes = {said}\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ConfigError, match="processes") as refused:
        read_silo_file(path)
    assert "\n" not in str(refused.value)
