"""One data set of a user's own, in whatever form a script has it, taken as arrays and checked record by record.

| What is given                               | A record's x                         | Its label                  |
|---------------------------------------------|--------------------------------------|----------------------------|
| a pair `(x, y)` of tensors or numpy arrays  | a row of x, or of each array by name | the same place of y        |
| a map-style `torch.utils.data.Dataset`      | first of its pair, or the other keys | second, or the label's key |
| a pandas or Polars frame, a pyarrow table   | its columns, in order, as one array  | the label's column         |
| a Hugging Face `datasets.Dataset`           | its columns, by name                 | the label's column         |
| a mapping of columns                        | each array by name                   | the label's array          |

None of these libraries is imported here: a form is known by what it can do. Values are taken as they are, floats as
float32, whole numbers and truths as int64; a frame's columns as float32 all.

Errors name where a data set is from, the place of a record and the rule, never a value; of what somebody's own code
raised, its type alone, since its words may hold a value.

Does NOT know whether a record is one person's, whether values were scaled by figures of the records, or whether another
call would give others: samples of the beginning, the middle and the end alone are asked for twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.named import arrays, each
from fedmodel.errors import DataError

LABELS: Final = ("label", "labels")
"""What the label is called where nothing is said."""
_FORMS: Final = (
    "a map-style Dataset, a pair (x, y) of arrays or tensors, a frame or a Hugging Face Dataset with a label column, a"
    ' list with one of them for each silo, or {"train": ..., "test": ...}'
)
_SAID_AS: Final = {"person": "person", "group": "partition.column"}
_MOST_AXES: Final = 9
_KINDS: Final = {"b": "whole numbers", "i": "whole numbers", "u": "whole numbers", "f": "real numbers"}


@dataclass(frozen=True)
class Keys:
    """What is said of a data set besides.

    Attributes:
        label: The column or key to predict; one of `LABELS` where None.
        person: The column or key that says whose a record is, where one does.
        labels: Names of the classes, in order, for labels that are text.
        real: Whether targets are real numbers, and not labels.
        group: The column or key by which records are dealt, where one is.
    """

    label: str | None = None
    person: str | None = None
    labels: tuple[str, ...] = ()
    real: bool = False
    group: str | None = None

    @property
    def more(self) -> dict[str, str]:
        """Columns or keys that are neither a feature nor the label, by their role."""
        return {role: name for role, name in (("person", self.person), ("group", self.group)) if name is not None}


@dataclass(frozen=True)
class Taken:
    """A data set as arrays of one first dimension. Sensitive.

    Attributes:
        x: One array, float32 or int64, or several by name.
        y_N: Targets, int64, or float32 where they are real numbers.
        person_N: Whose each record is, by numbers that rise from 0 and skip none; everyone has one where nobody says.
        where: What it is of, for errors.
        group_N: What each record says in the column by which records are dealt.
    """

    x: NDArray[Any] | Mapping[str, NDArray[Any]]
    y_N: NDArray[Any]
    person_N: NDArray[np.int64]
    where: str
    group_N: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.y_N)

    def __repr__(self) -> str:
        return "Taken(...)"  # a repr ends up in logs


def take(thing: object, where: str, keys: Keys) -> Taken:
    """Return a data set as arrays.

    Args:
        thing: In one of the forms above. Sensitive.
        where: What it is of, for errors.
        keys: What is said of it.

    Raises:
        DataError: Which rule it breaks, and which record does.
    """
    x, y, more = _columns(thing, where, keys)
    checked = each(x, lambda one: _values(one, where, "x")) if not isinstance(x, Mapping) else {
        name: _values(one, where, repr(name)) for name, one in x.items()
    }  # fmt: skip
    y_N = _targets(y, where, keys)
    lengths = {len(one) for one in arrays(checked)} | {len(y_N)}
    lengths |= {len(one) for one in more.values()}
    if len(lengths) > 1:
        raise DataError(f"{where}: its arrays have several lengths; each needs one row for each record")
    if not len(y_N):
        raise DataError(f"{where}: holds no record")
    group = more.get("group")
    group_N = None if group is None else np.asarray(group).astype(str)
    return Taken(checked, y_N, numbered(more.get("person"), len(y_N)), where, group_N)


def _columns(thing: object, where: str, keys: Keys) -> tuple[Any, Any, dict[str, Any]]:
    """Return x, or several by name, the targets, and what is said of records besides, each as it was given."""
    tensors = getattr(thing, "tensors", None)  # of a TensorDataset: no need to ask for one sample after another
    pair = tensors if isinstance(tensors, tuple) else thing
    if isinstance(pair, tuple) and len(pair) == 2 and all(map(_is_columns, pair)):
        x, y = pair
        _refuse_more(where, keys)
        return (_matrix(x, _names(x), where) if _is_frame(x) else x), y, {}
    if _is_hugging_face(thing):
        formatted: Any = thing
        if formatted.format["type"] is not None:
            return _samples(thing, where, keys)
        with _own_code(f"{where}: reading its columns"):
            found = formatted.with_format("numpy")[:]
        return _by_key(found, where, keys)
    if _is_frame(thing):
        names = _names(thing)
        if len(set(names)) < len(names):
            raise DataError(f"{where}: has two columns of one name; give each its own")
        label, more = _named(names, where, keys)
        features = [name for name in names if name not in (label, *more.values())]
        source: Any = thing
        besides = {role: source[name] for role, name in more.items()}
        return _matrix(thing, features, where), source[label], besides
    if isinstance(thing, Mapping):
        return _by_key(thing, where, keys)
    return _samples(thing, where, keys)


def _is_columns(thing: object) -> bool:
    """Return whether something is an array, a column, a frame, or several of them by name."""
    if isinstance(thing, Mapping):
        return all(map(_is_columns, thing.values()))
    return hasattr(thing, "__array__") or _is_frame(thing)


def _is_frame(thing: object) -> bool:
    return hasattr(thing, "__dataframe__") or (hasattr(thing, "columns") and hasattr(thing, "to_numpy"))


def _is_hugging_face(thing: object) -> bool:
    return all(hasattr(thing, name) for name in ("column_names", "with_format", "features", "format"))


def _names(frame: Any) -> list[Any]:
    return list(frame.column_names if hasattr(frame, "column_names") else frame.columns)


def _matrix(frame: Any, names: Sequence[Any], where: str) -> NDArray[np.float32]:
    """Return columns of a frame side by side, as float32."""
    if not names:
        raise DataError(f"{where}: has no column besides the label")
    found = [_values(frame[name], where, f"column {name!r}") for name in names]
    return np.stack(found, axis=1).astype(np.float32)


def _named(names: Sequence[Any], where: str, keys: Keys) -> tuple[Any, dict[str, str]]:
    """Return which name is the label's, and which, if any, is the person's and the group's."""
    label = keys.label or next((name for name in LABELS if name in names), None)
    if label is None or label not in names:
        said = f"data.label = {label!r}" if label else "data.label is not said"
        raise DataError(
            f"{where}: {said}, and there is no such column among {', '.join(map(str, names))}; name the one to predict"
        )
    for key, name in keys.more.items():
        if name not in names:
            said = f"data.{_SAID_AS[key]} = {name!r}"
            raise DataError(f"{where}: {said} is no column of {', '.join(map(str, names))}")
    return label, keys.more


