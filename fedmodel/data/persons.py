"""Whose record it is: the one normal form of a person's id, by which records are grouped.

Guarantee: the normal form is a function of the id's own characters and of the form that the silo declares, and of
nothing else: not of the column, the file, its format, or any other record. So adding a record regroups no other, and
the grouping of some records is the grouping of all, restricted to them. It is idempotent. An id that its form does not
admit raises; it never becomes a person of its own, and never part of another.

| Form       | One person                                                  | Two persons                           |
|------------|-------------------------------------------------------------|---------------------------------------|
| `text`     | outer space of any kind; wide and narrow letters; ways in   | another case, leading zeros, anything |
|            | Unicode to write one letter; inner spaces of any kind, tabs | else                                  |
|            | and ends of lines not among them                            |                                       |
| `caseless` | the same, and upper and lower case                          | leading zeros, anything else          |
| `digits`   | whole numbers: leading zeros, `+`, `.0`, 1e3, any alphabet's | another number                        |
|            | digits, outer space                                         |                                       |

What `text` does to characters is RFC 8265's UsernameCasePreserved (width mapping, then NFC), with RFC 8264's mapping of
spaces. Compatibility forms (NFKC) are not folded: they would make "12" and a superscript two of "1" and "2" one person.

Does NOT know whether "P-7" and "p-7" are one person: that is the form's to say. `fedmodel.data.lookalikes` finds such
pairs for the silo's own eyes. Nor what a program rounded and then wrote in full, as `16777216.0` may be of float32. No
message holds an id, or a part of one.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from fedmodel.config import PersonForm
from fedmodel.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Id = str | bytes | int | float | Decimal
LONGEST: Final = 200  # characters; what is longer is a text, and no id
EXACT: Final = 2**53  # from here on float64 does not tell whole numbers apart

NARROW: Final = {"halffloat": 2**11, "float": 2**24}  # the same of other types, by pyarrow's name

_WIDTH: Final = {
    code: "".join(chr(int(part, 16)) for part in parts[1:])
    for code in (0x3000, *range(0xFF01, 0xFFEF))
    if (parts := unicodedata.decomposition(chr(code)).split()) and parts[0] in ("<wide>", "<narrow>")
}
# Unicode's White_Space; of ASCII's controls those alone that move a cursor.
_SPACES: Final = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(code) for code in range(0x2000, 0x200B)
}
# Default_Ignorable_Code_Point, as far as its general category is no C, and the blank of Braille.
_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164") | {
    chr(code) for code in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
# What programs write where there is no id: such records would all become one person's.
_MISSING: Final = frozenset(
    ("nan", "+nan", "-nan", "none", "null", "(null)", "nil", "na", "<na>", "n/a", "#n/a", "nat", "\\n", "inf", "-inf")
)
_PLAIN: Final = re.compile(r"[A-Za-z0-9-]*[0-9][A-Za-z0-9-]*")  # in normal form already
# As programs write a whole number that went through floating point. "1e5" could be an id, "1e+05" could not.
_FROM_FLOAT: Final = re.compile(r"[+-]?[0-9]+(?:\.0+|[eE]\+[0-9]+|\.[0-9]*[eE]\+?[0-9]+)")
_ROUNDED_FROM: Final = 6  # the exponent from which "%g" drops digits, and zeros at the end with them
_NUMBER: Final = re.compile(r"\+?([0-9]+)(?:(\.)([0-9]*))?(?:[eE]\+?([0-9]{1,3}))?")
_TOO_LONG: Final = f"is longer than {LONGEST} characters"
_NOT_DIGITS: Final = 'is no whole number, which is all that form = "digits" admits'


def normal_id(value: Id, form: PersonForm, exact: int = EXACT) -> str:
    r"""Return the normal form of an id.

    Args:
        value: As the source has it: text, or a number of the source's own type. Sensitive.
        form: As the silo declares.
        exact: From which number on the type of a floating-point value does not tell whole numbers apart.

    Returns:
        Two ids are one person's if and only if these are equal.

    Raises:
        DataError: With a rule alone, as the end of a sentence about the id; never a character of it.

    >>> [normal_id(id, "text") for id in ("P-000", "P-000 ", " P-000", "p-000", 7, "007")]
    ['P-000', 'P-000', 'P-000', 'p-000', '7', '007']
    >>> [normal_id(id, "caseless") for id in ("P-000", "p-000\t", "Straße 1", "STRASSE 1")]
    ['p-000', 'p-000', 'strasse 1', 'strasse 1']
    >>> [normal_id(id, "digits") for id in (7, 7.0, "7", "007", " 7 ", "7.0", "+7", "1e3", "1000")]
    ['7', '7', '7', '7', '7', '7', '7', '1000', '1000']
    """
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            raise DataError("is bytes that are not text in UTF-8") from None
    if not isinstance(value, str):
        return _number(value, form, exact)
    if len(value) <= LONGEST:  # nearly all ids there are; what comes after says the same of them
        if form == "text" and _PLAIN.fullmatch(value):
            return value
        if form == "digits" and value.isascii() and value.isdecimal():
            return value.lstrip("0") or "0"
    text = _tidied(value)
    if form == "digits":
        return _digits(text)
    if _FROM_FLOAT.fullmatch(text):
        raise DataError('is a number with a fraction or an exponent; declare form = "digits", or write it whole')
    if form == "caseless":
        return _short(unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold()))
    return text


def normal_ids(values: pa.ChunkedArray, form: PersonForm, where: str) -> pa.ChunkedArray:
    """Return the normal form of each id of a column, worked out once for all that are alike.

    Args:
        values: Text, bytes or numbers of any type. Sensitive.
        form: As the silo declares.
        where: What they are from, as the end of a sentence: a file, or the query.

    Raises:
        DataError: When an id is missing or its form does not admit it: the row, counted from 1, and the rule.
    """
    import pyarrow as pa
    from pyarrow import compute, types

    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    found = values.type
    if values.null_count:
        row = compute.index(values.is_null(), True).as_py() + 1
        raise DataError(f"whose a record is, is missing in row {row} of {where}; leave such records out")
    if types.is_null(found):  # of no records
        return values.cast(pa.large_string())
    text = types.is_string(found) or types.is_large_string(found) or types.is_string_view(found)
    binary = types.is_binary(found) or types.is_large_binary(found) or types.is_fixed_size_binary(found)
    number = types.is_integer(found) or types.is_floating(found) or types.is_decimal(found)
    if not (text or binary or number):
        raise DataError(f"its values are of type {found}, and an id is text or a whole number")
    coded = values.combine_chunks().dictionary_encode()
    normal: list[str] = []
    for place, value in enumerate(coded.dictionary.to_pylist()):
        try:
            normal.append(normal_id(value, form, NARROW.get(str(found), EXACT)))
        except DataError as error:
            row = compute.index(coded.indices, pa.scalar(place, coded.indices.type)).as_py() + 1
            raise DataError(f'the id in row {row} of {where} {error} (form = "{form}")') from None
    return pa.chunked_array([pa.array(normal, pa.large_string()).take(coded.indices)], pa.large_string())


def _tidied(text: str) -> str:
    """Return text without outer space, in NFC, of one width, each inner space a plain one; refuse what is no id.

    An inner tab or end of a line is refused, as other controls are: it is more often two fields than one id.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_WIDTH))
    begin, end = 0, len(text)
    while begin < end and _is_outer(text[begin]):
        begin += 1
    while end > begin and _is_outer(text[end - 1]):
        end -= 1
    text = _short(text[begin:end])
    if not text:
        raise DataError("is empty, or nothing but space")
    plain = text.isascii() and text.isprintable()
    # Of an unassigned character the normal form could change with Unicode.
    if not plain and any(_is_hidden(character) for character in text):
        raise DataError("has a control, an invisible or an unassigned character in it")
    if not any(unicodedata.category(character)[0] in "LN" for character in text):
        raise DataError("has no letter and no digit")
    if text.casefold() in _MISSING:
        raise DataError("is what programs write where an id is missing")
    return text if plain else "".join(" " if character in _SPACES else character for character in text)


