"""Standardised weights have mean 0 and variance 1/fan-in, and each record's gradient is that of the parameter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code
from fedmodel.kinds.models.own import OwnConfig
from fedmodel.kinds.shape import DataShape
from fedmodel.kinds.standardised import Standardised, StandardisedConv2d, StandardisedLinear, standardised
from fedmodel.learning import beside_opacus  # noqa: F401 - teaches Opacus, as "hooks" does
from fedmodel.learning.models import build_model

LAYERS: dict[str, tuple[Callable[[], Standardised], tuple[int, ...]]] = {
    "linear": (lambda: StandardisedLinear(7, 4), (7,)),
    "linear of positions": (lambda: StandardisedLinear(7, 4), (5, 7)),
    "convolution": (lambda: StandardisedConv2d(2, 6, 3), (2, 5, 4)),
    "wide convolution": (lambda: StandardisedConv2d(3, 2, 5), (3, 6, 6)),
    "steps, without bias": (lambda: StandardisedConv2d(2, 4, (3, 2), stride=2, padding=(1, 0), bias=False), (2, 6, 5)),
    "linear without bias": (lambda: StandardisedLinear(7, 4, bias=False), (7,)),
}
each_layer = pytest.mark.parametrize(("made", "size"), LAYERS.values(), ids=LAYERS)


def seeded(made: Callable[[], Standardised]) -> Standardised:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return made()


@each_layer
@pytest.mark.parametrize("magnitude", [1.0, 1e6])
def test_weights_are_used_with_mean_zero_and_variance_one_over_fan_in(
    made: Callable[[], Standardised], size: tuple[int, ...], magnitude: float
) -> None:
    layer = seeded(made)
    with torch.no_grad():
        layer.weight.mul_(10 * magnitude).add_(3 * magnitude)
        used_OW = layer.standardised().flatten(1).double()
    assert used_OW.mean(dim=1).abs().max() < 1e-5
    assert (used_OW.square().sum(dim=1) - 1).abs().max() < 1e-4
    assert layer(torch.ones(2, *size)).shape[:2] == (2, 5 if size == (5, 7) else layer.weight.shape[0])


def test_weights_that_are_all_alike_are_used_as_zeros() -> None:
    layer = seeded(lambda: StandardisedLinear(7, 4))
    nn.init.constant_(layer.weight, 0.25)
    assert layer.standardised().abs().max() == 0
    assert layer(torch.ones(1, 7)).isfinite().all()


@each_layer
def test_a_records_gradient_is_that_of_the_record_alone(
    made: Callable[[], Standardised], size: tuple[int, ...]
) -> None:
    """By the formula that Opacus was taught, and by torch's differentiation of one record."""
    layer = seeded(made)
    x_B = torch.randn(6, *size, generator=torch.Generator().manual_seed(4))
    expected = vmap(grad(lambda values, x: functional_call(layer, values, (x[None],)).square().sum()), (None, 0))(
        dict(layer.named_parameters()), x_B
    )
    wrapped = GradSampleModule(layer, loss_reduction="sum", strict=True, force_functorch=False)
    torch.autograd.backward(wrapped(x_B).square().sum())
    for name, parameter in layer.named_parameters():
        found: Any = parameter.grad_sample  # type: ignore[attr-defined]
        assert found.shape == expected[name].shape
        assert (found - expected[name]).abs().max() < 1e-5 * expected[name].abs().max(), name


