"""Numbers in a public range, several truths, and times until an event become targets, each of its own record alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmodel.config import Scenario, TableSource, read_scenario
from fedmodel.crypto.sealed import new_age_key, opener_from_secret
from fedmodel.data import Cache, table_records
from fedmodel.data.findings import inspect
from fedmodel.data.fixing import proposed
from fedmodel.errors import DataError
from fedmodel.kinds.shape import ArrayShape
from fedmodel.kinds.sources.table import TableConfig
from tests.fedmodel.data.test_tables import ROWS, table_of, write

HEADER = ["age", "visits", "smoker", "stage"]


def numbers(**more: Any) -> TableConfig:
    return table_of(**{"label": "creatinine", "labels": [], "label_range": [40.0, 120.0], **more})


def several(**more: Any) -> TableConfig:
    return table_of(**{"label": ["dead", "ill"], "labels": [], **more})


def survival(**more: Any) -> TableConfig:
    timed = {"time": "months", "ends": [12, 24.0, 60.0], "time_unit": "months"}
    return table_of(**{"label": "died", "labels": [], **timed, **more})


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


# Months, whether the event ended them, and the target: at an end of the interval after it, and never past the last.
TIMED = [
    ("0", "1", 1), ("0.0", "0", 0), ("11.99", "true", 1), ("12", "TRUE", 3), ("12.0", "false", 2), ("23.9", "1.0", 3),
    ("24", "0", 4), ("59.999", "1", 5), ("60", "1", 6), ("60.0", "0", 6), ("1e3", "true", 6), ("-0.0", "1", 1),
]  # fmt: skip


def test_a_time_and_whether_the_event_ended_it_are_one_number_of_that_records_interval(tmp_path: Path) -> None:
    source = labelled(tmp_path / "a.csv", ["months", "died"], *([time, event] for time, event, _ in TIMED))
    records = table_records(survival(), source)
    assert records.y_N.tolist() == [target for *_, target in TIMED]
    assert records.y_N.dtype == np.int64
    shape = survival().shape
    assert (shape.task, shape.outputs, shape.target, shape.ends, shape.time_unit) == (
        "survival", 3, ArrayShape((), 7), (12.0, 24.0, 60.0), "months"
    )  # fmt: skip
    assert survival().predicted == "died"


def test_a_record_more_or_less_changes_no_others_target(tmp_path: Path) -> None:
    rows = [[time, event] for time, event, _ in TIMED]
    for place in range(len(rows)):
        left = [*rows[:place], *rows[place + 1 :]]
        records = table_records(survival(), labelled(tmp_path / f"{place}.csv", ["months", "died"], *left))
        assert records.y_N.tolist() == [target for at, (*_, target) in enumerate(TIMED) if at != place]


def test_what_stands_for_an_event_is_declared_or_is_the_silos_own_word(tmp_path: Path) -> None:
    coded = labelled(tmp_path / "coded.csv", ["months", "died"], ["5", "1"], ["5", "2.0"], ["90", " 2 "], ["30", "9"])
    assert table_records(survival(labels=["1", "2"], unknown_label="drop"), coded).y_N.tolist() == [0, 1, 6]
    with pytest.raises(DataError, match="a value is none of the declared labels: 1, 2"):
        table_records(survival(labels=["1", "2"]), coded)
    said = labelled(tmp_path / "said.csv", ["months", "died"], ["5", "Deceased"], ["5", "alive"])
    words = said.model_copy(update={"yes": ("deceased",), "no": ("alive",)})
    assert table_records(survival(), words).y_N.tolist() == [1, 0]
    assert not inspect(survival(), words).refused
    assert [(one.column, one.declared) for one in inspect(survival(), words).lines][-2:] == [
        ("died", "label"), ("months", "time")
    ]  # fmt: skip


def test_a_check_proposes_what_reads_times_and_words_of_another_country(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("age;visits;smoker;stage;months;died\n50;5;true;II;7,5;ja\n50;5;true;II;80;nein\n")
    source = TableSource(csv=str(tmp_path / "a.csv"))
    found = proposed(survival(), source)
    assert found == {"separator": ";", "decimal": ",", "yes": ("ja",), "no": ("nein",)}
    assert table_records(survival(), source.model_copy(update=found)).y_N.tolist() == [1, 6]


@pytest.mark.parametrize(
    ("config", "names", "value", "words"),
    [
        (numbers(), ["creatinine"], [""], "column 'creatinine': a value is missing; leave such records out"),
        (numbers(), ["creatinine"], ["high"], "column 'creatinine': "),
        (numbers(), ["creatinine"], ["inf"], "column 'creatinine': "),
        (numbers(), ["creatinine"], ["nan"], "column 'creatinine': "),
        (several(), ["dead", "ill"], ["true", ""], "column 'ill': a value is missing; leave such records out"),
        (several(), ["dead", "ill"], ["2", "true"], "column 'dead': "),
        (survival(), ["months", "died"], ["", "1"], "column 'months': a value is missing; leave such records out"),
        (survival(), ["months", "died"], ["-0.5", "1"], "column 'months': a time is below 0; count it from when"),
        (survival(), ["months", "died"], ["nan", "1"], "column 'months': "),
        (survival(), ["months", "died"], ["inf", "0"], "column 'months': "),
        (survival(), ["months", "died"], ["high", "1"], "column 'months': a value is not a number"),
        (survival(), ["months", "died"], ["3", ""], "column 'died': a value is missing; leave such records out"),
        (survival(), ["months", "died"], ["3", "2"], "column 'died': a value is neither true nor false"),
        (survival(), ["months", "died"], ["3", "departed"], "column 'died': a value is neither true nor false"),
        (survival(labels=["1", "2"]), ["months", "died"], ["3", ""], "column 'died': a value is missing"),
    ],
)
def test_what_is_no_label_refuses_the_table_and_is_found(
    config: TableConfig, names: list[str], value: list[str], words: str, tmp_path: Path
) -> None:
    good = {1: ["50"], 2: ["5", config.labels[0] if config.labels else "0"] if config.time else ["true", "false"]}
    source = labelled(tmp_path / "a.csv", names, good[len(names)], value)
    with pytest.raises(DataError, match=words) as refused:
        table_records(config, source)
    assert not any(one in str(refused.value) for one in ("high", "-0.5", "departed", "row", "line"))
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
    [
        (numbers(), ["creatinine"], [["50"], ["77.7"]]),
        (several(), ["dead", "ill"], [["1", "0"], ["0", "0"]]),
        (survival(), ["months", "died"], [["13", "1"], ["99", "0"]]),
    ],
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


TIME: dict[str, Any] = {"labels": [], "time": "months", "ends": [12.0, 24.0], "time_unit": "months"}


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
        ({"time": "months"}, "time, the column of how long each was looked at, ends and time_unit are given together"),
        ({"ends": [1.0, 2.0]}, "are given together"),
        ({"time_unit": "months"}, "are given together"),
        ({**TIME, "time_unit": None}, "are given together"),
        ({**TIME, "ends": [2.0]}, "ends are two at least and rise"),
        ({**TIME, "ends": []}, "ends are two at least and rise"),
        ({**TIME, "ends": [2.0, 2.0]}, "ends are two at least and rise"),
        ({**TIME, "ends": [0.0, 2.0]}, "greater than 0"),
        ({**TIME, "ends": [1.0, float("nan")]}, "finite number"),
        ({**TIME, "ends": [1.0, float("inf")]}, "finite number"),
        ({**TIME, "ends": [1.0, "2"]}, "valid number"),
        ({**TIME, "label": ["a", "b"]}, "with time, label is the one column of whether the event ended it"),
        ({**TIME, "label_range": [1.0, 2.0]}, "with time, label is the one column"),
        ({**TIME, "labels": ["a", "b", "c"]}, "with time, label is the one column"),
        ({**TIME, "labels": ["a"]}, "needs label"),
        ({**TIME, "unknown_label": "drop"}, "unknown_label is given with labels"),
        ({**TIME, "time": "age"}, "column 'age' is the label, and a feature too"),
        ({**TIME, "time": "outcome"}, "column 'outcome' is named twice"),
        ({**TIME, "person": "months"}, "column 'months' is named twice"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        table_of(**changes)


def test_a_table_of_classes_is_written_as_before_there_were_others() -> None:
    text = table_of().model_dump_json()
    assert not any(key in text for key in ("label_range", '"time', '"ends"'))
    assert '"label":"outcome"' in text
    for config in (numbers(), several(), survival(), survival(labels=["1", "2"])):
        document = read_scenario("hospitals").model_dump(mode="json", exclude_none=True)
        scenario = Scenario.model_validate(document | {"data": config.model_dump(mode="json")})
        assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario
