"""Parameters outside of layers: each record's gradient is autograd's of it alone; other uses are refused by name."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.errors import PrivacyError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.choosing import chosen
from fedmodel.learning.gradients import KINDS
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.preflight import preflight
from fedmodel.learning.refusals import check_module
from tests.fedmodel.learning.test_dp_sgd import make

PLACES, SIZE, WIDTH, ROWS = 6, 4, 3, 8
UNIT = 2.0**-60  # so fine that sums on it are gradients


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(output, target, reduction="none")


class Patches(nn.Module):
    """A token in front and a table of places, as a vision transformer has them (Dosovitskiy et al. 2021)."""

    def __init__(self, places: int = PLACES) -> None:
        super().__init__()
        self.patch, self.out = nn.Linear(SIZE, 2 * WIDTH), nn.Linear(2 * WIDTH, 2)
        self.token, self.places = (nn.Parameter(torch.randn(1, one, 2 * WIDTH)) for one in (1, places + 4))
        self.layer = nn.TransformerEncoderLayer(2 * WIDTH, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.patch(x)], dim=1)
        return self.out(self.layer(x + self.places[:, : x.shape[1]])[:, 0])  # type: ignore[no-any-return]


class Using(nn.Module):
    """A layer, and parameters used as a function has it."""

    def __init__(self, use: Callable[..., Tensor], *sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.use, self.layer, self.out = use, nn.Linear(SIZE, WIDTH), nn.Linear(WIDTH, 2)
        self.several = nn.ParameterList(torch.randn(size) + 2 for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.use(self.layer(x), *self.several)).flatten(1, -2).mean(dim=1))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """A layer's weight that is used beside it too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(SIZE, WIDTH), nn.Linear(SIZE, 2)
        self.back = self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out((self.layer(x) @ self.back).mean(dim=1))  # type: ignore[no-any-return]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "token and places": Patches,
    "tied": Tied,
    "scale and shift": partial(Using, lambda x, scale, shift: scale * x + shift, (WIDTH,), (PLACES, WIDTH)),
    "the other way round": partial(Using, lambda x, one, two: (one - x) / two + 1 / x.cosh(), (WIDTH,), (1, 1, WIDTH)),
    "one number": partial(Using, lambda x, one: x * one, ()),
    "low rank": partial(Using, lambda x, down, up: x + x @ down.T @ up.mT, (2, WIDTH), (WIDTH, 2)),
    "linear": partial(Using, lambda x, weight: functional.linear(x, weight, None), (WIDTH, WIDTH)),
    "turned and cut": partial(
        Using, lambda x, one: x + one.t()[1:7].unsqueeze(0) * x - one.view(-1)[:WIDTH], (WIDTH, PLACES + 2)
    ),
    "in two": partial(Using, lambda x, one: x * one.chunk(2)[1] + one.chunk(2)[0], (2 * WIDTH,)),
    "used twice": partial(Using, lambda x, one: (x + one) * one.to(x.dtype), (1, PLACES, WIDTH)),
    "repeated": partial(Using, lambda x, one: x + one.repeat(x.shape[0], PLACES, 1), (1, 1, WIDTH)),
    "as the records": partial(Using, lambda x, one: torch.cat([x, one[None].expand_as(x)], dim=1), (PLACES, WIDTH)),
}
each_model = pytest.mark.parametrize("name", MODELS)


def records() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(5, PLACES, SIZE, generator=generator), torch.tensor([0, 1, 1, 0, 1])


@each_model
@pytest.mark.parametrize("rows", [1, ROWS])
def test_each_records_gradient_is_what_autograd_gives_of_it_alone(name: str, rows: int) -> None:
    torch.manual_seed(1)
    module = MODELS[name]()
    x, y = records()
    ours = BookKeeping(copy.deepcopy(module), cross_entropy, max_grad_norm=math.inf, unit=UNIT, rows=rows)
    clipped = BookKeeping(copy.deepcopy(module), cross_entropy, max_grad_norm=0.05, unit=UNIT, rows=rows)
    total = torch.zeros(())
    for place in range(len(x)):
        loss = cross_entropy(module(x[place : place + 1]), y[place : place + 1]).sum()
        own = torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(module.parameters()))])
        assert torch.allclose(ours.flat(x[place : place + 1], y[place : place + 1]).float(), own, atol=1e-6)
        total = total + own * min(1.0, clipped.clip / float(own.norm()))
    assert torch.allclose(clipped.flat(x, y).float(), total, atol=1e-6)


