"""A simulation of a model of the user's own, by its name in a scenario: run, refused, taken up again, read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fedmodel.config import Scenario, read_scenario, scenario_to_toml
from fedmodel.data import Records
from fedmodel.errors import ClaimRefuted, ConfigError, LedgerTampered, PrivacyError
from fedmodel.kinds import own_code
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.tasks import Measured, objective, task_of
from fedmodel.provision import check_listed
from scenarios.cli.main import app
from scenarios.report import build, deployed, sentences
from scenarios.report.build import read_report
from scenarios.report.gather import read_run
from scenarios.report.summary_check import check_summary
from scenarios.simulation import engines
from scenarios.simulation.prepared import prepare
from server.metrics import evaluate
from tests.conftest import TINY
from tests.scenarios.report.test_build import page

NETS = """
import random

import torch
from torch import nn

KEPT = nn.Linear(4, 1)


def net(shape, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.features[0], shape.outputs, bias=bias))


def nothing():
    return 3


def a_class():
    return nn.Linear


def kept():
    return KEPT


def of_another_size():
    return nn.Linear(4, random.randrange(1, 10**6))


def of_other_values():
    made = nn.Linear(4, 1)
    with torch.no_grad():
        made.weight.fill_(random.random())
    return made


def of_other_names():
    made = nn.Sequential()
    made.add_module(f"layer-{random.randrange(10**9)}", nn.Linear(4, 1))
    return made


NEXT = [nn.Linear(4, 1, dtype=one) for one in (torch.float16, torch.float32)]


def of_half_the_precision():
    return NEXT.pop()


def ends():
    raise SystemExit(0)


def frozen():
    return nn.Linear(4, 1).requires_grad_(False)


