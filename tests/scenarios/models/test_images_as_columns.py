"""A table whose columns are an image's pixels: put into its shape, and so trained on, measured, scored and exported."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets

from fedmodel.config import CsvForm, Scenario, TableSource, read_scenario
from fedmodel.crypto.sealed import new_age_key, opener_from_secret
from fedmodel.data import Cache, held_out_records, table_records
from fedmodel.errors import ConfigError
from fedmodel.kinds.sources.table import TableConfig
from scenarios.models.export import export
from scenarios.models.predict import predict
from scenarios.models.trained import read_model
from tests.runs import simulated

PLAIN = CsvForm()
PARTIES = ("north", "south", "west", "held-out")
HEAD = """
name = "pixels"
summary = "images whose pixels are columns"
rounds = 3
seed = 1
[federation]
silos = ["north", "south", "west"]
min_silos = 2
[model]
kind = "cnn"
channels = [4]
[training]
loss = "cross-entropy"
optimizer = "sgd"
learning_rate = 1.0
local_steps = 2
[privacy]
unit = "record"
epsilon = 8.0
delta = 1e-3
max_grad_norm = 1.0
sample_rate = 1.0
expected_batch_size = 40
[data]
source = "table"
name = "images"
folder = "FOLDER"
label = "digit"
labels = ["zero", "one", "two"]
feature_shape = SHAPE
"""


def write(folder: Path, shape: list[int], high: float) -> str:
    """Write a table of images for each party, three digits of 8x8 in the midst of what is black, and the scenario."""
    x, y = datasets.load_digits(return_X_y=True)
    x, y = x[y < 3].reshape(-1, 8, 8), y[y < 3]
    image = np.zeros((len(x), *shape))
    image[:, :, :8, :8] = x[:, None] * (high / 16)
    rows = image.reshape(len(x), -1)
    names = [f"pixel{number}" for number in range(rows.shape[1])]
    for number, party in enumerate(PARTIES):
        with (folder / f"{party}.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow([*names, "digit"])
            for row, label in list(zip(rows, y, strict=True))[number * 50 : number * 50 + 50]:
                lines.writerow([*(f"{value:g}" for value in row), ("zero", "one", "two")[label]])
    columns = "".join(f'[[data.columns]]\nname = "{name}"\ntype = "float"\nrange = [0.0, {high}]\n' for name in names)
    return HEAD.replace("FOLDER", str(folder)).replace("SHAPE", str(shape)) + columns


@pytest.mark.parametrize(("shape", "high"), [([1, 28, 28], 255.0), ([2, 8, 8], 16.0)])
def test_columns_that_are_pixels_are_trained_on_as_images_and_scored_as_rows(
    shape: list[int], high: float, tmp_path: Path
) -> None:
    folder = simulated(tmp_path, write(tmp_path, shape, high))
    scenario = read_scenario(str(folder / "scenario.toml"))
    assert held_out_records(scenario).x_NF.shape == (50, *shape)
    told = json.loads((folder / "summary.json").read_text())["metrics"]
    model = read_model(folder)
    scores = predict(model, tmp_path / "held-out.csv", PLAIN)
    truth = held_out_records(scenario).y_N
    assert (scores.predicted_N == truth).mean() == pytest.approx(told["accuracy"])
    exported = export(folder, "torch", tmp_path / "out", None, tmp_path / "held-out.csv", PLAIN)
    assert exported.records == 50
    assert f"shape {'x'.join(map(str, shape))}" in (exported.folder / "README.md").read_text()


def table(shape: object, **changes: object) -> Scenario:
    columns = [{"name": f"p{number}", "type": "float", "range": [0.0, 1.0]} for number in range(8)]
    data = {"name": "images", "label": "digit", "labels": ["zero", "one"], "columns": columns, "feature_shape": shape}
    document = read_scenario("hospitals").model_dump(mode="json", exclude_none=True)
    return Scenario.model_validate(document | {"data": {"source": "table", **data, **changes}})


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ([1, 3, 3], r"feature_shape = \[1, 3, 3\] has 9 places, and the columns become 8 features"),
        ([8, 0], "greater than or equal to 1"),
        ([], "at least 1 item"),
        ([1, 1, 1, 1, 8], "at most 4 items"),
    ],
)
def test_a_shape_that_the_columns_do_not_fill_is_refused(shape: list[int], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        table(shape)


def test_a_scenario_that_says_no_shape_has_the_text_that_it_had() -> None:
    assert "feature_shape" not in table(None).model_dump_json()
    assert table(None).data.shape.features == (8,)
    assert table([2, 2, 2]).data.shape.features == (2, 2, 2)
    with pytest.raises(ConfigError, match=r'model.kind = "cnn" needs images; this source has records of shape \(8,\)'):
        read_scenario("digits").model.build(table(None).data.shape)


def test_pixels_are_in_the_columns_order_from_a_file_a_query_and_a_cache(tmp_path: Path) -> None:
    import sqlite3

    config = table([2, 2, 2]).data
    assert isinstance(config, TableConfig)
    rows = [[*(number / 8 for number in range(8)), "zero"], [*(0.5 for _ in range(8)), "one"]]
    names = [*(f"p{number}" for number in range(8)), "digit"]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    base = sqlite3.connect(tmp_path / "a.db")
    base.execute(f"CREATE TABLE t ({', '.join(names)})")
    base.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    base.commit()
    base.close()
    secret, recipient = new_age_key()
    cache = Cache(tmp_path / "cache", (recipient,), opener_from_secret(secret), "7")
    of_file = TableSource(csv=str(tmp_path / "a.csv"))
    query = TableSource(url=f"sqlite:///{tmp_path / 'a.db'}", query="SELECT * FROM t")
    expected = (np.arange(8) / 8 * 2 - 1).reshape(2, 2, 2)
    for source, kept in ((of_file, None), (query, None), (of_file, cache), (of_file, cache)):
        found = table_records(config, source, kept)
        assert found.x_NF.shape == (2, 2, 2, 2)
        assert np.allclose(found.x_NF[found.y_N == 0][0], expected)
    none = tmp_path / "none.csv"
    none.write_text(",".join(names) + "\n")
    assert table_records(config, TableSource(csv=str(none))).x_NF.shape == (0, 2, 2, 2)
