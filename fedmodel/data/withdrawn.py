"""Persons who withdrew: a silo's own list of ids, sealed in its kit, whose records are read no more.

One sealed file, `withdrawn.age` (`fedmodel.data.sealed_list`). By table it holds ids as a person gave them, and by
which column and in which form (`fedmodel.data.persons`) they are compared. The list goes on by that word of its own,
whatever `silo.toml` says later. Besides, it names the silo's tables that a person left out when persons withdrew from
others alone.

Guarantee: a row of a listed person is dropped once its id is read, and before any other value of it is looked at. So a
table reads as if the row were not in it (`fedmodel.data.tables`), whatever stands in that row, and of other persons
nothing changes. A list that does not open, is not as it was written, or cannot be applied raises, and nothing is read.
A table under a name that the list does not have is read without everybody who withdrew from any; where its rows are not
known as theirs by the same column and form, it is not read.

Does NOT know a person by another id, nor that a name which it has stands for another table now. Does not protect
against whoever can write the silo's files: they can take the list away, put an older one back, or change the table
itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedmodel.config import PersonColumn
from fedmodel.data.persons import normal_id
from fedmodel.data.sealed_list import SealedList
from fedmodel.errors import DataError

if TYPE_CHECKING:
    from fedmodel.crypto.sealed import Opener

WITHDRAWN: Final = "withdrawn.age"
_LIST: Final = SealedList(
    WITHDRAWN,
    (1, 2),  # the first named no tables that were left out
    "`silo withdraw` writes it, so that nobody can tell whose records may be read; restore it, or remove it and hand in"
    " all ids again",
)


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


@dataclass(frozen=True)
class Withdrawals:
    """The list.

    Attributes:
        tables: Who withdrew, by the tables that they withdrew from.
        apart: Other tables that a person left out, having withdrawn persons from one table alone.
    """

    tables: Mapping[str, Withdrawn] = field(default_factory=dict)
    apart: frozenset[str] = frozenset()

    def of(self, table: str, person: PersonColumn | None) -> Withdrawn | None:
        """Return whose rows are dropped from a table.

        Of a table that the list does not have: everybody's who withdrew from any, since it may be one of those under
        another name.

        Args:
            table: Its name in the silo's own file.
            person: By which column and in which form that file says whose its rows are.

        Raises:
            DataError: When the list does not have the table, and has persons who are not known by this column in this
                form. It has no code of its own.
        """
        if table in self.tables:
            return self.tables[table]
        everybody = {one for known in self.tables.values() for one in known.ids}
        if table in self.apart or not everybody:
            return None
        alike = {one for known in self.tables.values() if known.person == person for one in known.ids}
        if person is None or alike != everybody:
            raise DataError(
                f"table {table!r}: persons withdrew from {', '.join(sorted(self.tables))}, and silo.toml does not know"
                " rows of this table as theirs by the same column and form; say it there, or run `silo withdraw` again:"
                " for all tables, or with --table of another one if this one has none of their records"
            )
        return Withdrawn(person, frozenset(everybody))

    def before(self, table: str, person: PersonColumn) -> Withdrawn:
        """Return who withdrew from a table before; of one that the list does not have, everybody.

        Raises:
            DataError: When the list does not have the table, and has persons who are known by another column.
        """
        if table in self.tables or table in self.apart:
            return self.tables.get(table, Withdrawn(person, frozenset()))
        for name, known in self.tables.items():
            if known.ids and known.person.column != person.column:
                raise DataError(
                    f"table {table!r}: persons withdrew before from {name!r} by column {known.person.column!r}, and"
                    f" silo.toml says {person.column!r} here, so that nobody can tell who of them is meant; if this"
                    " table has none of their records, run `silo withdraw` with --table of another one first, and else"
                    f" remove {WITHDRAWN} from the kit and hand in all ids again; nothing was entered"
                )
        return Withdrawn(person, frozenset(one for known in self.tables.values() for one in known.ids))


def read_withdrawn(kit: Path, opener: Opener) -> Withdrawals:
    """Return who withdrew; nobody where there is no list.

    Args:
        kit: The silo's.
        opener: The silo's own.

    Raises:
        DataError: When it cannot be read, does not open, or is not as it was written. It has no code of its own: what
            leaves a silo does not tell that there is a list.
    """
    return _LIST.read(kit, opener, _listed) or Withdrawals()


def add_withdrawn(
    kit: Path,
    opener: Opener,
    recipient: str,
    more: Mapping[str, Withdrawn],
    left_out: Mapping[str, PersonColumn | None] | None = None,
) -> None:
    """Add persons to the list. All ids of a table are compared in the form that is given with the newest.

    A table that is new to the list begins with everybody on it.

    Args:
        kit: The silo's.
        opener: The silo's own.
        recipient: The silo's own, to whom it is sealed.
        more: By table.
        left_out: The silo's other tables, from which nobody withdraws now. Who is dropped from them stays so.

    Raises:
        DataError: As `read_withdrawn` does; or when ids that were entered before are of another column than these, or
            are not admitted by the form of these.
        OSError: When it cannot be written; the list that was there stays.
    """
    found = read_withdrawn(kit, opener)
    tables, apart = dict(found.tables), set(found.apart)
    for table, person in (left_out or {}).items():
        try:
            kept = found.of(table, person)
        except DataError:  # until now it was not read at all
            kept = None
        if kept is None:
            apart.add(table)
        else:
            tables[table] = kept
    for table, new in more.items():
        known = found.before(table, new.person)
        if known.person.column != new.person.column:
            raise DataError(
                f"table {table!r}: ids that were entered before are of column {known.person.column!r}, and silo.toml"
                f" says {new.person.column!r}; remove {kit / WITHDRAWN} and hand in all ids again"
            )
        tables[table] = Withdrawn(new.person, known.ids | new.ids)
        try:
            tables[table].normal()
        except DataError as error:
            raise DataError(f"table {table!r}: an id that was entered before {error}; nothing was entered") from None
    said = {
        table: {"column": one.person.column, "form": one.person.form, "ids": sorted(one.ids)}
        for table, one in sorted(tables.items())
    }
    _LIST.write(kit, recipient, {"tables": said, "apart": sorted(apart - tables.keys())})


def _listed(said: Mapping[str, Any]) -> Withdrawals:
    """Return what was written."""
    tables = {str(table): _read(one) for table, one in said["tables"].items()}
    return Withdrawals(tables, frozenset(map(str, said["apart"] if said["version"] > 1 else ())))


def _read(said: Any) -> Withdrawn:
    """Return what was written of one table."""
    person = PersonColumn.model_validate({"column": said["column"], "form": said["form"]})
    return Withdrawn(person, frozenset(map(str, said["ids"])))
