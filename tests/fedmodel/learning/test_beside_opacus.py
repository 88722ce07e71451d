"""Book-keeping with Opacus alone: under its optimiser it equals its hooks, and its ghost clipping takes norms."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from opacus.grad_sample import (
    GradSampleHooksFastGradientClipping,
    GradSampleModule,
    GradSampleModuleFastGradientClipping,
)
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from torch import nn

from fedmodel.errors import PrivacyError
from fedmodel.learning.beside_opacus import BookKeepingModule, register
from tests.fedmodel.learning.gradients.test_book_keeping import CLASSES, Sequences, cross_entropy


def images() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, CLASSES)
    )


def texts() -> nn.Module:
    torch.manual_seed(1)
    return Sequences(tied=True, frozen=False, padding=None)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("build", [images, texts])
def test_a_model_trained_under_opacus_optimiser_is_that_of_its_hooks(build: type[nn.Module], reduction: str) -> None:
    ours, theirs = build(), build()
    how = {"noise_multiplier": 0.0, "max_grad_norm": 0.4, "expected_batch_size": 6, "loss_reduction": reduction}
    wrapped = BookKeepingModule(ours, loss_reduction=reduction, max_grad_norm=0.4)
    hooked = GradSampleModule(theirs, loss_reduction=reduction)
    ghost = DPOptimizerFastGradientClipping(torch.optim.SGD(wrapped.parameters(), lr=0.1), **how)
    plain = DPOptimizer(torch.optim.SGD(hooked.parameters(), lr=0.1), **how)
    for step in range(3):
        torch.manual_seed(step)
        x = torch.randn(6, 2, 8, 8) if build is images else torch.randint(20, (6, 5))
        y = torch.randint(CLASSES, (6,))
        ghost.zero_grad()
        wrapped.clipped_backward(cross_entropy(wrapped(x), y))
        ghost.step()
        plain.zero_grad()
        loss = cross_entropy(hooked(x), y)
        (loss.mean() if reduction == "mean" else loss.sum()).backward()
        plain.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
        assert torch.isfinite(one).all()


@pytest.fixture
def registered() -> Iterator[None]:
    samplers = GradSampleHooksFastGradientClipping.NORM_SAMPLERS
    before = dict(samplers)
    register()
    yield
    samplers.clear()
    samplers.update(before)


@pytest.mark.usefixtures("registered")
def test_opacus_ghost_clipping_takes_the_norms_of_layers_that_it_knows_none_of() -> None:
    samplers = GradSampleHooksFastGradientClipping.NORM_SAMPLERS
    assert {nn.Conv2d, nn.GroupNorm, nn.InstanceNorm1d, nn.RMSNorm} <= samplers.keys()
    module = images()
    ghost = GradSampleModuleFastGradientClipping(copy.deepcopy(module), loss_reduction="sum", max_grad_norm=0.4)
    hooked = GradSampleModule(module, loss_reduction="sum")
    x, y = torch.randn(6, 2, 8, 8), torch.randint(CLASSES, (6,))
    for one in (ghost, hooked):
        cross_entropy(one(x), y).sum().backward()
    norms = torch.stack([p.grad_sample.flatten(1).norm(dim=1) for p in hooked.parameters()]).norm(dim=0)
    assert torch.allclose(ghost.get_norm_sample(), norms, rtol=1e-4)


def test_hooks_come_off_and_evaluation_notes_nothing() -> None:
    module = images()
    wrapped = BookKeepingModule(module)
    wrapped.eval()
    wrapped(torch.randn(2, 2, 8, 8))
    with pytest.raises(PrivacyError, match="got no per-record gradient"):
        wrapped.clipped_backward(torch.zeros(2))
    wrapped.cleanup()
    assert not any(layer._forward_hooks for layer in module.modules())
    with pytest.raises(PrivacyError, match="rows of a batch"):
        BookKeepingModule(module, batch_first=False)
