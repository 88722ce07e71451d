"""One data set of a user's own, in whatever form a script has it, taken as arrays and checked record by record.

| What is given                               | A record's x                         | Its label                  |
|---------------------------------------------|--------------------------------------|----------------------------|
| a pair `(x, y)` of tensors or numpy arrays  | a row of x, or of each array by name | the same place of y        |
| a map-style `torch.utils.data.Dataset`      | first of its pair, or the other keys | second, or the label's key |
| a pandas or Polars frame, a pyarrow table   | its columns, in order, as one array  | the label's column         |
| a Hugging Face `datasets.Dataset`           | its columns, by name                 | the label's column         |
| a mapping of columns                        | each array by name                   | the label's array          |

None of these libraries is imported here: a form is known by what it can do. Values are taken as they are, floats as
float32, whole numbers and truths as int64; a frame's columns as float32 all. Of a data set that is asked for one sample
after another, each has its parts in the type that they have in the first: one that changes is refused.

Errors name where a data set is from, the place of a record and the rule, never a value; of what somebody's own code
raised, its type alone, since its words may hold a value.

Does NOT know whether a record is one person's, whether values were scaled by figures of the records, or whether another
call would give others: samples of the beginning, the middle and the end alone are asked for twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.as_numbers import array_of, own_code, targets_of, values_of
from fedmodel.data.given_ids import normal_given
from fedmodel.data.keys import Keys, by_key, named, refuse_more
from fedmodel.data.named import arrays, each
from fedmodel.data.samples import samples
from fedmodel.data.taken import Taken, numbered, persons_of
from fedmodel.errors import DataError

_MISSING: Final = ("nan", "NaT", "<NA>")  # as Python writes what numpy and pandas have where nothing is


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
    checked = each(x, lambda one: values_of(one, where, "x")) if not isinstance(x, Mapping) else {
        name: values_of(one, where, repr(name)) for name, one in x.items()
    }  # fmt: skip
    y_N = targets_of(y, where, keys)
    lengths = {len(one) for one in arrays(checked)} | {len(y_N)}
    lengths |= {len(one) for one in more.values()}
    if len(lengths) > 1:
        raise DataError(f"{where}: its arrays have several lengths; each needs one row for each record")
    if not len(y_N):
        raise DataError(f"{where}: holds no record")
    group_N = None if keys.group is None else _groups(more["group"], where, keys.group)
    persons = None if keys.person is None else normal_given(more["person"], where, keys.person)
    return Taken(checked, y_N, numbered(persons, len(y_N)), where, group_N, persons_of(persons))


def _groups(given: Any, where: str, key: str) -> NDArray[Any]:
    """Return what each record says in the column that records are dealt by, as text, which may be a silo's name.

    pandas has a column of whole numbers as real ones where one is missing: site 1.0 is site 1.
    """
    found = array_of(given, f"{where}: {key!r}")
    missing_N = [one is None or str(one) in _MISSING for one in found] if found.dtype.kind in "fO" else [False]
    if any(missing_N):
        raise DataError(
            f"{where}: record {missing_N.index(True)}: {key!r}, by which records are dealt, is missing; say it, or"
            " leave such records out"
        )
    is_whole = found.dtype.kind == "f" and bool((found == np.round(found)).all())
    return (found.astype(np.int64) if is_whole else found).astype(str)


def _columns(thing: object, where: str, keys: Keys) -> tuple[Any, Any, dict[str, Any]]:
    """Return x, or several by name, the targets, and what is said of records besides, each as it was given."""
    tensors = getattr(thing, "tensors", None)  # of a TensorDataset: no need to ask for one sample after another
    pair = tensors if isinstance(tensors, tuple) else thing
    if isinstance(pair, tuple) and len(pair) == 2 and all(map(_is_columns, pair)):
        x, y = pair
        refuse_more(where, keys)
        return (_matrix(x, _names(x), where) if _is_frame(x) else x), y, {}
    if _is_hugging_face(thing):
        formatted: Any = thing
        if formatted.format["type"] is not None:
            return samples(thing, where, keys)
        with own_code(f"{where}: reading its columns"):
            found = formatted.with_format("numpy")[:]
        return by_key(found, where, keys)
    if _is_frame(thing):
        names = _names(thing)
        if len(set(names)) < len(names):
            raise DataError(f"{where}: has two columns of one name; give each its own")
        label, more = named(names, where, keys)
        features = [name for name in names if name not in (label, *more.values())]
        source: Any = thing
        besides = {role: source[name] for role, name in more.items()}
        return _matrix(thing, features, where), source[label], besides
    if isinstance(thing, Mapping):
        return by_key(thing, where, keys)
    return samples(thing, where, keys)


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
    found = [values_of(frame[name], where, f"column {name!r}") for name in names]
    return np.stack(found, axis=1).astype(np.float32)
