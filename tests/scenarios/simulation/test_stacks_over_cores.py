"""Stacks over a processor's cores: one process's updates to the last bit, and none before its model was measured."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import DataError, FedmodelError, PrivacyError
from fedmodel.learning import stacked, vectors
from fedmodel.learning.models import build_model
from fedmodel.secagg import FRESH
from scenarios.simulation import stacked_trainer, stacks, stacks_over_cores
from scenarios.simulation.over_cores import OverCores
from scenarios.simulation.stacked_trainer import Stacked
from scenarios.simulation.stacks_over_cores import StacksOverCores, trainer_of
from scenarios.simulation.trainers import Trained

CPU = torch.device("cpu")
SEVEN = ["federation.silos=7", "data.records=300", "data.partition.min_records=10", "privacy.noise=seeded-unsafe",
         "model.hidden=[3]"]  # fmt: skip
TWO_GROUPS = ["privacy.silo.silo-0002={noise_multiplier=3.0}", "privacy.silo.silo-0005={noise_multiplier=3.0}"]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forks, of Linux alone")


@pytest.fixture
def scenario(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """Silos that train two by two, or fewer."""
    monkeypatch.setattr(stacks, "_CACHED", {"cpu": 40})
    return read_scenario(str(tiny_file), SEVEN)


@pytest.fixture
def grouped(scenario: Scenario, tiny_file: Path) -> Scenario:
    """The same of two groups: of one the noise is another."""
    return read_scenario(str(tiny_file), [*SEVEN, *TWO_GROUPS])


def of(scenario: Scenario) -> StacksOverCores:
    return StacksOverCores(scenario, Stacked(scenario, CPU, threads=1), 2)


@pytest.fixture
def over(scenario: Scenario) -> Iterator[StacksOverCores]:
    with closing(of(scenario)) as made:
        yield made


@pytest.fixture
def begun(scenario: Scenario) -> NDArray[np.float32]:
    return vectors.flatten(build_model(scenario.model, scenario.data.shape, 7))


def told(trained: Trained) -> dict[str, bytes]:
    return {silo: update.tobytes() for silo, update in trained.updates.items()}


def test_updates_are_those_of_one_process_to_the_last_bit(grouped: Scenario, begun: NDArray[np.float32]) -> None:
    silos = grouped.federation.silos
    with closing(of(grouped)) as over, closing(Stacked(grouped, CPU)) as alone:
        assert len(alone.stacks.of(silos)) == 4
        for number, cohort in enumerate((silos, silos[2:6], silos[:1]), start=1):
            found = [told(one.round(number, cohort, begun + np.float32(number), FRESH)) for one in (over, alone)]
            assert found[0] == found[1]
            assert found[0].keys() == set(cohort)


def test_the_model_is_measured_here_while_others_train_and_nothing_leaves_where_it_is_refused(
    over: StacksOverCores, scenario: Scenario, begun: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes were forked before, so that the bound is broken for what measures alone."""
    real, order = stacked.clip_factors, []
    for kind, name in ((OverCores, "ask"), (Stacked, "hold"), (OverCores, "answers")):
        monkeypatch.setattr(kind, name, noting(order, name, getattr(kind, name)))
    assert over.round(1, scenario.federation.silos, begun, FRESH).failed == {}
    assert order == ["ask", "hold", "answers"]
    monkeypatch.setattr(stacked, "clip_factors", lambda layers, clip, counts: 3 * real(layers, clip, counts))
    trained = over.round(2, scenario.federation.silos, begun + np.float32(1e-3), FRESH)
    assert trained.updates == {}
    assert trained.failed == dict.fromkeys(scenario.federation.silos, PrivacyError.code)


def noting(order: list[str], name: str, real: Any) -> Any:
    def call(*arguments: Any) -> Any:
        order.append(name)
        return real(*arguments)

    return call


def test_where_the_model_asks_for_fewer_rows_all_train_again_with_those(
    over: StacksOverCores, scenario: Scenario, begun: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    silos, real = scenario.federation.silos, stacked_trainer.check_received
    began = over._over._forks._processes[0].pid
    before, rows = told(over.round(1, silos, begun, FRESH)), over._stacked.rows
    assert over._over._forks._processes[0].pid == began

    def fewer(gradients: Any, *rest: Any) -> int:
        gradients.rows = 3
        return real(gradients, *rest)

    monkeypatch.setattr(stacked_trainer, "check_received", fewer)
    other_P = begun + np.float32(1e-3)
    found = over.round(2, silos, other_P, FRESH)
    assert min(rows.values()) > 3
    assert set(over._stacked.rows.values()) == {3}
    assert over._over._forks._processes[0].pid != began  # forked anew, and what they hold to is what was measured
    with closing(Stacked(scenario, CPU)) as alone:
        assert told(alone.round(2, silos, other_P, FRESH)) == told(found) != before
    again = over._over._forks._processes[0].pid
    over.round(3, silos, begun, FRESH)
    assert over._over._forks._processes[0].pid == again


def test_where_a_stack_fails_in_one_process_none_of_its_group_has_an_update(
    grouped: Scenario, begun: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Stacked._stack

    def stack(self: Stacked, *given: Any) -> Any:
        if "silo-0000" in given[-1]:
            raise DataError("it has a record that is no number")
        return real(self, *given)

    monkeypatch.setattr(Stacked, "_stack", stack)
    group = {f"silo-{number:04d}" for number in (0, 1, 3, 4, 6)}
    for made in (of(grouped), Stacked(grouped, CPU)):
        with closing(made):
            trained = made.round(1, grouped.federation.silos, begun, FRESH)
        assert trained.failed == dict.fromkeys(group, DataError.code)
        assert trained.updates.keys() == {"silo-0002", "silo-0005"}


def test_a_process_that_is_gone_fails_the_run_and_none_is_left(
    over: StacksOverCores, scenario: Scenario, begun: NDArray[np.float32]
) -> None:
    over._over._forks._processes[1].kill()
    over._over._forks._processes[1].join()
    with pytest.raises(FedmodelError, match=r"^a process that trained silos ended, .*; the run goes on from its last"):
        over.round(2, scenario.federation.silos, begun, FRESH)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("settings", "cores", "kind"),
    [([], 2, StacksOverCores), ([], 1, Stacked), (["training.keep_optimizer_state=true"], 2, Stacked)],
    ids=["over the cores", "one core", "state is kept"],
)
def test_stacks_go_over_the_cores_where_there_are_some_and_no_state_is_kept(
    settings: list[str], cores: int, kind: type, scenario: Scenario, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks_over_cores, "cores", lambda: cores)
    with closing(trainer_of(read_scenario(str(tiny_file), [*SEVEN, *settings]), CPU)) as made:
        assert type(made) is kind
    monkeypatch.setattr(stacks, "_CACHED", {"cpu": 1 << 19})
    if not settings:
        with closing(trainer_of(scenario, CPU)) as one_stack:
            assert type(one_stack) is Stacked
