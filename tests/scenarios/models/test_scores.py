"""What is explained of each task: scores whose attributions add up to it, in the units in which people read answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedmodel.config import read_scenario
from fedmodel.learning.description import describe
from fedmodel.provision import scenario_hash
from scenarios.models.explain import Looked, explain
from scenarios.models.predict import scores_of
from scenarios.models.scores import EVENT, PREDICTED, WITHOUT, answered, outputs_of, scores
from scenarios.models.trained import Trained
from tests.scenarios.models.explained import linear, patients, trained
from tests.scenarios.models.tables import SCENARIO

NUMBER = SCENARIO.replace('labels = ["benign", "malignant"]', "label_range = [40.0, 120.0]").replace(
    'loss = "cross-entropy"', 'loss = "mse"'
)
SEVERAL = SCENARIO.replace('label = "outcome"\nlabels = ["benign", "malignant"]', 'label = ["ill", "tired"]')


def test_a_number_is_explained_in_its_own_units(tmp_path: Path) -> None:
    model = trained(tmp_path, linear([0.5, 0, 0, 0, 0, 0], bias=0.1), text=NUMBER)
    x_NF = patients(30)
    found = explain(model, Looked(x_NF, None, "own"))
    (one,) = found.explained
    assert (one.name, one.scale) == ("outcome", "units")
    assert one.effects[0].size == pytest.approx(np.abs(0.5 * 40 * x_NF[:, 0]).mean(), rel=1e-5)
    answer_N = answered(model, outputs_of(model, x_NF))["outcome"]
    assert answer_N == pytest.approx(80 + 40 * (0.5 * x_NF[:, 0] + 0.1), rel=1e-5)
    assert found.dependence[0].answers["outcome"][0] == pytest.approx(80 + 40 * -0.4, rel=1e-5)


def test_of_several_labels_each_is_explained(tmp_path: Path) -> None:
    model, x_NF = trained(tmp_path, text=SEVERAL), patients(30)
    output_NK = outputs_of(model, x_NF)
    found = explain(model, Looked(x_NF, (output_NK > 0).astype(np.int64), "own"), ("smoker",), 1)
    assert [one.name for one in found.explained] == ["ill", "tired"]
    assert found.dependence[0].answers.keys() == {"ill", "tired"}
    for place, score in enumerate(scores(model.description, output_NK)):
        assert (output_NK * score.weight_NK).sum(axis=1) == pytest.approx(output_NK[:, place])
    assert {one.figures["label-accuracy"] for one in found.groups} == {1.0}


def test_of_several_classes_what_is_added_to_all_outputs_changes_nothing(tmp_path: Path) -> None:
    model, x_NF = trained(tmp_path, None, 'data.labels=["benign", "malignant", "unclear"]'), patients(30)
    looked = Looked(x_NF, None, "own")
    before = explain(model, looked)
    with torch.no_grad():  # as noise does
        model.module[1].weight.add_(torch.linspace(-2, 2, 6))  # type: ignore[index, operator, union-attr]
    after = explain(model, looked)
    assert before.explained[0].name == PREDICTED
    for one, same in zip(before.explained[0].effects, after.explained[0].effects, strict=True):
        assert (one.name, one.toward, one.away) == (
            same.name, pytest.approx(same.toward, abs=1e-5), pytest.approx(same.away, abs=1e-5),
        )  # fmt: skip
    assert before.dependence[0].answers.keys() == {"benign", "malignant", "unclear"}


def test_survival_is_explained_by_the_odds_of_the_event_and_its_curve() -> None:
    scenario = read_scenario("survival", ['model.init="random"'])
    description = describe(scenario, scenario_hash(scenario))
    model = Trained(description, description.built().eval(), b"a model")
    x_NF = np.random.default_rng(1).uniform(-1, 1, (40, len(description.features))).astype(np.float32)
    found = explain(model, Looked(x_NF, None, "own"))
    assert [(one.name, one.scale) for one in found.explained] == [(EVENT, "hazard")]
    assert {effect.name for effect in found.explained[0].effects} == set(description.features)
    assert found.dependence[0].answers.keys() == {WITHOUT}
    curve_NK = scores_of(model, x_NF)
    answer_N = answered(model, outputs_of(model, x_NF))[WITHOUT]
    assert answer_N == pytest.approx(curve_NK.astype(np.float64).mean(axis=1))
    assert ((answer_N >= 0) & (answer_N <= 1)).all()
