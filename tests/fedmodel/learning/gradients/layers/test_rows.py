"""Linear layers at one row each are one part: the same sums, bounded norms, and only where that is all there is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fedmodel.errors import PrivacyError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.gradients.layers import recording
from fedmodel.learning.gradients.layers.rows import Rows
from fedmodel.learning.preflight import preflight
from fedmodel.learning.tasks import RecordLoss
from fedmodel.privacy import grid
from scenarios.selftest import mutations
from scenarios.selftest.planting import replaced
from tests.fedmodel.learning.gradients.test_book_keeping import CLASSES, Tied, cross_entropy

ROWS, UNIT = 8, 2.0**-60


def mlp(*, bias: bool = True) -> nn.Module:
    torch.manual_seed(1)
    first = nn.Linear(6, 5, bias=bias)
    return nn.Sequential(first, nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, CLASSES, bias=bias))


def made(module: nn.Module, losses: RecordLoss = cross_entropy, clip: float = 0.7) -> BookKeeping:
    return BookKeeping(module, losses, max_grad_norm=clip, unit=UNIT, rows=ROWS)


def records(count: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 6, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


class Backwards(nn.Module):
    """Layers in another order than they are called in."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(5, CLASSES), nn.Linear(6, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))  # type: ignore[no-any-return]


class Twice(nn.Module):
    """One layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.last = nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.own(torch.tanh(self.own(x)))))  # type: ignore[no-any-return]


class Positions(nn.Module):
    """A layer at several positions, behind one at one row."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.last = nn.Linear(6, 6), nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.own(x).view(-1, 2, 3)).sum(dim=1)  # type: ignore[no-any-return]


class Side(nn.Module):
    """A layer whose output is used on two ways, and one that is changed in place afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.next, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.own(x)
        return self.last(self.next(torch.relu(hidden)).relu_() + hidden)  # type: ignore[no-any-return]


def frozen() -> nn.Module:
    module = mlp()
    assert isinstance(module, nn.Sequential)
    module[2].bias.requires_grad_(False)
    return module


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
@pytest.mark.parametrize("build", [mlp, partial(mlp, bias=False), Backwards, Side])
def test_sums_are_those_of_each_layer_by_itself(
    build: Callable[[], nn.Module], bad: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = records(19)
    if bad is not None:
        x[3, 2] = bad
    torch.manual_seed(3)
    module = build()
    one = made(module)
    (part,) = one._parts(x[:ROWS], y[:ROWS])
    assert isinstance(part, Rows)
    found = one.flat(x, y)
    one._recorder.remove()
    monkeypatch.setattr(recording, "layers_of", lambda *_: None)
    other = made(module)
    assert len(other._parts(x[:ROWS], y[:ROWS])) == len(list(module.parameters()))
    expected = other.flat(x, y)
    assert float((found - expected).norm()) <= 1e-12 * float(expected.norm())
    assert bool(expected.any())


@pytest.mark.parametrize("build", [Twice, Tied, Positions, frozen])
def test_any_other_model_is_taken_layer_by_layer(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(3)
    module = build()
    x, y = records()
    losses = cross_entropy if build is not Tied else lambda output, _: output[:, 0]
    ours = made(module, losses, math.inf)
    assert not any(isinstance(part, Rows) for part in ours._parts(x, y))
    trained = [one for one in module.parameters() if one.requires_grad]
    whole = torch.autograd.grad(losses(module(x), y).sum(), trained)
    expected = torch.cat([one.flatten() for one in whole]).double()
    assert float((ours.flat(x, y) - expected).norm()) <= 1e-5 * float(expected.norm())


def test_several_views_of_a_record_are_taken_layer_by_layer() -> None:
    ours, (x, y) = made(mlp()), records()
    ours.views = 2
    assert not any(isinstance(part, Rows) for part in ours._parts(x.repeat_interleave(2, dim=0), y))


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_no_record_is_longer_than_the_clip(scale: float) -> None:
    """In rational numbers, with factors of a scale and its inverse."""
    torch.manual_seed(5)
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2, bias=False))
    ours = made(module, lambda output, slope: (output * slope).sum(dim=1))
    x, slope = torch.randn(ROWS, 3) * scale, torch.randn(ROWS, 2) / scale
    (part,) = ours._parts(x, slope)
    assert isinstance(part, Rows)
    factor_B = ours._factors([part], ROWS)
    for row, factor in enumerate(factor_B.tolist()):
        square = Fraction(0)
        for left, right, bias in zip(part.lefts, part.rights, (1, 0), strict=True):
            lengths = [sum(Fraction(value) ** 2 for value in side[row].tolist()) for side in (left, right)]
            square += lengths[0] * (lengths[1] + bias)
        assert 0 < Fraction(factor) ** 2 * square <= Fraction(ours.clip) ** 2


@pytest.mark.parametrize("place", range(6))
def test_a_norm_that_leaves_one_tensor_out_is_found(place: int) -> None:
    with mutations.clip_misses(place), pytest.raises(PrivacyError, match="times the clip, where at most 1"):
        preflight(BookKeeping(mlp(), cross_entropy, max_grad_norm=1.0, unit=grid.fine(1.0), rows=ROWS), SHAPE, 1.0)


SHAPE = DataShape((6,), CLASSES)


def test_a_record_whose_bits_hang_on_its_companions_is_found() -> None:
    """Of what goes into a hash: factors of all layers, on both sides."""
    ours, (x, y) = made(mlp()), records(ROWS)
    odd_P = torch.randint(-(2**62), 2**62, (99,), generator=torch.Generator().manual_seed(0)) * 2 + 1
    (part,) = ours._parts(x, y)
    assert isinstance(part, Rows)
    before = part.hashed(odd_P)
    for one in (*part.lefts, *part.rights):
        was, one[3, 0] = one[3, 0].clone(), one[3, 0] * (1 + 2.0**-20) + 2.0**-140
        changed = part.hashed(odd_P) != before
        one[3, 0] = was
        assert changed.tolist() == [row == 3 for row in range(ROWS)]


class Operations(TorchDispatchMode):
    """Counts what is asked of torch's kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def test_a_physical_batch_takes_few_calls() -> None:
    """Work is counted, not time: half as many again where each tensor is taken by itself."""
    ours, (x, y) = made(mlp()), records()
    ours.flat(x, y)

    def calls(of: BookKeeping) -> int:
        with Operations() as seen:
            of.add(x, y)
        return seen.counts.total()

    assert (few := calls(ours)) <= 110
    with replaced(recording, "layers_of", lambda *_: None):
        other = made(mlp())
    assert calls(other) > 1.5 * few
