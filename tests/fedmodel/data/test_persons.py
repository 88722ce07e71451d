"""One person, one normal form: a function of the id's own characters, idempotent, and refused where it is none."""

from __future__ import annotations

import csv
import hashlib
import json
import sqlite3
import sys
import tomllib
import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fedmodel.config import (
    BudgetConfig,
    PersonColumn,
    PersonForm,
    Scenario,
    SiloFile,
    TableSource,
    read_scenario,
    read_silo_file,
    silo_file_to_toml,
)
from fedmodel.crypto.sealed import new_age_key, opener_from_secret
from fedmodel.data import (
    Cache,
    Records,
    deployed_records,
    lookalikes,
    silo_records,
    table_lookalikes,
    table_records,
)
from fedmodel.data import tables as module
from fedmodel.data.persons import EXACT, LONGEST, Id, normal_id, normal_ids
from fedmodel.data.sources import identity
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.sources.table import TableConfig
from fedmodel.provision import provision
from scenarios.cli import main
from scenarios.simulation.simulate import check_scenario
from tests.conftest import TINY

FORMS: tuple[PersonForm, ...] = get_args(PersonForm)

ONE_PERSON: list[tuple[PersonForm, str, list[Id]]] = [
    ("text", "P-000", ["P-000", "P-000 ", " P-000", "\tP-000\r\n", "P-000\u00a0", "\u3000P-000", "P-000\u2003\u202f"]),
    ("text", "P-000", ["P-000\ufeff", "\ufeffP-000", "\u200bP-000\u200b", "P-000\u200e", "\u2060P-000", "P-000\x85"]),
    ("text", "P-000", [b"P-000", b"P-000 ", "P-000" + 300 * " ", "Ｐ－０００", "P\uff0d000"]),
    ("text", "é 1", ["é 1", "e\u0301 1", "é\u00a01", "é\u30001", " é 1 "]),
    ("text", "ガ1", ["ガ1", "カ\u30991", "ｶﾞ1"]),
    ("text", "7", ["7", 7, "7 ", Decimal(7), Decimal("7.00"), "７", np.int8(7).item()]),
    ("text", "-7", ["-7", -7, " -7"]),
    ("text", "007", ["007", "007 "]),
    ("text", "12345678901234567890", ["12345678901234567890", 12345678901234567890, Decimal("12345678901234567890")]),
    ("caseless", "p-000", ["P-000", "p-000", " P-000 ", "Ｐ－０００"]),
    ("caseless", "strasse", ["Straße", "STRASSE", "strasse"]),
    ("caseless", "é1", ["É1", "é1", "E\u03011", "e\u03011"]),
    ("caseless", "k1", ["K1", "k1", "\u212a1"]),
    ("digits", "7", ["7", "007", " 7", "7 ", "7\u00a0", "+7", "7.", "7.0", "7.00", 7, 7.0, Decimal("7.0"), "٧", "７"]),
    ("digits", "1000", ["1000", "1e3", "1E3", "1e+03", "1.0E3", 1e3, "01000", "1.000e3", b"1000"]),
    ("digits", "1234", ["1234", "1.234e3", "1.2340e3", "1.234E+003", "1234.0", 1234.0]),
    ("digits", "0", ["0", "000", "0.0", 0, -0.0, "0.000", "0e5"]),
    ("digits", str(EXACT - 1), [EXACT - 1, float(EXACT - 1), f"{EXACT - 1}.0", f"000{EXACT - 1}"]),
    ("digits", "9" * 40, ["9" * 40, "0" + "9" * 40, Decimal("9" * 40)]),
]  # fmt: skip


@pytest.mark.parametrize(("form", "normal", "spellings"), ONE_PERSON)
def test_one_person_has_one_normal_form(form: PersonForm, normal: str, spellings: list[Id]) -> None:
    assert {normal_id(spelling, form) for spelling in spellings} == {normal}


@pytest.mark.parametrize(
    ("form", "ids"),
    [
        ("text", ["P-000", "p-000", "P-00", "P000", "P 000", "P  000", "P_000", "Р-000"]),  # the last in Cyrillic
        ("text", ["7", "07", "007", "+7", "-7", "1e5", "1E5", "100000", "٧"]),
        ("text", ["12", "1²", "1₂", "1②"]),  # NFKC would make them one
        ("caseless", ["P-000", "P000", "P-00", "é", "e"]),
        ("digits", [7, 70, "77", 700, EXACT, EXACT + 1, EXACT + 2]),
    ],
)
def test_two_persons_are_two(form: PersonForm, ids: list[Id]) -> None:
    assert len({normal_id(one, form) for one in ids}) == len(ids)


