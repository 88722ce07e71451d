"""The frozen models of a silo's own data: what a table is, which is public, and where it lies, which is the silo's.

A scenario declares each column, its public range, its plausible limits and what becomes of a missing value. `silo.toml`
says where the table lies. Neither holds a password, and no message of these models repeats a URL, which could.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BeforeValidator, Field, model_serializer, model_validator

from fedmodel.kinds.spelling import CsvForm, Later, TableSection, choice_form

Range = Annotated[tuple[float, float], Field(strict=False)]
RISING: Final = "rise from low to high, by 1e-100 at least and within plus and minus 1e100"
_FARTHEST: Final = 1e100
DataName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")]
PersonForm = Literal["text", "caseless", "digits"]
# Of any alphabet, but on one line: names stand in errors and in documents.
ColumnName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]
Choices = Annotated[tuple[ColumnName, ...], Field(strict=False, max_length=1_000)]

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
_SCHEMES: Final = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "postgresql+psycopg": POSTGRESQL}
# What of libpq a URL may set: where and how to connect, never who may do what, nor a password.
_OPTIONS: Final = ("host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout")
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_VERIFIED: Final = ("verify-ca", "verify-full")


def rises(pair: tuple[float, float]) -> bool:
    """Return whether a range's middle and width are numbers that one can divide by.

    >>> [rises(pair) for pair in ((0.0, 1.0), (1.0, 1.0), (0.0, 5e-324), (-1.7e308, 1.7e308))]
    [True, False, False, False]
    """
    low, high = pair
    return high - low >= 1 / _FARTHEST and max(abs(low), abs(high)) <= _FARTHEST


class ColumnConfig(TableSection, Later):
    """A column of a table.

    Attributes:
        name: As it stands in the source.
        type: What its values are.
        range: Public reference range of a number, mapped onto [-1, 1]; never computed from records.
        limits: What a number must lie within, or the table is refused.
        categories: What a category can be, in the order of the features that it becomes.
        missing: A missing value refuses the table, drops its record, or is filled in. Each looks at one record alone.
        fill: The public constant that is filled in; never a figure of the records.
        unknown: Of a category, a value that is none of them refuses the table, drops its record, or counts as `other`.
            Each looks at one record alone, so that neighbours still differ by one record at most.
        other: The category, one of those declared, that stands for all that are not.
    """

    LATER = ("unknown", "other")

    name: ColumnName
    type: Literal["float", "integer", "boolean", "category"]
    range: Range | None = None
    limits: Range | None = None
    categories: Choices = ()
    missing: Literal["refuse", "drop", "fill"] = "refuse"
    fill: bool | int | float | str | None = None
    unknown: Literal["refuse", "drop", "other"] = "refuse"
    other: ColumnName | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> ColumnConfig:
        numeric = self.type in ("float", "integer")
        if numeric != (self.range is not None):
            raise ValueError(
                f"column {self.name!r}: range, a public reference range, is given with a float or an integer, and only"
                f" then; found type = {self.type!r}"
            )
        if not numeric and self.limits is not None:
            raise ValueError(f"column {self.name!r}: limits are given with a float or an integer, and only then")
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise ValueError(f"column {self.name!r}: limits must rise from low to high, found {list(self.limits)}")
        if self.range is not None and not rises(self.range):
            raise ValueError(f"column {self.name!r}: range must {RISING}, found {list(self.range)}")
        if (self.type == "category") != bool(self.categories):
            raise ValueError(f"column {self.name!r}: categories are given with a category, and only then")
        _choices_differ(self.categories, f"column {self.name!r}: category")
        self._fill_is_said()
        self._unknown_is_said()
        return self

    def _unknown_is_said(self) -> None:
        """Refuse a rule for unknown categories of what has none, and an "other" that is not declared."""
        if self.unknown != "refuse" and self.type != "category":
            raise ValueError(f"column {self.name!r}: unknown is given with a category, and only then")
        if (self.unknown == "other") != (self.other is not None):
            raise ValueError(f'column {self.name!r}: other, a category, is given with unknown = "other", and only then')
        if self.other is not None and self.other not in self.categories:
            raise ValueError(f"column {self.name!r}: other = {self.other!r} is none of its categories; add it to them")

    def _fill_is_said(self) -> None:
        """Refuse a constant that is not asked for, and one that the column could not hold."""
        if (self.missing == "fill") != (self.fill is not None):
            raise ValueError(
                f'column {self.name!r}: fill, a public constant, is given with missing = "fill", and only then'
            )
        if self.fill is None:
            return
        number = isinstance(self.fill, int | float) and not isinstance(self.fill, bool)
        fits = {
            "float": number,
            "integer": number and isinstance(self.fill, int),
            "boolean": isinstance(self.fill, bool),
            "category": self.fill in self.categories,
        }[self.type]
        if not fits:
            raise ValueError(f"column {self.name!r}: fill = {self.fill!r} is no {self.type} of it")
        if self.limits is not None and not self.limits[0] <= float(self.fill) <= self.limits[1]:
            raise ValueError(f"column {self.name!r}: fill = {self.fill!r} is outside its limits {list(self.limits)}")

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that it becomes."""
        return tuple(f"{self.name}={choice}" for choice in self.categories) or (self.name,)


