"""A column of text becomes tokens and a mask, alike from a file, a query and a cache; one's own model reads it."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmodel.config import CsvForm, Scenario, TableSource, read_scenario
from fedmodel.crypto.sealed import new_age_key, opener_from_secret
from fedmodel.data import Cache, Records, table_records
from fedmodel.data.findings import inspect
from fedmodel.data.tokens import coded, decoded
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds import own_code
from fedmodel.kinds.shape import ArrayShape
from fedmodel.kinds.sources.table import TableConfig
from scenarios.models.export import export
from scenarios.models.predict import predict
from scenarios.models.trained import read_model
from scenarios.simulation.prepared import prepare
from tests.conftest import TINY

NOTE = {"name": "note", "type": "text", "length": 6}
AGE = {"name": "age", "type": "float", "range": [0.0, 100.0]}
ROWS = [["naïve é!", "50", "home"], ["42", "100", "ward"], ["", "0", "home"]]
HEADER = ["note", "age", "outcome"]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    own_code.close()


def table(*columns: dict[str, Any], **more: Any) -> TableConfig:
    document = {"source": "table", "name": "notes", "label": "outcome", "labels": ["home", "ward"], "columns": columns}
    return TableConfig.model_validate(document | more)


def write(path: Path, rows: list[list[str]], header: list[str] = HEADER) -> TableSource:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return TableSource(csv=str(path))


def named(records: Records) -> dict[str, np.ndarray[Any, Any]]:
    assert isinstance(records.x, dict)
    return dict(records.x)


def test_text_is_its_first_bytes_and_a_mask_beside_what_other_columns_become(tmp_path: Path) -> None:
    config = table({**NOTE, "missing": "fill", "fill": ""}, AGE)
    found = named(table_records(config, write(tmp_path / "a.csv", ROWS)))
    assert list(found) == ["tokens", "mask", "features"] == list(config.shape.inputs or ())
    assert [(name, one.shape[1:], str(one.dtype)) for name, one in found.items()] == [
        ("tokens", (6,), "int64"),
        ("mask", (6,), "int64"),
        ("features", (1,), "float32"),
    ]
    assert found["tokens"].tolist() == coded(["naïve é!", "42", ""], 6).tolist()
    assert [decoded(one) for one in found["tokens"]] == ["naïve", "42", ""]
    assert found["mask"].sum(axis=1).tolist() == [6, 2, 0]
    assert found["features"][:, 0].tolist() == [0.0, 1.0, -1.0]
    alone = table({**NOTE, "missing": "drop"}, other_columns="ignore")
    assert alone.shape.inputs == {"tokens": ArrayShape((6,), 257), "mask": ArrayShape((6,), 2)}
    assert list(named(table_records(alone, write(tmp_path / "b.csv", ROWS)))) == ["tokens", "mask"]
    assert len(table_records(alone, write(tmp_path / "b.csv", ROWS))) == 2
    with pytest.raises(DataError, match="column 'note': a value is missing"):
        table_records(table(NOTE, AGE), write(tmp_path / "c.csv", ROWS))


def test_a_query_and_a_cache_give_the_records_that_a_file_does(tmp_path: Path) -> None:
    config = table({**NOTE, "missing": "fill", "fill": ""}, AGE)
    of_file = write(tmp_path / "a.csv", ROWS)
    base = sqlite3.connect(tmp_path / "a.db")
    base.execute("CREATE TABLE t (note TEXT, age REAL, outcome TEXT)")
    base.executemany("INSERT INTO t VALUES (?, ?, ?)", ROWS)
    base.commit()
    base.close()
    query = TableSource(url=f"sqlite:///{tmp_path / 'a.db'}", query="SELECT * FROM t")
    secret, recipient = new_age_key()
    cache = Cache(tmp_path / "cache", (recipient,), opener_from_secret(secret), "7")
    wanted = table_records(config, of_file)
    for found in (table_records(config, of_file, cache), table_records(config, of_file, cache)):
        assert all(np.array_equal(one, named(wanted)[name]) for name, one in named(found).items())
        assert np.array_equal(found.y_N, wanted.y_N)
    asked = named(table_records(config, query))
    assert sorted(asked["tokens"].tolist()) == sorted(named(wanted)["tokens"].tolist())


def test_data_check_reads_a_text_as_a_run_does(tmp_path: Path) -> None:
    good = inspect(table({**NOTE, "missing": "fill", "fill": ""}, AGE), write(tmp_path / "a.csv", ROWS))
    assert (good.refused, good.records) == (False, 3)
    assert next((line.declared, line.seen) for line in good.lines) == ("text", "text")
    wrong = inspect(table(NOTE, AGE), write(tmp_path / "b.csv", ROWS))
    assert wrong.refused
    assert [one.rows for one in wrong.found if one.refuses] == [(3,)]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ([{"name": "note", "type": "text"}], "length, of how many tokens, is given with a text, and only then"),
        ([{**AGE, "length": 3}], "length, of how many tokens, is given with a text, and only then"),
        ([NOTE, {**NOTE, "name": "more"}], "columns 'note' and 'more' are text; a table has one column of text"),
        ([{**NOTE, "categories": ["a", "b"]}], "categories are given with a category"),
        ([{**NOTE, "missing": "fill", "fill": 3}], "fill = 3 is no text of it"),
        ([{**NOTE, "range": [0.0, 1.0]}], "range, a public reference range, is given with a float or an integer"),
    ],
)  # fmt: skip
def test_a_text_that_could_be_read_two_ways_is_refused(columns: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        table(*columns)
    assert "length" not in table(AGE).model_dump_json()


MODEL = """
import torch
from torch import nn

