"""A script's own model and data: what becomes of them in a scenario, and that it runs as any other."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.utils.data import Dataset

import fedmodel as fm
from fedmodel.data import held_out_records
from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code
from scenarios.face.objects import document_of
from scenarios.face.run import Run
from scenarios.face.said import Objects
from scenarios.face.simulating import simulate
from scenarios.simulation.prepared import prepare
from tests.scenarios.face.test_run import interrupted

FIGURES: dict[str, Any] = {"epsilon": 8.0, "delta": 1e-4, "max_grad_norm": 1.0, "sample_rate": 0.5}


class Net(nn.Module):
    """A linear model over three features."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(3, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Deep(nn.Sequential):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))


class Tied(nn.Module):
    """One layer in two places, and a buffer that is a part of another."""

    scales: Tensor
    first: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(3, 3)
        self.again = self.into
        self.register_buffer("scales", torch.tensor([1.0, 2.0, 3.0]))
        self.register_buffer("first", self.scales[:1])

    def forward(self, x: Tensor) -> Tensor:
        return self.again(torch.tanh(self.into(x * self.first))) * self.scales


class Flowers(Dataset[tuple[Tensor, int]]):
    """Made-up records, of which the largest feature is the class."""

    def __init__(self, records: int, seed: int = 0) -> None:
        self.x = np.random.default_rng(seed).normal(size=(records, 3)).astype(np.float32)
        self.y = self.x.argmax(axis=1)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.x[index]), int(self.y[index])


@pytest.fixture(autouse=True)
def _closed() -> Any:
    yield
    own_code.close()


def said(**more: Any) -> dict[str, Any]:
    return {"model": Net, "train": Flowers(120), "silos": 3, "rounds": 1, **FIGURES, **more}


