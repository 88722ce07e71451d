"""The plain sum of a baseline: each row of the module's edge-case table, and that no clip is ever left out for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedmodel.errors import PrivacyError
from fedmodel.kinds.models.cnn import CnnConfig
from fedmodel.kinds.shape import DataShape
from fedmodel.learning import unclipped
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import KINDS, ClippedSum
from fedmodel.learning.inputs import Inputs
from fedmodel.learning.models import build_model
from fedmodel.learning.precision import in_precision

torch.set_num_threads(1)  # as a silo trains

IMAGES, UNIT, ROWS = DataShape((1, 8, 8), 10), 2.0**-40, 8
LOTS = [np.arange(size) for size in (0, 1, 5, 8, 19)]


def losses(output_BK: Tensor, y_B: Tensor) -> Tensor:
    return cross_entropy(output_BK, y_B, reduction="none")


def pipeline(module: nn.Module, kind: str = "book-keeping", clip: float = math.inf) -> ClippedSum:
    return KINDS[kind](module, losses, max_grad_norm=clip, unit=UNIT, rows=ROWS)


def images(seed: int = 1) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a small CNN, records and targets."""
    generator = torch.Generator().manual_seed(seed)
    module = build_model(CnnConfig(kind="cnn", channels=(4,), groups=2), IMAGES, seed)
    return module, torch.randn(20, 1, 8, 8, generator=generator), torch.randint(10, (20,), generator=generator)


def flat(sums: list[Tensor]) -> Tensor:
    return torch.cat([one.reshape(-1) for one in sums])


def near(one_P: Tensor, other_P: Tensor) -> bool:
    return float((one_P - other_P).abs().max()) <= 1e-5 * max(1.0, float(other_P.abs().max()))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each plain pass came to a sum, in the order in which they were made."""
    real, seen = unclipped._plain, list[bool]()

    def plain(*given: Any) -> Tensor | None:
        found = real(*given)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(unclipped, "_plain", plain)
    return seen


@pytest.mark.parametrize("lot", LOTS, ids=len)
@pytest.mark.parametrize("views", [1, 3])
def test_a_lots_sum_is_torchs_own_and_no_records_gradient_is_computed(
    lot: np.ndarray[Any, np.dtype[np.intp]], views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, x_N, y_N = images()
    gradients, shapes = pipeline(module), list[int]()
    gradients.views = views
    augment = None if views == 1 else gradients.made_up_views
    expected_P = flat(gradients.of(x_N, y_N, lot, augment))
    if len(lot):
        x_V: Inputs = x_N[lot] if augment is None else augment(x_N[lot])
        assert isinstance(x_V, Tensor)
        loss_V = losses(module(x_V), y_N[lot].repeat_interleave(views))
        assert near(flat(list(torch.autograd.grad(loss_V.sum() / views, gradients.parameters))).double(), expected_P)
    monkeypatch.setattr(gradients, "summed", mock.Mock(side_effect=AssertionError))
    module.register_forward_pre_hook(lambda _, given: shapes.append(len(given[0])))
    sums = unclipped.sums_of(gradients, x_N, y_N, lot, augment)
    assert [(one.shape, one.dtype) for one in sums] == [(one.shape, torch.float64) for one in gradients.parameters]
    assert near(flat(sums), expected_P)
    assert all(one.grad is None for one in gradients.parameters)
    # As many rows as records, but two for one record; and no more than a physical batch has.
    assert (
        shapes
        == {0: [], 1: [2 * views], 5: [5 * views], 8: [8 * views], 19: [8 * views, 8 * views, 3 * views]}[len(lot)]
    )


@pytest.mark.parametrize("clip", [1e-3, 1.0, 1e300])
def test_where_there_is_a_clip_no_sum_is_a_plain_one(clip: float, passes: list[bool]) -> None:
    module, x_N, y_N = images()
    gradients, seen = pipeline(module), list[Tensor]()

    def release(sums_L: list[Tensor]) -> list[Tensor]:
        seen.append(flat(sums_L))
        return [one.float() for one in sums_L]

    sgd = DpSgd(gradients, torch.optim.SGD(gradients.parameters, lr=0.0), release, noise_multiplier=1.0)
    sgd.step(x_N, y_N, LOTS[2])
    assert passes == [True]
    assert float(seen[0].norm()) > 5e-3
    gradients.max_grad_norm = clip  # as others do that share the pipeline
    sgd.step(x_N, y_N, LOTS[2])
    assert float(seen[1].norm()) <= 5 * clip
    with pytest.raises(PrivacyError, match=r"^gradients are clipped to .* a plain sum would not be$"):
        unclipped.sums_of(gradients, x_N, y_N, LOTS[2])
    assert passes == [True]


@pytest.mark.parametrize("poison", [math.nan, math.inf, 3e38])
def test_a_record_that_is_not_finite_adds_zero_to_a_batch_that_is_summed_again(
    poison: float, passes: list[bool]
) -> None:
    module, x_N, y_N = images()
    gradients = pipeline(module)
    without_P = flat(gradients.of(x_N, y_N, np.delete(LOTS[-1], 11)))
    x_N[11] = poison
    sum_P = flat(unclipped.sums_of(gradients, x_N, y_N, LOTS[-1]))
    assert passes == [True, False, True]
    assert near(sum_P, without_P)


class Branching(nn.Module):
    """Sends a batch whose first number is negative past its second layer, and the others past both where it is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x_BF: Tensor) -> Tensor:
        if float(x_BF[0, 0]) == 0:
            return x_BF[:, :3]
        hidden = self.first(x_BF)
        return hidden if float(x_BF[0, 0]) < 0 else self.second(hidden)  # type: ignore[no-any-return]


