"""Masks of dropout: of the secret source, for each record by itself, in a batch and side by side."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedmodel.errors import PrivacyError
from fedmodel.kinds.layers import ChannelDropout, Dropout, without_dropout
from fedmodel.privacy.noise import SeededNoise


def masks(layer: Dropout, x_B: Tensor, *, side_by_side: bool) -> Tensor:
    """What a layer drops of ones, as the factor of each place."""
    layer.source = SeededNoise(7)
    model = nn.Sequential(layer)

    def total(factor: Tensor, x: Tensor) -> Tensor:
        return (functional_call(model, {}, (factor * x[None],)) * 1.0).sum()

    if side_by_side:
        return vmap(grad(lambda factor, x: total(factor, x)), in_dims=(None, 0))(torch.ones(x_B.shape[1:]), x_B)
    return model(x_B)  # type: ignore[no-any-return]


@pytest.mark.parametrize("side_by_side", [False, True])
def test_each_record_has_a_mask_of_its_own_and_the_same_either_way(side_by_side: bool) -> None:
    found = masks(Dropout(0.25), torch.ones(400, 9), side_by_side=side_by_side)
    assert torch.equal(found, (found > 0) / torch.tensor(0.75))
    assert torch.allclose((found > 0).double().mean(dim=0), torch.tensor(0.75).double(), atol=0.11)  # five deviations
    assert len({tuple(row.tolist()) for row in found}) > 100  # of 512 there may be
    assert torch.equal(found, masks(Dropout(0.25), torch.ones(400, 9), side_by_side=not side_by_side))


@pytest.mark.parametrize("side_by_side", [False, True])
def test_whole_channels_are_dropped_of_each_record_by_itself(side_by_side: bool) -> None:
    found = masks(ChannelDropout(0.5), torch.ones(50, 8, 3, 2), side_by_side=side_by_side)
    assert torch.equal(found, found[:, :, :1, :1].expand_as(found))
    assert len({tuple(row.tolist()) for row in found[:, :, 0, 0]}) > 30
    rows = masks(ChannelDropout(0.5), torch.ones(50, 8), side_by_side=side_by_side)
    assert torch.equal(rows, found[:, :, 0, 0])


def test_without_a_source_nothing_is_dropped() -> None:
    layer = Dropout(0.5)
    with pytest.raises(PrivacyError, match="without a source"):
        layer(torch.ones(2, 2))
    assert torch.equal(layer.eval()(torch.ones(2, 2)), torch.ones(2, 2))


def test_it_is_switched_off_and_back_to_what_it_was() -> None:
    model = nn.Sequential(Dropout(0.5), ChannelDropout(0.5).eval())
    with without_dropout(model):
        assert not any(layer.training for layer in model)
    assert [layer.training for layer in model] == [True, False]
