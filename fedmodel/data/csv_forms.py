"""Why a file is not the CSV that was declared: the true cause, by its first bytes and its header alone.

A CSV of another country has another separator, decimal sign or encoding; which, is the silo's to declare. Nothing is
guessed and read by the guess: two programs that guess differently would read two tables. No message holds a part of the
file but a name that the scenario declares.
"""

from __future__ import annotations

import codecs
import unicodedata
from pathlib import Path
from typing import Final

from fedmodel.config import CsvForm
from fedmodel.errors import DataError

_SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
_BLOCK: Final = 1 << 20
_OTHERS: Final = (
    (b"PK\x03\x04", "is a workbook of Excel or another packed file, and no CSV; save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "is a workbook of an old Excel, and no CSV; save it as CSV"),
    (b"\x1f\x8b", "is packed by gzip; unpack it"),
    (b"PAR1\x15", "is Parquet, and its name ends in .csv; say parquet, and let its name end so"),
)  # fmt: skip
_MARKS: Final = (  # a mark of UTF-32 begins as one of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_NULLS: Final = 'has null bytes, as UTF-16 has; declare encoding = "utf-16-le" or "utf-16-be"'


def check_header(found: list[str], columns: tuple[str, ...], form: CsvForm) -> None:
    """Refuse a header of another encoding, and one in which no declared separator stands but another does.

    Raises:
        DataError: Which, as the end of a sentence about the file.
    """
    if any("\0" in name for name in found):
        raise DataError(_NULLS)
    if found and found[0].lower().startswith("sep=") and len(found) <= 2:
        raise DataError("begins with a line of Excel's that names its separator, and not with its header; take it out")
    if len(found) != 1 or found[0] in columns:
        return
    for sign, name in _SEPARATORS.items():
        if sign != form.separator and sign in found[0]:
            said = "\\t" if sign == "\t" else sign
            raise DataError(
                f"its header has no {_SEPARATORS[form.separator].removesuffix('s')} but {name}; if they separate its"
                f' fields, declare separator = "{said}"'
            )


def check_begin(begin: bytes) -> None:
    """Refuse a file of another kind by its first bytes, and one that is empty, or nothing but space.

    Raises:
        DataError: Which, as the end of a sentence about the file.
    """
    if not begin.removeprefix(codecs.BOM_UTF8).strip():
        raise DataError("is empty; a CSV begins with a header")
    for mark, reason in _OTHERS:
        if begin.startswith(mark):
            raise DataError(reason)


def why_no_csv(path: Path, columns: tuple[str, ...], form: CsvForm) -> str:
    """Return why a file could not be read, as the end of a sentence about it."""
    try:
        with path.open("rb") as file:
            begin = file.read(_BLOCK)
            first = begin.splitlines()[0].decode(form.encoding, "replace")
            if form.encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
                for mark, encoding in _MARKS:
                    if begin.startswith(mark):
                        return f'is not in UTF-8 but in another form of Unicode; declare encoding = "{encoding}"'
                if b"\0" in begin:
                    return _NULLS
            decoder = codecs.getincrementaldecoder(form.encoding)()
            while begin:
                decoder.decode(begin)
                begin = file.read(_BLOCK)
            decoder.decode(b"", final=True)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except UnicodeError:
        return f'is not text in {form.encoding.upper()}; declare its encoding, as in encoding = "cp1252"'
    if not any(name in first for name in columns):
        return (
            'does not begin with its header: a line of Excel\'s such as "sep=;", a title or a comment stands before it,'
            " or it has none; let the names of its columns be the first line"
        )
    try:
        # Of a file whose lines differ in how often the declared separator stands in them, as a decimal comma may.
        check_header(first.removeprefix("\ufeff").split(form.separator), columns, form)
    except DataError as error:
        return str(error)
    return (
        f"is not CSV in {form.encoding.upper()}, with a header and as many fields in every line, separated by"
        f" {_SEPARATORS[form.separator]}"
    )


def almost(name: str, found: list[str]) -> str:
    """Return how a column that is there differs from a declared name, as the end of a sentence.

    >>> almost("age", ["id", "Age "])
    '; one that differs in case or outer space is'
    """
    for other in found:
        if _plain(other) == _plain(name):
            if other.strip("\ufeff \t\xa0").casefold() == name.casefold():
                return "; one that differs in case or outer space is"
            return "; one is that is written with other characters of Unicode, though it looks the same"
    return ""


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip("\ufeff \t\xa0")).casefold()
