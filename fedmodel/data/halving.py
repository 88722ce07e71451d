"""Which of many values a reader refuses, found by halving what it refuses until one value is left.

What a value becomes hangs on that value alone (`fedmodel.data.reader`), so a part is read as it would be in the whole.
"""

from __future__ import annotations

from collections.abc import Callable

from fedmodel.errors import DataError


def refused_places(length: int, read: Callable[[int, int], None], most: int) -> dict[int, str]:
    """Return by place, from 0 and rising, the rule that a value breaks; of the first `most` values and one more.

    Args:
        length: How many values there are.
        read: Reads those from a place up to another, that one left out, and raises when it refuses any.
        most: After how many the search ends.

    >>> def read(start, end):
    ...     if {2, 5} & {*range(start, end)}:
    ...         raise DataError("no")
    >>> refused_places(9, read, 10), refused_places(9, read, 0)
    ({2: 'no', 5: 'no'}, {2: 'no'})
    """
    found: dict[int, str] = {}
    spans = [(0, length)]
    while spans and len(found) <= most:
        start, end = spans.pop()
        try:
            read(start, end)
        except DataError as error:
            if end - start > 1:
                middle = (start + end) // 2
                spans += [(middle, end), (start, middle)]
            else:
                found[start] = str(error)
    return found
