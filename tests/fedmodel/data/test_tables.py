"""A silo's table: read from real files, held to its declared schema, scaled by what is public, kept sealed at rest."""

from __future__ import annotations

import csv
import json
import os
import re
import stat
import sys
import tempfile
import tomllib
import traceback
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from sklearn import datasets

from fedmodel.config import (
    Scenario,
    SiloFile,
    TableSource,
    read_scenario,
    scenario_from_json,
    scenario_to_toml,
)
from fedmodel.crypto.sealed import Opener, new_age_key, opener_from_secret, read_sealed, write_sealed
from fedmodel.data import (
    Cache,
    Records,
    deployed_records,
    held_out_records,
    held_out_table,
    silo_records,
    table_records,
)
from fedmodel.data import tables as module
from fedmodel.data.access import HELD_OUT
from fedmodel.data.cache import padded
from fedmodel.errors import ConfigError, DataError, FedmodelError
from fedmodel.kinds.sources.table import TableConfig
from scenarios.cli import main
from scenarios.simulation.simulate import check_scenario
from tests.conftest import TINY

COLUMNS: list[dict[str, Any]] = [
    {"name": "age", "type": "float", "range": [0.0, 100.0], "limits": [0.0, 120.0]},
    {"name": "visits", "type": "integer", "range": [0.0, 10.0]},
    {"name": "smoker", "type": "boolean"},
    {"name": "stage", "type": "category", "categories": ["I", "II", "III"]},
]
HEADER = ["age", "visits", "smoker", "stage", "outcome"]
ROWS = [["50", "5", "true", "II", "benign"], ["100", "0", "false", "I", "malignant"]]


def table_of(columns: list[dict[str, Any]] | None = None, **more: Any) -> TableConfig:
    found = {"source": "table", "name": "admissions", "label": "outcome", "labels": ["benign", "malignant"]}
    return TableConfig.model_validate({**found, "columns": COLUMNS if columns is None else columns, **more})


def changed(name: str, /, **more: Any) -> list[dict[str, Any]]:
    """The columns, one of them declared otherwise."""
    return [{**column, **more} if column["name"] == name else column for column in COLUMNS]


def write(path: Path, rows: list[list[str]], header: list[str] | None = None) -> TableSource:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER if header is None else header, *rows])
    return TableSource(csv=str(path))


def written(path: Path, columns: dict[str, Any]) -> TableSource:
    parquet.write_table(pa.table(columns), path)
    return TableSource(parquet=str(path))


def typed(**other: Any) -> dict[str, Any]:
    """The rows as Parquet would keep them, some columns otherwise."""
    found = {"age": [50.0, 100.0], "visits": [5, 0], "smoker": [True, False], "stage": ["II", "I"]}
    return {**found, "outcome": ["benign", "malignant"], **other}


EXPECTED = [[0.0, 0.0, 1.0, 0.0, 1.0, 0.0], [1.0, -1.0, -1.0, 1.0, 0.0, 0.0]]


def test_a_csv_becomes_records(tmp_path: Path) -> None:
    records = table_records(table_of(), write(tmp_path / "a.csv", ROWS))
    assert records.x_NF.tolist() == EXPECTED
    assert records.x_NF.dtype == np.float32
    assert records.y_N.tolist() == [0, 1]
    assert records.y_N.dtype == records.person_N.dtype == np.int64
    assert len(set(records.person_N)) == 2
    shape = table_of().shape
    assert shape.names == ("age", "visits", "smoker", "stage=I", "stage=II", "stage=III")
    assert (shape.features, shape.classes) == ((6,), 2)


def test_a_parquet_file_becomes_the_same_records(tmp_path: Path) -> None:
    for number, other in enumerate((
        {},
        {"age": pa.array([50, 100], pa.int16())},
        {"age": pa.array([Decimal("50.0"), Decimal("100.0")])},
        {"stage": pa.array(["II", "I"]).dictionary_encode()},
        {"smoker": pa.array([1, 0], pa.int8()), "visits": pa.array([5, 0], pa.uint8())},
    )):  # fmt: skip
        records = table_records(table_of(), written(tmp_path / f"{number}.parquet", typed(**other)))
        assert (records.x_NF.tolist(), records.y_N.tolist()) == (EXPECTED, [0, 1])