class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(257, 4)
        self.out = nn.Linear(5, 1)

    def forward(self, tokens, mask, features):
        weight = mask[:, :, None].float()
        mean = (self.embed(tokens) * weight).sum(1) / weight.sum(1).clamp(min=1)
        return self.out(torch.cat([mean, features], 1))
"""


def test_a_model_of_ones_own_is_trained_on_text_and_scores_files_of_it(tmp_path: Path) -> None:
    (tmp_path / "reads.py").write_text(MODEL)
    for number, party in enumerate(("north", "south", "west", "held-out")):
        rows = [[("fine", "ill")[place % 2] + str(place), str(number * 10 + place), ("home", "ward")[place % 2]]
                for place in range(40)]  # fmt: skip
        write(tmp_path / f"{party}.csv", rows)
    text = TINY.partition("[data]")[0].replace('kind = "mlp"', 'use = "reads:Reader"') + (
        f'[data]\nsource = "table"\nname = "notes"\nfolder = "{tmp_path}"\nlabel = "outcome"\n'
        'labels = ["home", "ward"]\n[[data.columns]]\nname = "note"\ntype = "text"\nlength = 6\n'
        '[[data.columns]]\nname = "age"\ntype = "float"\nrange = [0.0, 100.0]\n'
    )
    (tmp_path / "s.toml").write_text(text)
    prepared = prepare(tmp_path / "s.toml", (), "in-process", "cpu", tmp_path / "run")
    with prepared.held() as folder:
        summary = prepared.run(folder, nullcontext())
    scores = predict(read_model(folder), tmp_path / "held-out.csv", CsvForm())
    truth = np.arange(40) % 2
    assert (scores.predicted_N == truth).mean() == pytest.approx(summary["metrics"]["accuracy"])
    assert json.loads((folder / "model.json").read_text())["columns"][0]["length"] == 6
    with pytest.raises(ConfigError, match="takes several arrays, tokens, mask, features, and torch is of one array of"):
        export(folder, "torch", tmp_path / "out", None, None, CsvForm())
    made = export(folder, "safetensors", tmp_path / "made", None, tmp_path / "held-out.csv", CsvForm())
    assert (made.records, made.differs) == (40, 0)
    on_board = Scenario.model_validate(prepared.scenario.model_dump() | {"model": {"kind": "mlp"}})
    with pytest.raises(ConfigError, match="these are several arrays, tokens, mask, features; name a model of your own"):
        on_board.model.build(on_board.data.shape)
    assert read_scenario(str(folder / "scenario.toml")) == prepared.scenario
