"""Blocks that are computed again: the same gradients to the bit, the same draws, and less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fedmodel.config import TrainingConfig
from fedmodel.errors import ConfigError, PrivacyError
from fedmodel.kinds.layers import Dropout
from fedmodel.kinds.recomputed import is_again, is_recomputed, recompute
from fedmodel.kinds.shape import IGNORED, DataShape
from fedmodel.learning.conformance import conforms
from fedmodel.learning.gradients import kind
from fedmodel.learning.memory import held_at_most, one_pass
from fedmodel.learning.models import build_model, training_losses
from fedmodel.learning.precision import in_precision
from fedmodel.privacy.noise import SeededNoise
from tests.bases import CLASSES, LENGTH, NEXT_TOKEN, TOKENS, config_of, make_base

LORA: dict[str, Any] = {"targets": ["query", "dense"], "rank": 3}
OF_GPT: dict[str, Any] = {"targets": ["c_attn", "c_proj"], "rank": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for name in ("encoder", "decoder"):
        make_base(folder / name, name)
    return folder


def pipeline(folder: Path, name: str, rounds: Any = "float32", rows: int = 4, **said: Any) -> Any:
    """Return the clipped sums of a base with adapters that were moved off their beginning."""
    decoder = folder.name == "decoder"
    task, shape = ("causal-lm", NEXT_TOKEN) if decoder else ("sequence-classification", CLASSES)
    module = build_model(config_of(folder, task, **(OF_GPT if decoder else LORA), **said), shape, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for one in module.parameters():
            if one.requires_grad:
                one.add_(0.3 * torch.randn(one.shape, generator=generator))
    source = SeededNoise(1)
    for layer in module.modules():
        if isinstance(layer, Dropout):
            layer.source = source
    config = TrainingConfig(loss="cross-entropy", optimizer="sgd", learning_rate=1.0, local_steps=1)
    losses = training_losses(config, shape)
    return kind(name)(in_precision(module, rounds), losses, max_grad_norm=0.5, unit=2.0**-40, rows=rows)


def records(shape: DataShape) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(5)
    mask_NT = (torch.arange(LENGTH) < torch.tensor([LENGTH, 1, 5, 0, LENGTH, 2])[:, None]).long()
    token_NT = torch.randint(1, TOKENS, mask_NT.shape, generator=generator) * mask_NT
    y_N = torch.randint(shape.targets.below or 2, (len(mask_NT), *shape.targets.size), generator=generator)
    return {"tokens": token_NT, "mask": mask_NT}, torch.where(mask_NT > 0, y_N, IGNORED) if shape.target else y_N


def sum_of(gradients: Any, shape: DataShape) -> Tensor:
    x_N, y_N = records(shape)
    return torch.cat([one.reshape(-1) for one in gradients.of(x_N, y_N, np.arange(len(y_N)))])


@pytest.mark.parametrize(("kind_of_base", "name", "said"), [
    ("encoder", "book-keeping", {}),
    ("encoder", "one-by-one", {}),
    ("decoder", "book-keeping", {"base_precision": "nf4"}),
    ("encoder", "book-keeping", {"rounds": "bf16"}),
    ("encoder", "book-keeping", {"dropout": 0.4}),
    ("decoder", "one-by-one", {"dropout": 0.4}),
])  # fmt: skip
def test_sums_are_those_of_a_model_that_keeps_all_to_the_bit(
    made: Path, kind_of_base: str, name: str, said: dict[str, Any]
) -> None:
    shape = NEXT_TOKEN if kind_of_base == "decoder" else CLASSES
    plain, again = (pipeline(made / kind_of_base, name, gradient_checkpointing=one, **said) for one in (False, True))
    expected_P = sum_of(plain, shape)
    assert float(expected_P.abs().max()) > 1e-3
    assert torch.equal(sum_of(again, shape), expected_P)
    assert is_recomputed(again.module)
    assert not is_recomputed(plain.module)
    # With dropout the next step draws others, the same in both.
    assert torch.equal(sum_of(again, shape), sum_of(plain, shape))
    assert torch.equal(sum_of(again, shape), expected_P) == ("dropout" not in said)


def test_each_mask_is_drawn_once_and_nothing_is_left_behind(made: Path) -> None:
    gradients = pipeline(made / "encoder", "book-keeping", dropout=0.4, gradient_checkpointing=True, rows=8)
    layers = [one for one in gradients.module.modules() if isinstance(one, Dropout)]
    drawn = []

    class Counted(SeededNoise):
        def keep(self, size: int, rate: float, device: torch.device) -> Tensor:
            drawn.append(size)
            return super().keep(size, rate, device)

    source = Counted(1)
    for one in layers:
        one.source = source
    asks = [one.requires_grad for one in gradients.module.parameters()]
    sum_of(gradients, CLASSES)
    assert len(drawn) == len(layers) > 4
    assert all(one.source is source for one in layers)
    assert [one.requires_grad for one in gradients.module.parameters()] == asks
    assert not is_again()


def test_a_record_is_its_own_to_the_bit_at_any_place_and_in_any_company(made: Path) -> None:
    assert conforms(pipeline(made / "encoder", "book-keeping", gradient_checkpointing=True), CLASSES, thorough=False)


def test_a_pass_holds_less(made: Path) -> None:
    def held(*, again: bool) -> int:
        gradients = pipeline(made / "decoder", "book-keeping", gradient_checkpointing=again, rows=64)
        return held_at_most(torch.device("cpu"), one_pass(gradients, NEXT_TOKEN, 64))

    assert held(again=True) < 0.8 * held(again=False)


def test_kinds_that_would_count_a_layer_twice_refuse(made: Path) -> None:
    with pytest.raises(PrivacyError, match=r"twice, .*; set training.gradients"):
        pipeline(made / "encoder", "hooks", gradient_checkpointing=True)
    with pytest.raises(Exception, match=r"torch\.func"):  # of torch itself, told by whoever tries the kind
        sum_of(pipeline(made / "encoder", "functional", gradient_checkpointing=True), CLASSES)


def test_what_cannot_be_computed_again_is_refused_in_one_line(made: Path) -> None:
    with pytest.raises(ConfigError, match="Linear has no blocks that transformers computes again; leave it out"):
        recompute(nn.Linear(2, 2))
    with pytest.raises(ValidationError, match="passes no gradient back to a block"):
        config_of(made / "encoder", "feature-extraction", adapt="head", gradient_checkpointing=True)


def test_a_document_says_it_only_where_it_is_said(made: Path) -> None:
    for said in (False, True):
        config = config_of(made / "encoder", "feature-extraction", gradient_checkpointing=said, **LORA)
        assert config.model_dump(mode="json").get("gradient_checkpointing", False) == said
        assert ("gradient_checkpointing" in config.model_dump(mode="json")) == said
