"""Book-keeping: equal to Opacus's hooks, and bounded at its worst: each row of the tables, and each promise broken."""

from __future__ import annotations

import copy
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.errors import DataError, PrivacyError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.gradients import kind
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.gradients.layers import _convolution, packing, parts, products
from fedmodel.learning.gradients.layers._embedding import Looked
from fedmodel.learning.gradients.layers.parts import Kept, Part
from fedmodel.learning.gradients.layers.products import Again, Anew, Factors, Outer, is_of_ieee
from fedmodel.learning.memory import held_at_most
from fedmodel.learning.preflight import preflight
from fedmodel.learning.tasks import RecordLoss
from scenarios.selftest import mutations
from tests.fedmodel.learning.test_dp_sgd import make

ROWS, CLASSES = 8, 3
UNIT = 2.0**-60  # so fine that sums on it are gradients


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(output, target, reduction="none")


class Sequences(nn.Module):
    """A table, layers that are used twice, a norm, and padded positions that count nothing."""

    def __init__(self, *, tied: bool, frozen: bool, padding: int | None) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 6, padding_idx=padding)
        self.mixed, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)
        self.words, self.out = nn.Linear(6, 20, bias=False), nn.Linear(20, CLASSES)
        if tied:
            self.words.weight = self.table.weight
        if frozen:
            self.mixed.requires_grad_(False)

    def forward(self, index: Tensor) -> Tensor:
        hidden = self.norm(self.mixed(torch.tanh(self.mixed(self.table(index)))))
        counted = (index > 0)[:, :, None]
        return self.out((self.words(hidden) * counted).sum(dim=1))  # type: ignore[no-any-return]


class Adapted(nn.Module):
    """Low-rank adapters beside a frozen layer."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.frozen = nn.Linear(5, 7).requires_grad_(False)
        self.down, self.up, self.out = nn.Linear(5, rank, bias=False), nn.Linear(rank, 7), nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.frozen(x) + self.up(self.down(x))).mean(dim=1))  # type: ignore[no-any-return]


class Masked(nn.Module):
    """Dropout of given masks, which come with the records."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(5, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.into(x[:, :5])) * (x[:, 5:] > 0))  # type: ignore[no-any-return]


def convolutions(dimensions: int, groups: int, stride: int, dilation: int, bias: bool) -> nn.Module:
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    instance = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[dimensions - 1]
    one = nn.Flatten(2), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(8, CLASSES)
    return nn.Sequential(
        conv(2, 4, 3, stride=stride, padding=1, bias=bias, padding_mode="zeros"),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        conv(4, 4, 3 if bias else 2, groups=groups, dilation=dilation, padding="same" if bias else "valid"),
        instance(4, affine=True),
        *one,
    )


@st.composite
def models(draw: st.DrawFn) -> tuple[Callable[[], nn.Module], tuple[int, ...], int]:
    """A model, the size of its records, and how many words they are of, 0 of real numbers."""
    match draw(st.sampled_from(["layers", "sequences", "convolutions", "adapters", "masks"])):
        case "layers":
            widths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
            layers: list[Callable[[], nn.Module]] = []
            for before, after in zip([5, *widths], widths, strict=False):
                norm = draw(st.sampled_from([nn.Identity, partial(nn.LayerNorm, after), partial(nn.RMSNorm, after)]))
                layers += [partial(nn.Linear, before, after, bias=draw(st.booleans())), norm, nn.Tanh]
            last = partial(nn.Linear, widths[-1], CLASSES)
            return lambda: nn.Sequential(*(layer() for layer in layers), last()), (5,), 0
        case "sequences":
            how = {name: draw(st.booleans()) for name in ("tied", "frozen")}
            padding = draw(st.sampled_from([None, 0, 3]))
            return partial(Sequences, **how, padding=padding), (draw(st.integers(1, 12)),), 20
        case "convolutions":
            dimensions = draw(st.integers(1, 3))
            numbers = [draw(st.sampled_from(some)) for some in ([1, 2, 4], [1, 2], [1, 2], [False, True])]
            return partial(convolutions, dimensions, *numbers), (2, *(draw(st.integers(7, 9)),) * dimensions), 0
        case "adapters":
            return partial(Adapted, draw(st.integers(1, 3))), (draw(st.integers(1, 9)), 5), 0
        case _:
            return Masked, (11,), 0


