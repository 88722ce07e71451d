"""Where a silo's own data set lies, which its `silo.toml` alone says. What is in it, a scenario declares.

No password stands here, and no message of these models repeats a URL, which could hold one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, model_validator

from fedmodel.kinds.columns import ColumnName, Person
from fedmodel.kinds.spelling import FORM, CsvForm

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
_SCHEMES: Final = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "postgresql+psycopg": POSTGRESQL}
# What of libpq a URL may set: where and how to connect, never who may do what, nor a password.
_OPTIONS: Final = ("host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout")
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_VERIFIED: Final = ("verify-ca", "verify-full")


class TableSource(CsvForm):
    """Where a data set lies: a file of CSV, one of Parquet, a folder of both, a query, or a folder of other files.

    Attributes:
        csv: Path of a CSV file with a header; a relative one begins at this file's folder. In UTF-8, with
            commas, unless separator, decimal and encoding say otherwise.
        parquet: Path of a Parquet file, likewise.
        folder: Path of a folder, likewise: all `*.csv` and `*.parquet` in it, in the order of their names.
        files: Path of a folder, likewise, of what is no table: images, IDX files, JSON lines or a saved data set, as a
            scenario declares.
        url: Of a database, `sqlite:///PATH` or `postgresql://USER@HOST/DATABASE`, without a password.
        query: The one SELECT that gives the table.
        password_file: Path of a file that holds the account's password, readable by its owner alone.
        person: Which column says whose a record is, and in which form; a scenario cannot say otherwise.
        disjoint: The operator's word that the query gives nobody's record whom another table of the same database gives
            too; no program can see that.
        leave_out: Columns of the source that are not read, as if they were not there.
        held_out: Share of the table's persons whose rows never train, and are handed to the server's operator; of
            pictures in files that nobody says whose they are, share of the pictures.
        tokenizer: Path of the tokenizer's file that a scenario asks for, likewise: this party's own copy.
    """

    LATER = (*CsvForm.LATER, "leave_out", "held_out", "files", "tokenizer")

    csv: str | None = Field(default=None, min_length=1)
    parquet: str | None = Field(default=None, min_length=1)
    folder: str | None = Field(default=None, min_length=1)
    files: str | None = Field(default=None, min_length=1)
    url: str | None = Field(default=None, min_length=1)
    query: str | None = Field(default=None, min_length=1)
    password_file: str | None = Field(default=None, min_length=1)
    person: Person | None = None
    disjoint: bool = False
    leave_out: Annotated[tuple[ColumnName, ...], Field(strict=False, max_length=10_000)] = ()
    held_out: float | None = Field(default=None, gt=0.0, lt=1.0)
    tokenizer: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _is_one_thing(self) -> TableSource:
        given = [key for key in ("csv", "parquet", "folder", "files", "url") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of csv, parquet, folder, files and url, found {found}")
        if self.files is not None and self.leave_out:
            raise ValueError("leave_out is of tables, and not of files, which have no columns")
        if (self.url is None) != (self.query is None):
            raise ValueError("query is given with url, and only then")
        if self.query is not None:
            _is_one_select(self.query)
        if self.url is not None:
            _is_plain(self.url)
        if self.password_file is not None and self.database != POSTGRESQL:
            raise ValueError("password_file is given with the url of a PostgreSQL database, and only then")
        if not self.is_plain and not (self.csv or self.folder):
            raise ValueError(f"{', '.join(FORM)} are given with csv or folder, and only then")
        if self.held_out is not None and self.person is None and self.files is None:
            raise ValueError("held_out needs person, by which it is known whose rows go together")
        if self.disjoint and self.url is None:
            raise ValueError("disjoint is given with url and query, and only then: of files it can be seen")
        return self

    def under(self, folder: Path) -> TableSource:
        """Return the same, with relative paths beginning at a folder."""
        paths = {
            key: str(folder / path)
            for key in ("csv", "parquet", "folder", "files", "password_file", "tokenizer")
            if (path := getattr(self, key))
        }
        if self.database == SQLITE:
            paths["url"] = f"sqlite:///{folder / self.sqlite_path}"
        return self.model_copy(update=paths)

    @property
    def sqlite_path(self) -> str:
        """Path of a SQLite file: `sqlite:///PATH`, which begins with another slash where it is absolute."""
        return urlsplit(self.url or "").path[1:]

    @property
    def database(self) -> str | None:
        """Which kind of database it is, None for files."""
        return None if self.url is None else _SCHEMES[urlsplit(self.url).scheme]


def _is_one_select(query: str) -> None:
    """Refuse what is not one statement that reads; that it does not write is for the database to see to."""
    bare = query.strip().removesuffix(";")
    if not re.match(r"(?:SELECT|WITH)\b", bare, flags=re.IGNORECASE):
        raise ValueError("query must be one SELECT, or WITH ... SELECT, from its first word on")
    if ";" in bare:
        raise ValueError("query must be one statement: no semicolon may stand in it but at its end")


def _is_plain(url: str) -> None:
    """Refuse a URL of another database, with a password, or over a network without a verified certificate."""
    try:
        parts = urlsplit(url)
        host, options = parts.hostname, parse_qsl(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("url cannot be read; write it as sqlite:///PATH or postgresql://USER@HOST/DATABASE") from None
    kind = _SCHEMES.get(parts.scheme)
    if kind is None:
        raise ValueError("url must begin with sqlite:/// or postgresql://; other databases are not read")
    # Which of two would hold is the driver's to choose, and what was looked at could be the other.
    if len(dict(options)) < len(options) or (host and "host" in dict(options)):
        raise ValueError("url sets one thing twice; say each once, the host too")
    if parts.password is not None or "password" in dict(options):
        raise ValueError("url holds a password; put it into a file of mode 0600 and name that as password_file")
    if kind == SQLITE:
        if parts.netloc or len(parts.path) < 2 or parts.query or parts.fragment:
            raise ValueError("url of SQLite must be sqlite:///PATH and nothing else; it is always opened to be read")
        return
    _is_postgresql(host, dict(options), parts.path)


def _is_postgresql(host: str | None, options: dict[str, str], path: str) -> None:
    """Refuse a URL of PostgreSQL that leaves open to whom one speaks, or that sets what is not its to set."""
    for option in options:
        if option not in _OPTIONS:
            raise ValueError(f"url may set {', '.join(_OPTIONS)} and no other option")
    where = options.get("host") or host
    if not where or "," in where or len(path) < 2:
        raise ValueError("url must name one host (or ?host=/FOLDER of a socket) and a database")
    if not _is_local(where) and options.get("sslmode", "verify-full") not in _VERIFIED:
        raise ValueError("url sets an sslmode by which records could cross a network unprotected; leave it out")


def is_local(url: str) -> bool:
    """Return whether a URL of PostgreSQL leads to a socket, or to this machine."""
    parts = urlsplit(url)
    return _is_local(dict(parse_qsl(parts.query)).get("host") or parts.hostname or "")


def _is_local(host: str) -> bool:
    return host.startswith("/") or host in _LOCAL
