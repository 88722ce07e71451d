"""Text from files of JSON lines: an object in each line, its text read byte by byte (`fedmodel.data.tokens`)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.records import onto_unit
from fedmodel.data.taken import Taken, numbered
from fedmodel.data.tokens import encoded, mask_of, next_tokens
from fedmodel.data.whose import Whose
from fedmodel.errors import DataError
from fedmodel.kinds.shape import MULTI_LABEL, NEXT, REGRESSION
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
    texts, targets, persons = list[str](), list[Any](), list[str]()
    for path in line_files(folder):
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
                if config.task != NEXT:
                    targets.append(_target(config, found, at))
    token_NT = encoded(texts, config.length)
    x = {"tokens": token_NT, "mask": mask_of(token_NT)}
    person_N = numbered(None if whose is None else persons, len(texts))
    y_N = next_tokens(token_NT) if config.task == NEXT else _targets(config, targets)
    return Taken(x, y_N, person_N, str(folder))


def line_files(folder: Path) -> list[Path]:
    """Return the files that `read_json_lines` reads, in order: none of a folder in this one."""
    return sorted(path for path in folder.iterdir() if is_lines(path) and path.is_file())


def is_lines(path: Path) -> bool:
    """Return whether a file is one of JSON lines by its name."""
    return path.suffix.lower() == ".jsonl" and not path.name.startswith(".")


def _target(config: JsonLinesConfig, found: dict[str, Any], at: str) -> Any:
    """Return what a line is to be predicted as: a class, a 0 or 1 for each label, or a number."""
    if config.task == REGRESSION:
        return _number(found, config.label, at)
    said = _words(found, config.label, at) if config.task == MULTI_LABEL else [_text(found, config.label, at)]
    if any(label not in config.labels for label in said):
        raise DataError(f"{at}: {config.label!r} is none of data.labels: {', '.join(config.labels)}")
    return (
        [int(label in said) for label in config.labels] if config.task == MULTI_LABEL else config.labels.index(said[0])
    )


def _targets(config: JsonLinesConfig, targets: list[Any]) -> NDArray[Any]:
    """Return targets as an array, numbers mapped onto [-1, 1] and bounded to it."""
    if config.target_range is not None:
        low, high = config.target_range
        return onto_unit(np.array(targets, dtype=np.float64), low, high, 1.0)
    return np.array(targets, dtype=np.int64).reshape(len(targets), *config.shape.targets.size)


def _field(found: dict[str, Any], field: str, at: str) -> Any:
    """Return what stands in a field."""
    if field not in found:
        raise DataError(f"{at}: has no field {field!r}")
    return found[field]


def _number(found: dict[str, Any], field: str, at: str) -> float:
    """Return a field that is a number; no word of what stands there is repeated."""
    value = _field(found, field, at)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise DataError(f"{at}: {field!r} is a {type(value).__name__}, and a number is needed")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):  # Python reads NaN and Infinity, which no JSON has
        raise DataError(f"{at}: {field!r} is no finite number")
    return number


def _words(found: dict[str, Any], field: str, at: str) -> list[str]:
    """Return a field that is a list of labels, each once at most."""
    value = _field(found, field, at)
    if not isinstance(value, list):
        raise DataError(f"{at}: {field!r} is a {type(value).__name__}, and a list of labels is needed, empty for none")
    words = [_text({field: one}, field, at) for one in value]
    if len(set(words)) < len(words):
        raise DataError(f"{at}: {field!r} names a label twice")
    return words


def _object(line: bytes, at: str) -> dict[str, Any]:
    """Return what a line holds; of a key that is there twice nobody knows which one is meant."""
    try:
        found = json.loads(line, object_pairs_hook=_once)
    except DataError as error:
        raise DataError(f"{at}: {error}") from None
    except (ValueError, RecursionError):  # their words quote the line
        raise DataError(f"{at}: is no JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise DataError(f"{at}: is a {type(found).__name__}, and an object is needed")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of which every key is there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise DataError("has an object with one key twice; leave one of them out")
    return found


def _text(found: dict[str, Any], field: str, at: str, *, numbers: bool = True) -> str:
    """Return a field as text; a whole number too, where numbers are."""
    value = _field(found, field, at)
    if isinstance(value, int) and not isinstance(value, bool) and numbers:
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{at}: {field!r} is a {type(value).__name__}, and text is needed")
    if not value.isprintable() and any("\ud800" <= one <= "\udfff" for one in value):
        raise DataError(f"{at}: {field!r} holds half a character, which is no text in UTF-8")
    return value
