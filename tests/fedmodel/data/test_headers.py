"""Whether a source has its columns is told by its header alone: never by a value, nor by how many records there are."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from fedmodel.config import SiloFile, TableSource, read_scenario
from fedmodel.data import check_deployed, table_records
from fedmodel.data.headers import check_columns
from fedmodel.data.tables import names_of
from fedmodel.errors import ConfigError, DataError, FedmodelError
from fedmodel.kinds.sources.table import TableConfig
from tests.fedmodel.data.test_tables import HEADER, ROWS, table_of, typed, write, written

BAD = [["SESAME", "", "maybe", "IX", ""], ["NaN", "6.5", "2", "", "SESAME"]]
IGNORING = table_of(other_columns="ignore")


def check(source: TableSource, config: TableConfig | None = None) -> None:
    config = config or table_of()
    check_columns(config, source, names_of(config))


def answer(source: TableSource, config: TableConfig | None = None) -> str | None:
    try:
        check(source, config)
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("header", "rule"),
    [
        (HEADER, None),
        (["Age", *HEADER[1:]], "column 'age' is missing; it must be there under this very name; one that differs"),
        (HEADER[:-1], "column 'outcome' is missing"),
        ([*HEADER, "weight"], "has a column that the scenario does not declare"),
        ([*HEADER, "age"], "column 'age' is there twice"),
        ([";".join(HEADER)], "its header has no comma but semicolons"),
    ],
)
@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS * 40, BAD, [["1", "2"]], [["1"] * 9]])
def test_the_answer_is_the_headers_whatever_the_rows_and_however_many(
    header: list[str], rule: str | None, rows: list[list[str]], tmp_path: Path
) -> None:
    found = answer(write(tmp_path / "a.csv", rows, header))
    assert (found is None) == (rule is None)
    assert rule is None or rule in str(found)
    assert found == answer(write(tmp_path / "a.csv", [], header))
    assert "SESAME" not in str(found)


@pytest.mark.parametrize("form", [{"encoding": "utf-16"}, {"encoding": "cp1252"}, {"encoding": "utf-8-sig"}, {}])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_a_header_is_read_as_the_records_reader_reads_it(form: dict[str, str], end: str, tmp_path: Path) -> None:
    lines = [";".join(['"age"', *HEADER[1:]]), *(";".join(row) for row in ROWS)]
    (tmp_path / "a.csv").write_bytes((end + end.join(lines) + end).encode(form.get("encoding", "utf-8")))
    source = TableSource(csv=str(tmp_path / "a.csv"), separator=";", **form)  # type: ignore[arg-type]
    check(source)
    assert len(table_records(table_of(), source)) == 2


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "is empty; a CSV begins with a header"),
        (b"\xe2ge,visits\n1,2\n", "is not text in UTF-8; declare its encoding"),
        (b'"age,visits,smoker\nstage,outcome\n', "quotation mark that is not closed"),
        (b"PK\x03\x04", "is a workbook of Excel"),
        ("age,visits".encode("utf-16-le"), "has null bytes"),
    ],
)
def test_a_file_without_a_header_that_can_be_read_is_refused(content: bytes, rule: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert rule in str(answer(TableSource(csv=str(tmp_path / "a.csv"))))


def test_bytes_of_another_encoding_behind_the_header_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(",".join(HEADER).encode() + b"\n1,2,1,\xff\xfe,benign\n")
    assert answer(TableSource(csv=str(tmp_path / "a.csv"))) is None


def test_parquet_and_folders_and_what_is_not_there(tmp_path: Path) -> None:
    check(written(tmp_path / "a.parquet", typed()))
    parquet.write_table(pa.table(typed()).slice(0, 0), tmp_path / "none.parquet")
    check(TableSource(parquet=str(tmp_path / "none.parquet")))
    assert "column 'age' is missing" in str(answer(written(tmp_path / "b.parquet", {"x": [1]})))
    assert "a.csv: cannot be read" in str(answer(TableSource(csv=str(tmp_path / "a.csv"))))
    assert "has no file" in str(answer(TableSource(folder=str(tmp_path / ".."))))
    assert "b.parquet: column 'age' is missing" in str(answer(TableSource(folder=str(tmp_path))))


@pytest.mark.parametrize("tail", ["", ";", " -- the end", " ORDER BY age"])
def test_a_query_is_asked_for_no_row(tail: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute("CREATE TABLE t (age, visits, smoker, stage, outcome)")
        connection.execute("INSERT INTO t VALUES (-9223372036854775808, 1, 1, 'I', 'benign')")
    connection.close()
    # abs of the least integer is an error of SQLite at that row.
    text = f"SELECT abs(age) AS age, visits, smoker, stage, outcome FROM t{tail}"  # noqa: S608 - made-up records
    source = TableSource(url=f"sqlite:///{tmp_path / 'a.sqlite'}", query=text)
    check(source)
    with pytest.raises(DataError, match="the database refused the query"):
        table_records(table_of(), source)
    missing = source.model_copy(update={"query": "SELECT visits FROM t"})
    assert "the query: column 'age' is missing" in str(answer(missing))


@pytest.mark.parametrize("kind", ["csv", "parquet", "query"])
def test_other_columns_are_not_looked_at_where_that_is_said(kind: str, tmp_path: Path) -> None:
    weights: list[Any] = ["x", 5]
    if kind == "csv":
        rows = [[*row, str(weight)] for row, weight in zip(ROWS, weights, strict=True)]
        source = write(tmp_path / "a.csv", rows, [*HEADER, "weight"])
    elif kind == "parquet":
        source = written(tmp_path / "a.parquet", typed(weight=list(map(str, weights))))
    else:
        with sqlite3.connect(tmp_path / "a.sqlite") as connection:
            connection.execute("CREATE TABLE t (age, visits, smoker, stage, outcome, weight)")
            rows = [[*row, weight] for row, weight in zip(ROWS, weights, strict=True)]
            connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.close()
        source = TableSource(url=f"sqlite:///{tmp_path / 'a.sqlite'}", query="SELECT * FROM t")
    own = source.model_copy(update={"leave_out": ("weight", "not there")})
    for config, found in ((IGNORING, source), (table_of(), own), (IGNORING, own)):
        check(found, config)
        assert sorted(table_records(config, found).y_N.tolist()) == [0, 1]
    with pytest.raises(DataError, match="does not declare"):
        check(source)


def test_a_declared_column_cannot_be_left_out(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", ROWS).model_copy(update={"leave_out": ("age",)})
    for act in (check, lambda one: table_records(table_of(), one)):
        with pytest.raises(ConfigError, match="leave_out names column 'age', which the scenario declares"):
            act(source)


def test_a_silo_answers_by_its_law_its_file_and_its_columns(tmp_path: Path) -> None:
    scenario = read_scenario("quickstart").model_copy(update={"data": table_of()})
    check_deployed(read_scenario("quickstart"), law({}), tmp_path)  # dealt out: nothing to open
    write(tmp_path / "a.csv", BAD)
    check_deployed(scenario, law({"admissions": {"csv": "a.csv"}}), tmp_path)
    refused: list[tuple[dict[str, Any], type[FedmodelError], str]] = [
        ({}, ConfigError, "does not say where table 'admissions' lies"),
        ({"admissions": {"csv": "b.csv"}}, DataError, "b.csv: cannot be read"),
        ({"admissions": {"csv": "a.csv", "leave_out": ["stage"]}}, ConfigError, "leave_out names column 'stage'"),
    ]
    for tables, kind, rule in refused:
        with pytest.raises(kind, match=rule):
            check_deployed(scenario, law(tables), tmp_path)
    asks = scenario.model_copy(update={"data": table_of(person={"column": "id", "form": "digits"})})
    with pytest.raises(ConfigError, match=r"silo\.toml does not say so"):
        check_deployed(asks, law({"admissions": {"csv": "a.csv"}}), tmp_path)
    own = {"csv": "a.csv", "person": {"column": "patient", "form": "digits"}}
    with pytest.raises(ConfigError, match="only its own holds"):
        check_deployed(asks, law({"admissions": own}), tmp_path)


def law(tables: dict[str, Any]) -> SiloFile:
    found = {"name": "left", "encryption": {"secure_aggregation": "off"}, "tables": tables}
    budget = {"unit": "record", "delta": 1e-3, "epsilon": 8.0}
    return SiloFile.model_validate({**found, "budgets": {"admissions": budget}})