REFUSED: list[tuple[str, tuple[PersonForm, ...], list[Id]]] = [
    ("is empty, or nothing but space", FORMS, ["", " ", "\t\n", "\u3000\ufeff\u200b", b"", b"  ", "\u3164", "\ufe0f"]),
    ("has a control, an invisible or an unassigned character in it", FORMS,
     ["1\x002", "1\x1b2", "1\t2", "1\n2", "1\u200b2", "1\u00ad2", "1\u202e2", "1\ufeff2", "1\u20282", "1\ue0002",
      "1\u0378", "\ud8001", "1\u034f2", "1\u28002", b"1\x00", "1\x1f", "1\x7f"]),
    ("has no letter and no digit", FORMS, ["-", "?", ".", "--", "_", "…", "+"]),
    ("is what programs write where an id is missing", FORMS,
     ["nan", "NaN", "None", "NULL", "null ", "NA", "n/a", "<NA>", "#N/A", "NaT", "\\N", "ＮＵＬＬ", "-inf", "(null)"]),
    ("is bytes that are not text in UTF-8", FORMS, [b"\xff\xfe7", b"\x80"]),
    ("is no whole number", FORMS, [float("nan"), float("inf"), float("-inf"), 7.5, Decimal("7.5"), Decimal("NaN"),
                                   Decimal("-Infinity")]),
    ("is longer than 200 characters", FORMS, ["7" * (LONGEST + 1), 10**LONGEST, 10**5_000, Decimal("1e99999")]),
    ("is a number with a fraction or an exponent", ("text", "caseless"),
     ["7.0", "007.00", "1e+05", "1.2e+3", "1.0E7", "-7.0", "７．０"]),
    ('is of a type with a fraction; declare form = "digits"', ("text", "caseless"), [7.0, -7.0]),
    ("is no whole number, which is all that form", ("digits",),
     ["P-7", "7a", "-7", -7, "1,000", "1 000", "1_000", "0x7", "1.000.000", "7..0", "١٫٥", "²", "1e-3", "1e", "e3",
      ".5", "7e1234"]),
    ("has a fraction", ("digits",), ["7.5", "7.01", "1.5e0", "12.345", "1.23e1"]),
    ("could be thousands", ("digits",), ["1.000", "12.000", "999.000"]),
    ("has an exponent that may hide digits", ("digits",), ["1.23457e+11", "1.2e3", "12e3", "1.00e11", "1e+06",
     "1e6", "1.0E7", "1.0e+06", "1e16", "9e99", "7e123"]),
    ("went through floating point", ("digits",), [f"{EXACT}.0", f"{EXACT + 1}.0"]),
    ("is too large a number for its type", ("digits",), [float(EXACT), 1e300]),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "forms", "ids"), REFUSED)
def test_what_a_form_does_not_admit_is_refused_by_its_rule(
    rule: str, forms: tuple[PersonForm, ...], ids: list[Id]
) -> None:
    for form in forms:
        for one in ids:
            with pytest.raises(DataError, match=r".") as refused:
                normal_id(one, form)
            assert str(refused.value).startswith(rule), (form, one)


def grouped(ids: list[Any], form: PersonForm) -> list[str | None]:
    """What each id becomes, None where it is refused."""
    found: list[str | None] = []
    for one in ids:
        try:
            found.append(normal_id(one, form))
        except DataError:
            found.append(None)
    return found


SPELLINGS = st.one_of(
    st.text(max_size=8),
    st.text("0123456789.eE+- \u00a0\u3000\ufeffPp７", max_size=8),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.decimals(allow_nan=True),
    st.binary(max_size=5),
)


@given(SPELLINGS, st.sampled_from(FORMS))
@settings(max_examples=600)
def test_a_normal_form_is_its_own(one: Id, form: PersonForm) -> None:
    (normal,) = grouped([one], form)
    if normal is not None:
        assert normal_id(normal, form) == normal
        assert normal == unicodedata.normalize("NFC", normal)
        assert 0 < len(normal) <= LONGEST
        assert normal == normal.strip()


