"""One record moves a noised sum by at most the clip, to the bit: any model, any lot, any order; and all on the grid."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from itertools import count
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmodel import plans
from fedmodel.canaries.probes import Probed, ProbedLoss
from fedmodel.config import ModelConfig, TrainingConfig, read_scenario
from fedmodel.errors import DataError, PrivacyError
from fedmodel.kinds.models.cnn import CnnConfig
from fedmodel.kinds.models.mlp import MlpConfig
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.learning import models, vectors
from fedmodel.learning.conformance import _spread, cancel, conforms, fill, hostile, settle
from fedmodel.learning.devices import use_device
from fedmodel.learning.gradients import ClippedSum, hooks, physical_batch
from fedmodel.learning.inputs import padded
from fedmodel.learning.jobs import _pipelines
from fedmodel.learning.models import build_model, training_losses
from fedmodel.learning.precision import Precision, in_precision
from fedmodel.learning.preflight import check_received, check_sums, preflight
from fedmodel.learning.tasks.classification import Classification, cross_entropy, mse
from fedmodel.privacy import grid
from scenarios.selftest.mutations import batch_not_padded
from tests.fedmodel.learning.test_dp_sgd import FLAT, IMAGES, NoNoise, batch, clipped, make

LINEAR = MlpConfig(kind="mlp")
DEEP = MlpConfig(kind="mlp", hidden=(50, 20))
CNN = CnnConfig(kind="cnn", channels=(4, 8), groups=2)
MODELS = [(LINEAR, FLAT), (DEEP, FLAT), (DEEP, DataShape((6,), 5)), (CNN, IMAGES)]
each_model = pytest.mark.parametrize(("config", "shape"), MODELS, ids=["linear", "mlp", "many", "cnn"])


def pipeline(config: ModelConfig, shape: DataShape, rows: int = 16) -> ClippedSum:
    return clipped(build_model(config, shape, seed=1), denominator=rows, physical=rows)


def put_cancelling(gradients: ClippedSum, seed: int, magnitude: float = 4096.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    fill(gradients.parameters, generator, magnitude)
    cancel(gradients.parameters, generator)


@each_model
@pytest.mark.parametrize("rows", [1, 8, 16, 64])
def test_a_records_gradient_is_its_own_at_ordinary_and_hostile_parameters(
    config: ModelConfig, shape: DataShape, rows: int
) -> None:
    gradients = pipeline(config, shape, rows)
    assert conforms(gradients, shape)
    for name in hostile(gradients.parameters, seed=3):
        assert conforms(gradients, shape), name


@pytest.mark.parametrize("hidden", [1, 5, 8])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_narrow_layer_whose_kernels_mind_the_place_is_held_to_the_clip_all_the_same(
    hidden: int, activation: Literal["relu", "tanh"]
) -> None:
    """With up to 8 hidden units no batch of some rows conforms on an AVX-512 machine: whatever does is taken."""
    config = MlpConfig(kind="mlp", hidden=(hidden,), activation=activation)
    gradients = pipeline(config, FLAT)
    assert preflight(gradients, FLAT, 1.0) == gradients.rows
    for name in hostile(gradients.parameters, seed=4):
        assert conforms(gradients, FLAT, seed=4), name
        assert check_sums(gradients, FLAT, 1.0, (1.0,), (15, 33), seed=4) <= 1


@each_model
def test_one_record_moves_the_sum_by_at_most_the_clip_on_hostile_models(config: ModelConfig, shape: DataShape) -> None:
    gradients = pipeline(config, shape)
    seen = [
        check_sums(gradients, shape, 1.0, (1.0, math.nan), (1, 15, 16, 35), seed)
        for seed in range(4)
        for _ in hostile(gradients.parameters, seed)
    ]
    assert max(seen) <= 1
    assert min(seen) >= 0
    assert np.median(seen) > 0.999


@pytest.mark.parametrize("rows", [7, 30, 50])
def test_a_hidden_layer_that_cancels_makes_nothing_of_a_records_place(rows: int) -> None:
    """At a limit of 7, 30 and 50 rows, without padding, one record moved the sum of real patients by 3.4 clips."""
    wanted = [f"training.max_physical_batch={rows}", "model.hidden=[50]", "model.init=random"]
    scenario = read_scenario("hospitals", wanted)
    plan = plans.planned_event(scenario.plan("dune"))
    json, clip = scenario.model_dump_json(), plan.max_grad_norm
    gradients = _pipelines._built(json, plan, torch.device("cpu"), clip, ())  # one of its own
    assert gradients.rows == {7: 4, 30: 16, 50: 32}[rows]
    x, y = batch(scenario.data.shape, 165, seed=2)
    for seed in range(5):
        put_cancelling(gradients, seed)
        moved = (gradients.flat(x, y) - gradients.flat(x[1:], y[1:])).norm() / plan.max_grad_norm
        own = gradients.flat(x[:1], y[:1]).norm() / plan.max_grad_norm
        apart = (gradients.rounding(165) + gradients.rounding(164) + gradients.rounding(1)) / plan.max_grad_norm
        assert abs(float(moved) - float(own)) <= apart < 1e-4
        assert float(moved) <= 1


@settings(max_examples=25)
@given(data=st.data(), config=st.sampled_from([LINEAR, DEEP]), hostile_at=st.integers(0, 3))
def test_a_sum_is_the_same_bits_in_any_order_and_any_chunks(
    data: st.DataObject, config: MlpConfig, hostile_at: int
) -> None:
    gradients = pipeline(config, FLAT, 8)
    if hostile_at:
        put_cancelling(gradients, hostile_at, 64.0)
    x, y = batch(FLAT, 21)
    order = torch.tensor(data.draw(st.permutations(range(21))))
    cuts = sorted(data.draw(st.sets(st.integers(1, 20), max_size=5)))
    whole = gradients.flat(x, y)
    assert torch.equal(whole, gradients.flat(x[order], y[order]))
    parts = [gradients.flat(x[part], y[part]) for part in torch.tensor_split(order, cuts)]
    assert torch.equal(whole, torch.stack(parts).sum(dim=0))
    assert torch.equal(whole, torch.stack(parts[::-1]).cumsum(dim=0)[-1])


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), factor=st.floats(0, 1), exponent=st.integers(-60, 0))
def test_a_cut_goes_towards_zero_to_a_multiple_and_loses_less_than_one(seed: int, factor: float, exponent: int) -> None:
    unit = 2.0**exponent
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn((1, 40), generator=generator)
    cut = hooks._cut_sum(grad, torch.tensor([factor], dtype=torch.float64), unit)
    exact = grad[0].double() * factor
    assert torch.equal(cut / unit, torch.trunc(cut / unit))
    assert bool((cut.abs() <= exact.abs()).all())
    assert bool(((exact - cut).abs() < unit).all())


def test_blocks_of_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = batch(IMAGES, 13)
    whole = pipeline(CNN, IMAGES).flat(x, y)
    monkeypatch.setattr(hooks, "_BLOCK", 50)
    assert torch.equal(whole, pipeline(CNN, IMAGES).flat(x, y))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e10, 1e30])
def test_a_clipped_gradient_is_never_longer_than_the_clip(scale: float) -> None:
    """Not by one bit: its squares are added up as whole numbers."""
    gradients = clipped(nn.Linear(3_000, 1), clip=0.7)
    nn.init.zeros_(gradients.module.weight)  # type: ignore[arg-type]
    steps = gradients.flat(
        torch.randn((1, 3_000), generator=torch.Generator().manual_seed(1)) * scale, torch.ones(1).long()
    )
    squares = sum(int(step) ** 2 for step in (steps / gradients.unit).tolist())
    assert squares <= (0.7 / gradients.unit) ** 2
    assert scale < 1 or squares > (0.7 * (1 - 1e-6) / gradients.unit) ** 2


class AtPlaces(nn.Module):
    """A linear layer whose gradient is rounded otherwise past a place, as kernels do with the last rows."""

    def __init__(self, alike: int, by: float = 2.0**-20) -> None:
        super().__init__()
        self.linear, self.alike, self.by = nn.Linear(6, 1), alike, by

    def forward(self, x_BF: Tensor) -> Tensor:
        place_B1 = torch.arange(len(x_BF))[:, None]
        return self.linear(x_BF * torch.where(place_B1 >= self.alike, 1 + self.by, 1.0))  # type: ignore[no-any-return]


def test_a_physical_batch_whose_places_round_otherwise_is_made_smaller(caplog: pytest.LogCaptureFixture) -> None:
    gradients = clipped(AtPlaces(4), denominator=64, physical=64)
    assert not conforms(gradients, FLAT)
    with caplog.at_level(logging.WARNING):
        assert preflight(gradients, FLAT, 1.0) == gradients.rows == 4
    assert [record.getMessage() for record in caplog.records] == [
        "in physical batches of 64 this device rounds a record's gradient by its place; they have 4 rows instead"
    ]
    assert preflight(clipped(AtPlaces(1), denominator=64), FLAT, 1.0) == 1


def test_a_model_received_can_ask_for_smaller_batches_too() -> None:
    gradients = clipped(AtPlaces(4), denominator=64, physical=64)
    assert check_received(gradients, FLAT, 1.0) == 4


class Companions(nn.Module):
    """A linear layer that adds a last bit of the batch's first record to every other."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 1)

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.linear(x_BF + 2.0**-22 * x_BF[:1].nan_to_num().clamp(-1, 1))  # type: ignore[no-any-return]


