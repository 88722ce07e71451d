"""One step of DP-SGD: each row of the module's edge-case table, and Opacus's own plain path beside ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from fedmodel.errors import PrivacyError
from fedmodel.kinds.models.cnn import CnnConfig
from fedmodel.kinds.models.mlp import MlpConfig
from fedmodel.kinds.shape import DataShape
from fedmodel.learning import vectors
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import ClippedSum, kind, physical_batch
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import RecordLoss
from fedmodel.learning.tasks.classification import Classification, cross_entropy
from fedmodel.privacy import grid
from fedmodel.privacy.noise import NoiseSource, OsNoise, SeededNoise
from fedmodel.privacy.release import divided, release

torch.set_num_threads(1)  # as a silo trains
pytestmark = pytest.mark.usefixtures("same_bytes")

FLAT, IMAGES = DataShape((6,), 2), DataShape((1, 8, 8), 10)
MLP = MlpConfig(kind="mlp", hidden=(5,))
CNN = CnnConfig(kind="cnn", channels=(4,), groups=2)


class NoNoise(SeededNoise):
    """Zero noise, to see the sum itself."""

    def gaussian(self, size: int, std: float, device: torch.device) -> Tensor:
        return torch.zeros(size, dtype=torch.float64, device=device)


def make(
    module: nn.Module,
    *,
    loss: str = "cross-entropy",
    losses: RecordLoss | None = None,
    noise: NoiseSource | None = None,
    noise_multiplier: float = 1.0,
    clip: float = 1.0,
    denominator: int = 1,
    lr: float = 1.0,
    physical: int = 1024,
    gradients_kind: str = "per-sample",
) -> DpSgd:
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=lr)
    gradients = kind(gradients_kind)(
        module,
        losses or Classification.losses[loss],
        max_grad_norm=clip,
        unit=grid.fine(noise_multiplier * clip),
        rows=physical_batch(denominator, physical),
    )
    noised = partial(release, noise=noise or OsNoise(), std=noise_multiplier * clip, denominator=denominator)
    return DpSgd(gradients, optimizer, noised, noise_multiplier=noise_multiplier)


def clipped(module: nn.Module, **how: Any) -> ClippedSum:
    """The clipped sum alone, as a step takes it."""
    return make(module, **how).gradients


def batch(shape: DataShape, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 10 * torch.randn((size, *shape.features), generator=generator)
    return x, torch.randint(shape.classes, (size,), generator=generator)


def clipped_by_hand(module: nn.Module, loss: str, x: Tensor, y: Tensor, clip: float) -> Tensor:
    """The definition, one record at a time, with autograd alone."""
    total = torch.zeros(vectors.parameter_count(module))
    for i in range(len(y)):
        grads = torch.autograd.grad(
            Classification.losses[loss](module(x[i : i + 1]), y[i : i + 1]).sum(), list(module.parameters())
        )
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        total += flat * min(1.0, clip / float(flat.norm()))
    return total


@pytest.mark.parametrize(("config", "shape"), [(MLP, FLAT), (CNN, IMAGES)], ids=["mlp", "cnn"])
@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
@pytest.mark.parametrize("physical", [1, 3, 64])
def test_the_clipped_sum_is_the_definition(
    config: MlpConfig | CnnConfig, shape: DataShape, loss: str, physical: int
) -> None:
    module = build_model(config, shape, seed=1)
    x, y = batch(shape, 7)
    expected = clipped_by_hand(build_model(config, shape, seed=1), loss, x, y, clip=0.5)
    ours = clipped(module, loss=loss, clip=0.5, physical=physical).flat(x, y)
    assert torch.allclose(ours.float(), expected, atol=2e-5)
    assert float(ours.norm()) <= 7 * 0.5


def test_our_step_is_opacus_plain_step() -> None:
    """The same noise draw fed to Opacus's own optimiser gives the same parameters, but for a step of the grid."""
    x, y = batch(FLAT, 9)
    ours = build_model(MLP, FLAT, seed=1)
    make(ours, noise=SeededNoise(4), noise_multiplier=0.7, clip=0.3, denominator=5, lr=0.1, physical=4).step(
        x, y, np.arange(9)
    )

    theirs = build_model(MLP, FLAT, seed=1)
    wrapped = GradSampleModule(theirs, loss_reduction="mean")
    optimizer = DPOptimizer(
        torch.optim.SGD(theirs.parameters(), lr=0.1), noise_multiplier=0.0, max_grad_norm=0.3, expected_batch_size=5
    )
    (cross_entropy(wrapped(x), y).sum() / 9).backward()
    optimizer.pre_step()
    noise = SeededNoise(4).gaussian(vectors.parameter_count(theirs), 0.7 * 0.3, torch.device("cpu"))
    parameters = list(theirs.parameters())
    for parameter, part in zip(parameters, noise.split([p.numel() for p in parameters]), strict=True):
        assert parameter.grad is not None
        parameter.grad += (part / 5).view_as(parameter).float()
    optimizer.original_optimizer.step()
    assert np.allclose(vectors.flatten(ours), vectors.flatten(theirs), atol=1e-6 + grid.coarse(0.7 * 0.3) * 0.1 / 5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-3, 1.0, 1e3, 1e18]), clip=st.sampled_from([0.1, 1.0, 7.0]))
