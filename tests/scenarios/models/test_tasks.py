"""A number, and several labels at once, are trained on, measured, scored, exported and told of."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from fedmodel.config import CsvForm, read_scenario
from fedmodel.errors import ConfigError
from fedmodel.learning.description import Description
from scenarios.models.export import export
from scenarios.models.predict import as_rows, predict
from scenarios.models.trained import read_model
from scenarios.report import build
from scenarios.report.page.render import render
from scenarios.runs.usefulness import told_of
from tests.once import once
from tests.runs import simulated
from tests.scenarios.cli.test_main import Run

PLAIN = CsvForm()
NUMBER = """
name = "creatinine"
summary = "a number, from two others"
rounds = 6
seed = 1
METRICS
[federation]
silos = ["north", "south", "west"]
min_silos = 2
[model]
kind = "mlp"
init = "zero"
[training]
loss = "mse"
optimizer = "sgd"
learning_rate = 0.5
local_steps = 4
[privacy]
unit = "record"
epsilon = 8.0
delta = 1e-3
max_grad_norm = 1.0
sample_rate = 1.0
expected_batch_size = 60
[data]
source = "table"
name = "admissions"
folder = "FOLDER"
label = "creatinine"
label_range = [45.0, 110.0]
other_columns = "ignore"
[[data.columns]]
name = "age"
type = "float"
range = [18.0, 90.0]
[[data.columns]]
name = "diabetic"
type = "boolean"
"""


def write(folder: Path) -> None:
    """A number that follows from two others, some of it outside of the range; and two labels that follow from it."""
    rng = np.random.default_rng(0)
    for party in ("north", "south", "west", "held-out"):
        with (folder / f"{party}.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["age", "diabetic", "creatinine", "ill", "dead"])
            for _ in range(60):
                age, diabetic = rng.uniform(18, 90), rng.random() < 0.5
                value = 40 + 0.6 * age + 25 * diabetic + rng.normal(scale=4)
                lines.writerow(
                    [f"{age:.1f}", str(bool(diabetic)).lower(), f"{value:.2f}", int(value > 80), int(age > 60)]
                )


def _number(folder: Path) -> None:
    write(folder)
    simulated(folder, NUMBER.replace("FOLDER", str(folder)).replace("METRICS", ""))


def _labels(folder: Path) -> None:
    write(folder)
    text = NUMBER.replace("FOLDER", str(folder)).replace("label_range = [45.0, 110.0]\n", "")
    text = text.replace('"creatinine"\nother', '["ill", "dead"]\nother').replace('"mse"', '"cross-entropy"')
    simulated(folder, text.replace("METRICS", 'metrics = ["label-accuracy", "auroc", "exact-match"]'))


@pytest.fixture(scope="session")
def number(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "number", _number) / "run"


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "labels", _labels) / "run"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return Run(monkeypatch, capsys, tmp_path)


def held_out(folder: Path, *names: str) -> np.ndarray:  # type: ignore[type-arg]
    with (folder.parent / "held-out.csv").open() as file:
        return np.array([[float(row[name]) for name in names] for row in csv.DictReader(file)])


def test_a_number_is_measured_in_its_own_units_and_predicted_in_them(number: Path) -> None:
    told = json.loads((number / "summary.json").read_text())
    assert list(told["metrics"]) == ["rmse", "mae", "r2", "loss"]
    assert told["metrics"]["r2"] > 0.3
    scores = predict(read_model(number), number.parent / "held-out.csv", PLAIN)
    truth = np.clip(held_out(number, "creatinine")[:, 0], 45.0, 110.0)
    assert metrics.root_mean_squared_error(truth, scores.predicted_N) == pytest.approx(
        told["metrics"]["rmse"], rel=1e-5
    )
    assert next(scores.lines()) == ["row", "predicted", "refused"]
    assert list(scores.lines())[1][1] == f"{scores.predicted_N[0]:.9g}"
    row = as_rows(scores)[0]
    assert set(row) == {"row", "predicted", "refused"}
    assert 45 <= float(str(row["predicted"])) <= 110
    assert told_of(number) is None
    with pytest.raises(ConfigError, match="this one predicts a number; leave it out"):
        predict(read_model(number), number.parent / "held-out.csv", PLAIN, threshold=0.5)


def test_several_labels_are_measured_by_the_named_figures_and_predicted_each(labels: Path) -> None:
    told = json.loads((labels / "summary.json").read_text())["metrics"]
    assert list(told) == ["label-accuracy", "auroc", "exact-match", "loss"]
    assert told["auroc"] > 0.8
    scores = predict(read_model(labels), labels.parent / "held-out.csv", PLAIN)
    truth = held_out(labels, "ill", "dead")
    assert (scores.predicted_N == (truth == 1)).mean() == pytest.approx(told["label-accuracy"])
    assert next(scores.lines()) == ["row", "predicted", "probability of ill", "probability of dead", "refused"]
    rows = as_rows(scores)
    assert [row["predicted"] for row in rows] == [
        [name for name, there in zip(("ill", "dead"), found, strict=True) if there] for found in scores.predicted_N
    ]


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
@pytest.mark.parametrize("of", ["number", "labels"])
def test_a_model_of_another_task_is_exported_and_its_card_says_what_it_predicts(
    of: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(of)
    done = export(folder, kind, tmp_path / "out", None, None, PLAIN)
    card = (done.folder / "README.md").read_text()
    if of == "number":
        assert done.answers == "values"
        assert "It predicts `creatinine`, a number from 45 to 110, a range that is declared" in card
        assert "tabular-regression" in card
        assert "probabilit" not in card.lower()
    else:
        assert done.answers == "probabilities"
        assert "It predicts which of `ill` and `dead` there are." in card


def test_a_report_tells_of_a_number_and_verifies(number: Path, labels: Path, tmp_path: Path) -> None:
    for made, words in ((number, "Root of the mean squared error"), (labels, "Accuracy of labels")):
        folder = Path(shutil.copytree(made, tmp_path / made.parent.name))
        build.build(folder, render)
        report = build.read_report(folder).report
        assert report.training.left_out == ()
        assert words in (folder / "report.html").read_text()
        assert "Accuracy</dt>" not in (folder / "report.html").read_text()
        build.verify(folder)


def test_descriptions_read_back_and_are_held_to_their_task(number: Path, labels: Path) -> None:
    for folder in (number, labels):
        written = json.loads((folder / "model.json").read_text())
        described = Description.model_validate(written)
        scenario = read_scenario(str(folder / "scenario.toml"))
        assert described.data == scenario.data.shape
        for wrong in ({"task": "classification"}, {"target": None}, {"label_range": [3.0, 1.0]}, {"task": "nothing"}):
            with pytest.raises(ValueError, match=r"task|labels|target|do not go"):
                Description.model_validate({**written, **wrong})


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.loss=cross-entropy", "unknown loss 'cross-entropy'; known: mse, mae, huber"),
        ('metrics=["accuracy"]', "metrics: unknown figure 'accuracy'; known: rmse, mae, r2"),
        ("besides.label-counts.noise_multiplier=2.0", "besides.label-counts: "),
    ],
)
def test_what_the_task_does_not_know_is_refused_before_a_folder_is_made(run: Run, setting: str, words: str) -> None:
    write(run.folder)
    (run.folder / "s.toml").write_text(NUMBER.replace("FOLDER", str(run.folder)).replace("METRICS", ""))
    more = ("--set", "besides.label-counts.bound=300.0") if setting.startswith("besides") else ()
    assert run("simulate", "s.toml", "--set", setting, *more, "--out", "run") == 2
    assert words in " ".join(run.err.split())
    assert not (run.folder / "run").exists()