def test_every_character_there_is_has_one_normal_form_or_is_refused() -> None:
    """At each end and inside: what is admitted is idempotent, in NFC and visible."""
    many = (range(0x3400, 0xA000), range(0xAC00, 0xD7A4), range(0xD800, 0xF900), range(0x17000, sys.maxunicode + 1))
    rare = [code for block in many for code in block[::101]]
    codes = [code for code in range(0x17000) if not any(code in block for block in many)]
    for code in [*codes, *rare, *range(0xE0000, 0xE0200), *range(0x1D400, 0x1D800), sys.maxunicode]:
        for form in FORMS:
            for spelling in (f"{chr(code)}7{chr(code)}", f"7{chr(code)}7"):
                (normal,) = grouped([spelling], form)
                if normal is not None:
                    assert normal_id(normal, form) == normal == unicodedata.normalize("NFC", normal), hex(code)
                    assert not {unicodedata.category(one) for one in normal} & {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}


@given(
    st.integers(0, EXACT - 1), st.integers(0, 4), st.sampled_from(["", ".", ".0", ".00"]), st.sampled_from(["", "+"])
)
def test_digits_are_one_number_however_they_are_written(number: int, zeros: int, end: str, sign: str) -> None:
    assert normal_id(f" {sign}{'0' * zeros}{number}{end}", "digits") == str(number)
    assert normal_id(number, "digits") == normal_id(float(number), "digits") == str(number)
    assert normal_id(number, "text") == str(number)


@given(st.text(min_size=1, max_size=6), st.integers(0, 3), st.sampled_from(FORMS))
def test_no_message_holds_a_part_of_an_id(noise: str, place: int, form: PersonForm) -> None:
    begin, end = "8080417733"[: 3 * place], "8080417733"[3 * place :]
    told = ""
    try:
        normal_id(begin + noise + end, form)
    except DataError as error:
        told = str(error)
    assert not any(part in told for part in (begin, end) if len(part) > 2)


# Through files, folders and queries.

COLUMNS = [{"name": "age", "type": "float", "range": [0.0, 100.0]}]


def table_of(form: PersonForm = "text", **more: Any) -> TableConfig:
    return TableConfig.model_validate({
        "source": "table", "name": "ward", "label": "ill", "labels": ["no", "yes"], "columns": COLUMNS,
        "person": {"column": "patient", "form": form}, **more,
    })  # fmt: skip


def write_csv(path: Path, ids: list[str]) -> TableSource:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["patient", "age", "ill"], *([one, place, "no"] for place, one in enumerate(ids))])
    return TableSource(csv=str(path))


def write_parquet(path: Path, ids: pa.Array) -> TableSource:
    rows = len(ids)
    parquet.write_table(
        pa.table({"patient": ids, "age": [float(row) for row in range(rows)], "ill": ["no"] * rows}), path
    )
    return TableSource(parquet=str(path))


def persons(records: Records) -> list[int]:
    return [int(person) for person in records.person_N]


def test_one_person_in_a_folder_of_every_format_is_one(tmp_path: Path) -> None:
    """The unit's cap counts her records together, whatever the type of the column that her id stood in."""
    typed: dict[str, pa.Array] = {
        "int64": pa.array([7]), "uint8": pa.array([7], pa.uint8()), "float64": pa.array([7.0]),
        "float32": pa.array([7.0], pa.float32()), "decimal": pa.array([Decimal("7.00")]), "string": pa.array([" 007"]),
        "large": pa.array(["7.0"], pa.large_string()), "view": pa.array(["7"], pa.string_view()),
        "binary": pa.array([b"7 "]), "fixed": pa.array([b"07"], pa.binary(2)),
        "dictionary": pa.array(["+7"]).dictionary_encode(), "codes": pa.array([7, 7][:1]).dictionary_encode(),
    }  # fmt: skip
    for name, ids in typed.items():
        write_parquet(tmp_path / f"{name}.parquet", ids)
    write_csv(tmp_path / "a.csv", ["7", "7\u00a0", "７", "8"])
    records = table_records(table_of("digits"), TableSource(folder=str(tmp_path)))
    assert len(records) == len(typed) + 4
    assert len(set(persons(records))) == 2
    assert len(records.capped("person", 1)) == 2


