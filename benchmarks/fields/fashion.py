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
        "epsilon 1": Level(
            ("privacy.epsilon=1.0", "training.learning_rate=0.2"), (1.6, 60, 1.0), noisy=(0.6, 60, 1.0)
        ),
        "epsilon 3": Level(
            ("privacy.epsilon=3.0",), (2.4, 60, 1.0), ".897 (Tramer and Boneh, central)", noisy=(1.8, 60, 1.0)
        ),
        "epsilon 8": Level(
            ("privacy.epsilon=8.0", "training.learning_rate=1.0"), (4.5, 60, 1.0), noisy=(3.0, 60, 1.0)
        ),
        NO_PRIVACY: Level(
            ('privacy.baseline="no-noise-no-clip"', "training.learning_rate=0.01"),
            (0.03, 60, 0.0),
            ".8809 (Flower's FedAvg, a CNN)",
        ),
    },
    of_pictures,
    {"scattering features": ()},
    at_once=5_000,
    ghost=True,
)  # fmt: skip
