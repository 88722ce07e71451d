"""Fields of one record, by their names: each held to what it is declared to be, and never told."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedmodel.data.places import At
from fedmodel.errors import DataError


@dataclass(frozen=True)
class Told:
    """A record of named fields. Sensitive.

    Attributes:
        fields: What stands in each.
        person: The normal form of whose it is; "" where that is not known.
        at: Where it stands.
    """

    fields: Mapping[str, Any]
    person: str
    at: At

    def __repr__(self) -> str:
        return "Told(...)"  # a repr ends up in logs


def field_of(found: Mapping[str, Any], field: str, at: At) -> Any:
    """Return what stands in a field."""
    if field not in found:
        raise at.refused(f"has no field {field!r}", field)
    return found[field]


def text_of(found: Mapping[str, Any], field: str, at: At, *, numbers: bool = True) -> str:
    """Return a field as text; a whole number too, where numbers are."""
    return _as_text(field_of(found, field, at), field, at, numbers=numbers)


def texts_of(found: Mapping[str, Any], field: str, at: At, what: str, *, numbers: bool = True) -> list[str]:
    """Return a field that is a list of texts; `what` ends the sentence of one that is no list."""
    value = field_of(found, field, at)
    if not isinstance(value, list):
        raise at.refused(f"{field!r} is a {type(value).__name__}, and {what}", field)
    return [_as_text(one, field, at, numbers=numbers) for one in value]


def number_of(found: Mapping[str, Any], field: str, at: At) -> float:
    """Return a field that is a number."""
    value = field_of(found, field, at)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise at.refused(f"{field!r} is a {type(value).__name__}, and a number is needed", field)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):  # Python reads NaN and Infinity, which no JSON has
        raise at.refused(f"{field!r} is no finite number", field)
    return number


def object_of(line: bytes, at: At) -> dict[str, Any]:
    """Return what a line holds; of a key that is there twice nobody knows which one is meant."""
    try:
        found = json.loads(line, object_pairs_hook=_once)
    except DataError as error:
        raise at.refused(str(error)) from None
    except (ValueError, RecursionError):  # their words quote the line
        raise at.refused("is no JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise at.refused(f"is a {type(found).__name__}, and an object is needed")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of which every key is there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise DataError("has an object with one key twice; leave one of them out")
    return found


def _as_text(value: object, field: str, at: At, *, numbers: bool) -> str:
    """Return a value as text."""
    if isinstance(value, int) and not isinstance(value, bool) and numbers:
        return str(value)
    if not isinstance(value, str):
        raise at.refused(f"{field!r} is a {type(value).__name__}, and text is needed", field)
    if not value.isprintable() and any("\ud800" <= one <= "\udfff" for one in value):
        raise at.refused(f"{field!r} holds half a character, which is no text in UTF-8", field)
    return value
