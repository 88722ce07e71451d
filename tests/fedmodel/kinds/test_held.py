"""A base's matrices in fewer bits: what is held, what is computed with it, and what it takes in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedmodel.errors import ConfigError
from fedmodel.kinds import pretrained
from fedmodel.kinds.adapters import IN_NAMES
from fedmodel.kinds.held import BLOCK, LEVELS, HeldLinear, HeldTable, Matrix, Packed, hold, widened
from fedmodel.kinds.models.hf import HfConfig
from fedmodel.learning.models import build_model
from fedmodel.learning.precision import in_precision
from tests.bases import CLASSES, LENGTH, NEXT_TOKEN, TOKENS, config_of, make_base

LORA: dict[str, Any] = {"targets": ["query", "dense"], "rank": 3}
OF_GPT: dict[str, Any] = {"targets": ["c_attn"], "rank": 3}
PRECISIONS = ("bf16", "nf4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for kind in ("encoder", "masked", "decoder"):
        make_base(folder / kind, kind)
    return folder


def opened(matrix: Tensor, precision: str) -> Tensor:
    packed = Packed.of(matrix, precision)
    return widened(packed.values, packed.scale, packed.size, torch.float32)


def texts(count: int) -> dict[str, Tensor]:
    token_BT = torch.randint(1, TOKENS, (count, LENGTH), generator=torch.Generator().manual_seed(3))
    return {"tokens": token_BT, "mask": torch.ones_like(token_BT)}


@pytest.mark.parametrize("size", [(3, 64), (5, 7), (1, 1), (8, 129)])
def test_an_entry_is_the_nearest_of_its_blocks_levels(size: tuple[int, int]) -> None:
    matrix = torch.randn(size, generator=torch.Generator().manual_seed(1))
    found_N, entry_N = opened(matrix, "nf4").flatten(), matrix.flatten()
    for start in range(0, len(entry_N), BLOCK):
        block = entry_N[start : start + BLOCK]
        level_K = torch.tensor(LEVELS) * block.abs().max()
        nearest = level_K[(block[:, None] - level_K).abs().argmin(dim=1)]
        assert torch.equal(found_N[start : start + BLOCK], nearest)
    assert not bool(opened(torch.zeros(size), "nf4").any())


def test_levels_are_those_of_the_paper() -> None:
    """Quantiles of a normal distribution: 8 of its positive half, 9 of the other, zero once (section 3, equation 4)."""
    offset = 0.9677083
    normal = torch.distributions.Normal(0.0, 1.0)
    positive = normal.icdf(torch.linspace(offset, 0.5, 9, dtype=torch.float64)[:-1])
    negative = -normal.icdf(torch.linspace(offset, 0.5, 8, dtype=torch.float64)[:-1])
    expected = torch.cat([negative, torch.zeros(1, dtype=torch.float64), positive]).sort().values
    assert torch.allclose(torch.tensor(LEVELS, dtype=torch.float64), expected / expected.max(), atol=1e-6)


def test_an_entry_in_bf16_is_the_nearest_and_what_is_bf16_already_is_left() -> None:
    matrix = torch.tensor([[1 + 2.0**-9, 1 + 3 * 2.0**-9, 2.0**-130]])
    assert opened(matrix, "bf16").tolist() == [[1.0, 1 + 2.0**-7, 2.0**-130]]
    short = matrix.to(torch.bfloat16)
    assert torch.equal(opened(short, "bf16"), short.float())


def replaced(module: nn.Module) -> nn.Module:
    """Put plain layers in the place of those that hold, with the values that they hold."""
    for parent in list(module.modules()):
        for place, child in list(parent.named_children()):
            if isinstance(child, HeldTable):
                parent.register_module(place, nn.Embedding.from_pretrained(child.weight.float()))
            elif isinstance(child, HeldLinear):
                matrix = widened(child.weight, child.scale, child._size, torch.float32)
                outputs, inputs = matrix.shape[::-1] if child._turned else matrix.shape
                plain = nn.Linear(inputs, outputs, bias=child.bias is not None)
                plain.weight = nn.Parameter(matrix.t().contiguous() if child._turned else matrix, requires_grad=False)
                plain.bias = child.bias
                parent.register_module(place, plain)
    return module


@pytest.mark.parametrize(("kind", "precision", "rounds"), [
    ("encoder", "bf16", "float32"), ("encoder", "nf4", "bf16"), ("decoder", "nf4", "float32"),
    ("encoder", "bf16", "bf16"),
])  # fmt: skip
def test_outputs_and_gradients_are_those_of_float32_layers_of_the_values_held_to_the_bit(
    made: Path, kind: str, precision: str, rounds: Any
) -> None:
    """In float32, and where the passes are in bf16."""
    task, shape, said = ("causal-lm", NEXT_TOKEN, OF_GPT) if kind == "decoder" else (
        "sequence-classification", CLASSES, LORA
    )  # fmt: skip
    config = config_of(made / kind, task, base_precision=precision, **said)
    ours = moved(build_model(config, shape, seed=1))
    theirs = replaced(moved(build_model(config, shape, seed=1)))
    assert any(isinstance(one, HeldLinear) for one in ours.modules())
    assert not any(isinstance(one, HeldLinear) for one in theirs.modules())
    outputs = [in_precision(one, rounds).train()(**texts(4)) for one in (ours, theirs)]
    assert torch.equal(outputs[0], outputs[1])
    found, expected = (
        torch.autograd.grad(output.square().sum(), [one for one in module.parameters() if one.requires_grad])
        for output, module in zip(outputs, (ours, theirs), strict=True)
    )
    assert max(float(one.abs().max()) for one in found) > 1e-3
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other) if kind == "encoder" else torch.allclose(one, other, rtol=1e-5, atol=1e-7)


def moved(module: nn.Module) -> nn.Module:
    """Move what trains off its beginning, where an adapter adds nothing."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for one in module.parameters():
            if one.requires_grad:
                one.add_(0.3 * torch.randn(one.shape, generator=generator))
    return module


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("turned", [False, True])
def test_a_layer_is_differentiated_record_by_record_and_by_its_bias(precision: str, turned: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    matrix, bias = torch.randn(5, 5, generator=generator), torch.randn(5, generator=generator)
    packed = Packed.of(matrix, precision)
    layer = HeldLinear(nn.Parameter(packed.values, requires_grad=False), packed, nn.Parameter(bias), turned=turned)
    plain = widened(packed.values, packed.scale, packed.size, torch.float32)
    x_BTd = torch.randn(3, 4, 5, generator=generator)

    def ours(x: Tensor, b: Tensor) -> Tensor:
        return functional_call(layer, {"bias": b}, (x,)).square().sum()  # type: ignore[no-any-return]

    def theirs(x: Tensor, b: Tensor) -> Tensor:
        return (x @ (plain if turned else plain.t()) + b).square().sum()

    found, expected = (
        vmap(grad(one, argnums=(0, 1)), in_dims=(0, None))(x_BTd, layer.bias.detach())  # type: ignore[union-attr]
        for one in (ours, theirs)
    )
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def held_bytes(module: nn.Module) -> int:
    tensors = [*module.parameters(), *(one for name, one in module.named_buffers() if name.endswith("scale"))]
    return sum(one.numel() * one.element_size() for one in tensors if not one.requires_grad)


@pytest.mark.parametrize(("kind", "task", "said"), [
    ("encoder", "feature-extraction", LORA), ("decoder", "causal-lm", OF_GPT),
    ("masked", "masked-lm", {"adapt": "bitfit"}),
])  # fmt: skip
def test_matrices_take_the_bytes_that_are_said_and_what_trains_is_float32(
    made: Path, kind: str, task: str, said: dict[str, Any]
) -> None:
    shape = CLASSES if task == "feature-extraction" else NEXT_TOKEN
    modules = {one: build_model(config_of(made / kind, task, base_precision=one, **said), shape, seed=1)
               for one in ("float32", *PRECISIONS)}  # fmt: skip
    whole = {name.replace("base.", "", 1): one for name, one in modules["float32"].named_parameters()}
    tables = {id(one.weight) for one in modules["float32"].modules() if isinstance(one, nn.Embedding)}
    frozen = [one for one in whole.values() if not one.requires_grad]
    matrices = [one.numel() for one in frozen if one.dim() == 2 and id(one) not in tables]
    of_tables = sum(one.numel() for one in frozen if id(one) in tables)
    rest = sum(one.numel() for one in frozen if one.dim() == 1)
    assert held_bytes(modules["float32"]) == 4 * (sum(matrices) + of_tables + rest)
    assert held_bytes(modules["bf16"]) == 2 * (sum(matrices) + of_tables) + 4 * rest
    blocks = sum(-(-count // BLOCK) for count in matrices)
    assert held_bytes(modules["nf4"]) == blocks * (BLOCK // 2 + 4) + 2 * of_tables + 4 * rest
    for module in modules.values():
        trained = {name: one for name, one in module.named_parameters() if one.requires_grad}
        assert trained.keys() == {name for name, one in modules["float32"].named_parameters() if one.requires_grad}
        assert {one.dtype for one in trained.values()} == {torch.float32}


def test_models_share_what_is_held_and_a_file_of_one_has_none_of_it(made: Path) -> None:
    config = config_of(made / "decoder", "causal-lm", base_precision="nf4", **OF_GPT)
    one, other = (build_model(config, NEXT_TOKEN, seed) for seed in (1, 2))
    held = [{name: layer.weight for name, layer in module.named_modules() if isinstance(layer, HeldLinear | HeldTable)}
            for module in (one, other)]  # fmt: skip
    assert held[0].keys() == held[1].keys()
    assert all(held[0][name].data_ptr() == held[1][name].data_ptr() for name in held[0])
    tied = [held[0][name] for name in ("base.transformer.wte", "base.lm_head")]
    assert tied[0] is tied[1]
    assert tied[0].dtype == torch.bfloat16  # of a table, which a layer shares
    assert all(IN_NAMES in name for name in one.state_dict())


def test_a_base_that_is_bf16_in_its_file_is_held_as_it_is(made: Path, tmp_path: Path) -> None:
    folder = make_base(tmp_path / "short", "encoder")
    file = folder / "model.safetensors"
    short = {name: one.to(torch.bfloat16) for name, one in safetensors.torch.load(file.read_bytes()).items()}
    file.write_bytes(safetensors.torch.save(short))
    whole, held = (
        build_model(config_of(folder, "feature-extraction", base_precision=one, **LORA), CLASSES, seed=1).eval()
        for one in ("float32", "bf16")
    )
    assert torch.equal(whole(**texts(3)), held(**texts(3)))


def test_a_document_says_it_only_where_it_is_said_and_the_base_has_one_hash(made: Path) -> None:
    plain = config_of(made / "encoder", "feature-extraction", **LORA)
    held = config_of(made / "encoder", "feature-extraction", base_precision="nf4", **LORA)
    assert plain.sha256 == held.sha256
    assert "base_precision" not in plain.model_dump(mode="json")
    assert held.model_dump(mode="json")["base_precision"] == "nf4"
    assert HfConfig.model_validate(json.loads(held.model_dump_json())).base_precision == "nf4"


class Odd(nn.Module):
    """A layer of another kind, with a matrix of its own."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.own = weight


def stand_in() -> tuple[nn.Parameter, dict[int, Matrix]]:
    found = nn.Parameter(torch.zeros(1).expand(2, 2), requires_grad=False)
    return found, {found.data_ptr(): Matrix(torch.tensor([[1.0, 2.0], [3.0, 1 + 2.0**-20]]))}


def test_a_matrix_of_another_kind_of_layer_stays_float32_and_one_shared_with_it_is_refused() -> None:
    weight, matrices = stand_in()
    module = nn.ModuleList([Odd(weight)])
    hold(module, matrices, "nf4")
    assert weight.tolist() == [[1.0, 2.0], [3.0, 1 + 2.0**-20]]
    weight, matrices = stand_in()
    linear = nn.Linear(2, 2)
    linear.weight = weight
    with pytest.raises(ConfigError, match="shares with a layer of another kind"):
        hold(nn.ModuleList([linear, Odd(weight)]), matrices, "bf16")


def test_an_architecture_whose_matrices_are_put_together_is_refused_in_one_line() -> None:
    own = torch.zeros(1).expand(2, 2)
    loaded = pretrained._Loaded({}, b"", {"one": own}, {own.data_ptr(): Matrix(torch.ones(2, 2))})
    there = {"kept": nn.Parameter(own), "new": nn.Parameter(torch.ones(2, 2)), "norm": nn.Parameter(torch.ones(2))}
    pretrained._check_stood_in(loaded, there, {"new"}, "mixtral")
    with pytest.raises(ConfigError, match=r"whose new is put together .*; take model.base_precision") as found:
        pretrained._check_stood_in(loaded, there, set(), "mixtral")
    assert "\n" not in str(found.value)
