"""Where in a file a record stands, and that it breaks a rule there: named by both, and never by what it holds."""

from __future__ import annotations

from collections.abc import Sequence
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


def first_few(names: Sequence[str], most: int = _NAMED) -> str:
    """Return names as part of a sentence, of many the first ones and how many more there are.

    >>> first_few(list("abcdefg"))
    'a, b, c, d, e, 2 more'
    """
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def found_in(folder: Path) -> str:
    """Say what lies in a folder, by name: the first few, folders with a stroke behind, and nothing that is hidden."""
    return first_few(_shown(folder)) or "nothing"


def _shown(folder: Path) -> list[str]:
    return sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
