"""Each strategy is Flower's own of the same name (`flwr.serverapp.strategy`), run beside it on the same updates.

Flower's strategies are given what a Flower server gives them: messages, of which some say that a client failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from fedmodel.config import Scenario, read_scenario
from server.aggregation.plain import average_updates
from server.strategies import Combining, strategy_of

ROUNDS = 10
SHAPES = {"layer.weight": (7, 5), "layer.bias": (5,), "head.weight": (2, 5)}
SILOS = [f"silo-{number}" for number in range(7)]
GONE: dict[int, set[str]] = {2: {"silo-1"}, 5: {"silo-0", "silo-6"}, 6: {"silo-3"}, 9: {"silo-2", "silo-4"}}
"""By round, whose answer is missing."""

SAME: dict[str, tuple[type[flower.FedAvg], list[dict[str, Any]]]] = {
    "fedavg": (flower.FedAvg, [{}]),
    "fedavgm": (
        flower.FedAvgM,
        [{"server_momentum": 0.9}, {"server_learning_rate": 0.5, "server_momentum": 0.3}, {"server_momentum": 0.0}],
    ),
    "fedadam": (flower.FedAdam, [{}, {"eta": 0.02, "beta_1": 0.5, "beta_2": 0.7, "tau": 0.1}, {"beta_1": 0.0}]),
    "fedyogi": (flower.FedYogi, [{}, {"eta": 0.2, "beta_1": 0.5, "beta_2": 0.7, "tau": 0.1}, {"beta_2": 0.0}]),
    "fedadagrad": (flower.FedAdagrad, [{}, {"eta": 0.02, "tau": 0.1}]),
    "median": (flower.FedMedian, [{}]),
    "trimmed-mean": (flower.FedTrimmedAvg, [{}, {"beta": 0.49}, {"beta": 0.29}]),
    "krum": (flower.Krum, [{}, {"num_malicious_nodes": 1}]),
}
CASES = [(name, options) for name, (_, several) in SAME.items() for options in several]


@pytest.fixture(autouse=True)
def in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Flower's process of a server does before it calls a strategy."""
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def scenario_of(tiny_file: Path, name: str, options: dict[str, Any]) -> Scenario:
    said = ", ".join(f"{key} = {value}" for key, value in options.items())
    settings = [
        f"federation.silos={SILOS}", "federation.min_silos=5", f"federation.strategy={name}",
        f"federation.strategy_options={{{said}}}",
    ]  # fmt: skip
    return read_scenario(str(tiny_file), settings)


def test_every_strategy_stands_here() -> None:
    from server.strategies import KINDS

    assert SAME.keys() == KINDS.keys()


def updates_of(number: int) -> dict[str, NDArray[np.float32]]:
    """Return a round's updates: of unequal sizes over coordinates, with one silo far off."""
    rng = np.random.default_rng(number)
    size = sum(int(np.prod(shape)) for shape in SHAPES.values())
    scale_P = 10.0 ** np.linspace(-4, -1, size)
    centre_P = rng.normal(size=size)
    found = {silo: scale_P * (centre_P + rng.normal(size=size)) for silo in SILOS if silo not in GONE.get(number, ())}
    found["silo-5"] *= 10
    return {silo: update_P.astype(np.float32) for silo, update_P in found.items()}


def named(vector_P: NDArray[Any]) -> ArrayRecord:
    """Return a vector as the arrays of a model, float64: Flower computes in the type that clients send."""
    parts, start = {}, 0
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        parts[name] = Array(vector_P[start : start + size].reshape(shape).astype(np.float64))
        start += size
    return ArrayRecord(parts)


def flat(arrays: ArrayRecord) -> NDArray[np.float64]:
    return np.concatenate([arrays[name].numpy().ravel() for name in SHAPES]).astype(np.float64)


