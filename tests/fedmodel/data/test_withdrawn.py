"""Who withdrew is in a sealed list, and a table is read as if their rows were not in it."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fedmodel.config import PersonColumn, TableSource
from fedmodel.crypto.sealed import new_age_key, opener_from_secret, read_sealed, write_sealed
from fedmodel.data import Cache, Withdrawals, Withdrawn, add_withdrawn, read_withdrawn, table_records
from fedmodel.data.records import Records
from fedmodel.data.withdrawn import WITHDRAWN
from fedmodel.errors import ConfigError, DataError
from tests.fedmodel.data.test_tables import HEADER, ROWS, table_of, write

WITH_IDS = ["patient", *HEADER]
SPELLED = ["7", "007", " 7", "7.0", "8", "09", "9", "10"]  # of four persons, by form "digits"
PERSON = {"column": "patient", "form": "digits"}


def who(*ids: str, person: Any = "patient") -> Withdrawn:
    """Persons who withdrew."""
    declared = table_of(person=person).person
    assert declared is not None
    return Withdrawn(declared, frozenset(ids))


def alike(one: Records, other: Records) -> bool:
    """Whether two are the same records, in the same order, and of the same persons by whatever numbers."""
    grouped = [[person == first for person in found.person_N for first in found.person_N] for found in (one, other)]
    return np.array_equal(one.x_NF, other.x_NF) and np.array_equal(one.y_N, other.y_N) and grouped[0] == grouped[1]


def laid(folder: Path, kind: str, rows: list[list[str]]) -> TableSource:
    """A table of rows as CSV, Parquet or a database has it, with its own word on whose a row is."""
    if kind == "csv":
        return write(folder / "a.csv", rows, WITH_IDS).model_copy(update={"person": table_of(person=PERSON).person})
    types = [str, float, int, lambda text: text == "true", str, str]
    columns = {name: [of(row[at]) for row in rows] for at, (name, of) in enumerate(zip(WITH_IDS, types, strict=True))}
    if kind == "parquet":
        arrow = [pa.string(), pa.float64(), pa.int64(), pa.bool_(), pa.string(), pa.string()]
        table = pa.table(
            {name: pa.array(column, of) for (name, column), of in zip(columns.items(), arrow, strict=True)}
        )
        parquet.write_table(table, folder / "a.parquet")
        return TableSource.model_validate({"parquet": str(folder / "a.parquet"), "person": PERSON})
    (folder / "a.db").unlink(missing_ok=True)
    with sqlite3.connect(folder / "a.db") as connection:
        connection.execute("CREATE TABLE t (patient TEXT, age REAL, visits INT, smoker INT, stage TEXT, outcome TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", zip(*columns.values(), strict=True))
    connection.close()
    query = {"url": f"sqlite:///{folder / 'a.db'}", "query": "SELECT * FROM t", "person": PERSON}
    return TableSource.model_validate(query)


@pytest.mark.parametrize("kind", ["csv", "parquet", "database"])
@given(whose=st.lists(st.sampled_from(SPELLED), max_size=8), gone=st.sets(st.sampled_from(SPELLED)))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_table_reads_as_if_the_rows_of_who_withdrew_were_not_in_it(
    tmp_path: Path, kind: str, whose: list[str], gone: set[str]
) -> None:
    """Whichever way an id is spelled in the list and in the table, and whether the scenario is of persons or not."""
    rows = [[one, str(10 + at), *ROWS[at % 2][1:]] for at, one in enumerate(whose)]
    persons = {int(float(one)) for one in gone}
    left = [row for row in rows if int(float(row[0])) not in persons]
    for config in (table_of(person=PERSON), table_of(other_columns="ignore")):
        found = table_records(config, laid(tmp_path, kind, rows), withdrawn=who(*gone, person=PERSON))
        assert alike(found, table_records(config, laid(tmp_path, kind, left)))


def test_nothing_else_of_their_rows_is_looked_at(tmp_path: Path) -> None:
    """Not even what would refuse the table."""
    rows = [["7", *ROWS[0]], ["8", "x", "", "perhaps", "IX", "unknown"], ["9", *ROWS[1]]]
    source = write(tmp_path / "a.csv", rows, WITH_IDS)
    with pytest.raises(DataError, match="column 'age'"):
        table_records(table_of(person="patient"), source)
    assert len(table_records(table_of(person="patient"), source, withdrawn=who("8"))) == 2


def test_the_column_is_read_where_the_scenario_does_not_know_it_and_the_silo_leaves_it_out(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", [[one, *ROWS[0]] for one in "778"], WITH_IDS)
    own = TableSource.model_validate({**source.model_dump(), "person": "patient", "leave_out": ["patient"]})
    assert len(table_records(table_of(), own)) == 3
    assert len(table_records(table_of(), own, withdrawn=who("7"))) == 1
    assert own.leave_out == ("patient",)


def test_a_list_goes_on_by_its_own_word_on_whose_a_row_is(tmp_path: Path) -> None:
    """Where its file says nothing of it any more, "007" is still "7"; where it says otherwise, nothing is read."""
    source = write(tmp_path / "a.csv", [[one, *ROWS[0]] for one in ("7", "007", "8")], WITH_IDS)
    gone = who("7", person=PERSON)
    assert len(table_records(table_of(person="patient"), source, withdrawn=gone)) == 1
    assert len(table_records(table_of(other_columns="ignore"), source, withdrawn=gone)) == 1
    own = TableSource.model_validate({**source.model_dump(), "person": "patient"})
    with pytest.raises(ConfigError, match="run `silo withdraw` again"):
        table_records(table_of(person="patient"), own, withdrawn=gone)


def test_a_list_that_cannot_be_applied_refuses_the_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'patient' is missing"):
        table_records(table_of(), write(tmp_path / "a.csv", ROWS), withdrawn=who("7"))
    rows = write(tmp_path / "a.csv", [["P-4711", *ROWS[0]]], WITH_IDS)
    with pytest.raises(DataError, match=r"the id in row 1 of .* is no whole number") as refused:
        table_records(table_of(person="patient"), rows, withdrawn=who("7", person=PERSON))
    assert "4711" not in str(refused.value)


def test_what_was_kept_before_they_withdrew_is_not_used(tmp_path: Path) -> None:
    secret, recipient = new_age_key()
    cache = Cache(tmp_path / "cache", (recipient,), opener_from_secret(secret), "1")
    source = write(tmp_path / "a.csv", [[one, *ROWS[0]] for one in "778"], WITH_IDS)
    config, lists = table_of(person="patient"), (None, who("7"), who("7"), who("8"), who(), None)
    assert [len(table_records(config, source, cache, gone)) for gone in lists] == [3, 1, 1, 2, 3, 3]


@pytest.fixture
def keys() -> tuple[str, str]:
    return new_age_key()


def test_the_list_grows_and_its_file_tells_nothing(tmp_path: Path, keys: tuple[str, str]) -> None:
    secret, recipient = keys
    opener = opener_from_secret(secret)
    assert read_withdrawn(tmp_path, opener) == Withdrawals()
    add_withdrawn(tmp_path, opener, recipient, {"ward": who("P-4711")})
    path = tmp_path / WITHDRAWN
    before = len(read_sealed(path, opener))  # age itself adds to a file what is drawn anew each time
    more = {"ward": who("P-4712", "P-4711"), "again": who(*(f"{number:05d}" for number in range(3_000)))}
    add_withdrawn(tmp_path, opener, recipient, more)
    found = read_withdrawn(tmp_path, opener).tables
    assert found["ward"] == who("P-4711", "P-4712")
    assert len(found["again"].ids) == 3_001  # a table that is new to the list begins with who is on it
    assert "4711" not in repr(found)
    assert len(read_sealed(path, opener)) == before == 65_536
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"4711" not in path.read_bytes()
    assert [one.name for one in tmp_path.iterdir()] == [WITHDRAWN]


def broken(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "cut":
        del data[-1]
    else:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "flipped", "another's", "not ours", "a folder", "newer"])
def test_a_list_that_does_not_open_is_not_taken_for_none(tmp_path: Path, keys: tuple[str, str], how: str) -> None:
    secret, recipient = keys
    opener: Any = opener_from_secret(secret)
    add_withdrawn(tmp_path, opener, recipient, {"ward": who("7")})
    path = tmp_path / WITHDRAWN
    if how == "another's":
        opener = opener_from_secret(new_age_key()[0])
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    elif how in ("not ours", "newer"):
        path.unlink()
        write_sealed(path, b"[]" if how == "not ours" else b'{"version": 3, "tables": {}}', (recipient,))
    elif how != "another's":
        broken(path, how)
    with pytest.raises(DataError, match=r"withdrawn\.age: ") as refused:
        read_withdrawn(tmp_path, opener)
    assert refused.value.code == "internal"
    with pytest.raises(DataError):
        add_withdrawn(tmp_path, opener, recipient, {"ward": who("8")})


def test_the_newest_form_is_that_of_all_ids_of_a_table_and_of_one_column(tmp_path: Path, keys: tuple[str, str]) -> None:
    secret, recipient = keys
    opener = opener_from_secret(secret)
    add_withdrawn(tmp_path, opener, recipient, {"ward": who("007", "8")})
    old = table_of(person="patient").person
    add_withdrawn(tmp_path, opener, recipient, {"ward": who("9", person=PERSON)}, {"old": old})
    add_withdrawn(tmp_path, opener, recipient, {"old": who("P-1")})
    found = read_withdrawn(tmp_path, opener).tables
    assert (found["ward"], found["ward"].normal()) == (who("007", "8", "9", person=PERSON), ["7", "8", "9"])
    with pytest.raises(DataError, match="an id that was entered before is no whole number"):
        add_withdrawn(tmp_path, opener, recipient, {"old": who("2", person=PERSON)})
    with pytest.raises(DataError, match=r"are of column 'patient', and silo\.toml says 'case'"):
        add_withdrawn(tmp_path, opener, recipient, {"ward": Withdrawn(PersonColumn(column="case"), frozenset("1"))})
    assert read_withdrawn(tmp_path, opener).tables == found


TEXT = table_of(person="patient").person
DIGITS = table_of(person=PERSON).person
CASE = PersonColumn(column="case")


def test_a_table_that_the_list_does_not_have_is_read_without_everybody_on_it(
    tmp_path: Path, keys: tuple[str, str]
) -> None:
    """It may be one of those under another name; where its rows are not known as theirs, it is not read."""
    secret, recipient = keys
    opener = opener_from_secret(secret)
    assert Withdrawals().of("ward-2027", None) is None
    add_withdrawn(tmp_path, opener, recipient, {"ward": who("3", person=PERSON)}, {"lab": CASE})
    found = read_withdrawn(tmp_path, opener)
    assert found.of("ward-2027", DIGITS) == found.of("ward", None) == who("3", person=PERSON)
    assert found.of("lab", CASE) is found.of("lab", DIGITS) is None
    for other in (None, TEXT, CASE):
        with pytest.raises(
            DataError, match=r"table 'ward-2027': persons withdrew from ward, and silo\.toml"
        ) as refused:
            found.of("ward-2027", other)
        assert refused.value.code == "internal"
    both = Withdrawals({**found.tables, "old": who("4")})
    for other in (DIGITS, TEXT):  # each knows one of the two
        with pytest.raises(DataError, match="from old, ward, and"):
            both.of("ward-2027", other)


def test_a_table_that_is_new_to_the_list_begins_with_everybody_on_it(tmp_path: Path, keys: tuple[str, str]) -> None:
    secret, recipient = keys
    opener = opener_from_secret(secret)
    add_withdrawn(tmp_path, opener, recipient, {"ward": who("3", person=PERSON)})
    with pytest.raises(DataError, match=r"from 'ward' by column 'patient', and silo\.toml says 'case' here"):
        add_withdrawn(tmp_path, opener, recipient, {"lab": Withdrawn(CASE, frozenset("4"))})
    add_withdrawn(tmp_path, opener, recipient, {"ward-2027": who("4")})
    found = read_withdrawn(tmp_path, opener)
    assert found.tables == {"ward": who("3", person=PERSON), "ward-2027": who("3", "4")}
    # One that is left out stays as it was read, and one that was not read is left out from then on.
    add_withdrawn(tmp_path, opener, recipient, {"ward": who("5", person=PERSON)}, {"ward-2027": TEXT, "lab": CASE})
    found = read_withdrawn(tmp_path, opener)
    assert (found.of("ward-2027", TEXT), found.of("lab", CASE)) == (who("3", "4"), None)
    add_withdrawn(tmp_path, opener, recipient, {"lab": Withdrawn(CASE, frozenset("6"))})
    assert read_withdrawn(tmp_path, opener).of("lab", CASE) == Withdrawn(CASE, frozenset("6"))


def test_a_renamed_table_that_is_left_out_keeps_who_was_dropped_from_it(tmp_path: Path, keys: tuple[str, str]) -> None:
    secret, recipient = keys
    opener = opener_from_secret(secret)
    add_withdrawn(tmp_path, opener, recipient, {"ward": who("3")})
    add_withdrawn(tmp_path, opener, recipient, {"ward": who("4")}, {"ward-2027": TEXT})
    assert read_withdrawn(tmp_path, opener).of("ward-2027", TEXT) == who("3")


def test_a_list_of_the_first_version_goes_on(tmp_path: Path, keys: tuple[str, str]) -> None:
    ward = b'{"version": 1, "tables": {"ward": {"column": "patient", "form": "text", "ids": ["3"]}}}'
    write_sealed(tmp_path / WITHDRAWN, ward, (keys[1],))
    found = read_withdrawn(tmp_path, opener_from_secret(keys[0]))
    assert found == Withdrawals({"ward": who("3")})
