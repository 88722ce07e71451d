"""Silos over a processor's cores: the same updates to the last bit, and no process that outlives its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import DataError, FedmodelError
from fedmodel.learning.models import parameters_of
from fedmodel.secagg import FRESH
from scenarios.simulation import over_cores
from scenarios.simulation.over_cores import OverCores, one_by_one
from scenarios.simulation.trainers import OneByOne
from tests.conftest import TINY

CPU = torch.device("cpu")
MANY = ["federation.silos=9", "data.records=400", "data.partition.min_records=10", "privacy.noise=seeded-unsafe",
        "training.optimizer=adam", "training.learning_rate=0.05", "training.keep_optimizer_state=true",
        'model={kind="mlp",hidden=[3],dropout=0.5}']  # fmt: skip

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forks, of Linux alone")


@pytest.fixture
def scenario(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), MANY)


@pytest.fixture
def both(scenario: Scenario) -> Iterator[tuple[OverCores, OneByOne]]:
    over = OverCores(scenario, CPU, 2)
    yield over, OneByOne(scenario, CPU)
    for process in over._processes:
        process.kill()


def rounds(trainer: Any, scenario: Scenario, cohorts: Sequence[Sequence[str]]) -> list[dict[str, bytes]]:
    """Return the updates of some rounds, each from another model."""
    model_P = np.zeros(parameters_of(scenario.model, scenario.data.shape), dtype=np.float32)
    found = []
    for number, cohort in enumerate(cohorts, start=1):
        trained = trainer.round(number, cohort, model_P + np.float32(number), FRESH if number == 1 else bytes(32))
        assert list(trained.updates) == list(cohort)
        found.append({silo: update.tobytes() for silo, update in trained.updates.items()})
    return found


def test_updates_are_those_of_one_process_to_the_last_bit_and_state_stays_with_its_silo(
    both: tuple[OverCores, OneByOne], scenario: Scenario
) -> None:
    silos = scenario.federation.silos
    cohorts = [silos, silos[3:8], tuple(reversed(silos))]
    over, alone = (rounds(trainer, scenario, cohorts) for trainer in both)
    assert over == alone
    assert len({update for found in over for update in found.values()}) == sum(map(len, cohorts))


def test_a_silo_whose_training_fails_costs_its_own_part_in_whichever_process(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OneByOne._update

    def update(self: OneByOne, silo: str, *rest: Any) -> Any:
        if silo in ("silo-0002", "silo-0005"):
            raise DataError("it has a record that is no number")
        return real(self, silo, *rest)

    monkeypatch.setattr(OneByOne, "_update", update)
    over = OverCores(scenario, CPU, 2)
    model_P = np.zeros(parameters_of(scenario.model, scenario.data.shape), dtype=np.float32)
    found = over.round(1, scenario.federation.silos, model_P, FRESH)
    assert found.failed == dict.fromkeys(("silo-0002", "silo-0005"), DataError.code)
    assert len(found.updates) == 7
    for process in over._processes:
        process.kill()


def test_a_process_that_is_gone_fails_the_run_in_a_sentence(both: tuple[OverCores, OneByOne]) -> None:
    over, _ = both
    over._processes[1].kill()
    over._processes[1].join()
    with pytest.raises(FedmodelError, match=r"a process that trained silos ended.*goes on from its last whole round"):
        over.round(1, ["silo-0000", "silo-0001"], np.zeros(23, dtype=np.float32), FRESH)


def test_no_process_outlives_a_run_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    told = f"""
import sys, time, torch
from fedmodel.config import read_scenario
from scenarios.simulation.over_cores import OverCores
from scenarios.simulation.trainers import OneByOne
OneByOne.round = lambda *_: time.sleep(600)  # in the middle of a silo's training
over = OverCores(read_scenario({str(tmp_path / "tiny.toml")!r}, {MANY!r}), torch.device("cpu"), 2)
for end in over._ends:
    end.send((1, ["silo-0000"], None, b""))
print(*(one.pid for one in over._processes), flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", told], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pids = [int(pid) for pid in run.stdout.readline().split()]
        assert len(pids) == 2
        run.send_signal(signal.SIGKILL)
        run.wait()
    left, deadline = pids, time.monotonic() + 60  # of which a kill takes some milliseconds
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if runs(pid)]
        time.sleep(0.01)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def runs(pid: int) -> bool:
    """Return whether a process is there, and does anything."""
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False


@pytest.mark.parametrize(
    ("settings", "kind"),
    [([], OverCores), (["federation.silos=7"], OneByOne), (["training.threads=2"], OneByOne)],
)
def test_cores_are_used_where_that_pays_and_threads_of_a_silo_are_not_forked(
    settings: list[str], kind: type, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_cores, "cores", lambda: 2)
    monkeypatch.setattr(over_cores, "threads_of", lambda said: 1 if said == "auto" else said)
    made = one_by_one(read_scenario(str(tiny_file), [*MANY, *settings]), CPU)
    assert type(made) is kind
    for process in getattr(made, "_processes", ()):
        process.kill()
        process.join()
