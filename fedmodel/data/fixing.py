"""What a silo's own file would have to say of a table so that it can be read as a scenario declares: a proposal.

It is a guess from the file's looks, for a person to look at and to enter into `silo.toml`. No run uses it: a run reads
by what is written there, and by nothing that is guessed.

| Key                    | Proposed where                                                                            |
|------------------------|-------------------------------------------------------------------------------------------|
| `separator`,`encoding` | the declared columns cannot be read by those that are said, and can by these: the first   |
|                        | of a few that are usual                                                                   |
| `decimal`              | a column declared as a number has decimal commas, and whole numbers, and nothing else     |
| `missing_values`       | a column declared as a number or a boolean has such words, and is otherwise of one kind   |
| `yes`, `no`            | a column declared as a boolean has such words, and nothing else                           |
| `leave_out`            | a column is not declared, and the scenario does not say that others are ignored           |

NOT proposed: the form of persons' ids, which decides who is one person, and what only a scenario can say.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedmodel.config import TableSource
from fedmodel.data.headers import headers
from fedmodel.data.seen import COMMAS, WORDS, distinct, kind_seen, missing_of, words_of
from fedmodel.data.sources import chosen, files_of, is_parquet
from fedmodel.data.tables import names_of
from fedmodel.errors import DataError
from fedmodel.kinds.sources.table import TableConfig

if TYPE_CHECKING:
    import pyarrow as pa

_SEPARATORS: Final = (",", ";", "\t", "|")
_ENCODINGS: Final = ("utf-8", "utf-16", "cp1252")
KEYS: Final = ("separator", "decimal", "encoding", "missing_values", "yes", "no", "leave_out")
"""The keys that are proposed."""


def proposed(config: TableConfig, source: TableSource) -> dict[str, Any]:
    """Return the keys of `[tables.NAME]` that are proposed, with what they would be; none where none is.

    Args:
        config: Declares the table.
        source: Where it lies, with absolute paths.

    Raises:
        ConfigError: When a package is missing, or a database's account could write.
        DataError: When a file is not there, or a query cannot be asked.
    """
    there = _readable(config, source)
    if there is None:
        return {}
    form, tables = there
    if form.csv or form.folder:
        form, tables = _without_missing(config, form, tables)
    kinds = {one.name: one.type for one in config.columns} | config.predicted_as
    columns = [(kind, table[name]) for table in tables for name, kind in kinds.items()]
    numbers = [kind_seen(values) for kind, values in columns if kind in ("float", "integer", "time")]
    if COMMAS in numbers and form.url is None and not form.parquet:
        form = form.model_copy(update={"decimal": ","})
    form = form.model_copy(update=_words([values for kind, values in columns if kind == "boolean"], form))
    if config.other_columns == "refuse":
        declared = {*names_of(config), *form.leave_out}
        others = dict.fromkeys(name for _, names in headers(form) for name in names if name not in declared)
        form = form.model_copy(update={"leave_out": (*form.leave_out, *others)})
    return {key: value for key in KEYS if (value := getattr(form, key)) != getattr(source, key)}


def _readable(config: TableConfig, source: TableSource) -> tuple[TableSource, list[pa.Table]] | None:
    """Return the source as it can be read, and its tables; None where none of the usual ways does."""
    columns = names_of(config)
    if source.url is not None:
        from fedmodel.data.databases import query

        found = query(source, columns, others=False)
        return (source, [found]) if set(columns) <= set(found.column_names) else None
    paths = files_of(source)
    ways = itertools.product((source.encoding, *_ENCODINGS), (source.separator, *_SEPARATORS))
    for encoding, separator in ways if any(not is_parquet(path) for path in paths) else [(None, None)]:
        form = source if encoding is None else source.model_copy(update={"encoding": encoding, "separator": separator})
        tables = _chosen(paths, columns, form)
        if tables is not None:
            return form, tables
    return None


def _chosen(paths: list[Path], columns: tuple[str, ...], form: TableSource) -> list[pa.Table] | None:
    """Return the declared columns of all files, None where one cannot be read so."""
    try:
        return [chosen(path, columns, form) for path in paths]
    except DataError as error:
        if isinstance(error.__context__, OSError):
            raise  # the disk's, whatever the file is written like
        return None


def _without_missing(
    config: TableConfig, form: TableSource, tables: list[pa.Table]
) -> tuple[TableSource, list[pa.Table]]:
    """Return the source as it has to say what stands for a missing value, and its tables as they are read then."""
    columns = [table[one.name] for table in tables for one in config.columns if one.type != "category"]
    found = dict.fromkeys(word for values in columns for word in missing_of(distinct(values)))
    if not found:
        return form, tables
    form = form.model_copy(update={"missing_values": (*form.missing_values, *found)})
    return form, _chosen(files_of(form), names_of(config), form) or tables


def _words(columns: list[pa.ChunkedArray], form: TableSource) -> dict[str, tuple[str, ...]]:
    """Return which words of booleans mean yes and no, besides those that the silo's file has."""
    texts = [
        text for values in columns if kind_seen(values) == WORDS for text in values.unique().drop_null().to_pylist()
    ]
    found = words_of([*texts, *form.yes, *form.no])
    if not texts or found is None:
        return {}
    more = [[one for one in words if one not in form.truths] for words in found]
    return {"yes": (*form.yes, *more[0]), "no": (*form.no, *more[1])}