def without_parameters():
    return nn.Flatten()
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A scenario beside its module."""
    (tmp_path / "ownmodel.py").write_text(NETS)
    text = TINY.replace('kind = "mlp"', 'use = "ownmodel:net"\nbias = false')
    assert 'use = "ownmodel:net"' in text
    (tmp_path / "s.toml").write_text(text)
    yield tmp_path / "s.toml"
    own_code.close()
    sys.modules.pop("ownmodel", None)  # where it was imported from the path, it is not own_code's to forget


def run(own: Path, out: Path) -> dict[str, object]:
    prepared = prepare(own, (), "in-process", "cpu", out)
    with prepared.held() as run_dir:
        return prepared.run(run_dir, nullcontext())


def test_a_model_beside_its_scenario_is_trained_and_read_where_that_is_asked_for_and_verified_without_it(
    own: Path, tmp_path: Path
) -> None:
    run(own, tmp_path / "r")
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["parameters"] == 4
    assert summary["used"]["model"] == "own"
    stored = read_scenario(str(tmp_path / "r" / "scenario.toml"))
    assert stored.model.model_dump(exclude={"init", "init_value"}) == {
        "kind": "own", "use": "ownmodel:net", "bias": False,
    }  # fmt: skip
    own_code.close()
    words = ["export", str(tmp_path / "r"), "--format", "safetensors"]
    told = CliRunner().invoke(app, words)
    assert isinstance(told.exception, ConfigError)
    assert "which nothing here was told to run; look at it, and name the folder" in str(told.exception)
    assert not (tmp_path / "r" / "export").exists()
    assert CliRunner().invoke(app, [*words, "--own-code", str(own.parent)]).exit_code == 0
    own_code.close()
    (own.parent / "ownmodel.py").unlink()
    build.build(tmp_path / "r", page)
    build.verify(tmp_path / "r", render=page)
    assert "ownmodel" not in sys.modules
    (row,) = summary["own_code"]
    assert (row["key"], row["use"], len(row["sha256"])) == ("model.use", "ownmodel:net", 64)
    (said,) = [one for one in read_report(tmp_path / "r").report.limits.statements if "not written to cheat" in one]
    assert f"model.use = 'ownmodel:net', of whoever ran it, SHA-256 {row['sha256']}" in said
    whole = (tmp_path / "r" / "summary.json").read_text()
    assert not [one for one in sentences.own_code(read_run(tmp_path / "r")) if "numbers" in one or "parameters" in one]
    for wrong, rule in ((5, r"parameters: 5 stands, and .* has 4 numbers"), (3, None)):
        (tmp_path / "r" / "summary.json").write_text(json.dumps(summary | {"parameters": wrong}))
        if rule is not None:
            with pytest.raises(ClaimRefuted, match=rule):
                read_run(tmp_path / "r")
            continue
        (told,) = sentences.own_code(read_run(tmp_path / "r"))[1:]
        assert told.startswith("That only 3 of the 4 numbers in the model's file were trained: that is the word of")
    (tmp_path / "r" / "summary.json").write_text(whole)
    (tmp_path / "r" / "model.safetensors").rename(tmp_path / "kept")
    (told,) = sentences.own_code(read_run(tmp_path / "r"))[1:]
    assert told.startswith("That the model has 4 parameters: it is of the user's own and does not lie here open")
    (tmp_path / "r" / "model.safetensors").write_bytes((tmp_path / "kept").read_bytes()[:-1])
    with pytest.raises(LedgerTampered, match="is cut short"):
        read_run(tmp_path / "r")
    (tmp_path / "kept").rename(tmp_path / "r" / "model.safetensors")
    assert "ownmodel" not in sys.modules
    for told in ([], [row | {"use": "ownmodel:another"}]):
        (tmp_path / "r" / "summary.json").write_text(json.dumps(summary | {"own_code": told}))
        with pytest.raises(ClaimRefuted, match=r"own_code: .* stands, and the scenario names"):
            check_summary(read_run(tmp_path / "r"))


def test_a_scenario_that_names_no_code_has_the_text_that_it_had(tiny: Scenario) -> None:
    assert "use" not in scenario_to_toml(tiny)
    assert tiny.own_code == {}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("nothing", "returned int, where a torch.nn.Module is needed"),
        ("a_class", "returned the class Linear itself, where a torch.nn.Module is needed"),
        ("kept", "returned the same network twice; make a new one each time"),
        ("of_another_size", "makes another network each time: weight is [0-9]+x4 of float32, and then"),
        ("of_other_values", "makes another network each time: weight has other values by the same seed"),
        ("of_other_names", "makes another network each time: it differs in layer-[0-9]+.weight"),
        ("of_half_the_precision", "weight is 1x4 of float32, and then 1x4 of float16"),
        ("ends", "raised SystemExit: 0"),
        ("frozen", "made a Linear that has no parameter to train"),
        ("without_parameters", "made a Flatten that has no parameter to train"),
        ("KEPT", "is a Linear; name a function or a class, which makes one"),
    ],
)
def test_what_is_no_model_of_one_s_own_is_refused_before_anything_is_written(
    own: Path, tmp_path: Path, name: str, rule: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.use = 'ownmodel:{name}' .*{rule}") as caught:
        prepare(own, [f"model.use=ownmodel:{name}", "model.bias="], "in-process", "cpu", tmp_path / "r")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("model.biass=3", r"model\.biass is no argument of model\.use = 'ownmodel:net'; did you mean 'bias'\?"),
        ("model.bias=1979-05-27", r"s\.toml: model: bias is a date; arguments are text, numbers, truths, lists"),
        ("model.bias=[inf]", r"s\.toml: model: bias is a float; arguments are"),
        ("model.use=ownmodel", r"s\.toml: model\.use: 'ownmodel' names no code; write \"package\.module:function\""),
        ("model.kind=mlp", r"s\.toml: model\.use does not belong to kind = 'mlp'; leave it out"),
    ],
)
def test_keys_that_do_not_fit_are_refused(own: Path, tmp_path: Path, setting: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        prepare(own, [setting], "in-process", "cpu", tmp_path / "r")


def test_the_first_model_is_the_same_whether_its_module_was_imported_just_now(own: Path) -> None:
    """The module draws from torch's generator as it is imported."""
    from fedmodel.learning.models import build_model
    from fedmodel.learning.vectors import flatten

    config = read_scenario(str(own)).model
    found = []
    for _ in range(2):
        own_code.open_to_all(own.parent)
        found += [flatten(build_model(config, DataShape((4,), 2), seed=1)).tolist() for _ in range(2)]
    assert found[0] == found[1] == found[2] == found[3]


def test_a_run_goes_on_with_the_very_code_that_it_began_with(own: Path, tmp_path: Path) -> None:
    prepared = prepare(own, (), "in-process", "cpu", tmp_path / "r")
    with prepared.held():
        pass  # killed before its first round
    (own.parent / "ownmodel.py").write_text(NETS + "# another\n")
    changed = prepare(own, (), "in-process", "cpu", tmp_path / "r")
    with pytest.raises(ConfigError, match=r"holds a run that began with code [0-9a-f]{16}"), changed.held():
        pass
    (own.parent / "ownmodel.py").write_text(NETS)
    assert run(own, tmp_path / "r")["rounds_completed"] == 2