def test_one_record_moves_the_sum_by_at_most_the_clip(seed: int, scale: float, clip: float) -> None:
    gradients = clipped(build_model(MLP, FLAT, seed=1), clip=clip)
    x, y = batch(FLAT, 5, seed)
    x[2] *= scale
    others = torch.tensor([0, 1, 3, 4])
    moved = (gradients.flat(x, y) - gradients.flat(x[others], y[others])).norm()
    assert float(moved) <= clip


@pytest.mark.parametrize("physical", [32, 512])
def test_a_large_lot_is_added_up_without_rounding(physical: int) -> None:
    """In float32, taking away the first of 200,000 records moves the sum by more than the clip."""
    gradients = clipped(build_model(MlpConfig(kind="mlp"), FLAT, seed=1), physical=physical, denominator=512)
    x, y = batch(FLAT, 60_000)
    moved = gradients.flat(x + 1, y) - gradients.flat(x[1:] + 1, y[1:])
    assert torch.equal(moved, gradients.flat(x[:1] + 1, y[:1]))


def test_noise_is_added_in_float64_and_rounded_to_the_grid_before_anything_else() -> None:
    """Bit for bit: (sum + noise) in float64, to the grid, then float32, then the division."""
    module = build_model(MLP, FLAT, seed=1)
    before = [p.detach().clone() for p in module.parameters()]
    x, y = batch(FLAT, 9)
    sum_P = clipped(module, noise_multiplier=1e5).flat(x, y)
    make_again = make(build_model(MLP, FLAT, seed=1), noise=SeededNoise(4), noise_multiplier=1e5, lr=1.0)
    make_again.step(x, y, np.arange(9))
    noise_P = SeededNoise(4).gaussian(len(sum_P), 1e5, torch.device("cpu"))
    step = 2.0 ** (16 - 16)  # 1e5 lies between 2^16 and 2^17
    expected = (((sum_P + noise_P) / step).round() * step).float()
    assert not torch.equal(expected, (sum_P + noise_P).float())
    after = make_again.gradients.parameters
    got = torch.cat([(b - a.detach()).reshape(-1) for a, b in zip(after, before, strict=True)])
    expected_step = torch.cat([b.reshape(-1) for b in before]) - (torch.cat([b.reshape(-1) for b in before]) - expected)
    assert torch.equal(got, expected_step)


def test_an_empty_lot_still_adds_its_noise() -> None:
    size = 20_000
    module = nn.Linear(size, 1, bias=False)
    nn.init.zeros_(module.weight)
    x, y = torch.ones(3, size), torch.tensor([0, 1, 1])
    make(module, noise_multiplier=2.0, clip=1.5, denominator=10).step(x, y, np.array([], dtype=np.intp))
    std = float(module.weight.detach().std())
    assert abs(std / (2.0 * 1.5 / 10) - 1) < 5 / math.sqrt(2 * size)


