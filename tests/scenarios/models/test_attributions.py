"""Attributions are the closed form of a linear model, Captum's of any other, add up, and bear their columns' names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from fedmodel.errors import ConfigError
from fedmodel.kinds.signed import Signed
from scenarios.models.attributions import attributions, integrated_gradients
from scenarios.models.attributions import linear as linear_parts
from scenarios.models.explain import Looked, explain
from scenarios.models.factors import baseline, factors
from scenarios.models.scores import outputs_of, scores
from scenarios.models.trained import Trained
from tests.scenarios.models.explained import NAMES, Of, described, linear, patients, trained
from tests.scenarios.models.tables import SCENARIO

HIDDEN = "model.hidden=[5]"
THREE = 'data.labels=["benign", "malignant", "unclear"]'


def of(model: Trained, x_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return attributions of a model's one score, the score itself in float64, and the score of the baseline."""
    (score,) = scores(model.description, outputs_of(model, x_NF))
    base_F = baseline(factors(model.description))
    found = attributions(model.module, x_NF, score.weight_NK, base_F)
    module = trained_in_float64(model)
    with torch.no_grad():
        told_NK, base_1K = (module(torch.from_numpy(one).double()).numpy() for one in (x_NF, base_F[None]))
    return found.value_NF, (told_NK * score.weight_NK).sum(axis=1), (base_1K * score.weight_NK).sum(axis=1)


def trained_in_float64(model: Trained) -> nn.Module:
    own = model.description.built().double()
    own.load_state_dict(model.module.state_dict())
    return own.eval()


@pytest.mark.parametrize("settings", [(), (THREE,), ('model.kind="scorecard"', 'model.rising=["age", "stage=III"]')])
def test_a_linear_models_attributions_are_its_weights_times_the_way_from_the_baseline(
    settings: tuple[str, ...], tmp_path: Path
) -> None:
    model, x_NF = trained(tmp_path, None, *settings), patients(50)
    value_NF, score_N, base_N = of(model, x_NF)
    module = trained_in_float64(model)
    row = torch.zeros(1, 6, dtype=torch.float64)
    with torch.no_grad():  # weights as the model has them, asked a feature at a time
        weight_KF = np.stack(
            [(module(row + torch.eye(6)[place]) - module(row)).numpy()[0] for place in range(6)], axis=1
        )
    if len(weight_KF) > 1:
        predicted_N = outputs_of(model, x_NF).argmax(axis=1)
        weight_NF = weight_KF[predicted_N] - weight_KF.mean(axis=0)
    else:
        weight_NF = np.repeat(weight_KF, 50, axis=0)
    base_F = np.array([0, 0, 0, 1 / 3, 1 / 3, 1 / 3], dtype=np.float32)
    assert np.allclose(value_NF, weight_NF * (x_NF.astype(np.float64) - base_F), atol=1e-9, rtol=0)
    assert np.allclose(value_NF.sum(axis=1), score_N - base_N, atol=1e-9, rtol=0)


def test_integrated_gradients_of_a_linear_model_are_its_closed_form(tmp_path: Path) -> None:
    model, x_NF = trained(tmp_path), patients(20)
    value_NF, *_ = of(model, x_NF)
    base_F = baseline(factors(model.description))
    found_NF = integrated_gradients(model.module, x_NF, np.ones((20, 1)), base_F[None], 64)
    assert np.allclose(value_NF, found_NF, atol=1e-5, rtol=0)  # float32


@pytest.mark.parametrize("settings", [(HIDDEN,), (HIDDEN, THREE), (HIDDEN, 'model.activation="tanh"')])
def test_any_other_models_attributions_are_captums_and_add_up(settings: tuple[str, ...], tmp_path: Path) -> None:
    model, x_NF = trained(tmp_path, None, *settings), patients(40)
    (score,) = scores(model.description, outputs_of(model, x_NF))
    base_F = baseline(factors(model.description))
    found = attributions(model.module, x_NF, score.weight_NK, base_F)
    weight_NK = torch.from_numpy(score.weight_NK).float()

    def asked(x_B: Tensor, weight_BK: Tensor) -> Tensor:
        return (model.module(x_B) * weight_BK).sum(dim=1)

    theirs = IntegratedGradients(asked).attribute(
        torch.from_numpy(x_NF), torch.from_numpy(base_F[None]), additional_forward_args=weight_NK, n_steps=found.steps
    )
    assert found.method == "integrated-gradients"
    assert np.allclose(found.value_NF, theirs.detach().numpy(), atol=1e-7, rtol=0)
    _, score_N, base_N = of(model, x_NF)
    off_N = found.value_NF.sum(axis=1) - (score_N - base_N)
    assert np.abs(off_N).mean() <= 0.0101 * np.abs(score_N - base_N).mean()
    assert found.gap == pytest.approx(np.abs(off_N).mean() / np.abs(score_N - base_N).mean(), abs=1e-5)


