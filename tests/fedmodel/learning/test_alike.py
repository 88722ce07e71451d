"""What pipelines share, and what keeps them apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmodel.config import Scenario, read_scenario, scenario_from_json
from fedmodel.learning import alike
from fedmodel.learning.alike import stand_in

OTHER_RUNS = [
    ["rounds=9"],
    ["seed=6"],
    ['name="another"'],
    ['federation.silos=["east","west","north","south"]'],
    ["encryption.secure_aggregation=simulated", "encryption.bound=1.0"],
    ["budgets={north=30.0}"],
    ["privacy.noise_multiplier=3.0"],
]
OTHER_PIPELINES = [
    ["model.hidden=[8]"],
    ["model.dropout=0.5"],
    ["data.features=5"],
    ["training.gradients=functional"],
    ["training.max_physical_batch=8"],
    ["training.threads=2"],
]


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    alike.forget()
    yield
    alike.forget()


@pytest.mark.parametrize("settings", OTHER_RUNS, ids=str)
def test_runs_that_train_one_pipeline_share_it(settings: list[str], tiny: Scenario, tiny_file: Path) -> None:
    other = read_scenario(str(tiny_file), settings)
    assert other.json_text != tiny.json_text
    assert stand_in(tiny) == stand_in(other) == tiny.json_text


@pytest.mark.parametrize("settings", OTHER_PIPELINES, ids=str)
def test_pipelines_that_differ_are_kept_apart(settings: list[str], tiny: Scenario, tiny_file: Path) -> None:
    other = read_scenario(str(tiny_file), settings)
    assert stand_in(tiny) == tiny.json_text
    assert stand_in(other) == other.json_text


def test_all_that_decides_is_the_scenarios_own(tiny_file: Path) -> None:
    for settings in [[], *OTHER_RUNS, *OTHER_PIPELINES]:
        scenario = read_scenario(str(tiny_file), settings)
        first = scenario_from_json(stand_in(scenario))
        assert (first.data, first.model, first.training) == (scenario.data, scenario.model, scenario.training)


def test_few_are_kept_and_all_are_forgotten_at_once(tiny: Scenario, tiny_file: Path) -> None:
    others = [read_scenario(str(tiny_file), [f"training.max_physical_batch={size}"]) for size in range(1, 80)]
    assert [stand_in(one) for one in others] == [one.json_text for one in others]
    assert len(alike._FIRST) <= alike._MOST
    stand_in(tiny)
    alike.forget()
    other = read_scenario(str(tiny_file), ["rounds=9"])
    assert stand_in(other) == stand_in(tiny) == other.json_text