@pytest.mark.parametrize("missing", ["epsilon", "delta", "max_grad_norm", "sample_rate"])
def test_no_figure_of_privacy_is_guessed(missing: str, tmp_path: Path) -> None:
    given = {key: value for key, value in said().items() if key != missing}
    with pytest.raises(fm.ConfigError, match=missing) as caught:
        simulate(out=tmp_path / "run", **given)
    assert "nothing is guessed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_all_that_is_missing_is_said_at_once_with_what_it_decides() -> None:
    with pytest.raises(fm.ConfigError) as caught:
        document_of({"model": Net, "train": Flowers(9), "rounds": 1})
    for words in ("epsilon or noise_multiplier (how much", "delta (", "max_grad_norm (how far", "sample_rate ("):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"noise_multiplier": 1.0}, fm.ConfigError, "one of epsilon and noise_multiplier"),
        ({"epslion": 1.0}, TypeError, "did you mean 'epsilon'"),
        ({"rounds": None}, fm.ConfigError, "rounds is missing"),
        ({"silos": None}, fm.ConfigError, "silos is missing"),
        ({"silos": 0}, fm.ConfigError, "silos = 0"),
        ({"train": [Flowers(60), Flowers(60)]}, fm.ConfigError, "silos says 3, and train is a list of 2"),
        ({"train": [Flowers(60)] * 3, "partition": fm.Dirichlet(0.3)}, fm.ConfigError, "leave it out"),
        ({"partition": 0.3}, fm.ConfigError, r"give one such as fm.Dirichlet"),
        ({"test": Flowers(9), "held_out": 0.1}, fm.ConfigError, "give test, or held_out"),
        ({"model": 7}, fm.ConfigError, "model is a int"),
        ({"model": Net(), "model_args": {"classes": 3}}, fm.ConfigError, "model_args are of a class"),
        ({"train": iter([])}, fm.ConfigError, "train is a list_iterator, which .* give a map-style Dataset"),
        ({"learning_rate": "fast"}, fm.ConfigError, "learning_rate is a str; give a number"),
        ({"sample_rate": "half"}, fm.ConfigError, "sample_rate is a str; give a number"),
        ({"held_out": [0.2]}, fm.ConfigError, "held_out is a list; give a number"),
        ({"silos": 2.5}, fm.ConfigError, "silos is a float; give how many"),
        ({"labels": "abc"}, fm.ConfigError, "labels is a str; give a list"),
        ({"model_args": [1]}, fm.ConfigError, "model_args is a list; give a dictionary"),
        ({"strategy_options": [1]}, fm.ConfigError, "strategy_options is a list; give a dictionary"),
        ({"schedule": "cosine"}, fm.ConfigError, "schedule is a str; give a dictionary, such as"),
        ({"augment": 4}, fm.ConfigError, "augment is a int; give a dictionary, such as"),
        (
            {"weight_standardization": True, "model_args": {"weight_standardization": True}},
            fm.ConfigError,
            "model_args and weight_standardization both say",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(more: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        document_of(said(**more))
    assert "\n" not in str(caught.value)


def test_each_argument_of_the_docstring_is_one_and_each_one_is_in_the_docstring() -> None:
    told = simulate.__doc__ or ""
    listed = re.findall(r"^            ([a-z_, ]+): ", told.split("Instead of a scenario:")[1], flags=re.MULTILINE)
    names = {name for line in listed for name in line.split(", ")} | {"epsilon", "noise_multiplier"}
    assert names == set(Objects.__annotations__)


def test_what_was_not_said_stands_in_the_scenario() -> None:
    scenario = fm.Scenario.of(**said())
    assert scenario.federation.silos == ("silo-1", "silo-2", "silo-3")
    assert scenario.privacy.unit == "record"
    assert scenario.privacy.expected_batch_size == 16  # half of a third of the 96 that are not held out
    assert (scenario.training.optimizer, scenario.training.learning_rate) == ("sgd", 0.1)
    assert scenario.plan("silo-1").steps_per_round == 2
    assert scenario.name == "net"
    with_test = fm.Scenario.of(**said(test=Flowers(30), settings=["training.momentum=0.5"]))
    assert with_test.privacy.expected_batch_size == 20
    assert with_test.training.momentum == 0.5


def test_a_strategy_is_said_with_its_options() -> None:
    more = {
        "strategy": "trimmed-mean",
        "strategy_options": {"beta": 0.4},
        "min_silos": 3,
        "proximal": 0.1,
        "precision": "bf16",
    }
    scenario = fm.Scenario.of(**said(**more))
    found = scenario.federation
    assert (found.strategy, found.strategy_options, found.min_silos) == ("trimmed-mean", {"beta": 0.4}, 3)
    assert (scenario.training.proximal, scenario.training.precision) == (0.1, "bf16")
    plain = fm.Scenario.of(**said()).federation
    assert (plain.strategy, plain.strategy_options, plain.min_silos) == ("fedavg", {}, 2)


STEPS: dict[str, Any] = {
    "schedule": {"decay": "cosine", "warm_up_rounds": 1},
    "lots": [{"from_round": 2, "times": 2.0}],
    "ema_decay": 0.5,
    "gradients": "hooks",
    "max_physical_batch": "auto",
    "threads": "auto",
}


def test_what_makes_a_step_better_or_cheaper_is_an_argument_and_a_key_of_that_name(tmp_path: Path) -> None:
    more = {
        **STEPS,
        "augment": {"noise": 0.1, "views": 2},
        "weight_standardization": True,
        "rounds": 2,
        "expected_batch_size": 8,
    }
    run = simulate(out=tmp_path / "run", **said(model=Deep, **more))
    training = run.scenario.training.model_dump(mode="json", exclude_defaults=True)
    assert {name: training[name] for name in STEPS} == STEPS
    assert run.scenario.data.augment is not None
    assert (run.scenario.data.augment.noise, run.scenario.data.augment.views) == (0.1, 2)
    layers = [type(layer).__name__ for layer in run.model.children()]
    assert layers == ["StandardisedLinear", "Tanh", "Linear"]
    assert "weight_standardization = true" in (tmp_path / "run" / "scenario.toml").read_text()
    assert [plan.expected_batch_size for plan in run.scenario.plans("silo-1")] == [8, 16]
    assert document_of(said(model=Deep, **more))["data"]["partition"] == {"min_records": 16}
    plain = fm.Scenario.of(**said(model=Deep))
    assert plain.training.model_dump(exclude_defaults=True).keys().isdisjoint(STEPS)
    assert plain.data.augment is None
    assert "weight_standardization" not in plain.toml()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"schedule": {"decay": "steep"}}, "training.schedule.decay"),
        ({"schedule": {"decay": "cosine", "warm_ups": 1}}, "warm_ups.*warm_up_rounds"),
        ({"schedule": {}}, "says neither a decay nor warm_up_rounds"),
        ({"lots": {"from_round": 2, "times": 2}}, "lots is a dict; give a list, such as"),
        ({"lots": ["larger"]}, r"training.lots"),
        ({"lots": [{"from_round": 2, "time": 2}]}, "time.*times"),
        ({"ema_decay": 1.0}, "training.ema_decay"),
        ({"gradients": "hoooks"}, "training.gradients: .*hooks"),
        ({"max_physical_batch": 0}, "training.max_physical_batch"),
        ({"max_physical_batch": "most"}, "training.max_physical_batch"),
        ({"threads": "all"}, "training.threads"),
        ({"threads": 0}, "training.threads"),
        ({"augment": {"views": 4}}, "says none of flip, crop, rotate, shift, noise"),
        ({"augment": {"noise": 0.1, "view": 4}}, "view.*views"),
        ({"augment": {"flip": "horizontal"}}, r"data.augment.flip is of images"),
        ({"weight_standardization": "yes"}, "model.weight_standardization"),
        ({"weight_standardization": True}, "is of plain linear layers .* and the model has none"),
    ],
)  # fmt: skip
def test_a_value_that_such_a_key_does_not_take_is_one_line(more: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(fm.ConfigError, match=words) as refused:
        simulate(out=tmp_path / "run", **said(**more))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_the_same_objects_are_the_same_scenario_so_that_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            fm.simulate(out=tmp_path / "run", **said(rounds=2))
    assert not fm.Run.read(tmp_path / "run").ended
    run = fm.simulate(out=tmp_path / "run", **said(rounds=2))
    assert run.ended
    assert list(run.metrics.index) == [1, 2]


def _cell(layer: str, more: str = "") -> Any:
    """Run a notebook's cell that defines a class, of which Python finds no text, and return the class."""
    names: dict[str, Any] = {"__name__": "__main__", "nn": nn}
    text = f"""
def rectified(x):
    return x.relu(){more}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
    def forward(self, x):
        return {layer}(self.layer(x))
"""
    exec(compile(text, "<cell>", "exec"), names)  # noqa: S102 - as a notebook does
    return names["Net"]


def _begin(folder: Path, **more: Any) -> None:
    """Begin a run, or go on with one, and stop before its first round."""
    scenario = fm.Scenario.of(**said(**{"seed": 5, "expected_batch_size": 9, **more}))
    scenario.hand_over()
    with prepare(scenario, (), "in-process", "cpu", folder).held():
        pass


def _with_parameters(module: nn.Module) -> nn.Module:
    for value in module.parameters():
        nn.init.constant_(value, 0.25)
    return module


@pytest.mark.parametrize(
    ("first", "other", "differs"),
    [
        ({"model": _cell("nn.ReLU()")}, {"model": _cell("nn.Tanh()")}, "the model's code differs (model.use"),
        ({"model": _cell("rectified")}, {"model": _cell("rectified", " * 2")}, "the model's code differs"),
        (
            {"model": _with_parameters(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))},
            {"model": _with_parameters(nn.Sequential(nn.Linear(3, 3), nn.Tanh()))},
            "the model's code differs",
        ),
        (
            {"loss": lambda o, t: nn.functional.cross_entropy(o, t, reduction="none")},
            {"loss": lambda o, t: 2 * nn.functional.cross_entropy(o, t, reduction="none")},
            "the loss's code differs (training.loss",
        ),
        ({"train": Flowers(120)}, {"train": Flowers(120, seed=1)}, "train or test differs (data.use)"),
        ({"test": Flowers(30)}, {"test": Flowers(30, seed=1)}, "train or test differs (data.use)"),
    ],
)
def test_the_same_call_with_another_object_does_not_go_on(
    first: dict[str, Any], other: dict[str, Any], differs: str, tmp_path: Path
) -> None:
    _begin(tmp_path / "run", **first)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(fm.ConfigError, match="name a new folder") as refused:
        _begin(tmp_path / "run", **other)
    assert differs in str(refused.value)
    assert "\n" not in str(refused.value)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    _begin(tmp_path / "run", **first)


