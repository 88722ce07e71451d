"""Heart disease in four hospitals, beside FLamby's figures, which has a scaling of its own."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario, read_scenario
from fedmodel.data.records import Records, dealt
from fedmodel.kinds.sources.uci_heart import HOSPITAL, UciHeartConfig
from fields.field import NO_PRIVACY, Field, Level, Scores


def of_hospitals(scenario: Scenario, held_out: Records, output_NK: NDArray[Any]) -> Scores:
    """Return the accuracy over all patients, and FLamby's: the mean of the four hospitals' accuracies."""
    right_N = (output_NK[:, 0] > 0) == (held_out.y_N == 1)
    first, source = _heart(scenario.seed or 0)
    hospital_N = source.groups(HOSPITAL, 0)
    assert hospital_N is not None
    # Records of a user's own are counted from 0; they are in the order of the split that they were scaled from.
    hospital_N = hospital_N[dealt(first)[0].person_N]
    each = [right_N[hospital_N == name].mean() for name in scenario.federation.silos]
    return {"accuracy": float(right_N.mean()), "mean of hospitals": float(np.mean(each))}


def _heart(seed: int) -> tuple[Scenario, UciHeartConfig]:
    scenario = read_scenario("heart", [f"seed={seed}"])
    assert isinstance(scenario.data, UciHeartConfig)
    return scenario, scenario.data


def by_hospital(seed: int) -> dict[str, Any]:
    """Return the patients as FLamby scales them: by each hospital's own training means and deviations, which leak."""
    scenario, source = _heart(seed)
    held_out, silos = dealt(scenario)
    raw_NF, y_N = source.load(seed)
    hospital_N = source.groups(HOSPITAL, seed)
    assert hospital_N is not None
    x_NF = np.empty_like(raw_NF)
    for name, records in zip(scenario.federation.silos, silos, strict=True):
        own_NF = raw_NF[records.person_N]
        where_N = hospital_N == name
        x_NF[where_N] = (raw_NF[where_N] - own_NF.mean(axis=0)) / (own_NF.std(axis=0, ddof=1) + 1e-9)
    x_NF = np.clip(x_NF, -10, 10)
    return {
        "train": [(x_NF[records.person_N], y_N[records.person_N]) for records in silos],
        "test": (x_NF[held_out.person_N], y_N[held_out.person_N]),
    }


FIELD: Final = Field(
    "heart",
    {
        "epsilon 1": Level(
            ("privacy.epsilon=1.0",), (0.3, 20, 2.0), ".685 (FLamby, whose epsilon is 1.3 to 3.7)"
        ),
        "epsilon 0.1": Level(
            ("privacy.epsilon=0.1", "rounds=5", "privacy.max_grad_norm=1.0"),
            (0.3, 5, 1.0),
            ".606 (FLamby)",
        ),
        NO_PRIVACY: Level(
            ('privacy.baseline="no-noise-no-clip"', "rounds=40", "training.learning_rate=2.0"),
            (2.0, 40, 0.0),
            ".7125 (FLamby)",
        ),
    },
    of_hospitals,
    {
        "public ranges": (),
        "a scaling for each hospital": ('data={use="fields.heart:by_hospital", seed=SEED, name="uci-heart-scaled"}',),
    },
)  # fmt: skip
