"""A model that knows nothing is called so, and the public figures of a step are what they say they are."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedmodel.config import Scenario, read_scenario
from fedmodel.data import Records
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.pattern import pattern_of
from fedmodel.learning.tasks import objective
from fedmodel.learning.tasks.classification import Classification, base_loss
from fedmodel.privacy.events import Event
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from scenarios.runs.usefulness import of_one_class, told_of, useless
from server.metrics import evaluate
from server.usefulness import USEFULNESS, usefulness
from tests.conftest import TINY
from tests.runs import simulated
from tests.scenarios.cli.test_main import Run

CPU = torch.device("cpu")
FOUND = {"one_class": None, "loss": 0.5, "base_loss": 0.69, "signal_to_noise": 3.0, "noise_walk": 0.2, "reach": 4.0,
         "supposed": {"north": 20, "south": 30}}  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return Run(monkeypatch, capsys, tmp_path)


def linear(weight: float, bias: float) -> nn.Module:
    module = nn.Linear(4, 1)
    with torch.no_grad():
        module.weight.fill_(weight)
        module.bias.fill_(bias)
    return module


def records(labels: list[int]) -> Records:
    x_NF = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    return Records(x_NF, np.array(labels), np.arange(len(labels)))


def charge(noise: float, divisor: int) -> Event:
    return DpSgdEvent(noise, 1.0, 0.5, 2, divisor)


CHARGES = {silo: charge(2.0, 10) for silo in ("north", "south", "west")}


def test_a_model_of_one_answer_is_told_from_one_of_two(tiny: Scenario) -> None:
    test = records([0, 1, 0, 1, 1, 0])
    for bias, answer in ((-50.0, "0"), (50.0, "1")):
        assert usefulness(linear(1.0, bias), tiny, test, CHARGES, CPU)["one_class"] == answer
    assert usefulness(linear(1.0, 0.0), tiny, test, CHARGES, CPU)["one_class"] is None
    # Where all records are of one class, predicting it is right.
    assert usefulness(linear(1.0, -50.0), tiny, records([0, 0, 0]), CHARGES, CPU)["one_class"] is None


def test_the_labels_own_name_is_told(tmp_path: Path) -> None:
    hospitals = read_scenario("hospitals")
    x_NF = np.zeros((2, 30), dtype=np.float32)
    test, module = Records(x_NF, np.array([0, 1]), np.arange(2)), nn.Linear(30, 1)
    with torch.no_grad():
        module.bias.fill_(-9.0)
    found = usefulness(module, hospitals, test, {"aurora": charge(2.0, 60)}, CPU)
    assert found["one_class"] == "benign"
    assert str(useless(found)).startswith("The model predicts 'benign' of every held-out record, and is of no use. ")


def test_a_model_that_ranks_is_of_use_though_it_predicts_one_class() -> None:
    """As of a rare class, which nobody is likelier than not to have."""
    found = {"one_class": "no policy", "loss": 0.21, "base_loss": 0.226, "signal_to_noise": 34.0, "noise_walk": 0.2,
             "reach": 30.0, "supposed": {"a": 700}}  # fmt: skip
    assert useless(found) is None
    assert "of every held-out record. It may tell them apart" in str(of_one_class(found))
    by_chance = {**found, "loss": 0.2259}
    assert "is of no use" in str(useless(by_chance))
    assert of_one_class(by_chance) is None
    assert useless({**found, "one_class": None}) is of_one_class({**found, "one_class": None}) is None


@given(st.lists(st.integers(0, 2), min_size=3, max_size=30), st.floats(-3, 3), st.floats(-3, 3))
def test_no_answer_that_is_one_for_all_records_has_a_smaller_loss(labels: list[int], one: float, two: float) -> None:
    label_B = torch.tensor(labels)
    for classes, kind in ((3, "cross-entropy"), (3, "mse"), (2, "cross-entropy"), (2, "mse")):
        label_B = label_B.clamp(max=classes - 1)
        shares = (torch.bincount(label_B, minlength=classes) / len(labels)).tolist()
        output_BK = torch.tensor([[one, two, 0.0] if classes == 3 else [one]]).expand(len(labels), -1)
        told = float(Classification.losses[kind](output_BK, label_B).mean())
        assert told >= (base_loss(kind, shares) or 0.0) - 1e-6


def test_the_models_loss_is_the_one_that_is_reported(tiny: Scenario) -> None:
    module, test = linear(0.3, 0.1), records([0, 1, 1, 0])
    found = usefulness(module, tiny, test, CHARGES, CPU)
    assert found["loss"] == evaluate(module, objective(DataShape((4,), 2), "cross-entropy"), test, CPU)["loss"]
    assert found["base_loss"] == pytest.approx(math.log(2))


def test_a_steps_noise_is_as_long_as_draws_of_it_are(tmp_path: Path) -> None:
    """Three silos of other weights, noise and divisors; the ratio is of lots as large as the divisor, all one way."""
    path = tmp_path / "s.toml"
    path.write_text(TINY.replace("min_silos = 2", "min_silos = 2\nweights = {north = 2.0, south = 1.0, west = 0.5}"))
    scenario, size = read_scenario(str(path)), 5
    figures = {"north": (2.0, 10), "south": (1.0, 20), "west": (3.0, 5)}
    charges = {silo: charge(*one) for silo, one in figures.items()}
    found = usefulness(linear(0.1, 0.0), scenario, records([0, 1]), charges, CPU)
    rng, weights = np.random.default_rng(5), {"north": 2.0, "south": 1.0, "west": 0.5}
    drawn_NP = sum(
        weights[silo] / 3.5 * rng.normal(scale=noise, size=(40_000, size)) / divisor
        for silo, (noise, divisor) in figures.items()
    )
    length = math.sqrt((np.square(drawn_NP).sum(axis=1)).mean())
    assert found["signal_to_noise"] == pytest.approx(1 / length, rel=0.02)  # five standard errors are some 0.016
    assert found["noise_walk"] == pytest.approx(0.5 * length / math.sqrt(size) * math.sqrt(4), rel=0.02)
    assert found["supposed"] == dict.fromkeys(figures, 20)
    halved = {silo: charge(noise, 2 * divisor) for silo, (noise, divisor) in figures.items()}
    twice = usefulness(linear(0.1, 0.0), scenario, records([0, 1]), halved, CPU)["signal_to_noise"]
    assert twice == pytest.approx(2 * found["signal_to_noise"])


@pytest.mark.parametrize("said", ["update_share=0.4", "update_rank=2"])
def test_noise_that_is_put_back_is_as_long_as_draws_of_it_are(said: str, tiny_file: Path) -> None:
    """Over patterns of many rounds, of a step's noise at all silos together."""
    scenario, whole = (read_scenario(str(tiny_file), one) for one in ([f"federation.{said}"], []))
    found, before = (usefulness(linear(0.1, 0.0), one, records([0, 1]), CHARGES, CPU) for one in (scenario, whole))
    rng, spread, length = np.random.default_rng(7), 2.0 / 10 / math.sqrt(3), []
    long = scenario.model_copy(update={"rounds": 4000})
    for number in range(1, 4001):
        pattern = pattern_of(long, number, 5)
        assert pattern is not None
        length.append(pattern.put(pattern.take(rng.normal(scale=spread, size=5).astype(np.float32))))
    squares_NP = np.square(np.array(length, dtype=np.float64))
    error = float(squares_NP.sum(axis=1).std()) / math.sqrt(4000) / squares_NP.sum(axis=1).mean() / 2
    drawn = 1 / math.sqrt(squares_NP.sum(axis=1).mean())
    assert found["signal_to_noise"] == pytest.approx(drawn, rel=5 * error)
    assert found["put_back"] == pytest.approx((before["signal_to_noise"] / found["signal_to_noise"]) ** 2)
    moved = math.sqrt(squares_NP.mean(axis=0).max())
    # The largest of five means, of which each has this error.
    error = float(squares_NP.std(axis=0).max()) / math.sqrt(4000) / squares_NP.mean(axis=0).max() / 2
    assert found["noise_walk"] == pytest.approx(0.5 * moved * math.sqrt(4), rel=5 * error)
    assert found["reach"] == before["reach"]
    assert "put_back" not in before


