"""A model of survival answers a curve for each row, of which its own run's figures are, by the ends that it learnt."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedmodel.config import CsvForm, read_scenario
from fedmodel.data.records import dealt
from fedmodel.errors import ConfigError
from fedmodel.kinds.sources.metabric import MetabricConfig
from fedmodel.learning.description import DESCRIPTION, Description
from fedmodel.learning.tasks import Measured, task_of
from scenarios.models.card import CARD
from scenarios.models.explain import explain, held_out, of_file
from scenarios.models.export import export
from scenarios.models.predict import predict
from scenarios.models.trained import read_model
from scenarios.report import build
from scenarios.report.page.render import render
from tests.once import once
from tests.runs import simulated
from tests.scenarios.cli.test_main import Run

PLAIN = CsvForm()
ENDS = ("12.5", "60", "120")


def _made(folder: Path) -> None:
    """A run of three intervals, and its held-out patients as a clinic's file has them, in their own units."""
    import fedmodel as fm

    settings = ["rounds=2", "encryption={}", f"data.ends=[{','.join(ENDS)}]", "privacy.noise=seeded-unsafe"]
    fm.simulate("survival", settings, engine="vectorised", out=folder / "run", progress=False)
    scenario = read_scenario(str(folder / "run" / "scenario.toml"))
    assert isinstance(scenario.data, MetabricConfig)
    raw_NF, _ = scenario.data.load(0)
    with (folder / "patients.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["patient", *scenario.data.shape.names])
        lines.writerows([f"P{who}", *raw_NF[who].tolist()] for who in dealt(scenario)[0].person_N.tolist())


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "survival", _made)


def test_curves_of_held_out_patients_are_what_the_runs_figures_are_of(made: Path) -> None:
    scores = predict(read_model(made / "run"), made / "patients.csv", PLAIN)
    scenario = read_scenario(str(made / "run" / "scenario.toml"))
    held_out, _ = dealt(scenario)
    assert scores.refused == {}
    assert scores.probability_NK.shape == (len(held_out), len(ENDS))
    found = Measured(scores.probability_NK, held_out.y_N, np.zeros(len(held_out)), 0.0, "hazards")
    told = json.loads((made / "run" / "summary.json").read_text())["metrics"]
    assert task_of(scenario.data.shape).figures(("concordance", "integrated-brier"), found) == pytest.approx(
        {name: told[name] for name in ("concordance", "integrated-brier")}, rel=1e-5
    )


def test_a_line_has_the_chance_at_each_end_and_the_header_says_which(run: Run, made: Path, tmp_path: Path) -> None:
    lines = (made / "patients.csv").read_text().splitlines()
    broken = ",".join([*lines[2].split(",")[:-1], "old"])
    (tmp_path / "new.csv").write_text("\n".join([lines[0], lines[1], broken]) + "\n")
    assert run("predict", str(made / "run"), "new.csv", "--id", "patient", "--out", "curves.csv") == 2
    with (tmp_path / "curves.csv").open(newline="") as file:
        header, first, refused = csv.reader(file)
    assert header == ["row", "id", *(f"survival at {end} months" for end in ENDS), "refused"]
    curve = [float(one) for one in first[2:5]]
    assert first[5] == ""
    assert 1 > curve[0] > curve[1] > curve[2] > 0
    assert refused[2:] == ["", "", "", "column 'age': a value is not a number"]
    assert run("predict", str(made / "run"), "new.csv", "--json") == 2
    whole, broken_row = json.loads(run.out)["scores"]
    assert list(whole) == list(broken_row) == ["row", "survival", "refused"]
    assert whole["survival"] == pytest.approx(dict(zip([f"{end} months" for end in ENDS], curve, strict=True)))
    assert broken_row["survival"] is None


def test_a_curve_has_no_threshold(made: Path) -> None:
    with pytest.raises(ConfigError, match="and this one predicts a survival curve; leave it out"):
        predict(read_model(made / "run"), made / "patients.csv", PLAIN, threshold=0.5)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_an_export_answers_curves_and_its_card_says_when(kind: str, made: Path, tmp_path: Path) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    done = export(made / "run", kind, tmp_path / "out", None, None, PLAIN)
    assert done.differs < 1e-6
    card = (done.folder / CARD).read_text()
    assert "It predicts the chance to be without the event at 12.5, 60 and 120 months." in card
    assert "tabular-" not in card


REGISTRY = """
name = "registry"
summary = "three hospitals, times until an event"
rounds = 2
seed = 3
[federation]
silos = ["north", "south", "west"]
min_silos = 2
[model]
kind = "mlp"
init = "zero"
[training]
loss = "hazards"
optimizer = "sgd"
learning_rate = 3.0
local_steps = 2
[privacy]
unit = "record"
noise_multiplier = 0.5
delta = 1e-3
max_grad_norm = 1.0
sample_rate = 1.0
expected_batch_size = 30
[data]
source = "table"
name = "registry"
folder = "FOLDER"
label = "status"
labels = ["1", "2"]
unknown_label = "drop"
time = "weeks"
ends = [10, 20.5]
time_unit = "weeks"
[[data.columns]]
name = "age"
type = "float"
range = [20.0, 90.0]
[[data.columns]]
name = "treated"
type = "boolean"
"""


