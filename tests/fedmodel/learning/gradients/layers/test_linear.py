"""That a linear layer of few columns is the same layer with zeros behind it, and that its batches stay large."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from fedmodel.kinds.recomputed import recompute
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.gradients.layers._linear import filled_up
from fedmodel.learning.preflight import preflight
from tests.fedmodel.learning.test_precision import of_torch, summed, unclipped

ROWS = 64


def network(*widths: int) -> nn.Sequential:
    """Linear layers of these widths, with activations between; always the same parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        return nn.Sequential(*layers[:-1])


def rows(*widths: int) -> int:
    """Of a physical batch at which the network conforms."""
    return preflight(summed(network(*widths), "book-keeping", ROWS), DataShape((widths[0],), widths[-1]), 1.0)


class Apart(nn.Linear):
    """A layer that may compute what it likes."""


@pytest.mark.parametrize("widths", [(9, 3), (13, 5), (30, 8, 3), (9, 6, 10, 5), (7, 11)])
def test_as_many_rows_conform_as_at_a_multiple_of_four_and_the_gradient_is_torchs(widths: tuple[int, ...]) -> None:
    even = tuple(-(-width // 4) * 4 for width in widths)
    assert rows(*widths) == rows(*even) > 1
    x, y = torch.randn(ROWS, widths[0], generator=torch.Generator().manual_seed(0)), torch.arange(ROWS) % widths[-1]
    whole = of_torch(network(*widths), x, y)
    assert float((unclipped(network(*widths), "book-keeping", x, y) - whole).norm() / whole.norm()) < 1e-6


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 9), (4, 5, 9)])
def test_a_layer_that_is_filled_up_is_the_same_layer(shape: tuple[int, ...], bias: bool) -> None:
    layer = nn.Linear(9, 3, bias=bias)
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    compute = filled_up(layer)
    assert compute is not None
    assert torch.allclose(compute(x), layer(x), atol=1e-6)
    assert compute(x).shape == layer(x).shape


def test_only_a_plain_layer_whose_rows_would_differ_is_filled_up() -> None:
    own = nn.Linear(9, 3)
    own.forward = lambda x: own.weight.sum() + x  # type: ignore[method-assign]
    odd: list[nn.Module] = [nn.Linear(9, 3), nn.Linear(5, 5), nn.Linear(8, 9)]
    even: list[nn.Module] = [nn.Linear(8, 3), nn.Linear(13, 1), nn.Linear(30, 16), nn.Linear(12, 8), nn.Linear(64, 6)]
    others = [Apart(9, 3), own, nn.Linear(9, 3, dtype=torch.bfloat16), nn.Linear(9, 3, device="meta")]
    others.append(nn.Conv2d(9, 3, 1))
    assert all(filled_up(layer) is not None for layer in odd)
    assert all(filled_up(layer) is None for layer in [*even, *others])


def test_a_layer_computes_as_ever_once_a_pass_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    module = network(9, 3)
    before = copy.deepcopy(module.state_dict())
    seen: list[Tensor] = []
    plain = nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda x, *rest: seen.append(x) or plain(x, *rest))
    unclipped(module, "book-keeping", torch.zeros(ROWS, 9), torch.arange(ROWS) % 3)
    module(torch.zeros(ROWS, 9))
    assert [one.shape[1] for one in seen] == [12, 9]
    assert "forward" not in vars(module[0])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Block(GradientCheckpointingLayer):
    """A block that can be computed again, of layers that would be filled up."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(9, 6), nn.Linear(6, 9)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.tanh(self.first(x)))  # type: ignore[no-any-return]


def test_a_block_that_is_computed_again_is_the_same_both_times() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = nn.Sequential(nn.Linear(9, 9), Block(), Block(), nn.Linear(9, 3)).train()
    x, y = torch.randn(ROWS, 9, generator=torch.Generator().manual_seed(0)), torch.arange(ROWS) % 3
    whole = of_torch(copy.deepcopy(module), x, y)
    recompute(module)
    assert float((unclipped(module, "book-keeping", x, y) - whole).norm() / whole.norm()) < 1e-6
