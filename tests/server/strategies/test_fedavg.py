"""Federated averaging moves the model by the mean, and asks for cohorts of the size that the scenario says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedmodel.config import Scenario, read_scenario
from server.strategies import strategy_of
from server.strategies.fedavg import FedAvg


def test_it_is_the_strategy_of_a_scenario_that_names_none(tiny: Scenario) -> None:
    assert isinstance(strategy_of(tiny), FedAvg)


def test_the_mean_is_added_to_the_bit_and_nothing_is_kept(tiny: Scenario) -> None:
    rng = np.random.default_rng(1)
    model_P, mean_P = (rng.normal(size=50).astype(np.float32) for _ in range(2))
    before = model_P.tobytes(), mean_P.tobytes()
    moved_P, state = FedAvg(tiny).apply(model_P, mean_P, b"")
    assert (moved_P.dtype, moved_P.tobytes()) == (np.float32, (model_P + mean_P).tobytes())
    assert state == b""
    assert (model_P.tobytes(), mean_P.tobytes()) == before


def test_a_cohort_is_of_the_size_that_the_scenario_says_or_of_all_that_are_left(tiny_file: Path) -> None:
    strategy = FedAvg(read_scenario(str(tiny_file), ["federation.cohort=2"]))
    cohorts = {tuple(strategy.choose(["west", "south", "north"], number)) for number in range(1, 30)}
    assert cohorts == {("north", "south"), ("north", "west"), ("south", "west")}
    assert strategy.choose(["west"], 1) == ["west"]