def test_labels_and_categories_may_be_codes(tmp_path: Path) -> None:
    config = table_of(changed("stage", categories=["1", "2"]), labels=["false", "true"])
    records = table_records(config, written(tmp_path / "a.parquet", typed(stage=[2, 1], outcome=[True, False])))
    assert records.x_NF[:, 3:].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert records.y_N.tolist() == [1, 0]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    write(tmp_path / "b.csv", ROWS[:1])
    written(tmp_path / "a.parquet", typed(age=[10.0, 20.0]))
    write(tmp_path / "C.CSV", ROWS[1:])
    (tmp_path / "README.txt").write_text("not data")
    found = table_records(table_of(), TableSource(folder=str(tmp_path))).x_NF[:, 0]
    assert np.allclose(found, [1.0, -0.8, -0.6, 0.0])  # C, a, b: by code points


def test_a_header_alone_is_no_record_and_no_error(tmp_path: Path) -> None:
    records = table_records(table_of(), write(tmp_path / "a.csv", []))
    assert records.x_NF.shape == (0, 6)
    with pytest.raises(DataError, match="no record, so no model could be evaluated"):
        held_out_table(table_of(), write(tmp_path / "a.csv", []))


def test_what_a_record_becomes_does_not_depend_on_the_others(tmp_path: Path) -> None:
    """A mean or a minimum of the records would move every row when one is taken away."""
    rows = [[str(age), "3", "0", "III", "benign"] for age in (3, 80.5, 119, 41)]
    columns = changed("age", missing="drop")
    whole = table_records(table_of(columns), write(tmp_path / "a.csv", [*rows, ["", "3", "0", "III", "benign"]]))
    fewer = table_records(table_of(columns), write(tmp_path / "b.csv", rows[1:]))
    assert np.array_equal(whole.x_NF[1:], fewer.x_NF)


@pytest.mark.parametrize(
    ("declared", "row", "expected"),
    [
        (changed("age", missing="fill", fill=25.0), ["", *ROWS[0][1:]], [-0.5, 0.0, 1.0, 0.0, 1.0, 0.0]),
        (changed("visits", missing="fill", fill=10), ["50", "", *ROWS[0][2:]], [0.0, 1.0, 1.0, 0.0, 1.0, 0.0]),
        (changed("smoker", missing="fill", fill=False), ["50", "5", "", *ROWS[0][3:]], [0.0, 0.0, -1.0, 0.0, 1.0, 0.0]),
        (changed("stage", missing="fill", fill="III"), [*ROWS[0][:3], "", "benign"], [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]),
    ],
)
def test_a_missing_value_is_filled_with_a_declared_constant(
    declared: list[dict[str, Any]], row: list[str], expected: list[float], tmp_path: Path
) -> None:
    records = table_records(table_of(declared), write(tmp_path / "a.csv", [row, ROWS[1]]))
    assert records.x_NF.tolist() == [expected, EXPECTED[1]]


@pytest.mark.parametrize("name", ["age", "visits", "smoker", "stage"])
def test_a_record_with_a_missing_value_is_dropped_where_that_is_declared(name: str, tmp_path: Path) -> None:
    row = ["" if key == name else value for key, value in zip(HEADER, ROWS[0], strict=True)]
    records = table_records(table_of(changed(name, missing="drop")), write(tmp_path / "a.csv", [row, ROWS[1]]))
    assert (records.x_NF.tolist(), records.y_N.tolist()) == (EXPECTED[1:], [1])


REFUSED = [
    ("age", "", 'column \'age\': a value is missing; declare missing = "drop" or "fill"'),
    ("age", "fifty", "column 'age': a value is not a number"),
    ("age", "NA", "column 'age': a value is not a number"),
    ("age", "nan", "column 'age': a value is NaN or infinite"),
    ("age", "-inf", "column 'age': a value is NaN or infinite"),
    ("age", "120.5", r"column 'age': a value is outside its declared limits \[0.0, 120.0\]"),
    ("age", "-1", "column 'age': a value is outside its declared limits"),
    ("visits", "5.5", "column 'visits': a value is not a whole number"),
    ("visits", "0x1F", "column 'visits': a value is not a whole number"),
    ("visits", "99999999999999999999", "column 'visits': a value is not a whole number"),
    ("smoker", "yes", "column 'smoker': a value is neither true nor false"),
    ("smoker", "2", "column 'smoker': a value is neither true nor false"),
    ("stage", "IV", "column 'stage': a value is none of the declared categories: I, II, III"),
    ("outcome", "unclear", "column 'outcome': a value is none of the declared labels: benign, malignant"),
    ("outcome", "", "column 'outcome': a value is missing"),
]


@pytest.mark.parametrize(("name", "value", "rule"), REFUSED)
def test_a_breach_is_refused_by_column_and_rule(name: str, value: str, rule: str, tmp_path: Path) -> None:
    row = [value if key == name else kept for key, kept in zip(HEADER, ROWS[0], strict=True)]
    with pytest.raises(DataError, match=f"table 'admissions', [^ ]*/a.csv, {rule}"):
        table_records(table_of(), write(tmp_path / "a.csv", [ROWS[1], row]))


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("age", pa.array([True, False]), "float"),
        ("age", pa.array([b"5", b"6"]), "float"),
        ("visits", pa.array([5.5, 0.0]), "a value is not a whole number"),
        ("visits", pa.array([5, 0], pa.timestamp("us")), "are of type timestamp and not of the declared type, integer"),
        ("smoker", pa.array([0.5, 0.0]), "neither true nor false"),
        ("stage", pa.array([1.0, 2.0]), "none of the declared categories"),
        ("outcome", pa.array([1, 2], pa.date32()), "category"),
        ("smoker", pa.array([1, 2]), "neither true nor false"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, values: pa.Array, kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"column '{name}': .*{kind}"):
        table_records(table_of(), written(tmp_path / "a.parquet", typed(**{name: values})))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_a_parquet_file_is_no_missing_value(value: float, tmp_path: Path) -> None:
    config = table_of(changed("age", missing="fill", fill=1.0))
    with pytest.raises(DataError, match="NaN or infinite"):
        table_records(config, written(tmp_path / "a.parquet", typed(age=pa.array([1.0, value]))))


@pytest.mark.parametrize(
    ("header", "rule"),
    [
        (["Age", *HEADER[1:]], "column 'age' is missing; it must be there under this very name"),
        (HEADER[:-1], "column 'outcome' is missing"),
        ([*HEADER, "weight"], "has a column that the scenario does not declare; leave it out"),
        ([*HEADER, "age"], "column 'age' is there twice"),
    ],
)
def test_other_columns_are_refused(header: list[str], rule: str, tmp_path: Path) -> None:
    row = [*ROWS[0], "1"][: len(header)]
    with pytest.raises(DataError, match=rule) as refused:
        table_records(table_of(), write(tmp_path / "a.csv", [row], header))
    assert "weight" not in str(refused.value)


