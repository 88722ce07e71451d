"""A model of survival answers a curve for each row, of which its own run's figures are, by the ends that it learnt."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from fedmodel.config import CsvForm, read_scenario
from fedmodel.data.records import dealt
from fedmodel.errors import ConfigError
from fedmodel.kinds.sources.metabric import MetabricConfig
from fedmodel.learning.description import DESCRIPTION
from fedmodel.learning.tasks import Measured, task_of
from scenarios.models.card import CARD
from scenarios.models.export import export
from scenarios.models.predict import predict
from scenarios.models.trained import read_model
from tests.once import once
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
