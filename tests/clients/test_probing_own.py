"""Canaries in models of a user's own: a pipeline with them is private, and each adds its clip to its own coordinate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedmodel.canaries.probes import Block
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.learning.inputs import made_up
from fedmodel.learning.preflight import preflight
from fedmodel.learning.tasks import task_of
from tests.fedmodel.learning.test_dp_sgd import clipped

CLIP, CANARIES = 0.5, 3
TOKENS = DataShape((), 7, inputs={"tokens": ArrayShape((4,), 7)}, target=ArrayShape((4,), 7), task="next-token")
NUMBERS = DataShape((6,), 0, target=ArrayShape(()), task="regression")


class Reading(nn.Module):
    """A transformer that looks back alone."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
        self.words, self.blocks, self.out = nn.Embedding(7, 8), nn.TransformerEncoder(layer, 1), nn.Linear(8, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.out(self.blocks(self.words(tokens), mask=mask, is_causal=True))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("shape", "gradients"),
    [(TOKENS, "functional"), (NUMBERS, "functional"), (NUMBERS, "per-sample")],
    ids=["tokens", "numbers", "numbers-per-sample"],
)
def test_canaries_beside_a_model_of_ones_own_write_their_own_coordinate_alone(shape: DataShape, gradients: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Reading() if shape is TOKENS else nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    block, task = Block(CANARIES), task_of(shape)
    losses = block.losses(next(iter(task.losses.values())), CLIP)
    summed = clipped(block.module(model), losses=losses, clip=CLIP, denominator=8, gradients_kind=gradients)
    assert preflight(summed, shape, CLIP) == summed.rows
    x, y = made_up(shape, 5, torch.Generator().manual_seed(2))
    named = dict(x) if not isinstance(x, Tensor) else {"features": x}
    without = summed.flat({**named, "canary": torch.zeros(5, dtype=torch.int64)}, y)
    more = {name: torch.cat([one, torch.zeros_like(one[:1])]) for name, one in named.items()}
    canary = torch.tensor([0] * 5 + [2])
    moved = summed.flat({**more, "canary": canary}, torch.cat([y, torch.zeros_like(y[:1])])) - without
    assert moved[: -CANARIES - 1].abs().max() == 0
    assert moved[-CANARIES - 1 :].abs().tolist() == pytest.approx([0, CLIP, 0, 0], rel=1e-6)
