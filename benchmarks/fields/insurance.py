"""Whom to offer a policy for a mobile home, over four branches of an insurer, beside the CoIL Challenge's winner."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.data.records import Records
from fedmodel.learning.tasks import Measured, task_of
from fields.field import NO_PRIVACY, Field, Level, Scores

_SCENARIO: Final = Path(__file__).parents[2] / "docs" / "examples" / "insurance.toml"


def of_customers(scenario: Scenario, held_out: Records, output_NK: NDArray[Any]) -> Scores:
    """Return figures of a ranking: of all of it, and of the fifth that is written to, as the challenge counted."""
    task = task_of(scenario.data.shape)
    chance_NK = task.answers("cross-entropy", torch.from_numpy(output_NK)).numpy()
    found = Measured(chance_NK, held_out.y_N, np.zeros(len(held_out)), 0.0, "cross-entropy")
    told = task.figures(("average-precision", "recall@0.2", "auroc", "brier"), found)
    return {
        "average precision": told["average-precision"],
        "recall of the likeliest fifth": told["recall@0.2"],
        "AUROC": told["auroc"],
        "Brier": told["brier"],
    }


FIELD: Final = Field(
    str(_SCENARIO),
    {
        "epsilon 1": Level(("privacy.epsilon=1.0", "training.learning_rate=3.0"), (4.2, 30, 2.0)),
        "epsilon 3": Level(("privacy.epsilon=3.0",), (10.4, 30, 2.0)),
        "epsilon 10": Level(("privacy.epsilon=10.0",), (10.4, 30, 2.0)),
        NO_PRIVACY: Level(
            ('privacy.baseline="no-noise-no-clip"', "training.learning_rate=3.0"),
            (4.2, 30, 0.0),
            "recall .508 (the winner of the challenge, other customers)",
        ),
    },
    of_customers,
    {"all features": ()},
)  # fmt: skip
