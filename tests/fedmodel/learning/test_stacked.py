"""Models side by side: each silo's sum is that of its own records alone, and one record moves no other silo's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import PrivacyError
from fedmodel.kinds.layers import Dropout
from fedmodel.learning import stacked, vectors
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.models import build_model, training_losses
from fedmodel.learning.preflight import preflight
from fedmodel.learning.stacked import OfOneSilo, Stack, batches_of, sums_of, why_not_stacked
from fedmodel.privacy import grid

CLIP, UNIT, ROWS = 1.0, grid.fine(2.0), 8
LOTS = (3, 0, 8, 21, 1)


@pytest.fixture
def hidden(tiny_file: Any) -> Scenario:
    return read_scenario(str(tiny_file), ["model.hidden=[5,3]", 'model.activation="tanh"'])


def losses_of(scenario: Scenario) -> Any:
    return training_losses(scenario.training, scenario.data.shape)


def models(scenario: Scenario, dtype: torch.dtype) -> tuple[list[nn.Module], Stack]:
    """Return a model for each silo, at parameters of its own, by itself and in a stack."""
    shape = scenario.data.shape
    each = [build_model(scenario.model, shape, seed) for seed in range(len(LOTS))]
    stack = Stack(each[0], len(LOTS), dtype)
    with torch.no_grad():
        for place, module in enumerate(each):
            for parameter, own in zip(stack.stacked, module.parameters(), strict=True):
                parameter[place] = own
    return each, stack


def records(seed: int = 0) -> tuple[Tensor, Tensor, list[np.ndarray[Any, np.dtype[np.intp]]]]:
    """Return the records of all silos in a row, their targets, and each silo's lot."""
    generator = torch.Generator().manual_seed(seed)
    x_N = torch.randn(sum(LOTS), 4, generator=generator) * 3
    y_N = torch.randint(2, (sum(LOTS),), generator=generator)
    ends = np.cumsum(LOTS)
    return x_N, y_N, [np.arange(end - size, end) for end, size in zip(ends, LOTS, strict=True)]


def together(scenario: Scenario, stack: Stack, x_N: Tensor, y_N: Tensor, clip: float) -> list[Tensor]:
    """Return every silo's sum, as a stack has it."""
    *_, lots = records()
    owner_L = np.repeat(np.arange(len(LOTS)), LOTS)

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for index, counts in batches_of(np.concatenate(lots), owner_L, len(LOTS), ROWS):
            yield x_N[index], y_N[index], counts

    sums = sums_of(stack, batches(), losses_of(scenario), clip, UNIT)
    return [torch.cat([one[place].double().reshape(-1) for one in sums]) for place in range(len(LOTS))]


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float64, UNIT), (torch.float32, 1e-5)])
@pytest.mark.parametrize("clip", [CLIP, math.inf])
def test_each_silos_sum_is_that_of_its_own_records(
    hidden: Scenario, dtype: torch.dtype, apart: float, clip: float
) -> None:
    each, stack = models(hidden, dtype)
    x_N, y_N, lots = records()
    x_N[7] = math.nan  # of the third silo
    x_N[15] = 1e30
    own_clip = BookKeeping(each[0], losses_of(hidden), max_grad_norm=clip, unit=UNIT, rows=ROWS).clip
    each, stack = models(hidden, dtype)
    sums = together(hidden, stack, x_N, y_N, own_clip)
    for module, lot, sum_P in zip(each, lots, sums, strict=True):
        alone = BookKeeping(module, losses_of(hidden), max_grad_norm=clip, unit=UNIT, rows=ROWS)
        module.to(dtype)
        by_itself_P = torch.cat([one.reshape(-1) for one in alone.of(x_N.to(dtype), y_N, lot)])
        assert float((sum_P - by_itself_P).abs().max()) <= apart * max(1.0, float(by_itself_P.abs().max()))
    assert bool((sums[1] == 0).all())
    if clip == CLIP:
        assert all(float(sum_P.norm()) <= CLIP * size for sum_P, size in zip(sums, LOTS, strict=True))


