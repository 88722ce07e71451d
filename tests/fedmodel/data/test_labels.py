"""A label that is a number in a public range, and several that are true or false, become targets of one record each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmodel.config import Scenario, read_scenario
from fedmodel.crypto.sealed import new_age_key, opener_from_secret
from fedmodel.data import Cache, table_records
from fedmodel.data.findings import inspect
from fedmodel.errors import DataError
from fedmodel.kinds.shape import ArrayShape
from fedmodel.kinds.sources.table import TableConfig
from tests.fedmodel.data.test_tables import ROWS, table_of, write

HEADER = ["age", "visits", "smoker", "stage"]


def numbers(**more: Any) -> TableConfig:
    return table_of(**{"label": "creatinine", "labels": [], "label_range": [40.0, 120.0], **more})


def several(**more: Any) -> TableConfig:
    return table_of(**{"label": ["dead", "ill"], "labels": [], **more})


def labelled(path: Path, names: list[str], *values: list[str]) -> Any:
    return write(path, [[*ROWS[0][:4], *one] for one in values], [*HEADER, *names])


def test_a_number_is_mapped_from_its_range_and_bounded_to_it(tmp_path: Path) -> None:
    source = labelled(tmp_path / "a.csv", ["creatinine"], ["40"], ["80.0"], ["120"], ["1e9"], ["-5"], ["90"])
    records = table_records(numbers(), source)
    assert records.y_N.tolist() == [-1, 0, 1, 1, -1, 0.25]
    assert records.y_N.dtype == np.float32
    shape = numbers().shape
    assert (shape.task, shape.target, shape.target_range, shape.outputs) == (
        "regression", ArrayShape(()), (40.0, 120.0), 1
    )  # fmt: skip


def test_several_columns_are_a_row_of_truths(tmp_path: Path) -> None:
    source = labelled(tmp_path / "a.csv", ["dead", "ill"], ["true", "0"], ["false", "1"], ["1", "1.0"])
    records = table_records(several(), source)
    assert records.y_N.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert records.y_N.dtype == np.int64
    shape = several().shape
    assert (shape.task, shape.outputs, shape.labels, shape.target) == (
        "multi-label", 2, ("dead", "ill"), ArrayShape((2,), 2)
    )  # fmt: skip
    assert several().predicted is None


@pytest.mark.parametrize(
    ("config", "names", "value", "words"),
    [
        (numbers(), ["creatinine"], [""], "column 'creatinine': a value is missing; leave such records out"),
        (numbers(), ["creatinine"], ["high"], "column 'creatinine': "),
        (numbers(), ["creatinine"], ["inf"], "column 'creatinine': "),
        (numbers(), ["creatinine"], ["nan"], "column 'creatinine': "),
        (several(), ["dead", "ill"], ["true", ""], "column 'ill': a value is missing; leave such records out"),
        (several(), ["dead", "ill"], ["2", "true"], "column 'dead': "),
    ],
)
def test_what_is_no_label_refuses_the_table_and_is_found(
    config: TableConfig, names: list[str], value: list[str], words: str, tmp_path: Path
) -> None:
    good = ["50"] if len(names) == 1 else ["true", "false"]
    source = labelled(tmp_path / "a.csv", names, good, value)
    with pytest.raises(DataError, match=words) as refused:
        table_records(config, source)
    assert "high" not in str(refused.value)
    found = inspect(config, source)
    assert found.refused
    assert {one.column for one in found.found} <= set(names)


def test_a_check_counts_what_lies_outside_of_the_range_which_no_run_refuses(tmp_path: Path) -> None:
    source = labelled(tmp_path / "a.csv", ["creatinine"], ["30"], ["80"], ["500"])
    found = inspect(numbers(), source)
    assert not found.refused
    (line,) = (one for one in found.lines if one.column == "creatinine")
    assert (line.declared, line.outside, line.refused) == ("label", 2, 0)


@pytest.mark.parametrize(
    ("config", "names", "values"),
    [(numbers(), ["creatinine"], [["50"], ["77.7"]]), (several(), ["dead", "ill"], [["1", "0"], ["0", "0"]])],
)
def test_targets_come_back_from_the_cache_as_they_were(
    config: TableConfig, names: list[str], values: list[list[str]], tmp_path: Path
) -> None:
    secret, recipient = new_age_key()
    cache = Cache(tmp_path / "cache", (recipient,), opener_from_secret(secret), "7")
    source = labelled(tmp_path / "a.csv", names, *values)
    read, kept = table_records(config, source, cache), table_records(config, source, cache)
    assert np.array_equal(read.y_N, kept.y_N)
    assert read.y_N.dtype == kept.y_N.dtype
    assert read.y_N.shape == kept.y_N.shape
    assert np.array_equal(read.x_NF, kept.x_NF)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": []}, "label_range, the public range of a number"),
        ({"label_range": [1.0, 2.0]}, "leave the others out"),
        ({"label": ["a", "b"]}, "leave the others out"),
        ({"label": ["a", "b"], "labels": [], "label_range": [1.0, 2.0]}, "leave the others out"),
        ({"label": ["a"], "labels": []}, "names two columns at least"),
        ({"label": ["a", "a"], "labels": []}, "'a' is named twice"),
        ({"labels": [], "label_range": [2.0, 2.0]}, "label_range must rise"),
        ({"labels": [], "label_range": [2.0, 3.0], "unknown_label": "drop"}, "unknown_label is given with labels"),
        ({"label": "age"}, "column 'age' is the label, and a feature too"),
        ({"label": ["b", "smoker"], "labels": []}, "column 'smoker' is the label, and a feature too"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        table_of(**changes)


def test_a_table_of_classes_is_written_as_before_there_were_others() -> None:
    text = table_of().model_dump_json()
    assert "label_range" not in text
    assert '"label":"outcome"' in text
    for config in (numbers(), several()):
        document = read_scenario("hospitals").model_dump(mode="json", exclude_none=True)
        scenario = Scenario.model_validate(document | {"data": config.model_dump(mode="json")})
        assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario
