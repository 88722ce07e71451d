"""Text from files of JSON lines: an object in each line, its text read byte by byte (`fedmodel.data.tokens`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fedmodel.data.taking import Taken, numbered
from fedmodel.data.tokens import encoded, mask_of
from fedmodel.data.whose import Whose
from fedmodel.errors import DataError
from fedmodel.kinds.sources.json_lines import JsonLinesConfig


def read_json_lines(config: JsonLinesConfig, folder: Path, whose: Whose | None) -> Taken:
    """Return the texts of all `*.jsonl` of a folder, in the order of files and lines. Sensitive.

    Args:
        config: What a line is.
        folder: Where they lie.
        whose: By which field it is known whose a line is; a line that is not to be read is not looked at further.

    Raises:
        DataError: Which line of which file breaks which rule; never what stands there.
    """
    places = {label: place for place, label in enumerate(config.labels)}
    texts, labels, persons = list[str](), list[int](), list[str]()
    for path in sorted(path for path in folder.iterdir() if path.suffix == ".jsonl" and path.is_file()):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                at = f"{path}: line {number}"
                found = _object(line, at)
                if whose is not None:
                    person = whose.of(_text(found, whose.column, at), at)
                    if person is None:
                        continue
                    persons.append(person)
                texts.append(_text(found, config.text, at, numbers=False))
                label = _text(found, config.label, at)
                if label not in places:
                    raise DataError(f"{at}: {config.label!r} is none of data.labels: {', '.join(config.labels)}")
                labels.append(places[label])
    token_NT = encoded(texts, config.length)
    x = {"tokens": token_NT, "mask": mask_of(token_NT)}
    person_N = numbered(None if whose is None else persons, len(texts))
    return Taken(x, np.array(labels, dtype=np.int64), person_N, str(folder))


def _object(line: bytes, at: str) -> dict[str, Any]:
    """Return what a line holds."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):  # their words quote the line
        raise DataError(f"{at}: is no JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise DataError(f"{at}: is a {type(found).__name__}, and an object is needed")
    return found


def _text(found: dict[str, Any], field: str, at: str, *, numbers: bool = True) -> str:
    """Return a field as text; a whole number too, where numbers are."""
    if field not in found:
        raise DataError(f"{at}: has no field {field!r}")
    value = found[field]
    if isinstance(value, int) and not isinstance(value, bool) and numbers:
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{at}: {field!r} is a {type(value).__name__}, and text is needed")
    if not value.isprintable() and any("\ud800" <= one <= "\udfff" for one in value):
        raise DataError(f"{at}: {field!r} holds half a character, which is no text in UTF-8")
    return value
