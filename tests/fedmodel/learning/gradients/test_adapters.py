"""Gradients of adapters on a base: each kind's clipped sum is that of records one at a time, by autograd alone."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmodel.config import TrainingConfig
from fedmodel.data.named import each
from fedmodel.kinds.layers import Dropout, without_dropout
from fedmodel.kinds.shape import IGNORED, DataShape
from fedmodel.learning.conformance import conforms
from fedmodel.learning.gradients import kind
from fedmodel.learning.inputs import Inputs, called
from fedmodel.learning.models import build_model, training_losses
from fedmodel.learning.preflight import check_sums
from fedmodel.learning.tasks import RecordLoss
from fedmodel.privacy import grid
from fedmodel.privacy.noise import SeededNoise
from tests.bases import CLASSES, LABELS, LENGTH, NEXT_TOKEN, TOKENS, config_of, make_base

LORA: dict[str, Any] = {"targets": ["query", "value", "dense"], "rank": 3}
CLIP = 0.5
WAYS: dict[str, tuple[str, str, DataShape, dict[str, Any], tuple[str, ...]]] = {
    "classes": ("encoder", "sequence-classification", CLASSES, LORA, ("book-keeping", "hooks", "functional")),
    "biases": ("encoder", "sequence-classification", CLASSES, {"adapt": "bitfit"}, ("book-keeping", "hooks")),
    "head": ("encoder", "sequence-classification", CLASSES, {"adapt": "head"}, ("book-keeping",)),
    "a pooler of no base": ("masked", "sequence-classification", CLASSES, LORA, ("book-keeping",)),
    "head of each token": ("encoder", "token-classification", LABELS, {"adapt": "head"}, ("book-keeping", "hooks")),
    "head on features": ("encoder", "feature-extraction", CLASSES, {"adapt": "head"}, ("book-keeping",)),
    "biases of hidden": ("masked", "masked-lm", NEXT_TOKEN, {"adapt": "bitfit"}, ("functional",)),
    "features": ("encoder", "feature-extraction", CLASSES, LORA, ("book-keeping",)),
    "each token": ("encoder", "token-classification", LABELS, LORA, ("book-keeping",)),
    "hidden": ("masked", "masked-lm", NEXT_TOKEN, LORA, ("book-keeping",)),
    "next token": (
        "decoder", "causal-lm", NEXT_TOKEN, {"targets": ["c_attn", "c_fc"], "rank": 3}, ("book-keeping", "functional")
    ),
    "a base in bf16": (
        "encoder", "sequence-classification", CLASSES, {**LORA, "base_precision": "bf16"},
        ("book-keeping", "hooks", "functional", "one-by-one"),
    ),
    "biases of a base in bf16": (
        "encoder", "sequence-classification", CLASSES, {"adapt": "bitfit", "base_precision": "bf16"},
        ("book-keeping", "hooks"),
    ),
    "a decoder in 4 bits": (
        "decoder", "causal-lm", NEXT_TOKEN, {"targets": ["c_attn"], "rank": 3, "base_precision": "nf4"},
        ("book-keeping", "functional"),
    ),
    "biases of each token": ("encoder", "token-classification", LABELS, {"adapt": "bitfit"}, ("hooks",)),
    "biases on features": ("encoder", "feature-extraction", CLASSES, {"adapt": "bitfit"}, ("book-keeping",)),
    "biases of a decoder": ("decoder", "causal-lm", NEXT_TOKEN, {"adapt": "bitfit"}, ("hooks",)),
}  # fmt: skip
LENGTHS = (LENGTH, 1, 5, 0, LENGTH - 1, 2, LENGTH)  # cut off, of one token, padded, of none


def records(shape: DataShape) -> tuple[dict[str, Tensor], Tensor]:
    """Return texts of all lengths, of one of which no position is learnt."""
    generator = torch.Generator().manual_seed(5)
    mask_NT = (torch.arange(LENGTH) < torch.tensor(LENGTHS)[:, None]).long()
    token_NT = torch.randint(1, TOKENS, (len(LENGTHS), LENGTH), generator=generator) * mask_NT
    y_N = torch.randint(shape.targets.below or 2, (len(LENGTHS), *shape.targets.size), generator=generator)
    if shape.targets.size:
        y_N = torch.where(mask_NT > 0, y_N, IGNORED)
    return {"tokens": token_NT, "mask": mask_NT}, y_N


def prepared(module: nn.Module) -> nn.Module:
    """Move what trains off its beginning, where half of an adapter has no gradient."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for one in module.parameters():
            if one.requires_grad:
                one.add_(0.3 * torch.randn(one.shape, generator=generator))
    return module


def one_at_a_time(module: nn.Module, losses: RecordLoss, x_N: Inputs, y_N: Tensor, clip: float) -> Tensor:
    """Return the sum of clipped gradients by its definition."""
    trained, total = [one for one in module.parameters() if one.requires_grad], torch.zeros(())
    for place in range(len(y_N)):
        row = slice(place, place + 1)
        loss = losses(called(module, each(x_N, lambda one: one[row])), y_N[row]).sum()  # noqa: B023 - at once
        grad_P = torch.cat([one.reshape(-1) for one in torch.autograd.grad(loss, trained)]).double()
        total = total + grad_P * min(1.0, clip / max(float(grad_P.norm()), 1e-30))
    return total


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for name in ("encoder", "masked", "decoder"):
        make_base(folder / name, name)
    return folder


def losses_of(shape: DataShape) -> RecordLoss:
    config = TrainingConfig(loss="cross-entropy", optimizer="sgd", learning_rate=1.0, local_steps=1)
    return training_losses(config, shape)


