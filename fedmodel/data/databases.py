"""A table from a query: SQLite and PostgreSQL, by SQLAlchemy, and by an account that can only read.

| Database   | Opened                                            | Refused                                             |
|------------|---------------------------------------------------|-----------------------------------------------------|
| SQLite     | `mode=ro`, temporary storage in memory            | -                                                   |
| PostgreSQL | in one transaction, READ ONLY, REPEATABLE READ;   | an account that by itself, or by a role that it is  |
|            | over a network by TLS with a verified certificate | a member of, is a superuser, may make roles or      |
|            |                                                   | databases, replicate, or see past row security;     |
|            |                                                   | owns the database or anything in it; has one of     |
|            |                                                   | PostgreSQL's own roles that do more than read; may  |
|            |                                                   | create in the database or a schema of it; has more  |
|            |                                                   | than SELECT on a table, a column or a sequence      |

A READ ONLY transaction alone would do for an honest query. The account is looked at besides, since whoever steals its
password is not held to READ ONLY.

NOT looked at: functions that run with their owner's rights (SECURITY DEFINER), other databases of the same server, what
PostgreSQL lets every account do (temporary tables, large objects of its own), and rights on large objects, tablespaces,
foreign servers and settings.

A database's own error quotes values. Of a query's only the five letters of its SQLSTATE are passed on.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from fedmodel.config import TableSource
from fedmodel.config.tables import POSTGRESQL, is_local
from fedmodel.crypto.sealed import check_private_file
from fedmodel.errors import ConfigError, DataError
from fedmodel.system.packages import missing

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection, CursorResult, Engine

_ROWS = 10_000  # fetched at once
_MOST_PASSWORD = 4096

# What the account may do beyond reading: the first that holds is said. Roles that it is a member of count whether it
# inherits from them or not, since it can take them on. Of PostgreSQL's own roles those are named that only read, so
# that one which a later version brings is refused. Owners count whatever they gave up: they can take it back.
_POWERS = """
WITH roles AS (SELECT * FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER')),
here AS (SELECT oid, datdba FROM pg_database WHERE datname = current_database()),
schemas AS (SELECT oid FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_t%'),
powers AS (SELECT min(rolname) AS name FROM roles WHERE rolname LIKE 'pg\\_%' AND rolname NOT IN
  ('pg_read_all_data', 'pg_monitor', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_stat_scan_tables')),
grants AS (
  SELECT relnamespace AS schema, (aclexplode(relacl)).* FROM pg_class
  UNION ALL
  SELECT relnamespace, (aclexplode(attacl)).* FROM pg_attribute JOIN pg_class c ON c.oid = attrelid)
SELECT CASE
  WHEN EXISTS (SELECT FROM roles WHERE rolsuper) THEN 'is a superuser'
  WHEN EXISTS (SELECT FROM roles WHERE rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
    THEN 'may make roles or databases, replicate them, or see past row security'
  WHEN EXISTS (SELECT FROM here, roles WHERE roles.oid = datdba)
    OR EXISTS (SELECT FROM pg_shdepend WHERE deptype = 'o' AND dbid IN (0, (SELECT oid FROM here))
      AND refclassid = 'pg_authid'::regclass AND refobjid IN (SELECT oid FROM roles))
    THEN 'owns the database, or something in it'
  WHEN (SELECT name FROM powers) IS NOT NULL THEN 'is a member of ' || (SELECT name FROM powers)
  WHEN EXISTS (SELECT FROM roles WHERE has_database_privilege(oid, current_database(), 'CREATE'))
    THEN 'may create schemas in the database'
  WHEN EXISTS (SELECT FROM roles r, schemas s WHERE has_schema_privilege(r.oid, s.oid, 'CREATE'))
    THEN 'may create tables in a schema'
  WHEN EXISTS (SELECT FROM grants WHERE privilege_type <> 'SELECT' AND (grantee IN (SELECT oid FROM roles)
    OR grantee = 0 AND schema <> 'pg_catalog'::regnamespace))
    THEN 'may change a table or a sequence, or do more with it than SELECT'
END
"""


def query(source: TableSource, declared: tuple[str, ...], *, others: bool = True) -> pa.Table:
    """Return what the source's query gives, with the types that its values have. Sensitive.

    Args:
        source: With a URL.
        declared: Names of columns that may be said in an error; those of others could be made of values.
        others: Whether columns that are not declared are returned as well; those left out never are.

    Raises:
        ConfigError: When a package is missing, the password cannot be read, or the account could write.
        DataError: When the database cannot be reached or does not answer the query.
    """
    with _asked(source, source.query or "") as found:
        names = list(found.keys())
        columns: list[list[object]] = [[] for _ in names]
        for rows in found.partitions():
            for column, values in zip(columns, zip(*rows, strict=True), strict=True):
                column.extend(values)
    kept = [place for place, name in enumerate(names) if name in declared or (others and name not in source.leave_out)]
    return _table([names[place] for place in kept], [columns[place] for place in kept], declared)


def names(source: TableSource) -> list[str]:
    """Return the names of the columns that the source's query gives, and ask for none of its rows.

    Raises:
        ConfigError: When a package is missing, the password cannot be read, or the account could write.
        DataError: When the database cannot be reached or does not take the query.
    """
    bare = (source.query or "").strip().removesuffix(";")
    # On a line of its own, since the query may end in a comment.
    with _asked(source, f"SELECT * FROM ({bare}\n) AS fedmodel LIMIT 0") as found:  # noqa: S608 - the silo's own query
        return list(found.keys())


@contextmanager
def _asked(source: TableSource, text: str) -> Iterator[CursorResult[Any]]:
    """Ask the source's database, and give what it answers."""
    try:
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError
    except ImportError:
        raise missing("SQLAlchemy", "reading a database", "data") from None
    try:
        with _connected(source) as connection:
            options = {"no_parameters": True, "stream_results": True, "yield_per": _ROWS}
            yield connection.exec_driver_sql(text, execution_options=options)
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None) or "unknown"
        raise DataError(f"the database refused the query ({state}); try it by hand with the same account") from None
    except SQLAlchemyError as error:
        raise DataError(f"the query gives no table ({type(error).__name__})") from None


def _table(names: list[str], columns: list[list[object]], declared: tuple[str, ...]) -> pa.Table:
    """Return columns of Python's values as ones of one type each.

    Numbers of several types become text, each by itself: one that has a fraction would make floats of all the others,
    and a record's id would hang on other records.
    """
    import pyarrow as pa

    arrays = []
    for name, values in zip(names, columns, strict=True):
        values = [_number(value) if isinstance(value, Decimal) else value for value in values]
        kinds = {type(value) for value in values} - {type(None)}
        if kinds == {UUID}:
            values = [None if value is None else str(value) for value in values]
        elif kinds == {int, float}:
            values = [None if value is None else _spelled(value) for value in values]
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            which = f"column {name!r}" if name in declared else "a column"
            raise DataError(f"the query: {which} has values of more than one type, or too large ones") from None
    return pa.Table.from_arrays(arrays, names=names)


def _number(value: Decimal) -> int | float:
    return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)


def _spelled(value: object) -> str:
    """Return a number as text that is read back as the same, and by which a float is known."""
    return repr(value + 0.0) if isinstance(value, float) else str(value)  # -0.0 is 0.0


@contextmanager
def _connected(source: TableSource) -> Iterator[Connection]:
    """Open the database to be read, and close it."""
    from sqlalchemy.exc import DBAPIError

    engine = _postgresql(source) if source.database == POSTGRESQL else _sqlite(source)
    try:
        try:
            connection = engine.connect()
        except DBAPIError as error:
            # Before a query no record can be in it, and of a password libpq says nothing.
            raise DataError(f"the database cannot be reached: {' '.join(str(error.orig).split())}") from None
        with connection:
            if source.database == POSTGRESQL:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                _check_powers(connection)
            yield connection
    finally:
        engine.dispose()


def _sqlite(source: TableSource) -> Engine:
    """Return how a SQLite file is opened: to be read, and without temporary files, into which it would sort."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    def opened() -> sqlite3.Connection:
        connection = sqlite3.connect(f"file:{quote(source.sqlite_path)}?mode=ro", uri=True)
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection

    return create_engine("sqlite://", creator=opened, poolclass=NullPool, hide_parameters=True)


def _postgresql(source: TableSource) -> Engine:
    """Return how PostgreSQL is reached."""
    try:
        import psycopg  # noqa: F401
        from sqlalchemy import create_engine, make_url
        from sqlalchemy.pool import NullPool
    except ImportError:
        raise missing("psycopg", "reading a database", "data") from None
    url = make_url(source.url or "").set(drivername="postgresql+psycopg")
    if source.password_file is not None:
        url = url.set(password=_password(Path(source.password_file)))
    options: dict[str, Any] = {"connect_timeout": 10, "application_name": "fedmodel"}
    if not is_local(source.url or ""):
        options |= {"sslmode": "verify-full", "sslrootcert": "system"}
    given = {key: value for key, value in url.query.items() if key != "host" and key != "port"}
    return create_engine(url, connect_args={**options, **given}, poolclass=NullPool, hide_parameters=True)


def _check_powers(connection: Connection) -> None:
    """Refuse a transaction that is not READ ONLY, and an account that need not keep to one."""
    if connection.exec_driver_sql("SHOW transaction_read_only").scalar() != "on":
        raise ConfigError("the database did not make the transaction READ ONLY, so nothing is read")
    power = connection.exec_driver_sql(_POWERS, execution_options={"no_parameters": True}).scalar()
    if power is not None:
        raise ConfigError(
            f"the database's account {power}; a silo reads by an account that can do nothing else: one with SELECT on"
            " what the query needs, and no more"
        )


def _password(path: Path) -> str:
    """Read an account's password from a file that nobody else can read, or from a credential of systemd."""
    try:
        with path.open(encoding="utf-8") as file:
            check_private_file(path, os.fstat(file.fileno()), "a password file")
            return file.read(_MOST_PASSWORD).rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{path}: the password cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the password is not text in UTF-8") from None