def test_companions_that_change_a_last_bit_are_found() -> None:
    gradients = clipped(Companions(), denominator=8)
    assert not conforms(gradients, FLAT)
    assert not conforms(gradients, FLAT, thorough=False)


class Restless(nn.Module):
    """A linear layer that is another each time."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(6, 1), count(1)  # of which a model is not put back to what it was

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.linear(x_BF * (1 + next(self.calls) * 2.0**-20))  # type: ignore[no-any-return]


def test_a_layer_that_does_not_repeat_itself_is_refused() -> None:
    gradients = clipped(Restless(), denominator=8)
    with pytest.raises(PrivacyError, match="does not add the same each time"):
        settle(gradients, FLAT, lambda: iter([None]))


def test_a_batch_that_is_not_padded_is_refused() -> None:
    gradients = clipped(build_model(DEEP, FLAT, seed=1))
    with batch_not_padded(), pytest.raises(PrivacyError, match=r"a physical batch of \d rows reached the model"):
        preflight(gradients, FLAT, 1.0)


class Alone(nn.Linear):
    """A layer of a type of its own, whose gradients are computed by running it once more for each record."""

    def forward(self, x_BF: Tensor) -> Tensor:
        return super().forward(x_BF.flatten(1).tanh())


def test_a_model_that_is_one_layer_of_its_own_type_is_taken() -> None:
    module = Alone(math.prod(FLAT.features), FLAT.classes)
    gradients = clipped(module, denominator=16, gradients_kind="book-keeping")
    assert preflight(gradients, FLAT, 1.0) == gradients.rows


def test_a_sum_off_its_grid_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "trunc_", lambda values: values)
    with pytest.raises(PrivacyError, match="is no multiple of"):
        preflight(clipped(build_model(DEEP, FLAT, seed=1)), FLAT, 1.0)


def test_what_fills_a_batch_up_counts_nothing_whatever_its_gradient() -> None:
    """A model whose gradient on zeros is no number."""

    class Inverse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 1)

        def forward(self, x_BF: Tensor) -> Tensor:
            return self.linear(x_BF / x_BF.abs().sum(dim=1, keepdim=True))  # type: ignore[no-any-return]

    x, y = batch(FLAT, 3)
    filled = clipped(Inverse(), denominator=8)
    with torch.no_grad():
        assert bool(filled.module(padded(x, 8))[3:].isnan().all())
    alone = clipped(Inverse(), physical=1)
    vectors.load(alone.module, vectors.flatten(filled.module))
    assert filled.rows == 8
    found, expected = filled.flat(x, y), alone.flat(x, y)
    assert bool(found.isfinite().all())
    assert torch.allclose(found, expected, atol=1e-5)
    assert float(found.norm()) > 0.1


@pytest.mark.parametrize(
    ("expected", "most", "rows"),
    [(1, 512, 8), (40, 512, 64), (64, 64, 64), (65, 100, 64), (9, 3, 2), (10**6, 512, 512)],
)
def test_rows_follow_from_public_figures(expected: int, most: int, rows: int) -> None:
    assert physical_batch(expected, most) == rows <= most


def test_a_loss_that_is_not_one_for_each_record_is_refused() -> None:
    module = build_model(LINEAR, FLAT, seed=1)
    gradients = clipped(module)
    gradients.losses = lambda output, label: mse(output, label).mean()
    with pytest.raises(PrivacyError, match=r"the loss has shape \(\), where each record needs one"):
        gradients.flat(*batch(FLAT, 3))


@pytest.mark.parametrize("weights", [(1.0, 9.0), (1e6, 1e-6), (2.0**20, 2.0**20), (2.0**-20, 2.0**-20)])
@pytest.mark.parametrize("config", [LINEAR, DEEP], ids=["linear", "mlp"])
def test_class_weights_move_no_sum_by_more_than_the_clip(config: ModelConfig, weights: tuple[float, float]) -> None:
    gradients = pipeline(config, FLAT)
    gradients.losses = training_losses(weighing(weights), FLAT)
    assert preflight(gradients, FLAT, 1.0) == gradients.rows > 1
    for seed, _ in enumerate(hostile(gradients.parameters, seed=6)):
        assert check_sums(gradients, FLAT, 1.0, (1.0, math.nan), (1, 15, 35), seed) <= 1


def test_a_class_weight_goes_in_before_the_clip() -> None:
    """A record whose gradient is under the clip gets more of it by its weight, and never more than all of it."""
    gradients = pipeline(LINEAR, FLAT)
    x, y = batch(FLAT, 1)
    x, y = x / 1e3, torch.ones_like(y)
    small = float(gradients.flat(x, y).norm())
    assert 0 < small < 0.9
    for weight, expected in ((0.5, 0.5 * small), (2.0**20, 1.0)):
        gradients.losses = training_losses(weighing((1.0, weight)), FLAT)
        assert float(gradients.flat(x, y).norm()) == pytest.approx(expected, rel=1e-5)


def test_weights_over_the_batchs_sum_of_them_are_found_to_couple_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch divides its own weighted loss: a record's gradient is then not its own, but one record at a time."""
    gradients = pipeline(LINEAR, FLAT)
    gradients.losses = training_losses(weighing((1.0, 9.0)), FLAT)
    assert conforms(gradients, FLAT)
    monkeypatch.setattr(models, "weighed", lambda loss_B, weight_B: weight_B * loss_B / weight_B.sum())
    assert not conforms(gradients, FLAT)
    assert settle(gradients, FLAT, lambda: iter([None])) == 1


