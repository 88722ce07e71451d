"""A task is found by what the data say, and its losses by name; a wrong name ends before anything is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.tasks import objective, task_of
from scenarios.simulation.simulate import check_scenario

CLASSES = DataShape((4,), 3)


def test_a_task_that_no_file_has_is_refused_in_one_line() -> None:
    assert task_of(CLASSES).name == "classification"
    with pytest.raises(ConfigError, match=r"data\.task: unknown task 'clasification'; did you mean 'classification'\?"):
        task_of(replace(CLASSES, task="clasification"))


def test_a_loss_is_looked_up_in_the_task_of_the_data() -> None:
    with pytest.raises(ConfigError, match=r"unknown loss 'cross-entrop'; did you mean 'cross-entropy'\? \(the task is"):
        objective(CLASSES, "cross-entrop")


def test_a_wrong_loss_is_refused_before_a_run_has_a_folder(tiny_file: Path) -> None:
    scenario = read_scenario(str(tiny_file), ["training.loss=cros-entropy"])
    with pytest.raises(ConfigError, match=r"training\.loss: unknown loss 'cros-entropy'; did you mean 'cross-entropy'"):
        check_scenario(scenario)
