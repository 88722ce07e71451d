"""One record after the other: the sum is that of each record's own clipped gradient, of models that no other takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedmodel.learning.gradients import KINDS
from fedmodel.learning.tasks.classification import cross_entropy

CLIP, UNIT = 0.05, 2.0**-40


class Asking(nn.Module):
    """Asks what a record holds: which layer it goes through, and whether it goes through any."""

    def __init__(self) -> None:
        super().__init__()
        self.high, self.low = nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x_BF: Tensor) -> Tensor:
        rows = [self.high(one) if one.sum() > 0 else self.low(one) if one.any() else one[:2] for one in x_BF]
        return torch.stack(rows)


class Gated(nn.Module):
    """A recurrent cell that torch cannot run side by side for many records."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x_BF: Tensor) -> Tensor:
        states, _ = self.cell(x_BF.view(len(x_BF), 3, 2))
        return self.out(states[:, -1])


def records() -> tuple[Tensor, Tensor]:
    """Return six records, of which some go through each way of `Asking`."""
    x_BF = torch.randn(6, 6, generator=torch.Generator().manual_seed(3))
    x_BF[1] = 0.0
    return x_BF, torch.arange(6) % 2


@pytest.mark.parametrize("make", [Asking, Gated])
@pytest.mark.parametrize("rows", [2, 4, 8])
def test_the_sum_is_that_of_each_records_own_clipped_gradient(make: type[nn.Module], rows: int) -> None:
    torch.manual_seed(1)
    module = make()
    x_BF, y_B = records()
    assert {int(torch.sign(one.sum())) for one in x_BF} == {-1, 0, 1}
    wanted_P = 0.0
    for x_F, y in zip(x_BF, y_B, strict=True):
        module.zero_grad()
        loss = cross_entropy(module(x_F[None]), y[None]).sum()
        if loss.requires_grad:
            loss.backward()
        parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in module.parameters()]
        own_P = torch.cat([part.flatten() for part in parts]).double()
        wanted_P = wanted_P + own_P * min(1.0, CLIP / max(float(own_P.norm()), 1e-30))
    sums = KINDS["one-by-one"](module, cross_entropy, max_grad_norm=CLIP, unit=UNIT, rows=rows)
    torch.testing.assert_close(sums.flat(x_BF, y_B), wanted_P, rtol=1e-5, atol=1e-8)


def test_a_record_moves_the_sum_by_no_more_than_the_clip_and_to_the_same_bits_among_any_others() -> None:
    torch.manual_seed(1)
    sums = KINDS["one-by-one"](Gated(), cross_entropy, max_grad_norm=CLIP, unit=UNIT, rows=4)
    x_BF, y_B = records()
    whole_P, last_P = sums.flat(x_BF, y_B), sums.flat(x_BF[5:], y_B[5:])
    assert torch.equal(whole_P - sums.flat(x_BF[:5], y_B[:5]), last_P)
    assert CLIP * 0.99 < float(last_P.norm()) <= CLIP