def test_a_file_without_a_header_gives_no_value_away(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", ROWS[1:], ["63.25", "7", "true", "II", "malignant"])
    with pytest.raises(DataError, match="column 'age' is missing") as refused:
        table_records(table_of(), source)
    assert not any(word in said(refused.value) for word in ("63.25", "malignant"))


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("a.csv", b"", "is empty; a CSV begins with a header"),
        ("a.csv", b"age,visits\n1,2,3\n", "is not CSV in UTF-8"),
        ("a.csv", b"age,visits,smoker,stage,outcome\n1,2,1,\xff\xfe,benign\n", "is not text in UTF-8; declare its enc"),
        ("a.parquet", b"PAR1nonsense", "is not a Parquet file"),
    ],
)
def test_a_file_that_is_none_is_refused(name: str, content: bytes, rule: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rule):
        table_records(table_of(), TableSource.model_validate({name[2:]: str(tmp_path / name)}))


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r", "\n\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "cp1252"])
def test_a_header_alone_is_a_table_of_no_records_however_it_ends(end: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "held-out.csv"
    path.write_bytes((",".join(HEADER) + end).encode(encoding))
    source = TableSource(csv=str(path), encoding=encoding)
    assert len(table_records(table_of(), source)) == 0
    with pytest.raises(DataError, match=r"'admissions', .*held-out\.csv: the server's holds no record, so no model"):
        held_out_table(table_of(), source)


EMPTIED: list[tuple[dict[str, Any], list[list[str]]]] = [
    ({"columns": changed("age", missing="drop")}, [["", "5", "true", "II", "benign"]] * 2),
    ({"columns": changed("stage", unknown="drop")}, [["50", "5", "true", "IV", "benign"]] * 2),
    ({"unknown_label": "drop"}, [["50", "5", "true", "II", "unclear"]] * 2),
]


@pytest.mark.parametrize(("declared", "rows"), EMPTIED)
def test_records_to_evaluate_on_that_are_all_dropped_are_none(
    declared: dict[str, Any], rows: list[list[str]], tmp_path: Path
) -> None:
    config, source = table_of(**declared), write(tmp_path / "held-out.csv", rows)
    assert len(table_records(config, source)) == 0
    with pytest.raises(DataError, match=r"holds no record.*neither missing nor unknown where such records are dropped"):
        held_out_table(config, source)
    simulated = config.model_copy(update={"folder": str(tmp_path)})
    scenario = read_scenario("quickstart").model_copy(update={"data": simulated})
    with pytest.raises(DataError, match=r"held-out: the server's holds no record"):
        held_out_records(scenario)


def test_a_value_far_beyond_its_range_is_bounded_without_a_word(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    columns = [{"name": "age", "type": "float", "range": [0.0, 1e-100]}, *COLUMNS[1:]]
    rows = [["1.7e308", *ROWS[0][1:]], ["-1.7e308", *ROWS[1][1:]]]
    records = table_records(table_of(columns), write(tmp_path / "a.csv", rows))
    bound = table_of(columns).feature_bound
    assert records.x_NF[:, 0].tolist() == [bound, -bound]
    assert not recwarn.list


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    for source, rule in (
        (TableSource(csv=str(tmp_path / "no.csv")), "no.csv: cannot be read: No such file"),
        (TableSource(folder=str(tmp_path)), "has no file that ends in .csv or .parquet"),
        (TableSource(folder=str(tmp_path / "no")), "cannot be read: No such file"),
    ):
        with pytest.raises(DataError, match=rule):
            table_records(table_of(), source)


def test_a_table_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, read = write(tmp_path / "a.csv", ROWS), module._read

    def slowly(*arguments: Any) -> Records:
        found = read(*arguments)
        write(tmp_path / "a.csv", ROWS * 2)
        return found

    monkeypatch.setattr(module, "_read", slowly)
    with pytest.raises(DataError, match="changed while it was read"):
        table_records(table_of(), source)


def test_persons_are_told_apart_and_mean_nothing_else(tmp_path: Path) -> None:
    header = ["patient", *HEADER]
    rows = [[who, *ROWS[0]] for who in ("4711", "04711", "4711", "Ada", "Ada", "4711")]
    config = table_of(person="patient")
    records = table_records(config, write(tmp_path / "a.csv", rows, header))
    assert records.person_N.tolist() == [0, 1, 0, 2, 2, 0]
    assert len(records.capped("person", 2)) == 5
    with pytest.raises(DataError, match="column 'patient': whose a record is, is missing"):
        table_records(config, write(tmp_path / "a.csv", [*rows, ["", *ROWS[0]]], header))


def said(error: BaseException) -> str:
    """All that a log could show of an error."""
    return "".join(traceback.format_exception(error))


# A value that stands in no rule, path or line of code; what it is spoilt with keeps it recognisable.
SECRETS = st.integers(10**11, 10**12 - 1).map(lambda number: f"8080{number}")


@given(data=st.data(), secret=SECRETS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_error_says_a_value_a_line_or_a_count(data: st.DataObject, secret: str) -> None:
    before, after = (data.draw(st.sampled_from(["", "x", " ", ",", '"', "\n", "-", "0.", "\x00", "é"])) for _ in "ab")
    column = data.draw(st.integers(0, len(HEADER) - 1))
    count = data.draw(st.integers(0, 40))
    rows = [list(ROWS[0]) for _ in range(count + 1)]
    rows[data.draw(st.integers(0, count))][column] = f"{before}{secret}{after}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        if data.draw(st.booleans()):
            write(path, rows, data.draw(st.sampled_from([HEADER, rows[0], HEADER[1:], [*HEADER, secret]])))
        else:  # quoted by nobody
            path.write_text("\n".join(",".join(row) for row in [HEADER, *rows]), encoding="utf-8")
        found: FedmodelError | None = None
        try:
            table_records(table_of(), TableSource(csv=str(path)))
        except FedmodelError as error:
            found = error
    if found is None:
        assert column in (0, 1)  # what is spoilt may still be a number
        return
    assert secret not in said(found)
    # The limits that are declared, and names of encodings.
    assert set(re.findall(r"[0-9]+", str(found).replace(folder, ""))) <= {"0", "120", "8", "1252", "16"}


def test_an_unforeseen_failure_says_its_kind_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for failure in (RuntimeError("63.25 in line 7"), MemoryError("array of 7 rows"), KeyError("63.25")):

        def fails(*_: object, failure: Exception = failure) -> Records:
            raise failure

        monkeypatch.setattr(module, "_read", fails)
        with pytest.raises(DataError) as refused:
            table_records(table_of(), write(tmp_path / "a.csv", ROWS))
        assert "63.25" not in said(refused.value)
        assert "rows" not in said(refused.value)


@pytest.fixture
def keys() -> tuple[str, Opener]:
    secret, recipient = new_age_key()
    return recipient, opener_from_secret(secret)


@pytest.fixture
def cache(tmp_path: Path, keys: tuple[str, Opener]) -> Cache:
    return Cache(tmp_path / "cache", (keys[0],), keys[1], "7")


def test_what_was_read_is_kept_sealed_and_comes_back(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = table_of(person="patient")
    rows = [[f"patient-{number}", *ROWS[number % 2]] for number in range(200)]
    source = write(tmp_path / "a.csv", rows, ["patient", *HEADER])
    first = table_records(config, source, cache)
    monkeypatch.setattr(module, "_read", lambda *_: pytest.fail("it was read again"))
    again = table_records(config, source, cache)
    for name in ("x_NF", "y_N", "person_N"):
        one, two = getattr(first, name), getattr(again, name)
        assert np.array_equal(one, two)
        assert one.dtype == two.dtype
    (kept,) = cache.folder.iterdir()
    assert kept.name == "admissions.age"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (cache.folder, kept)] == [0o700, 0o600]
    sealed = kept.read_bytes()
    assert sealed.startswith(b"age-encryption.org/v1")
    # Neither the source's text, nor a row or the labels as they stand in memory.
    for plain in (b"patient-1", b"malignant", first.x_NF[0].tobytes(), first.y_N[:4].tobytes()):
        assert plain not in sealed


def test_nothing_in_the_clear_is_written_anywhere(tmp_path: Path, cache: Cache) -> None:
    """Whatever is opened to be written while a table is read and kept is the sealed file alone."""
    source = write(tmp_path / "a.csv", ROWS * 50)
    written_to: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        # An open descriptor was seen when it was opened.
        if watching and event == "open" and not isinstance(arguments[0], int) and arguments[2] & os.O_ACCMODE:
            written_to.append(str(arguments[0]))

    watching = True
    sys.addaudithook(watch)
    try:
        table_records(table_of(), source, cache)
    finally:
        watching = False
    assert {Path(path).name for path in written_to} == {"admissions.age.partial"}


@pytest.mark.parametrize("harm", ["cut", "flipped", "nonsense", "another key", "padding"])
def test_a_cache_that_is_not_as_it_was_is_made_again(harm: str, tmp_path: Path, cache: Cache) -> None:
    source = write(tmp_path / "a.csv", ROWS)
    table_records(table_of(), source, cache)
    kept = cache.folder / "admissions.age"
    sealed = kept.read_bytes()
    match harm:
        case "cut":
            kept.write_bytes(sealed[:-20])
        case "flipped":
            kept.write_bytes(sealed[:-20] + bytes([sealed[-20] ^ 1]) + sealed[-19:])
        case "nonsense":
            kept.write_bytes(b"nonsense")
        case "another key":
            write_sealed(kept, b"x" * 70_000, (new_age_key()[1],))
        case _:
            write_sealed(kept, read_sealed(kept, cache.opener)[:-1], cache.recipients)
    assert table_records(table_of(), source, cache).x_NF.tolist() == EXPECTED
    assert table_records(table_of(), source, cache).x_NF.tolist() == EXPECTED
    assert len(read_sealed(kept, cache.opener)) == padded(1)


def test_a_cache_is_of_one_schema_and_one_state_of_the_source(tmp_path: Path, cache: Cache) -> None:
    source = write(tmp_path / "a.csv", ROWS)
    table_records(table_of(), source, cache)
    wider = table_records(table_of(changed("age", range=[0.0, 200.0])), source, cache)
    assert wider.x_NF[0, 0] == -0.5
    assert table_records(table_of(), source, cache).x_NF[0, 0] == 0.0
    # Of the same length, and its times set back: the change of the file is seen all the same.
    before = (tmp_path / "a.csv").stat()
    write(tmp_path / "a.csv", [["75", *ROWS[0][1:]], ROWS[1]])
    os.utime(tmp_path / "a.csv", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (tmp_path / "a.csv").stat().st_size == before.st_size
    assert table_records(table_of(), source, cache).x_NF[0, 0] == 0.5


def test_the_length_of_a_cache_says_little() -> None:
    assert padded(0) == padded(65_536)
    for size in range(1, 3_000_000, 9_973):
        assert size <= padded(size) <= max(65_536, size * 33 / 32)
    assert len({padded(size) for size in range(1_000_000, 1_100_000)}) <= 5


def scenario_of(folder: Path) -> Scenario:
    """The tiny scenario over tables in a folder."""
    document = tomllib.loads(TINY)
    document["data"] = {**table_of().model_dump(mode="json", exclude_none=True, exclude_unset=True)}
    document["data"]["folder"] = str(folder)
    return Scenario.model_validate(document)


def test_a_scenario_with_a_table_goes_through_toml_and_json(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path)
    (tmp_path / "s.toml").write_text(scenario_to_toml(scenario))
    assert read_scenario(str(tmp_path / "s.toml")) == scenario
    assert scenario_from_json(scenario.model_dump_json()) == scenario
    assert scenario.plan("north").data == "admissions"


def test_a_deployed_silo_reads_where_its_own_law_says_and_no_server(tmp_path: Path, cache: Cache) -> None:
    kit, elsewhere = tmp_path / "kit", tmp_path / "elsewhere"
    (kit / "data").mkdir(parents=True)
    elsewhere.mkdir()
    write(kit / "data" / "a.csv", ROWS)
    write(elsewhere / "north.csv", ROWS * 3)
    law = law_with({"admissions": {"csv": "data/a.csv"}})
    scenario = scenario_of(elsewhere)
    assert len(deployed_records(scenario, law, kit, cache)) == 2
    assert len(deployed_records(scenario, law, kit, None)) == 2
    with pytest.raises(ConfigError, match=r"silo.toml does not say where table 'admissions' lies; add \[tables"):
        deployed_records(scenario, law_with({}), kit, cache)
    with pytest.raises(ConfigError, match="is none of north, south, west"):
        deployed_records(scenario, law.model_copy(update={"name": "east"}), kit, cache)


def law_with(tables: dict[str, Any]) -> SiloFile:
    budget = {"unit": "record", "delta": 1e-3, "epsilon": 1.0}
    return SiloFile.model_validate({
        "name": "north", "budgets": {"admissions": budget}, "tables": tables,
        "encryption": {"secure_aggregation": "off"},
    })  # fmt: skip


def test_a_deployed_silo_caps_what_it_uses_of_a_person(tmp_path: Path) -> None:
    rows = [[who, *ROWS[0]] for who in "aaabbc"]
    write(tmp_path / "a.csv", rows, ["patient", *HEADER])
    scenario = with_persons(tmp_path)
    assert len(deployed_records(scenario, law_with({"admissions": {"csv": "a.csv"}}), tmp_path, None)) == 5


def with_persons(folder: Path) -> Scenario:
    found = json.loads(scenario_of(folder).model_dump_json(exclude_none=True))
    found["data"]["person"] = "patient"
    found["privacy"] |= {"unit": "person", "max_records": 2}
    return Scenario.model_validate(found)


def test_nothing_of_a_deployed_tables_size_is_demanded(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path / "nowhere")
    assert check_scenario(scenario, deployed=True) == 7  # a linear model of six features
    with pytest.raises(DataError, match=r"neither of held-out\.csv and held-out\.parquet"):
        check_scenario(scenario)
    for party in (*scenario.federation.silos, HELD_OUT):
        tmp_path.joinpath("nowhere").mkdir(exist_ok=True)
        write(tmp_path / "nowhere" / f"{party}.csv", ROWS)
    with pytest.raises(DataError, match=r"a lot: .*; declare a smaller lot for it, privacy\.silo\.\w+\.expected\w+$"):
        check_scenario(scenario)


def test_a_simulation_without_a_record_to_evaluate_on_is_refused_before_any_silo_is_asked(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path)
    for silo in scenario.federation.silos:
        write(tmp_path / f"{silo}.csv", ROWS)
    dropped = scenario.model_dump(mode="json", exclude_none=True)
    gap = next(column for column in dropped["data"]["columns"] if column["type"] == "float")
    gap["missing"] = "drop"
    assert gap["name"] == HEADER[0]
    for rows in ([], [["", *row[1:]] for row in ROWS]):
        write(tmp_path / f"{HELD_OUT}.csv", rows)
        with pytest.raises(DataError, match="the server's holds no record"):
            check_scenario(Scenario.model_validate(dropped))


def test_both_a_csv_and_a_parquet_file_are_one_too_many(tmp_path: Path) -> None:
    write(tmp_path / "north.csv", ROWS)
    written(tmp_path / "north.parquet", typed())
    with pytest.raises(DataError, match=r"both of north\.csv and north\.parquet there"):
        silo_records(scenario_of(tmp_path), "north")


def export(folder: Path, like: Scenario) -> Scenario:
    """Deal scikit-learn's patients into files, as each hospital would have its own, and declare them."""
    bunch = datasets.load_breast_cancer()
    names, diagnosis = list(bunch.feature_names), ["malignant", "benign"]
    owners = [*like.federation.silos, "held-out"]
    for number, owner in enumerate(owners):
        chosen = range(number, len(bunch.target), len(owners))
        write(
            folder / f"{owner}.csv",
            [[*map(repr, bunch.data[row].tolist()), diagnosis[bunch.target[row]]] for row in chosen],
            [*names, "diagnosis"],
        )
    columns = [{"name": name, "type": "float", "range": like.data.reference_ranges[name]} for name in names]
    document = json.loads(like.model_dump_json(exclude_none=True))
    document["data"] = {
        "source": "table", "name": "biopsies", "label": "diagnosis", "labels": ["benign", "malignant"],
        "columns": columns, "folder": folder.name,
    }  # fmt: skip
    return Scenario.model_validate(document)


def test_hospitals_from_files_are_the_hospitals_on_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same patients, scaled alike, through the whole of a simulation; only who got whom differs."""
    like = read_scenario("hospitals", ["rounds=2"])
    (tmp_path / "files").mkdir()
    scenario = export(tmp_path / "files", like)
    monkeypatch.chdir(tmp_path)
    assert scenario.data.shape.features == like.data.shape.features
    ours = [held_out_records(scenario), *(silo_records(scenario, silo) for silo in scenario.federation.silos)]
    theirs = [held_out_records(like), *(silo_records(like, silo) for silo in like.federation.silos)]
    rows = [sorted(bytes(row) for part in parts for row in part.x_NF) for parts in (ours, theirs)]
    assert rows[0] == rows[1]
    assert sum(int(part.y_N.sum()) for part in ours) == sum(int(part.y_N.sum()) for part in theirs)

    Path("table.toml").write_text(scenario_to_toml(scenario))
    found = []
    for name in ("table.toml", "hospitals"):
        monkeypatch.setattr(
            sys,
            "argv",
            ["fedmodel", "simulate", name, "--set", "rounds=2", "--out", f"r-{name}", "--json", "--no-report"],
        )
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        found.append(json.loads(out))
    one, two = found
    assert set(one) == set(two)
    assert set(one["metrics"]) == set(two["metrics"])
    assert one["parameters"] == two["parameters"] == 31
    assert [row["epsilon"] for row in one["privacy"]] == [row["epsilon"] for row in two["privacy"]]
    # Run from another folder, the resolved scenario still finds its files.
    monkeypatch.chdir("/")
    assert len(held_out_records(read_scenario(str(tmp_path / "r-table.toml" / "scenario.toml")))) > 0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"name": None}, "needs name"),
        ({"name": "digits"}, "needs name"),
        ({"label": None}, "needs label"),
        ({"labels": ["benign"]}, "at least two"),
        ({"labels": ["a", "a"]}, "label 'a' is named twice"),
        ({"columns": []}, r"at least one \[\[data.columns\]\]"),
        ({"columns": [COLUMNS[0], COLUMNS[0]]}, "column 'age' is named twice"),
        ({"label": "age"}, "column 'age' is the label, and a feature too"),
        ({"person": "age"}, "column 'age' is named twice"),
        ({"columns": changed("age", range=None)}, "range, a public reference range, is given"),
        ({"columns": changed("stage", range=[0.0, 1.0])}, "range, a public reference range, is given"),
        ({"columns": changed("age", range=[1.0, 1.0])}, "range must rise"),
        ({"columns": changed("age", limits=[1.0, 0.0])}, "limits must rise"),
        ({"columns": changed("smoker", limits=[0.0, 1.0])}, "limits are given with a float"),
        ({"columns": changed("stage", categories=[])}, "categories are given with a category"),
        ({"columns": changed("age", categories=["a"])}, "categories are given with a category"),
        ({"columns": changed("stage", categories=["I", "I"])}, "category 'I' is named twice"),
        ({"columns": changed("age", missing="fill")}, "fill, a public constant, is given"),
        ({"columns": changed("age", fill=3.0)}, "fill, a public constant, is given"),
        ({"columns": changed("age", missing="fill", fill="3")}, "is no float"),
        ({"columns": changed("visits", missing="fill", fill=3.5)}, "is no integer"),
        ({"columns": changed("smoker", missing="fill", fill=1)}, "is no boolean"),
        ({"columns": changed("stage", missing="fill", fill="IV")}, "is no category"),
        ({"columns": changed("age", missing="fill", fill=130.0)}, "outside its limits"),
        ({"columns": changed("age", missing="mean")}, "Input should be 'refuse', 'drop' or 'fill'"),
        ({"columns": changed("age", name="a\nb")}, "String should match pattern"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(change: dict[str, Any], rule: str) -> None:
    found = table_of().model_dump(mode="json", exclude_none=True, exclude_unset=True) | change
    with pytest.raises(ValueError, match=rule):
        TableConfig.model_validate({key: value for key, value in found.items() if value is not None})


def test_a_source_takes_no_key_of_another(tmp_path: Path) -> None:
    document = scenario_of(tmp_path).model_dump(mode="json", exclude_none=True)
    for key, value in {"held_out": 0.5, "reference_range": [0.0, 1.0], "records": 50}.items():
        with pytest.raises(ConfigError, match=rf"data\.{key} does not belong to source = 'table'; leave it out"):
            scenario_from_json(json.dumps(document | {"data": document["data"] | {key: value}}))
    document["data"] = {"source": "synthetic", "held_out": 0.5, "label": "outcome"}
    with pytest.raises(ConfigError, match=r"data\.label does not belong to source = 'synthetic'; leave it out"):
        scenario_from_json(json.dumps(document))
    document["data"] = {"source": "synthetic"}
    with pytest.raises(ConfigError, match=r"data\.held_out is missing; add it"):
        scenario_from_json(json.dumps(document))


def test_a_scenario_holds_a_table_to_its_unit_and_its_names(tmp_path: Path) -> None:
    found = json.loads(with_persons(tmp_path).model_dump_json(exclude_none=True))
    del found["data"]["person"]
    with pytest.raises(ValueError, match=r"needs data\.person"):
        Scenario.model_validate(found)
    found = json.loads(scenario_of(tmp_path).model_dump_json(exclude_none=True))
    found["federation"]["silos"] = ["north", "held-out"]
    with pytest.raises(ValueError, match="cannot be called 'held-out'"):
        Scenario.model_validate(found)
    scenario = scenario_of(tmp_path)
    homeless = scenario.model_copy(update={"data": scenario.data.model_copy(update={"folder": None})})
    with pytest.raises(ConfigError, match=r"data\.folder is missing"):
        silo_records(homeless, "north")


def test_a_silos_own_words_stand_for_true_and_false_in_text_alone(tmp_path: Path) -> None:
    words = {"yes": ["Ja", "j"], "no": ["nein"]}
    rows = [
        ["50", "5", " JA ", "II", "benign"],
        ["100", "0", "nein", "I", "malignant"],
        ["1", "1", "true", "I", "benign"],
    ]
    plain = write(tmp_path / "a.csv", rows)
    source = TableSource.model_validate({**plain.model_dump(exclude_none=True), **words})
    assert table_records(table_of(), source).x_NF[:, 2].tolist() == [1.0, -1.0, 1.0]
    with pytest.raises(DataError, match=r"say in the silo's own file which of them mean yes and no"):
        table_records(table_of(), plain)
    parquet_source = written(tmp_path / "a.parquet", typed(smoker=["j", "NEIN"]))
    own = TableSource.model_validate({**parquet_source.model_dump(exclude_none=True), **words})
    assert table_records(table_of(), own).x_NF[:, 2].tolist() == [1.0, -1.0]
    # A category goes on being its own spelling.
    stages = changed("smoker", type="category", categories=["ja", "nein"])
    assert table_records(table_of(stages), write(tmp_path / "b.csv", [["1", "1", "ja", "I", "benign"]])).x_NF[
        :, 2:4
    ].tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ({"yes": ["ja"]}, "yes and no are given together"),
        ({"yes": ["ja", "JA "], "no": ["nein"]}, "are read as one"),
        ({"yes": ["x"], "no": ["X"]}, "are read as one"),
        ({"yes": ["1"], "no": ["2"]}, "'1' is read as it is already"),
        ({"yes": ["TRUE"], "no": ["nein"]}, "'TRUE' is read as it is already"),
        ({"yes": [" "], "no": ["nein"]}, "is read as it is already"),
    ],
)
def test_words_that_could_be_read_two_ways_are_refused(words: dict[str, list[str]], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        TableSource.model_validate({"csv": "a.csv", **words})


def test_what_a_silo_does_not_say_is_not_in_its_law_nor_in_the_key_of_its_cache() -> None:
    source = TableSource(csv="a.csv")
    assert not {"yes", "no", "leave_out", "separator"} & source.model_dump().keys()
    assert "other_columns" not in table_of().model_dump_json()
    assert table_of(other_columns="ignore") != table_of()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_simulated_party_has_words_of_its_own(kind: str, tmp_path: Path) -> None:
    form: dict[str, Any] = {"yes": ["ja"], "no": ["nein"]}
    if kind == "parquet":
        written(tmp_path / "north.parquet", typed(smoker=["ja", "nein"]))
    else:
        form["separator"] = ";"
        lines = [
            ";".join(HEADER),
            *(";".join([*row[:2], word, *row[3:]]) for row, word in zip(ROWS, ("ja", "nein"), strict=True)),
        ]
        (tmp_path / "north.csv").write_text("\n".join(lines))
    scenario = scenario_of(tmp_path)
    data = table_of(folder=str(tmp_path), csv={"north": {**form, "separator": ";"}})
    records = silo_records(scenario.model_copy(update={"data": data}), "north")
    assert records.x_NF[:, 2].tolist() == [1.0, -1.0]
