"""What people's tables are really like: gaps that make floats, exports of other countries, codes that one site has."""

from __future__ import annotations

import json
import re
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fedmodel.config import Scenario, TableSource
from fedmodel.crypto.sealed import new_age_key, opener_from_secret
from fedmodel.data import Cache, Records, held_out_records, silo_records, table_records
from fedmodel.data.values import places, typed
from fedmodel.errors import DataError
from fedmodel.kinds.sources.table import TableConfig
from fedmodel.provision import scenario_hash
from tests.fedmodel.data.test_tables import (
    COLUMNS,
    EXPECTED,
    HEADER,
    ROWS,
    changed,
    scenario_of,
    table_of,
    write,
    written,
)
from tests.fedmodel.data.test_tables import typed as as_parquet

WHOLE = {"source": "table", "name": "ward", "label": "ill", "labels": ["0", "1"], "columns": [
    {"name": "visits", "type": "integer", "range": [-100.0, 100.0], "missing": "fill", "fill": 7},
    {"name": "smoker", "type": "boolean", "missing": "fill", "fill": False},
    {"name": "code", "type": "category", "categories": ["1", "2", "3"], "missing": "fill", "fill": "3"},
]}  # fmt: skip


def read(values: list[Any], kind: str, decimal: str = ".", arrow: pa.DataType | None = None) -> list[Any]:
    found: list[Any] = typed(pa.chunked_array([pa.array(values, arrow)]), kind, decimal).to_pylist()
    return found


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        *[(text, "integer", 64) for text in ("64", "64.0", "64.", "64.000", "+64", " 64 ", "\t64.0", "0064")],
        ("-64.0", "integer", -64),
        ("-0.0", "integer", 0),
        (str(2**63 - 1), "integer", 2**63 - 1),
        (f"{2**53 - 1}.0", "integer", 2**53 - 1),
        *[(text, "boolean", True) for text in ("true", "True", "TRUE", "1", "1.0", " 1 ", "1.", "+1")],
        *[(text, "boolean", False) for text in ("false", "False", "0", "0.0", "-0.0")],
        *[(text, "float", 64.5) for text in ("64.5", " 64.5", "+64.5", "6.45e1", "\xa064.5")],
    ],
)
def test_text_is_read_as_what_it_is(text: str, kind: str, expected: object) -> None:
    assert read([text, None], kind) == [expected, None]
    assert read([text.replace(".", ",")], kind, ",") == [expected]


@pytest.mark.parametrize(
    ("text", "kind", "rule"),
    [
        *[(text, "integer", "is not a whole number") for text in ("64.5", "6.4e1", "6e1", "0x40", "--1", "", "1_000")],
        ("9" * 5_000, "integer", "is not a whole number"),
        (str(2**63), "integer", "is not a whole number"),
        (f"{2**53}.0", "integer", "floating point does not tell it from others"),
        *[(text, "boolean", "neither true nor false") for text in ("2", "0.5", "yes", "", "1e0", "-1")],
        *[(text, "float", "is not a number") for text in ("+-5", "++5", "five", "")],
        *[(text, "float", "decimal comma") for text in ("12,5", "-0,25")],
        *[(text, "integer", "separator for thousands") for text in ("1 234 567", "1.234.567", "1'234", "1\u202f234")],
        ("1,234.5", "float", "separator for thousands"),
        *[(text, "integer", "word for a missing value") for text in ("NA", "n/a", "#N/A", "None", "nan")],
        *[(text, "float", "word for a missing value") for text in ("NA", "n/a", "#N/A", "None")],
        *[(text, kind, "nothing but space stands there") for text in (" ", "\xa0\t") for kind in ("integer", "float")],
        *[(text, "float", "another dash than the minus sign") for text in ("\u22125", "\u20130.5")],
        *[(text, "float", "a sign beside the number") for text in ("<5", ">90", "50%", '="50"', "'50")],
        *[(text, "boolean", "of other words, declare a category") for text in ("yes", "Y", "wahr")],
    ],
)  # fmt: skip
def test_text_that_is_none_is_refused_with_its_true_cause(text: str, kind: str, rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        read(["1", text], kind)


@pytest.mark.parametrize("text", ["1.5", "1.234,5", "1.234"])
def test_no_point_stands_in_a_number_with_a_decimal_comma(text: str) -> None:
    for kind in ("float", "integer", "boolean"):
        with pytest.raises(DataError, match="no point may stand in it"):
            read([text], kind, ",")


@pytest.mark.parametrize(
    ("values", "arrow", "kind", "expected"),
    [
        ([64.0, None, -2.0], pa.float64(), "integer", [64, None, -2]),
        ([64.0, None], pa.float32(), "integer", [64, None]),
        ([64.0, None], pa.float16(), "integer", [64, None]),
        ([Decimal("64.00"), None], None, "integer", [64, None]),
        ([Decimal("64.00"), Decimal("0.50")], None, "float", [64.0, 0.5]),
        ([1.0, None, 0.0], pa.float64(), "boolean", [True, None, False]),
        ([1, None, 0], pa.int8(), "boolean", [True, None, False]),
        ([Decimal(1), Decimal(0)], None, "boolean", [True, False]),
        ([1.0, None], pa.float64(), "category", ["1", None]),
        ([1, 2], pa.int8(), "category", ["1", "2"]),
        ([Decimal("1.0")], None, "category", ["1"]),
        ([True, None], None, "category", ["true", None]),
        ([1.5], pa.float64(), "category", ["1.5"]),
        ([None, None], pa.null(), "integer", [None, None]),
        ([], pa.float64(), "integer", []),
    ],
)
def test_a_typed_column_is_read_as_what_its_values_are(
    values: list[Any], arrow: pa.DataType | None, kind: str, expected: list[Any]
) -> None:
    assert read(values, kind, arrow=arrow) == expected


@pytest.mark.parametrize(
    ("values", "arrow", "kind", "rule"),
    [
        ([64.5], pa.float64(), "integer", "is not a whole number"),
        ([2.0**53], pa.float64(), "integer", "floating point does not tell it"),
        ([2.0**53], pa.float64(), "category", "floating point does not tell it"),
        ([2.0**24], pa.float32(), "integer", "floating point does not tell it"),
        ([2.0**11], pa.float16(), "integer", "floating point does not tell it"),
        *[([bad], pa.float64(), kind, "NaN or infinite, which is no number; .* NULL")
          for bad in (np.nan, np.inf) for kind in ("integer", "boolean", "category")],
        ([2.0], pa.float64(), "boolean", "neither true nor false"),
        ([2], pa.int8(), "boolean", "neither true nor false"),
        ([Decimal("0.5")], None, "integer", "is not a whole number"),
        ([1], pa.date32(), "integer", "of type date32 and not of the declared type, integer"),
        ([1], pa.timestamp("us"), "float", "of type timestamp and"),
        ([True], None, "float", "of type bool and"),
        ([b"1"], None, "category", "of type binary and"),
        ([{"secret": 1}], None, "category", "of type struct and"),
    ],
)  # fmt: skip
def test_a_typed_column_that_is_another_is_refused(
    values: list[Any], arrow: pa.DataType | None, kind: str, rule: str
) -> None:
    with pytest.raises(DataError, match=rule) as refused:
        read(values, kind, arrow=arrow)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("choices", "decimal", "texts", "expected"),
    [
        (("1", "2"), ".", ["1", "2.0", "2.", "3", "1.5", "01", None], [0, 1, 1, -1, -1, -1, -1]),
        (("1.0", "2.0"), ".", ["1", "2.0", "2.00"], [0, 1, 1]),
        (("1", "2"), ",", ["1,0", "2", "1.0"], [0, 1, -1]),
        (("1,0", "2,0"), ",", ["1,0"], [0]),
        (("false", "true"), ".", ["True", "FALSE", "true"], [1, 0, 1]),
        (("No", "True"), ".", ["true", "no"], [1, -1]),
        (("red", "Red"), ".", ["Red", "red", "RED"], [1, 0, -1]),
        ((str(2**53),), ".", [f"{2**53}.0", str(2**53)], [-1, 0]),
        (
            ("I", "II"),
            ".",
            ["II      ", " I", "\tII\r", "\xa0II\u3000", "I I", "", "   ", "i"],
            [1, 0, 1, 1, -1, -1, -1, -1],
        ),
        (("1", "true"), ".", [" 1.0 ", "TRUE "], [0, 1]),
        (("gr\u00f6\u00dfer", "a\u0302ge"), ".", ["gro\u0308\u00dfer", "\u00e2ge", "a\u0302ge"], [0, 1, 1]),
        (("II ",), ".", ["II", "II "], [0, 0]),
    ],
)
def test_a_code_is_found_however_it_is_written(
    choices: tuple[str, ...], decimal: str, texts: list[str | None], expected: list[int]
) -> None:
    assert places(pa.chunked_array([pa.array(texts, pa.large_string())]), choices, decimal).tolist() == expected


@pytest.mark.parametrize(
    "pair",
    [["1", "1.0"], ["true", "True"], ["0", "-0.0"], ["2.", "2.00"], ["II", "II "], ["\u00e2ge", "a\u0302ge"]],
)
def test_two_choices_that_a_gap_would_make_one_are_refused(pair: list[str]) -> None:
    for change in ({"labels": pair}, {"columns": changed("stage", categories=pair)}):
        with pytest.raises(ValueError, match="are read as one"):
            table_of(**change)


CELLS = st.tuples(
    st.none() | st.integers(-100, 100), st.none() | st.booleans(), st.none() | st.integers(1, 3), st.integers(0, 1)
)


NAMES = ("visits", "smoker", "code", "ill")


def columns_of(rows: list[tuple[Any, ...]], kind: pa.DataType) -> pa.Table:
    """Columns as programs keep them: of one type of number each, gaps or none."""
    columns = ([None if cell is None else int(cell) for cell in column] for column in zip(*rows, strict=True))
    return pa.table(
        {name: pa.array(column, pa.int64()).cast(kind) for name, column in zip(NAMES, columns, strict=True)}
    )


def as_csv(rows: list[tuple[Any, ...]], path: Path, *, floats: bool) -> TableSource:
    """A CSV in which whole numbers end in ".0", or do not."""
    cells = [["" if cell is None else f"{int(cell)}.0" if floats else str(int(cell)) for cell in row] for row in rows]
    return write(path, cells, list(NAMES))


