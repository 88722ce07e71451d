"""By which word a silo held persons out when it handed their rows to the server's operator: sealed in its kit.

One file, `handed-out.age`, sealed to the silo's own age recipient, replaced whole, and padded as a cache is. By table
it keeps the column and form of ids and the largest share that was handed out, and by what the source is known again
(`fedmodel.data.same_source.marks`). Who was handed out follows from these (`fedmodel.data.holding_out`); no id is kept.

Guarantee: a table of which rows were handed out, or one whose source is known as its source under any name, is read
only by the same column and form, and with the same or a larger share held out. So whoever was handed out, while their
id stays as it is in the table, does not train. A file that does not open, or is not as it was written, raises, and
nothing is read.

Does NOT know a source again that was changed and moved under another name (`docs/silo.md`), nor a person by another
id. Does not protect against whoever can write the silo's files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedmodel.config import PersonColumn, TableSource
from fedmodel.data.cache import padded
from fedmodel.data.same_source import marks
from fedmodel.errors import ConfigError, CryptoError, DataError

if TYPE_CHECKING:
    from fedmodel.crypto.sealed import Opener

HANDED_OUT: Final = "handed-out.age"
_VERSION: Final = 1


@dataclass(frozen=True)
class Handed:
    """What was handed out of one table.

    Attributes:
        person: By which column and in which form a row was known as a person's.
        share: The largest share that was held out.
        marks: By what the source is known again. Sensitive.
    """

    person: PersonColumn
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
    from fedmodel.crypto.sealed import read_sealed  # who reads rows for a model has no such file and needs none

    path = kit / HANDED_OUT
    try:
        document = json.loads(read_sealed(path, opener))
        if document["version"] != _VERSION:
            raise DataError(f"{path}: is of another version of fedmodel; use that one")
        return {str(table): _read(said) for table, said in document["tables"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (CryptoError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{path}: does not open, or is not as `silo hold-out` writes it, so that nobody can tell who was handed"
            " out; restore it, or remove it and hand out again, and have the server's old file replaced"
        ) from None


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
        raise ConfigError(
            f"table {table!r}: held_out = {one.share!r} of {name!r} was handed out, by column {one.person.column!r} in"
            f' form = "{one.person.form}", and by silo.toml now persons of that file would train; say this again, or a'
            f" larger held_out, or remove {HANDED_OUT} from the kit once the server's operator has the file no more"
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
    from fedmodel.crypto.sealed import write_sealed

    found = read_handed_out(kit, opener)
    check_holds_out(found, table, source)
    if source.person is None or source.held_out is None:
        raise ConfigError(f"[tables.{table}] of silo.toml does not say held_out, so no row may be handed out")
    known = found[table].marks if table in found else frozenset[str]()
    found[table] = Handed(source.person, source.held_out, known | _marks(source))
    tables = {
        name: {"column": one.person.column, "form": one.person.form, "share": one.share, "marks": sorted(one.marks)}
        for name, one in sorted(found.items())
    }
    plain = json.dumps({"version": _VERSION, "tables": tables}).encode()
    write_sealed(kit / HANDED_OUT, plain.ljust(padded(len(plain))), (recipient,))


def _marks(source: TableSource) -> frozenset[str]:
    """Return by what a source is known again; by its query alone where it is the silo's word that it is disjoint."""
    return frozenset(mark.decode() for mark in marks(source)[1])


def _read(said: Any) -> Handed:
    """Return what was written of one table."""
    person = PersonColumn.model_validate({"column": said["column"], "form": said["form"]})
    share = said["share"]
    if not isinstance(share, float) or not 0.0 < share < 1.0:
        raise ValueError("is no share")
    return Handed(person, share, frozenset(map(str, said["marks"])))