def test_a_changed_module_is_what_the_next_run_of_the_same_process_trains(own: Path, tmp_path: Path) -> None:
    assert run(own, tmp_path / "1")["parameters"] == 4
    (own.parent / "ownmodel.py").write_text(NETS.replace("bias=bias", "bias=True"))
    assert run(own, tmp_path / "2")["parameters"] == 5


def test_an_object_of_a_script_is_trained_in_its_process_and_refused_for_others(own: Path, tmp_path: Path) -> None:
    own_code.hand_over("script:Mine", lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 1)))
    scenario = read_scenario(str(own), ["model.use=script:Mine", "model.bias="])
    with pytest.raises(
        ConfigError, match=r"^model\.use = 'script:Mine' is an object of this script, and --engine flower"
    ):
        prepare(scenario, (), "flower", "cpu", tmp_path / "r")
    assert not (tmp_path / "r").exists()
    assert engines.engine_of("in-process").one_process
    prepared = prepare(scenario, (), "in-process", "cpu", tmp_path / "r")
    with prepared.held() as run_dir:
        assert prepared.run(run_dir, nullcontext())["parameters"] == 5


def test_an_engine_of_other_processes_is_told_where_the_code_lies(own: Path, tmp_path: Path) -> None:
    prepared = prepare(own, (), "in-process", "cpu", tmp_path / "r")
    simulation = engines.Simulation(prepared.scenario, tmp_path, "cpu", "1")
    assert simulation.run_config["own-code"] == str(own.parent)


LOSSES = """
import torch
from torch.nn import functional


def squared(output, target):
    return (output[:, 0] - target).square()


def mean(output, target):
    return squared(output, target).mean()


def column(output, target):
    return squared(output, target)[:, None]


def number(output, target):
    return 0.5


def fails(output, target):
    raise ValueError(f"target is {target[0]}")


def share(answers, targets):
    assert answers.shape == (len(targets), 2)
    return targets.mean()


def undefined(answers, targets):
    return None if len(targets) else 1.0
"""


def test_a_loss_of_ones_own_is_trained_on_and_measured(own: Path, tmp_path: Path) -> None:
    (own.parent / "ownlosses.py").write_text(LOSSES)
    settings = ["model.use=", "model.bias=", "model.kind=mlp", "rounds=1", "privacy.noise=seeded-unsafe"]
    settings.append('metrics=["accuracy", "ownlosses:share", "ownlosses:undefined"]')
    found = []
    for number, loss in enumerate(("ownlosses:squared", "mse")):
        prepared = prepare(own, [*settings, f"training.loss={loss}"], "in-process", "cpu", tmp_path / str(number))
        assert prepared.scenario.silos_code == ({"training.loss": loss} if ":" in loss else {})
        with prepared.held() as run_dir:
            found.append(prepared.run(run_dir, nullcontext()))
    # Of one model: the same losses, gradients and noise. Answers of "mse" are no probabilities.
    assert found[0]["metrics"]["loss"] == found[1]["metrics"]["loss"]
    assert list(found[0]["metrics"]) == ["accuracy", "ownlosses:share", "loss"]
    assert 0 < found[0]["metrics"]["ownlosses:share"] < 1
    assert [row["key"] for row in found[0]["own_code"]] == ["training.loss", "metrics[1]", "metrics[2]"]
    build.build(tmp_path / "0", page)
    build.verify(tmp_path / "0", render=page)