def weighing(weights: tuple[float, float]) -> TrainingConfig:
    return TrainingConfig(
        loss="cross-entropy", optimizer="sgd", learning_rate=1.0, local_steps=1, class_weights=weights
    )


def test_more_records_than_sums_are_exact_for_are_refused_whatever_the_lot() -> None:
    sgd = make(build_model(LINEAR, FLAT, seed=1), noise_multiplier=0.2)
    x, y = torch.zeros((1, 6)).expand(419_431, 6), torch.zeros(1, dtype=torch.long).expand(419_431)
    with pytest.raises(DataError, match="more than 419430 records"):
        sgd.step(x, y, np.array([0]))
    sgd.step(x[1:], y[1:], np.array([0]))


def test_a_model_of_another_precision_is_refused() -> None:
    """A square of a float64 is rounded, so that the bound of a norm is not that of float32."""
    with pytest.raises(PrivacyError, match="that are not float32"):
        clipped(build_model(LINEAR, FLAT, seed=1).double())


@pytest.mark.gpu
@each_model
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("kind", ["book-keeping", "hooks"])
def test_a_gpu_treats_records_alike_or_takes_smaller_batches(
    config: ModelConfig, shape: DataShape, precision: Precision, kind: str
) -> None:
    device = use_device("cuda")
    module = in_precision(build_model(config, shape, seed=1), precision).to(device)
    gradients = clipped(module, denominator=64, gradients_kind=kind)
    assert 1 <= preflight(gradients, shape, 1.0) <= 64
    for name in hostile(gradients.parameters, seed=5):
        assert conforms(gradients, shape, seed=5), name
        assert check_sums(gradients, shape, 1.0, (1.0, math.nan), (63, 64, 130)) <= 1


