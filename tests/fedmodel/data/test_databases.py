"""Tables from queries, against a real SQLite file and a real PostgreSQL server, by accounts that can only read."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from fedmodel.config import PersonColumn, PersonForm, TableSource
from fedmodel.crypto.sealed import new_age_key, opener_from_secret
from fedmodel.data import Cache, sources, table_records
from fedmodel.data import databases as module
from fedmodel.data.persons import normal_ids
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.sources.table import TableConfig
from tests import tools

CONFIG = TableConfig.model_validate({
    "source": "table", "name": "admissions", "label": "outcome", "labels": ["benign", "malignant"], "person": "patient",
    "columns": [
        {"name": "age", "type": "float", "range": [0.0, 100.0], "limits": [0.0, 120.0]},
        {"name": "visits", "type": "integer", "range": [0.0, 10.0], "missing": "fill", "fill": 5},
        {"name": "smoker", "type": "boolean"},
    ],
})  # fmt: skip
QUERY = "SELECT patient, age, visits, smoker, outcome FROM admissions"
ROWS = [("ada", 50.0, 10, True, "benign"), ("bob", 100.0, None, False, "malignant"), ("ada", 0.0, 0, True, "benign")]
# By content: label first, then features.
EXPECTED = [[-1.0, -1.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, -1.0]]


def said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    path = tmp_path / "ward 7%.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE admissions (patient TEXT, age, visits INTEGER, smoker, outcome TEXT)")
        connection.executemany("INSERT INTO admissions VALUES (?, ?, ?, ?, ?)", ROWS)
    connection.close()
    return path


@pytest.mark.parametrize(
    ("ids", "form", "rule"),
    [
        ((7, 8, 9), "text", None),
        ((7, 8, 9.0), "text", r"the id in row 3 of the query of .* is a number with a fraction"),
        ((7, 8, 9.0), "digits", None),
        ((2**53 + 1, 8, 9.0), "digits", None),
        ((7, 8, 2.0**53), "digits", r"the id in row 3 of the query of .* went through floating point"),
        ((7, 8, -0.0), "digits", None),
    ],
)
def test_each_id_is_judged_by_its_own_type_and_not_by_the_columns(
    ids: tuple[float, ...], form: PersonForm, rule: str | None, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "mixed.sqlite") as connection:
        connection.execute("CREATE TABLE admissions (patient, age, visits INTEGER, smoker, outcome TEXT)")
        rows = [(one, 50.0, 10, True, "benign") for one in ids]
        connection.executemany("INSERT INTO admissions VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()
    source = of(tmp_path / "mixed.sqlite").model_copy(update={"person": PersonColumn(column="patient", form=form)})
    if rule is not None:
        with pytest.raises(DataError, match=rule):
            table_records(CONFIG, source)
        return
    assert len(set(table_records(CONFIG, source).person_N.tolist())) == 3
    (found,) = [values for _, values in sources.column(source, "patient")]
    assert normal_ids(found, form, "here").to_pylist() == [str(int(one)) for one in ids]


def of(path: Path, query: str = QUERY) -> TableSource:
    return TableSource(url=f"sqlite:///{path}", query=query)


def test_sqlite_gives_records(sqlite: Path) -> None:
    records = table_records(CONFIG, of(sqlite))
    assert records.x_NF.tolist() == EXPECTED
    assert records.y_N.tolist() == [0, 0, 1]
    first, second, third = records.person_N
    assert first == second != third


def test_rows_are_put_into_one_order_whatever_the_database_does(sqlite: Path) -> None:
    for order in ("age", "age DESC", "patient, visits", "random()"):
        records = table_records(CONFIG, of(sqlite, f"{QUERY} ORDER BY {order};"))
        assert records.x_NF.tolist() == EXPECTED
        assert records.capped("person", 1).x_NF.tolist() == [EXPECTED[0], EXPECTED[2]]


def test_a_path_relative_to_the_silos_folder(sqlite: Path) -> None:
    source = TableSource(url=f"sqlite:///{sqlite.name}", query=QUERY)
    assert len(table_records(CONFIG, source.under(sqlite.parent))) == 3
    assert of(sqlite).under(Path("/elsewhere")).sqlite_path == str(sqlite)


@pytest.mark.parametrize(
    "query",
    [
        "WITH gone AS (SELECT 1) DELETE FROM admissions",
        "WITH gone AS (SELECT 1) UPDATE admissions SET age = 1",
        "SELECT load_extension('x')",
        "SELECT nothing FROM nowhere",
    ],
)
def test_sqlite_is_never_written(query: str, sqlite: Path) -> None:
    before = sqlite.read_bytes()
    with pytest.raises(DataError, match=r"refused the query|gives no table"):
        table_records(CONFIG, of(sqlite, query))
    assert sqlite.read_bytes() == before
    assert [path.name for path in sqlite.parent.iterdir()] == [sqlite.name]


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be reached: unable to open database file"):
        table_records(CONFIG, of(tmp_path / "no.sqlite"))
    assert not (tmp_path / "no.sqlite").exists()
    (tmp_path / "text.sqlite").write_text("ada,63.25" * 200)
    with pytest.raises(DataError, match=r"refused the query \(SQLITE_NOTADB\)") as refused:
        table_records(CONFIG, of(tmp_path / "text.sqlite"))
    assert "63.25" not in said(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("age", "fifty-63.25", "the query: column 'age' has values of more than one type"),
        ("age", 2**70 * 1.0, "outside its declared limits"),
        ("age", b"63.25", "the query: column 'age' has values of more than one type"),
        ("visits", 63.25, "a value is not a whole number"),
        ("smoker", 6325, "neither true nor false"),
        ("outcome", "sixty-63.25", "none of the declared labels"),
        ("patient", None, "whose a record is, is missing"),
    ],
)
def test_a_breach_in_a_database_is_refused_without_its_value(name: str, value: Any, rule: str, sqlite: Path) -> None:
    with sqlite3.connect(sqlite) as connection:
        connection.execute(f"UPDATE admissions SET {name} = ? WHERE age = 100", (value,))  # noqa: S608
    connection.close()
    with pytest.raises(DataError, match=rule) as refused:
        table_records(CONFIG, of(sqlite))
    assert not any(word in said(refused.value) for word in ("63.25", "6325"))


def test_a_column_that_is_not_declared_is_not_named(sqlite: Path) -> None:
    mixed = "CASE WHEN age = 100 THEN 'sixty' ELSE 1 END"
    for column in ('1 AS "63.25"', f'{mixed} AS "63.25"'):
        with pytest.raises(DataError, match="a column") as refused:
            table_records(CONFIG, of(sqlite, QUERY.replace(" FROM", f", {column} FROM")))
        assert not any(word in str(refused.value) for word in ("63.25", "sixty"))


def test_a_query_is_read_once_a_run(sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, recipient = new_age_key()
    first, second = (Cache(tmp_path / "c", (recipient,), opener_from_secret(secret), run) for run in ("1", "2"))
    asked: list[str] = []
    query = module.query

    def counted(source: TableSource, declared: tuple[str, ...], **more: Any) -> Any:
        asked.append(str(source.query))
        return query(source, declared, **more)

    monkeypatch.setattr(module, "query", counted)
    for cache, times in ((first, 1), (first, 1), (second, 2), (second, 2), (first, 3)):
        assert len(table_records(CONFIG, of(sqlite), cache)) == 3
        assert len(asked) == times
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["admissions.age"]


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ({}, "exactly one of csv, parquet, folder, files and url, found none"),
        ({"csv": "a", "folder": "b"}, "found csv and folder"),
        ({"csv": "a", "query": "SELECT 1"}, "query is given with url"),
        ({"url": "sqlite:///a"}, "query is given with url"),
        ({"url": "sqlite:///a", "query": "DELETE FROM a"}, "query must be one SELECT"),
        ({"url": "sqlite:///a", "query": "SELECTED"}, "query must be one SELECT"),
        ({"url": "sqlite:///a", "query": "SELECT 1; DROP TABLE a"}, "query must be one statement"),
        ({"url": "sqlite:///a?mode=rw", "query": "SELECT 1"}, "sqlite:///PATH and nothing else"),
        ({"url": "sqlite://host/a", "query": "SELECT 1"}, "sqlite:///PATH and nothing else"),
        ({"url": "sqlite:///a", "query": "SELECT 1", "password_file": "p"}, "password_file is given with the url of"),
        ({"url": "mysql://a/b", "query": "SELECT 1"}, "other databases are not read"),
        ({"url": "postgresql://a:SESAME@b/c", "query": "SELECT 1"}, "url holds a password"),
        ({"url": "postgresql://a@b/c?password=SESAME", "query": "SELECT 1"}, "url holds a password"),
        ({"url": "postgresql://a@b/c?options=-cSESAME", "query": "SELECT 1"}, "and no other option"),
        ({"url": "postgresql://a@b/c?sslmode=disable&sslmode=verify-full", "query": "SELECT 1"}, "one thing twice"),
        ({"url": "postgresql://a@b/c?host=/run", "query": "SELECT 1"}, "one thing twice"),
        ({"url": "postgresql://a@b/c?SESAME", "query": "SELECT 1"}, "url cannot be read"),
        ({"url": "postgresql:///c", "query": "SELECT 1"}, "must name one host"),
        ({"url": "postgresql://a@b", "query": "SELECT 1"}, "must name one host"),
        ({"url": "postgresql://a@b,d/c", "query": "SELECT 1"}, "must name one host"),
        ({"url": "postgresql://a@b/c?sslmode=prefer", "query": "SELECT 1"}, "cross a network unprotected"),
    ],
)
def test_a_source_that_cannot_be_is_refused(source: dict[str, str], rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as refused:
        TableSource.model_validate(source)
    assert "SESAME" not in str(refused.value.errors()[0]["ctx"]["error"])  # type: ignore[attr-defined]


PASSWORD = "open; SESAME %"  # noqa: S105


@dataclass
class Server:
    """A PostgreSQL of our own, on a socket in a temporary folder and on no port."""

    socket: Path

    def url(self, user: str, database: str = "ward") -> str:
        return f"postgresql://{user}@/{database}?host={quote(str(self.socket), safe='')}"

    def run(self, *statements: str, database: str = "ward") -> None:
        with psycopg.connect(
            host=str(self.socket), user="postgres", password=PASSWORD, dbname=database, autocommit=True
        ) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    binaries = tools.require("initdb").parent
    root = os.geteuid() == 0
    if root and (not shutil.which("runuser") or subprocess.run(["id", "postgres"], capture_output=True).returncode):
        pytest.skip(tools.absent("an account for PostgreSQL"))  # it refuses to run as root
    as_user = ["runuser", "-u", "postgres", "--"] if root else []
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path is short
    try:
        (folder / "password").write_text(PASSWORD)
        if root:
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(folder / "password", "postgres", "postgres")

        def command(name: str, *arguments: str) -> None:
            subprocess.run([*as_user, str(binaries / name), "-D", str(folder / "data"), *arguments], check=True,
                           cwd=folder, stdout=subprocess.DEVNULL)  # fmt: skip

        command(
            "initdb", "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-N", "-E", "UTF8"
        )
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        command("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            found = Server(folder)
            found.run("CREATE DATABASE ward", database="postgres")
            found.run(
                "CREATE TABLE admissions (patient uuid, age numeric, visits bigint, smoker boolean, outcome text)",
                f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'",
                "GRANT SELECT ON admissions TO reader",
            )
            with psycopg.connect(host=str(folder), user="postgres", password=PASSWORD, dbname="ward") as connection:
                for patient, *row in ROWS:
                    who = f"00000000-0000-0000-0000-{patient.encode().hex():0>12}"
                    connection.cursor().execute("INSERT INTO admissions VALUES (%s, %s, %s, %s, %s)", (who, *row))
            yield found
        finally:
            command("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    path.chmod(0o600)
    return path


def test_postgresql_gives_the_records_that_sqlite_gives(postgresql: Server, sqlite: Path, password_file: Path) -> None:
    source = TableSource(url=postgresql.url("reader"), query=QUERY, password_file=str(password_file))
    records, same = table_records(CONFIG, source), table_records(CONFIG, of(sqlite))
    assert records.x_NF.tolist() == same.x_NF.tolist() == EXPECTED
    assert records.y_N.tolist() == same.y_N.tolist()
    # A percent sign is no place for a parameter.
    like = source.model_copy(update={"query": f"{QUERY} WHERE outcome LIKE 'ben%' AND age::text NOT LIKE ':x%'"})
    assert len(table_records(CONFIG, like)) == 2


@pytest.mark.parametrize(
    ("query", "state"),
    [
        ("WITH gone AS (DELETE FROM admissions RETURNING *) SELECT * FROM gone", "0A000"),
        ("SELECT * FROM hidden", "42P01"),
        ("SELECT patient::int, age, visits, smoker, outcome FROM admissions", "42846"),
        ("SELECT patient, outcome::int AS age, visits, smoker, outcome FROM admissions", "22P02"),
    ],
)
def test_a_querys_error_is_its_state_alone(query: str, state: str, postgresql: Server, password_file: Path) -> None:
    source = TableSource(url=postgresql.url("reader"), query=query, password_file=str(password_file))
    with pytest.raises(DataError, match=rf"refused the query \({state}\)") as refused:
        table_records(CONFIG, source)
    # What the database says quotes the value that is no number.
    assert not any(word in said(refused.value) for word in ("benign", "malignant", "SESAME"))


# So that there is a role that a newer PostgreSQL brings along.
RENAME = "SET allow_system_table_mods = on; UPDATE pg_authid SET rolname = '{1}' WHERE rolname = '{0}'"


@pytest.mark.parametrize(
    ("power", "undone", "rule"),
    [
        ("ALTER ROLE reader SUPERUSER", "ALTER ROLE reader NOSUPERUSER", "is a superuser"),
        ("GRANT postgres TO reader", "REVOKE postgres FROM reader", "is a superuser"),
        ("GRANT pg_write_server_files TO reader", "REVOKE pg_write_server_files FROM reader",
         "member of pg_write_server_files"),
        ("GRANT pg_execute_server_program TO reader", "REVOKE pg_execute_server_program FROM reader", "member of pg_e"),
        ("GRANT pg_signal_backend TO reader", "REVOKE pg_signal_backend FROM reader", "member of pg_signal_backend"),
        ("CREATE ROLE between; GRANT pg_write_all_data TO between; GRANT between TO reader", "DROP ROLE between",
         "member of pg_write_all_data"),
        *((f"CREATE ROLE later; GRANT later TO reader; {RENAME.format('later', later)}",
           f"{RENAME.format(later, 'later')}; DROP ROLE later", f"member of {later}")
          for later in ("pg_create_subscription", "pg_maintain")),
        *((f"ALTER ROLE reader {power}", f"ALTER ROLE reader NO{power}", "may make roles or databases, replicate")
          for power in ("CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS")),
        ("CREATE ROLE between CREATEROLE; GRANT between TO reader", "DROP ROLE between", "may make roles"),
        ("ALTER DATABASE ward OWNER TO reader", "ALTER DATABASE ward OWNER TO postgres", "owns"),
        ("ALTER TABLE admissions OWNER TO reader",
         "ALTER TABLE admissions OWNER TO postgres; GRANT SELECT ON admissions TO reader", "owns"),
        ("ALTER TABLE admissions OWNER TO reader; REVOKE ALL ON admissions FROM reader; GRANT SELECT ON admissions TO"
         " reader",  # an owner can take back what it gave up
         "ALTER TABLE admissions OWNER TO postgres; GRANT SELECT ON admissions TO reader", "owns"),
        ("CREATE SCHEMA wing AUTHORIZATION reader", "DROP SCHEMA wing", "owns"),
        ("CREATE SCHEMA wing; CREATE ROLE between; ALTER SCHEMA wing OWNER TO between; GRANT between TO reader",
         "DROP SCHEMA wing; DROP ROLE between", "owns"),
        ("CREATE FUNCTION odd() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION odd OWNER TO reader",
         "DROP FUNCTION odd()", "owns"),
        ("GRANT TRIGGER ON admissions TO reader", "REVOKE TRIGGER ON admissions FROM reader", "may change a table"),
        ("GRANT INSERT ON admissions TO PUBLIC", "REVOKE INSERT ON admissions FROM PUBLIC", "may change a table"),
        ("GRANT UPDATE ON pg_class TO reader", "REVOKE UPDATE ON pg_class FROM reader", "may change a table"),
        ("CREATE SEQUENCE number; GRANT USAGE ON SEQUENCE number TO reader", "DROP SEQUENCE number", "may change a t"),
        ("GRANT CREATE ON DATABASE ward TO reader", "REVOKE CREATE ON DATABASE ward FROM reader", "create schemas"),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", "REVOKE CREATE ON SCHEMA public FROM PUBLIC", "create tables"),
        ("GRANT DELETE ON admissions TO reader", "REVOKE DELETE ON admissions FROM reader", "may change a table"),
        ("GRANT UPDATE (age) ON admissions TO reader", "REVOKE UPDATE (age) ON admissions FROM reader", "change a"),
        ("ALTER ROLE reader NOINHERIT; CREATE ROLE ward_writer; GRANT INSERT ON admissions TO ward_writer;"
         " GRANT ward_writer TO reader",
         "DROP OWNED BY ward_writer; DROP ROLE ward_writer; ALTER ROLE reader INHERIT", "may change a table"),
    ],
)  # fmt: skip
def test_an_account_that_could_write_is_refused(
    power: str, undone: str, rule: str, postgresql: Server, password_file: Path
) -> None:
    source = TableSource(url=postgresql.url("reader"), query=QUERY, password_file=str(password_file))
    postgresql.run(*power.split(";"))
    try:
        with pytest.raises(ConfigError, match=rule):
            table_records(CONFIG, source)
    finally:
        postgresql.run(*undone.split(";"))
    assert len(table_records(CONFIG, source)) == 3


def test_an_account_that_reads_all_data_is_one_that_can_only_read(postgresql: Server, password_file: Path) -> None:
    source = TableSource(url=postgresql.url("reader"), query=QUERY, password_file=str(password_file))
    postgresql.run("GRANT pg_read_all_data, pg_monitor TO reader")
    try:
        assert len(table_records(CONFIG, source)) == 3
    finally:
        postgresql.run("REVOKE pg_read_all_data, pg_monitor FROM reader")


def test_a_function_that_writes_finds_the_transaction_read_only(postgresql: Server, password_file: Path) -> None:
    """Even one with its owner's rights, at which the look at the account does not look."""
    postgresql.run(
        "CREATE FUNCTION wipe() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM admissions; SELECT 1'"
    )
    source = TableSource(url=postgresql.url("reader"), query="SELECT wipe()", password_file=str(password_file))
    try:
        with pytest.raises(DataError, match=r"\(25006\)"):
            table_records(CONFIG, source)
    finally:
        postgresql.run("DROP FUNCTION wipe()")


