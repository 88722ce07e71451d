"""What a value is read as: numbers, truths and codes, however a program wrote them.

A gap makes floats of a column's whole numbers and truths: pandas then writes 64.0 for 64. So what a value is read as is
a function of that value, of the type and the choices that are declared, and of the silo's own decimal sign and words
for true and false. It is not one of the column's type, which may hang on other records: 1 and 1.0, of whatever type,
are read alike. So reading keeps neighbours: adding a record changes no other's reading.

| Type       | Read as it is                                                        | Refused                       |
|------------|----------------------------------------------------------------------|-------------------------------|
| `float`    | any number; outer space and a plus sign dropped                      | NaN, infinity                 |
| `integer`  | 64, +64, 64.0, "64.", " 64 "                                         | 64.5, 6.4e1; from 2^53 on     |
|            |                                                                      | what went through a float     |
| `boolean`  | true and false in any case, 1, 0, 1.0, 0.0; the silo's own words     | anything else                 |
| `category` | its own spelling; 1.0 as "1", True as "true", and the other way round; | what is none of the choices   |
|            | outer space, and ways in Unicode to write one letter, set aside      |                               |

NaN is refused, not taken for a gap: it is what a division gives, too. No message holds a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmodel.data.persons import EXACT, NARROW
from fedmodel.errors import DataError
from fedmodel.kinds.spelling import choice_form, word_form

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

NOT_FINITE: Final = "a value is NaN or infinite, which is no number; where it stands for a missing one, write NULL"
_NOT_NUMBER: Final = "a value is not a number"
_NOT_WHOLE: Final = "a value is not a whole number"
_NOT_TRUTH: Final = (
    "a value is neither true nor false; of other words, declare a category, or say in the silo's own file which of them"
    " mean yes and no"
)
_ROUNDED: Final = (
    "a value is a whole number so large that floating point does not tell it from others; write it as text"
)
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,40}(\.0*)?")
_RULES: Final = {
    "float": _NOT_NUMBER, "integer": _NOT_WHOLE, "boolean": _NOT_TRUTH, "category": "a value is not text",
}  # fmt: skip


def typed(
    values: pa.ChunkedArray, kind: str, decimal: str = ".", truths: Mapping[str, bool] | None = None
) -> pa.ChunkedArray:
    """Return a column in the one form that its declared type has: float64, int64, bool or text; gaps stay gaps.

    Args:
        values: Of any type. Sensitive.
        kind: The declared type.
        decimal: The sign before a fraction, in text.
        truths: What words of text stand for in a boolean, by `word_form`, besides true, false, 1 and 0.

    Raises:
        DataError: The rule that a value breaks, and never the value.
    """
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    found = values.type
    target = {"float": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_(), "category": pa.large_string()}[kind]
    if types.is_null(found):
        return values.cast(target)
    if types.is_string(found) or types.is_large_string(found) or types.is_string_view(found):
        return _from_text(values.cast(pa.large_string()), kind, decimal, target, truths or {})
    number = types.is_integer(found) or types.is_floating(found) or types.is_decimal(found)
    if types.is_boolean(found) and kind in ("boolean", "category"):
        return values.cast(target)
    if not number:
        # Without its parameters, which could be made of values.
        name = re.split(r"[(\[<]", str(found))[0]
        raise DataError(f"its values are of type {name} and not of the declared type, {kind}: {_RULES[kind]}")
    try:
        if kind == "float":
            return values.cast(target)
        exact = NARROW.get(str(found), EXACT)
        if types.is_floating(found):
            values = values.cast(pa.float64())
        if types.is_integer(found) and kind != "boolean":
            return values.cast(target)
        reading = {"integer": _whole_number, "boolean": _truth_number, "category": _number_text}[kind]
        return each(values, lambda value: reading(value, exact), target)
    except (pa.ArrowException, ValueError, OverflowError):
        raise DataError(_RULES[kind]) from None


def each(values: pa.ChunkedArray, reading: Callable[[Any], object], target: pa.DataType) -> pa.ChunkedArray:
    """Return what every value is read as, worked out once for all that are alike."""
    import pyarrow as pa

    coded = values.combine_chunks().dictionary_encode()
    read = pa.array([reading(value) for value in coded.dictionary.to_pylist()], target)
    return pa.chunked_array([read.take(coded.indices)], target)


def places(values: pa.ChunkedArray, choices: tuple[str, ...], decimal: str = ".") -> NDArray[np.int64]:
    """Return each text's place among the choices, -1 where it is none of them, and where it is missing.

    A choice's own spelling goes first; then `choice_form`, in which no two choices are alike.
    """
    import pyarrow as pa
    from pyarrow import compute

    own = {choice: place for place, choice in enumerate(choices)}
    forms = {choice_form(choice): place for place, choice in enumerate(choices)}

    # With a decimal comma, "1.0" is no number.
    swap = str.maketrans(",.", ".,") if decimal == "," else {}

    def place(text: str) -> int:
        return own.get(text, forms.get(choice_form(text.translate(swap)), -1))

    place_N = compute.fill_null(each(values, place, pa.int64()), -1).to_numpy()
    return np.array(place_N, dtype=np.int64)  # a copy, since Arrow's is not to be written


def _from_text(
    values: pa.ChunkedArray, kind: str, decimal: str, target: pa.DataType, truths: Mapping[str, bool]
) -> pa.ChunkedArray:
    """Read text."""
    import pyarrow as pa
    from pyarrow import compute

    if kind == "category":
        return values
    bare = compute.utf8_trim_whitespace(values)
    if decimal == ",":
        if _any(bare, r"\."):
            raise DataError(f'{_RULES[kind]}: with decimal = "," no point may stand in it, not for thousands either')
        bare = compute.replace_substring(bare, ",", ".")
    try:
        if kind == "float":
            return compute.replace_substring_regex(bare, r"^\+([0-9.])", r"\1").cast(target)
        if kind == "integer" and not _any(bare, "[^0-9]"):
            return bare.cast(target)
        return each(bare, _whole if kind == "integer" else lambda text: _truth(text, truths), target)
    except (pa.ArrowException, ValueError, OverflowError):
        raise DataError(f"{_RULES[kind]}{_cause(bare, decimal)}") from None


def _cause(bare: pa.ChunkedArray, decimal: str) -> str:
    """Return why text is no number, where a program's habit tells, as the end of a sentence."""
    if decimal == "." and _any(bare, r"^[+-]?[0-9]+,[0-9]+$"):
        return ': it is written with a decimal comma, or one for thousands; if decimal, declare decimal = ","'
    if _any(bare, r"^[+-]?[0-9]{1,3}([ ,.'’\x{a0}\x{202f}][0-9]{3})+([.,][0-9]+)?$"):
        return ": it is written with a separator for thousands; write it without"
    if _any(bare, r"(?i)^(na|n/a|#n/a|nan|null|none|-|\.|nat)$"):
        return ": a word for a missing value stands there; leave it empty, or name it under missing_values"
    if _any(bare, "^$"):
        return ": nothing but space stands there; leave it empty, without space"
    if _any(bare, r"^[\x{2212}\x{2010}-\x{2015}][0-9]"):
        return ": it is written with another dash than the minus sign of the keyboard"
    if _any(bare, """^(=".*"|'[0-9].*|[<>].*|.*%)$"""):
        return ": it is written with a sign beside the number; leave that out"
    return ""