def test_a_run_from_before_that_kept_no_hash_of_objects_goes_on(tmp_path: Path) -> None:
    _begin(tmp_path / "run")
    told = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    del told["objects"], told["records"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(told), encoding="utf-8")
    _begin(tmp_path / "run", train=Flowers(120, seed=1))


def test_a_runs_folder_says_that_its_scenario_names_objects_of_a_script(tmp_path: Path) -> None:
    class Hidden(Net):
        """Which no other process can import."""

    run = fm.simulate(out=tmp_path / "run", **said(model=Hidden, test=Flowers(30), seed=1))
    text = (run.folder / "scenario.toml").read_text(encoding="utf-8")
    assert text.startswith("# It names objects of a script")
    assert 'use = "script:Hidden"' in text
    assert fm.Run.read(run.folder).scenario.hash == run.scenario.hash
    assert isinstance(run.model, Hidden)
    own_code.close()
    read = fm.Run.read(run.folder)
    with pytest.raises(fm.ConfigError, match="script:Hidden"):
        read.model  # noqa: B018
    found = fm.Run.read(run.folder, model=Hidden).model
    assert torch.equal(found.state_dict()["layer.weight"], run.model.state_dict()["layer.weight"])


def test_a_module_is_copied_and_its_parameters_are_the_start(tmp_path: Path) -> None:
    module = Net()
    with torch.no_grad():
        module.layer.weight.fill_(0.25)
    before = copy.deepcopy(module.state_dict())
    scenario = fm.Scenario.of(**said(model=module))
    assert scenario.start is not None
    assert scenario.start.trained_on == "public"
    run = fm.simulate(scenario, out=tmp_path / "run")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    began = load((run.folder / "start.safetensors").read_bytes())
    assert all(torch.equal(began[name], value) for name, value in before.items())
    assert not torch.equal(run.model.state_dict()["layer.weight"], before["layer.weight"])
    assert run.summary["start"]["trained_on"] == "public"


