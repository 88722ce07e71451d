"""A residual network has the layers of ResNet-18, and is private: each image by itself, in every kind of gradients."""

from __future__ import annotations

import re

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from fedmodel.errors import ConfigError
from fedmodel.kinds.models.resnet import ResnetConfig
from fedmodel.kinds.shape import DataShape
from fedmodel.kinds.standardised import StandardisedConv2d
from fedmodel.learning.models import parameters_of

IMAGES = DataShape((3, 32, 32), 10)


def small(**said: object) -> ResnetConfig:
    return ResnetConfig.model_validate({"kind": "resnet", "channels": [4, 8], "blocks": [1, 1], "groups": 2, **said})


def test_by_default_it_has_the_parameters_of_resnet_18_for_small_images() -> None:
    """He et al. 2016, table 1, with a stem of 3x3: 17 convolutions, 3 shortcuts, 20 norms and a linear layer."""
    sizes = [3 * 64, *[64 * 64] * 4, 64 * 128, *[128 * 128] * 3, 128 * 256, *[256 * 256] * 3, 256 * 512]
    sizes += [512 * 512] * 3
    shortcuts = 64 * 128 + 128 * 256 + 256 * 512
    norms = 2 * (5 * 64 + 5 * 128 + 5 * 256 + 5 * 512)
    assert parameters_of(ResnetConfig(kind="resnet"), IMAGES) == 9 * sum(sizes) + shortcuts + norms + 512 * 10 + 10


def test_stages_but_the_first_halve_an_image_and_what_goes_in_goes_around() -> None:
    module = small().build(DataShape((3, 8, 12), 5))
    stem, blocks = module[:3], module[3:5]
    x = torch.randn(2, 3, 8, 12)
    first = blocks[0](stem(x))
    assert first.shape == (2, 4, 8, 12)
    assert blocks[1](first).shape == (2, 8, 4, 6)
    assert module(x).shape == (2, 5)
    for parameter in blocks[0].body.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(blocks[0](stem(x)), stem(x))  # which is rectified already


def test_weights_of_every_convolution_are_standardised_where_it_is_asked_for() -> None:
    module = small(weight_standardization=True).build(IMAGES)
    found = [type(layer) for layer in module.modules() if hasattr(layer, "weight") and layer.weight.dim() == 4]
    assert found == [StandardisedConv2d] * 6
    assert "weight_standardization" not in small().model_dump_json()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"blocks": [1]}, "channels and blocks of each stage: two lists of one length"),
        ({"channels": [], "blocks": []}, "channels and blocks of each stage"),
        ({"groups": 3}, "groups = 3 does not divide channels of 4"),
    ],
)
def test_stages_that_do_not_agree_are_refused(said: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        small(**said)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (DataShape((12,), 2), 'model.kind = "resnet" needs images; this source has records of shape (12,)'),
        (DataShape((3, 1, 4), 2), "2 stages leave nothing of 1x4 images; use fewer"),
    ],
)
def test_what_is_no_image_is_refused(shape: DataShape, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        small().build(shape)
