"""Which rows of a CSV keep all of it from being read: for the screen of whoever owns it.

A reader of CSV refuses a file whole, and does not say where. Rows are counted as it counts them: from 1, the header and
empty lines not counted.
"""

from __future__ import annotations

import csv
from itertools import count
from pathlib import Path

from fedmodel.config import CsvForm


def rows_in_the_way(path: Path, form: CsvForm, fields: int) -> tuple[list[int], list[int]]:
    """Return which rows have another number of fields than the header, and which have bytes of another encoding.

    Args:
        path: Of the file, which can be opened.
        form: How it is said to be written.
        fields: How many fields its header has.
    """
    uneven: list[int] = []
    strange: list[int] = []
    with path.open(encoding=form.encoding, errors="replace", newline="") as file:
        rows = (row for row in csv.reader(file, delimiter=form.separator) if row)
        next(rows, None)
        for number in count(1):
            try:
                row = next(rows)
            except StopIteration:
                break
            except csv.Error:  # a field of more than a hundred thousand characters: no row behind it is known
                uneven.append(number)
                break
            if len(row) != fields:
                uneven.append(number)
            if any("\ufffd" in field for field in row):
                strange.append(number)
    return uneven, strange
