"""A model made smaller: exactly as asked, told in its card with what it cost, and opened by its own runtime."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrizations import weight_norm

from fedmodel.config import CsvForm, read_scenario
from fedmodel.data import held_out_records
from fedmodel.errors import ConfigError
from scenarios.models.card import CARD
from scenarios.models.export import TOLERANCE, export
from scenarios.models.measured_again import Cost
from scenarios.models.predict import scores_of
from scenarios.models.smaller import Int8Conv, Int8Linear, Smaller, pruned, quantised, without_units
from scenarios.models.trained import read_model
from tests.conftest import TINY
from tests.once import once
from tests.runs import simulated
from tests.scenarios.cli.test_main import Run

DIGITS = TINY.replace('source = "synthetic"\nrecords = 120\nfeatures = 4', 'source = "digits"').replace(
    "[-2.0, 2.0]", "[0.0, 16.0]"
)


@pytest.fixture(scope="session")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on digits, of a network with a hidden layer, that nobody changes."""
    text = DIGITS.replace('kind = "mlp"', 'kind = "mlp"\nhidden = [200]\nactivation = "tanh"\ndropout = 0.2')
    return once(tmp_path_factory, "hidden", lambda folder: simulated(folder, text, "rounds=1")) / "run"


@pytest.fixture(scope="session")
def convolutional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on digits as images, of two convolutions and a linear layer."""
    text = DIGITS.replace('kind = "mlp"', 'kind = "cnn"\nchannels = [16, 32]\ngroups = 2')
    return once(tmp_path_factory, "convolutional", lambda folder: simulated(folder, text, "rounds=1")) / "run"


def chain(*widths: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


@given(share=st.floats(0.001, 0.999), seed=st.integers(0, 100))
def test_the_smallest_weights_are_zero_and_as_many_as_were_asked_for(share: float, seed: int) -> None:
    module = chain(6, 5, 3, seed=seed)
    before = torch.cat([layer.weight.detach().reshape(-1) for layer in module if isinstance(layer, nn.Linear)])
    biases = [layer.bias.detach().clone() for layer in module if isinstance(layer, nn.Linear)]
    pruned(module, share)
    after = torch.cat([layer.weight.detach().reshape(-1) for layer in module if isinstance(layer, nn.Linear)])
    taken = after == 0
    assert int(taken.sum()) == round(share * len(before))
    assert torch.equal(after[~taken], before[~taken])
    if 0 < int(taken.sum()) < len(before):
        assert before[taken].abs().max() <= before[~taken].abs().min()
    linear = [layer for layer in module if isinstance(layer, nn.Linear)]
    assert all(torch.equal(layer.bias, bias) for layer, bias in zip(linear, biases, strict=True))


def test_equal_weights_are_pruned_to_the_count_too() -> None:
    module = chain(4, 4)
    nn.init.constant_(module[1].weight, 0.5)
    pruned(module, 0.25)
    assert int((module[1].weight == 0).sum()) == 4


def test_without_units_is_the_computation_without_them() -> None:
    module, x_BI = chain(6, 8, 5, 3), torch.randn(11, 6)
    made = without_units(module, 0.5)
    assert [tuple(layer.weight.shape) for layer in made if isinstance(layer, nn.Linear)] == [(4, 6), (2, 4), (3, 2)]
    with torch.no_grad():
        for place in (1, 3):  # what is left is what the whole network computes where the taken units say nothing
            norm_O = module[place].weight.norm(dim=1)
            gone = norm_O < norm_O.sort(descending=True).values[len(norm_O) // 2 - 1]
            assert int(gone.sum()) == len(norm_O) - len(norm_O) // 2
            module[place].weight[gone], module[place].bias[gone] = 0.0, 0.0
        assert torch.allclose(made(x_BI), module(x_BI), atol=1e-6)


def test_a_unit_stays_in_each_layer() -> None:
    assert [layer.weight.shape[0] for layer in without_units(chain(4, 3, 2), 0.99) if isinstance(layer, nn.Linear)] == [
        1,
        2,
    ]


def test_integers_are_torchaos_and_within_half_a_step_of_the_weights() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    module, x_BI = chain(20, 30, 4), torch.randn(9, 20)
    weights = [layer.weight.detach().clone() for layer in module if isinstance(layer, nn.Linear)]
    theirs = chain(20, 30, 4)
    quantize_(theirs, Int8WeightOnlyConfig())
    made = quantised(module)
    assert torch.equal(made(x_BI), theirs(x_BI))
    for layer, weight in zip((one for one in made if isinstance(one, Int8Linear)), weights, strict=True):
        integers, step_O = layer.state_dict()["weight"], weight.abs().amax(dim=1) / 127
        assert integers.dtype == torch.int8
        assert torch.all((integers * layer.scale[:, None] - weight).abs() <= (0.5 + 1e-3) * step_O[:, None] * 1.01)


CONVOLUTIONS = {
    "of one axis": (nn.Conv1d(4, 6, 3, stride=2, bias=False), (5, 4, 9)),
    "of groups": (nn.Conv2d(4, 6, (3, 2), padding=(2, 1), groups=2), (5, 4, 7, 8)),
    "dilated, as large as before": (nn.Conv2d(3, 2, 3, dilation=2, padding="same"), (2, 3, 7, 7)),
    "around the edge": (nn.Conv2d(3, 2, 3, padding=(2, 1), padding_mode="circular"), (2, 3, 7, 7)),
    "of three axes": (nn.Conv3d(2, 3, 2, padding=1, padding_mode="reflect"), (2, 2, 3, 4, 5)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_has_torchaos_integers_for_each_output_and_computes_as_it_did(name: str) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    layer, size = CONVOLUTIONS[name]
    x_B, weight = torch.randn(size, generator=torch.Generator().manual_seed(1)), layer.weight.detach()
    with torch.no_grad():
        weight[1] *= 40.0  # which must not cost the other outputs their precision
    matrix = nn.Sequential(nn.Linear(weight[0].numel(), len(weight), bias=False))
    matrix[0].weight.data = weight.reshape(len(weight), -1).clone()
    quantize_(matrix, Int8WeightOnlyConfig())
    (made,) = quantised(nn.Sequential(copy.deepcopy(layer)))
    assert isinstance(made, Int8Conv)
    integers, scale = made.state_dict()["weight"], made.get_buffer("scale")
    assert integers.dtype == torch.int8
    assert torch.equal(integers.reshape(len(weight), -1), matrix[0].weight.qdata)
    assert torch.equal(scale.reshape(-1), matrix[0].weight.scale.float().reshape(-1))
    back = integers * scale.view(-1, *(1 for _ in weight.shape[1:]))
    assert torch.all((back - weight).abs().flatten(1).amax(dim=1) <= weight.abs().flatten(1).amax(dim=1) / 127 * 0.51)
    with torch.no_grad():
        found = made(x_B)
        layer.weight.copy_(back)
        assert torch.allclose(found, layer(x_B), atol=1e-4)
        assert made.bias is None or found.shape[1] == len(weight)


class OddConv(nn.Conv2d):
    def forward(self, x_B: torch.Tensor) -> torch.Tensor:
        return -super().forward(x_B)


class OddLinear(nn.Linear):
    def forward(self, x_B: torch.Tensor) -> torch.Tensor:
        return -super().forward(x_B)


def test_a_layer_that_computes_something_else_by_its_name_stays_as_it_is() -> None:
    made = quantised(nn.Sequential(OddConv(1, 2, 3), nn.Conv2d(2, 2, 3), OddLinear(2, 2), nn.Linear(2, 2)))
    assert [type(layer).__name__ for layer in made] == ["OddConv", "Int8Conv", "OddLinear", "Int8Linear"]


def test_a_layer_that_is_used_twice_is_integers_both_times() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.rest = nn.Sequential(nn.ReLU(), self.first)

        def forward(self, x_B: torch.Tensor) -> torch.Tensor:
            return self.rest(self.first(x_B))

    module = Twice().eval()
    made = quantised(copy.deepcopy(module))
    assert isinstance(made.first, Int8Linear)
    assert made.rest[1] is made.first
    x_B = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(made(x_B), module(x_B), atol=0.1)


@pytest.mark.parametrize("layer", [nn.Linear(4, 4), nn.Conv1d(4, 4, 1)])
@pytest.mark.parametrize("reads", [
    lambda layer, x_B: torch.nn.functional.linear(x_B, layer.weight.reshape(4, 4), layer.bias),
    lambda layer, x_B: x_B @ layer.weight.float().reshape(4, 4),  # of integers a wrong answer, and no error of torch
])  # fmt: skip
def test_a_model_that_reads_a_layers_weights_itself_is_refused_in_one_line(
    layer: nn.Module, reads: Callable[..., torch.Tensor]
) -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x_B: torch.Tensor) -> torch.Tensor:
            return reads(self.layer, x_B)

    whole, x_B = Reads(), torch.ones(2, 4)
    assert whole(x_B).shape == (2, 4)
    made = copy.deepcopy(Smaller(quantise="int8").of(whole))  # which no more reads them than a state that is taken
    assert made.state_dict()["layer.weight"].dtype == torch.int8
    with pytest.raises(ConfigError, match="reads the weights of a layer itself, as float32") as refused:
        made(x_B)
    assert "\n" not in str(refused.value)


def test_attention_keeps_its_own_weights_and_answers() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

        def forward(self, x_BTE: torch.Tensor) -> torch.Tensor:
            return self.out(self.attention(x_BTE, x_BTE, x_BTE, need_weights=False)[0])

    torch.manual_seed(0)
    module, x_BTE = Attends().eval(), torch.randn(3, 5, 4)
    with torch.no_grad():
        made = quantised(copy.deepcopy(module))
        assert isinstance(made.out, Int8Linear)
        assert torch.allclose(made(x_BTE), module(x_BTE), atol=0.1)


def test_the_model_itself_stays_as_it_is() -> None:
    module = chain(6, 8, 3)
    before = [one.clone() for one in module.state_dict().values()]
    made = Smaller(0.5, 0.5, "int8").of(module)
    assert all(torch.equal(one, other) for one, other in zip(module.state_dict().values(), before, strict=True))
    assert [type(layer).__name__ for layer in made] == ["Flatten", "Int8Linear", "ReLU", "Int8Linear"]


@pytest.mark.parametrize(
    ("asked", "module", "told"),
    [
        ({"prune": 0.0}, None, "--prune 0: is a share"),
        ({"prune": 1.0}, None, "--prune 1: is a share"),
        ({"prune_units": -0.5}, None, "--prune-units -0.5: is a share"),
        ({"prune": float("nan")}, None, "--prune nan: is a share"),
        ({"quantise": "int4"}, None, "--quantise: unknown kind of weights 'int4'"),
        ({"prune": 0.5}, nn.Sequential(nn.Flatten(), nn.ReLU()), "no plain linear or convolutional layer"),
        ({"prune": 0.5}, nn.Sequential(nn.Linear(4, 2), weight_norm(nn.Linear(2, 2))), "the weights of layer 1 are"),
        ({"quantise": "int8"}, nn.Sequential(spectral_norm(nn.Linear(4, 2))), "the weights of layer 0 are"),
        ({"prune_units": 0.5}, nn.Sequential(spectral_norm(nn.Linear(4, 2))), "the weights of layer 0 are"),
        ({"quantise": "int8"}, nn.Sequential(nn.Flatten(), nn.ReLU()), "no plain linear or convolutional layer"),
        ({"quantise": "int8"}, nn.Sequential(nn.ConvTranspose2d(1, 2, 3)), "no plain linear or convolutional layer"),
        ({"prune_units": 0.5}, nn.Sequential(nn.Linear(4, 2)), "is no chain of these"),
        (
            {"prune_units": 0.5},
            nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2), nn.Linear(2, 2)),
            "is no chain of these",
        ),
        ({"prune_units": 0.5}, nn.Linear(4, 2), "is no chain of these"),
        ({"prune_units": 0.5}, nn.Sequential(nn.Linear(4, 2), OddLinear(2, 2)), "is no chain of these"),
        ({"quantise": "int8"}, OddLinear(4, 2), "no plain linear or convolutional layer"),
        ({"quantise": "int8"}, nn.TransformerEncoderLayer(4, 2, 4), "nn.TransformerEncoderLayer reads the weights"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(asked: dict, module: nn.Module | None, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        Smaller(**asked).of(module or chain(2, 2))
    assert "\n" not in str(refused.value)


def torch_alone(path: Path, x_NF: np.ndarray) -> np.ndarray:
    """Answer by a process that has torch and numpy, and nothing of torchao."""
    np.save(path.parent / "x.npy", x_NF)
    program = (
        "import sys, numpy, torch\nscore = torch.export.load(sys.argv[1]).module()\n"
        "numpy.save(sys.argv[3], score(torch.from_numpy(numpy.load(sys.argv[2]))).detach().numpy())\n"
        "assert not {'torchao', 'fedmodel', 'scenarios'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", program, path, path.parent / "x.npy", path.parent / "p.npy"]
    subprocess.run(command, check=True, capture_output=True)
    return np.load(path.parent / "p.npy")


def onnx_runtime(path: Path, x_NF: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"features": x_NF})[0]


RUNTIMES: dict[str, Callable[[Path, np.ndarray], np.ndarray]] = {"torch": torch_alone, "onnx": onnx_runtime}


@pytest.mark.parametrize("kind", RUNTIMES)
@pytest.mark.parametrize("asked", [Smaller(), Smaller(0.3, 0.25, "int8")], ids=["whole", "smaller"])
def test_each_form_is_opened_by_its_own_runtime_and_says_what_it_lost(
    kind: str, asked: Smaller, hidden: Path, tmp_path: Path
) -> None:
    done = export(hidden, kind, tmp_path / "made", None, None, CsvForm(), smaller=asked)
    records, model = held_out_records(read_scenario(str(hidden / "scenario.toml"))), read_model(hidden)
    right_NK = scores_of(model, records.x)
    found_NK = RUNTIMES[kind](done.folder / done.file, records.x)
    text, summary = (done.folder / CARD).read_text(), json.loads((hidden / "summary.json").read_text())
    if asked.is_nothing:
        assert np.abs(found_NK - right_NK).max() <= TOLERANCE
        assert done.cost is None
        assert "smaller" not in text
        return
    cost = done.cost
    assert isinstance(cost, Cost)
    assert abs(float(np.abs(found_NK - right_NK).max()) - cost.differs) <= TOLERANCE
    # The whole model's figures are the run's, and the smaller one's are those of what its runtime answers.
    assert cost.before["accuracy"] == pytest.approx(summary["metrics"]["accuracy"])
    assert cost.after["accuracy"] == pytest.approx((found_NK.argmax(axis=1) == records.y_N).mean())
    assert cost.alike == pytest.approx((found_NK.argmax(axis=1) == right_NK.argmax(axis=1)).mean())
    assert cost.sizes[1] == (done.folder / done.file).stat().st_size
    assert f"| accuracy | {cost.before['accuracy']:.4f} | {cost.after['accuracy']:.4f} |" in text
    assert f"| bytes of the file | {cost.sizes[0]:,} | {cost.sizes[1]:,} |" in text
    assert cost.zipped[1] < cost.zipped[0] / 2
    assert cost.sizes[1] < cost.sizes[0] / 2
    assert str(Path.cwd()).encode() not in (done.folder / done.file).read_bytes()
    for sentence in asked.sentences():
        assert sentence in text
    assert {path.name for path in done.folder.iterdir()} >= {done.file, CARD, "model.json"}
    assert not list(done.folder.glob("whole-*"))


@pytest.mark.parametrize("kind", RUNTIMES)
def test_a_convolutional_network_of_integers_is_opened_by_its_own_runtime(
    kind: str, convolutional: Path, tmp_path: Path
) -> None:
    done = export(convolutional, kind, tmp_path / "made", None, None, CsvForm(), smaller=Smaller(quantise="int8"))
    records, model = held_out_records(read_scenario(str(convolutional / "scenario.toml"))), read_model(convolutional)
    right_NK, found_NK = scores_of(model, records.x), RUNTIMES[kind](done.folder / done.file, records.x)
    cost = done.cost
    assert cost is not None
    differs = float(np.abs(found_NK - right_NK).max())
    assert TOLERANCE < differs < 0.05  # it is of integers, and still the same model
    assert abs(differs - cost.differs) <= TOLERANCE
    assert cost.after["accuracy"] == pytest.approx((found_NK.argmax(axis=1) == records.y_N).mean())
    assert cost.before["accuracy"] == pytest.approx((right_NK.argmax(axis=1) == records.y_N).mean())
    data = (done.folder / done.file).read_bytes()
    assert cost.sizes[1] == len(data) < cost.sizes[0]
    whole = sum(one.numel() for one in model.module.parameters() if one.ndim > 1)
    assert whole == 16 * 9 + 32 * 16 * 9 + 10 * 32 * 2 * 2
    if kind == "onnx":
        integers = [one for one in onnx.load(done.folder / done.file).graph.initializer if one.data_type == 3]
        assert sum(int(np.prod(one.dims)) for one in integers) == whole
        assert sorted(len(one.dims) for one in integers) == [2, 4, 4]


def test_of_records_without_labels_no_accuracy_is_told(run: Run, tabled: Path, tmp_path: Path) -> None:
    arguments = ("export", str(tabled), "--format", "torch", "--quantise", "int8", "--out", "made")
    assert run(*arguments, "--held-out", str(tabled.parent / "held-out.csv")) == 0
    assert "so that its loss of accuracy is not known" in run.out
    assert (
        "These records have no labels, so that no loss of accuracy is known" in (tmp_path / "made" / CARD).read_text()
    )


def test_the_command_tells_the_loss_and_writes_the_runs_own_bytes_whole(run: Run, hidden: Path, tmp_path: Path) -> None:
    assert run("export", str(hidden), "--format", "onnx", "--quantise", "int8", "--out", "made", "--json") == 0
    told = json.loads(run.out)["smaller"]
    assert told["before"].keys() == told["after"].keys() >= {"accuracy", "loss"}
    assert told["bytes"][1] < told["bytes"][0] / 2
    for kind in ("safetensors", "peft"):
        assert run("export", str(hidden), "--format", kind, "--prune", "0.5", "--out", "no") == 2
        assert "one that is made smaller is written as torch or onnx" in run.err
    assert run("export", str(hidden), "--format", "torch", "--prune", "1.5", "--out", "no") == 2
    assert "--prune 1.5: is a share of what there is" in run.err
    assert not (tmp_path / "no").exists()


class ReadsWithin(nn.Module):
    """A chain that multiplies with its last layer's weights, and does not call it."""

    def __init__(self, chain: nn.Module) -> None:
        super().__init__()
        *first, self.last = chain.children()
        self.first = nn.Sequential(*first)

    def forward(self, x_B: torch.Tensor) -> torch.Tensor:
        return self.first(x_B) @ self.last.weight.float().T