def test_a_query_and_a_file_have_the_same_normal_forms(tmp_path: Path) -> None:
    spellings = ["P-000", "P-000 ", "\u3000P-000", "P-001", "p-000"]
    database = sqlite3.connect(tmp_path / "ward.sqlite")
    database.execute("CREATE TABLE ward (patient TEXT, age REAL, ill TEXT)")
    database.executemany("INSERT INTO ward VALUES (?, ?, 'no')", [(one, float(at)) for at, one in enumerate(spellings)])
    database.commit()
    database.close()
    source = TableSource(url=f"sqlite:///{tmp_path}/ward.sqlite", query="SELECT patient, age, ill FROM ward")
    for found in (source, write_csv(tmp_path / "a.csv", spellings)):
        records = table_records(table_of(), found)
        assert len(set(persons(records))) == 3
        assert persons(records)[0] == persons(records)[1] == persons(records)[2]


@given(st.lists(st.sampled_from(["7", "07", "7 ", "8", "８", "P", "p", "P\u00a0", "9.0", "09"]), min_size=1), st.data())
@settings(max_examples=60, deadline=None)
def test_a_records_companions_do_not_regroup_it(ids: list[str], data: st.DataObject) -> None:
    """The grouping of some records is the grouping of all, restricted to them: in each form, whatever else is there."""
    form = data.draw(st.sampled_from(FORMS))
    ids = [one for one, normal in zip(ids, grouped(ids, form), strict=True) if normal is not None]
    kept = [one for one in ids if data.draw(st.booleans())]
    places = [place for place, one in enumerate(ids) if one in kept]
    whole, part = (_grouping([ids[place] for place in chosen], form) for chosen in (range(len(ids)), places))
    assert [[whole[one] == whole[two] for two in places] for one in places] == [
        [one == two for two in part] for one in part
    ]


def _grouping(ids: list[str], form: PersonForm) -> list[int]:
    config = table_of(form)
    assert config.person is not None
    normal = normal_ids(pa.chunked_array([pa.array(ids, pa.string())]), config.person.form, "here")
    return [int(one) for one in module._numbered([normal])]


def test_a_refused_id_is_told_by_table_file_row_and_rule_and_not_itself(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["4711"])
    write_csv(tmp_path / "b.csv", ["4712", "8080-secret", "4713"])
    with pytest.raises(DataError) as refused:
        table_records(table_of("digits"), TableSource(folder=str(tmp_path)))
    assert str(refused.value) == (
        f"table 'ward', column 'patient': the id in row 2 of {tmp_path / 'b.csv'} is no whole number, which is all that"
        ' form = "digits" admits (form = "digits")'
    )
    with pytest.raises(DataError, match=rf"missing in row 2 of {tmp_path / 'a.csv'}; leave such records out"):
        table_records(table_of(), write_csv(tmp_path / "a.csv", ["x", ""]))