def test_only_what_is_linear_by_its_very_type_is_taken_for_linear() -> None:
    class Bent(nn.Linear):
        def forward(self, x_BF: Tensor) -> Tensor:
            return super().forward(x_BF).square()

    for module in (
        Bent(3, 1), nn.Sequential(nn.Flatten(), Bent(3, 1)), nn.Sequential(nn.Linear(3, 1), nn.Sigmoid()),
        nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), nn.Sequential(nn.Sequential(nn.Linear(3, 1))), Of(torch.sign),
    ):  # fmt: skip
        assert linear_parts(module) is None
    for module in (nn.Linear(3, 2, bias=False), nn.Sequential(nn.Flatten(), nn.Linear(3, 1)), Signed([1, 0, -1])):
        assert linear_parts(module) is not None


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("bent", [False, True])
def test_a_column_alone_that_counts_is_the_one_that_is_named(place: int, bent: bool, tmp_path: Path) -> None:
    weights = [0.0] * 6
    weights[place] = 2.0
    module = linear(weights)
    model = trained(tmp_path, nn.Sequential(module, nn.Tanh()) if bent else module)
    found = explain(model, Looked(patients(60), None, "own"))
    named = NAMES[min(place, 3)]
    assert [effect.name for effect in found.explained[0].effects if effect.size > 0] == [named]
    assert found.dependence[0].name == named
    moved = [one.name for one in found.dependence if max(one.answers["malignant"]) - min(one.answers["malignant"])]
    assert moved == [named]


def test_names_move_with_their_columns(tmp_path: Path) -> None:
    """The same model with its columns in another order has the same figures under the same names."""
    model, x_NF = trained(tmp_path, linear([0.5, -1.0, 0.25, 1.0, 0.0, -2.0])), patients(60)
    told = explain(model, Looked(x_NF, None, "own"))
    order = [3, 4, 5, 2, 0, 1]  # stage, smoker, age, visits
    columns = [model.description.columns[place] for place in (3, 2, 0, 1)]
    document = model.description.model_dump() | {
        "columns": tuple(columns), "features": tuple(name for one in columns for name in one.features),
    }  # fmt: skip
    (weights,) = model.module[1].weight.tolist()  # type: ignore[index, operator, union-attr]
    other = Trained(
        type(model.description).model_validate(document), linear([weights[one] for one in order]), model.data
    )
    again = explain(other, Looked(np.ascontiguousarray(x_NF[:, order]), None, "own"))
    for one, same in zip(told.explained[0].effects, again.explained[0].effects, strict=True):
        assert (one.name, one.toward, one.away) == (same.name, pytest.approx(same.toward), pytest.approx(same.away))
    assert {one.name: one.answers for one in told.dependence} == {
        one.name: {name: pytest.approx(found) for name, found in one.answers.items()} for one in again.dependence
    }


def test_choices_of_a_category_are_added_up_before_signs_are_kept_apart(tmp_path: Path) -> None:
    x_NF = np.zeros((4, 6), dtype=np.float32)
    x_NF[[0, 1, 2, 3], [3, 3, 4, 5]] = 1  # stages I, I, II, III
    found = explain(trained(tmp_path, linear([0, 0, 0, 3.0, 0.0, -1.5])), Looked(x_NF, None, "own"))
    (effect,) = [one for one in found.explained[0].effects if one.name == "stage"]
    middle = (3.0 + 0.0 - 1.5) / 3  # what the baseline's stage adds
    added = np.array([3.0, 3.0, 0.0, -1.5]) - middle
    assert effect.toward == pytest.approx(added[added > 0].sum() / 4)
    assert effect.away == pytest.approx(-added[added < 0].sum() / 4)
    assert effect.size == pytest.approx(np.abs(added).mean())


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (lambda x_BF: torch.sign(x_BF[:, :1]), "what the features add does not add up to the model's answers"),
        (lambda x_BF: x_BF[:, :1].detach(), "have no gradient by its features"),
        (lambda x_BF: torch.from_numpy(np.tanh(x_BF.detach().numpy())[:, :1]), "have no gradient by its features"),
    ],
)
def test_a_model_that_torch_does_not_differentiate_is_refused_in_a_line(
    answer: Callable[[Tensor], Tensor], refused: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=refused) as caught:
        explain(trained(tmp_path, Of(answer)), Looked(patients(6), None, "own"))
    assert "\n" not in str(caught.value)


def test_without_captum_linear_models_are_explained_and_others_name_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    looked = Looked(patients(30), None, "own")
    assert explain(trained(tmp_path), looked).method == "exact"
    with pytest.raises(ConfigError, match=r"captum.*fedmodel\[explain\]"):
        explain(trained(tmp_path, None, HIDDEN), looked)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"columns": (), "features": (), "shape": (8,), "below": 256}, "reads text, whose features are tokens"),
        ({"task": "next-token", "target": {"size": (6,), "below": 9}, "loss": "cross-entropy", "labels": ()},
         "and this one is next-token"),
    ],
)  # fmt: skip
def test_what_has_no_columns_that_mean_the_same_in_each_record_is_refused_in_a_line(
    changes: dict[str, object], refused: str, tmp_path: Path
) -> None:
    plain = described(tmp_path)
    document = plain.model_dump() | {"threshold": None, **changes}
    other = type(plain).model_validate(document)
    with pytest.raises(ConfigError, match=refused) as caught:
        explain(Trained(other, linear([0.0]), b""), Looked(patients(3), None, "own"))
    assert "\n" not in str(caught.value)


def test_a_column_of_text_is_refused_too(tmp_path: Path) -> None:
    text = SCENARIO + '\n[[data.columns]]\nname = "note"\ntype = "text"\nlength = 8\n'
    with pytest.raises(ConfigError, match="reads text"):
        explain(trained(tmp_path, linear([0.0]), text=text), Looked(patients(3), None, "own"))