@pytest.mark.parametrize("first", [-1.0, 0.0])
def test_where_a_parameter_gets_no_gradient_the_kind_says_what_then(first: float, passes: list[bool]) -> None:
    x_N, y_N = torch.full((5, 4), first), torch.zeros(5, dtype=torch.long)
    gradients = pipeline(Branching())
    with pytest.raises(PrivacyError, match="no") as own:
        gradients.of(x_N, y_N, LOTS[2])
    with pytest.raises(PrivacyError) as found:
        unclipped.sums_of(gradients, x_N, y_N, LOTS[2])
    assert str(found.value) == str(own.value)
    assert passes == [False]


class Squeezing(nn.Module):
    """Drops every axis of one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.layer(x_BF).squeeze()  # type: ignore[no-any-return]


def test_a_model_that_drops_an_axis_of_one_trains_on_one_record() -> None:
    gradients = pipeline(Squeezing())
    x_N, y_N = torch.ones(3, 4), torch.zeros(3, dtype=torch.long)
    assert near(flat(unclipped.sums_of(gradients, x_N, y_N, LOTS[1])), flat(gradients.of(x_N, y_N, LOTS[1])))


class Centred(nn.Module):
    """Takes the mean of what it is given together away, which is one record's by the kinds that give it one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.layer(x_BF - x_BF.mean(dim=0) / 2)  # type: ignore[no-any-return]


def rounded() -> nn.Module:
    return in_precision(nn.Sequential(nn.Linear(4, 3)), "bf16")


@pytest.mark.parametrize(
    ("make", "kind"), [(Centred, "functional"), (Centred, "one-by-one"), (lambda: nn.Linear(4, 3), "hooks"),
                       (rounded, "book-keeping")], ids=["functional", "one-by-one", "hooks", "bf16"]
)  # fmt: skip
def test_what_no_plain_pass_is_right_for_has_its_kinds_own_sum(
    make: Callable[[], nn.Module], kind: str, passes: list[bool]
) -> None:
    gradients = pipeline(make(), kind)
    x_N, y_N = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    sums = unclipped.sums_of(gradients, x_N, y_N, LOTS[2])
    assert torch.equal(flat(sums), flat(gradients.of(x_N, y_N, LOTS[2])))
    assert passes == []


class Counting(nn.Module):
    """Writes into a buffer, and into a parameter, as records pass."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x_BF: Tensor) -> Tensor:
        self.seen += len(x_BF)
        with torch.no_grad():
            self.layer.bias += 1
        return self.layer(x_BF) * self.seen  # type: ignore[no-any-return]


@pytest.mark.parametrize("poison", [0.0, math.nan])
def test_what_a_pass_wrote_is_put_back_before_another_pass(poison: float) -> None:
    module = Counting()
    gradients, bias = pipeline(module), module.layer.bias.detach().clone()
    x_N, y_N = torch.ones(8, 4), torch.arange(8) % 3
    x_N[3] = poison
    sum_P = flat(unclipped.sums_of(gradients, x_N, y_N, LOTS[3]))
    assert near(sum_P, flat(gradients.of(x_N, y_N, LOTS[3])))
    assert float(module.seen) == 0
    assert torch.equal(module.layer.bias, bias)
