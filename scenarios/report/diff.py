"""Where two documents differ: the first field that does not follow, and all fields in which two runs differ.

Figures that are computed in floating point may differ in their last digits between machines; `TOLERANCES` says how far.
Everything else is equal or is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

_ABSENT: Final = object()
_RELATIVE: Final = 1e-9
# By the last name of a path: searched by a root finder, or by another library, or next to what accounting truncates.
TOLERANCES: Final[Mapping[str, tuple[float, float]]] = {
    "mu": (1e-6, 0.0),
    "noise_multiplier_planned": (1e-6, 0.0),
    "prv": (1e-6, 0.0),
    "rdp": (1e-6, 0.0),
    "curve.delta": (1e-6, 1e-14),
}
ATTACKED_AGAIN: Final[Mapping[str, tuple[float, float]]] = {
    **{f"{estimator}.epsilon": (1e-6, 1e-9) for estimator in ("steinke", "fdp", "clopper_pearson", "gaussian")},
    "mu": (1e-6, 1e-9),
    # Membership is inferred with a reference model that is trained anew: another processor rounds otherwise.
    "auc": (0.0, 0.01),
    "tpr_at_1pct_fpr": (0.0, 0.02),
    "epsilon_estimate": (0.0, 0.2),
    # A rank that is another by one: of the first of all it is a bit.
    "exposure.mean": (0.0, 0.1),
    "exposure.largest": (0.0, 1.0),
    "exposure.before.mean": (0.0, 0.1),
    "exposure.before.largest": (0.0, 1.0),
}
FILES: Final = "integrity.files."
"""How the path of a difference begins that is of a file which was signed, by its name."""
# What tells one row of a list from another, where two runs are compared.
_NAMES: Final = ("silo", "name", "who", "run", "round", "scope")
_SERIES: Final = ("curve", "points", "rounds", "included", "excluded", "dependencies")


@dataclass(frozen=True)
class Difference:
    """A field in which two documents differ.

    Attributes:
        path: Its name, as `accounting.silos[2].pld`.
        one: What the first has; None where it has none.
        other: What the second has.
    """

    path: str
    one: Any
    other: Any

    @property
    def section(self) -> str:
        """The section that it is in."""
        return self.path.split(".")[0].split("[")[0]

    @property
    def by(self) -> float | None:
        """How much more the second has, where both are numbers."""
        numbers = (self.one, self.other)
        if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
            return None
        return float(self.other - self.one)


def in_words(difference: Difference) -> str:
    """Say a difference: what it is, what stands, what follows.

    >>> in_words(Difference("a.b", 1, None))
    'a.b: 1 stands, nothing follows'
    >>> in_words(Difference("integrity.files.report.html", "ab" * 32, "cd" * 32))
    'report.html: is a changed page: its SHA-256 is cdcdcdcdcdcdcdcd..., and the page that was signed has\
 abababababababab...; do not rely on what it says, and ask whoever signed it for theirs'
    """
    if difference.path.startswith(FILES):
        return f"{difference.path.removeprefix(FILES)}: {_file(difference)}"
    one, other = ("nothing" if value is None else _short(value) for value in (difference.one, difference.other))
    return f"{difference.path}: {one} stands, {other} follows"


def _file(difference: Difference) -> str:
    """Say of a file that it is not the one that was signed, and what that means."""
    if difference.one is None:
        return "lies here, and is none of the files that were signed: take it away"
    signed = difference.one[:16]
    if difference.other is None:
        return (
            f"is missing, or no plain file of the folder: one was signed whose SHA-256 is {signed}...; nothing is"
            " verified without it, so ask whoever signed it for the whole folder"
        )
    what, says = ("page", "what it says") if difference.path.endswith(".html") else ("file", "it")
    return (
        f"is a changed {what}: its SHA-256 is {difference.other[:16]}..., and the {what} that was signed has"
        f" {signed}...; do not rely on {says}, and ask whoever signed it for theirs"
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def differences(
    stored: Any, follows: Any, path: str = "", tolerances: Mapping[str, tuple[float, float]] = TOLERANCES
) -> Iterator[Difference]:
    """Go through the fields in which a document is not what follows, in the document's order.

    >>> [found.path for found in differences({"a": [{"b": 1}]}, {"a": [{"b": 2}]})]
    ['a[0].b']
    """
    if isinstance(stored, dict) and isinstance(follows, dict):
        for key in [*stored, *(key for key in follows if key not in stored)]:
            inside = f"{path}.{key}" if path else key
            yield from differences(stored.get(key, _ABSENT), follows.get(key, _ABSENT), inside, tolerances)
    elif isinstance(stored, list) and isinstance(follows, list):
        for place in range(max(len(stored), len(follows))):
            one, other = (rows[place] if place < len(rows) else _ABSENT for rows in (stored, follows))
            yield from differences(one, other, f"{path}[{place}]", tolerances)
    elif not _alike(stored, follows, path, tolerances):
        yield Difference(path, _shown(stored), _shown(follows))


def _alike(stored: Any, follows: Any, path: str, tolerances: Mapping[str, tuple[float, float]]) -> bool:
    if type(stored) is float and type(follows) is float:
        last = path.rsplit(".", 1)[-1]
        row = path.rsplit(".", 2)[-2].split("[")[0] if path.count(".") > 1 else ""
        relative, absolute = tolerances.get(f"{row}.{last}", tolerances.get(last, (_RELATIVE, 0.0)))
        return math.isclose(stored, follows, rel_tol=relative, abs_tol=absolute)
    return type(stored) is type(follows) and bool(stored == follows)


def _shown(value: Any) -> Any:
    return None if value is _ABSENT else value


def changes(one: Any, other: Any, path: str = "") -> Iterator[Difference]:
    """Go through what changed from one run to another: rows of lists are matched by name, long series taken whole."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            inside = f"{path}.{key}" if path else key
            if key in _SERIES:
                yield from _series(one.get(key), other.get(key), inside)
            else:
                yield from changes(one.get(key), other.get(key), inside)
    elif isinstance(one, list) and isinstance(other, list):
        rows, others = _named(one), _named(other)
        for name in [*rows, *(name for name in others if name not in rows)]:
            yield from changes(rows.get(name), others.get(name), f"{path}[{name}]")
    elif one != other:
        yield Difference(path, one, other)


def _series(one: Any, other: Any, path: str) -> Iterator[Difference]:
    if one != other:
        yield Difference(path, *(f"{len(rows)} rows" if isinstance(rows, list) else rows for rows in (one, other)))


def _named(rows: list[Any]) -> dict[str, Any]:
    """Return rows by what names them, by place where nothing does."""
    found: dict[str, Any] = {}
    for place, row in enumerate(rows):
        names = [str(row[key]) for key in _NAMES if isinstance(row, dict) and key in row]
        name = names[0] if names else str(place)
        if name in found and len(names) > 1:
            name = "/".join(names)
        found[name if name not in found else f"{name}#{place}"] = row
    return found