@given(rows=st.lists(CELLS, min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_one_table_is_one_whatever_a_program_made_of_its_numbers(
    rows: list[tuple[Any, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """CSV, Parquet and SQLite, whole or as floats; and a row read alone is what it is among others."""
    folder, config = tmp_path_factory.mktemp("t"), TableConfig.model_validate(WHOLE)
    found: list[Records] = []
    for floats in (False, True):
        found.append(table_records(config, as_csv(rows, folder / "a.csv", floats=floats)))
        parquet.write_table(columns_of(rows, pa.float64() if floats else pa.int64()), folder / "a.parquet")
        found.append(table_records(config, TableSource(parquet=str(folder / "a.parquet"))))
    for one in found:
        assert np.array_equal(one.x_NF, found[0].x_NF)
        assert np.array_equal(one.y_N, found[0].y_N)
    with sqlite3.connect(folder / "a.sqlite") as connection:
        connection.execute("CREATE TABLE ward (visits REAL, smoker NUMERIC, code, ill)")
        mixed = [(a, b, c if at % 2 or c is None else float(c), d) for at, (a, b, c, d) in enumerate(rows)]
        connection.executemany("INSERT INTO ward VALUES (?, ?, ?, ?)", mixed)
    connection.close()
    query = TableSource(url=f"sqlite:///{folder / 'a.sqlite'}", query="SELECT * FROM ward")
    rows_of = [
        sorted(bytes(row) for row in np.c_[one.y_N, one.x_NF]) for one in (table_records(config, query), found[0])
    ]
    assert rows_of[0] == rows_of[1]
    alone = table_records(config, as_csv(rows[:1], folder / "b.csv", floats=True))
    assert np.array_equal(alone.x_NF, found[0].x_NF[:1])


UNKNOWN = [
    (changed("stage", unknown="drop"), {}, "stage", [EXPECTED[1]]),
    (changed("stage", unknown="other", other="III"), {}, "stage", [[0.0, 0.0, 1.0, 0.0, 0.0, 1.0], EXPECTED[1]]),
    (COLUMNS, {"unknown_label": "drop"}, "outcome", [EXPECTED[1]]),
]


@pytest.mark.parametrize(("columns", "more", "name", "expected"), UNKNOWN)
def test_an_unknown_code_is_what_is_declared_of_its_record_alone(
    columns: list[dict[str, Any]], more: dict[str, Any], name: str, expected: list[list[float]], tmp_path: Path
) -> None:
    row = ["new-here" if key == name else value for key, value in zip(HEADER, ROWS[0], strict=True)]
    found = table_records(table_of(columns, **more), write(tmp_path / "a.csv", [row, ROWS[1]]))
    assert found.x_NF.tolist() == expected
    with pytest.raises(DataError, match=r"a\.csv, column .* none of the declared .*; add it to them, or declare unk"):
        table_records(table_of(), write(tmp_path / "a.csv", [row, ROWS[1]]))


@given(codes=st.lists(st.sampled_from(["I", "II", "X", "Y", ""]), min_size=1, max_size=8), gone=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_a_record_that_is_added_changes_no_other(
    codes: list[str], gone: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("t") / "a.csv"
    config = table_of(changed("stage", unknown="drop", missing="drop"))
    rows = [[str(number), "3.0", "1.0", code, "benign"] for number, code in enumerate(codes)]
    whole = table_records(config, write(path, rows)).x_NF.tolist()
    fewer = table_records(config, write(path, rows[:gone] + rows[gone + 1 :])).x_NF.tolist()
    assert fewer == [row for row in whole if not (gone < len(rows) and row[0] == np.float32(gone / 50 - 1))]


def test_a_missing_code_is_not_an_unknown_one(tmp_path: Path) -> None:
    row = [*ROWS[0][:3], "", "benign"]
    columns = changed("stage", unknown="other", other="III", missing="drop")
    assert table_records(table_of(columns), write(tmp_path / "a.csv", [row, ROWS[1]])).x_NF.tolist() == EXPECTED[1:]
    with pytest.raises(DataError, match="a value is missing"):
        table_records(table_of(changed("stage", unknown="drop")), write(tmp_path / "a.csv", [row]))
    with pytest.raises(DataError, match="a value is missing"):
        table_records(table_of(unknown_label="drop"), write(tmp_path / "a.csv", [[*ROWS[0][:4], ""]]))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"columns": changed("age", unknown="drop")}, "unknown is given with a category"),
        ({"columns": changed("stage", unknown="other")}, "other, a category, is given"),
        ({"columns": changed("stage", other="I")}, "other, a category, is given"),
        ({"columns": changed("stage", unknown="other", other="IV")}, "none of its categories; add it"),
        ({"columns": changed("stage", unknown="mean")}, "'refuse', 'drop' or 'other'"),
        ({"unknown_label": "other"}, "'refuse' or 'drop'"),
        ({"csv": {"west": {"separator": "x"}}}, "separator"),
        ({"csv": {"west": {"encoding": "rot13"}}}, "is no encoding that is read"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        table_of(**change)


def test_keys_that_came_later_leave_hashes_as_they_were(tmp_path: Path) -> None:
    scenario = scenario_of(Path("/data"))
    written_out = json.loads(scenario.model_dump_json())
    assert not {"unknown_label", "csv"} & set(written_out["data"])
    assert not {"unknown", "other"} & set(written_out["data"]["columns"][3])
    assert set(TableSource(csv="a").model_dump()) & {"separator", "decimal", "encoding"} == set()
    hashes = {scenario_hash(scenario)}
    for change in ({"unknown_label": "drop"}, {"csv": {"north": {"separator": ";"}}}):
        document = scenario.model_dump(mode="json", exclude_none=True)
        document["data"] |= change
        again = Scenario.model_validate(document)
        assert Scenario.model_validate_json(again.model_dump_json()) == again
        hashes.add(scenario_hash(again))
    assert len(hashes) == 3
    with pytest.raises(ValueError, match="which is no silo"):
        Scenario.model_validate({**document, "data": {**document["data"], "csv": {"nowhere": {}}}})


EXPORTS = [
    ({"separator": ";", "decimal": ",", "encoding": "cp1252"}, "Größe"),
    ({"separator": ";", "decimal": ",", "encoding": "latin-1"}, "âge"),
    ({"separator": "\t", "encoding": "utf-16"}, "возраст"),
    ({"separator": "\t", "encoding": "utf-16-le"}, "възраст"),
    ({"separator": ";", "decimal": ",", "encoding": "cp1250"}, "věk"),
    ({"separator": "|", "encoding": "cp932"}, "年齢"),
    ({"separator": ";", "encoding": "utf-8-sig"}, "Größe"),
    ({"decimal": ","}, "edad"),
]


def exported(path: Path, form: dict[str, str], name: str) -> TableConfig:
    """Write the rows as a program of another country does, and declare their columns."""
    lines = [[name, *HEADER[1:]], ["50,0" if form.get("decimal") else "50.0", *ROWS[0][1:]], ROWS[1]]
    sign = form.get("separator", ",")
    text = "\r\n".join(sign.join(f'"{cell}"' if sign in cell else cell for cell in line) for line in lines) + "\r\n"
    path.write_bytes(text.encode(form.get("encoding", "utf-8")))
    return table_of(changed("age", name=name))


@pytest.mark.parametrize(("form", "name"), EXPORTS)
def test_an_export_of_another_country_is_read_as_declared(form: dict[str, str], name: str, tmp_path: Path) -> None:
    config = exported(tmp_path / "a.csv", form, name)
    for place in ({"csv": str(tmp_path / "a.csv")}, {"folder": str(tmp_path)}):
        assert table_records(config, TableSource.model_validate({**place, **form})).x_NF.tolist() == EXPECTED
    if form != {"separator": ";", "encoding": "utf-8-sig"}:
        with pytest.raises(DataError, match=r"a\.csv.*(declare|separated)"):
            table_records(config, TableSource(csv=str(tmp_path / "a.csv")))


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("âge,visits,smoker,stage,outcome\n50,5,true,II,benign\n".encode("latin-1"), 'not text in UTF-8.*"cp1252"'),
        (b"age,visits,smoker,stage,outcome\n50,5,true,\xe9,benign\n", 'not text in UTF-8.*"cp1252"'),
        *[(sign.join(HEADER).encode() + b"\n" + sign.join(ROWS[0]).encode() + b"\n", rule)
          for sign, rule in ((";", 'no comma but semicolons.*";"'), ("\t", "but tabs"), ("|", "but pipes"))],
        ("age,visits\n".encode("utf-16"), 'another form of Unicode; declare encoding = "utf-16"'),
        ((",".join(HEADER) + "\n").encode("utf-16-le"), 'null bytes, as UTF-16 has; declare encoding = "utf-16-le"'),
        (b"\xff\xfe\0\0" + "age\n".encode("utf-32-le"), 'another form of Unicode; declare encoding = "utf-32"'),
        (b"", "is empty"),
        (b"Age ,visits,smoker,stage,outcome\n", "'age' is missing.*differs in case or outer space"),
        (b'age,visits,smoker,stage,outcome\n"12,5",5,true,II,benign\n', "a.csv, column 'age': .*decimal comma"),
        ((",".join(HEADER) + "\n").encode() * 2, "header is there twice"),
        *[(begin + ",".join(HEADER).encode() + b"\n50,5,true,II,benign\n", "does not begin with its header: ")
          for begin in (b"sep=,\r\n", b'"sep=;"\n', b"\xef\xbb\xbfsep=,\n", b"# of R\n", b"Export of the ward\n\n")],
        *[(blank, "is empty; a CSV begins with a header") for blank in (b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"  ")],
        (b"PK\x03\x04" + bytes(99), "a workbook of Excel or another packed file"),
        (b"\xd0\xcf\x11\xe0" + bytes(99), "a workbook of an old Excel"),
        (b"\x1f\x8b\x08" + bytes(99), "packed by gzip; unpack it"),
        (b"PAR1\x15" + bytes(99), "is Parquet, and its name ends in .csv"),
    ],
)  # fmt: skip
def test_a_message_names_the_file_and_the_true_cause(content: bytes, rule: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    for source in (TableSource(csv=str(tmp_path / "a.csv")), TableSource(folder=str(tmp_path))):
        with pytest.raises(DataError, match=r"a\.csv") as refused:
            table_records(table_of(), source)
        assert re.search(rule, str(refused.value)), str(refused.value)


def test_a_name_of_other_unicode_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", ROWS, ["a\u0302ge", *HEADER[1:]])
    with pytest.raises(DataError, match=r"'âge' is missing.*other characters of Unicode"):
        table_records(table_of(changed("age", name="âge")), source)


@pytest.mark.parametrize("bad", [";", ",5"])
def test_a_form_belongs_to_files_of_csv(bad: str) -> None:
    for place in ({"parquet": "a"}, {"url": "sqlite:///a", "query": "SELECT 1"}):
        with pytest.raises(ValueError, match="given with csv or folder"):
            TableSource.model_validate({**place, "separator": ";"})
    with pytest.raises(ValueError, match="separator"):
        TableSource.model_validate({"csv": "a", "separator": bad + "x"})


def test_every_place_is_named_and_no_value(tmp_path: Path) -> None:
    """A simulation's silo and its server, one of a folder's files, Parquet, and a database."""
    scenario, bad = scenario_of(tmp_path), [["sixty-4711", *ROWS[0][1:]]]
    for party in (*scenario.federation.silos, "held-out"):
        write(tmp_path / f"{party}.csv", bad)
    found = []
    for party in ("north", "held-out"):
        with pytest.raises(DataError, match=rf"/{party}\.csv, column 'age': a value is not a number") as refused:
            held_out_records(scenario) if party == "held-out" else silo_records(scenario, party)
        found.append(refused)
    (tmp_path / "f").mkdir()
    write(tmp_path / "f" / "a.csv", ROWS)
    written(tmp_path / "f" / "b.parquet", as_parquet(visits=[5.5, 0.0]))
    with pytest.raises(DataError, match=r"/f/b\.parquet, column 'visits': a value is not a whole number"):
        table_records(table_of(), TableSource(folder=str(tmp_path / "f")))
    with sqlite3.connect(tmp_path / "w.sqlite") as connection:
        connection.execute("CREATE TABLE t (age, visits, smoker, stage, outcome)")
        connection.execute("INSERT INTO t VALUES ('sixty-4711', 5, 1, 'II', 'benign')")
    connection.close()
    query = TableSource(url=f"sqlite:///{tmp_path / 'w.sqlite'}", query="SELECT * FROM t")
    with pytest.raises(DataError, match=r"the query of .*/w\.sqlite, column 'age': a value is not a number") as refused:
        table_records(table_of(), query)
    with pytest.raises(DataError, match=r"/w\.sqlite: .*the database refused the query"):
        table_records(table_of(), query.model_copy(update={"query": "SELECT * FROM nowhere"}))
    assert not any("4711" in str(error.value) for error in (*found, refused))


def test_each_party_of_a_simulation_has_its_own_form(tmp_path: Path) -> None:
    document = scenario_of(tmp_path).model_dump(mode="json", exclude_none=True)
    document["data"]["csv"] = {"west": {"separator": ";", "decimal": ",", "encoding": "cp1252"}}
    scenario = Scenario.model_validate(document)
    exported(tmp_path / "west.csv", document["data"]["csv"]["west"], "age")
    write(tmp_path / "north.csv", ROWS)
    assert silo_records(scenario, "west").x_NF.tolist() == silo_records(scenario, "north").x_NF.tolist() == EXPECTED


def test_what_is_kept_is_of_one_form_of_csv(tmp_path: Path) -> None:
    secret, recipient = new_age_key()
    cache = Cache(tmp_path / "c", (recipient,), opener_from_secret(secret), "7")
    config = table_of(changed("stage", categories=["1,0", "1", "2"]))
    source = write(tmp_path / "a.csv", [[*ROWS[0][:3], "2,0", "benign"]])
    with pytest.raises(DataError, match="none of the declared"):
        table_records(config, source, cache)
    there = source.model_copy(update={"decimal": ","})
    assert table_records(config, there, cache).x_NF[0, 3:].tolist() == [0.0, 0.0, 1.0]
    with pytest.raises(DataError, match="none of the declared"):
        table_records(config, source, cache)


def test_a_column_is_read_in_one_go_of_many_pieces() -> None:
    pieces = pa.chunked_array([["64.0", None], [], ["7"]], pa.large_string())
    assert typed(pieces, "integer").to_pylist() == [64, None, 7]