class PersonColumn(TableSection):
    """Which column says whose a record is, and when two of its ids are one person's (`fedmodel.data.persons`).

    `"patient_id"` is short for `{column = "patient_id", form = "text"}`, and is how it is written back.

    Attributes:
        column: As it stands in the source.
        form: "text", "caseless" where case does not count, "digits" where ids are whole numbers.
    """

    column: ColumnName
    form: PersonForm = "text"

    @model_serializer
    def _as_short_as_can_be(self) -> str | dict[str, str]:
        # A scenario's hash stays what it was before there were forms.
        return self.column if self.form == "text" else {"column": self.column, "form": self.form}


def _spelled_out(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


Person = Annotated[PersonColumn, BeforeValidator(_spelled_out, json_schema_input_type=ColumnName | PersonColumn)]


class TableSource(CsvForm):
    """Where a table lies: exactly one of a file of CSV, a file of Parquet, a folder of both, and a query.

    Attributes:
        csv: Path of a CSV file with a header; a relative one begins at this file's folder. In UTF-8, with
            commas, unless separator, decimal and encoding say otherwise.
        parquet: Path of a Parquet file, likewise.
        folder: Path of a folder, likewise: all `*.csv` and `*.parquet` in it, in the order of their names.
        url: Of a database, `sqlite:///PATH` or `postgresql://USER@HOST/DATABASE`, without a password.
        query: The one SELECT that gives the table.
        password_file: Path of a file that holds the account's password, readable by its owner alone.
        person: Which column says whose a record is, and in which form; a scenario cannot say otherwise.
        disjoint: The operator's word that the query gives nobody's record whom another table of the same database gives
            too; no program can see that.
    """

    csv: str | None = Field(default=None, min_length=1)
    parquet: str | None = Field(default=None, min_length=1)
    folder: str | None = Field(default=None, min_length=1)
    url: str | None = Field(default=None, min_length=1)
    query: str | None = Field(default=None, min_length=1)
    password_file: str | None = Field(default=None, min_length=1)
    person: Person | None = None
    disjoint: bool = False

    @model_validator(mode="after")
    def _is_one_thing(self) -> TableSource:
        given = [key for key in ("csv", "parquet", "folder", "url") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of csv, parquet, folder and url, found {' and '.join(given) or 'none of them'}"
            )
        if (self.url is None) != (self.query is None):
            raise ValueError("query is given with url, and only then")
        if self.query is not None:
            _is_one_select(self.query)
        if self.url is not None:
            _is_plain(self.url)
        if self.password_file is not None and self.database != POSTGRESQL:
            raise ValueError("password_file is given with the url of a PostgreSQL database, and only then")
        if not self.is_plain and not (self.csv or self.folder):
            raise ValueError("separator, decimal and encoding are given with csv or folder, and only then")
        if self.disjoint and self.url is None:
            raise ValueError("disjoint is given with url and query, and only then: of files it can be seen")
        return self

    def under(self, folder: Path) -> TableSource:
        """Return the same, with relative paths beginning at a folder."""
        paths = {
            key: str(folder / path)
            for key in ("csv", "parquet", "folder", "password_file")
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


def _differ(names: tuple[str, ...], what: str) -> None:
    """Refuse a name that is given twice."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what} {name!r} is named twice")


def _choices_differ(choices: tuple[str, ...], what: str) -> None:
    """Refuse a choice that is given twice, and two that a gap would make one, as "1" and "1.0"."""
    _differ(choices, what)
    forms: dict[str, str] = {}
    for choice in choices:
        if (other := forms.setdefault(choice_form(choice), choice)) != choice:
            raise ValueError(f"{what} {choice!r} and {other!r} are read as one; take names that differ more")


def check_table(
    columns: tuple[ColumnConfig, ...], label: str | None, labels: tuple[str, ...], person: PersonColumn | None
) -> None:
    """Refuse a table that could not be read one way only.

    Raises:
        ValueError: Which rule it breaks.
    """
    if label is None or len(labels) < 2 or not columns:
        raise ValueError(
            'source = "table" needs label, the column to predict, labels, its classes in order and at least two, and'
            " at least one [[data.columns]]"
        )
    _choices_differ(labels, "label")
    _differ((*(column.name for column in columns), label, *([] if person is None else [person.column])), "column")