def _registry(folder: Path) -> None:
    """A run on tables whose codes are 1 and 2, as registries have them; a 9 is nobody's."""
    rng = np.random.default_rng(2)
    for party in ("north", "south", "west", "held-out"):
        with (folder / f"{party}.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["age", "treated", "weeks", "status"])
            for place in range(40):
                age, treated = rng.uniform(20, 90), place % 2
                weeks = 30 * rng.random() * (1.4 - age / 90)
                lines.writerow([f"{age:.1f}", treated, f"{weeks:.1f}", 9 if place == 7 else rng.choice([1, 2, 2])])
    simulated(folder, REGISTRY.replace("FOLDER", str(folder)))


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "registry-of-survival", _registry)


def test_a_model_of_a_table_says_by_which_columns_its_targets_are_known(registry: Path) -> None:
    model, table = read_model(registry / "run"), registry / "held-out.csv"
    told = json.loads((registry / "run" / "summary.json").read_text())["metrics"]
    scenario = read_scenario(str(registry / "run" / "scenario.toml"))
    assert (model.description.label, model.description.labels, model.description.time) == (
        "status", ("1", "2"), "weeks",
    )  # fmt: skip
    assert model.description.data == scenario.data.shape
    looked = of_file(model, table, PLAIN, "held-out")
    assert (looked.reason, looked.refused) == (None, 1)  # the record whose code is declared by nobody
    own = held_out(registry / "run")
    assert looked.target_N is not None
    assert own.target_N is not None
    assert looked.target_N.tolist() == own.target_N.tolist()
    assert explain(model, looked, ("treated",), least=5).figures == pytest.approx(told, rel=1e-5)
    scores = predict(model, table, PLAIN)
    assert scores.probability_NK.shape == (40, 2)
    assert next(scores.lines()) == ["row", "survival at 10 weeks", "survival at 20.5 weeks", "refused"]


def test_without_its_columns_a_file_has_no_figures_and_no_value_is_said(registry: Path, tmp_path: Path) -> None:
    model = read_model(registry / "run")
    for text, reason in (
        ("age,treated,weeks\n50,1,4\n", "'status'"),
        ("age,treated,status\n50,1,1\n", "'weeks'"),
        ("age,treated,weeks,status\n50,1,-4.25,1\n", "column 'weeks': a time is below 0"),
        ("age,treated,weeks,status\n50,1,,1\n", "column 'weeks': a value is missing"),
    ):
        (tmp_path / "a.csv").write_text(text)
        looked = of_file(model, tmp_path / "a.csv", PLAIN, "own")
        assert looked.target_N is None
        assert looked.reason is not None
        assert reason in looked.reason
        assert "4.25" not in looked.reason


def test_the_card_and_the_report_of_a_table_say_the_event(registry: Path, tmp_path: Path) -> None:
    done = export(registry / "run", "safetensors", tmp_path / "out", None, None, PLAIN)
    card = (done.folder / CARD).read_text()
    assert "It predicts the chance to be without the event (`status`) at 10 and 20.5 weeks." in card
    folder = Path(shutil.copytree(registry / "run", tmp_path / "run"))
    build.build(folder, render)
    build.verify(folder)


@pytest.mark.parametrize(
    "wrong", [{"label": None}, {"labels": ["1"]}, {"labels": ["1", "2", "3"]}, {"ends": [], "time_unit": ""}]
)
def test_a_description_whose_time_does_not_go_with_the_rest_is_refused(
    wrong: dict[str, object], registry: Path
) -> None:
    document = json.loads((registry / "run" / DESCRIPTION).read_text())
    with pytest.raises(ValueError, match=r"time is given with|ends and time_unit are given"):
        Description.model_validate({**document, **wrong})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("ends", [12.5, 60.0], "target is of other intervals than the 2 that ends has"),
        ("ends", [], "ends and time_unit are given with task"),
        ("time_unit", "", "ends and time_unit are given with task"),
    ],
)
def test_a_description_with_other_ends_than_its_targets_is_refused(
    key: str, value: object, said: str, made: Path, tmp_path: Path
) -> None:
    document = json.loads((made / "run" / DESCRIPTION).read_text())
    assert (document["ends"], document["time_unit"]) == ([12.5, 60.0, 120.0], "months")
    (tmp_path / DESCRIPTION).write_text(json.dumps({**document, key: value}))
    (tmp_path / "model.safetensors").write_bytes((made / "run" / "model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match=said):
        read_model(tmp_path)