@pytest.mark.parametrize(
    ("name", "rule"),
    [("fails", r"raised ValueError in line 23 of ownlosses\.py$"), ("squared", r"returned what is a ndarray, where a")],
)
def test_what_is_no_figure_is_refused_without_a_word_of_a_record(own: Path, name: str, rule: str) -> None:
    (own.parent / "ownlosses.py").write_text(LOSSES.replace(".square()", ""))
    own_code.open_to_all(own.parent)
    found = Measured(np.array([[0.5, 0.5]]), np.array([1]), np.array([0.5]), 0.5, "cross-entropy")
    with pytest.raises(ConfigError, match=rf"^metrics: 'ownlosses:{name}' {rule}") as caught:
        task_of(DataShape((4,), 2)).figures((f"ownlosses:{name}",), found)
    assert "target is" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "rule"), [("tensors", "raised AttributeError in line 3"), ("row", "a ndarray, where")]
)
def test_a_figure_that_fails_is_found_before_anything_is_written(own: Path, name: str, rule: str) -> None:
    (own.parent / "ownfigures.py").write_text(
        "def tensors(answers, targets):\n    targets[:] = 3\n    return (answers.argmax(1) == targets).float().mean()\n"
        "def row(answers, targets):\n    assert sorted(set(targets)) == [0, 1]\n    return answers[0]\n"
    )
    given = r"it was given made-up answers of shape \(258, 2\) and targets of shape \(258,\), NumPy arrays both$"
    settings = [f'metrics=["ownfigures:{name}"]', "model.use=", "model.bias=", "model.kind=mlp"]
    with pytest.raises(ConfigError, match=rf"^metrics: 'ownfigures:{name}' .*{rule}.*; {given}"):
        prepare(own, settings, "in-process", "cpu", own.parent / "r")
    assert not (own.parent / "r").exists()


def test_figures_and_losses_that_write_into_what_they_are_given_change_nothing_else(own: Path) -> None:
    (own.parent / "ownwriting.py").write_text(
        "def figure(answers, targets):\n    answers[:], targets[:] = 0, 0\n    return 1.0\n"
        "def loss(output, target):\n    target -= target\n    return output.mul_(0).sum(dim=1)\n"
    )
    own_code.open_to_all(own.parent)
    records = Records(np.eye(2, dtype=np.float32), np.array([0, 1]), np.arange(2))
    found = evaluate(
        nn.Identity(), objective(DataShape((2,), 2), "ownwriting:loss"), records, torch.device("cpu"),
        ("ownwriting:figure", "accuracy"),
    )  # fmt: skip
    assert found == {"loss": 0.0, "ownwriting:figure": 1.0, "accuracy": 1.0}
    assert records.y_N.tolist() == [0, 1]


def test_no_silo_needs_the_code_of_a_figure(own: Path) -> None:
    scenario = read_scenario(str(own), ["model.use=", "model.bias=", "model.kind=mlp", 'metrics=["ownlosses:share"]'])
    check_listed(scenario, {})
    assert scenario.own_code == {"metrics[0]": "ownlosses:share"}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("mean", r"returned what is of shape \(\) for 3 records, where each needs a loss of its own, shape \(3,\)"),
        ("column", r"returned what is of shape \(3, 1\) for 3 records"),
        ("number", r"returned what is a float for 3 records"),
        ("fails", r"raised ValueError in line 23 of ownlosses\.py$"),
    ],
)
def test_what_is_no_loss_of_each_record_is_refused_without_a_word_of_a_record(own: Path, name: str, rule: str) -> None:
    (own.parent / "ownlosses.py").write_text(LOSSES)
    own_code.open_to_all(own.parent)
    losses = objective(DataShape((4,), 2), f"ownlosses:{name}").losses
    with pytest.raises(PrivacyError, match=rf"^training\.loss = 'ownlosses:{name}' {rule}") as caught:
        losses(torch.zeros(3, 1), torch.tensor([1, 0, 1]))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "target is" not in str(caught.value)


@pytest.mark.parametrize("loss", ["ownlosses:nosuch", "nosuch:loss", "model:", "Cross entropy"])
def test_a_loss_that_is_not_there_is_refused_before_anything_is_written(own: Path, tmp_path: Path, loss: str) -> None:
    (own.parent / "ownlosses.py").write_text(LOSSES)
    with pytest.raises(ConfigError, match=r"training\.loss"):
        prepare(own, [f'training.loss="{loss}"'], "in-process", "cpu", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_server_that_makes_a_report_lets_no_own_code_in_and_sums_up_what_was_noted(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model lies where it could be imported from, and its size is the one that the run was handed in with."""
    monkeypatch.syspath_prepend(str(own.parent))
    scenario = read_scenario(str(own))
    row = {"key": "model.use", "use": "ownmodel:net", "sha256": "ab" * 32}
    (tmp_path / "run.json").write_text(json.dumps({"checked": {"parameters": 7, "own_code": [row]}}))
    assert deployed._checked(scenario, tmp_path) == (7, [row])
    assert "ownmodel" not in sys.modules
    with pytest.raises(ConfigError, match="which nothing here was told to run"):
        own_code.resolve("ownmodel:net", "model.use")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="does not say what code 'ownmodel:net' was"):
        deployed._checked(scenario, tmp_path)
    assert "ownmodel" not in sys.modules
