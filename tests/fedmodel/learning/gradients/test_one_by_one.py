"""One record after the other: the sum is that of each record's own clipped gradient, of models that no other takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedmodel.kinds.layers import Dropout
from fedmodel.learning.gradients import KINDS
from fedmodel.learning.tasks.classification import cross_entropy
from fedmodel.privacy.noise import SeededNoise

CLIP, UNIT, NOTICED = 0.05, 2.0**-40, 42.0


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


class Noticing(nn.Module):
    """Answers all that come after a record of a kind the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.noticed, self.seen = nn.Linear(6, 2), 0, list[int]()

    def forward(self, x_BF: Tensor) -> Tensor:
        answer_B2: Tensor = self.layer(x_BF) * (-1.0 if self.noticed or self.seen else 1.0)
        if x_BF[0, 0] == NOTICED:
            self.noticed += 1
            self.seen.append(1)
        return answer_B2


class Warmed(nn.Module):
    """Has a number for a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.temperature = nn.Linear(6, 2), nn.Parameter(torch.tensor(0.7))

    def forward(self, x_BF: Tensor) -> Tensor:
        answer_B2: Tensor = self.layer(x_BF) * self.temperature
        return answer_B2


class Dropping(nn.Module):
    """Drops features before a scale of its own, and reaches no loss where it dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.scale_F = Dropout(0.5), nn.Parameter(torch.ones(6))

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.drop(x_BF) * self.scale_F


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


def test_what_a_record_leaves_in_the_model_reaches_none_after_it() -> None:
    """Else one record turns round all that follow it, and moves the sum by twice as many clips."""
    torch.manual_seed(1)
    sums = KINDS["one-by-one"](Noticing(), cross_entropy, max_grad_norm=CLIP, unit=UNIT, rows=8)
    x_BF, y_B = records()
    first_1F = x_BF[:1].clone()
    first_1F[0, 0] = NOTICED
    whole_P = sums.flat(torch.cat([first_1F, x_BF]), torch.cat([y_B[:1], y_B]))
    assert float((whole_P - sums.flat(x_BF, y_B)).norm()) <= CLIP


@pytest.mark.parametrize("kind", ["book-keeping", "hooks", "functional", "one-by-one"])
def test_a_parameter_that_is_one_number_is_taken(kind: str) -> None:
    torch.manual_seed(1)
    module = Warmed()
    x_BF, y_B = records()
    sums = KINDS[kind](module, cross_entropy, max_grad_norm=1e3, unit=UNIT, rows=8)
    found_P = sums.flat(x_BF, y_B)
    module.zero_grad()
    cross_entropy(module(x_BF), y_B).sum().backward()
    wanted_P = torch.cat([one.grad.flatten() for one in module.parameters() if one.grad is not None]).double()
    torch.testing.assert_close(found_P, wanted_P, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["book-keeping", "functional", "one-by-one"])
def test_gradients_are_of_the_masks_that_records_had(kind: str) -> None:
    """Of half the squared sum of what was kept, k features of c: the gradient is 4 k c^2 where they were, else 0."""
    module = Dropping().train()
    sums = KINDS[kind](module, lambda output_BF, _: output_BF.sum(dim=1) ** 2 / 2, max_grad_norm=1e9, unit=UNIT, rows=2)
    kept = []
    for seed in range(8):
        module.drop.source = SeededNoise(seed)
        found_F = sums.flat(torch.tensor([[1.0], [1000.0]]).expand(2, 6), torch.zeros(2, dtype=torch.long))
        second_F = (found_F / 4e6).round()
        first_F = ((found_F - 4e6 * second_F) / 4).round()
        for counted_F in (first_F, second_F):
            assert set(counted_F.tolist()) <= {0.0, float((counted_F > 0).sum())}
            kept.append(tuple((counted_F > 0).tolist()))
    assert len(set(kept)) > 8
