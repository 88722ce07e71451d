"""Hazards, survival curves and their figures are what the definitions say, one record at a time."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from fedmodel.config import TableSource
from fedmodel.data import table_records
from fedmodel.errors import ConfigError
from fedmodel.kinds.models.mlp import MlpConfig
from fedmodel.kinds.shape import SURVIVAL, ArrayShape, DataShape
from fedmodel.kinds.sources.table import TableConfig
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import Measured, objective, task_of
from fedmodel.learning.tasks._survival_figures import concordance, still_looked_at
from fedmodel.learning.tasks.survival import hazards
from tests.fedmodel.learning.test_dp_sgd import clipped

LINEAR = MlpConfig(kind="mlp")

K = 4
SHAPE = DataShape((3,), K, target=ArrayShape((), 2 * K + 1), task=SURVIVAL)
LOGITS = torch.randn(2 * K + 1, K, generator=torch.Generator().manual_seed(3))
TARGETS = torch.arange(2 * K + 1)  # every target there is


def by_definition(logits: list[float], target: int) -> float:
    """The negative logarithm of the chance of what was seen, interval by interval."""
    chance = [1 / (1 + math.exp(-one)) for one in logits]
    interval, seen = divmod(target, 2)
    likelihood = math.prod(1 - one for one in chance[:interval]) * (chance[interval] if seen else 1.0)
    return -math.log(likelihood)


def test_a_loss_is_the_likelihood_of_what_was_seen_of_that_record() -> None:
    expected = [by_definition(row, target) for row, target in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True)]
    assert hazards(LOGITS, TARGETS).tolist() == pytest.approx(expected, rel=1e-5)
    assert expected[0] == 0.0  # lost sight of in the first interval, it says nothing


def test_the_chances_of_all_that_can_be_seen_add_up_to_one() -> None:
    """An event in each interval, or none until the end: what is left out counts nothing twice."""
    row_K = LOGITS[:1]
    ends = torch.tensor([*range(1, 2 * K, 2), 2 * K])
    assert float(torch.exp(-hazards(row_K.expand(len(ends), K), ends)).sum()) == pytest.approx(1.0, rel=1e-6)


def test_a_curve_never_rises_and_ends_at_the_chance_to_be_without_the_event() -> None:
    curve_NK = task_of(SHAPE).answers("hazards", LOGITS)
    assert (curve_NK.diff(dim=1) <= 0).all()
    none = torch.full((len(LOGITS),), 2 * K)
    assert torch.allclose(curve_NK[:, -1], torch.exp(-hazards(LOGITS, none)))


def test_no_constant_answer_has_less_than_the_base_loss() -> None:
    task, target_N = task_of(SHAPE), np.array([1, 1, 3, 2, 5, 8, 8, 0, 7])
    base = task.base_loss("hazards", target_N)
    assert base is not None

    def mean(logit_K: torch.Tensor) -> float:
        return float(hazards(logit_K.expand(len(target_N), K), torch.from_numpy(target_N)).mean())

    # Of eight at risk in the first interval two had the event; of six, five and four in those after it, one each.
    best_K = torch.tensor([2 / 8, 1 / 5, 1 / 4, 1 / 3]).logit()
    assert base == pytest.approx(mean(best_K), rel=1e-6)
    for interval, step in itertools.product(range(K), (-0.1, 0.1)):
        other_K = best_K.clone()
        other_K[interval] += step
        assert mean(other_K) > base


def test_concordance_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(4)
    time_N, seen_N = rng.integers(0, 5, 40), rng.integers(0, 2, 40)
    risk_N = rng.integers(0, 6, 40).astype(float)
    pairs = [
        (risk_N[one] > risk_N[other]) + 0.5 * (risk_N[one] == risk_N[other])
        for one, other in itertools.permutations(range(40), 2)
        if seen_N[one] and (time_N[other] > time_N[one] or (time_N[other] == time_N[one] and not seen_N[other]))
    ]
    assert concordance(time_N, seen_N, risk_N) == pytest.approx(np.mean(pairs))
    assert concordance(time_N, np.zeros(40), risk_N) is None


def test_the_brier_score_without_anybody_lost_is_the_mean_squared_distance() -> None:
    target_N = np.array([1, 3, 5, 7, 8, 8])
    curve_NK = task_of(SHAPE).answers("hazards", LOGITS[: len(target_N)]).numpy()
    truth_NK = (target_N // 2)[:, None] > np.arange(K)
    found = Measured(curve_NK, target_N, np.zeros(6), 0.0, "hazards")
    figures = task_of(SHAPE).figures(("integrated-brier", "concordance"), found)
    assert figures["integrated-brier"] == pytest.approx(((curve_NK - truth_NK) ** 2).mean(), rel=1e-6)


def test_who_is_lost_sight_of_weighs_on_those_who_stay() -> None:
    interval_N, seen_N = np.array([0, 0, 1, 1, 4]), np.array([1, 0, 0, 1, 0])
    # In the first interval one of the four who have no event is lost; in the second one of two.
    assert still_looked_at(interval_N, seen_N, K).tolist() == pytest.approx([3 / 4, 3 / 8, 3 / 8, 3 / 8])
    found = Measured(np.full((5, K), 0.5), 2 * interval_N + seen_N, np.zeros(5), 0.0, "hazards")
    each = [
        0.25 * (1 + 3 / (3 / 4)) / 5,  # one event, and three who are still without it
        0.25 * (1 + 1 / (3 / 4) + 1 / (3 / 8)) / 5,
    ]
    expected = (each[0] + 3 * each[1]) / K
    assert task_of(SHAPE).figure("integrated-brier")(found) == pytest.approx(expected)


def test_a_brier_score_is_left_out_where_everybody_is_lost_sight_of() -> None:
    found = Measured(np.full((2, K), 0.5), np.array([2, 2]), np.zeros(2), 0.0, "hazards")
    assert task_of(SHAPE).figures(("integrated-brier", "concordance"), found) == {}


def rows_of_a_registry(count: int) -> list[list[str]]:
    """Persons with one to three rows, times before, at and after every end, and values far outside of any range."""
    rng = np.random.default_rng(8)
    times = ["0", "3", "12", "23.5", "24", "60", "600"]
    return [
        [f"P{place // 3 if place % 2 else place}", f"{rng.uniform(-500, 500):.1f}", times[place % 7], str(place % 2)]
        for place in range(count)
    ]


@pytest.mark.parametrize(("unit", "most"), [("record", 1), ("person", 2)])
def test_a_patient_more_or_less_in_a_table_moves_the_clipped_sum_by_at_most_the_clip_of_each_row(
    unit: Literal["record", "person"], most: int, tmp_path: Path
) -> None:
    config = TableConfig.model_validate({
        "source": "table", "name": "registry", "label": "died", "person": "patient", "time": "months",
        "ends": [12.0, 24.0, 60.0], "time_unit": "months",
        "columns": [{"name": "age", "type": "float", "range": [0.0, 100.0]}],
    })  # fmt: skip
    gradients = clipped(build_model(LINEAR, config.shape, seed=1), losses=hazards, clip=0.5, denominator=16)

    def summed(rows: list[list[str]]) -> torch.Tensor:
        (tmp_path / "a.csv").write_text(
            "\n".join(",".join(row) for row in [["patient", "age", "months", "died"], *rows])
        )
        records = table_records(config, TableSource(csv=str(tmp_path / "a.csv"))).capped(unit, most)
        return gradients.flat(torch.from_numpy(records.x_NF), torch.from_numpy(records.y_N))

    rows = rows_of_a_registry(30)
    whole, moved = summed(rows), list[float]()
    for gone in range(len(rows)) if unit == "record" else sorted({row[0] for row in rows}):
        left = [row for place, row in enumerate(rows) if gone not in (place, row[0])]
        assert 0 < len(rows) - len(left) <= 3
        moved.append(float((whole - summed(left)).norm()))
    assert max(moved) <= most * 0.5
    assert max(moved) > (most - 1) * 0.5 + 0.1
    assert min(moved) < 1e-6  # who was lost sight of at once says nothing


def test_a_wrong_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown loss 'hazard'; did you mean 'hazards'\? \(the task is survival\)"):
        objective(SHAPE, "hazard")
    with pytest.raises(ConfigError, match="unknown figure 'accuracy'"):
        task_of(SHAPE).figure("accuracy")
