"""A model in use: the scores of a run's own held-out records are what its figures are of, and nothing else is read."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics

from fedmodel.config import CsvForm, read_scenario
from fedmodel.crypto.sealed import new_age_key, write_sealed
from fedmodel.errors import ConfigError, LedgerTampered
from fedmodel.learning.description import DESCRIPTION, describe, read_description
from fedmodel.provision import scenario_hash
from scenarios.models.predict import predict
from scenarios.models.trained import read_model
from scenarios.report.gather import read_run
from tests.conftest import TINY
from tests.runs import copied, simulated
from tests.scenarios.cli.test_main import Run
from tests.scenarios.models.tables import HEADER, rows, write_table

PLAIN = CsvForm()
MODEL = "model.safetensors"


def figures(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "summary.json").read_text())["metrics"]
    return found


def moved(folder: Path, to: Path) -> Path:
    """Return a folder with a model and its description and nothing else, as it is handed to others."""
    to.mkdir()
    for name in (MODEL, DESCRIPTION):
        shutil.copy(folder / name, to / name)
    return to


def test_scores_of_held_out_records_are_what_the_runs_figures_are_of(tabled: Path, tmp_path: Path) -> None:
    scores = predict(read_model(moved(tabled, tmp_path / "given") / MODEL), tabled.parent / "held-out.csv", PLAIN)
    with (tabled.parent / "held-out.csv").open(newline="") as file:
        truth = [row["outcome"] == "malignant" for row in csv.DictReader(file)]
    assert scores.refused == {}
    assert scores.labels == ("benign", "malignant")
    told = figures(tabled)
    assert metrics.accuracy_score(truth, scores.predicted_N) == told["accuracy"]
    assert metrics.recall_score(truth, scores.predicted_N) == told["recall"]
    assert metrics.roc_auc_score(truth, scores.probability_NK[:, 1]) == pytest.approx(told["auroc"], rel=1e-12)
    right_N = scores.probability_NK[np.arange(len(truth)), np.array(truth, dtype=np.intp)]
    assert -np.log(right_N).mean() == pytest.approx(told["loss"], rel=1e-5)
    assert 0 < scores.predicted_N.sum() < len(truth)


def test_there_is_a_line_for_every_row_in_order_and_none_has_a_value_of_the_file(
    run: Run,
    tabled: Path,
    tmp_path: Path,
) -> None:
    made = rows(5, seed=9)
    made[1][0], made[3][3] = "SESAME", "SESAME"
    write_table(tmp_path / "new.csv", [row[::-1] for row in made], HEADER[::-1])  # columns in any order
    assert run("predict", str(tabled), "new.csv", "--out", "scores.csv") == 2
    assert run.out == "3 of 5 rows are scored: scores.csv\n"
    assert "row 2: column 'age': a value is not a number\n" in run.err
    assert "not protected by differential privacy" in run.err
    with (tmp_path / "scores.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["row", "predicted", "probability of benign", "probability of malignant", "refused"]
    assert [line[0] for line in lines] == ["1", "2", "3", "4", "5"]
    assert [bool(line[-1]) for line in lines] == [False, True, False, True, False]
    assert lines[1][1:4] == ["", "", ""]
    for line in (lines[0], lines[2], lines[4]):
        assert float(line[2]) + float(line[3]) == pytest.approx(1)
        assert line[1] == ("malignant" if float(line[3]) > 0.5 else "benign")
    assert "SESAME" not in (tmp_path / "scores.csv").read_text() + run.out + run.err
    assert (tmp_path / "scores.csv").stat().st_mode & 0o777 == 0o600

    assert run("predict", str(tabled), "new.csv") == 2
    assert run.out.replace("\r", "") == (tmp_path / "scores.csv").read_text()
    assert run("predict", str(tabled), "new.csv", "--json") == 2
    found = json.loads(run.out)
    assert (found["rows"], found["refused"]) == (5, 2)
    assert [row["predicted"] for row in found["scores"]] == [line[1] or None for line in lines]


def test_scores_keep_the_id_that_is_asked_for_of_refused_rows_too(run: Run, tabled: Path, tmp_path: Path) -> None:
    made = [[one, *row] for one, row in zip(["P-7", "", "007"], rows(3, seed=9), strict=True)]
    made[2][1] = "SESAME"
    write_table(tmp_path / "new.csv", made, ["patient, id", *HEADER])
    assert run("predict", str(tabled), "new.csv", "--id", "patient, id", "--out", "scores.csv") == 2
    with (tmp_path / "scores.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header[:3] == ["row", "id", "predicted"]
    assert {len(line) for line in lines} == {len(header)}
    assert [line[:2] for line in lines] == [["1", "P-7"], ["2", ""], ["3", "007"]]
    assert [bool(line[-1]) for line in lines] == [False, False, True]
    assert run("predict", str(tabled), "new.csv", "--id", "age", "--json") == 2
    assert [row["id"] for row in json.loads(run.out)["scores"]] == [row[1] for row in made]
    assert run("predict", str(tabled), "new.csv", "--id", "name") == 2
    assert "new.csv: column 'name' is missing" in run.err


def test_scores_are_written_over_nothing(run: Run, tabled: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "new.csv", rows(3, seed=1))
    before = table.read_bytes()
    assert run("predict", str(tabled), "new.csv", "--out", "new.csv") == 2
    assert "--out new.csv: is there already" in run.err
    assert table.read_bytes() == before


def test_a_tokenizer_that_no_column_is_read_by_is_refused(tabled: Path) -> None:
    with pytest.raises(ConfigError, match="--tokenizer belongs to a model whose text is read by one"):
        predict(read_model(tabled), tabled.parent / "held-out.csv", PLAIN, tokenizer=tabled.parent / "held-out.csv")


def test_a_threshold_moves_the_label_and_no_probability(tabled: Path) -> None:
    model, table = read_model(tabled), tabled.parent / "held-out.csv"
    plain, sharp = (predict(model, table, PLAIN, threshold) for threshold in (None, 0.2))
    assert np.array_equal(plain.probability_NK, sharp.probability_NK)
    assert np.array_equal(plain.predicted_N, plain.probability_NK[:, 1] > 0.5)
    assert np.array_equal(sharp.predicted_N, sharp.probability_NK[:, 1] > np.float32(0.2))
    assert plain.predicted_N.sum() < sharp.predicted_N.sum()


def test_a_csv_of_another_country_is_read(run: Run, tabled: Path, tmp_path: Path) -> None:
    text = "age;visits;smoker;stage\n50,5;5;true;II\n"
    (tmp_path / "new.csv").write_text(text, encoding="utf-16")
    how = ("--separator", ";", "--decimal", ",", "--encoding", "utf-16")
    found = run.json("predict", str(tabled), "new.csv", *how)
    write_table(tmp_path / "plain.csv", [["50.5", "5", "true", "II", ""]])
    assert found["scores"] == run.json("predict", str(tabled), "plain.csv")["scores"]
    (tmp_path / "new.csv").write_text(text.replace("true", "Ja"), encoding="utf-16")
    assert found["scores"] == run.json("predict", str(tabled), "new.csv", *how, "--yes", "ja", "--no", "nein")["scores"]
    assert run("predict", str(tabled), "new.csv", *how, "--yes", "ja") == 2
    assert run.err == "error: yes and no are given together: which words stand for true, and which for false\n"
    assert run("predict", str(tabled), "new.csv", "--separator", "#") == 2
    assert run.err.startswith("error: --separator: ")


def test_how_a_file_is_written_is_asked_for_where_rows_are_refused_for_it(
    run: Run, tabled: Path, tmp_path: Path
) -> None:
    (tmp_path / "new.csv").write_text("age;visits;smoker;stage\n50,5;5;Ja;II\n51;5;nein;II\n")
    words = "Words of the file that mean true and false are said by --yes WORD and --no WORD.\n"
    comma = "A decimal comma is said by --decimal ,\n"
    how: tuple[str, ...] = ("predict", str(tabled), "new.csv")
    assert run(*how) == 2
    assert run.err == (
        'error: new.csv: its header has no comma but semicolons; if they separate its fields, declare separator = ";"\n'
    )  # though a line that has a comma is of another length, for which alone it was refused
    how = (*how, "--separator", ";")
    assert run(*how) == 2
    assert words + comma in run.err
    assert run(*how, "--decimal", ",") == 2
    assert words in run.err
    assert comma not in run.err
    assert run(*how, "--yes", "ja", "--no", "nein") == 2
    assert comma in run.err
    assert words not in run.err
    assert run(*how, "--decimal", ",", "--yes", "ja", "--no", "nein") == 0
    assert "are said by" not in run.err + run.out


def test_the_description_follows_from_the_scenario_and_names_no_place_of_a_file(tabled: Path) -> None:
    scenario = read_scenario(str(tabled / "scenario.toml"))
    told = (tabled / DESCRIPTION).read_bytes()
    assert told == describe(scenario, scenario_hash(scenario)).written()
    found = json.loads(told)
    assert found["features"] == ["age", "visits", "smoker", "stage=I", "stage=II", "stage=III"]
    assert found["labels"] == ["benign", "malignant"]
    assert found["threshold"] == 0.5
    assert found["columns"][0]["range"] == [0.0, 100.0]
    assert found["columns"][3]["categories"] == ["I", "II", "III"]
    assert found["scenario_hash"] == scenario_hash(scenario).hex()
    assert str(tabled.parent) not in told.decode()


def test_a_run_of_before_is_described_by_its_scenario(tabled: Path, tmp_path: Path) -> None:
    old = copied(tabled, tmp_path / "old")
    (old / DESCRIPTION).unlink()
    assert read_model(old).description == read_model(tabled).description
    (old / "scenario.toml").unlink()
    with pytest.raises(ConfigError, match=r"model\.json: is missing, and says how records are read"):
        read_model(old)


def test_a_description_of_another_model_is_refused(tabled: Path, tmp_path: Path) -> None:
    given = moved(tabled, tmp_path / "given")
    document = json.loads((given / DESCRIPTION).read_text())
    for key, value, refused in (
        ("scenario_hash", "0" * 64, "describes a model of scenario 0000000000000000"),
        ("format", "fedmodel/v9/model", "does not describe a model: format"),
        ("features", ["age"], "does not describe a model: it"),
        ("nose", 1, "does not describe a model: nose"),
    ):
        (given / DESCRIPTION).write_text(json.dumps({**document, key: value}))
        with pytest.raises(ConfigError, match=refused):
            read_model(given)
    (given / DESCRIPTION).write_text("{")
    with pytest.raises(ConfigError, match="is no JSON"):
        read_model(given)


def test_a_changed_description_is_found_by_whoever_verifies_a_run(tabled: Path, tmp_path: Path) -> None:
    """It could turn labels around, or move a range, with the model and its countersignatures as they were."""
    changed = copied(tabled, tmp_path / "changed")
    document = json.loads((changed / DESCRIPTION).read_text())
    read_run(changed)
    (changed / DESCRIPTION).write_text(json.dumps({**document, "labels": document["labels"][::-1]}))
    assert read_description(changed / DESCRIPTION).labels == ("malignant", "benign")
    with pytest.raises(LedgerTampered, match="describes the model otherwise than scenario"):
        read_run(changed)


def test_a_sealed_model_is_opened_by_a_key_file(tabled: Path, tmp_path: Path) -> None:
    given, (secret, recipient) = moved(tabled, tmp_path / "given"), new_age_key()
    write_sealed(given / f"{MODEL}.age", (given / MODEL).read_bytes(), [recipient])
    (given / MODEL).unlink()
    (tmp_path / "key").write_text(secret)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(ConfigError, match="is sealed; name the age key file that opens it: --identity FILE"):
        read_model(given)
    opened, plain = read_model(given, tmp_path / "key"), read_model(tabled)
    assert (opened.sha256, opened.description) == (plain.sha256, plain.description)


def test_records_that_are_no_rows_of_a_table_are_refused_with_the_reason(tmp_path: Path, run: Run) -> None:
    folder = simulated(tmp_path, TINY, "rounds=1")
    assert run("predict", str(folder), "new.csv") == 2
    assert "a record of 'synthetic' is 4 numbers without names" in run.err


def test_a_model_is_used_without_flower_opacus_server_or_silo(tabled: Path, tmp_path: Path) -> None:
    """In a fresh process: what is imported is torch, numpy, pyarrow to read, and what reads a file of keys."""
    given = moved(tabled, tmp_path / "given")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from scenarios.models.predict import csv_form, predict\n"
        "from scenarios.models.trained import read_model\n"
        "predict(read_model(Path(sys.argv[1])), Path(sys.argv[2]), csv_form(',', '.', 'utf-8'))\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    command = [sys.executable, "-c", program, given, tabled.parent / "held-out.csv"]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert {"torch", "numpy", "pyarrow", "pydantic", "safetensors"} <= loaded
    assert not loaded & {"flwr", "opacus", "ray", "grpc", "server", "clients", "sklearn", "cryptography", "pyrage",
                         "sqlalchemy", "fastapi", "matplotlib", "dp_accounting"}  # fmt: skip


def test_a_model_is_left_in_evaluation_where_dropout_draws_nothing(tabled: Path) -> None:
    module = read_model(tabled).module
    assert not module.training
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())
