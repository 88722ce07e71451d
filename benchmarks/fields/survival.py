"""Survival of patients by hazards of intervals, beside Cox's model without privacy."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel.config import Scenario, read_scenario
from fedmodel.data.records import Records, dealt
from fedmodel.kinds.sources.metabric import times
from fedmodel.learning.tasks import Measured, task_of
from fedmodel.learning.tasks._survival_figures import concordance
from fields.field import NO_PRIVACY, Field, Level, Scores


def cox(seed: int) -> Scores:
    """Return the concordance of Cox's model without privacy, fitted centrally by Newton's method (Breslow's ties)."""
    held_out, silos = dealt(read_scenario("survival", [f"seed={seed}"]))
    train = Records.joined(silos)
    months_N, seen_N = times()
    order_N = np.argsort(-months_N[train.person_N], kind="stable")
    x_NF, events_N = train.x_NF[order_N].astype(np.float64), seen_N[train.person_N][order_N] == 1
    weight_F = np.zeros(x_NF.shape[1])
    for _ in range(20):
        risk_N = np.exp(x_NF @ weight_F)
        total_N = np.cumsum(risk_N)[:, None]  # of who is still looked at, since times fall
        mean_NF = np.cumsum(risk_N[:, None] * x_NF, axis=0) / total_N
        square_NFF = np.cumsum(risk_N[:, None, None] * x_NF[:, :, None] * x_NF[:, None], axis=0) / total_N[..., None]
        slope_F = (x_NF - mean_NF)[events_N].sum(axis=0)
        curvature_FF = (square_NFF - mean_NF[:, :, None] * mean_NF[:, None])[events_N].sum(axis=0)
        weight_F += np.linalg.solve(curvature_FF, slope_F)
    who_N = held_out.person_N
    found = concordance(months_N[who_N], seen_N[who_N], held_out.x_NF @ weight_F)
    return {"concordance": found or math.nan, "integrated Brier": math.nan}


def of_patients(scenario: Scenario, held_out: Records, output_NK: NDArray[Any]) -> Scores:
    """Return Harrell's C by months, and the integrated Brier score by intervals."""
    months_N, seen_N = times()
    who_N = held_out.person_N
    task = task_of(scenario.data.shape)
    curve_NK = task.answers("hazards", torch.from_numpy(output_NK)).numpy()
    found = Measured(curve_NK, held_out.y_N, np.zeros(len(who_N)), 0.0, "hazards")
    return {
        "concordance": concordance(months_N[who_N], seen_N[who_N], -curve_NK.sum(axis=1)) or math.nan,
        "integrated Brier": task.figures(("integrated-brier",), found)["integrated-brier"],
    }


FIELD: Final = Field(
    "survival",
    {
        "epsilon 1": Level(("privacy.epsilon=1.0", "training.learning_rate=2.0"), (2.0, 30, 2.0)),
        "epsilon 3": Level(("privacy.epsilon=3.0",), (4.0, 30, 2.0)),
        NO_PRIVACY: Level(
            ('privacy.baseline="no-noise-no-clip"', "training.learning_rate=6.0"),
            (6.0, 30, 0.0),
            ".631 for Cox's model, .643 for DeepSurv (Katzman et al. 2018)",
        ),
    },
    of_patients,
    {"public ranges": ()},
    besides={"central, Cox's model": cox},
)  # fmt: skip
