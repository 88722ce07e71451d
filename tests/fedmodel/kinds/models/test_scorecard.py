"""A score card's weights have the declared signs whatever noise does, and its gradients are a linear model's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds.models.scorecard import ScorecardConfig
from fedmodel.kinds.shape import DataShape
from fedmodel.kinds.signed import Signed
from fedmodel.learning.models import build_model
from tests.fedmodel.learning.test_dp_sgd import clipped

SHAPE = DataShape((3,), 2, ("debt", "income", "months"))
CARD = ScorecardConfig(kind="scorecard", rising=("debt",), falling=("income",))


def of(module: nn.Module) -> Signed:
    """The layer of a score card."""
    (layer,) = (one for one in module.modules() if isinstance(one, Signed))
    return layer


def test_no_weight_has_another_sign_than_the_declared_one() -> None:
    layer = of(CARD.build(SHAPE))
    for first in (-2.0, 2.0):
        for second in (-3.0, 3.0):
            layer.weight.data = torch.tensor([first, second, first])
            expected = [max(first, 0.0), min(second, 0.0), first]
            assert layer.weights().tolist() == expected
            assert layer(torch.eye(3)).flatten().tolist() == pytest.approx([w + layer.bias.item() for w in expected])


def test_more_of_what_rises_never_lowers_the_score_after_steps_of_noise() -> None:
    layer = of(CARD.build(SHAPE))
    x_BF = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    more = torch.tensor([[1.0, 0.0, 0.0]])
    for seed in range(20):
        torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(seed))
        assert (layer(x_BF + more) >= layer(x_BF)).all()
        assert (layer(x_BF + more.roll(1, dims=1)) <= layer(x_BF)).all()


def test_a_weight_on_the_wrong_side_is_moved_as_a_linear_models_and_comes_back() -> None:
    card, linear = Signed([1, -1, 0]), nn.Linear(3, 1)
    card.weight.data = torch.tensor([-0.5, 0.25, 1.0])
    linear.weight.data, linear.bias.data = card.weights().detach()[None], card.bias.data.clone()
    x_BF, y_B = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]]), torch.tensor([1, 0])
    sums = [
        clipped(nn.Sequential(module), clip=0.7, gradients_kind="functional").flat(x_BF, y_B)
        for module in (card, linear)
    ]
    assert torch.allclose(*sums, atol=1e-6)
    assert (sums[0][:3] != 0).all()


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (replace(SHAPE, names=("debt", "incom", "months")), "model.falling: unknown feature 'income'; did you mean"),
        (replace(SHAPE, names=()), "model.rising: unknown feature 'debt'; known: none, since features of this source"),
        (replace(SHAPE, classes=3), "tells two classes apart"),
        (replace(SHAPE, task="regression", classes=0), "tells two classes apart"),
        (replace(SHAPE, below=9), "takes records that are one array of real numbers"),
    ],
)
def test_what_it_cannot_be_made_for_is_refused(shape: DataShape, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        CARD.build(shape)
    assert said in str(refused.value)


def test_a_feature_has_one_direction() -> None:
    for setting in ('model.falling=["months"]', 'model.rising=["amount", "amount"]'):
        with pytest.raises(ConfigError, match=r"model.*rising and falling name '(months|amount)' twice"):
            read_scenario("credit", [setting])


def test_the_shipped_card_is_one_of_its_data() -> None:
    scenario = read_scenario("credit")
    assert of(build_model(scenario.model, scenario.data.shape, seed=1)).signs.count(0) == 3