def _is_outer(character: str) -> bool:
    """Return whether a character at an end of an id is dropped: white space, or what has no shape at all."""
    return character in _SPACES or character in _BLANK or unicodedata.category(character) == "Cf"


def _is_hidden(character: str) -> bool:
    """Return whether a character inside an id is refused: nobody would see by it that two ids differ."""
    if " " <= character <= "~":
        return False
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp") or character in _BLANK


def _digits(text: str) -> str:
    """Return a whole number in plain digits."""
    text = "".join(str(unicodedata.decimal(character, character)) for character in text)
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise DataError(_NOT_DIGITS)
    whole, point, fraction, exponent = found[1], found[2], found[3] or "", int(found[4] or 0)
    if point is None and not exponent:
        return whole.lstrip("0") or "0"
    if exponent < len(fraction.rstrip("0")):
        raise DataError("has a fraction")
    if not exponent and len(fraction) == 3 and re.fullmatch("[1-9][0-9]{0,2}", whole):
        raise DataError("could be thousands, or could have a fraction; write it without a point")
    if exponent > len(fraction) and (len(whole) > 1 or fraction not in ("", "0") or exponent >= _ROUNDED_FROM):
        # 1.23457e+11 stands for a million numbers, and 1e+06 for 1000001 too.
        raise DataError("has an exponent that may hide digits; write all of them")
    number = int(whole + fraction.rstrip("0")) * 10 ** (exponent - len(fraction.rstrip("0")))
    if number >= EXACT:
        raise DataError("went through floating point, which does not tell numbers of this size apart")
    return str(number)


def _number(value: int | float | Decimal, form: PersonForm, exact: int) -> str:
    """Return a number of a source's own type: whole, and told apart from all others by that type."""
    if isinstance(value, float):
        if not value.is_integer():  # NaN and infinity too
            raise DataError("is no whole number")
        if form != "digits":
            raise DataError('is of a type with a fraction; declare form = "digits"')
        if abs(value) >= exact:
            raise DataError("is too large a number for its type to tell it apart from others")
    elif isinstance(value, Decimal):
        if not value.is_finite() or value != value.to_integral_value():
            raise DataError("is no whole number")
        if value.adjusted() >= LONGEST:  # nor is it written out first
            raise DataError(_TOO_LONG)
    number = int(value)
    if abs(number) >= 10**LONGEST:
        raise DataError(_TOO_LONG)
    if form == "digits" and number < 0:
        raise DataError(_NOT_DIGITS)
    return _short(str(number))


def _short(text: str) -> str:
    """Return text that is no longer than an id is."""
    if len(text) > LONGEST:
        raise DataError(_TOO_LONG)
    return text
