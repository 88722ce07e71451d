"""A data set of Hugging Face's saved on disk (`Dataset.save_to_disk`): a folder of `state.json` and Arrow files.

`state.json` names the Arrow files, in order; their own schema says of a column of numbers which names they stand for.
pyarrow reads both, and the library that wrote them is not needed. A set of several splits is a folder for each; each is
one such set.

Errors name a file, a row counted from 1 within it, and a rule.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedmodel.config import PersonColumn, PersonForm
from fedmodel.data.fields import Told, text_of
from fedmodel.data.images import Labelled
from fedmodel.data.images import taken_of as pictures_taken
from fedmodel.data.persons import normal_ids
from fedmodel.data.pictures import pixels_of
from fedmodel.data.places import At
from fedmodel.data.reading import Reading
from fedmodel.data.taken import Taken
from fedmodel.data.texts import taken_of as texts_taken
from fedmodel.errors import DataError
from fedmodel.kinds.shape import NEXT
from fedmodel.kinds.sources.saved_images import SavedImagesConfig
from fedmodel.kinds.sources.saved_texts import SavedTextsConfig

if TYPE_CHECKING:
    import pyarrow as pa

STATE: Final = "state.json"
_ENDING: Final = ".arrow"
_AT_ONCE: Final = 1_000  # rows that stand in memory as Python has them


def read_texts(config: SavedTextsConfig, folder: Path, reading: Reading) -> Taken:
    """Return the texts of a saved set, in its order. Sensitive.

    Raises:
        DataError: Which file breaks which rule, or which row of it.
    """
    return texts_taken(config, rows_told(text_columns(config), folder, reading), reading, folder)


def read_images(config: SavedImagesConfig, folder: Path, reading: Reading) -> Taken:
    """Return the images of a saved set, in its order. Sensitive.

    Raises:
        DataError: Which file breaks which rule, or which row of it.
    """
    return pictures_taken(config, labelled_rows(config, folder, reading), reading, folder)


def text_columns(config: SavedTextsConfig) -> tuple[str, ...]:
    """Return the columns that are read of a set of texts, besides the one that says whose a row is."""
    return (config.text,) if config.task == NEXT else (config.text, config.label)


def labelled_rows(config: SavedImagesConfig, folder: Path, reading: Reading) -> Iterator[Labelled]:
    """Yield the images that are read; one that is not to be read for whose it is is not opened. Sensitive."""
    for told in rows_told((config.image, config.label), folder, reading):
        pixels, label = None, ""
        with reading.record():
            label = text_of(told.fields, config.label, told.at)
            if label not in config.labels:
                rule = f"{config.label!r} is none of data.labels: {', '.join(config.labels)}"
                raise told.at.refused(rule, config.label)
            pixels = pixels_of(config, _bytes_of(told, config.image), told.at, reading.whose)
        if pixels is not None:
            yield Labelled(pixels, label, told.person)


def _bytes_of(told: Told, column: str) -> bytes:
    """Return what an image's file held."""
    value = told.fields[column]
    found = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(found, bytes):
        raise told.at.refused(f"{column!r} holds no image's bytes; save the set with them in it", column)
    return found


def rows_told(columns: Sequence[str], folder: Path, reading: Reading) -> Iterator[Told]:
    """Yield the rows that are read, each as its columns; of one that is not for whose it is nothing else. Sensitive.

    Args:
        columns: Which are read.
        folder: Where the set lies.
        reading: Which rows are read.

    Raises:
        DataError: When a file is missing, damaged, or lacks a column; or an id is not admitted.
    """
    import pyarrow as pa

    column = reading.whose.column
    for path in saved_files(folder):
        table = _table(path)
        _has(path, table.column_names, [*columns, *([] if column is None else [column])])
        persons = list[str]()
        with reading.record():
            persons = [""] * len(table) if column is None else _ids(table, column, reading.whose.form, path)
        if len(persons) < len(table):  # an id was noted that is not admitted
            continue
        kept = [column is None or reading.whose.has(one) for one in persons]
        at, names = iter(itertools.compress(enumerate(persons, start=1), kept)), _names_of(table.schema, columns)
        for batch in table.select(list(columns)).filter(pa.array(kept, pa.bool_())).to_batches(_AT_ONCE):
            for row in batch.to_pylist():
                place, person = next(at)
                named = {one: _named(value, names[one]) for one, value in row.items()}
                yield Told(named, person, At(path, place, "row"))


