"""Whether two tables of one silo are the same source, as far as their text says.

A budget is of data, not of a name: one file under two names, each with a budget, would be spent twice. What only the
file system knows (links, copies) is for `fedmodel.data.same_source`.

Guarantee: of two databases none is called different because of another way to write its address: scheme, user, port,
options, their order, case of the host, or one of the names of this machine. Two queries of one database cannot be told
apart by a program, so they are the same source unless the silo's own file says of both that they are disjoint.

Does NOT see that two hosts' names lead to one machine, that one database is a copy or a view of another, or that a file
was exported from a database.
"""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import ip_address
from pathlib import PurePath
from urllib.parse import parse_qsl, unquote, urlsplit

from fedmodel.config.tables import POSTGRESQL, SQLITE, TableSource, is_local

_KINDS = (".csv", ".parquet")


def same_by_text(one: TableSource, other: TableSource) -> str | None:
    """Return in which way two tables are the same source by their text alone, None where it does not say so.

    >>> same_by_text(TableSource(csv="/srv/a.csv"), TableSource(folder="/srv/./"))
    'a file and the folder that it lies in'
    """
    paths = [PurePath(path) for source in (one, other) if (path := path_of(source))]
    if len(paths) == 2:
        if paths[0] == paths[1]:
            return same_query(one, other) if one.database and other.database else "the same path"
        if any(source.files and path.is_relative_to(folder) for source, path, folder in _either_way(one, other, paths)):
            return "a folder and what lies in it"
        if any(path.parent == folder and path.suffix.lower() in _KINDS for path, folder in (paths, paths[::-1])):
            return "a file and the folder that it lies in" if bool(one.folder) != bool(other.folder) else None
    if one.database == other.database == POSTGRESQL and address_of(one) == address_of(other):
        return same_query(one, other)
    return None


def _either_way(
    one: TableSource, other: TableSource, paths: list[PurePath]
) -> tuple[tuple[TableSource, PurePath, PurePath], ...]:
    """Return each source with the other's path, and its own, which may be a folder that the other's lies in."""
    return (one, paths[1], paths[0]), (other, paths[0], paths[1])


def same_query(one: TableSource, other: TableSource) -> str | None:
    """Return in which way two queries of one database are the same source, None where their silo says that they differ.

    >>> who = {"url": "sqlite:///a", "disjoint": True}
    >>> one, other = (TableSource(query=f"SELECT * FROM t WHERE a = {n}", **who) for n in "12")
    >>> same_query(one, other), same_query(one, one)
    (None, 'the same query')
    """
    if query_of(one) == query_of(other):
        return "the same query"
    return None if one.disjoint and other.disjoint else "queries of the same database"


def two_budgets(one: str, other: str, way: str) -> str:
    """Return what to say of one source that has two budgets."""
    return (
        f"tables.{one} and tables.{other} are {way}, and a budget is of data, not of a name: let one budget count both,"
        f' as in [budgets.{one}] covers = ["{one}", "{other}"]'
        + ("; or, where nobody's record is in both, say disjoint = true of both" if "queries" in way else "")
    )


def path_of(source: TableSource) -> str | None:
    """Return the path of a file or a folder that a table lies in, None where it is elsewhere."""
    if source.database == SQLITE:
        return source.sqlite_path
    return source.csv or source.parquet or source.folder or source.files


def query_of(source: TableSource) -> str:
    """Return a query but for white space, and for the case of what stands outside of quotes."""
    text = (source.query or "").strip().removesuffix(";")
    parts = re.split(r"""('[^']*'|"[^"]*")""", text)
    return "".join(part if at % 2 else re.sub(r"\s+", " ", part).lower() for at, part in enumerate(parts)).strip()


def address_of(source: TableSource) -> tuple[str, str, str]:
    """Return to which machine, port and database a URL of PostgreSQL leads, whoever asks."""
    parts = urlsplit(source.url or "")
    options = dict(parse_qsl(parts.query))
    host = unquote(options.get("host") or parts.hostname or "").lower().rstrip(".")
    local = is_local(source.url or "") or host.startswith("/")
    with suppress(ValueError):  # a name
        address = ip_address(host)
        host, local = str(address), local or address.is_loopback
    return "" if local else host, options.get("port") or str(parts.port or 5432), unquote(parts.path[1:])