def _any(values: pa.ChunkedArray, pattern: str) -> bool:
    """Return whether a text matches."""
    from pyarrow import compute

    return compute.any(compute.match_substring_regex(values, pattern), min_count=0).as_py() is True


def _whole(text: str) -> int:
    """Return a whole number.

    >>> [_whole(text) for text in ("64", "+64", "64.0", "64.", "-0.0", "007")]
    [64, 64, 64, 64, 0, 7]
    """
    found = _WHOLE.fullmatch(text)
    if found is None:
        raise ValueError
    number = int(text.partition(".")[0])
    if found[1] is not None and abs(number) >= EXACT:
        raise DataError(_ROUNDED)
    return number


def _truth(text: str, truths: Mapping[str, bool]) -> bool:
    """Return a truth.

    >>> [_truth(text, {"ja": True}) for text in ("true", "FALSE", "1.0", "0", "JA")]
    [True, False, True, False, True]
    """
    if (found := truths.get(word_form(text))) is not None:
        return found
    lower = text.lower()
    return lower == "true" if lower in ("true", "false") else _truth_number(_whole(text), EXACT)


def _whole_number(number: float | Decimal, exact: int) -> int:
    """Return a whole number of a type that admits fractions."""
    if isinstance(number, float) and not np.isfinite(number):
        raise DataError(NOT_FINITE)
    if number != int(number):
        raise ValueError
    if isinstance(number, float) and abs(number) >= exact:
        raise DataError(_ROUNDED)
    return int(number)


def _truth_number(number: float | Decimal, exact: int) -> bool:
    """Return a truth that is written as a number."""
    if (whole := _whole_number(number, exact)) not in (0, 1):
        raise ValueError
    return bool(whole)


def _number_text(number: float | Decimal, exact: int) -> str:
    """Return a number as a code; one with a fraction is no code, and none of the choices unless spelled so."""
    try:
        return str(_whole_number(number, exact))
    except ValueError:
        return str(number)
