"""Every kind of gradients: the clipped sum is the definition, and the preflight refuses a kind that breaks it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmodel.config import ModelConfig, read_scenario
from fedmodel.errors import ConfigError, PrivacyError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.conformance import conforms, hostile
from fedmodel.learning.gradients import KINDS, ClippedSum, kind
from fedmodel.learning.inputs import Inputs, unlike
from fedmodel.learning.models import build_model
from fedmodel.learning.preflight import check_sums, preflight
from fedmodel.learning.tasks.classification import Classification
from fedmodel.privacy import grid
from fedmodel.provision import scenario_hash
from scenarios.simulation.simulate import check_scenario
from tests.fedmodel.learning.test_dp_sgd import CNN, FLAT, IMAGES, MLP, batch, clipped_by_hand

pytestmark = pytest.mark.usefixtures("same_bytes")

OWN = {name: of for name, of in KINDS.items() if name not in ("auto", "per-sample")}  # which are others' by name
each_kind = pytest.mark.parametrize("of", OWN.values(), ids=OWN)
MODELS: dict[str, tuple[ModelConfig, DataShape]] = {
    "mlp": (MLP, FLAT),
    "cnn": (CNN, IMAGES),
    "mlp-standardised": (MLP.model_copy(update={"weight_standardization": True}), FLAT),
    "cnn-standardised": (CNN.model_copy(update={"weight_standardization": True}), IMAGES),
}
each_model = pytest.mark.parametrize(("config", "shape"), MODELS.values(), ids=MODELS)


def make(
    of: type[ClippedSum],
    module: nn.Module,
    loss: str = "cross-entropy",
    clip: float = 0.5,
    rows: int = 8,
    views: int = 1,
) -> ClippedSum:
    made = of(module, Classification.losses[loss], max_grad_norm=clip, unit=grid.fine(0.5), rows=rows)
    made.views = views
    return made


@each_kind
@each_model
@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_a_sum_is_the_definition(
    of: type[ClippedSum], config: ModelConfig, shape: DataShape, loss: str, rows: int
) -> None:
    x, y = batch(shape, 7)
    gradients = make(of, build_model(config, shape, seed=1), loss, rows=rows)
    expected = clipped_by_hand(build_model(config, shape, seed=1), loss, x, y, gradients.clip)
    assert torch.allclose(gradients.flat(x, y).float(), expected, atol=2e-5)
    assert 0.5 * (1 - 2**-8) <= gradients.clip <= 0.5


@each_kind
@each_model
@pytest.mark.parametrize(("rows", "clip"), [(2, 0.5), (8, 0.5), (8, 50.0)])
def test_a_sum_of_several_views_is_of_each_records_mean_gradient(
    of: type[ClippedSum], config: ModelConfig, shape: DataShape, rows: int, clip: float
) -> None:
    """By hand: a record's views are a batch of their own, whose mean loss is differentiated, and clipped once."""
    x, y = batch(shape, 5)
    gradients = make(of, build_model(config, shape, seed=1), clip=clip, rows=rows, views=3)
    module = build_model(config, shape, seed=1)
    expected = torch.zeros(sum(parameter.numel() for parameter in module.parameters()), dtype=torch.float64)
    for place in range(5):
        x_K = unlike(x[place : place + 1], 3)
        loss = Classification.losses["cross-entropy"](module(x_K), y[place].expand(3)).mean()
        grad_P = torch.cat([one.reshape(-1) for one in torch.autograd.grad(loss, [*module.parameters()])]).double()
        expected += grad_P * min(1.0, gradients.clip / float(grad_P.norm()))
    found = gradients.flat(x, y)
    assert torch.allclose(found, expected, atol=2e-5 * max(1.0, float(expected.abs().max())))
    plain = make(of, build_model(config, shape, seed=1), clip=clip, rows=rows)
    assert not torch.allclose(found, plain.flat(x, y), atol=1e-3)


@each_kind
def test_one_record_of_many_views_moves_a_sum_by_one_clip(of: type[ClippedSum]) -> None:
    gradients = make(of, build_model(MLP, FLAT, seed=1), views=5)
    assert preflight(gradients, FLAT, 0.5) == gradients.rows > 0
    for name in hostile(gradients.parameters, seed=3):
        assert conforms(gradients, FLAT, thorough=False), name
        assert check_sums(gradients, FLAT, 0.5, (1.0, 1e4), (1, 7)) <= 1