def _refuse_more(where: str, keys: Keys) -> None:
    """Refuse a pair where a column is asked for that it cannot have."""
    for role, name in keys.more.items():
        said = f"data.{_SAID_AS[role]} = {name!r}"
        raise DataError(f"{where}: is a pair (x, y), and {said} is of one with columns or keys; give a frame or a dict")


def _by_key(columns: Mapping[Any, Any], where: str, keys: Keys) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Return the arrays of a mapping, each by its role."""
    label, more = _named(list(columns), where, keys)
    x = {str(name): one for name, one in columns.items() if name not in (label, *more.values())}
    if not x:
        raise DataError(f"{where}: has nothing besides the label")
    return x, columns[label], {role: columns[name] for role, name in more.items()}


def _samples(thing: Any, where: str, keys: Keys) -> tuple[Any, Any, dict[str, Any]]:
    """Return what a map-style data set gives, one sample after another, each as the first is."""
    count = _length(thing, where)
    if not count:
        raise DataError(f"{where}: holds no record")
    first = _sample(thing, 0, where, keys)
    found = {
        # Text as objects: an array of text has room for what is as long as the first one's, and cuts the others.
        name: np.empty((count, *one.shape), dtype=_type(one) if one.dtype.kind in "biuf" else object)
        for name, one in first.items()
    }
    for place in range(count):
        sample = first if place == 0 else _sample(thing, place, where, keys)
        if sample.keys() != first.keys():
            raise DataError(f"{where}: record {place} has other parts than record 0; each needs the same")
        for name, one in sample.items():
            _is_alike(one, first[name], f"{where}: record {place}: {_called(name)}")
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
    with _own_code(f"{where}: __len__"):
        return len(thing)


def _sample(thing: Any, place: int, where: str, keys: Keys) -> dict[str, NDArray[Any]]:
    """Return the parts of one sample: x or "x.NAME", y, and person and group where they are asked for."""
    at = f"{where}: record {place}"
    with _own_code(f"{at}: __getitem__"):
        try:
            sample = thing[place]
        except IndexError:
            raise DataError(f"{at} is not there, and its length says that there are more; mend __len__") from None
    if isinstance(sample, Mapping):
        x, y, more = _by_key(sample, at, keys)
    elif isinstance(sample, tuple | list) and len(sample) == 2:
        _refuse_more(at, keys)
        (x, y), more = sample, {}
    else:
        raise DataError(
            f"{at}: is a {type(sample).__name__}, which is no sample; give a pair (x, y), or a dict with the label"
        )
    parts = {f"x.{name}": one for name, one in x.items()} if isinstance(x, Mapping) else {"x": x}
    found = {name: _array(one, f"{at}: {_called(name)}") for name, one in (parts | {"y": y}).items()}
    for name, one in found.items():
        if one.dtype.kind not in "biuf" and (name != "y" or not keys.labels):
            raise DataError(f"{at}: {_called(name)} {_is_no_number(one)}")
    return found | {role: _array(one, f"{at}: {keys.more[role]!r}") for role, one in more.items()}


def _called(name: str) -> str:
    return {"y": "its label"}.get(name, repr(name.removeprefix("x.")) if name.startswith("x.") else name)


def _is_alike(one: NDArray[Any], first: NDArray[Any], where: str) -> None:
    """Refuse a part of a sample that is not of the shape and sort of the first one's."""
    if one.shape != first.shape:
        raise DataError(
            f"{where} has shape {list(one.shape)}, and record 0's {list(first.shape)}; each needs the same: crop or pad"
        )
    sorts = [_KINDS.get(each_.dtype.kind, each_.dtype.kind) for each_ in (one, first)]
    if sorts[0] != sorts[1]:
        raise DataError(f"{where} is of {sorts[0]}, and record 0's of {sorts[1]}; each needs the same type")


