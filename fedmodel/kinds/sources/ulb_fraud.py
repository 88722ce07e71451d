"""Card payments of two days in September 2013, some of them fraud (Dal Pozzolo et al. 2015), from a person's own disk.

284,807 payments, 492 of which were fraud: .17%. The publisher, the machine-learning group of Universite libre de
Bruxelles, gives the amount, when a payment was, and 28 principal components of everything else.

The components are figures of all payments together, which their publisher released without noise; nothing here can add
privacy to that. When a payment was is read by nothing, since a time beside an amount can tell whose it is.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from fedmodel.errors import DataError
from fedmodel.kinds.on_disk import OneFile
from fedmodel.kinds.shape import DataShape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FEATURES: Final = (*(f"V{place}" for place in range(1, 29)), "Amount")
_CLASS: Final = "Class"
_HEADER: Final = ["Time", *_FEATURES, _CLASS]
_LAST_BYTES: Final = 4096  # in which the last line lies


class UlbFraudConfig(OneFile):
    """Card payments, 28 components and the amount of each; fraud is the positive class."""

    what = (
        "creditcard.csv of the machine-learning group of Université libre de Bruxelles, 284,807 card payments of"
        " September 2013, with the columns Time, V1 to V28, Amount and Class"
    )

    source: Literal["ulb-fraud"]

    @property
    def shape(self) -> DataShape:
        """29 named features, and two classes."""
        return DataShape((len(_FEATURES),), 2, _FEATURES, labels=("genuine", "fraud"))

    @property
    def described(self) -> str:
        """Whose set it is."""
        return "card payments of September 2013 that ULB published, dealt out to silos"

    def why_no_persons(self) -> str:
        """Return that nobody knows whose card it was."""
        return "the payments of ulb-fraud do not say whose card it was; take another unit"

    def load(self, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # noqa: ARG002 - they are what they are
        """Return the payments, in the file's order."""
        import numpy as np
        import pyarrow as pa
        from pyarrow import csv as arrow

        path = self.opened()
        self._check_form(path)
        try:
            types = arrow.ConvertOptions(column_types=dict.fromkeys(_HEADER, pa.float64()))
            table = arrow.read_csv(path, convert_options=types)
        except (pa.ArrowException, UnicodeError):
            raise self._first_wrong(path) from None
        x_NF = np.stack([table[name].to_numpy() for name in _FEATURES], axis=1)
        class_N = table[_CLASS].to_numpy()
        if not len(table) or not np.isfinite(x_NF).all() or not np.isin(class_N, (0.0, 1.0)).all():
            raise self._first_wrong(path)
        return x_NF, class_N.astype(np.int64)

    def _check_form(self, path: Path) -> None:
        """Refuse a file that is none of its kind, by its first line and its last."""
        with path.open("rb") as raw:
            raw.seek(max(0, path.stat().st_size - _LAST_BYTES))
            last = raw.read().rstrip().rpartition(b"\n")[2]
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            if next(csv.reader(file), []) != _HEADER:
                raise self.another("its first line has other columns")
        if last.count(b'"') % 2:
            raise self.another("its last line is cut short: a quotation mark is opened and not closed")

    def _first_wrong(self, path: Path) -> DataError:
        """Return which line is the first that is wrong, and how."""
        has_lines = False
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if number == 1 or not line.strip():
                    continue
                has_lines = True
                # Line by line, since no field has a newline: an open quotation mark takes no other line with it.
                if (why := _why_wrong(line.strip())) is not None:
                    return self.another(f"line {number} has {why}")
        return self.another("a line is not as the others are" if has_lines else "it has no line behind its header")


def _why_wrong(line: str) -> str | None:
    """Return what is wrong with a line, None where nothing is."""
    if line.count('"') % 2:
        return "a quotation mark that is opened and not closed"
    try:
        (fields,) = csv.reader([line])
    except csv.Error:
        return "a field that is longer than any of this set"
    if len(fields) != len(_HEADER):
        return f"{len(fields)} fields, where the header has {len(_HEADER)}"
    for name, field in zip(_HEADER, fields, strict=True):
        try:
            number = float(field.replace("_", "?"))  # Python reads 9_9 as a number
        except ValueError:
            return f"no number in column {name}" if field.strip() else f"a gap in column {name}"
        if not math.isfinite(number):
            return f"a number in column {name} that is not finite"
    return None if float(fields[_HEADER.index(_CLASS)]) in (0.0, 1.0) else "a class that is neither 0 nor 1"