def test_views_that_are_clipped_each_by_itself_are_refused() -> None:
    class EachAlone(KINDS["per-sample"]):  # type: ignore[misc]
        def add(self, x_V: Inputs, y_R: Tensor) -> None:
            views, rows = self.views, self.rows
            self.views, self.rows = 1, rows * views
            super().add(x_V, y_R.repeat_interleave(views))
            self.views, self.rows = views, rows

    gradients = make(EachAlone, build_model(MLP, FLAT, seed=1), views=3)
    with pytest.raises(PrivacyError, match=r"one record of scale .* moves the clipped sum by [12]\.\d+ times the clip"):
        preflight(gradients, FLAT, 0.5)


@each_kind
@pytest.mark.parametrize("spoilt", [math.nan, math.inf])
def test_a_view_that_is_no_number_takes_its_own_record_out_and_no_other(of: type[ClippedSum], spoilt: float) -> None:
    gradients = make(of, build_model(MLP, FLAT, seed=1), views=3)
    x, y = batch(FLAT, 6)

    def views(x_R: Inputs) -> Inputs:
        x_V = unlike(x_R, 3)
        assert isinstance(x_V, Tensor)
        x_V[3 * 2 + 1] = spoilt
        return x_V

    found = gradients.of(x, y, np.arange(6), views)
    others = gradients.of(x, y, np.array([0, 1, 3, 4, 5]), gradients.made_up_views)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found, others, strict=True))


@each_kind
def test_records_without_their_views_are_refused(of: type[ClippedSum]) -> None:
    gradients = make(of, build_model(MLP, FLAT, seed=1), views=3)
    x, y = batch(FLAT, 6)
    for augment in (None, lambda x_R: unlike(x_R, 2)):
        with pytest.raises(PrivacyError, match="records came without 3 views each"):
            gradients.of(x, y, np.arange(6), augment)


@each_kind
@each_model
def test_a_kind_passes_its_conformance_test(of: type[ClippedSum], config: ModelConfig, shape: DataShape) -> None:
    gradients = make(of, build_model(config, shape, seed=1))
    assert preflight(gradients, shape, 0.5) == gradients.rows > 0
    for name in hostile(gradients.parameters, seed=3):
        assert conforms(gradients, shape), name
        assert check_sums(gradients, shape, 0.5, (1.0, math.nan), (1, 7, 19)) <= 1


@each_kind
def test_a_sum_is_taken_once_in_the_order_of_parameters_and_zero_where_nothing_was_added(
    of: type[ClippedSum],
) -> None:
    gradients = make(of, build_model(MLP, FLAT, seed=1))
    x, y = batch(FLAT, 3)
    gradients.add(x, y)
    taken = gradients.take()
    assert [one.shape for one in taken] == [one.shape for one in gradients.module.parameters()]
    assert {one.dtype for one in taken} == {torch.float64}
    assert any(bool(one.any()) for one in taken)
    for nothing in (gradients.take(), gradients.of(x, y, np.array([], dtype=np.intp))):
        assert [one.shape for one in nothing] == [one.shape for one in taken]
        assert not any(bool(one.any()) for one in nothing)


@each_kind
def test_what_is_pending_is_in_no_later_lot(of: type[ClippedSum]) -> None:
    gradients = make(of, build_model(MLP, FLAT, seed=1))
    x, y = batch(FLAT, 9)
    expected = gradients.flat(x[3:], y[3:])
    gradients.add(x[:3], y[:3])
    assert torch.equal(gradients.flat(x[3:], y[3:]), expected)
    gradients.add(x[:3], y[:3])
    gradients.forget()
    assert not any(bool(one.any()) for one in gradients.take())


