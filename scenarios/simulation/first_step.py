"""Whether steps move the model that a run begins from: refused before anything is written, as each silo would refuse.

Shapes: P parameters.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedmodel import plans
from fedmodel.config import Scenario
from fedmodel.errors import ConfigError
from fedmodel.learning import vectors
from fedmodel.learning.fitting import fit
from fedmodel.learning.magnitude import STEPS_OF_A_STEP, spacing_of, step_of
from fedmodel.learning.models import build_model
from fedmodel.learning.starts import file_of, read_start
from fedmodel.privacy.rounding import raised
from fedmodel.seeds import derive_seed


def check_first_step(scenario: Scenario) -> None:
    """Refuse a learning rate at which a step of some silo would be rounded away on the model that a run begins from.

    Raises:
        ConfigError: With the least that goes with this noise and these weights.
    """
    rate, spacing = scenario.training.learning_rate, spacing_of(_first(scenario))
    asked = (plan for silo in scenario.federation.silos for plan in scenario.plans(silo))
    events = map(plans.private_event, asked)
    step = min(step_of(scenario, event) for event in events)
    if spacing > step / STEPS_OF_A_STEP:
        least = spacing * STEPS_OF_A_STEP * rate / step
        least = raised(least, digits=1 - math.floor(math.log10(least)))  # two figures
        smallest = "a step" if scenario.training.schedule is None else "the smallest step of its schedule"
        weights = "the first weights" if scenario.start is None else f"the weights of {file_of(scenario.start)}"
        raise ConfigError(
            f"training.learning_rate = {rate:g} is too small for this noise and {weights}: {smallest} is {step:.1e},"
            f" and float32 moves the largest weight by {spacing:.1e} at least, so that updates would be rounded away;"
            f" take at least {least:g}, or begin from smaller weights"
        )


def _first(scenario: Scenario) -> NDArray[np.float32]:
    """Return what a run begins from, as its server makes it."""
    module = build_model(scenario.model, scenario.data.shape, derive_seed(scenario.seed or 0, "model"))
    if scenario.start is not None:
        fit(module, read_start(scenario.start), str(file_of(scenario.start)))
    return vectors.flatten(module)
