"""Which records of files are read: whose they are, who withdrew, and what is held out.

A normal form is that of `fedmodel.data.persons`, as of a table's rows. Errors name a file, a place in it and a rule,
never an id.

Guarantee: whether a record is read is a function of that record's own id and of what is declared, where files say whose
a record is. Where they do not, and a share of pictures is held out, it is a function of the picture alone: its height,
width and colours as they are decoded, whatever its file is called, in which lossless format it lies, and whatever a
scenario makes of it. So no other record, order or name moves it, and copies of one picture go together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fedmodel.config import PersonForm
from fedmodel.data.holding_out import is_held_out
from fedmodel.data.persons import normal_id
from fedmodel.data.places import At
from fedmodel.errors import DataError


@dataclass(frozen=True)
class Whose:
    """Which records are read.

    Attributes:
        column: The field of a line, or the column of a listing or of a data set, that says whose a record is.
        form: When two ids are one person's.
        gone: Normal forms of who withdrew. Sensitive.
        share: What is held out: of persons, or of pictures where no column says whose they are.
        held_out: Whether those that are held out are read, and not the others.
    """

    column: str | None = None
    form: PersonForm = "text"
    gone: frozenset[str] = field(default=frozenset(), repr=False)
    share: float | None = None
    held_out: bool = False

    @property
    def looks_at_pictures(self) -> bool:
        """Whether a picture decides by itself whether it is read."""
        return self.share is not None and self.column is None

    def of(self, value: str, at: At) -> str | None:
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
            raise at.refused(f"{self.column!r} {error}", self.column) from None
        return normal if self.has(normal) else None

    def has(self, normal: str) -> bool:
        """Return whether a person's records are read.

        Args:
            normal: The normal form of her id. Sensitive.
        """
        if normal in self.gone:
            return False
        return self.share is None or is_held_out(normal, self.share) == self.held_out

    def has_picture(self, digest: str) -> bool:
        """Return whether a picture is read, that a digest tells from others (`fedmodel.data.pictures`)."""
        if self.share is None or self.column is not None:
            return True
        return is_held_out(f"picture {digest}", self.share) == self.held_out
