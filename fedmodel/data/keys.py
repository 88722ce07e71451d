"""By which column or key the label, the person and the group of a record are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fedmodel.errors import DataError

LABELS: Final = ("label", "labels")
"""What the label is called where nothing is said."""
_SAID_AS: Final = {"person": "person", "group": "partition.column"}


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


def named(names: Sequence[Any], where: str, keys: Keys) -> tuple[Any, dict[str, str]]:
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


def refuse_more(where: str, keys: Keys) -> None:
    """Refuse a pair where a column is asked for that it cannot have."""
    for role, name in keys.more.items():
        said = f"data.{_SAID_AS[role]} = {name!r}"
        raise DataError(f"{where}: is a pair (x, y), and {said} is of one with columns or keys; give a frame or a dict")


def by_key(columns: Mapping[Any, Any], where: str, keys: Keys) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Return the arrays of a mapping, each by its role."""
    label, more = named(list(columns), where, keys)
    x = {str(name): one for name, one in columns.items() if name not in (label, *more.values())}
    if not x:
        raise DataError(f"{where}: has nothing besides the label")
    return x, columns[label], {role: columns[name] for role, name in more.items()}
