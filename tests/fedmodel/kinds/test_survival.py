"""A target says an interval and whether the event was seen in it, the same of a table as of the set on board."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from fedmodel.config import TableSource
from fedmodel.data import table_records
from fedmodel.kinds.sources.metabric import MetabricConfig, times
from fedmodel.kinds.sources.table import TableConfig
from fedmodel.kinds.survival import targets

ENDS = (24.0, 60.0, 120.0)


def test_a_target_is_of_the_interval_that_a_time_begins_at_or_lies_in() -> None:
    time_N = np.array([0.0, 23.99, 24.0, 59.0, 60.0, 119.9, 120.0, 1e8])
    events, none = targets(time_N, np.ones(8, np.int64), ENDS), targets(time_N, np.zeros(8, np.int64), ENDS)
    assert events.tolist() == [1, 1, 3, 3, 5, 5, 6, 6]
    assert none.tolist() == [0, 0, 2, 2, 4, 4, 6, 6]
    assert events.dtype == np.int64


def test_a_table_of_the_rows_on_board_has_their_targets_and_features(tmp_path: Path) -> None:
    said = {"source": "metabric", "held_out": 0.25, "ends": ENDS, "reference_range": (0.0, 100.0)}
    patients = MetabricConfig.model_validate(said)
    raw_NF, target_N = patients.load(0)
    columns = [{"name": name, "type": "float", "range": [0.0, 100.0]} for name in patients.shape.names]
    config = TableConfig.model_validate({
        "source": "table", "name": "registry", "columns": columns,
        "label": "died", "time": "months", "ends": ENDS, "time_unit": "months",
    })  # fmt: skip
    with (tmp_path / "registry.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow([*patients.shape.names, "months", "died"])
        rows = zip(raw_NF.tolist(), *(one.tolist() for one in times()), strict=True)
        lines.writerows([*row, months, seen] for row, months, seen in rows)
    records = table_records(config, TableSource(csv=str(tmp_path / "registry.csv")))
    assert np.array_equal(records.y_N, target_N)
    assert np.allclose(records.x_NF, raw_NF / 50 - 1, atol=1e-6)
    assert config.shape == patients.shape