@pytest.mark.parametrize("way", WAYS)
def test_clipped_sums_of_adapters_are_those_of_records_one_at_a_time(made: Path, way: str) -> None:
    base, task, shape, said, kinds = WAYS[way]
    config, losses, (x_N, y_N) = config_of(made / base, task, **said), losses_of(shape), records(shape)
    stack = ExitStack()
    for name in kinds:
        module = prepared(build_model(config, shape, seed=1)).train()
        for clip in (CLIP, 1e4):
            gradients = kind(name)(
                prepared(build_model(config, shape, seed=1)), losses, max_grad_norm=clip, unit=2.0**-40, rows=4
            )
            for one in (module, gradients.module):
                stack.enter_context(without_dropout(one))  # a model that hides tokens hides the same ones
            expected_P = one_at_a_time(module, losses, x_N, y_N, clip)
            sum_P = torch.cat([one.reshape(-1) for one in gradients.of(x_N, y_N, np.arange(len(y_N)))])
            assert float((sum_P - expected_P).abs().max()) < 1e-5 * max(1.0, float(expected_P.abs().max())), name
            assert float(expected_P.abs().max()) > 1e-3  # and is not nothing
            empty = gradients.of(x_N, y_N, np.arange(0))
            assert not any(bool(one.any()) for one in empty)


@pytest.mark.parametrize("held", ["float32", "bf16", "nf4"])
def test_one_record_moves_a_sum_of_adapters_by_no_more_than_the_clip(made: Path, held: str) -> None:
    config = config_of(made / "encoder", "sequence-classification", base_precision=held, **LORA)
    module = prepared(build_model(config, CLASSES, seed=1))
    gradients = kind("book-keeping")(module, losses_of(CLASSES), max_grad_norm=1.0, unit=grid.fine(1.0), rows=4)
    assert 0 < check_sums(gradients, CLASSES, 1.0, (1.0,), (3, 4)) <= 1.0
    assert conforms(
        gradients, CLASSES, thorough=False
    )  # a record's own is its own to the bit, at any place and in any company


def test_masks_of_adapters_dropout_are_drawn_anew_and_make_another_sum(made: Path) -> None:
    config = config_of(made / "encoder", "sequence-classification", **LORA, dropout=0.5)
    x_N, y_N = records(CLASSES)
    module = prepared(build_model(config, CLASSES, seed=1))
    source = SeededNoise(1)
    for layer in module.modules():
        if hasattr(layer, "source"):
            layer.source = source  # type: ignore[assignment]
    gradients = kind("book-keeping")(module, losses_of(CLASSES), max_grad_norm=1.0, unit=grid.fine(1.0), rows=4)
    one, other = (torch.cat([part.reshape(-1) for part in gradients.of(x_N, y_N, np.arange(4))]) for _ in range(2))
    assert not torch.equal(one, other)


class Replayed:
    """Masks of adapters' dropout: drawn for a batch, and given again row by row, in the order of the layers.

    It stands in for the source that `Dropout` asks.
    """

    def __init__(self, rows: int) -> None:
        self._rows, self._generator = rows, torch.Generator().manual_seed(4)
        self.kept: list[Tensor] = []
        self.row: int | None = None
        self._next = 0

    def keep(self, count: int, share: float, device: torch.device) -> Tensor:
        """Return which of so many activations are kept."""
        if self.row is None:
            drawn = (torch.rand(count, generator=self._generator) < share).float().to(device)
            self.kept.append(drawn.view(self._rows, -1))
            return drawn
        mask_BF = self.kept[self._next % len(self.kept)]
        self._next += 1
        assert mask_BF[self.row].numel() == count
        return mask_BF[self.row]


DROPPED = [
    ("classes", "book-keeping"), ("classes", "hooks"), ("features", "book-keeping"), ("each token", "book-keeping"),
    ("next token", "book-keeping"), ("a decoder in 4 bits", "book-keeping"),
]  # fmt: skip


@pytest.mark.parametrize(("way", "name"), DROPPED)
def test_with_dropout_of_adapters_a_sum_is_that_of_records_under_their_own_masks(
    made: Path, way: str, name: str
) -> None:
    base, task, shape, said, _ = WAYS[way]
    config, without = (config_of(made / base, task, **said, dropout=share) for share in (0.5, 0.0))
    losses, (x_N, y_N) = losses_of(shape), records(shape)
    module, source = prepared(build_model(config, shape, seed=1)).train(), Replayed(8)
    dropped = [layer for layer in module.modules() if isinstance(layer, Dropout)]
    for layer in dropped:
        layer.source = source  # type: ignore[assignment]
    gradients = kind(name)(module, losses, max_grad_norm=CLIP, unit=2.0**-40, rows=8)
    sum_P = torch.cat([one.reshape(-1) for one in gradients.of(x_N, y_N, np.arange(len(y_N)))])
    adapters = sum(name.endswith("lora_A.default.weight") for name, _ in module.named_parameters())
    assert len(source.kept) == len(dropped) == adapters > 1  # a mask for each layer with an adapter
    trained, expected_P = [one for one in module.parameters() if one.requires_grad], torch.zeros(())
    for place in range(len(y_N)):
        source.row, row = place, slice(place, place + 1)
        loss = losses(called(module, each(x_N, lambda one: one[row])), y_N[row]).sum()  # noqa: B023 - at once
        grad_P = torch.cat([one.reshape(-1) for one in torch.autograd.grad(loss, trained)]).double()
        expected_P = expected_P + grad_P * min(1.0, CLIP / max(float(grad_P.norm()), 1e-30))
    assert float((sum_P - expected_P).abs().max()) < 1e-5
    source.row = None
    other_P = one_at_a_time(prepared(build_model(without, shape, seed=1)), losses, x_N, y_N, CLIP)
    assert float((other_P - expected_P).abs().max()) > 1e-3  # and masks are of matter
