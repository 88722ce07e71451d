"""A count with its thing, as a person reads it: in the singular of one, and in the plural of any other number."""

from __future__ import annotations


def counted(figure: int, thing: str, things: str | None = None) -> str:
    """Return a count with its thing, in the plural where it is.

    Args:
        figure: How many.
        thing: What is counted, in the singular.
        things: Its plural, where that is not made by an s.

    >>> counted(1, "run"), counted(1200, "run"), counted(0, "entry", "entries")
    ('1 run', '1,200 runs', '0 entries')
    """
    return f"{figure:,} {thing if figure == 1 else things or f'{thing}s'}"


def one_or_more(figure: int, one: str, more: str) -> str:
    """Return the word that agrees with a count, as its verb.

    >>> one_or_more(1, "is", "are"), one_or_more(0, "is", "are")
    ('is', 'are')
    """
    return one if figure == 1 else more