@settings(max_examples=25, deadline=None)
@given(model=models(), count=st.integers(0, 19), seed=st.integers(0, 999), clip=st.sampled_from([math.inf, 0.1, 3.0]))
def test_a_sum_is_that_of_opacus_hooks(
    model: tuple[Callable[[], nn.Module], tuple[int, ...], int], count: int, seed: int, clip: float
) -> None:
    build, size, words = model
    torch.manual_seed(seed)
    module = build()
    x = torch.randint(words, (count, *size)) if words else torch.randn((count, *size))
    y = torch.randint(CLASSES, (count,))
    ours = BookKeeping(copy.deepcopy(module), cross_entropy, max_grad_norm=clip, unit=UNIT, rows=ROWS)
    # Opacus gives the padding's row a gradient, which torch does not.
    other = "functional" if any(getattr(one, "padding_idx", None) is not None for one in module.modules()) else "hooks"
    expected = kind(other)(module, cross_entropy, max_grad_norm=ours.clip, unit=UNIT, rows=ROWS).flat(x, y)
    # Of gradients that cancel out, as those of a shift before a norm, rounding is all that there is.
    assert float((ours.flat(x, y) - expected).norm()) <= 1e-5 * float(expected.norm()) + 1e-6 * count


@pytest.mark.parametrize("lanes", [1, 10**9], ids=["torch's kernel", "products"])
@pytest.mark.parametrize(
    ("dimensions", "how"),
    [
        (1, {"stride": 2, "padding": 1}),
        (1, {"dilation": 2, "padding": "same", "groups": 2}),
        (2, {"padding": (2, 1), "padding_mode": "circular"}),
        (2, {"stride": (1, 2), "dilation": (2, 1), "groups": 4}),
        (2, {"padding": 1, "padding_mode": "reflect", "groups": 2}),
        (3, {"stride": 2, "padding": 1, "groups": 2}),
    ],
)
def test_a_convolutions_gradients_are_those_of_each_record(
    lanes: int, dimensions: int, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of records that lie in memory as others do, and of some cut from others, a few of them at once."""
    monkeypatch.setattr(_convolution, "_MANY", 1)
    monkeypatch.setattr(_convolution, "_LANES", lanes)
    monkeypatch.setattr(_convolution, "CACHED", 2_000)
    torch.manual_seed(4)
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1](4, 8, 3, **how)
    for x in (torch.randn(5, 4, *[7] * dimensions), torch.randn(5, 5, *[7] * dimensions).transpose(1, -1)[:, :4]):
        output = layer(x)
        slope = torch.randn(output.shape)
        (weight, _) = _convolution.parts(layer, x, slope)
        assert isinstance(weight, Outer)
        for some in (slice(0, 5), slice(1, 3)):
            found = weight.factors.grads(some)
            for own, one, of in zip(found, x[some], slope[some], strict=True):
                (expected,) = torch.autograd.grad(layer(one[None]), layer.weight, of[None])
                assert torch.allclose(own, expected.flatten(), rtol=1e-5, atol=1e-5)


class Attending(nn.Module):
    """Torch's attention, of which hooks know nothing."""

    def __init__(self, *, first: bool, other: int | None, weights: bool, masked: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=first, kdim=other, vdim=other)
        self.keys, self.out = nn.Linear(8, other or 8), nn.Linear(8, CLASSES)
        self.first, self.crossed, self.weights, self.masked = first, other is not None, weights, masked

    def forward(self, x: Tensor) -> Tensor:
        keys = self.keys(x)
        query, key = (x, keys) if self.crossed else (keys, keys)
        if not self.first:
            query = query.transpose(0, 1)
            key = key.transpose(0, 1) if self.crossed else query
        elif not self.crossed:
            key = query
        later = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1) if self.masked else None
        padding = (x[:, :, 0] < -1) & (torch.arange(5) > 0) if self.masked else None
        mixed, _ = self.attention(
            query, key, key, need_weights=self.weights, attn_mask=later, key_padding_mask=padding, is_causal=self.masked
        )
        return self.out(mixed.mean(dim=1 if self.first else 0))  # type: ignore[no-any-return]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("other", [None, 8, 6])
@pytest.mark.parametrize(("weights", "masked"), [(True, True), (False, True), (False, False)])
def test_attention_is_taken_apart_into_what_it_is(first: bool, other: int | None, weights: bool, masked: bool) -> None:
    torch.manual_seed(1)
    module = Attending(first=first, other=other, weights=weights, masked=masked)
    x, y = torch.randn(7, 5, 8), torch.randint(CLASSES, (7,))
    whole = torch.autograd.grad(cross_entropy(module(x), y).sum(), list(module.parameters()))
    before = set(vars(module.attention))
    ours = BookKeeping(module, cross_entropy, max_grad_norm=math.inf, unit=UNIT, rows=ROWS)
    found = ours.flat(x, y)
    expected = torch.cat([one.flatten() for one in whole]).double()
    assert float((found - expected).norm()) <= 1e-5 * float(expected.norm())
    assert set(vars(module.attention)) == before