def _equal(one: NDArray[Any], kept: NDArray[Any]) -> bool:
    """Return whether a sample's part is what was kept of it, a NaN like another."""
    return bool(np.array_equal(one.astype(kept.dtype), kept, equal_nan=kept.dtype.kind == "f"))


def _array(value: Any, where: str) -> NDArray[Any]:
    """Return a tensor, an array, a column or numbers as an array of numpy's, of whatever type."""
    with _own_code(where):
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.float() if value.is_floating_point() else value
        return np.asarray(value)


def by_record(values: NDArray[Any]) -> NDArray[Any]:
    """Return values with a row for each record, whatever their shape.

    >>> by_record(np.zeros((2, 3, 4))).shape, by_record(np.zeros(0)).shape
    ((2, 12), (0, 1))
    """
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _type(values: NDArray[Any]) -> type[np.float32 | np.int64]:
    return np.float32 if values.dtype.kind == "f" else np.int64


def _values(given: Any, where: str, name: str) -> NDArray[Any]:
    """Return an array as float32 or int64, or refuse the first record whose part of it is no number."""
    found = _array(given, f"{where}: {name}")
    if found.dtype.kind not in "biuf":
        raise DataError(f"{where}: {name} {_is_no_number(found)}")
    if not found.ndim:
        raise DataError(f"{where}: {name} is one number; give a row for each record")
    if 0 in found.shape[1:] or found.ndim > _MOST_AXES:
        raise DataError(f"{where}: {name} of a record has shape {list(found.shape[1:])}, which no model takes")
    if found.dtype.kind == "u" and found.itemsize == 8 and found.size and int(found.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{where}: {name} holds whole numbers that 64 bits with a sign do not")
    with np.errstate(over="ignore"):
        taken = found.astype(_type(found))
    if taken.dtype == np.float32 and not (finite := np.isfinite(taken)).all():
        place = int(np.argmin(by_record(finite).all(axis=1)))
        raise DataError(
            f"{where}: record {place}: a value of {name} is NaN, infinite or beyond float32; clean it before it is used"
        )
    return taken


def _is_no_number(found: NDArray[Any]) -> str:
    """Say what values are that are none, as the end of a sentence."""
    flat = found.reshape(-1).tolist() if found.dtype.kind == "O" else []
    if found.dtype.kind in "US" or any(isinstance(one, str | bytes) for one in flat):
        return "holds text, which no model takes; turn it into numbers, or leave it out"
    shapes = {np.shape(one) for one in flat if isinstance(one, list | tuple) or hasattr(one, "shape")}
    if len(shapes) > 1:
        several = " and ".join(str(list(one)) for one in sorted(shapes)[:2])
        return f"has rows of several shapes, such as {several}; crop or pad"
    if any(one is None for one in flat):
        return "lacks a value; fill it in by a public constant, or leave such records out"
    kind = type(flat[0]).__name__ if flat else found.dtype.name
    return f"is of type {kind}, and not of numbers; turn it into an array"


def _targets(given: Any, where: str, keys: Keys) -> NDArray[Any]:
    """Return targets: real numbers where these are asked for, and else whole ones, by name where labels have names."""
    found = _array(given, f"{where}: its label")
    if found.ndim > 1 and found.shape[1:] == (1,):
        found = found[:, 0]
    if found.dtype.kind not in "biuf" and keys.labels:
        places = {name: place for place, name in enumerate(keys.labels)}
        y_N = np.array([places.get(str(one), -1) for one in found.reshape(-1).tolist()], dtype=np.int64)
        if (y_N < 0).any():
            raise DataError(
                f"{where}: record {int(np.argmax(y_N < 0))}: its label is none of data.labels: {', '.join(keys.labels)}"
            )
        return y_N.reshape(found.shape)
    if found.dtype.kind not in "biuf":
        text = _is_no_number(found)
        hint = ", or name the classes in order as data.labels" if text.startswith("holds text") else ""
        raise DataError(f"{where}: its label {text}{hint}")
    taken = _values(found, where, "its label")
    if keys.real:
        return taken.astype(np.float32)
    whole_N = by_record(taken == np.round(taken)).all(axis=1)
    if not whole_N.all():
        raise DataError(f"{where}: record {int(np.argmin(whole_N))}: its label is not a whole number, as a class is")
    return taken.astype(np.int64)


def numbered(given: Any, count: int) -> NDArray[np.int64]:
    """Return numbers that are alike where ids are, in the order in which each comes first; all differ where None."""
    if given is None:
        return np.arange(count)
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(one, len(numbers)) for one in _texts(given)], dtype=np.int64)


def _texts(ids: Any) -> list[str]:
    """Return ids as text each by itself: an array of text would have as much room for each as the longest needs."""
    if isinstance(ids, list) and any(isinstance(one, str) for one in ids):
        return [str(one) for one in ids]
    found = np.asarray(ids).reshape(-1)
    if found.dtype.kind == "O":
        return [str(one) for one in found]
    texts: list[str] = found.astype(str).tolist()
    return texts


@contextmanager
def _own_code(doing: str) -> Iterator[None]:
    """Say of what somebody's own code raised its type alone: its words may hold a value."""
    try:
        yield
    except DataError:
        raise
    except (Exception, SystemExit) as error:
        raise DataError(f"{doing} raised {type(error).__name__}; run it alone to see its own words") from None
