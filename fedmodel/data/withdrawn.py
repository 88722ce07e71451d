"""Persons who withdrew: a silo's own list of ids, sealed in its kit, whose records are read no more.

One file, `withdrawn.age`, sealed to the silo's own age recipient, replaced whole, and padded as a cache is: every list
under 64 KiB has one length. By table it holds ids as a person gave them, and by which column and in which form
(`fedmodel.data.persons`) they are compared. The list goes on by that word of its own, whatever `silo.toml` says later.

Guarantee: a row of a listed person is dropped once its id is read, and before any other value of it is looked at. So a
table reads as if the row were not in it (`fedmodel.data.tables`), whatever stands in that row, and of other persons
nothing changes. A list that does not open, is not as it was written, or cannot be applied raises, and nothing is read.

Does NOT know a person by another id, or in a table whose rows say no person. Does not protect against whoever can write
the silo's files: they can take the list away, put an older one back, or change the table itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedmodel.config import PersonColumn
from fedmodel.data.cache import padded
from fedmodel.data.persons import normal_id
from fedmodel.errors import CryptoError, DataError

if TYPE_CHECKING:
    from fedmodel.crypto.sealed import Opener

WITHDRAWN: Final = "withdrawn.age"
_VERSION: Final = 1


@dataclass(frozen=True)
class Withdrawn:
    """Who withdrew from one table.

    Attributes:
        person: By which column and in which form a row is known as theirs.
        ids: As they were given. Sensitive.
    """

    person: PersonColumn
    ids: frozenset[str] = field(repr=False)

    def normal(self) -> list[str]:
        """Return the normal forms of the ids, in order. Sensitive.

        Raises:
            DataError: When the form does not admit one: the rule, as the end of a sentence about it.
        """
        return sorted({normal_id(one, self.person.form) for one in self.ids})

    def digest(self) -> bytes:
        """Return 32 bytes that differ when other rows may be meant."""
        said = [self.person.column, self.person.form, sorted(self.ids)]
        return hashlib.sha256(json.dumps(said).encode()).digest()


def read_withdrawn(kit: Path, opener: Opener) -> dict[str, Withdrawn]:
    """Return who withdrew, by table; nobody where there is no list.

    Args:
        kit: The silo's.
        opener: The silo's own.

    Raises:
        DataError: When it cannot be read, does not open, or is not as it was written. It has no code of its own: what
            leaves a silo does not tell that there is a list.
    """
    from fedmodel.crypto.sealed import read_sealed  # who reads rows for a model has no list and needs none

    path = kit / WITHDRAWN
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
            f"{path}: does not open, or is not as `silo withdraw` writes it, so that nobody can tell whose records may"
            " be read; restore it, or remove it and hand in all ids again"
        ) from None


def add_withdrawn(kit: Path, opener: Opener, recipient: str, more: Mapping[str, Withdrawn]) -> None:
    """Add persons to the list. All ids of a table are compared in the form that is given with the newest.

    Args:
        kit: The silo's.
        opener: The silo's own.
        recipient: The silo's own, to whom it is sealed.
        more: By table.

    Raises:
        DataError: As `read_withdrawn` does; or when ids that were entered before are of another column than these, or
            are not admitted by the form of these.
        OSError: When it cannot be written; the list that was there stays.
    """
    from fedmodel.crypto.sealed import write_sealed

    found = read_withdrawn(kit, opener)
    for table, new in more.items():
        known = found.get(table, new)
        if known.person.column != new.person.column:
            raise DataError(
                f"table {table!r}: ids that were entered before are of column {known.person.column!r}, and silo.toml"
                f" says {new.person.column!r}; remove {kit / WITHDRAWN} and hand in all ids again"
            )
        found[table] = Withdrawn(new.person, known.ids | new.ids)
        try:
            found[table].normal()
        except DataError as error:
            raise DataError(f"table {table!r}: an id that was entered before {error}; nothing was entered") from None
    tables = {
        table: {"column": one.person.column, "form": one.person.form, "ids": sorted(one.ids)}
        for table, one in sorted(found.items())
    }
    plain = json.dumps({"version": _VERSION, "tables": tables}).encode()
    write_sealed(kit / WITHDRAWN, plain.ljust(padded(len(plain))), (recipient,))


def _read(said: Any) -> Withdrawn:
    """Return what was written of one table."""
    person = PersonColumn.model_validate({"column": said["column"], "form": said["form"]})
    return Withdrawn(person, frozenset(map(str, said["ids"])))