def test_layers_of_transformers_train_by_book_keeping() -> None:
    torch.manual_seed(2)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    module = nn.Sequential(layer, nn.Flatten(), nn.Linear(40, CLASSES))
    x, y = torch.randn(7, 5, 8), torch.randint(CLASSES, (7,))
    whole = torch.autograd.grad(cross_entropy(module(x), y).sum(), list(module.parameters()))
    ours = BookKeeping(module, cross_entropy, max_grad_norm=math.inf, unit=UNIT, rows=ROWS)
    expected = torch.cat([one.flatten() for one in whole]).double()
    assert float((ours.flat(x, y) - expected).norm()) <= 1e-5 * float(expected.norm())


class Products(nn.Module):
    """A linear layer at T positions, of which a test says both factors: records are one, and targets the other."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x_BTd: Tensor) -> Tensor:
        return self.linear(x_BTd)  # type: ignore[no-any-return]


def slopes(output_BTp: Tensor, target_BTp: Tensor) -> Tensor:
    # Zero times what is not finite would be NaN, where a slope is what is asked for.
    return (output_BTp.nan_to_num(0.0, 0.0, 0.0) * target_BTp).sum(dim=(1, 2))


def hostile_factors(positions: int, inputs: int, outputs: int, seed: int, scale: float) -> tuple[Tensor, Tensor]:
    """One record whose positions cancel in pairs but for some last bits, its factors of a scale and its inverse."""
    generator = torch.Generator().manual_seed(seed)
    half = positions // 2
    x_Td = torch.randn((half, inputs), generator=generator).repeat(2, 1)
    y_Tp = torch.randn((half, outputs), generator=generator).repeat(2, 1)
    y_Tp[half:] *= -1 + 2.0**-22 * torch.randint(-2, 3, (half, 1), generator=generator)
    return x_Td[None] * scale, y_Tp[None] / scale


@pytest.fixture(params=[False, True], ids=["short", "long"])
def long(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients added up by products, and one by one, whatever their length."""
    monkeypatch.setattr(parts, "_LONG", 1 if request.param else 10**9)


@pytest.fixture(params=[Kept, Again, Anew, Outer])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, long: None) -> type[Part]:
    """Each way of outer products, whatever the shapes say."""

    def forced(self: Outer) -> Part:
        return self.kept() if request.param is Kept else request.param(self.parameter, self.factors, self.rows)

    monkeypatch.setattr(Outer, "cheapest", forced)
    return request.param  # type: ignore[no-any-return]


each_scale = pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])


def parts_of(gradients: BookKeeping, x: Tensor, y: Tensor) -> list[Part]:
    return gradients._parts(x, y)


def exact(x_Td: Tensor, y_Tp: Tensor, some: int = 4) -> list[Fraction]:
    """The gradient of a record in rational numbers: of its first rows and columns, where there are many."""
    left = [[Fraction(value) for value in row[:some]] for row in y_Tp.tolist()]
    right = [[Fraction(value) for value in row[:some]] for row in x_Td.tolist()]
    return [
        sum((a[p] * b[d] for a, b in zip(left, right, strict=True)), Fraction(0))
        for p in range(len(left[0]))
        for d in range(len(right[0]))
    ]