def test_two_scenarios_of_one_name_keep_their_own_data(tmp_path: Path) -> None:
    many, few = (fm.Scenario.of(**said(train=Flowers(count), test=Flowers(count // 2), seed=1, expected_batch_size=5))
                 for count in (120, 60))  # fmt: skip
    runs = [fm.simulate(one, out=tmp_path / name) for one, name in ((few, "few"), (many, "many"))]
    found = []
    for run in runs:
        run.scenario.hand_over()
        found.append(len(held_out_records(run.scenario)))
    assert found == [30, 60]


@pytest.mark.parametrize("form", ["frame", "arrays", "list"])
def test_each_form_of_data_is_taken(form: str) -> None:
    whole = Flowers(120)
    frame = pd.DataFrame(whole.x, columns=["a", "b", "c"]).assign(kind=whole.y)
    given: dict[str, Any] = {
        "frame": {"train": frame, "label": "kind"},
        "arrays": {"train": (torch.from_numpy(whole.x), torch.from_numpy(whole.y))},
        "list": {"train": [Flowers(40, seed) for seed in range(3)], "silos": None},
    }[form]
    scenario = fm.Scenario.of(**said(**given))
    assert scenario.privacy.expected_batch_size == 16
    assert len(scenario.federation.silos) == 3


def test_the_issues_own_call_runs(tmp_path: Path) -> None:
    run = fm.simulate(model=Net, train=Flowers(400), test=Flowers(50), loss="cross-entropy", silos=5,
                      partition=fm.Dirichlet(3.0), rounds=1, epsilon=8, delta=1e-5, max_grad_norm=1.0,
                      sample_rate=0.25, out=tmp_path / "run", settings=["data.partition.min_records=20"])  # fmt: skip
    assert run.epsilon <= 8.0
    assert run.figures["accuracy"] > 0


def test_a_loss_and_a_figure_of_a_scripts_own_are_named_and_used(tmp_path: Path) -> None:
    def softened(output: Tensor, target: Tensor) -> Tensor:
        return 0.5 * nn.functional.cross_entropy(output, target, reduction="none")

    run = fm.simulate(out=tmp_path / "run", **said(test=Flowers(30), loss=softened, metrics=["balanced-accuracy"]))
    assert run.scenario.training.loss == "script:softened"
    assert "balanced-accuracy" in run.metrics.columns
    held_out = Flowers(30)
    with torch.no_grad():
        losses = softened(run.model(torch.from_numpy(held_out.x)), torch.from_numpy(held_out.y))
    assert run.figures["loss"] == pytest.approx(float(losses.mean()), rel=1e-5)


@pytest.mark.parametrize("model", [Tied, Tied()], ids=["class", "module"])
def test_parameters_that_are_shared_are_trained_kept_and_read_as_one(model: Any, tmp_path: Path) -> None:
    run = simulate(out=tmp_path / "run", **said(model=model))
    stored = load((tmp_path / "run" / "model.safetensors").read_bytes())
    assert set(stored) == {
        "scales",
        "first",
        *(f"{layer}.{part}" for layer in ("into", "again") for part in ("weight", "bias")),
    }
    assert torch.equal(stored["into.weight"], stored["again.weight"])
    trained = Run.read(tmp_path / "run", model=model).model
    assert isinstance(trained, Tied)
    assert trained.again is trained.into
    assert torch.equal(trained.into.weight, stored["into.weight"])
    assert trained.first.data_ptr() == trained.scales.data_ptr()
    assert run.summary["parameters"] == 12


def test_a_learning_rate_whose_steps_are_rounded_away_is_refused_with_the_least_that_goes(tmp_path: Path) -> None:
    def refused(**more: Any) -> str:
        with pytest.raises(fm.ConfigError, match=r"^training\.learning_rate = 1e-05 is too small") as caught:
            simulate(out=tmp_path / "run", **said(seed=5, learning_rate=1e-5, **more))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    assert "safetensors" in refused(model=_with_parameters(Net()))
    least = float(re.findall(r"at least ([0-9.e-]+), or", refused())[0])
    assert simulate(out=tmp_path / "run", **said(seed=5, learning_rate=least)).ended
    with pytest.raises(fm.ConfigError, match="rounded away"):
        simulate(out=tmp_path / "other", **said(seed=5, learning_rate=least * 0.8))


@pytest.mark.parametrize(
    ("more", "lot"),
    [
        ({"train": Flowers(200), "sample_rate": 1.0}, 53),  # of 160 among three
        ({"train": Flowers(200), "sample_rate": 1.0, "test": Flowers(9)}, 66),
        ({"train": [Flowers(100), Flowers(90), Flowers(80)], "sample_rate": 1.0}, 64),
        ({"train": Flowers(100), "sample_rate": 0.29, "silos": 1, "test": Flowers(9)}, 29),
        ({"train": Flowers(5), "sample_rate": 0.1}, 1),
    ],
)
def test_a_lot_is_no_larger_than_what_each_silo_has(more: dict[str, Any], lot: int) -> None:
    given = {key: value for key, value in said(**more).items() if key != "silos" or not isinstance(more["train"], list)}
    assert document_of(given)["privacy"]["expected_batch_size"] == lot


@pytest.mark.parametrize("train", [Flowers(200), [Flowers(100), Flowers(90), Flowers(80)]])
def test_where_a_claim_hides_how_many_records_a_silo_has_no_lot_is_worked_out_from_that(train: Any) -> None:
    given = said(train=train, unit="client", max_records=50)
    given = {key: value for key, value in given.items() if key != "silos" or not isinstance(train, list)}
    with pytest.raises(fm.ConfigError, match=r'^expected_batch_size is missing: unit="client" hides how many records'):
        document_of(given)
    assert document_of(given | {"expected_batch_size": 7})["privacy"]["expected_batch_size"] == 7
    assert document_of(given | {"unit": "person"})["privacy"]["expected_batch_size"] > 7


def test_all_records_of_alike_silos_are_a_lot(tmp_path: Path) -> None:
    more = {"train": Flowers(200), "sample_rate": 1.0, "partition": fm.IID(), "metrics": "accuracy"}
    run = simulate(out=tmp_path / "run", **said(**more))
    assert run.scenario.privacy.expected_batch_size == 53
    assert run.scenario.metrics == ("accuracy",)


def test_a_loss_of_torchs_own_is_called_and_one_of_all_records_is_refused(tmp_path: Path) -> None:
    made = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 1.0]), reduction="none")
    run = simulate(out=tmp_path / "run", **said(loss=made, seed=1))
    assert run.scenario.training.loss == "script:CrossEntropyLoss"
    with pytest.raises(
        fm.ConfigError, match=r"CrossEntropyLoss with reduction 'mean' .* reduction=\"none\""
    ) as refused:
        simulate(out=tmp_path / "other", **said(loss=nn.CrossEntropyLoss()))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "other").exists()


