"""What updates come to is told under every strategy of means: by the mean that is opened, and the steps taken again.

The mean under test is made of the updates that a simulated run of `test_gauges` saw. Shapes: R releases, W coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmodel.audit.gauges import failed
from fedmodel.audit.sum_gauges import Apply
from fedmodel.canaries.observations import Observations
from fedmodel.config import Scenario
from fedmodel.errors import DataError
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from server.strategies import strategy_of
from tests.fedmodel.audit.test_gauges import Run, measure, names, weights

Means = dict[int, NDArray[np.float32]]
ON_BOARD = ("fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad")


def strategy(tiny: Scenario, name: str) -> Apply:
    federation = tiny.federation.model_copy(update={"strategy": name})
    return strategy_of(tiny.model_copy(update={"federation": federation})).apply


def means(seen: list[Observations], lost: str = "") -> Means:
    """Return what each round comes to by the silos' weights, one silo perhaps counted and left out."""
    shares = weights(len(seen))
    total = sum(shares.values())
    parts = [shares[of.silo] / total * of.update_RK.astype(np.float64) for of in seen if of.silo != lost]
    return dict(enumerate(np.sum(parts, axis=0).astype(np.float32), start=1))


def moved(seen: list[Observations], opened: Means, apply: Apply, keeps: bool = True) -> list[Observations]:
    """Return what would have been seen had a strategy moved the model by these means, state and all."""
    model_W, state = np.zeros(seen[0].update_RK.shape[1], np.float32), b""
    models = []
    for number in seen[0].round_R:
        models.append(model_W)
        if number in opened:
            model_W, state = apply(model_W, opened[number], state if keeps else b"")
    return [replace(of, model_RK=np.stack(models)) for of in seen]


@pytest.fixture(scope="module")
def run() -> tuple[list[Observations], dict[str, DpSgdEvent]]:
    return Run(lost=()).simulate()


Simulated = tuple[list[Observations], dict[str, DpSgdEvent]]


@pytest.mark.parametrize("name", ON_BOARD)
def test_a_correct_run_passes_under_each_strategy_of_means(run: Simulated, name: str, tiny: Scenario) -> None:
    (seen, events), apply = run, strategy(tiny, name)
    opened = means(seen)
    told = moved(seen, opened, apply)
    found = measure(told, events, opened=opened, apply=apply)
    assert failed(found) == []
    assert {"noise_shares", "model_moves"} <= names(found)
    if name != "fedavg":  # by the model alone, that would have been a false alarm
        assert names(failed(measure(told, events))) == {"noise_shares"}


@pytest.mark.parametrize("name", ON_BOARD)
def test_an_update_that_is_left_out_of_a_mean_is_found_under_each(run: Simulated, name: str, tiny: Scenario) -> None:
    (seen, events), apply = run, strategy(tiny, name)
    opened = means(seen, lost="silo-0")
    found = measure(moved(seen, opened, apply), events, opened=opened, apply=apply)
    assert names(failed(found)) == {"noise_shares"}


def test_a_fault_of_the_last_round_is_found_of_which_no_model_is_known(run: Simulated) -> None:
    seen, events = run
    opened = means(seen)
    last = max(opened)
    found = measure(seen, events, opened={last: opened[last]})
    assert "noise_shares" not in names(failed(found))
    found = measure(seen, events, opened={last: means(seen, lost="silo-1")[last]})
    assert "noise_shares" in names(failed(found))


def nothing(mean_W: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.zeros_like(mean_W)


def more(mean_W: NDArray[np.float32]) -> NDArray[np.float32]:
    return mean_W + np.float32(1e-2) * np.abs(mean_W).max() * np.arange(len(mean_W)).astype(np.float32) % 3


@pytest.mark.parametrize("change", [nothing, more])
def test_a_mean_that_is_none_of_the_updates_is_found(
    run: Simulated, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> None:
    seen, events = run
    opened = means(seen)
    opened[2] = change(opened[2])
    found = measure(moved(seen, opened, _added), events, opened=opened)
    assert names(failed(found)) == {"noise_shares"}


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_a_model_that_another_step_moved_is_found(run: Simulated, name: str, tiny: Scenario) -> None:
    (seen, events), apply = run, strategy(tiny, name)
    opened = means(seen)
    found = measure(moved(seen, opened, apply, keeps=False), events, opened=opened, apply=apply)
    assert names(failed(found)) == {"model_moves"}


def test_something_that_is_added_to_the_model_beside_the_mean_is_found(run: Simulated) -> None:
    seen, events = run
    opened = means(seen)
    told = moved(seen, opened, _added)
    model_RK = told[0].model_RK.copy()
    model_RK[2:, 7] += np.float32(1e-4) * np.abs(model_RK).max()
    found = measure([replace(of, model_RK=model_RK) for of in told], events, opened=opened)
    assert names(failed(found)) == {"model_moves"}


def test_a_round_that_failed_closed_leaves_model_and_state_as_they_were(run: Simulated, tiny: Scenario) -> None:
    (seen, events), apply = run, strategy(tiny, "fedadam")
    opened = means(seen)
    del opened[2]
    assert failed(measure(moved(seen, opened, apply), events, opened=opened, apply=apply)) == []


def test_a_model_that_no_silo_was_sent_is_taken_as_it_had_to_be(run: Simulated, tiny: Scenario) -> None:
    (seen, events), apply = run, strategy(tiny, "fedadam")
    opened = means(seen)
    told = [
        replace(
            of,
            **{name: np.delete(getattr(of, name), 1, axis=0) for name in ("round_R", "update_RK", "model_RK")},
            started_R=of.started_R[:1] + of.started_R[2:],
            unexplained_R=of.unexplained_R[1:],
            off_grid_R=of.off_grid_R[1:],
        )
        for of in moved(seen, opened, apply)
    ]
    assert "model_moves" not in names(failed(measure(told, events, opened=opened, apply=apply)))


def test_means_of_other_coordinates_are_refused(run: Simulated) -> None:
    seen, events = run
    opened = {number: mean_W[1:] for number, mean_W in means(seen).items()}
    with pytest.raises(DataError, match="does not fit"):
        measure(seen, events, opened=opened)


def _added(
    model_W: NDArray[np.float32], mean_W: NDArray[np.float32], state: bytes
) -> tuple[NDArray[np.float32], bytes]:
    return model_W + mean_W, state
