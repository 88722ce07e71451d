"""A map-style data set, asked for one sample after another: each is to be as the first one is, and stay as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.as_numbers import array_of, is_no_number, own_code, type_of
from fedmodel.data.keys import Keys, by_key, refuse_more
from fedmodel.errors import DataError

_FORMS: Final = (
    "a map-style Dataset, a pair (x, y) of arrays or tensors, a frame or a Hugging Face Dataset with a label column, a"
    ' list with one of them for each silo, or {"train": ..., "test": ...}'
)
_KINDS: Final = {"b": "whole numbers", "i": "whole numbers", "u": "whole numbers", "f": "real numbers"}


def samples(thing: Any, where: str, keys: Keys) -> tuple[Any, Any, dict[str, Any]]:
    """Return what a map-style data set gives, one sample after another, each as the first is."""
    count = _length(thing, where)
    if not count:
        raise DataError(f"{where}: holds no record")
    first = _sample(thing, 0, where, keys)
    found = {
        # Text as objects: an array of text has room for what is as long as the first one's, and cuts the others. Ids
        # too: as float32, two of them could become one.
        name: np.empty(
            (count, *one.shape), dtype=object if name == "person" or one.dtype.kind not in "biuf" else type_of(one)
        )
        for name, one in first.items()
    }
    for place in range(count):
        sample = first if place == 0 else _sample(thing, place, where, keys)
        if sample.keys() != first.keys():
            raise DataError(f"{where}: record {place} has other parts than record 0; each needs the same")
        for name, one in sample.items():
            _is_alike(one, first[name], f"{where}: record {place}: {_called(name)}")
            with np.errstate(over="ignore"):  # it is infinite then, and refused
                found[name][place] = one
    for place in sorted({0, count // 2, count - 1}):
        again = _sample(thing, place, where, keys)
        if any(not _equal(one, found[name][place]) for name, one in again.items()):
            raise DataError(
                f"{where}: record {place} is another one each time it is asked for, so no record could be told from"
                " others; leave random transforms out of the data set, and declare them under [data.augment]"
            )
    if _length(thing, where) != count:
        raise DataError(f"{where}: its length is another one each time it is asked for")
    y, more = found.pop("y"), {role: found.pop(role) for role in keys.more}
    named = {name.removeprefix("x."): one for name, one in found.items()}
    return named["x"] if first.keys() & {"x"} else named, y, more


def _length(thing: Any, where: str) -> int:
    """Return how many samples there are, or refuse what has none to be asked for by place."""
    if isinstance(thing, str | bytes) or not hasattr(thing, "__getitem__") or not hasattr(thing, "__len__"):
        kind = type(thing).__name__
        if hasattr(thing, "dataset"):
            raise DataError(f"{where}: is a {kind}, which hands out lots; give the data set that it reads")
        if hasattr(thing, "__iter__") and not isinstance(thing, str | bytes):
            raise DataError(
                f"{where}: is a {kind}, which can only be gone through; lots are drawn by place, so give a map-style"
                " Dataset, with __len__ and __getitem__"
            )
        raise DataError(f"{where}: is a {kind}, which is no data set; give {_FORMS}")
    if hasattr(thing, "__array__"):
        raise DataError(f"{where}: is one array, without targets; give a pair (x, y)")
    with own_code(f"{where}: __len__"):
        return len(thing)


def _sample(thing: Any, place: int, where: str, keys: Keys) -> dict[str, NDArray[Any]]:
    """Return the parts of one sample: x or "x.NAME", y, and person and group where they are asked for."""
    at = f"{where}: record {place}"
    with own_code(f"{at}: __getitem__"):
        try:
            sample = thing[place]
        except IndexError:
            raise DataError(f"{at} is not there, and its length says that there are more; mend __len__") from None
    if isinstance(sample, Mapping):
        x, y, more = by_key(sample, at, keys)
    elif isinstance(sample, tuple | list) and len(sample) == 2:
        refuse_more(at, keys)
        (x, y), more = sample, {}
    else:
        raise DataError(
            f"{at}: is a {type(sample).__name__}, which is no sample; give a pair (x, y), or a dict with the label"
        )
    parts = {f"x.{name}": one for name, one in x.items()} if isinstance(x, Mapping) else {"x": x}
    found = {name: array_of(one, f"{at}: {_called(name)}") for name, one in (parts | {"y": y}).items()}
    for name, one in found.items():
        if one.dtype.kind not in "biuf" and (name != "y" or not keys.labels):
            raise DataError(f"{at}: {_called(name)} {is_no_number(one)}")
    return found | {role: array_of(one, f"{at}: {keys.more[role]!r}") for role, one in more.items()}


def _called(name: str) -> str:
    return {"y": "its label"}.get(name, repr(name.removeprefix("x.")) if name.startswith("x.") else name)


def _is_alike(one: NDArray[Any], first: NDArray[Any], where: str) -> None:
    """Refuse a part of a sample that is not of the shape and sort of the first one's."""
    if one.shape != first.shape:
        raise DataError(
            f"{where} has shape {list(one.shape)}, and record 0's {list(first.shape)}; each needs the same: crop or pad"
        )
    sorts = [_KINDS.get(each_.dtype.kind, each_.dtype.kind) for each_ in (one, first)]
    if sorts[0] == sorts[1] and one.dtype.kind in "biuf":  # text has a type for each length
        sorts = [each_.dtype.name for each_ in (one, first)]
    if sorts[0] != sorts[1]:
        raise DataError(f"{where} is of {sorts[0]}, and record 0's of {sorts[1]}; each needs the same type")


def _equal(one: NDArray[Any], kept: NDArray[Any]) -> bool:
    """Return whether a sample's part is what was kept of it, a NaN like another."""
    with np.errstate(over="ignore"):
        taken = one.astype(kept.dtype)
    return bool(np.array_equal(taken, kept, equal_nan=kept.dtype.kind == "f"))
