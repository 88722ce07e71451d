"""What the values of a column look like to a person who opens the file: a word for a finding, and nothing else.

No run asks: what a value is read as is declared (`fedmodel.data.values`), and nothing is read by a guess. A word from
here stands on the screen of whoever owns the table, or chooses which option `fedmodel new` names when one is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fedmodel.kinds.spelling import word_form

if TYPE_CHECKING:
    import pyarrow as pa

NUMBERS: Final = "numbers"
COMMAS: Final = "numbers with a decimal comma"
TRUTHS: Final = "true and false"
WORDS: Final = "yes and no"
DATES: Final = "dates"
TEXT: Final = "text"
NOTHING: Final = "nothing"

YES: Final = frozenset(("yes", "y", "ja", "j", "oui", "o", "si", "sí", "sì", "sim", "tak", "ano", "da", "igen", "x"))
NO: Final = frozenset(("no", "n", "nein", "nee", "non", "não", "nao", "nie", "ne", "nem", "-"))
_MISSING: Final = re.compile(r"(?i)na|n/a|#n/a|null|none|nat|-|\.")
_LOOKED_AT: Final = 10_000  # different values: a word is no proof
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COMMA: Final = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?|[+-]?[0-9]+")
_DATE: Final = re.compile(
    r"([0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}|[0-9]{1,2}[-/.][0-9]{1,2}[-/.]([0-9]{4}|[0-9]{2}))"
    r"([T ][0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?\s?(Z|[AaPp][Mm]|[+-][0-9]{2}:?[0-9]{2})?)?"
)


def kind_seen(values: pa.ChunkedArray) -> str:
    """Return a word for what a column holds: one of the constants here, or the name of a type. Sensitive."""
    from pyarrow import types

    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    found = values.type
    if types.is_null(found) or values.null_count == len(values):
        return NOTHING
    if types.is_boolean(found):
        return TRUTHS
    if types.is_integer(found) or types.is_floating(found) or types.is_decimal(found):
        return NUMBERS
    if types.is_temporal(found):
        return DATES
    if not (types.is_string(found) or types.is_large_string(found) or types.is_string_view(found)):
        return re.split(r"[(\[<]", str(found))[0]
    return kind_of([text.strip() for text in distinct(values)])


def distinct(values: pa.ChunkedArray) -> list[str]:
    """Return a text column's different values, as many as are looked at; none of another type. Sensitive."""
    import pyarrow as pa
    from pyarrow import types

    found = values.type
    if not (types.is_string(found) or types.is_large_string(found) or types.is_string_view(found)):
        return []
    texts: list[str] = values.cast(pa.large_string()).unique().drop_null().slice(0, _LOOKED_AT).to_pylist()
    return texts


def kind_of(texts: list[str]) -> str:
    """Return a word for what different texts are: what all of them are, but for gaps.

    >>> kind_of(["1", "2.5"]), kind_of(["1", "2,5"]), kind_of(["ja", "NEIN"]), kind_of(["2024-01-31", "1.2.2024"])
    ('numbers', 'numbers with a decimal comma', 'yes and no', 'dates')
    >>> kind_of(["true", "False"]), kind_of(["red", "1"]), kind_of([""]), kind_of(["1", "0"])
    ('true and false', 'text', 'nothing', 'numbers')
    """
    texts = [text for text in texts if text]
    if not texts:
        return NOTHING
    tests: tuple[tuple[str, Callable[[str], object]], ...] = (
        (NUMBERS, _NUMBER.fullmatch),
        (COMMAS, _COMMA.fullmatch),
        (TRUTHS, lambda text: word_form(text) in ("true", "false")),
        (WORDS, lambda text: word_form(text) in YES | NO | {"true", "false"}),
        (DATES, _DATE.fullmatch),
    )
    return next((kind for kind, test in tests if all(map(test, texts))), TEXT)


def missing_of(texts: list[str]) -> list[str]:
    """Return which of different texts stand for a missing value, where all others are of one kind; none elsewhere.

    >>> missing_of(["1", "NA", "2.5", "-"]), missing_of(["NA", "red"]), missing_of(["yes", "no", "-"])
    (['NA', '-'], [], [])
    """
    if kind_of([text.strip() for text in texts]) != TEXT:
        return []
    found = [text for text in texts if _MISSING.fullmatch(text.strip())]
    others = kind_of([text.strip() for text in texts if text not in found])
    return [] if others in (TEXT, NOTHING) else found


def words_of(texts: list[str]) -> tuple[list[str], list[str]] | None:
    """Return which of different texts mean yes and which no, None where one of them is neither, or all mean one.

    >>> words_of(["Ja", "nein", "ja"]), words_of(["ja", "perhaps"])
    ((['ja'], ['nein']), None)
    """
    forms = sorted({word_form(text) for text in texts} - {"", "true", "false", "0", "1"})
    yes, no = [one for one in forms if one in YES], [one for one in forms if one in NO]
    return (yes, no) if yes and no and len(yes) + len(no) == len(forms) else None
