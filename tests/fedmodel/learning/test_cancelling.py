"""Records whose positions cancel, with factors of 1e20 and 1e-20: every kind holds, and a wrong norm does not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from fedmodel.errors import PrivacyError
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.learning.cancelling import Hostile, hostile_to_positions, opposed
from fedmodel.learning.gradients import ClippedSum, hooks
from fedmodel.learning.gradients.auto import ORDER
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.gradients.layers import products
from fedmodel.learning.gradients.layers.parts import Part
from fedmodel.learning.gradients.layers.products import Outer
from fedmodel.learning.preflight import check_positions, preflight
from scenarios.selftest.planting import replaced
from tests.fedmodel.learning.test_dp_sgd import FLAT, clipped

pytestmark = pytest.mark.usefixtures("same_bytes")
KINDS = ORDER


class Series(nn.Module):
    """Steps of a series, or words of a text, each through one layer, and their mean."""

    def __init__(self, activation: nn.Module, words: int | None = None) -> None:
        super().__init__()
        self.before = nn.Identity() if words is None else nn.Embedding(words, 40)
        self.into, self.activation, self.out = nn.Linear(40, 40), activation, nn.Linear(40, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.activation(self.into(self.before(x))).mean(dim=1))  # type: ignore[no-any-return]


class Waves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Conv1d(16, 64, 3, padding=1), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.into(x)).mean(dim=2))  # type: ignore[no-any-return]


STEPS, WAVES, WORDS = DataShape((8, 40), 2), DataShape((16, 12), 2), DataShape((8,), 2, below=50)
MODELS: dict[str, tuple[Callable[[], nn.Module], DataShape]] = {
    "tanh": (lambda: Series(nn.Tanh()), STEPS),
    "relu": (lambda: Series(nn.ReLU()), STEPS),
    "gelu": (lambda: Series(nn.GELU()), STEPS),
    "convolution": (Waves, WAVES),
    "words": (lambda: Series(nn.Tanh(), 50), WORDS),
}
each_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def of_wide_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms come from Gram matrices, as of layers with more entries than these have."""
    monkeypatch.setattr(products, "_FEW", 0)


def pipeline(name: str, kind: str = "book-keeping") -> ClippedSum:
    torch.manual_seed(3)
    return clipped(MODELS[name][0](), denominator=8, gradients_kind=kind)


def squares_off_by(share: float) -> AbstractContextManager[None]:
    """Norms from Gram matrices that are less by what rounding may take, with neither a bound on it nor a reach."""
    honest = products.bounded

    def unbounded(square_N: Tensor, reach_NT: Tensor, terms: int, groups: int = 1) -> tuple[Tensor, Tensor]:
        square_B, reach_B = honest(square_N, reach_NT, terms, groups)
        return (square_B - share * reach_B).clamp(min=0.0), torch.zeros_like(square_B)

    return replaced(products, "bounded", unbounded)


@pytest.mark.parametrize("kind", KINDS)
@each_model
def test_every_kind_holds_to_the_clip_and_is_brought_to_it(name: str, kind: str) -> None:
    gradients = pipeline(name, kind)
    found = check_positions(gradients, MODELS[name][1], 1.0)
    assert 0.9 < found <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_so_does_a_model_without_positions(kind: str) -> None:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    assert 0.9 < check_positions(clipped(module, denominator=8, gradients_kind=kind), FLAT, 1.0) <= 1


@pytest.mark.parametrize(("name", "scale", "bits"), [
    ("tanh", "1e+06", 20), ("relu", "1e+06", 20), ("gelu", "1e+06", 20), ("convolution", "1e+06", 20),
    ("words", "1e+06", 20), ("tanh", "1e+20", 42), ("convolution", "1e+20", 42), ("words", "1e+20", 42),
])  # fmt: skip
def test_norms_that_are_none_are_refused_and_said(name: str, scale: str, bits: int) -> None:
    """Those of float32, and of float64 without a bound. Without such records the preflight let all of these through."""
    words = rf"^one record whose positions cancel, of scale {re.escape(scale)}, moves the clip"
    with squares_off_by(2.0**-bits), pytest.raises(PrivacyError, match=words) as refused:
        preflight(pipeline(name), MODELS[name][1], 1.0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_norm_that_goes_no_further_than_so_far_is_refused_by_every_kind(kind: str) -> None:
    """As one is that was squared in float32, and taken for the largest number there."""
    owner, attribute = (BookKeeping, "_factors") if kind == "book-keeping" else (hooks.PerSample, "_factors")
    honest = getattr(owner, attribute)

    def bounded(self: ClippedSum, *asked: object) -> Tensor:
        factor_B: Tensor = honest(self, *asked)
        return torch.where(factor_B > 0, factor_B.clamp(min=2.0**-63), 0.0)

    with replaced(owner, attribute, bounded):
        words = r"^one record whose positions cancel, of scale 1e\+20, moves the clipped sum by \S+ times the clip"
        with pytest.raises(PrivacyError, match=words):
            check_positions(pipeline("tanh", kind), STEPS, 1.0)


@each_model
def test_positions_do_cancel(name: str) -> None:
    """Of the layer that a record passes at many positions hardly anything is left of what is added up."""
    gradients, shape = pipeline(name), MODELS[name][1]
    assert isinstance(gradients, BookKeeping)
    generator, least = torch.Generator().manual_seed(1), list[float]()
    for hostile_to in hostile_to_positions(gradients.parameters, shape, seed=1):
        outer = [_of_many(gradients._parts(x, torch.zeros(1).long())) for x in opposed(shape, generator, hostile_to)]
        kept, reach = zip(*((one.kept().squares()[0][0], one.squares()[1][0]) for one in outer), strict=True)
        least += [math.sqrt(float(a / b)) for a, b in zip(kept, reach, strict=True) if float(b)]
    assert min(least) < (2.0**-11 if name in ("relu", "gelu") else 2.0**-20)


def _of_many(parts: list[Part]) -> Outer:
    return next(part for part in parts if type(part) is Outer and part.factors.left_BGTp.shape[2] > 1)


@pytest.mark.parametrize(
    "shape",
    [
        DataShape((), 2),
        DataShape((1,), 2),
        DataShape((3,), 2),
        DataShape((1, 8, 8), 2),
        DataShape((7,), 2, below=1),
        DataShape((5, 2), 2, below=3),
        DataShape((), 2, inputs={"a": ArrayShape((4,), 9), "b": ArrayShape(()), "c": ArrayShape((2, 30))}),
    ],
)
def test_a_record_has_the_datas_shape_whatever_that_is(shape: DataShape) -> None:
    generator = torch.Generator().manual_seed(1)
    for x in opposed(shape, generator, Hostile(1.0, 0.5)):
        one = x if isinstance(x, dict) else {"": x}
        for (name, found), wanted in zip(one.items(), shapes_of(shape), strict=True):
            assert tuple(found.shape) == (1, *wanted.size), name
            assert found.is_floating_point() == (wanted.below is None)
            assert wanted.below is None or bool(((found >= 0) & (found < wanted.below)).all())


def shapes_of(shape: DataShape) -> list[ArrayShape]:
    return list(shape.inputs.values()) if shape.inputs else [ArrayShape(shape.features, shape.below)]