def test_a_form_is_not_written_of_a_model_that_reads_integers(
    hidden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Smaller, "of", lambda _, module: ReadsWithin(quantised(copy.deepcopy(module))).eval())
    for kind in ("torch", "onnx"):
        with pytest.raises(ConfigError, match="reads the weights of a layer itself, as float32"):
            export(hidden, kind, tmp_path / "made", None, None, CsvForm(), smaller=Smaller(quantise="int8"))
    assert list(tmp_path.iterdir()) == []


def test_standardised_weights_are_refused(tmp_path: Path) -> None:
    text = DIGITS.replace('kind = "mlp"', 'kind = "mlp"\nhidden = [4]\nweight_standardization = true')
    folder = simulated(tmp_path, text, "rounds=1")
    with pytest.raises(ConfigError, match=r"without model\.weight_standardization to make it smaller"):
        export(folder, "torch", tmp_path / "made", None, None, CsvForm(), smaller=Smaller(prune=0.5))
    assert not (tmp_path / "made").exists()


def test_who_lacks_torchao_is_told_the_extra(hidden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedmodel\[compress\]'"):
        export(hidden, "torch", tmp_path / "made", None, None, CsvForm(), smaller=Smaller(quantise="int8"))
    assert list(tmp_path.iterdir()) == []
