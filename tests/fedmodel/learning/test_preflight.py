"""The preflight refuses what Opacus's validator and ghost modes let through, and accepts our own models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.utils.adaptive_clipping.adaptive_clipping_utils import DPLossFastGradientAdaptiveClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from fedmodel.config import builtin_scenarios, read_scenario
from fedmodel.errors import PrivacyError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning import vectors
from fedmodel.learning.models import build_model
from fedmodel.learning.preflight import check_sensitivity, preflight
from fedmodel.learning.tasks import objective, task_of
from tests.fedmodel.learning.test_dp_sgd import FLAT, clipped

CPU = torch.device("cpu")


# Each built-in scenario with every loss of its own task: no other reads its targets.
TRAINED = [
    (name, loss) for name in sorted(builtin_scenarios()) for loss in task_of(read_scenario(name).data.shape).losses
]


@pytest.mark.parametrize(("name", "loss"), TRAINED)
@pytest.mark.parametrize("physical", [1, 512])
def test_our_own_models_pass_and_are_left_as_they_were(name: str, loss: str, physical: int) -> None:
    scenario = read_scenario(name)
    module = build_model(scenario.model, scenario.data.shape, seed=1)
    before, modes = vectors.flatten(module), [layer.training for layer in module.modules()]
    losses = objective(scenario.data.shape, loss).losses
    gradients = clipped(module, losses=losses, physical=physical)
    rows = preflight(gradients, scenario.data.shape, 1.0)
    assert rows == gradients.rows
    assert rows == min(8, physical)
    assert (vectors.flatten(module) == before).all()
    assert [layer.training for layer in module.modules()] == modes


def _with_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8, affine=False, track_running_stats=False)
    return nn.Sequential(nn.Linear(6, 8), norm, nn.ReLU(), nn.Linear(8, 1))


def test_batch_norm_without_parameters_passes_opacus_and_not_us() -> None:
    module = _with_batch_norm()
    assert ModuleValidator.is_valid(module)
    with pytest.raises(PrivacyError, match="couples records"):
        preflight(clipped(module), FLAT, 1.0)


class Counting(nn.Module):
    """Counts records in a buffer, and makes nothing of it."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return x


def test_a_buffer_that_records_change_is_refused_by_name() -> None:
    """Running statistics of a norm too, though they have no part in what a record adds in training."""
    module = nn.Sequential(nn.Linear(6, 8), Counting(), nn.Linear(8, 1))
    with pytest.raises(PrivacyError, match=r"changes '1.seen' as records pass, where no noise is added"):
        preflight(clipped(module), FLAT, 1.0)


def _ghost(criterion: nn.Module, *, outputs: int, adaptive: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Opacus's ghost clipping as its documentation sets it up, noise left out."""
    torch.manual_seed(0)
    module = GradSampleModuleFastGradientClipping(
        nn.Linear(6, outputs), max_grad_norm=1.0, use_ghost_clipping=True, loss_reduction="sum"
    )
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(module.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=1.0,
        expected_batch_size=1,
        loss_reduction="sum",
    )
    if adaptive:
        loss = DPLossFastGradientAdaptiveClipping(
            module, optimizer, criterion, loss_reduction="sum", initial_noise_multiplier=0.0
        )
    else:
        loss = DPLossFastGradientClipping(module, optimizer, criterion, loss_reduction="sum")

    def clipped_sum(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        module.zero_grad()
        output = module(x)
        target = y.float()[:, None] if outputs == 1 else y
        loss(output, target).backward()
        return torch.cat([p.grad.reshape(-1) for p in module.parameters()]).detach().clone()

    return clipped_sum


@pytest.mark.parametrize("criterion", [nn.MSELoss(reduction="sum"), nn.BCEWithLogitsLoss(reduction="sum")])
def test_ghost_clipping_with_losses_of_shape_b_1_is_refused(criterion: nn.Module) -> None:
    with pytest.raises(PrivacyError, match="times the clip"):
        check_sensitivity(_ghost(criterion, outputs=1, adaptive=False), FLAT, 1.0, CPU)


def test_adaptive_ghost_clipping_is_refused() -> None:
    criterion = nn.CrossEntropyLoss(reduction="sum")
    with pytest.raises(PrivacyError, match="times the clip"):
        check_sensitivity(_ghost(criterion, outputs=3, adaptive=True), DataShape((6,), 3), 1.0, CPU)


def test_no_clip_at_all_is_refused() -> None:
    gradients = clipped(build_model(read_scenario("hospitals").model, DataShape((6,), 2), seed=1))
    gradients.max_grad_norm = 1e9
    with pytest.raises(PrivacyError, match="times the clip"):
        preflight(gradients, FLAT, 1.0)


def test_a_pipeline_is_held_to_the_clip_that_is_charged_and_not_to_its_own_word() -> None:
    """All of it was built for twice the clip, so that it agrees with itself."""
    model = build_model(read_scenario("hospitals").model, DataShape((6,), 2), seed=1)
    preflight(clipped(model, clip=2.0), FLAT, 2.0)
    with pytest.raises(PrivacyError, match="times the clip"):
        preflight(clipped(build_model(read_scenario("hospitals").model, FLAT, seed=1), clip=2.0), FLAT, 1.0)


def test_a_clip_twice_too_wide_is_refused() -> None:
    gradients = clipped(build_model(read_scenario("hospitals").model, DataShape((6,), 2), seed=1))
    gradients.max_grad_norm = 2.0
    with pytest.raises(PrivacyError, match="times the clip"):
        preflight(gradients, FLAT, 1.0)


def test_the_probes_reach_the_bound() -> None:
    """A gauge that never moves would accept anything."""
    gradients = clipped(build_model(read_scenario("hospitals").model, DataShape((6,), 2), seed=1))
    assert check_sensitivity(gradients.flat, FLAT, 1.0, CPU) > 0.99


def test_parameters_come_back_after_a_refusal() -> None:
    module = _with_batch_norm()
    before = vectors.flatten(module)
    with pytest.raises(PrivacyError):
        preflight(clipped(module), FLAT, 1.0)
    assert (vectors.flatten(module) == before).all()


def test_dropout_from_torchs_own_generator_is_refused() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    with pytest.raises(PrivacyError, match="which can be guessed"):
        preflight(clipped(module), FLAT, 1.0)
