"""Ids of two persons, by their form, that look like one person's: a finding for the silo's own eyes.

What a form tells apart may be one person all the same ("P-7" and "p-7"), and nothing but the silo's own people can say.
No run asks: which records are one person's is a function of each id alone (`fedmodel.data.persons`).

Does NOT find one person's ids that are nothing alike, letters of another alphabet that look the same, or two persons
under one id. Names places, never ids; whoever reads them can open the source.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from fedmodel.config import PersonColumn, TableSource
from fedmodel.data.ids import ids_in
from fedmodel.data.persons import normal_id
from fedmodel.errors import DataError


def table_lookalikes(source: TableSource, person: PersonColumn) -> list[tuple[str, ...]]:
    """Return where ids of a table, or of files, look alike: for each group, where each of its ids stands first.

    Raises:
        ConfigError: When a package is missing, or a database's account could write.
        DataError: When the source cannot be read, has no such column, or an id that its form does not admit.
    """
    first: dict[str, str] = {}
    for normal, where in ids_in(source, person):
        first.setdefault(normal, where)
    return [tuple(first[normal] for normal in group) for group in lookalikes(first)]


def lookalikes(normal: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of ids, in normal form, that differ in case, leading zeros, spaces, punctuation or width alone.

    >>> lookalikes(["P-7", "p-007", "P 7", "P-8", "7", "7e0", "07", "8"])
    [('P-7', 'p-007', 'P 7'), ('7', '7e0', '07')]
    """
    groups: dict[str, dict[str, None]] = {}
    for one in normal:
        groups.setdefault(_likeness(one), {})[one] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _likeness(normal: str) -> str:
    """Return what is left of an id that a person would read out."""
    try:
        return normal_id(normal, "digits")
    except DataError:
        folded = unicodedata.normalize("NFKC", normal).casefold()
        bare = "".join(one for one in folded if unicodedata.category(one)[0] in "LN")
        return re.sub(r"(?<![0-9])0+(?=[0-9])", "", bare)