@pytest.mark.parametrize(
    ("positions", "inputs", "outputs", "few", "most", "way"),
    [
        (64, 3, 4, 0, 0, Kept),
        (32, 50, 50, 0, ROWS * 2_500, Kept),
        (32, 50, 50, 0, ROWS * 2_500 - 1, Again),
        (32, 400, 400, 0, 0, Anew),
        (16, 40, 40, ROWS * 1_600, 10**6, Kept),
        (16, 40, 40, ROWS * 1_600 - 1, 10**6, Outer),
        (2, 3, 4, 0, 10**6, Outer),
        (1, 3, 4, 10**6, 10**6, Outer),
    ],
)
def test_the_way_follows_from_shapes(
    positions: int, inputs: int, outputs: int, few: int, most: int, way: type[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_FEW", few)
    monkeypatch.setattr(products, "_SMALL", most)
    gradients = BookKeeping(Products(inputs, outputs), slopes, max_grad_norm=1.0, unit=2.0**-31, rows=ROWS)
    (part,) = parts_of(gradients, torch.zeros(3, positions, inputs), torch.zeros(3, positions, outputs))
    assert type(part) is way


@each_scale
def test_norms_are_upper_bounds_where_positions_cancel(scale: float) -> None:
    """A float32 Gram matrix had half of such norms wrong by their whole size, and let 52.9 clips through."""
    for seed in range(20):
        x, y = hostile_factors(64, 4, 3, seed, scale)
        square = sum((one * one for one in exact(x[0], y[0])), Fraction(0))
        outer = Outer(nn.Parameter(torch.zeros(3, 4)), factors_of(x, y))
        (square_1, reach_1), kept = outer.squares(), outer.kept()
        assert Fraction(float(square_1)) >= square * (1 - Fraction(1, 2**22))
        assert float(square_1) <= float(square) + 2.0**-39 * float(reach_1)
        own = sum((Fraction(one) ** 2 for one in kept.grad_BP[0].tolist()), Fraction(0))  # as float32 has it
        for found_1, _ in (kept.squares(), Again(outer.parameter, outer.factors).squares()):
            assert abs(Fraction(float(found_1)) - own) <= own / 2**22


@each_scale
@pytest.mark.parametrize("views", [1, 4])
def test_a_norm_bounds_a_gradient_as_float32_rounds_it(scale: float, views: int) -> None:
    """One large product, and 63 that are a little more than half of its last place: each sum is rounded up."""
    x = torch.ones(1, 64, 4) * scale
    y = torch.full((1, 64, 3), 1.01 * 2.0**-24) / scale
    y[:, :: 64 // views] = 1 / scale
    outer = Outer(nn.Parameter(torch.zeros(3, 4)), factors_of(x.view(views, -1, 4), y.view(views, -1, 3)))
    outer = outer.folded(views)
    (bound_1, reach_1), true_1 = Anew(outer.parameter, outer.factors).squares(), outer.squares()[0]
    own = sum((Fraction(one) ** 2 for one in outer.kept().grad_BP[0].tolist()), Fraction(0))
    assert torch.equal(bound_1, reach_1)
    assert Fraction(float(true_1)) * (1 + Fraction(1, 2**22)) < own <= Fraction(float(bound_1))


@each_scale
def test_a_norm_bounds_a_gradient_of_which_rounding_is_all_there_is(scale: float) -> None:
    for seed in range(20):
        x, y = hostile_factors(64, 4, 3, seed, scale)
        anew = Anew(nn.Parameter(torch.zeros(3, 4)), factors_of(x, y))
        own = sum((Fraction(one) ** 2 for one in anew.kept().grad_BP[0].tolist()), Fraction(0))
        assert own <= Fraction(float(anew.squares()[0]))


def test_gradients_too_small_or_too_large_for_float32_are_bounded_all_the_same() -> None:
    """What is lost is counted; an entry past the largest number counts nothing, as of any record that is not finite."""
    for exponents in ((-80, -60), (-140, 100), (100, 100)):
        x, y = (torch.randn(1, 32, size) * 2.0**power for size, power in zip((4, 3), exponents, strict=True))
        anew = Anew(nn.Parameter(torch.zeros(3, 4)), factors_of(x, y))
        bound = float(anew.squares()[0])
        summed = anew.summed(torch.ones(1, dtype=torch.float64))
        assert summed.isfinite().all()
        assert float(summed.norm()) ** 2 <= bound < math.inf


@pytest.mark.parametrize(("asked", "is_so"), [("highest", True), ("high", False), ("medium", False)])
def test_products_are_of_float32_only_where_nothing_else_was_asked_for(
    asked: str, is_so: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: asked)
    gradients = BookKeeping(Products(400, 400), slopes, max_grad_norm=1.0, unit=2.0**-31, rows=ROWS)
    (part,) = parts_of(gradients, torch.zeros(3, 32, 400), torch.zeros(3, 32, 400))
    assert type(part) is (Anew if is_so else Outer)


@pytest.mark.parametrize("before", [None, 7.0])
def test_no_tensor_keeps_a_gradient_that_nothing_clips(before: float | None) -> None:
    """Of a loss's own, which the next pass could read."""
    weight = torch.ones(3, requires_grad=True)
    weight.grad = None if before is None else torch.full((3,), before)
    gradients = BookKeeping(
        nn.Linear(4, 3), lambda out, _: (out * weight).sum(dim=1), max_grad_norm=1.0, unit=2.0**-31, rows=ROWS
    )
    gradients.add(torch.randn(2, 4), torch.zeros(2))
    gradients.add(torch.randn(2, 4), torch.zeros(2))
    assert any(bool(one.any()) for one in gradients.take())
    assert (None if weight.grad is None else weight.grad.tolist()) == (None if before is None else [before] * 3)


def test_a_kernel_that_rounds_to_16_bits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    own = products.conv1d_weight

    def rounded(x: Tensor, size: tuple[int, ...], y: Tensor) -> Tensor:
        return own(x.bfloat16().float(), size, y.bfloat16().float())

    assert is_of_ieee.__wrapped__("highest")
    monkeypatch.setattr(products, "conv1d_weight", rounded)
    assert not is_of_ieee.__wrapped__("highest")


def bmm(x: Tensor, y: Tensor, some: slice) -> Tensor:
    return torch.bmm(y[some].mT, x[some]).flatten(1)


@each_scale
@pytest.mark.parametrize("positions", [64, 1])
@pytest.mark.usefixtures("way")
def test_one_record_moves_a_sum_by_at_most_the_clip_on_hostile_factors(positions: int, scale: float) -> None:
    """Exactly: movements are whole steps of the grid, whose squares are added up as whole numbers."""
    clip, unit, inputs, outputs = 0.5, 2.0**-32, 3, 4
    for seed in range(4):
        gradients = BookKeeping(Products(inputs, outputs), slopes, max_grad_norm=clip, unit=unit, rows=ROWS)
        pairs = [hostile_factors(max(2, positions), inputs, outputs, 10 * seed + place, scale) for place in range(9)]
        x, y = (torch.cat([pair[side] for pair in pairs])[:, :positions] for side in (0, 1))
        x[1], y[2] = torch.randn(x[1].shape), torch.randn(y[2].shape)  # and some whose factors are far apart
        whole = gradients.flat(x, y)
        for others in (torch.arange(1, 9), torch.tensor([0, 2, 3, 4, 5, 6, 7, 8]), torch.arange(8)):
            steps = (whole - gradients.flat(x[others], y[others])) / unit
            assert torch.equal(steps, steps.round())
            assert sum(int(step) ** 2 for step in steps.tolist()) <= int(clip / unit) ** 2


@pytest.mark.usefixtures("long")
def test_a_sum_is_within_its_bound_of_rounding() -> None:
    """Against rational numbers, of records whose positions cancel, and of others as long as the clip."""
    x, y = (torch.cat(some) for some in zip(*(hostile_factors(64, 4, 3, seed, 1.0) for seed in range(30)), strict=True))
    x[::2] = torch.randn(15, 64, 4, generator=torch.Generator().manual_seed(0))
    gradients = BookKeeping(Products(4, 3), slopes, max_grad_norm=1.0, unit=2.0**-45, rows=30)
    outer = Outer(gradients.parameters[0], factors_of(x, y))
    kept = outer.kept()
    own = [[Fraction(value) for value in row] for row in kept.grad_BP.tolist()]
    again, anew = (way(outer.parameter, outer.factors) for way in (Again, Anew))
    truly = {outer: [exact(x[i], y[i]) for i in range(30)], kept: own, again: own, anew: own}
    for part, of_each in truly.items():
        factor_B = gradients._factors([part], 30)
        rows = [[Fraction(f) * g for g in row] for f, row in zip(factor_B.tolist(), of_each, strict=True)]
        weighed = [sum(column) for column in zip(*rows, strict=True)]
        errors = [float(Fraction(a) - b) for a, b in zip(part.summed(factor_B).tolist(), weighed, strict=True)]
        assert math.hypot(*errors) <= gradients.rounding(30) < 1e-7


def factors_of(x: Tensor, y: Tensor) -> Factors:
    return Factors(y[:, None], lambda some: x[some, None], partial(bmm, x, y), (x,), x.shape[2])


def test_a_record_that_cancels_by_more_than_kappa_is_clipped_harder() -> None:
    gradients = BookKeeping(Products(3, 4), slopes, max_grad_norm=1.0, unit=2.0**-31, rows=1)
    x, y = hostile_factors(64, 3, 4, 0, 1.0)
    outer = Outer(gradients.parameters[0], factors_of(100 * x, y))
    (square_1, _), (_, reach_1) = outer.squares(), outer.squares()
    assert float((reach_1 / square_1).sqrt()) > 2.0**8
    factor_1 = gradients._factors([outer], 1)
    assert float(factor_1 * reach_1.sqrt()) == pytest.approx(2.0**8 * gradients.clip, rel=1e-5)


@pytest.mark.parametrize("bad", [1.0, math.nan, math.inf])
def test_parts_side_by_side_are_what_they_are_one_by_one(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept gradients and products at one position, small and large, in the order of parts; of hostile sizes too."""
    torch.manual_seed(3)
    some: list[Part] = []
    for place, (p, d, scale) in enumerate([(3, 4, 1.0), (5, 2, 1e20), (2, 6, 1e-20)]):
        left, right = torch.randn(ROWS, 1, 1, p) / scale, torch.randn(ROWS, 1, 1, d) * scale
        right[place, 0, 0, 1] *= bad
        given = Factors(left, partial(taken_from, right), partial(bmm, right[:, 0], left[:, 0]), (right,), d)
        some += [Outer(nn.Parameter(torch.zeros(p, d)), given), Kept(nn.Parameter(torch.zeros(p)), left[:, 0, 0])]
        some.append(Outer(nn.Parameter(torch.zeros(p, d)), given).kept())
    factor = torch.rand(ROWS, dtype=torch.float64)
    factor[:3] *= math.isfinite(bad)
    squares, reaches = packing.squares(some)
    expected = torch.cat([part.summed(factor) for part in some])
    alone = torch.stack([torch.stack(part.squares()) for part in some]).sum(dim=0)
    assert torch.allclose(torch.stack([squares, reaches]), alone, rtol=1e-13, atol=0.0, equal_nan=True)
    found = packing.summed(given := [*some], factor)
    assert not given
    assert torch.allclose(found, expected, rtol=1e-13, atol=1e-14 * float(expected.abs().max()))
    monkeypatch.setattr(packing, "_SMALL", 0)
    assert torch.equal(packing.summed([*some], factor), expected)


def taken_from(right: Tensor, some: slice) -> Tensor:
    return right[some]


@pytest.mark.parametrize("left_over", [2, 3, 7])
def test_what_rounding_leaves_over_is_carried_and_dropped_once(left_over: int) -> None:
    """Of batches that each add a third of a step, the sum is their sum, rounded once."""
    unit = 0.25
    gradients = BookKeeping(Products(1, 1), slopes, max_grad_norm=math.inf, unit=unit, rows=1)
    x = torch.full((left_over, 1, 1), unit / 3)
    found = float(gradients.flat(x, torch.ones(left_over, 1, 1)))
    assert found == round(left_over / 3) * unit


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("positions", [1, 64])
@pytest.mark.usefixtures("way")
def test_what_is_not_finite_counts_nothing_and_spoils_nothing(positions: int, bad: float) -> None:
    torch.manual_seed(1)
    inputs, outputs = 3, 4
    gradients = BookKeeping(Products(inputs, outputs), slopes, max_grad_norm=0.5, unit=2.0**-32, rows=ROWS)
    x, y = torch.randn(5, positions, inputs), torch.randn(5, positions, outputs)
    without = gradients.flat(x[1:], y[1:])
    for side in (x, y):
        kept, side[0, 0, 0] = side[0, 0, 0].clone(), bad
        assert float((gradients.flat(x, y) - without).abs().max()) <= 2.0**-31
        side[0, 0, 0] = kept


class Tied(nn.Module):
    """A weight that two layers have, one of them called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 6), nn.Linear(6, 6, bias=False), nn.Linear(6, 1)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.second(torch.tanh(self.first(torch.tanh(self.first(x))))))  # type: ignore[no-any-return]


def tied_norm_of_one_use() -> AbstractContextManager[None]:
    """The sum of all uses, clipped by the norm of one."""
    return mutations.replaced(products.Outer, "squares", first_squares(products.Outer.squares))


def first_squares(squares: Callable[..., Any]) -> Callable[..., Any]:
    def first(self: Outer) -> Any:
        left, right = self.factors.left_BGTp[:, :, :1], self.factors.right
        own = Factors(left, lambda some: right(some)[:, :, :1], self.factors.grads, (), self.factors.inputs)
        return squares(Outer(self.parameter, own, self.rows))

    return first


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (partial(mutations.clip_misses, 0), "times the clip, where at most 1"),
        (partial(mutations.clip_misses, -1), "times the clip, where at most 1"),
        (mutations.factors_of_another_batch, "times the clip, where at most 1|does not add the same"),
        (mutations.tied_weight_counted_twice, "times the clip, where at most 1"),
        (tied_norm_of_one_use, "times the clip, where at most 1"),
        (mutations.rounding_forgotten, "with what sums of 4194304 records are rounded by"),
        (mutations.clip_lets_nan_through, "by nan times the clip"),
    ],
)
@pytest.mark.usefixtures("wide")
def test_a_promise_that_is_broken_is_found(plant: Callable[[], Any], words: str) -> None:
    """With Gram matrices, as of wide layers: at few entries each record's gradient would be kept."""
    torch.manual_seed(4)
    with plant(), pytest.raises(PrivacyError, match=words):
        preflight(pipeline(Tied()), DataShape((6,), 2), 1.0)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if layers had more entries than they have."""
    monkeypatch.setattr(products, "_FEW", 0)


def pipeline(module: nn.Module, losses: RecordLoss | None = None) -> BookKeeping:
    found = make(module, losses=losses, denominator=8, gradients_kind="book-keeping").gradients
    assert isinstance(found, BookKeeping)
    return found


@pytest.mark.usefixtures("wide")
def test_the_same_pipeline_with_nothing_planted_is_taken() -> None:
    torch.manual_seed(4)
    gradients = pipeline(Tied())
    assert preflight(gradients, DataShape((6,), 2), 1.0) == gradients.rows


class Flattened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own, self.out = nn.Linear(2, 2), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.own(x.view(-1, 2)).view(-1, 6))  # type: ignore[no-any-return]


class Changing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own, self.out = nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1.0
        hidden = self.own(x)
        x += hidden.detach()
        return self.out(hidden)  # type: ignore[no-any-return]


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own, self.out = nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x) + self.own(x).sum(dim=1, keepdim=True).detach()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (Flattened, r"the layer 'own' \(Linear\) was given \(24, 2\) of 8 records, so that which row is"),
        (Changing, r"what went into a layer \(Linear\) was changed in place"),
        (Unused, "a trainable parameter got no per-record gradient"),
    ],
)
def test_a_layer_whose_records_are_not_known_is_refused(build: Callable[[], nn.Module], words: str) -> None:
    module = build()
    gradients = pipeline(module)
    with pytest.raises(PrivacyError, match=words):
        gradients.flat(torch.randn(3, 6), torch.zeros(3).long())
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_what_a_kept_layer_needed_is_let_go_as_the_backward_pass_goes_by() -> None:
    """A layer more costs what went into it, as in a plain step, and not what came back beside it."""

    def held(layers: int) -> int:
        norms = [nn.GroupNorm(2, 4) for _ in range(layers)]
        module = nn.Sequential(*norms, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, CLASSES))
        ours = BookKeeping(module, cross_entropy, max_grad_norm=1.0, unit=UNIT, rows=ROWS)
        return held_at_most(
            torch.device("cpu"), lambda: ours.add(torch.zeros(ROWS, 4, 8_192), torch.zeros(ROWS).long())
        )

    of_a_layer = ROWS * 4 * 8_192 * 4
    assert held(9) - held(3) <= 6 * 1.1 * of_a_layer


def test_a_layer_that_no_family_knows_is_computed_by_torchs_transforms_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(5)
    module = nn.Sequential(nn.Linear(6, 4), nn.PReLU(4), nn.Linear(4, 1))
    x, y = torch.randn(5, 6), torch.tensor([0, 1, 1, 0, 1])
    ours = pipeline(module)
    with caplog.at_level(logging.INFO):
        found = ours.flat(x, y)
        ours.flat(x, y)
    theirs = make(copy.deepcopy(module).requires_grad_(), denominator=8, gradients_kind="functional").gradients
    theirs.max_grad_norm = ours.clip
    assert torch.allclose(found, theirs.flat(x, y), atol=1e-6)
    said = [record.message for record in caplog.records if "book_keeping" in record.name]
    assert [line.split(":")[0] for line in said] == ["0 and 1 like it (Linear)", "1 (PReLU)"]
    assert "torch's transforms of the layer alone" in said[1]
    assert "'weight': 'Outer'" in said[0]


def test_too_many_positions_are_refused() -> None:
    with pytest.raises(PrivacyError, match=r"lower training\.max_physical_batch"):
        next(iter(parts.blocks(parts.BLOCK * parts.CHAIN)))
    assert len(list(parts.blocks(3_000_000))) < parts.CHAIN - parts.BLOCK


def test_a_clip_that_rounding_takes_too_much_of_is_refused() -> None:
    with pytest.raises(PrivacyError, match="rounding would take more than 1/256 of the clip"):
        BookKeeping(Products(3, 4), slopes, max_grad_norm=1.0, unit=2.0**-7, rows=1)


def test_more_records_than_rounding_is_bounded_for_are_refused_whatever_the_lot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BookKeeping, "most_records", 9)
    sgd = make(nn.Linear(6, 1), gradients_kind="book-keeping")
    with pytest.raises(DataError, match="more than 9 records"):
        sgd.step(torch.zeros(10, 6), torch.zeros(10).long(), np.array([0]))
    sgd.step(torch.zeros(9, 6), torch.zeros(9).long(), np.array([0]))


MULTIPLIERS = torch.randint(-(2**62), 2**62, (12,), generator=torch.Generator().manual_seed(7)) * 2 + 1


def moved_by(values: Tensor, last_places: int) -> Tensor:
    """Values, of which the first is so many last places another."""
    found = values.clone()
    found.view(torch.int32 if values.is_floating_point() else values.dtype).view(-1)[0] += last_places
    return found


def hash_of_factors(left: Tensor, right: Tensor) -> Tensor:
    outer = Outer(nn.Parameter(torch.zeros(3, 4)), Factors(left[:, None], lambda _: right, bmm, (right,), 4))
    return outer.hashed(MULTIPLIERS)


def hash_of_a_table(right: Tensor, index: Tensor) -> Tensor:
    return Looked(nn.Parameter(torch.zeros(5, 4)), index, right).hashed(MULTIPLIERS)


def hash_of_columns(first: Tensor, second: Tensor) -> Tensor:
    return parts.hashed(torch.cat([first, second], dim=1), MULTIPLIERS)


def hash_of_parameters(first: Tensor, second: Tensor) -> Tensor:
    gradients = BookKeeping(nn.Linear(12, 1), cross_entropy, max_grad_norm=1e9, unit=2.0**-8, rows=1)
    weight, bias = gradients.parameters
    gradients._parts = lambda *_: [Kept(weight, first), Kept(bias, second)]  # type: ignore[method-assign,assignment]
    return gradients.prints(torch.zeros(1, 12), torch.zeros(1), MULTIPLIERS)


@pytest.mark.parametrize(
    ("of", "sizes"),
    [
        (hash_of_factors, ((1, 2, 3), (1, 2, 4))),
        (hash_of_a_table, ((1, 2, 4), (1, 2))),
        (hash_of_columns, ((1, 12), (1, 12))),
        (hash_of_parameters, ((1, 12), (1, 12))),
    ],
)
def test_differences_of_two_tensors_do_not_cancel_in_a_hash(
    of: Callable[[Tensor, Tensor], Tensor], sizes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    """A linear hash that takes both with the same multipliers has a ratio at which they do, whatever those are."""
    generator = torch.Generator().manual_seed(3)
    one, other = (torch.rand(size, generator=generator) + 1 for size in sizes)
    if of is hash_of_a_table:
        other = torch.full(other.shape, 20)
    apart = [(a, b) for a in range(-9, 10) for b in range(-9, 10)]
    hashes = [int(of(moved_by(one, a), moved_by(other, b))) for a, b in apart]
    assert len(set(hashes)) == len(apart)
    assert hashes[0] == int(of(moved_by(one, -9), moved_by(other, -9)))


def test_hashes_are_put_together_as_splitmix64_has_it() -> None:
    """The first two numbers of SplitMix64 from the state 1234567, as its reference implementation prints them."""
    none, state = torch.tensor([0]), torch.tensor([1234567])
    first = int(parts.put_together([state]))
    second = int(parts.put_together([none, state]) - parts.put_together([none]))
    assert [first % 2**64, second % 2**64] == [6457827717110365317, 3203168211198807973]


@pytest.mark.usefixtures("long")
def test_a_sum_of_many_records_is_within_its_bound_where_each_is_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One after the other, 8,191 halves of a last place would all be lost."""
    monkeypatch.setattr(products, "CACHED", 1)
    grad_BP = torch.full((8192, 1), 2.0**-53)
    grad_BP[0] = 1.0
    factors = Factors(grad_BP[:, None, None], lambda _: grad_BP, lambda some: grad_BP[some], (), 1)
    found = float(Again(nn.Parameter(torch.zeros(1, 1)), factors).summed(torch.ones(8192, dtype=torch.float64)))
    assert abs(Fraction(found) - 1 - Fraction(8191, 2**53)) <= parts.CHAIN * Fraction(1, 2**53)


