"""What kinds of source have in common that read files from a person's own disk, since no package ships them.

Nothing is downloaded. Which version of a published file somebody has is not known beforehand, so it is known by its
form: its columns, and what may stand in each. Another file is refused.

Does NOT tell whether the records are those that were published: a file of the same form passes.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import ClassVar, Final

from pydantic import Field

from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.source import Dealt

_NOT_DEPLOYED: Final = (
    "data.source = {!r} deals out a file of whoever simulates, and a deployed silo reads none of another's; give each"
    " silo {}"
)
_LONGEST_MARK: Final = 4
_PACKED: Final = ((b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip"))


class OnDisk(Dealt):
    """What a person has on disk, dealt out in a simulation.

    Attributes:
        what: What to get, in words: what it is called, whose it is, and what it holds.
        instead: What a deployed silo has in its place.
    """

    what: ClassVar[str]
    instead: ClassVar[str] = 'a table of its own (source = "table")'

    def why_not_deployed(self) -> str | None:
        """Return that it lies on one person's disk."""
        return super().why_not_deployed() or _NOT_DEPLOYED.format(self.source, self.instead)


class OneFile(OnDisk):
    """A file.

    Attributes:
        file: Where it lies; a relative path begins at the working folder.
    """

    file: str | None = Field(default=None, min_length=1)

    def under(self, folder: Path) -> OneFile:
        """Return the same, with the file beginning at a folder."""
        return self if self.file is None else self.model_copy(update={"file": str(folder / self.file)})

    def state(self) -> tuple[int, ...]:
        """Return when the file was last written, and its size."""
        found = self.opened().stat()
        return found.st_mtime_ns, found.st_size

    def opened(self) -> Path:
        """Return the file, which is there, can be read, and is neither empty nor packed.

        Raises:
            ConfigError: When the scenario does not say where it lies.
            DataError: When it is not there, or not as a file of text is.
        """
        if self.file is None:
            raise ConfigError(f"data.file is missing: data.source = {self.source!r} reads {self.what}; say where it is")
        path = Path(self.file)
        try:
            with path.open("rb") as file:
                begin = file.read(_LONGEST_MARK)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}; data.file is {self.what}") from None
        if not begin.removeprefix(codecs.BOM_UTF8):
            raise self.another("is empty")
        for mark, by in _PACKED:
            if begin.startswith(mark):
                raise self.another(f"is packed by {by}; unpack it")
        return path

    def another(self, why: str) -> DataError:
        """Return that the file is not the one that is needed, and why; never a value of it."""
        return DataError(f"{self.file}: {why}; data.file is {self.what}")
