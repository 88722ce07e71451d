"""Records that are read once and kept, sealed, for the rounds to come: of a table, and of files.

Guarantee: what is returned is of one state of the source: it was the same before and after it was read. What goes wrong
is said by a rule, and never by a value or by how many records there are.
"""

from __future__ import annotations

from collections.abc import Callable

from fedmodel.data.cache import Cache
from fedmodel.data.records import Records
from fedmodel.errors import DataError, FedmodelError
from fedmodel.kinds.shape import ArrayShape


def read_or_kept(
    what: str,
    name: str,
    cache: Cache | None,
    key: Callable[[], bytes],
    read: Callable[[], Records],
    features: int,
    target: ArrayShape,
) -> Records:
    """Return a source's records, each as one row of numbers. Sensitive.

    Args:
        what: What the source is called in errors.
        name: Of the data set.
        cache: Where it is kept, sealed, once read; None keeps it in memory alone.
        key: Returns a digest of all that the records follow from, as it is now.
        read: Reads them.
        features: How many numbers a row has.
        target: Shape of a record's target.

    Raises:
        FedmodelError: As `key` and `read` raise it.
        DataError: When it changed meanwhile, does not fit into memory, or cannot be read.
    """
    try:
        before = key()
        kept = None if cache is None else cache.get(name, before, (features,), target)
        if kept is not None:
            return kept
        records = read()
        # What changed while it was read may be half of one state and half of another.
        if key() != before:
            raise DataError(f"{what}: changed while it was read; rename whole files into place")
    except FedmodelError:
        raise
    except MemoryError:
        # Its own words say for how many records.
        raise DataError(f"{what}: does not fit into this machine's memory") from None
    except OSError as error:
        raise DataError(f"{what}: cannot be read: {error.strerror or 'it is damaged'}") from None
    except Exception as error:
        # Whatever it is, its words and its trace could quote a value.
        raise DataError(f"{what}: cannot be read ({type(error).__name__})") from None
    if cache is not None:
        cache.put(name, before, records)
    return records
