"""Where in a file a record stands, and that it breaks a rule there: named by both, and never by what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedmodel.errors import DataError

_NAMED: Final = 5  # of what lies in a folder


@dataclass(frozen=True)
class At:
    """A place.

    Attributes:
        file: The file.
        row: Which of its records, where it holds several.
        word: What one of them is called.
    """

    file: Path
    row: int | None = None
    word: str = "line"

    def __str__(self) -> str:
        return str(self.file) if self.row is None else f"{self.file}: {self.word} {self.row}"

    def refused(self, rule: str, key: str | None = None) -> RecordRefused:
        """Return the error of a record here.

        Args:
            rule: Which one it breaks; never what stands there.
            key: By which field or column.
        """
        return RecordRefused(self, rule, key)


class RecordRefused(DataError):
    """One record of a file breaks a rule; whoever asked for all that do so goes on with the next."""

    def __init__(self, at: At, rule: str, key: str | None) -> None:
        super().__init__(f"{at}: {rule}")
        self.at, self.rule, self.key = at, rule, key


def found_in(folder: Path) -> str:
    """Say what lies in a folder, by name: the first few, folders with a stroke behind, and nothing that is hidden."""
    shown = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    more = [f"{len(shown) - _NAMED} more"] if len(shown) > _NAMED else []
    return ", ".join([*shown[:_NAMED], *more]) or "nothing"
