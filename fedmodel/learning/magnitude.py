"""Whether a step still moves a model's largest weight, in float32.

Float32 has no room for a small step beside a large weight. On a model made of such weights the updates of most silos
are zero, noise and all, and a sum of many is the update of the one that moved.

Shapes: P parameters.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.errors import ProtocolError
from fedmodel.privacy.events import Event, clip_of

STEPS_OF_A_STEP: Final = 256
"""How finely a step's noise must be resolved at the largest weight."""


def check_magnitude(scenario: Scenario, plan: Event, model_P: NDArray[np.float32]) -> None:
    """Refuse a model on whose coordinates a step would be rounded away.

    Raises:
        ProtocolError: When it would.
    """
    step, spacing = step_of(scenario, plan), spacing_of(model_P)
    if spacing > step / STEPS_OF_A_STEP:
        raise ProtocolError(
            f"the model received has weights so large that float32 moves them by {spacing:.1e} at least, where a step"
            f" is {step:.1e}; updates would be rounded away"
        )


def step_of(scenario: Scenario, plan: Event) -> float:
    """Return how far noise moves a coordinate in one step of any round, at least."""
    noise = plan.noise_multiplier * clip_of(plan) / plan.denominator
    return scenario.training.least_rate(scenario.rounds) * scenario.training.noise_step(noise)


def spacing_of(model_P: NDArray[np.float32]) -> float:
    """Return by how much float32 moves the largest weight at least."""
    return float(np.spacing(np.abs(model_P).max(initial=0.0)))