def test_a_class_of_losses_is_no_loss(tmp_path: Path) -> None:
    """It would be made of outputs and targets, and fail in words of torch's."""
    with pytest.raises(
        fm.ConfigError, match=r"is the class CrossEntropyLoss, .*CrossEntropyLoss\(reduction=\"none\"\)"
    ):
        simulate(out=tmp_path / "run", **said(loss=nn.CrossEntropyLoss))
    assert not (tmp_path / "run").exists()


def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(fm.ConfigError, match="two functions would be called 'script:function'"):
        fm.Scenario.of(**said(metrics=[lambda a, t: 1.0, lambda a, t: 2.0]))


@pytest.mark.parametrize("call", [fm.simulate, fm.audit, fm.Scenario.read])
def test_settings_are_a_list(call: Any) -> None:
    with pytest.raises(fm.ConfigError, match=r"a list of settings; give \['rounds=2'\]"):
        call("quickstart", "rounds=2")


def test_an_argument_of_an_audit_that_is_not_known_is_said() -> None:
    with pytest.raises(TypeError, match="'canary' is no argument of an audit; did you mean 'canaries'"):
        fm.audit("quickstart", canary=3)  # type: ignore[arg-type]  # which is what is tested


def test_a_model_that_returns_several_is_named(tmp_path: Path) -> None:
    class Two(Net):
        """Which returns its outputs, and something beside them."""

        def forward(self, x: Tensor) -> Any:
            return super().forward(x), x

    with pytest.raises(fm.PrivacyError, match=r"^model\.use = 'script:Two': the model returned a tuple") as refused:
        simulate(out=tmp_path / "run", **said(model=Two))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


class Halved:
    """Half of the mean, of a script."""

    def __init__(self, part: float = 0.5) -> None:
        self.part = part

    def apply(self, model: Any, mean: Any, state: bytes) -> tuple[Any, bytes]:
        return model + np.float32(self.part) * mean, state


@pytest.mark.parametrize("strategy", [Halved, lambda part: Halved(part)], ids=["a class", "a function"])
def test_a_strategy_of_a_script_moves_its_model(strategy: Any, tmp_path: Path) -> None:
    run = fm.simulate(**said(strategy=strategy, strategy_options={"part": 0.25}, out=tmp_path / "run", seed=1))
    assert run.summary["rounds_completed"] == 1
    assert set(run.scenario.own_code) == {"model.use", "data.use", "federation.strategy"}


@pytest.mark.parametrize("strategy", [3, Halved(), ["fedavg"]])
def test_what_makes_no_strategy_is_refused(strategy: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"strategy is a .*; give a name, or a class or a function that makes one"):
        fm.simulate(**said(strategy=strategy, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