@each_model
def test_a_model_computes_the_same_and_has_its_own_parameters_again_afterwards(name: str) -> None:
    torch.manual_seed(2)
    module = MODELS[name]()
    x, y = records()
    ours = BookKeeping(module, cross_entropy, max_grad_norm=1.0, unit=UNIT, rows=len(x))
    expected, parameters = module(x), list(module.parameters())
    with ours._recorder.recording(len(x)):
        assert torch.allclose(module(x), expected, atol=1e-6)
    ours.add(x, y)
    assert all(one is other for one, other in zip(module.parameters(), parameters, strict=True))
    assert all(type(one) is nn.Parameter and one.requires_grad for one in parameters)


def test_a_vision_transformer_is_trained_by_book_keeping() -> None:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return Patches()

    shape = DataShape((PLACES, SIZE), 2)
    assert chosen(build, cross_entropy, shape).name == "book-keeping"
    check_module(build, cross_entropy, shape, None)


def test_a_model_with_its_own_parameters_moves_a_sum_by_no_more_than_the_clip() -> None:
    torch.manual_seed(1)
    module = MODELS["scale and shift"]()
    gradients = make(module, losses=cross_entropy, denominator=ROWS, gradients_kind="book-keeping").gradients
    assert preflight(gradients, DataShape((PLACES, SIZE), 2), 1.0) == gradients.rows


def test_places_that_are_as_many_as_records_are_not_taken_for_them() -> None:
    """Where a sequence goes first, what is added to it has a copy for each place, which shows in the sum."""
    torch.manual_seed(4)
    module = Using(lambda x, one: (x.transpose(0, 1) + one).transpose(0, 1), (WIDTH,))
    gradients = make(module, losses=cross_entropy, denominator=ROWS, gradients_kind="book-keeping").gradients
    with pytest.raises(PrivacyError, match="the model couples records"):
        preflight(gradients, DataShape((gradients.rows, SIZE), 2), 1.0)


@pytest.mark.parametrize(
    ("use", "size", "words"),
    [
        (lambda x, one: x + one.sum(), (WIDTH,), "'several.0' is used outside of a layer by 'sum'"),
        (lambda x, one: x + one * one, (WIDTH,), "by 'mul'"),
        (lambda x, one: torch.cat([x, one.expand(len(x) - 1, -1, -1)]), (1, PLACES, WIDTH), "by 'expand'"),
        (lambda x, one: torch.cat([one, x])[1:], (1, PLACES, WIDTH), "by 'cat'"),
        (lambda x, one: torch.add(input=x, other=one), (WIDTH,), "by 'add'"),
        (lambda x, one: functional.linear(x, one.detach(), bias=one[0]), (WIDTH, WIDTH), "by 'detach'"),
        (lambda x, one: functional.linear(x, x.new_ones(WIDTH, WIDTH), bias=one), (WIDTH,), "by 'linear'"),
        (lambda x, one: x.mul_(one), (WIDTH,), "by 'mul_'"),
        (lambda x, one: x + one.double(), (WIDTH,), "by 'double'"),
        (lambda x, one: x + one[torch.arange(len(x))], (9, PLACES, WIDTH), "by 'add'"),
    ],
)
def test_other_uses_are_refused_by_the_parameters_name(
    use: Callable[..., Tensor], size: tuple[int, ...], words: str
) -> None:
    torch.manual_seed(5)
    module = Using(use, size)
    ours = BookKeeping(module, cross_entropy, max_grad_norm=1.0, unit=UNIT, rows=ROWS)
    before = [one.detach().clone() for one in module.parameters()]
    with pytest.raises(PrivacyError, match=words) as refused:
        ours.flat(*records())
    assert "\n" not in str(refused.value)
    assert all(torch.equal(one, was) for one, was in zip(module.parameters(), before, strict=True))


def test_torchs_transforms_agree() -> None:
    torch.manual_seed(6)
    module = Patches()
    x, y = records()
    ours, theirs = (
        KINDS[one](copy.deepcopy(module), cross_entropy, max_grad_norm=0.05, unit=UNIT, rows=ROWS).flat(x, y)
        for one in ("book-keeping", "functional")
    )
    assert float((ours - theirs).norm()) <= 1e-3 * float(theirs.norm())
