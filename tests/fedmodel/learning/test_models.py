"""Models have the shape the scenario says, start as it says, and treat every record by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedmodel.config import TrainingConfig
from fedmodel.errors import ConfigError, ProtocolError
from fedmodel.kinds.layers import Dropout
from fedmodel.kinds.models.cnn import CnnConfig
from fedmodel.kinds.models.mlp import MlpConfig
from fedmodel.kinds.shape import DataShape
from fedmodel.learning import vectors
from fedmodel.learning.models import build_model, training_losses
from fedmodel.learning.tasks.classification import cross_entropy, mse, probabilities

CLASSIC = MlpConfig(kind="mlp", hidden=(64, 32), dropout=0.5)
FLAT = DataShape((10,), 2)
IMAGES = DataShape((1, 8, 8), 10)


def test_the_classic_network() -> None:
    module = build_model(CLASSIC, FLAT, seed=1)
    widths = [(layer.in_features, layer.out_features) for layer in module.modules() if isinstance(layer, nn.Linear)]
    assert widths == [(10, 64), (64, 32), (32, 1)]
    assert [layer.rate for layer in module.modules() if isinstance(layer, Dropout)] == [0.5, 0.5]
    assert sum(isinstance(layer, nn.ReLU) for layer in module.modules()) == 2
    assert vectors.parameter_count(module) == 2817


def test_the_cnn_normalises_by_groups_only() -> None:
    module = build_model(CnnConfig(kind="cnn"), IMAGES, seed=1)
    assert any(isinstance(layer, nn.GroupNorm) for layer in module.modules())
    assert list(module.buffers()) == []
    assert module(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_the_seed_decides_the_start_and_the_global_generator_does_not() -> None:
    torch.manual_seed(0)
    first = vectors.flatten(build_model(CLASSIC, FLAT, seed=1))
    state = torch.get_rng_state()
    torch.manual_seed(99)
    assert np.array_equal(first, vectors.flatten(build_model(CLASSIC, FLAT, seed=1)))
    assert not np.array_equal(first, vectors.flatten(build_model(CLASSIC, FLAT, seed=2)))
    torch.manual_seed(0)
    build_model(CLASSIC, FLAT, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("init", "value"), [("zero", None), ("constant", 0.25)])
def test_zero_and_constant_starts(init: str, value: float | None) -> None:
    config = MlpConfig.model_validate({"kind": "mlp", "hidden": [3], "init": init, "init_value": value})
    assert set(vectors.flatten(build_model(config, FLAT, seed=1)).tolist()) == {value or 0.0}


def test_a_cnn_needs_images_large_enough() -> None:
    with pytest.raises(ConfigError, match="needs images"):
        build_model(CnnConfig(kind="cnn"), FLAT, seed=1)
    with pytest.raises(ConfigError, match="4 poolings leave nothing of 8x8"):
        build_model(CnnConfig(kind="cnn", channels=(4, 4, 4, 4)), IMAGES, seed=1)


def test_losses_by_hand() -> None:
    logit = torch.tensor([[2.0], [-1.0]])
    label = torch.tensor([1, 0])
    expected = math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))
    assert float(cross_entropy(logit, label).sum()) == pytest.approx(expected)
    assert float(mse(logit, label).sum()) == pytest.approx(1 + 1)
    many = torch.tensor([[1.0, 2.0, 3.0]])
    assert float(cross_entropy(many, torch.tensor([2])).sum()) == pytest.approx(
        math.log(math.e + math.e**2 + math.e**3) - 3
    )
    assert float(mse(many, torch.tensor([2])).sum()) == pytest.approx(1 + 4 + 4)


@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
@pytest.mark.parametrize("outputs", [1, 4])
def test_probabilities_are_scores_between_zero_and_one(loss: str, outputs: int) -> None:
    score = probabilities(loss, torch.tensor([[-1e9] * outputs, [1e9] * outputs, [0.3] * outputs]))
    assert score.shape == (3, 2 if outputs == 1 else outputs)
    assert bool(((score >= 0) & (score <= 1)).all())


def test_vectors_go_there_and_back_bit_for_bit() -> None:
    source, target = build_model(CLASSIC, FLAT, seed=1), build_model(CLASSIC, FLAT, seed=2)
    vector = vectors.flatten(source)
    vectors.load(target, vector)
    assert np.array_equal(vectors.flatten(target), vector)


@pytest.mark.parametrize("spoil", ["long", "nan", "inf"])
def test_a_vector_that_does_not_fit_changes_nothing(spoil: str) -> None:
    module = build_model(CLASSIC, FLAT, seed=1)
    before = vectors.flatten(module)
    vector = np.append(before, np.float32(0)) if spoil == "long" else before.copy()
    if spoil != "long":
        vector[5] = np.nan if spoil == "nan" else np.inf
    with pytest.raises(ProtocolError):
        vectors.load(module, vector)
    assert np.array_equal(vectors.flatten(module), before)


def weighted(*weights: float) -> TrainingConfig:
    return TrainingConfig(
        loss="cross-entropy", optimizer="sgd", learning_rate=1.0, local_steps=1, class_weights=weights
    )


@pytest.mark.parametrize(("weights", "outputs"), [((1.0, 9.0), 1), ((2.0, 0.5, 2.0**20), 3)])
def test_a_records_loss_is_weighed_by_its_own_label_alone(weights: tuple[float, ...], outputs: int) -> None:
    """Nothing is divided by a sum of weights, as torch's own weighted loss does: that sum is of the others too."""
    losses = training_losses(weighted(*weights), DataShape((4,), len(weights)))
    generator = torch.Generator().manual_seed(3)
    output, label = torch.randn((9, outputs), generator=generator), torch.arange(9) % len(weights)
    own = cross_entropy(output, label) * torch.tensor(weights)[label]
    assert torch.equal(losses(output, label), own)
    for others in range(len(weights)):  # whatever the labels beside it
        beside = torch.full_like(label, others)
        beside[4] = label[4]
        assert torch.equal(losses(output, beside)[4], own[4])
    assert torch.equal(losses(output[:1], label[:1]), own[:1])


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 3.0), ()])
def test_as_many_weights_as_classes_or_one_line(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"class_weights has {len(weights)} weights, and the data has 2 classes"):
        training_losses(weighted(*weights), FLAT)
