"""By which word a silo held persons out when it handed their rows to the server's operator: sealed in its kit.

One sealed file, `handed-out.age` (`fedmodel.data.sealed_list`). By table it keeps the column and form of ids and the
largest share that was handed out, and by what the source is known again (`fedmodel.data.same_source.marks`). Who was
handed out follows from these (`fedmodel.data.holding_out`); no id is kept.

Guarantee: a table of which rows were handed out, or one whose source is known as its source under any name, is read
only by the same column and form, and with the same or a larger share held out. So whoever was handed out, while their
id stays as it is in the table, does not train. A file that does not open, or is not as it was written, raises, and
nothing is read.

Does NOT know a source again that was changed and moved under another name (`docs/silo.md`), nor a person by another
id. Does not protect against whoever can write the silo's files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedmodel.config import PersonColumn, TableSource
from fedmodel.data.same_source import marks
from fedmodel.data.sealed_list import SealedList
from fedmodel.errors import ConfigError

if TYPE_CHECKING:
    from fedmodel.crypto.sealed import Opener

HANDED_OUT: Final = "handed-out.age"
_LIST: Final = SealedList(
    HANDED_OUT,
    (1, 2),  # the first knew no pictures that nobody says whose they are
    "`silo hold-out` writes it, so that nobody can tell who was handed out; restore it, or remove it and hand out"
    " again, and have the server's old file replaced",
)


@dataclass(frozen=True)
class Handed:
    """What was handed out of one table.

    Attributes:
        person: By which column and in which form a row was known as a person's; None where pictures were held out by
            what each holds.
        share: The largest share that was held out.
        marks: By what the source is known again. Sensitive.
    """

    person: PersonColumn | None
    share: float
    marks: frozenset[str] = field(repr=False)


def read_handed_out(kit: Path, opener: Opener) -> dict[str, Handed]:
    """Return what was handed out, by table; nothing where there is no file.

    Args:
        kit: The silo's.
        opener: The silo's own.

    Raises:
        DataError: When it cannot be read, does not open, or is not as it was written.
    """
    found = _LIST.read(kit, opener, lambda said: {str(table): _read(one) for table, one in said["tables"].items()})
    return {} if found is None else found


def check_holds_out(handed: Mapping[str, Handed], table: str, source: TableSource) -> None:
    """Refuse a table by whose word of today somebody would train who was handed out.

    Args:
        handed: What was handed out.
        table: Its name in the silo's own file.
        source: Where it lies, with absolute paths, and what is held out of it now.

    Raises:
        ConfigError: What was handed out, and what the file has to say.
        DataError: When a file cannot be looked at, so that nobody can tell.
    """
    for name, one in handed.items():
        if source.person == one.person and source.held_out is not None and source.held_out >= one.share:
            continue
        if name != table and not one.marks & _marks(source):
            continue
        if one.person is None:
            by, who = "by what each picture holds", "pictures"
        else:
            by, who = f'by column {one.person.column!r} in form = "{one.person.form}"', "persons"
        raise ConfigError(
            f"table {table!r}: held_out = {one.share!r} of {name!r} was handed out, {by}, and by silo.toml now {who} of"
            f" that file would train; say this again, or a larger held_out, or remove {HANDED_OUT} from the kit once"
            " the server's operator has the file no more"
        )


def add_handed_out(kit: Path, opener: Opener, recipient: str, table: str, source: TableSource) -> None:
    """Keep by which word rows are handed out, before they are.

    Args:
        kit: The silo's.
        opener: The silo's own.
        recipient: The silo's own, to whom it is sealed.
        table: Its name in the silo's own file.
        source: Where it lies, with absolute paths; it says whose a row is, and which share is held out.

    Raises:
        ConfigError: As `check_holds_out` does, or when nothing is held out.
        DataError: As `read_handed_out` does.
        OSError: When it cannot be written; the file that was there stays.
    """
    found = read_handed_out(kit, opener)
    check_holds_out(found, table, source)
    if source.held_out is None:
        raise ConfigError(f"[tables.{table}] of silo.toml does not say held_out, so no row may be handed out")
    known = found[table].marks if table in found else frozenset[str]()
    found[table] = Handed(source.person, source.held_out, known | _marks(source))
    tables = {
        name: {**_said(one.person), "share": one.share, "marks": sorted(one.marks)}
        for name, one in sorted(found.items())
    }
    _LIST.write(kit, recipient, {"tables": tables})


def _marks(source: TableSource) -> frozenset[str]:
    """Return by what a source is known again; by its query alone where it is the silo's word that it is disjoint."""
    return frozenset(mark.decode() for mark in marks(source)[1])


def _said(person: PersonColumn | None) -> dict[str, str | None]:
    """Return by which word rows were held out, as it is written."""
    if person is None:
        return {"column": None, "form": None}
    return {"column": person.column, "form": person.form}


def _read(said: Any) -> Handed:
    """Return what was written of one table."""
    is_of_pictures = said["column"] is None and said["form"] is None
    person = None if is_of_pictures else PersonColumn.model_validate({key: said[key] for key in ("column", "form")})
    share = said["share"]
    if not isinstance(share, float) or not 0.0 < share < 1.0:
        raise ValueError("is no share")
    return Handed(person, share, frozenset(map(str, said["marks"])))
