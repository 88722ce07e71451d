"""What a model computes in bf16, that what is clipped of it is what is added up, and what else stays float32."""

from __future__ import annotations

import copy
import logging
import math
from contextlib import nullcontext
from itertools import cycle

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.config import ModelConfig, read_scenario
from fedmodel.errors import ConfigError, PrivacyError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning import precision, refusals
from fedmodel.learning.choosing import check_kind, chosen
from fedmodel.learning.conformance import conforms, hostile
from fedmodel.learning.gradients import KINDS, ClippedSum
from fedmodel.learning.gradients._widened import widened
from fedmodel.learning.gradients.auto import ORDER
from fedmodel.learning.models import build_model
from fedmodel.learning.precision import (
    Rounded,
    check_precision,
    in_float32,
    in_precision,
    is_rounded,
    tell_if_no_faster,
)
from fedmodel.learning.preflight import check_sums, preflight
from fedmodel.learning.tasks.classification import cross_entropy
from scenarios.selftest.mutations import norms_in_float32
from tests.fedmodel.learning.test_dp_sgd import FLAT, IMAGES, batch, make
from tests.fedmodel.learning.test_sensitivity import CNN, DEEP, AtPlaces

OWN_KINDS = ORDER
TOKENS = DataShape((9,), 2, below=20)


class Reader(nn.Module):
    """Words, attention and both norms of features: what book-keeping takes apart, and functional runs side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.attention = nn.Embedding(20, 16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.first, self.second, self.inner = nn.LayerNorm(16), nn.RMSNorm(16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 1)

    def forward(self, word_BT: Tensor) -> Tensor:
        x_BTE = self.words(word_BT)
        normed_BTE = self.first(x_BTE)
        x_BTE = x_BTE + self.attention(normed_BTE, normed_BTE, normed_BTE, key_padding_mask=word_BT == 0)[0]
        x_BTE = x_BTE + functional.gelu(self.inner(self.second(x_BTE)))
        return self.head(x_BTE.mean(dim=1))  # type: ignore[no-any-return]


def model(name: str) -> tuple[nn.Module, DataShape]:
    """A model by its name, always the same one."""
    if name == "reader":
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return Reader(), TOKENS
    config: ModelConfig = DEEP if name == "mlp" else CNN
    shape = FLAT if name == "mlp" else IMAGES
    return build_model(config, shape, seed=1), shape


def records(shape: DataShape, size: int) -> tuple[Tensor, Tensor]:
    x, y = batch(shape, size)
    return (x.abs().long().clamp(max=19) if shape is TOKENS else x / 10), y


def summed(module: nn.Module, kind: str, rows: int = 16) -> ClippedSum:
    return make(module, gradients_kind=kind, denominator=rows, physical=rows).gradients


def unclipped(module: nn.Module, kind: str, x: Tensor, y: Tensor) -> Tensor:
    """The sum that is the batch's gradient but for rounding."""
    sums = KINDS[kind](module, cross_entropy, max_grad_norm=math.inf, unit=2.0**-60, rows=len(y))
    return sums.flat(x, y)


