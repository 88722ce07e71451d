"""A figure of the user's own, tried before anything is written or charged: the server computes it after a round.

Does NOT find a function that fails on some answers and targets alone, as where no record of a class is held out.

Shapes: N records.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from fedmodel.config import Scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.inputs import called, made_up, made_up_targets
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import Measured, objective
from fedmodel.learning.tasks._own import is_own

_ANSWERS: Final = 8
_RECORDS: Final = 256


def check_figures(scenario: Scenario) -> None:
    """Call each figure of the user's own on a model's answers of made-up records, and on made-up targets.

    Each class is among the targets, where a record has one of several.

    Raises:
        ConfigError: When one fails or returns no number, in one line that says what it was given.
    """
    own = tuple(name for name in scenario.metrics if is_own(name))
    if not own:
        return
    shape = scenario.data.shape
    found = _made_up(scenario, shape)
    aim = objective(shape, scenario.training.loss)
    for name in own:
        try:
            aim.task.figures((name,), found)
        except ConfigError as error:
            given = f"answers of shape {found.answer_N.shape} and targets of shape {found.target_N.shape}"
            raise ConfigError(f"{error}; it was given made-up {given}, NumPy arrays both") from None


def _made_up(scenario: Scenario, shape: DataShape) -> Measured:
    """Return what figures are computed from, of records that nobody has."""
    aim = objective(shape, scenario.training.loss)
    generator = torch.Generator().manual_seed(0)
    x_B, _ = made_up(shape, _ANSWERS, generator)
    wanted = shape.targets
    classes = wanted.below if wanted.below and not wanted.size else 0
    target_N = made_up_targets(shape, _RECORDS + classes, generator)
    target_N[:classes] = torch.arange(classes)
    module = build_model(scenario.model, shape, seed=0).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        answer_B = aim.answers(called(module, x_B)).numpy()
    answer_N = answer_B[np.arange(len(target_N)) % len(answer_B)]
    ones_N = np.ones(len(target_N), dtype=np.float32)
    return Measured(answer_N, aim.task.targets(target_N.numpy()), ones_N, 1.0, aim.loss)