@each_kind
def test_nothing_of_a_lot_stays_at_the_model(of: type[ClippedSum]) -> None:
    """Records, activations and gradients are sensitive; what was taken is all that is left of them."""
    module = build_model(CNN, IMAGES, seed=1)
    before = {name: set(vars(layer)) for name, layer in module.named_modules()}
    gradients = make(of, module)
    hooked = {name: set(vars(layer)) for name, layer in module.named_modules()}
    gradients.flat(*batch(IMAGES, 11))
    gradients.prints(*batch(IMAGES, 5), torch.ones(sum(p.numel() for p in gradients.parameters), dtype=torch.int64))
    assert before.keys() == hooked.keys()
    assert {name: set(vars(layer)) for name, layer in module.named_modules()} == hooked
    for parameter in module.parameters():
        assert parameter.grad is None
        assert not [name for name, held in vars(parameter).items() if isinstance(held, Tensor | list) and len(held)]


class Linear(nn.Module):
    """A model of one layer, at which all of a gradient is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 1)

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.linear(x_BF)  # type: ignore[no-any-return]


def broken(of: type[ClippedSum], how: str) -> ClippedSum:
    """A kind that breaks one promise, made of one that keeps it."""

    class Broken(of):  # type: ignore[misc, valid-type]
        calls = 0

        def add(self, x_RF: Tensor, y_R: Tensor) -> None:
            self.calls += 1
            if how == "couples records":
                x_RF = x_RF + x_RF.nan_to_num().clamp(-1, 1).mean(dim=0)
            if how == "couples last bits":
                x_RF = x_RF + 2.0**-20 * x_RF.nan_to_num().clamp(-1, 1).mean(dim=0)
            if how == "hangs on when it is asked":
                x_RF = x_RF * (1 + self.calls % 7 * 2.0**-20)
            super().add(x_RF, y_R)

        def take(self) -> list[Tensor]:
            sums: list[Tensor] = super().take()
            return [one * (1 + 2.0**-40) for one in sums] if how == "leaves the grid" else sums

        def prints(self, x_RF: Tensor, y_R: Tensor, multipliers_P: Tensor) -> Tensor:
            found: Tensor = super().prints(x_RF, y_R, multipliers_P)
            return found + torch.randint(2**40, found.shape) if how == "does not repeat itself" else found

    return make(Broken, Linear(), clip=math.inf if how == "does not clip" else 0.5)


@each_kind
@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("does not clip", "by up to inf times the clip, with what sums of"),
        ("couples records", "times the clip, where at most 1 is allowed; the model couples records"),
        ("hangs on when it is asked", "does not add the same each time"),
        ("does not repeat itself", "does not add the same each time"),
        ("leaves the grid", "does not add the same each time|is no multiple of"),
    ],
)
def test_a_kind_that_breaks_a_promise_is_refused_by_name(of: type[ClippedSum], how: str, named: str) -> None:
    with pytest.raises(PrivacyError, match=named):
        preflight(broken(of, how), FLAT, 0.5)
    assert preflight(broken(of, "not at all"), FLAT, 0.5) > 1


@each_kind
def test_a_kind_whose_hashes_hide_what_its_sums_do_takes_one_record_at_a_time(of: type[ClippedSum]) -> None:
    """Where there are no companions, nothing couples: the sum of a lot is then that of its parts."""
    assert preflight(broken(of, "couples last bits"), FLAT, 0.5) == 1


def test_a_kind_is_named_by_a_scenario_and_by_none_of_before() -> None:
    plain = read_scenario("quickstart")
    assert "gradients" not in plain.model_dump_json()
    said = read_scenario("quickstart", ["training.gradients=auto"])
    assert scenario_hash(said) == scenario_hash(plain)
    assert kind("per-sample") is kind("hooks")  # as scenarios from before call it
    names = ("book-keeping", "hooks", "functional", "per-sample")
    others = [read_scenario("quickstart", [f"training.gradients={name}"]) for name in names]
    assert len({scenario_hash(one) for one in (plain, *others)}) == 5


def test_a_kind_that_is_not_known_is_refused_before_anything_is_spent() -> None:
    asked = read_scenario("quickstart", ["training.gradients=per-sampel"])
    with pytest.raises(ConfigError, match="unknown kind of gradients 'per-sampel'; did you mean 'per-sample'"):
        check_scenario(asked)
    with pytest.raises(ConfigError, match=r"training\.gradients"):
        kind("ghost")
    for name in ("../per_sample", "fedmodel.errors", "os"):
        with pytest.raises(ConfigError):
            read_scenario("quickstart", [f"training.gradients={name}/"])