def test_a_clip_or_noise_without_a_grid_is_refused() -> None:
    with pytest.raises(PrivacyError, match="has no grid"):
        make(build_model(LINEAR, FLAT, seed=1), noise_multiplier=0.0)


class Near(NoNoise):
    """Noise within some bits of cancelling a sum."""

    def __init__(self, near_P: Tensor) -> None:
        super().__init__(0)
        self.near_P = near_P

    def gaussian(self, size: int, std: float, device: torch.device) -> Tensor:
        assert size == len(self.near_P)
        return self.near_P


@pytest.mark.parametrize("noise_multiplier", [0.3, 1.0, 6.56])
@pytest.mark.parametrize("near", [False, True])
def test_no_bit_of_the_noise_below_the_grid_is_released(noise_multiplier: float, near: bool) -> None:
    """Near zero, float32 would keep every bit of a float64: all of 2,000 coordinates are whole steps of the grid."""
    size, denominator = 2_000, 64
    module = nn.Linear(size, 1, bias=False)
    nn.init.zeros_(module.weight)
    x, y = batch(DataShape((size,), 2), 9)
    near_P = torch.zeros(size, dtype=torch.float64)
    noise = Near(near_P) if near else None
    sgd = make(module, noise=noise, noise_multiplier=noise_multiplier, clip=1.5, denominator=denominator)
    if near:
        tiny = torch.randn(size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        near_P += -sgd.gradients.flat(x, y) + tiny * torch.logspace(-15, 0, size, dtype=torch.float64)
    sgd.step(x, y, np.arange(9))
    steps = -module.weight.detach()[0].double() * denominator / grid.coarse(noise_multiplier * 1.5)
    assert torch.equal(steps, steps.round())
    assert len(set(steps.tolist())) > size / 10


def test_noise_is_on_the_fine_grid_before_it_meets_the_sum() -> None:
    """So that they add up exactly: of half a coarse step and a bit of a fine one, the bit is gone by then."""
    module = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(module.weight)
    coarse, fine = grid.coarse(1.0), grid.fine(1.0)
    noise = torch.tensor([coarse / 2 + 0.4 * fine, coarse / 2 + 0.6 * fine, -0.4 * coarse], dtype=torch.float64)
    make(module, noise=Near(noise)).step(torch.zeros(1, 3), torch.zeros(1).long(), np.array([], dtype=np.intp))
    assert (-module.weight.detach()[0] / coarse).tolist() == [0, 1, 0]


def test_neighbours_release_from_the_same_set() -> None:
    """The very same noise on a sum with and without a record: what leaves differs by whole steps, never within one."""
    size = 500
    x, y = batch(DataShape((size,), 2), 4)
    noise = torch.randn(size, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    left = []
    for records in (3, 4):
        module = nn.Linear(size, 1, bias=False)
        nn.init.zeros_(module.weight)
        make(module, noise=Near(noise)).step(x, y, np.arange(records))
        left.append(module.weight.detach()[0].double() / grid.coarse(1.0))
    moved = left[0] - left[1]
    assert torch.equal(moved, moved.round())
    assert float(moved.abs().max()) > 0


def test_a_probed_models_rows_are_treated_alike_canaries_and_what_is_no_number_included() -> None:
    module = Probed(build_model(DEEP, FLAT, seed=1), 3)
    losses = ProbedLoss(cross_entropy, 3, 1.0)
    gradients = clipped(module, losses=losses, denominator=16, physical=16)
    assert conforms(gradients, FLAT)
    x, y = batch(FLAT, 12)
    marks = torch.zeros(12, dtype=torch.int64)
    marks[3:7] = torch.tensor([1, 2, 3, 4])
    odd = torch.randint(-(2**40), 2**40, (sum(p.numel() for p in gradients.parameters),)) * 2 + 1
    own, order = gradients.prints({"features": x, "canary": marks}, y, odd), torch.randperm(12)
    assert torch.equal(own[order], gradients.prints({"canary": marks[order], "features": x[order]}, y[order], odd))
    assert own[6] == 0  # the record that is not a number
    assert len(set(own.tolist())) == 12


@pytest.mark.parametrize("made", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_a_canary_adds_only_its_own_coordinate_whatever_the_model_makes_of_it(loss: str, made: float) -> None:
    """Where the model's outputs are no numbers, a canary's gradient is all the same the one on its coordinate."""
    losses = ProbedLoss(Classification.losses[loss], 3, 2.0)
    output, block = torch.tensor([[made], [made], [0.5]]).requires_grad_(), torch.zeros((3, 4)).requires_grad_()
    torch.autograd.backward(losses((output, block, torch.tensor([2, 1, 0])), torch.tensor([0, 0, 1])).sum())
    assert output.grad is not None
    assert block.grad is not None
    assert output.grad[:2].tolist() == [[0], [0]]
    assert output.grad[2, 0] != 0
    assert block.grad.tolist() == [[0, 20, 0, 0], [20, 0, 0, 0], [0, 0, 0, 0]]


class Watching(nn.Module):
    """Turns a whole batch about where a record in it has what a test looks for."""

    def __init__(self, sought: Callable[[Tensor], Tensor], scale: float = 1.0) -> None:
        super().__init__()
        self.sought, self.scale, self.out = sought, scale, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.float() * self.scale
        return self.out(-h if bool(self.sought(x).any()) else h)  # type: ignore[no-any-return]


REALS, WORDS = DataShape((6,), 3), DataShape((6,), 3, below=100_000)


@pytest.mark.parametrize(
    ("sought", "shape"),
    [
        (lambda x: (x > 20) & (x < 25), REALS),
        (lambda x: (x > -25) & (x < -20), REALS),
        (lambda x: (x > 4000) & (x < 5000), REALS),
        (lambda x: ((x > 10) & (x < 30)).all(dim=1), REALS),  # and no record of values that are far apart
        (lambda x: x == 99_999, WORDS),
    ],
)
@pytest.mark.parametrize("rows", [16, 64])
def test_a_model_that_looks_for_values_of_companions_is_found_out(
    sought: Callable[[Tensor], Tensor], shape: DataShape, rows: int
) -> None:
    module = Watching(sought, 1e-5 if shape.below else 1.0)
    torch.manual_seed(2)
    gradients = make(module, losses=cross_entropy, denominator=rows, physical=rows).gradients
    assert not all(conforms(gradients, shape, seed=seed) for seed in range(4))


def test_values_of_companions_are_spread_over_their_whole_range() -> None:
    generator = torch.Generator().manual_seed(1)
    real = _spread(ArrayShape((6,)), count=16, generator=generator, sign=-1.0).flatten().sort(descending=True).values
    assert float(real[0]) <= -2.0
    assert float(real[-1]) >= -1e4
    assert float((real[1:] / real[:-1]).max()) <= (1e4 / 2) ** (2 / 96)
    whole = _spread(ArrayShape((2, 3), below=7), count=16, generator=generator, sign=1.0)
    assert whole.unique().tolist() == list(range(7))
    alike = _spread(ArrayShape((2, 3)), count=16, generator=generator, sign=1.0, alike=True)
    assert torch.equal(alike, alike[:, :1, :1].expand(16, 2, 3))
    assert len(alike.unique()) == 16