def test_the_reach_is_how_far_steps_of_one_direction_go(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(TINY.replace("local_steps = 2", "local_steps = 2\nmomentum = 0.5"))
    scenario = read_scenario(str(path))
    found = usefulness(linear(0.1, 0.0), scenario, records([0, 1]), CHARGES, CPU)
    place = velocity = 0.0
    for _ in range(4):
        velocity = 0.5 * velocity + 1.0
        place += 0.5 * velocity
    assert 0.75 * found["reach"] < place <= found["reach"] == 0.5 * 4 / (1 - 0.5)


def test_no_rate_is_blamed_where_the_server_makes_a_step_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    module, test = linear(1.0, -50.0), records([0, 1, 0])
    for strategy, told in (("fedavg", True), ("fedadam", False)):
        tiny = read_scenario(str(path), [f"federation.strategy={strategy}", "training.learning_rate=1e-6"])
        found = usefulness(module, tiny, test, CHARGES, CPU)
        assert (found["noise_walk"] is not None) == (found["reach"] is not None) == told
        assert ("a learning rate too small" in str(useless(found))) == told
        assert ("rate too large" in str(useless({**found, "noise_walk": found["noise_walk"] and 2.0}))) == told


def test_a_useful_model_has_no_line_and_each_cause_is_told_where_it_holds() -> None:
    assert useless(FOUND) is None
    bad = {**FOUND, "loss": 0.69}
    assert useless(bad) == (
        "The model's loss, 0.6900, is no better than 0.6900, that of answering every record with the shares of the"
        " classes. To look at first: lots of another size than privacy.expected_batch_size, which each sum is divided"
        " by and which supposes 20 to 30 records at a silo: each compares that with its own; noise last, as what a step"
        " learns is at most 3 times as large as the noise added to it."
    )
    for changed, words in (
        (
            {"signal_to_noise": 0.4},
            "To look at first: too much noise, as what a step learns is at most 0.4000 times as large as the noise ",
        ),
        ({"reach": 0.3}, "To look at first: a learning rate too small, with which all steps together reach 0.3000"),
        (
            {"reach": None, "noise_walk": 1.5},
            "a learning rate too large, with which noise alone moves a parameter by 1.",
        ),
    ):
        assert words in str(useless({**bad, **changed}))
    assert "noise" not in str(useless({**bad, "signal_to_noise": None}))  # a baseline has none
    said = "or a larger epsilon, or sending more of each update, help"
    assert said in str(useless({**bad, "signal_to_noise": 0.4, "put_back": 4.0}))
    assert said not in str(useless({**bad, "signal_to_noise": 0.4}))


def test_a_run_says_at_its_end_that_its_model_is_of_no_use(run: Run, tiny_file: Path) -> None:
    """With a step of next to nothing the model stays what it began as: of one answer for all records."""
    stuck = ("--set", "training.learning_rate=1e-9", "--set", "model.init=zero")
    assert run("simulate", str(tiny_file), *stuck, "--out", "run") == 0
    told = " ".join(run.out.split())
    assert "The model predicts '0' of every held-out record, and is of no use. To look at first: " in told
    assert "a learning rate too small, with which all steps together reach 4.000e" in told
    found = json.loads((run.folder / "run" / USEFULNESS).read_text())
    assert found["one_class"] == "0"
    assert found["supposed"] == {"north": 20, "south": 20, "west": 20}


def test_nothing_is_told_of_a_run_of_before(tmp_path: Path) -> None:
    folder = simulated(tmp_path, TINY)
    (folder / USEFULNESS).unlink()
    assert told_of(folder) is None
