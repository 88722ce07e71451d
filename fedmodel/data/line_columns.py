"""Fields of JSON lines as columns of text, for rows that a model is to score.

Guarantee: what a value becomes is a function of that value alone, as of a CSV's field: text as it is, a number or a
truth as JSON writes it, null and a field that is not there as a missing value. Numbers that JSON writes as one text are
read as one, of whatever type they were in the program that wrote them.

Does NOT read a silo's records: `fedmodel.data.json_lines` does, by stricter rules.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmodel.data.fields import object_of, text_of
from fedmodel.data.places import At
from fedmodel.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


def columns_of_lines(path: Path, names: tuple[str, ...]) -> pa.Table:
    """Return some fields of a file's lines as columns of text, whatever others they have. Sensitive.

    Args:
        path: Of the file, with an object in each line; empty lines are not counted.
        names: Of the fields.

    Raises:
        DataError: When it cannot be read, a line is no object, a value is a list or an object, or no line has a field.
    """
    import pyarrow as pa

    if not path.is_file():
        raise DataError(f"{path}: {'is not a file' if path.exists() else 'cannot be read: No such file or directory'}")
    found: dict[str, list[str | None]] = {name: [] for name in names}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                fields, at = object_of(line, At(path, number)), At(path, number)
                for name in names:
                    found[name].append(_written(fields, name, at))
    for name, values in found.items():
        if values and all(value is None for value in values):
            raise DataError(f"{path}: no line has a field {name!r}; it must be there under this very name")
    return pa.table({name: pa.array(values, pa.large_string()) for name, values in found.items()})


def _written(fields: dict[str, Any], name: str, at: At) -> str | None:
    """Return what stands in a field as text."""
    value = fields.get(name)
    if value is None or isinstance(value, bool | int | float):
        return None if value is None else json.dumps(value)
    return text_of(fields, name, at)