def test_a_password_may_be_a_credential_of_systemd(password_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    password_file.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(password_file.parent))
    assert module._password(password_file) == PASSWORD
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    password_file.chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_001)
    with pytest.raises(ConfigError, match=r"belongs to .*, and this runs as 4000001"):
        module._password(password_file)


def test_a_password_file_is_looked_at_as_it_was_opened(password_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever puts another in its place between the look and the reading gains nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", lambda *_, **__: pytest.fail("looked at by its name"))
        assert module._password(password_file) == PASSWORD


def test_a_password_stays_where_it_is(postgresql: Server, tmp_path: Path, password_file: Path) -> None:
    source = TableSource(url=postgresql.url("reader"), query=QUERY, password_file=str(password_file))
    password_file.chmod(0o640)
    with pytest.raises(
        ConfigError, match=r"a password file is its owner's alone, and this has mode 0640, .*; run: chmod 600"
    ):
        table_records(CONFIG, source)
    password_file.chmod(0o600)
    password_file.write_text("SESAME-wrong")
    with pytest.raises(DataError, match=r"cannot be reached: .*password authentication failed") as refused:
        table_records(CONFIG, source)
    assert "SESAME" not in said(refused.value)
    with pytest.raises(ConfigError, match="the password cannot be read: No such file"):
        table_records(CONFIG, source.model_copy(update={"password_file": str(tmp_path / "none")}))
    password_file.write_text(PASSWORD)
    beside = source.model_copy(update={"password_file": password_file.name})
    assert len(table_records(CONFIG, beside.under(password_file.parent))) == 3


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = TableSource(url=f"postgresql://reader@/ward?host={quote(str(tmp_path), safe='')}", query=QUERY)
    with pytest.raises(DataError, match=r"the database cannot be reached: .*No such file"):
        table_records(CONFIG, source)


def test_a_database_over_a_network_must_show_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed to libpq, which does the rest; over a socket there is no network."""
    import sqlalchemy

    given: list[dict[str, Any]] = []
    monkeypatch.setattr(sqlalchemy, "create_engine", lambda url, **options: given.append(options["connect_args"]))
    for url in (
        "postgresql://r@db.example.org/w",
        "postgresql+psycopg://r@db.example.org/w?sslrootcert=/ca.pem&sslmode=verify-ca",
        "postgresql://r@127.0.0.1/w",
    ):
        module._postgresql(TableSource(url=url, query=QUERY))
    assert [(found.get("sslmode"), found.get("sslrootcert")) for found in given] == [
        ("verify-full", "system"), ("verify-ca", "/ca.pem"), (None, None),
    ]  # fmt: skip


@pytest.mark.parametrize("package", ["sqlalchemy", "psycopg"])
def test_without_the_extra_it_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"pip install 'fedmodel\[data\]'"):
        table_records(CONFIG, TableSource(url="postgresql://reader@localhost/ward", query=QUERY))
