"""Pictures of clothes over ten silos, by a linear model of scattering features."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.data.records import Records
from fields.field import NO_PRIVACY, Field, Level, Scores


def of_pictures(_: Scenario, held_out: Records, output_NK: NDArray[Any]) -> Scores:
    """Return the accuracy, and the least of any class: the share of its pictures that are called so."""
    right_N = output_NK.argmax(axis=1) == held_out.y_N
    each = [right_N[held_out.y_N == label].mean() for label in np.unique(held_out.y_N)]
    return {"accuracy": float(right_N.mean()), "of the worst class": float(min(each))}


FIELD: Final = Field(
    "fashion",
    {
        "epsilon 3": Level(
            ("privacy.epsilon=3.0",), (2.1, 60, 1.0), ".897 central, .8809 without privacy (Tramer, Flower)"
        ),
        NO_PRIVACY: Level(
            ('privacy.baseline="no-noise-no-clip"', "training.learning_rate=0.02"), (0.06, 60, 0.0)
        ),
    },
    of_pictures,
    {"scattering features": ()},
    at_once=1_000,
)  # fmt: skip