def of_torch(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of a batch, as torch has it."""
    grads = torch.autograd.grad(cross_entropy(module.train()(x), y).sum(), list(module.parameters()))
    assert {one.dtype for one in grads} == {torch.float32}
    return torch.cat([one.reshape(-1) for one in grads]).double()


@pytest.mark.parametrize("kind", OWN_KINDS)
@pytest.mark.parametrize("name", ["mlp", "cnn", "reader"])
def test_every_kind_sums_what_torch_has_in_bf16_or_is_refused_by_name(name: str, kind: str) -> None:
    plain, shape = model(name)
    x, y = records(shape, 16)
    if (name, kind) == ("reader", "hooks"):
        with pytest.raises(PrivacyError, match=r"cannot be computed"):
            check_kind(KINDS[kind], lambda _: model(name)[0], cross_entropy, shape, "bf16")
        return
    in_bf16 = of_torch(in_precision(copy.deepcopy(plain), "bf16"), x, y)
    in_full = of_torch(copy.deepcopy(plain), x, y)
    found = unclipped(in_precision(copy.deepcopy(plain), "bf16"), kind, x, y)
    assert found.dtype == torch.float64
    rounded = float((found - in_bf16).norm() / in_bf16.norm())
    apart = float((found - in_full).norm() / in_bf16.norm())
    assert rounded < 2.0**-7
    assert 2.0**-10 < apart < 2.0**-4  # of a sum in float32 it would be a ten-thousandth of that
    assert float((unclipped(plain, kind, x, y) - in_full).norm() / in_full.norm()) < 1e-6


@pytest.mark.parametrize(("name", "kind"), [*(("mlp", kind) for kind in OWN_KINDS), ("cnn", "book-keeping")])
def test_one_record_moves_a_sum_of_bf16_by_at_most_the_clip_and_its_gradient_is_its_own(name: str, kind: str) -> None:
    plain, shape = model(name)
    gradients = summed(in_precision(plain, "bf16"), kind)
    assert preflight(gradients, shape, 1.0) == gradients.rows > 1
    seen = []
    for which in hostile(gradients.parameters, seed=3):
        assert conforms(gradients, shape, thorough=False, seed=3), which
        seen.append(check_sums(gradients, shape, 1.0, (1.0, math.nan), (gradients.rows + 1,), seed=3))
    assert 0.999 < np.median(seen) <= max(seen) <= 1


def test_norms_of_float32_over_sums_of_bf16_are_refused() -> None:
    """They are of other gradients than those that are added up."""
    plain, shape = model("mlp")
    gradients = summed(in_precision(plain, "bf16"), "book-keeping")
    with norms_in_float32(), pytest.raises(PrivacyError, match=r"moves the clipped sum by \d+\.\d+ times the clip"):
        preflight(gradients, shape, 1.0)


def test_what_a_layer_is_taken_to_have_been_given_is_what_it_multiplied() -> None:
    """Of a norm or a sum of what came in, the other would be of other numbers."""
    given, grad = torch.randn(64, 5), torch.randn(64, 3).bfloat16()
    left, right = widened(given, grad)
    assert (left.dtype, right.dtype) == (torch.float32, torch.float32)
    assert torch.equal(left, given.bfloat16().float())
    assert torch.equal(right.bfloat16(), grad)
    whole = torch.arange(4)
    assert widened(whole, grad)[0] is whole
    assert widened(given, grad.float())[0] is given
    assert widened(given.bfloat16(), grad.float())[0].dtype == torch.float32


def test_it_rounds_in_training_alone_and_always_returns_float32() -> None:
    plain, shape = model("mlp")
    rounded = in_precision(copy.deepcopy(plain), "bf16")
    outputs: list[torch.dtype] = []
    for layer in rounded.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda *given: outputs.append(given[2].dtype))
    x, _ = records(shape, 4)
    for trains, compares, within in (
        (True, False, torch.bfloat16),
        (False, False, torch.float32),
        (True, True, torch.float32),
    ):
        rounded.train(trains)
        outputs.clear()
        with in_float32(rounded) if compares else nullcontext():
            assert is_rounded(rounded) is not compares
            found = rounded(x)
        assert set(outputs) == {within}
        assert found.dtype == torch.float32
        assert torch.equal(found, plain(x)) is (within == torch.float32)
    assert is_rounded(rounded)
    assert {one.dtype for one in rounded.parameters()} == {torch.float32}
    assert in_precision(plain, "float32") is plain


def test_outputs_of_several_tensors_are_float32_too() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> dict[str, object]:
            return {"logits": self.linear(x), "more": [self.linear(x), (x.argmax(dim=1), "said")]}

    found = Rounded(Both())(torch.randn(3, 6))
    assert found["logits"].dtype == found["more"][0].dtype == torch.float32
    assert found["more"][1][0].dtype == torch.int64
    assert found["more"][1][1] == "said"


def test_a_batch_in_which_bf16_minds_the_place_is_made_smaller_and_one_that_couples_is_refused() -> None:
    gradients = summed(in_precision(AtPlaces(4, 2.0**-6), "bf16"), "book-keeping")
    assert preflight(gradients, FLAT, 1.0) == 4

    class Coupled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(6, 1), nn.BatchNorm1d(1, affine=False, track_running_stats=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.linear(x))  # type: ignore[no-any-return]

    with pytest.raises(PrivacyError, match="the model couples records"):
        preflight(summed(in_precision(Coupled(), "bf16"), "book-keeping"), FLAT, 1.0)


class Mixing(nn.Module):
    """A model whose own code asks for two tensors of one type."""

    def __init__(self, features: int = 6) -> None:
        super().__init__()
        self.linear, self.towards = nn.Linear(features, 1), nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(self.towards(self.linear(x)), x[:, :1], 0.5)


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_a_model_that_fails_in_bf16_is_refused_by_the_key_and_none_is_chosen_for_it(kind: str) -> None:
    why = r'^training.precision = "bf16": .*(type|dtype).*; or set it to "float32"$'
    check_kind(KINDS[kind], lambda _: Mixing(), cross_entropy, FLAT, "float32")
    with pytest.raises(PrivacyError, match=why):
        check_kind(KINDS[kind], lambda _: Mixing(), cross_entropy, FLAT, "bf16")
    found = chosen(lambda _: Mixing(), cross_entropy, FLAT, "bf16")
    assert len(found.why) == len(OWN_KINDS)
    assert all('training.precision = "bf16"' in one for one in found.why)


@pytest.mark.parametrize("gradients", ["auto", "hooks"])
def test_a_scenarios_model_is_held_to_its_precision_before_a_run(
    gradients: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = read_scenario("quickstart", [f"training.gradients={gradients}"])
    monkeypatch.setattr(refusals, "build_model", lambda _, shape, __: Mixing(shape.features[0]))
    refusals.check_model(scenario, torch.device("cpu"))
    scenario = read_scenario("quickstart", [f"training.gradients={gradients}", "training.precision=bf16"])
    with pytest.raises(PrivacyError, match=r'^training.precision = "bf16": '):
        refusals.check_model(scenario, torch.device("cpu"))


@pytest.mark.parametrize(
    ("rounded_s", "plain_s", "told"),
    [
        (1.0, 2.0, None),
        (2.0, 2.0, "takes 1.00 times as long"),
        (3.0, 2.0, "takes 1.50 times as long"),
        (3.0, 0.0, "times as long"),
    ],
)
def test_where_bf16_is_no_faster_one_line_says_so_and_nothing_else_changes(
    rounded_s: float,
    plain_s: float,
    told: str | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, module = [0.0], in_precision(model("mlp")[0], "bf16")
    monkeypatch.setattr(precision.time, "process_time", lambda: now[0])
    more = cycle((1.0, 1.2, 1.5))  # what is slower by chance does not count

    def step() -> None:
        now[0] += (rounded_s if is_rounded(module) else plain_s) * next(more)

    with caplog.at_level(logging.WARNING):
        tell_if_no_faster(module, step)
    assert is_rounded(module)
    assert len(caplog.messages) == (told is not None)
    if told is not None:
        assert told in caplog.messages[0]
        assert caplog.messages[0].startswith('training.precision = "bf16"')
        assert caplog.messages[0].endswith("it trains in bf16 as the scenario says")


def test_a_model_in_float32_is_not_tried() -> None:
    module, _ = model("mlp")
    tell_if_no_faster(module, lambda: pytest.fail("a pass"))


@pytest.mark.parametrize(
    ("has", "said", "device"), [(True, "bf16", "cuda"), (False, "float32", "cuda"), (False, "bf16", "cpu")]
)
def test_a_device_that_has_it_is_taken(
    has: bool, said: precision.Precision, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: has or including_emulation)
    check_precision(said, torch.device(device))


def test_a_card_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would emulate it, slower than float32."""
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "P100")
    with pytest.raises(ConfigError, match=r'training.precision = "bf16": P100 has no bf16; set "float32"'):
        check_precision("bf16", torch.device("cuda"))