@pytest.mark.parametrize("ids", [pa.array([True]), pa.array([1], pa.date32()), pa.array([[7]])])
def test_an_id_is_text_or_a_number(ids: pa.Array, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an id is text or a whole number"):
        table_records(table_of("digits"), write_parquet(tmp_path / "a.parquet", ids))


def test_a_narrow_float_is_held_to_what_it_can_tell_apart(tmp_path: Path) -> None:
    for kind, limit in ((pa.float32(), 2**24), (pa.float64(), EXACT)):
        source = write_parquet(tmp_path / "a.parquet", pa.array([float(limit - 1)], kind))
        assert len(table_records(table_of("digits"), source)) == 1
        with pytest.raises(DataError, match="too large a number for its type"):
            table_records(table_of("digits"), write_parquet(tmp_path / "a.parquet", pa.array([float(limit)], kind)))


def test_a_cache_that_was_made_under_another_form_is_not_used(tmp_path: Path) -> None:
    secret, recipient = new_age_key()
    cache = Cache(tmp_path / "cache", (recipient,), opener_from_secret(secret), "7")
    source = write_csv(tmp_path / "a.csv", ["7", "07", "7"])
    for _ in "again":
        assert len(set(persons(table_records(table_of("text"), source, cache)))) == 2
        assert len(set(persons(table_records(table_of("digits"), source, cache)))) == 1
        own = source.model_copy(update={"person": PersonColumn(column="patient", form="digits")})
        assert len(set(persons(table_records(table_of("text"), own, cache)))) == 1


def test_what_was_kept_before_ids_had_a_form_is_not_used(tmp_path: Path) -> None:
    """Under the very key that it was kept under: of the declaration and of the source as it is."""
    secret, recipient = new_age_key()
    cache = Cache(tmp_path / "cache", (recipient,), opener_from_secret(secret), "7")
    source, config = write_csv(tmp_path / "a.csv", ["P-0", "P-0 "]), table_of(person="patient")
    declared = hashlib.sha256(config.model_dump_json(exclude={"folder"}).encode()).digest()
    old = hashlib.sha256(b"fedmodel/v1/table-key" + declared + identity(source, "7")).digest()
    split = Records(np.zeros((2, 1), np.float32), np.zeros(2, np.int64), np.arange(2))
    cache.put("ward", old, split)
    assert cache.get("ward", old, (1,), config.shape.targets) is not None
    assert persons(table_records(config, source, cache)) == [0, 0]


# What a form tells apart, and a person may not.


@given(st.lists(st.text("Pp07-_ .e", min_size=1, max_size=5)), st.sampled_from(FORMS))
def test_lookalikes_are_of_several_persons_and_each_stands_in_one_group(ids: list[str], form: PersonForm) -> None:
    normal = [one for one in grouped(ids, form) if one is not None]
    groups = lookalikes(normal)
    told = [one for group in groups for one in group]
    assert len(told) == len(set(told))
    assert set(told) <= set(normal)
    assert all(len(group) > 1 for group in groups)
    assert lookalikes(normal * 2) == groups


def test_lookalikes_of_a_table_are_told_by_place_and_not_by_id(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "a.csv", ["P-7", "P-8", "P-7 ", "p-7"])
    write_parquet(tmp_path / "data" / "b.parquet", pa.array(["P-007", "Q"]))
    source, column = TableSource(folder=str(tmp_path / "data")), PersonColumn(column="patient")
    first, second = (str(tmp_path / "data" / name) for name in ("a.csv", "b.parquet"))
    assert table_lookalikes(source, column) == [(f"row 1 of {first}", f"row 4 of {first}", f"row 1 of {second}")]
    assert table_lookalikes(source, PersonColumn(column="patient", form="caseless")) == [
        (f"row 1 of {first}", f"row 1 of {second}")
    ]
    with pytest.raises(DataError, match=r"the id in row 1 of .* is no whole number"):
        table_lookalikes(source, PersonColumn(column="patient", form="digits"))
    with pytest.raises(DataError, match="has no column 'nobody'"):
        table_lookalikes(source, PersonColumn(column="nobody"))


def test_lookalikes_of_a_query_are_found_too(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "ward.sqlite")
    database.execute("CREATE TABLE ward (patient TEXT, name TEXT)")
    database.executemany("INSERT INTO ward VALUES (?, 'x')", [("007",), ("8",), ("7",)])
    database.commit()
    database.close()
    source = TableSource(url=f"sqlite:///{tmp_path}/ward.sqlite", query="SELECT name, patient FROM ward")
    assert table_lookalikes(source, PersonColumn(column="patient")) == [("row 1 of the query", "row 3 of the query")]
    assert table_lookalikes(source, PersonColumn(column="patient", form="digits")) == []


def test_the_silos_own_people_see_lookalikes_and_what_the_form_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def policy(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["fedmodel", "silo", "policy", str(kit), "--ids", *options])
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert not ended.value.code
        return capsys.readouterr().out

    scenario = read_scenario("quickstart")
    provision(scenario, tmp_path)
    kit = tmp_path / "silos" / scenario.federation.silos[0]
    law = read_silo_file(kit / "silo.toml")
    tables = {
        "ward": TableSource(csv="data.csv", person=PersonColumn(column="patient", form="caseless")),
        "lab": TableSource(csv="lab.csv"),
    }
    budget = BudgetConfig(unit="person", max_records=2, delta=1e-5, epsilon=1.0)
    law = law.model_copy(update={"tables": tables, "budgets": {**law.budgets, "ward": budget, "lab": budget}})
    (kit / "silo.toml").write_text(silo_file_to_toml(law), encoding="utf-8")
    write_csv(kit / "data.csv", ["P-7", "p-7", "P-07", "Q-1"])
    told = json.loads(policy("--json"))
    assert told["lookalikes"] == {"ward": [[f"row 1 of {kit}/data.csv", f"row 3 of {kit}/data.csv"]]}
    assert told["policy"]["tables"]["ward"]["person"] == {"column": "patient", "form": "caseless"}
    sentences = " ".join(told["sentences"])
    assert (
        "Whose record of ward it is, is said by column 'patient': ids are one person's if they are alike but for case"
        in (sentences)
    )
    assert "Whose record of lab it is, is said by the column that the scenario names" in sentences
    assert f"They look like one person's: row 1 of {kit}/data.csv, row 3 of {kit}/data.csv." in sentences
    assert "P-7" not in sentences
    write_csv(kit / "data.csv", ["P-7", "Q-1"])
    assert "No two ids of ward look alike." in " ".join(policy().split())


# Whose word the form is.


def test_a_column_by_its_name_alone_is_text_and_is_written_back_as_it_was() -> None:
    short = table_of(person="patient")
    assert short.person == PersonColumn(column="patient", form="text")
    assert '"person":"patient"' in short.model_dump_json()
    assert table_of("digits").model_dump()["person"] == {"column": "patient", "form": "digits"}
    for one in (short, table_of("digits")):
        assert TableConfig.model_validate_json(one.model_dump_json()) == one


def law_of(**table: Any) -> SiloFile:
    return SiloFile.model_validate({
        "name": "north", "tables": {"ward": {"csv": "a.csv", **table}}, "encryption": {"secure_aggregation": "off"},
        "budgets": {"ward": {"unit": "person", "max_records": 1, "delta": 1e-3, "epsilon": 1.0}},
    })  # fmt: skip


def scenario_of(form: PersonForm) -> Scenario:
    document = tomllib.loads(TINY)
    document["data"] = table_of(form).model_dump(mode="json", exclude_none=True, exclude_unset=True)
    document["privacy"] |= {"unit": "person", "max_records": 1}
    return Scenario.model_validate(document)


def test_a_deployed_silo_tells_persons_apart_as_its_own_file_says_and_no_server(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["7", "07", "8"])

    def counted(form: PersonForm, **table: Any) -> int:
        return len(deployed_records(scenario_of(form), law_of(**table), tmp_path, None))

    assert counted("text") == counted("text", person="patient") == 3
    assert counted("text", person={"column": "patient", "form": "digits"}) == 2
    assert counted("digits", person={"column": "patient", "form": "digits"}) == 2
    assert counted("digits", person={"column": "patient", "form": "text"}) == 3
    with pytest.raises(ConfigError, match=r"silo.toml does not say so; if that is right add person = \{column"):
        counted("digits")
    with pytest.raises(
        ConfigError, match="by column 'patient' whose a record is, and this party's own file by 'visit'"
    ):
        counted("text", person="visit")


def test_a_person_with_two_spellings_is_not_sampled_twice(tmp_path: Path) -> None:
    """Thirty persons, each with a second record whose id ends in a space: too few for a lot of forty."""
    for party in ("north", "south", "west", "held-out"):
        write_csv(tmp_path / f"{party}.csv", [f"P-{at:03}{space}" for at in range(30) for space in ("", " ")])
    document = scenario_of("text").model_dump(mode="json", exclude_none=True)
    document["data"]["folder"] = str(tmp_path)
    document["privacy"]["expected_batch_size"] = 40
    scenario = Scenario.model_validate(document)
    assert len(silo_records(scenario, "north")) == 30
    with pytest.raises(DataError, match="silo 'north' holds fewer records than a lot"):
        check_scenario(scenario)


@given(st.integers(1, 10**9), st.integers(1, 17), st.sampled_from("ge"))
def test_what_a_writer_of_floats_rounded_is_no_other_persons_id(number: int, digits: int, how: str) -> None:
    """By C's own writer at six significant digits and more: it is refused, or it is the number it was written from."""
    written = f"{number:.{max(digits, 6)}{how}}"
    try:
        assert normal_id(written, "digits") == str(number)
    except DataError:
        assert "e" in written or "." in written


@pytest.mark.parametrize("number", range(1_000_000, 1_000_005))
def test_a_million_and_a_few_are_not_one_person(number: int) -> None:
    with pytest.raises(DataError, match="an exponent that may hide digits"):
        normal_id(f"{number:g}", "digits")


@pytest.mark.parametrize("form", ["text", "caseless", "digits"])
@pytest.mark.parametrize("space", ["\t", "\n", "\v", "\f", "\r", "\x85", "\u2028", "\u2029"])
def test_an_inner_tab_or_end_of_a_line_is_refused_and_an_outer_one_dropped(form: PersonForm, space: str) -> None:
    with pytest.raises(DataError, match="has a control"):
        normal_id(f"7{space}8", form)
    assert normal_id(f"{space}78{space}", form) == "78"