def ids_of(path: Path, person: PersonColumn) -> list[str]:
    """Return the normal form of whose each row of a file is. Sensitive.

    Raises:
        DataError: When it is damaged, lacks the column, or an id is not admitted.
    """
    table = _table(path)
    _has(path, table.column_names, [person.column])
    return _ids(table, person.column, person.form, path)


def _ids(table: pa.Table, column: str, form: PersonForm, path: Path) -> list[str]:
    """Return the normal form of whose each row is. Sensitive."""
    try:
        found: list[str] = normal_ids(table[column], form, "the file").to_pylist()
    except DataError as error:
        raise At(path).refused(str(error), column) from None
    return found


def saved_files(folder: Path) -> list[Path]:
    """Return the Arrow files of a saved set, in order.

    Raises:
        DataError: When the folder has no `state.json`, or that names no such files of the folder.
    """
    state = folder / STATE
    try:
        said = json.loads(state.read_bytes())
        names = [str(one["filename"]) for one in said["_data_files"]]
        moved = said.get("_indices_data_files")
    except OSError as error:
        raise DataError(f"{state}: cannot be read: {error.strerror}; a saved data set is a folder with it") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{state}: does not say of which files a saved data set consists; save it again") from None
    if moved:
        raise DataError(f"{state}: keeps the order of rows apart; save the set once more after flatten_indices()")
    for name in names:
        if Path(name).name != name or not is_saved(Path(name)):
            raise DataError(f"{state}: names a file that is none of the folder, or does not end in {_ENDING}")
        if names.count(name) > 1:
            raise DataError(f"{state}: names a file twice, whose rows would be read twice")
    return [folder / name for name in names]


def is_saved(path: Path) -> bool:
    """Return whether a file is one of a saved set's rows by its name."""
    return path.suffix.lower() == _ENDING and not path.name.startswith(".")


def check_saved(folder: Path, columns: Sequence[str]) -> None:
    """Refuse a folder that is no saved set, or whose first file has not all columns, by names of columns alone.

    Raises:
        DataError: What is not there.
    """
    for path in saved_files(folder)[:1]:
        _has(path, _opened(path, lambda reader: list(reader.schema.names)), columns)


def _has(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    """Refuse a file that has not each column once."""
    for name in columns:
        if list(names).count(name) != 1:
            raise DataError(f"{path}: has no column {name!r}, or two; it must be there under this very name")


def _table(path: Path) -> pa.Table:
    """Return a file's rows, each of which can be looked at: a damaged one would be read beyond its end."""
    table = _opened(path, lambda reader: reader.read_all())
    try:
        table.validate(full=True)
    except Exception as error:
        raise _damaged(path, error) from None
    return table


def _opened(path: Path, read: Any) -> Any:
    """Open a file as a stream of Arrow, and read of it; what pyarrow says could quote it."""
    from pyarrow import OSFile, ipc

    try:
        with OSFile(str(path)) as file, ipc.open_stream(file) as reader:
            return read(reader)
    except FileNotFoundError:
        raise DataError(f"{path}: is not there, and {STATE} names it") from None
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: is no whole file of a saved data set ({type(error).__name__})")


def _names_of(schema: pa.Schema, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the names that each column's numbers stand for, by the schema's own word; none where it has none."""
    found = dict[str, tuple[str, ...]]()
    for column in columns:
        try:
            said = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
            while "names" not in said:  # a list of labels
                said = said[0] if isinstance(said, list) else said["feature"]
            found[column] = tuple(map(str, said["names"]))
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            found[column] = ()
    return found


def _named(value: Any, names: tuple[str, ...]) -> Any:
    """Return the name that a number stands for, of each of a list; what has none stays as it is, and is no label."""
    if not names:
        return value
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return (names[value] if 0 <= value < len(names) else "") if is_number else value


def written(columns: Mapping[str, Sequence[Any]]) -> dict[str, bytes]:
    """Return a set of these columns as the files of a folder."""
    import pyarrow as pa

    table, sink, name = pa.table(dict(columns)), pa.BufferOutputStream(), f"data-00000-of-00001{_ENDING}"
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    state: dict[str, Any] = {
        "_data_files": [{"filename": name}],
        "_fingerprint": "0",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    return {name: sink.getvalue().to_pybytes(), STATE: json.dumps(state).encode(), "dataset_info.json": b"{}"}