@pytest.mark.parametrize("cached", [1, 300, 2999, 1 << 18])
def test_a_gradient_is_computed_again_among_the_same_records(cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A norm would bound nothing, had a kernel another shape for the sum."""
    monkeypatch.setattr(products, "CACHED", cached)
    grad_BP, asked = torch.randn(1500, 3), []

    def grads(some: slice) -> Tensor:
        asked.append(some)
        return grad_BP[some]

    again = Again(nn.Parameter(torch.zeros(1, 3)), Factors(grad_BP[:, None, None, :1], grads, grads, (), 3))
    uses = again.squares, partial(again.summed, torch.ones(1500).double()), partial(again.hashed, MULTIPLIERS)
    for use in uses:
        use()
    each = len(asked) // len(uses)
    assert asked[:each] == asked[each : 2 * each] == asked[2 * each :]
    assert [one.start for one in asked[1:each]] == [one.stop for one in asked[: each - 1]]


WITHOUT_OPACUS = """
import sys, torch
from torch import nn
from fedmodel.kinds.standardised import StandardisedLinear
from fedmodel.learning.gradients import KINDS
from fedmodel.learning.gradients.layers import family_of

def losses(output_B, y_B):
    return nn.functional.cross_entropy(output_B, y_B, reduction="none")

model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(4, 2))
sums = KINDS["book-keeping"](model, losses, max_grad_norm=1.0, unit=2.0**-40, rows=8)
print(bool(sums.flat(torch.ones(8, 1, 4), torch.zeros(8, dtype=torch.long)).any()))
print("opacus" in sys.modules)
print(family_of(StandardisedLinear(2, 2))[1])
from opacus.layers.dp_rnn import RNNLinear
print(family_of(RNNLinear(2, 2))[1])
"""


def test_opacus_is_imported_where_a_layer_is_taken_from_it_and_only_there() -> None:
    """Its import takes as much CPU time as a round of a small model; a layer that needs it is computed by it still."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_OPACUS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True", "False", "Opacus's function for it", "book-keeping knows it"]