def test_opacus_uses_the_formula_and_no_differentiation_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []
    real = Standardised.pulled_back
    monkeypatch.setattr(Standardised, "pulled_back", lambda self, g: asked.append(g) or real(self, g))  # type: ignore[func-returns-value]
    layer = seeded(lambda: StandardisedConv2d(2, 6, 3))
    torch.autograd.backward(GradSampleModule(layer, loss_reduction="sum")(torch.ones(3, 2, 4, 4)).sum())
    assert [tuple(one.shape) for one in asked] == [(3, 6, 18)]


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_all_layers_but_the_last_are_standardised(model: str) -> None:
    told = {"mlp": {"hidden": (5, 4)}, "cnn": {"channels": (4, 8)}}[model]
    settings = [f"model.{key}={list(value)}" for key, value in told.items()]
    config = read_scenario(
        "digits", [f"model={{kind={model!r}}}", *settings, "model.weight_standardization=true"]
    ).model
    layers = [*build_model(config, DataShape((1, 8, 8), 10), seed=1).modules()]
    assert sum(isinstance(layer, Standardised) for layer in layers) == 2
    assert sum(isinstance(layer, nn.Linear | nn.Conv2d) for layer in layers) == 1


class Residual(nn.Module):
    """A shortcut of steps, one layer in two places, and one of another type."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False)
        self.short = nn.Conv2d(1, 4, 1, stride=2)
        self.again = self.mixed = nn.Linear(16, 16)
        self.attention = nn.MultiheadAttention(16, 2)
        self.out = nn.Linear(16, 3)


def test_a_model_of_ones_own_keeps_its_parameters_and_has_other_layers_in_their_place() -> None:
    plain = Residual()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    plain.short.weight = nn.Parameter(torch.ones(4, 2, 1, 1))  # of one input, its weight would be 0
    plain.short.in_channels = 2
    module = standardised(plain)
    assert module.again is module.mixed
    types = [type(one).__name__ for one in (module.into, module.short, module.mixed, module.attention, module.out)]
    assert types == ["StandardisedConv2d", "StandardisedConv2d", "StandardisedLinear", "MultiheadAttention", "Linear"]
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items() if not name.startswith("short"))
    x = torch.randn(2, 1, 8, 8)
    conv = nn.functional.conv2d(x, module.into.standardised(), stride=2, padding=1)
    assert torch.equal(module.into(x), conv)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Conv2d(2, 4, 3, groups=2), "the layer '0', a convolution in groups"),
        (nn.Conv2d(2, 4, 3, dilation=2), "the layer '0'"),
        (nn.Conv2d(2, 4, 3, padding="same"), "the layer '0'"),
        (nn.Conv2d(2, 4, 3, padding_mode="reflect", padding=1), "the layer '0'"),
        (nn.Linear(1, 4), "one input would be 0"),
        (nn.Conv1d(2, 4, 3), "and the model has none"),
    ],
)
def test_what_is_not_standardised_is_said(layer: nn.Module, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        standardised(nn.Sequential(layer, nn.Linear(4, 2)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("own", [True, False])
def test_a_function_with_an_argument_of_that_name_is_given_it_and_does_so_itself(own: bool) -> None:
    def asks(weight_standardization: bool) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2), nn.Linear(2, 1 + weight_standardization))

    def plain() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))

    own_code.hand_over("script:net", asks if own else plain)
    made = OwnConfig(kind="own", use="script:net", weight_standardization=True).build(DataShape((2,), 2))
    own_code.close()
    assert [type(one).__name__ for one in made] == (["Linear"] * 3 if own else ["StandardisedLinear", "Linear"])
    assert not own or made[-1].out_features == 2


def test_a_scenario_that_does_not_ask_for_it_keeps_its_text(tiny_file: Path) -> None:
    assert "weight_standardization" not in read_scenario(str(tiny_file)).model_dump_json()
    assert "weight_standardization" not in read_scenario("digits").model_dump_json()


def test_where_there_is_nothing_to_standardise_it_is_refused(tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"hidden = \[\] has none; leave it out"):
        read_scenario(str(tiny_file), ["model.weight_standardization=true"])
    config = read_scenario(str(tiny_file), ["model.weight_standardization=true", "model.hidden=[3]"]).model
    with pytest.raises(ConfigError, match="the weight of one input would be 0; leave it out"):
        build_model(config, DataShape((1,), 2), seed=1)
    assert build_model(config, DataShape((2,), 2), seed=1)(torch.ones(1, 2)).isfinite().all()