class Theirs:
    """One of Flower's strategies, fed as a Flower server feeds it."""

    def __init__(self, strategy: flower.FedAvg, model_P: NDArray[np.float32]) -> None:
        self._strategy, self._arrays = strategy, named(model_P)
        self._grid = Mock()
        self._grid.get_node_ids.return_value = list(range(1, len(SILOS) + 1))

    def round(self, number: int, updates: dict[str, NDArray[np.float32]], weight: dict[str, float]) -> None:
        asked = list(self._strategy.configure_train(number, self._arrays, ConfigRecord(), self._grid))
        sent_P = flat(self._arrays)
        by_node = {message.metadata.dst_node_id: message for message in asked}
        replies = []
        for node, silo in enumerate(SILOS, start=1):
            if silo not in updates:
                replies.append(Message(Error(0, "gone"), reply_to=by_node[node]))
                continue
            trained = RecordDict(
                {
                    "arrays": named(sent_P + updates[silo].astype(np.float64)),
                    "metrics": MetricRecord({"num-examples": weight.get(silo, 1.0)}),
                }
            )
            replies.append(Message(trained, reply_to=by_node[node]))
        arrays, _ = self._strategy.aggregate_train(number, replies)
        assert arrays is not None
        self._arrays = arrays

    def model(self) -> NDArray[np.float64]:
        return flat(self._arrays)


class Ours:
    """One of our strategies, made anew for every round, as in a process that was killed after each."""

    def __init__(self, scenario: Scenario, model_P: NDArray[np.float32]) -> None:
        self._scenario, self.model_P, self._state = scenario, model_P, b""

    def round(self, updates: dict[str, NDArray[np.float32]]) -> None:
        strategy = strategy_of(self._scenario)
        if isinstance(strategy, Combining):
            mean_P = strategy.combine(updates)
        else:
            mean_P = average_updates(updates, self._scenario.federation)
        assert mean_P.dtype == np.float32
        self.model_P, self._state = strategy.apply(self.model_P, mean_P, self._state)
        assert self.model_P.dtype == np.float32


def both(scenario: Scenario, theirs: flower.FedAvg) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield both models after each round."""
    model_P = np.random.default_rng(0).normal(size=len(next(iter(updates_of(1).values())))).astype(np.float32)
    one, other = Ours(scenario, model_P), Theirs(theirs, model_P)
    for number in range(1, ROUNDS + 1):
        updates = updates_of(number)
        one.round(updates)
        other.round(number, updates, dict(scenario.federation.weights))
        yield one.model_P.astype(np.float64) - model_P, other.model() - model_P


@pytest.mark.parametrize(("name", "options"), CASES)
def test_ten_rounds_bring_the_model_to_where_flowers_own_code_brings_it(
    name: str, options: dict[str, Any], tiny_file: Path
) -> None:
    """Silos drop out of four of them; whatever is kept between rounds is kept through bytes."""
    theirs = SAME[name][0](**({"server_momentum": 0.9} if name == "fedavgm" else {}) | options)
    scenario = scenario_of(tiny_file, name, options)
    moved = 0.0
    for ours_P, theirs_P in both(scenario, theirs):
        # The model is float32 here: a step is rounded by up to a 2^24th of a coordinate of some 10.
        assert ours_P == pytest.approx(theirs_P, rel=2e-6, abs=1e-6)
        moved = max(moved, float(np.abs(theirs_P).max()))
    assert moved > 0.01


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_unequal_weights_count_as_flowers_numbers_of_examples_do(name: str, tiny_file: Path) -> None:
    scenario = scenario_of(tiny_file, name, {})
    weights = {"silo-1": 4.0, "silo-5": 0.25}
    federation = scenario.federation.model_copy(update={"weights": weights})
    theirs = SAME[name][0](**({"server_momentum": 0.9} if name == "fedavgm" else {}))
    found = list(both(scenario.model_copy(update={"federation": federation}), theirs))
    assert found[-1][0] == pytest.approx(found[-1][1], rel=2e-6, abs=1e-6)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_defaults_and_ranges_are_flowers(name: str, options: dict[str, Any], tiny_file: Path) -> None:
    """Every option bears the name of one of Flower's, with its default, but for a momentum that would be none."""
    from server.strategies import options_of

    ours = options_of(scenario_of(tiny_file, name, {})).model_dump()
    theirs = vars(SAME[name][0]())
    for option, value in ours.items():
        assert value == (0.9 if option == "server_momentum" else theirs[option])
    assert options.keys() <= ours.keys()
