"""What `fix` puts in a layer's place is private, keeps what can be kept, and is said; the model that it is given stays.

A layer that a refusal sends to `fix` is one that `fix` replaces.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import fedmodel
from fedmodel.errors import ConfigError, PrivacyError
from fedmodel.kinds.layers import ChannelDropout, Dropout
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.fixing import fix, groups_of
from tests.fedmodel.learning.test_dp_sgd import IMAGES
from tests.fedmodel.learning.test_refusals import Recurrent, check

Sequential, Linear = nn.Sequential, nn.Linear


def images(*layers: nn.Module) -> nn.Module:
    """Layers over 8 channels of images, with what makes a classifier of them."""
    return Sequential(nn.Conv2d(1, 8, 3, padding=1), *layers, nn.Flatten(), Linear(8 * 64, 10))


def rows(*layers: nn.Module) -> nn.Module:
    """Layers over 8 features."""
    return Sequential(Linear(6, 8), *layers, Linear(8, 1))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)
        self.into, self.blocks, self.out = Linear(1, 4), nn.TransformerEncoder(layer, 1), Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(self.into(x[:, :, None]))[:, -1])  # type: ignore[no-any-return]


FLAT = DataShape((6,), 2)
FIXED: list[tuple[Callable[[], nn.Module], DataShape, list[str]]] = [
    (
        lambda: images(nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        IMAGES,
        [
            "1: BatchNorm2d(8) is GroupNorm(2, 8), and its running statistics are dropped",
            "2: ReLU no longer works in place",
        ],
    ),
    (
        lambda: images(nn.BatchNorm2d(8, affine=False, track_running_stats=False)),
        IMAGES,
        ["1: BatchNorm2d(8) is GroupNorm(2, 8)"],
    ),
    (
        lambda: images(nn.SyncBatchNorm(8, track_running_stats=False)),
        IMAGES,
        ["1: SyncBatchNorm(8) is GroupNorm(2, 8)"],
    ),
    (
        lambda: images(nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
        IMAGES,
        ["1: InstanceNorm2d(8) keeps no running statistics"],
    ),
    (
        lambda: images(nn.Dropout2d(0.25)),
        IMAGES,
        ["1: Dropout2d(0.25) is our own ChannelDropout"],
    ),
    (
        lambda: rows(nn.BatchNorm1d(8), nn.Dropout(0.5, inplace=True)),
        FLAT,
        [
            "1: BatchNorm1d(8) is GroupNorm(1, 8), and its running statistics are dropped",
            "2: Dropout(0.5) is our own Dropout, of secret masks",
        ],
    ),
    (
        lambda: rows(Linear(8, 1), nn.BatchNorm1d(1), Linear(1, 8)),
        FLAT,
        ["2: BatchNorm1d(1) was taken out: one value has nothing to be normalised by"],
    ),
    (
        lambda: parametrizations.spectral_norm(Linear(6, 1)),
        FLAT,
        ["the model: spectral norm of 'weight' was taken out"],
    ),
    (lambda: rows(spectral_norm(Linear(8, 8))), FLAT, ["1: spectral norm of 'weight' was taken out"]),
    (
        lambda: Sequential(nn.Embedding(9, 4, max_norm=1.0), nn.Flatten(), Linear(24, 1)),
        DataShape((6,), 2, below=9),
        ["0: Embedding no longer shortens its weights to 1 as records pass"],
    ),
    (lambda: rows(nn.Tanh()), FLAT, []),
]  # fmt: skip
FUNCTIONAL: list[tuple[Callable[[], nn.Module], list[str]]] = [
    (
        partial(Recurrent, 0.5),
        ["cells: LSTM drops nothing any more, where it dropped 0.5 with masks that can be guessed"],
    ),
    (
        Transformer,
        [
            "blocks.layers.0.self_attn: MultiheadAttention drops nothing any more, where it dropped 0.2 with masks that"
            " can be guessed",
            "blocks.layers.0.dropout: Dropout(0.2) is our own Dropout, of secret masks",
            "blocks.layers.0.dropout1: Dropout(0.2) is our own Dropout, of secret masks",
            "blocks.layers.0.dropout2: Dropout(0.2) is our own Dropout, of secret masks",
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "shape", "changes"), FIXED)
def test_a_fixed_model_is_taken_and_what_was_done_is_said(
    make: Callable[[], nn.Module], shape: DataShape, changes: list[str]
) -> None:
    assert list(fix(make()).changes) == changes
    check(lambda: fix(make()).model, shape)
    if changes and not changes[-1].startswith("2: ReLU"):
        with pytest.raises(PrivacyError, match=r"fedmodel.fix\(model\) does it|keeps '1.weight_u'"):
            check(make, shape)


@pytest.mark.parametrize(("make", "changes"), FUNCTIONAL)
def test_a_fixed_model_of_recurrent_cells_or_attention_is_taken(
    make: Callable[[], nn.Module], changes: list[str]
) -> None:
    assert list(fix(make()).changes) == changes
    check(lambda: fix(make()).model, gradients="functional")
    with pytest.raises(PrivacyError, match=r"fedmodel.fix\(model\) does it"):
        check(make, gradients="functional")


def test_a_bag_of_embeddings_no_longer_shortens_its_weights() -> None:
    fixed = fix(nn.EmbeddingBag(9, 4, max_norm=0.5))
    assert str(fixed) == "the model: EmbeddingBag no longer shortens its weights to 0.5 as records pass"
    assert fixed.model.max_norm is None


def test_the_model_that_is_given_stays_as_it_is() -> None:
    model = images(nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.1))
    before = copy.deepcopy(model.state_dict())
    fixed = fix(model)
    assert repr(model) == repr(images(nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.1)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert fixed.model is not model
    assert str(fixed) == "\n".join(fixed.changes)
    assert str(fix(rows(nn.Tanh()))) == "nothing was changed"


def test_factors_shifts_modes_and_what_is_frozen_are_kept() -> None:
    norm = nn.BatchNorm2d(8, eps=0.25)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    norm.bias.requires_grad_(False)
    new = fix(Sequential(norm.eval(), nn.Dropout(0.5).eval())).model
    assert isinstance(new[0], nn.GroupNorm)
    assert torch.equal(new[0].weight, norm.weight)
    assert torch.equal(new[0].bias, norm.bias)
    assert (new[0].eps, new[0].weight.requires_grad, new[0].bias.requires_grad) == (0.25, True, False)
    assert new.training
    assert not any(layer.training for layer in (new[0], new[1]))


def test_a_layer_that_stands_in_several_places_stays_one() -> None:
    drop = nn.Dropout(0.5)
    new = fix(Sequential(drop, Linear(2, 2), drop)).model
    assert isinstance(new[0], Dropout)
    assert new[0] is new[2]


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_dropout_of_nothing_or_of_all_is_left(rate: float) -> None:
    assert not fix(Sequential(nn.Dropout(rate), nn.Dropout2d(rate))).changes


def test_groups_divide_channels_and_leave_each_at_least_four() -> None:
    for channels in range(1, 300):
        groups = groups_of(channels)
        assert channels % groups == 0
        assert groups == 1 or (groups <= 32 and channels // groups >= 4)


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    with pytest.warns(FutureWarning):
        model = weight_norm(Linear(2, 2))
    with pytest.raises(ConfigError, match="the model cannot be copied to be fixed: Only Tensors created explicitly"):
        fix(model)


def test_the_docs_show_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "own-models.md").read_text(encoding="utf-8")
    code, said = re.findall(r"```(?:python)?\n(.*?)```", page, re.DOTALL)[1:3]
    exec(compile(code, "own-models.md", "exec"), {})  # noqa: S102 - our own page
    assert capsys.readouterr().out == said


def test_it_is_on_the_face() -> None:
    assert fedmodel.fix is fix
    assert isinstance(fix(nn.Dropout3d(0.5)).model, ChannelDropout)


@pytest.mark.parametrize(
    ("given", "words"), [(3, "given a int"), (Linear, "given the class Linear"), (None, "NoneType")]
)
def test_what_is_no_model_is_refused_in_one_line(given: object, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^fix takes a torch.nn.Module that is made already, .*{words}$"):
        fix(given)  # type: ignore[type-var]
