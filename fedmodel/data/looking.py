"""What a file looks like before anything is declared of it: its columns, and for each a word for what it holds.

Everything here is seen by the file's owner alone. Of it only the names of columns get into a draft
(`scenarios.drafts`); how the file is written gets into the owner's own part of `silo.toml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedmodel.config import TableSource
from fedmodel.data.headers import headers
from fedmodel.data.seen import COMMAS, WORDS, distinct, kind_seen, missing_of, words_of
from fedmodel.data.sources import chosen, is_parquet
from fedmodel.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_ENCODINGS: Final = ("utf-8", "utf-16", "cp1252")
_SEPARATORS: Final = (",", ";", "\t", "|")
_SHOWN: Final = 12


@dataclass(frozen=True)
class Seen:
    """A column. Sensitive.

    Attributes:
        name: As it stands in the header.
        kind: A word of `fedmodel.data.seen`.
        values: Its different values where they are few, for the owner's screen.
    """

    name: str
    kind: str
    values: tuple[str, ...]

    def __repr__(self) -> str:
        return "Seen(...)"  # a repr ends up in logs


@dataclass(frozen=True)
class Looked:
    """A file, looked at. Sensitive.

    Attributes:
        source: Where it lies, and how it seems to be written.
        columns: In the file's order.
    """

    source: TableSource
    columns: tuple[Seen, ...]

    def __repr__(self) -> str:
        return "Looked(...)"


def look(path: Path) -> Looked:
    """Look at a CSV or Parquet file.

    Raises:
        DataError: When it cannot be read in any of the usual ways, or its header has a name twice, or an empty one.
    """
    source = TableSource.model_validate({"parquet" if is_parquet(path) else "csv": str(path.absolute())})
    if not is_parquet(path):
        source = _written(source)
    ((_, names),) = headers(source)
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise DataError(f"{path}: its header has a name twice, or an empty one; give each column a name of its own")
    table = chosen(path, tuple(names), source)
    if source.csv and (missing := dict.fromkeys(word for name in names for word in missing_of(distinct(table[name])))):
        source = source.model_copy(update={"missing_values": tuple(missing)})
        table = chosen(path, tuple(names), source)
    columns = tuple(Seen(name, kind_seen(table[name]), _few(table[name])) for name in names)
    if source.csv and any(column.kind == COMMAS for column in columns):
        source = source.model_copy(update={"decimal": ","})
    words = [text for column in columns if column.kind == WORDS for text in _texts(table[column.name])]
    if (found := words_of(words)) is not None:
        source = source.model_copy(update={"yes": tuple(found[0]), "no": tuple(found[1])})
    return Looked(source, columns)


def _written(source: TableSource) -> TableSource:
    """Return a CSV's source with the encoding in which it can be read, and the separator that its header has most."""
    refused: DataError | None = None
    for encoding in _ENCODINGS:
        for separator in _SEPARATORS:
            form = source.model_copy(update={"encoding": encoding, "separator": separator})
            try:
                ((_, names),) = headers(form)
                if len(names) > 1:
                    chosen(Path(source.csv or ""), tuple(names), form)
                    return form
            except DataError as error:
                if isinstance(error.__context__, OSError):
                    raise  # the disk's, whatever the file is written like
                if encoding == _ENCODINGS[0]:  # what is said of others would be of a guess
                    refused = refused or error
    raise refused or DataError(f"{source.csv}: its header has one column; a table has a label and a feature at least")


def _texts(values: pa.ChunkedArray) -> list[str]:
    """Return a column's different values as text, in order."""
    return sorted(str(one).strip() for one in values.unique().drop_null().to_pylist())


def _few(values: pa.ChunkedArray) -> tuple[str, ...]:
    texts = list(dict.fromkeys(_texts(values)))
    return tuple(texts) if len(texts) <= _SHOWN else ()
