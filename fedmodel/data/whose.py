"""Whose a record of files is, by a field beside it, and whose records are not read.

A normal form is that of `fedmodel.data.persons`, as of a table's rows. Errors name a file, a place in it and a rule,
never an id.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fedmodel.config import PersonForm
from fedmodel.data.persons import normal_id
from fedmodel.errors import DataError


@dataclass(frozen=True)
class Whose:
    """By which field it is known.

    Attributes:
        column: The field of a line, or the column of a listing.
        form: When two ids are one person's.
        gone: Normal forms of who withdrew. Sensitive.
    """

    column: str
    form: PersonForm = "text"
    gone: frozenset[str] = field(default=frozenset(), repr=False)

    def of(self, value: str, at: str) -> str | None:
        """Return the normal form of whose a record is, None where it is not to be read. Sensitive.

        Args:
            value: As the file has it. Sensitive.
            at: Where it stands, for errors.

        Raises:
            DataError: When the form does not admit it.
        """
        try:
            normal = normal_id(value, self.form)
        except DataError as error:
            raise DataError(f"{at}: {self.column!r} {error}") from None
        return None if normal in self.gone else normal
