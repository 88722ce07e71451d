"""Rows to be scored: read as a silo's table is, each by itself, and refused by number without a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fedmodel.config import CsvForm
from fedmodel.data import rows as module
from fedmodel.data import table_records
from fedmodel.data.rows import Rows, read_rows
from fedmodel.errors import DataError
from tests.fedmodel.data.test_tables import HEADER, ROWS, changed, table_of, write

PLAIN = CsvForm()


def read(path: Path, columns: list[dict[str, Any]] | None = None, form: CsvForm = PLAIN) -> Rows:
    config = table_of(columns)
    return read_rows(path, config.columns, config.feature_bound, form)


def test_rows_become_what_a_silos_records_become(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", ROWS)
    rows = read(tmp_path / "a.csv")
    assert np.array_equal(rows.x_NF, table_records(table_of(), source).x_NF)
    assert rows.refused == {}
    assert rows.x_NF.dtype == np.float32


def test_neither_a_label_nor_an_order_is_needed_and_other_columns_are_not_looked_at(tmp_path: Path) -> None:
    """A column that nobody declared is numbers for a megabyte and text then, which breaks nothing."""
    header = ["note", "stage", "smoker", "visits", "age"]
    rows = [["7" * 60, "II", "true", "5", "50"]] * 20_000 + [["7 of 9", "II", "true", "5", "50"]]
    write(tmp_path / "a.csv", rows, header)
    found = read(tmp_path / "a.csv")
    assert found.refused == {}
    assert np.array_equal(found.x_NF, np.tile(np.float32([0.0, 0.0, 1.0, 0.0, 1.0, 0.0]), (20_001, 1)))


def test_a_row_is_refused_by_number_and_rule_and_the_others_are_read(tmp_path: Path) -> None:
    broken = [
        (["SESAME", *ROWS[0][1:]], "column 'age': a value is not a number"),
        (["121.5", *ROWS[0][1:]], "column 'age': a value is outside its declared limits [0.0, 120.0]"),
        (["50", "5.25", *ROWS[0][2:]], "column 'visits': a value is not a whole number"),
        (["50", "5", "SESAME", *ROWS[0][3:]], "column 'smoker': a value is neither true nor false"),
        ([*ROWS[0][:3], "SESAME", "x"], "column 'stage': a value is none of the declared categories: I, II, III"),
        (["", *ROWS[0][1:]], "column 'age': a value is missing"),
        (["SESAME", "SESAME", *ROWS[0][2:]], "column 'age': a value is not a number"),  # the first column's rule
    ]
    rows = [line for row, _ in broken for line in (ROWS[1], row)]
    write(tmp_path / "a.csv", [*rows, ROWS[0]])
    found = read(tmp_path / "a.csv")
    assert found.refused == {2 * place + 1: rule for place, (_, rule) in enumerate(broken)}
    kept = [row for row in range(len(found.x_NF)) if row not in found.refused]
    alone = table_records(table_of(), write(tmp_path / "b.csv", [*[ROWS[1]] * len(broken), ROWS[0]]))
    assert np.array_equal(found.x_NF[kept], alone.x_NF)


def test_a_row_that_a_silo_would_leave_out_is_refused(tmp_path: Path) -> None:
    left = "and such records were left out of training"
    for columns, row, rule in (
        (changed("age", missing="drop"), ["", *ROWS[0][1:]], f"column 'age': a value is missing, {left}"),
        (
            changed("stage", unknown="drop"),
            [*ROWS[0][:3], "IV", "benign"],
            f"column 'stage': a value is missing or is none of its categories, {left}",
        ),
    ):
        write(tmp_path / "a.csv", [ROWS[1], row])
        assert read(tmp_path / "a.csv", columns).refused == {1: rule}
    write(tmp_path / "a.csv", [[*ROWS[0][:3], "IV", "benign"]])
    other = read(tmp_path / "a.csv", changed("stage", unknown="other", other="III"))
    assert (other.refused, other.x_NF[0, 3:].tolist()) == ({}, [0.0, 0.0, 1.0])


VALUES = st.tuples(
    st.sampled_from(["50", "", "121", "x", "1e999", "+7"]),
    st.sampled_from(["5", "5.0", "5.5", "", "nan"]),
    st.sampled_from(["true", "0", "yes", ""]),
    st.sampled_from(["I", "III ", "IV", ""]),
)


@given(rows=st.lists(VALUES, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_row_is_read_or_refused_as_it_would_be_alone(rows: list[tuple[str, ...]], tmp_path: Path) -> None:
    write(tmp_path / "all.csv", [[*row, "benign"] for row in rows])
    whole = read(tmp_path / "all.csv")
    for place, row in enumerate(rows):
        write(tmp_path / "one.csv", [[*row, "benign"]])
        alone = read(tmp_path / "one.csv")
        assert alone.refused.get(0) == whole.refused.get(place)
        if not alone.refused:
            assert np.array_equal(alone.x_NF[0], whole.x_NF[place])


def test_a_file_is_refused_whole_by_what_is_no_single_rows(tmp_path: Path) -> None:
    for rows, header, form, rule in (
        (ROWS, ["Age", *HEADER[1:]], PLAIN, "column 'age' is missing; .*differs in case"),
        ([[*row, row[0]] for row in ROWS], [*HEADER, "age"], PLAIN, "column 'age' is there twice"),
        (ROWS, HEADER, CsvForm(separator=";"), "has no semicolon but commas"),
        ([[*ROWS[0], "more"]], HEADER, PLAIN, "is not CSV in UTF-8"),
    ):
        write(tmp_path / "a.csv", rows, header)
        with pytest.raises(DataError, match=rule):
            read(tmp_path / "a.csv", form=form)
    parquet.write_table(pa.table({**{key: ["1"] for key in HEADER}, "age": [[50.0]]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: column 'age': its values are of type list"):
        read(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no\.csv: cannot be read: No such file"):
        read(tmp_path / "no.csv")


def test_a_file_of_which_too_many_rows_are_refused_is_refused_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_REFUSED", 2)
    bad = ["SESAME", *ROWS[0][1:]]
    write(tmp_path / "a.csv", [ROWS[1], bad, bad])
    assert list(read(tmp_path / "a.csv").refused) == [1, 2]
    write(tmp_path / "a.csv", [ROWS[1], bad, bad, bad])
    with pytest.raises(DataError, match="column 'age': more than 2 rows are refused; the first is row 2: a value"):
        read(tmp_path / "a.csv")


def test_a_header_alone_is_no_row_and_no_error(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [])
    assert read(tmp_path / "a.csv").x_NF.shape == (0, 6)


def test_what_is_shown_of_rows_is_not_what_is_in_them() -> None:
    assert repr(Rows(np.float32([[4711.0]]), {})) == "Rows(...)"