def test_noise_is_sigma_times_clip_over_the_denominator_on_top_of_the_sum() -> None:
    size = 20_000
    x, y = torch.ones(1, size), torch.tensor([1])
    module = nn.Linear(size, 1, bias=False)
    nn.init.zeros_(module.weight)
    make(module, noise_multiplier=3.0, clip=0.5, denominator=4).step(x, y, np.array([0]))
    moved = module.weight.detach()
    assert abs(float(moved.std()) / (3.0 * 0.5 / 4) - 1) < 5 / math.sqrt(2 * size)
    # The record's clipped gradient is -0.5 / sqrt(size) a coordinate: visible in the mean of the noise.
    assert abs(float(moved.mean()) - 0.5 / math.sqrt(size) / 4) < 5 * (1.5 / 4) / math.sqrt(size)


def test_noise_is_added_once_a_lot_whatever_the_physical_batch() -> None:
    size = 20_000
    x, y = torch.zeros(8, size), torch.zeros(8, dtype=torch.long)
    module = nn.Linear(size, 1, bias=False)
    nn.init.zeros_(module.weight)
    make(module, physical=2).step(x, y, np.arange(8))
    assert abs(float(module.weight.detach().std()) - 1) < 5 / math.sqrt(2 * size)


def test_the_denominator_is_declared_not_counted() -> None:
    """Twice the records, twice the step: dividing by a count would give the same step, and publish the count."""
    steps = []
    for records in (4, 8):
        module = nn.Linear(3, 1, bias=False)
        nn.init.zeros_(module.weight)
        make(module, noise=NoNoise(0), denominator=10).step(
            torch.ones(records, 3), torch.ones(records, dtype=torch.long), np.arange(records)
        )
        steps.append(float(module.weight.detach().norm()))
    assert steps[1] == pytest.approx(2 * steps[0])


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("physical", [1, 64])
def test_a_poisoned_record_counts_nothing_and_spoils_nobody(poison: float, physical: int) -> None:
    gradients = clipped(build_model(CNN, IMAGES, seed=1), physical=physical)
    x, y = batch(IMAGES, 6)
    x[3] = poison
    others = torch.tensor([0, 1, 2, 4, 5])
    with_poison, without = gradients.flat(x, y), gradients.flat(x[others], y[others])
    assert bool(with_poison.isfinite().all())
    assert float((with_poison - without).norm()) <= 1
    if not math.isfinite(poison):
        assert torch.equal(with_poison, without)


def test_opacus_alone_lets_one_nan_poison_the_whole_sum() -> None:
    """What the guard is for; when this goes green without it, the guard can go."""
    module = GradSampleModule(build_model(CNN, IMAGES, seed=1), loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=1.0), noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=1
    )
    x, y = batch(IMAGES, 6)
    x[3] = math.nan
    cross_entropy(module(x), y).sum().backward()
    optimizer.clip_and_accumulate()
    assert all(bool(p.summed_grad.isnan().any()) for p in module.parameters())


@pytest.mark.parametrize("where", ["forward", "clip"])
def test_a_lot_that_was_stopped_leaves_nothing_pending(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under Opacus's BatchMemoryManager the sum of a stopped lot waits, un-noised, and joins the next step."""
    module = build_model(MLP, FLAT, seed=1)
    sgd = make(module, noise=NoNoise(0), physical=2)
    x, y = batch(FLAT, 6)
    undisturbed = sgd.gradients.flat(x[4:], y[4:])
    calls = 0

    def stops_on_the_second(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            nonlocal calls
            calls += 1
            result = real(*args)
            if calls == 2:
                raise KeyboardInterrupt
            return result

        return call

    target, name = (sgd.gradients._per_record, "forward") if where == "forward" else (sgd.gradients, "_factors")
    with monkeypatch.context() as patch:
        patch.setattr(target, name, stops_on_the_second(getattr(target, name)))
        with pytest.raises(KeyboardInterrupt):
            sgd.step(x, y, np.arange(6))
    before = vectors.flatten(module)
    sgd.step(x, y, np.array([4, 5]))
    assert np.allclose(before - vectors.flatten(module), undisturbed.numpy(), atol=1e-6 + grid.coarse(1.0))


def test_a_parameter_without_a_gradient_is_refused() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(6, 1), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)  # type: ignore[no-any-return]

    sgd = make(Forgetful())
    x, y = batch(FLAT, 3)
    with pytest.raises(PrivacyError, match="released without noise"):
        sgd.step(x, y, np.arange(3))


def test_frozen_parameters_stay() -> None:
    module = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 1))
    module[0].requires_grad_(False)
    frozen = module[0].weight.detach().clone()
    x, y = batch(FLAT, 3)
    make(module).step(x, y, np.arange(3))
    assert torch.equal(module[0].weight, frozen)


def test_a_large_record_is_clipped_by_its_true_norm() -> None:
    """In float32 the norm of ten million equal entries comes out a hundredth too small."""
    size = 3_000_000
    module = nn.Linear(size, 1, bias=False)
    nn.init.zeros_(module.weight)
    moved = clipped(module, clip=1e-3).flat(torch.full((1, size), 0.03), torch.tensor([1]))
    assert 0.999e-3 < float(moved.norm()) <= 1e-3


def test_dropout_without_a_source_is_refused() -> None:
    sgd = make(build_model(MlpConfig(kind="mlp", hidden=(5,), dropout=0.5), FLAT, seed=1))
    x, y = batch(FLAT, 3)
    with pytest.raises(PrivacyError, match="without a source"):
        sgd.step(x, y, np.arange(3))


def test_a_sum_and_noise_of_two_grids_are_refused() -> None:
    """Their sum would be rounded, by what hangs on the records."""
    gradients = clipped(build_model(MLP, FLAT, seed=1), noise_multiplier=1.0)
    optimizer = torch.optim.SGD(gradients.parameters, lr=1.0)
    with pytest.raises(PrivacyError, match="sums lie on a grid of"):
        DpSgd(gradients, optimizer, list, noise_multiplier=2.0)
    DpSgd(gradients, optimizer, list, noise_multiplier=1.5)


@pytest.mark.parametrize("others", ["fewer", "more", "a copy's"])
def test_an_optimiser_of_other_parameters_is_refused(others: str) -> None:
    """Fewer would never learn, and more could move by what no noise was added to."""
    gradients = clipped(build_model(MLP, FLAT, seed=1))
    own = gradients.parameters
    given = {
        "fewer": own[1:],
        "more": [*own, nn.Parameter(torch.zeros(1))],
        "a copy's": list(build_model(MLP, FLAT, seed=1).parameters()),
    }[others]
    with pytest.raises(PrivacyError, match="other parameters than those"):
        DpSgd(gradients, torch.optim.SGD(given, lr=1.0), list, noise_multiplier=1.0)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_clipped_sum_is_seen_while_the_optimiser_steps_and_never_after(stopped: bool) -> None:
    sgd = make(build_model(MLP, FLAT, seed=1))
    x, y = batch(FLAT, 5)
    expected = sgd.gradients.of(x, y, np.arange(5))
    seen: list[bool] = []

    def look(*_: object) -> None:
        seen.append(all(torch.equal(one, other) for one, other in zip(sgd.sums, expected, strict=True)))
        if stopped:
            raise KeyboardInterrupt

    sgd.optimizer.register_step_pre_hook(look)
    with pytest.raises(KeyboardInterrupt) if stopped else nullcontext():
        sgd.step(x, y, np.arange(5))
    assert seen == [True]
    assert sgd.sums == []
    assert all(parameter.grad is None for parameter in sgd.gradients.parameters)


def test_the_optimiser_steps_on_what_is_released_and_a_lot_is_released_once() -> None:
    module = build_model(MLP, FLAT, seed=1)
    gradients = clipped(module)
    x, y = batch(FLAT, 5)
    expected = vectors.flatten(module) - gradients.flat(x, y).float().numpy() / 4
    optimizer = torch.optim.SGD(gradients.parameters, lr=1.0)
    released: list[Tensor] = []

    def bare(sums_L: list[Tensor]) -> list[Tensor]:
        released.extend(sums_L)
        return [divided(sum_, 4) for sum_ in sums_L]

    DpSgd(gradients, optimizer, bare, noise_multiplier=1.0).step(x, y, np.arange(5))
    assert np.allclose(vectors.flatten(module), expected, atol=1e-7)
    assert len(released) == len(gradients.parameters)
