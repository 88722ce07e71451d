"""What a run would find in a table: all of it at once, by the same reader, refused if and only if a run refuses it."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fedmodel.config import PersonColumn, TableSource
from fedmodel.data import findings as module
from fedmodel.data import table_records
from fedmodel.data.columnwise import MOST_VALUES
from fedmodel.data.findings import Findings, inspect
from fedmodel.data.fixing import proposed
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.sources.table import TableConfig
from tests.fedmodel.data.test_tables import COLUMNS, HEADER, ROWS, changed, table_of, typed, write, written

ODD = [
    ["50", "5", "ja", "II", "benign"],
    ["200", "x", "nein", "ii", "Malignant"],
    ["", "6.5", "ja", "IV", ""],
    ["61", "7", "true", "I", "benign"],
]


def refuses(config: TableConfig, source: TableSource) -> bool:
    try:
        table_records(config, source)
    except DataError:
        return True
    return False


def told(found: Findings) -> list[tuple[str | None, str, tuple[int, ...]]]:
    return [(one.column, one.what, one.rows) for one in found.found]


def test_everything_is_said_at_once_with_rows_values_and_what_settles_it(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", [[*row, "2024-01-31"] for row in ODD], [*HEADER, "admitted"])
    found = inspect(table_of(), source)
    assert told(found) == [
        (None, "columns that are not declared by the scenario: 1", ()),
        ("age", "a value is outside its declared limits [0.0, 120.0]", (2,)),
        ("age", "a value is missing", (3,)),
        ("visits", "a value is not a whole number", (2, 3)),
        ("smoker", "a value is neither true nor false", (1, 2, 3)),
        (
            "stage",
            "a value is none of the declared categories: I, II, III; in another spelling, some may be II",
            (2, 3),
        ),
        (
            "outcome",
            "a value is none of the declared labels: benign, malignant; in another spelling, some may be malignant",
            (2,),
        ),
        ("outcome", "a value is missing", (3,)),
    ]
    assert [one.values for one in found.found][:4] == [("admitted",), ("200",), (), ("x", "6.5")]
    settled = [one.settled_by for one in found.found]
    for words, said in zip(
        ("leave_out under [tables.admissions]", "limits", "missing =", 'type = "float"', "yes and no under [tables.a",
         "categories, or unknown", "data.labels, or data.unknown_label", "leave such records out of the source"),
        settled, strict=True,
    ):  # fmt: skip
        assert words in said
    lines = {line.column: line for line in found.lines}
    assert (lines["age"].declared, lines["age"].seen, lines["age"].missing, lines["age"].refused) == (
        "float",
        "numbers",
        1,
        2,
    )
    assert (lines["smoker"].seen, lines["smoker"].refused) == ("yes and no", 3)
    assert (found.rows, found.records, found.refused) == (4, 1, True)


VALUES = {
    "age": ["50", "", "200", "1e400", "12,5", "NA", " 7 ", "age"],
    "visits": ["5", "5.0", "5.5", "", "99999999999999999999"],
    "smoker": ["true", "0", "ja", ""],
    "stage": ["II", "ii", "", "II "],
    "outcome": ["benign", "Benign", ""],
}
RULES: list[dict[str, Any]] = [
    {},
    {"columns": [{**one, "missing": "drop"} for one in changed("stage", unknown="drop")], "unknown_label": "drop"},
]


@pytest.mark.parametrize("kind", ["csv", "parquet", "query"])
def test_a_table_is_refused_if_and_only_if_a_run_refuses_it_and_has_a_runs_records(kind: str, tmp_path: Path) -> None:
    plain = dict(zip(HEADER, ROWS[0], strict=True))
    tables = [[{**plain, name: value}, plain] for name, values in VALUES.items() for value in values]
    for number, (rows, rule) in enumerate(itertools.product(tables, RULES)):
        source = laid(tmp_path, f"t{number}", kind, rows)
        config = table_of(**rule)
        found = inspect(config, source)
        assert found.refused == refuses(config, source), (rows[0], rule, told(found))
        if not found.refused:
            assert found.records == len(table_records(config, source)), rows[0]
        else:
            assert found.records == 1
            assert [one.rows for one in found.found] == [(1,)], told(found)


def laid(folder: Path, name: str, kind: str, rows: list[dict[str, str]]) -> TableSource:
    """Lay rows down as a CSV, as Parquet, or in a database; a value that is empty is missing."""
    if kind == "csv":
        return write(folder / f"{name}.csv", [[row[key] for key in HEADER] for row in rows])
    columns = {key: [row[key] or None for row in rows] for key in HEADER}
    if kind == "parquet":
        return written(folder / f"{name}.parquet", {key: pa.array(some, pa.string()) for key, some in columns.items()})
    with sqlite3.connect(folder / "all.sqlite") as connection:
        connection.execute(f"CREATE TABLE {name} ({', '.join(HEADER)})")
        connection.executemany(f"INSERT INTO {name} VALUES (?, ?, ?, ?, ?)", list(zip(*columns.values(), strict=True)))  # noqa: S608
    connection.close()
    return TableSource(url=f"sqlite:///{folder / 'all.sqlite'}", query=f"SELECT * FROM {name}")  # noqa: S608


def test_what_the_run_alone_refuses_is_a_finding_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise DataError("changed while it was read")

    source = write(tmp_path / "a.csv", ROWS)
    assert not inspect(table_of(), source).refused
    monkeypatch.setattr(module, "table_records", refuse)
    assert told(inspect(table_of(), source)) == [(None, "changed while it was read", ())]


def test_persons_are_counted_by_their_normal_ids_and_every_id_that_is_none_is_told(tmp_path: Path) -> None:
    ids = ["7", "007", " 7 ", "", "x", "8.5", "9"]
    source = write(tmp_path / "a.csv", [[one, *ROWS[0]] for one in ids], ["patient", *HEADER])
    own = source.model_copy(update={"person": PersonColumn(column="patient", form="digits")})
    config = table_of(person="patient")
    found = inspect(config, own)
    assert [(one.column, one.rows) for one in found.found] == [
        ("patient", (5,)), ("patient", (6,)), ("patient", (4,)),
    ]  # fmt: skip
    assert all("(form =" in one.what or "is missing" in one.what for one in found.found)
    assert (found.records, len(set(found.person_N.tolist()))) == (4, 2)
    with pytest.raises(ConfigError, match="only its own holds"):
        inspect(config, source.model_copy(update={"person": PersonColumn(column="id", form="text")}))


def test_each_file_of_a_folder_is_read_whatever_is_wrong_with_another(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ROWS)
    write(tmp_path / "b.csv", ODD)
    write(tmp_path / "c.csv", ROWS, ["Age", *HEADER[1:]])
    (tmp_path / "d.csv").write_bytes(b"PK\x03\x04")
    written(tmp_path / "e.parquet", typed(visits=[1.5, 2.0]))
    found = inspect(table_of(), TableSource(folder=str(tmp_path)))
    by_file: dict[str, set[str | None]] = {}
    for one in found.found:
        by_file.setdefault(Path(one.where).name, set()).add(one.column)
    assert by_file == {
        "b.csv": {"age", "visits", "smoker", "stage", "outcome"},
        "c.csv": {None, "age"},
        "d.csv": {None},
        "e.parquet": {"visits"},
    }
    assert {Path(line.where).name for line in found.lines} == {"a.csv", "b.csv", "c.csv", "e.parquet"}
    missing = inspect(table_of(), TableSource(csv=str(tmp_path / "none.csv")))
    assert missing.refused
    assert missing.rows == 0


def test_a_column_that_is_wrong_whole_is_told_of_once(tmp_path: Path) -> None:
    dated = pa.array([1, 2], pa.timestamp("s"))
    found = inspect(table_of(), written(tmp_path / "a.parquet", typed(age=dated)))
    assert [(one.column, one.count) for one in found.found] == [("age", 2)]
    assert "of type timestamp" in found.found[0].what
    rows = [[f"{number},5", *ROWS[0][1:]] for number in range(3 * MOST_VALUES)]
    found = inspect(table_of(), write(tmp_path / "b.csv", rows))
    (one,) = found.found
    assert one.count == MOST_VALUES + 1
    assert one.what.endswith("(and others, which were not looked at any more)")
    assert one.settled_by == "decimal under [tables.admissions] in silo.toml (--fix writes it)"
    assert found.lines[0].seen == "numbers with a decimal comma"


def test_ids_that_are_wrong_by_the_hundred_are_a_finding_and_no_error(tmp_path: Path) -> None:
    rows = [[f"x{number}", *ROWS[0]] for number in range(3 * MOST_VALUES)]
    source = write(tmp_path / "a.csv", [["7", *ROWS[0]], *rows], ["patient", *HEADER])
    own = source.model_copy(update={"person": PersonColumn(column="patient", form="digits")})
    found = inspect(table_of(person="patient"), own)
    assert [(one.column, one.count) for one in found.found] == [("patient", MOST_VALUES + 1)]
    assert (found.records, found.lines[-1].left_out) == (1, 0)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_rows_that_keep_a_file_from_being_read_are_told(end: str, tmp_path: Path) -> None:
    good, path = ",".join(ROWS[0]), tmp_path / "a.csv"
    quoted = good.replace("II", '"II' + end + '"')  # a line's end within a field makes no row more
    path.write_bytes(end.join([",".join(HEADER), good, "", quoted, "1,2", good, good + ",x"]).encode())
    (uneven,) = inspect(table_of(), TableSource(csv=str(path))).found
    assert uneven.rows == (3, 5)
    assert "as many fields in every line" in uneven.what
    assert "quotation marks" in uneven.settled_by
    path.write_bytes(end.join([",".join(HEADER), good, good.replace("II", "\xe4"), good]).encode("latin-1"))
    (strange,) = inspect(table_of(), TableSource(csv=str(path))).found
    assert (strange.rows, strange.what) == ((2,), "is not text in UTF-8")
    path.write_bytes(end.join(["sep=;", ";".join(HEADER), good]).encode())
    (line,) = inspect(table_of(), TableSource(csv=str(path))).found
    assert "a line of Excel's that names its separator" in line.what
    assert line.settled_by == "take it out"


def test_a_column_that_is_missing_is_told_once_by_its_name(tmp_path: Path) -> None:
    found = inspect(table_of(), write(tmp_path / "a.csv", ROWS, ["Age", *HEADER[1:]]))
    assert told(found)[0] == ("age", "is missing", ())
    assert "as the scenario does" in found.found[0].settled_by


@pytest.mark.parametrize("others", ["refuse", "ignore"])
@pytest.mark.parametrize("more", ["age", "'x' AS note", "'x' AS day, 5 AS day", "NULL"])
def test_a_querys_other_columns_and_twins_are_told_as_a_run_tells_them(more: str, others: str, tmp_path: Path) -> None:
    plain = dict(zip(HEADER, ROWS[0], strict=True))
    source = laid(tmp_path, "t", "query", [plain]).model_copy(update={"query": f"SELECT *, {more} FROM t"})  # noqa: S608
    config = table_of(other_columns=others)
    found = inspect(config, source)
    assert found.refused == refuses(config, source) == (others == "refuse" or more == "age")
    assert found.records == (0 if more == "age" else 1) or found.refused


def test_what_is_outside_of_its_range_is_counted_and_not_refused(tmp_path: Path) -> None:
    rows = [[age, *ROWS[0][1:]] for age in ("0", "100", "100.01", "119", "50")]
    found = inspect(table_of(), write(tmp_path / "a.csv", rows))
    assert not found.refused
    assert found.lines[0].outside == 2


def test_nothing_that_was_found_is_in_a_repr(tmp_path: Path) -> None:
    rows = [["SESAME", *ROWS[0][1:]], *ROWS]
    found = inspect(table_of(), write(tmp_path / "a.csv", rows))
    for one in (found, *found.found, *found.lines, [*found.found]):
        assert "SESAME" not in repr(one)
        assert "3" not in repr(one)


PROPOSED: list[tuple[dict[str, Any], list[str], list[list[str]], str, dict[str, Any]]] = [
    ({}, HEADER, ROWS, ",", {}),
    ({}, HEADER, ROWS, ";", {"separator": ";"}),
    ({}, HEADER, ROWS, "\t", {"separator": "\t"}),
    ({"encoding": "utf-16"}, HEADER, ROWS, ",", {"encoding": "utf-16"}),
    ({"encoding": "cp1252"}, [*HEADER, "größe"], [[*row, "ä"] for row in ROWS], ";",
     {"separator": ";", "encoding": "cp1252", "leave_out": ("größe",)}),
    ({}, HEADER, [["50,5", *ROWS[0][1:]], ["7", *ROWS[1][1:]]], ";", {"separator": ";", "decimal": ","}),
    ({}, HEADER, [[*ROWS[0][:2], "Ja", *ROWS[0][3:]], [*ROWS[1][:2], "nein", *ROWS[1][3:]]], ",",
     {"yes": ("ja",), "no": ("nein",)}),
    ({}, [*HEADER, "admitted", "name"], [[*row, "2024-01-31", "x"] for row in ROWS], ",",
     {"leave_out": ("admitted", "name")}),
    ({}, HEADER[1:], [row[1:] for row in ROWS], ",", {}),
]  # fmt: skip


@pytest.mark.parametrize(("form", "header", "rows", "separator", "keys"), PROPOSED)
def test_keys_are_proposed_by_which_the_table_is_read(
    form: dict[str, str], header: list[str], rows: list[list[str]], separator: str, keys: dict[str, Any], tmp_path: Path
) -> None:
    lines = [separator.join(row) for row in [header, *rows]]
    (tmp_path / "a.csv").write_bytes("\n".join([*lines, ""]).encode(form.get("encoding", "utf-8")))
    source = TableSource(csv=str(tmp_path / "a.csv"))
    assert proposed(table_of(), source) == keys
    if len(header) >= len(HEADER):
        fixed = TableSource.model_validate({**source.model_dump(exclude_none=True), **keys})
        assert len(table_records(table_of(), fixed)) == 2
        assert proposed(table_of(), fixed) == {}


def test_what_is_said_already_stays_and_other_columns_are_not_named_where_they_are_ignored(tmp_path: Path) -> None:
    rows = [[*ROWS[0][:2], "ja", *ROWS[0][3:], "x"], [*ROWS[1][:2], "n", *ROWS[1][3:], "x"]]
    source = write(tmp_path / "a.csv", rows, [*HEADER, "name"])
    own = source.model_copy(update={"yes": ("ja",), "no": ("nein",)})
    assert proposed(table_of(other_columns="ignore"), own) == {"no": ("nein", "n")}


def test_words_for_a_missing_value_are_proposed_of_numbers_and_are_gaps_once_they_are_said(tmp_path: Path) -> None:
    columns = [{**COLUMNS[0], "missing": "drop"}, *COLUMNS[1:]]
    config = table_of(columns)
    source = write(tmp_path / "a.csv", [["NA", *ROWS[0][1:]], [" - ", *ROWS[0][1:]], *ROWS])
    with pytest.raises(DataError, match="a word for a missing value stands there"):
        table_records(config, source)
    (refused,) = [one for one in inspect(config, source).found if one.refuses]
    assert refused.settled_by.startswith("missing_values under [tables.")
    assert proposed(config, source) == {"missing_values": ("NA", " - ")}
    fixed = source.model_copy(update={"missing_values": ("NA", " - ")})
    assert proposed(config, fixed) == {}
    assert len(table_records(config, fixed)) == len(ROWS)
    (seen,) = [line for line in inspect(config, fixed).lines if line.column == COLUMNS[0]["name"]]
    assert (seen.missing, seen.left_out, seen.refused) == (2, 2, 0)


def test_a_word_is_a_gap_where_it_is_the_whole_field_and_spelled_so(tmp_path: Path) -> None:
    config = table_of([{**COLUMNS[0], "missing": "drop"}, *COLUMNS[1:]])
    for field in ("na", "NA ", "NAs"):
        source = write(tmp_path / "a.csv", [[field, *ROWS[0][1:]], *ROWS]).model_copy(
            update={"missing_values": ("NA",)}
        )
        with pytest.raises(DataError, match="is not a number"):
            table_records(config, source)