def test_a_record_moves_no_other_silos_sum_by_a_bit(hidden: Scenario) -> None:
    _, stack = models(hidden, torch.float32)
    x_N, y_N, _ = records()
    before = together(hidden, stack, x_N, y_N, CLIP)
    for value in (0.0, 1e30, math.inf, math.nan):
        x_N[12] = value
        after = together(hidden, stack, x_N, y_N, CLIP)
        assert [torch.equal(one, other) for one, other in zip(before, after, strict=True)] == [
            True, True, True, False, True,
        ]  # fmt: skip


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(4, 3), nn.Tanh(), nn.ReLU(), nn.Tanh(), nn.Linear(3, 2)],
        [nn.Linear(4, 3), nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2), nn.ReLU()],
        [nn.Flatten(), nn.Tanh(), nn.ReLU(), nn.Linear(4, 2), nn.Tanh()],
    ],
    ids=["one after another", "at the end", "before any product"],
)
def test_what_is_saved_of_layers_in_any_order_is_what_autograd_says(layers: list[nn.Module]) -> None:
    module = nn.Sequential(*layers).double()
    assert why_not_stacked(module) == ""
    stack = Stack(module, 2, torch.float64)
    generator = torch.Generator().manual_seed(3)
    x_SB, y_SB = torch.randn(2, 5, 4, generator=generator).double(), torch.randint(2, (2, 5), generator=generator)
    before_SB = x_SB.clone()
    losses = nn.CrossEntropyLoss(reduction="none")
    sums = stacked.unclipped(stack.factors(x_SB, y_SB, losses, torch.ones(2, 5, dtype=torch.bool)), torch.ones(2, 5))
    assert torch.equal(x_SB, before_SB)
    for silo in range(2):
        module.zero_grad()
        losses(module(x_SB[silo]), y_SB[silo]).sum().backward()
        for parameter, sum_S in zip(module.parameters(), sums, strict=True):
            assert parameter.grad is not None
            assert float((sum_S[silo] - parameter.grad).abs().max()) < 1e-12


def measured(scenario: Scenario) -> OfOneSilo:
    """Return what a preflight measures of a stack."""
    module = build_model(scenario.model, scenario.data.shape, 0)
    found = OfOneSilo(module, losses_of(scenario), max_grad_norm=CLIP, unit=UNIT, rows=4)
    found.silos = 3
    return found


def test_a_stack_passes_the_preflight_of_any_pipeline(hidden: Scenario) -> None:
    assert preflight(measured(hidden), hidden.data.shape, CLIP) == 4


def unclamped(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda layers, clip, counts: real(layers, 1.01 * clip, counts)


def without_a_layer(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda layers, clip, counts: real(layers[1:], clip, counts)


def by_the_batch(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def factors(layers: Any, clip: float, counts: Tensor) -> Tensor:
        return real(layers, clip, counts) * (1 - real(layers, clip, counts).mean(dim=1, keepdim=True) * 2**-20)

    return factors


def by_the_stack(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def factors(layers: Any, clip: float, counts: Tensor) -> Tensor:
        found = real(layers, clip, counts)
        return found * (1 - found.mean() * 2**-20)

    return factors


@pytest.mark.parametrize("fault", [unclamped, without_a_layer, by_the_stack])
def test_a_stack_that_lets_a_record_move_more_is_refused(
    fault: Callable[[Any], Any], hidden: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked, "clip_factors", fault(stacked.clip_factors))
    found = measured(hidden)
    with pytest.raises(PrivacyError, match=r"moves the clipped sum|does not add the same"):
        preflight(found, hidden.data.shape, CLIP)


def test_records_of_one_silo_that_hang_on_each_other_pass_one_by_one(
    hidden: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked, "clip_factors", by_the_batch(stacked.clip_factors))
    assert preflight(measured(hidden), hidden.data.shape, CLIP) == 1


def test_lots_are_cut_into_batches_of_one_shape() -> None:
    lot_L, owner_L = np.array([4, 9, 10, 11, 30]), np.array([0, 1, 1, 1, 3])
    found = list(batches_of(lot_L, owner_L, 4, 2))
    assert [index[counts].tolist() for index, counts in found] == [[4, 9, 10, 30], [11]]
    assert {index.shape for index, _ in found} == {(4, 2)}
    assert list(batches_of(lot_L[:0], owner_L[:0], 4, 2)) == []
    ((index, counts),) = batches_of(lot_L, owner_L, 4, 8, fitted=True)
    assert index[counts].tolist() == lot_L.tolist()
    assert index.shape == counts.shape == (4, 3)
    assert list(batches_of(lot_L[:0], owner_L[:0], 4, 8, fitted=True)) == []


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([nn.Flatten(), nn.Linear(4, 2)], ""),
        ([nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)], ""),
        ([nn.Flatten(), nn.Linear(4, 3), Dropout(0.5), nn.Linear(3, 2)], "Dropout"),
        ([nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)], "BatchNorm1d"),
        ([nn.Flatten(), nn.Linear(4, 2, bias=False)], "no bias"),
        ([nn.Linear(4, 3), nn.Flatten(), nn.Linear(3, 2)], "Flatten"),
    ],
)
def test_which_models_are_stacked(layers: Sequence[nn.Module], why: str) -> None:
    found = why_not_stacked(nn.Sequential(*layers))
    assert why in found
    assert bool(found) == bool(why)
    assert "Bilinear" in why_not_stacked(nn.Bilinear(2, 2, 2))


def test_a_stack_is_given_one_vector(hidden: Scenario) -> None:
    module = build_model(hidden.model, hidden.data.shape, 3)
    stack = Stack(build_model(hidden.model, hidden.data.shape, 0), 3)
    stack.load(torch.from_numpy(vectors.flatten(module)))
    assert np.array_equal(stack.flat().numpy(), np.tile(vectors.flatten(module), (3, 1)))


def test_a_loss_that_is_not_a_records_own_is_refused(hidden: Scenario) -> None:
    _, stack = models(hidden, torch.float32)
    with pytest.raises(PrivacyError, match="each record needs one of its own"):
        stack.factors(
            torch.zeros(5, 2, 4),
            torch.zeros(5, 2, dtype=torch.long),
            lambda output, _: output.mean(dim=0),
            torch.ones(5, 2, dtype=torch.bool),
        )


def test_no_lot_is_refused_and_of_many_batches_what_rounding_leaves_is_carried(hidden: Scenario) -> None:
    """Twenty batches of 512, whose sum is rounded once: each by itself is off by up to half a step."""
    _, stack = models(hidden, torch.float32)
    x_SB = torch.randn(5, 512, 4, generator=torch.Generator().manual_seed(3))
    batch = x_SB, torch.zeros(5, 512, dtype=torch.long), torch.ones(5, 512, dtype=torch.bool)
    coarse = 0.25
    once = sums_of(stack, iter([batch]), losses_of(hidden), CLIP, 2.0**-40)
    many = sums_of(stack, (batch for _ in range(20)), losses_of(hidden), CLIP, coarse)
    for one, sum_ in zip(once, many, strict=True):
        assert (sum_ - 20 * one).abs().max() <= coarse / 2 + 1e-6
        assert torch.equal(sum_, (sum_ / coarse).round() * coarse)


def test_a_physical_batch_of_too_many_rows_is_refused_whatever_is_in_it(hidden: Scenario) -> None:
    _, stack = models(hidden, torch.float32)
    batch = torch.zeros(5, 4095, 4), torch.zeros(5, 4095, dtype=torch.long), torch.zeros(5, 4095, dtype=torch.bool)
    with pytest.raises(PrivacyError, match="4095 rows, and 4094 are added up"):
        sums_of(stack, iter([batch]), losses_of(hidden), CLIP, UNIT)


def test_what_is_measured_is_the_model_as_it_is_now(hidden: Scenario) -> None:
    """Memory is kept from pass to pass: nothing of another model, of other records or of more of them is left in it."""
    gradients = measured(hidden)
    x_N, y_N, _ = records()
    for seed, count in ((1, 4), (2, 2), (3, 3)):
        vectors.load(gradients.module, vectors.flatten(build_model(hidden.model, hidden.data.shape, seed)))
        afresh = measured(hidden)
        vectors.load(afresh.module, vectors.flatten(gradients.module))
        found = gradients.of(x_N[seed : seed + count], y_N[seed : seed + count], np.arange(count))
        right = afresh.of(x_N[seed : seed + count], y_N[seed : seed + count], np.arange(count))
        assert all(torch.equal(one, other) for one, other in zip(found, right, strict=True))
