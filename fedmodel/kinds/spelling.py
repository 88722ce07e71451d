"""How values and files are spelled: what a code is compared by, how a CSV is written, and what came later.

Each says nothing by default, and then a scenario's and a law's text, and so their hashes, are what they were before.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from fedmodel.kinds.section import Section


class Later(BaseModel):
    """A section some of whose keys came later: one that says nothing is not written, so that hashes stay as they were.

    Attributes:
        LATER: The keys.
    """

    LATER: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_what_is_unsaid(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unsaid = {key for key in self.LATER if getattr(self, key) == fields[key].default}
        return {key: value for key, value in written(self).items() if key not in unsaid}


def choice_form(text: str) -> str:
    """Return the form in which a code is compared: whole numbers without a fraction, truths in lower case.

    Outer space is left out, since databases and statistics programs fill codes up to one width, and a letter is written
    in one way of Unicode's (NFC). From 2^53 on, floating point does not tell whole numbers apart, and text is left as
    it is.

    >>> [choice_form(text) for text in ("1.0", "1.", "-0.0", "TRUE", "007", "1.5", "Red", " II  ")]
    ['1', '1', '0', 'true', '007', '1.5', 'Red', 'II']
    """
    text = unicodedata.normalize("NFC", text.strip())
    if text.lower() in ("true", "false"):
        return text.lower()
    found = re.fullmatch(r"(-?(?:0|[1-9][0-9]{0,15}))\.0*", text)
    if found is None or abs(int(found[1])) >= 2**53:
        return text
    return str(int(found[1]))


def word_form(text: str) -> str:
    """Return the form in which a word for true or false is compared: case and outer space do not count.

    >>> word_form(" Ja ") == word_form("JA"), word_form("1.0")
    (True, '1')
    """
    return choice_form(text).casefold()


Words = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,100}$")], ...], Field(strict=False, max_length=20)
]
_OWN_WORDS = frozenset(("true", "false", "0", "1"))


def _is_an_encoding(value: str) -> str:
    """Refuse what Python does not know as an encoding in which ASCII stands for itself, or as UTF-16 or UTF-32."""
    probe = "\\x41+A;,\t|"
    try:
        plain = probe.encode(value) == probe.encode("ascii")
    except (LookupError, UnicodeError, ValueError):
        plain = False
    if value.lower() in ("idna", "undefined") or not (
        plain or re.fullmatch(r"(?i)utf[-_]?(8[-_]sig|(16|32)([-_]?[lb]e)?)", value)
    ):
        raise ValueError(f'{value!r} is no encoding that is read; known are "utf-8", "utf-16", "cp1252", "latin-1" ...')
    return value


FORM = ("separator", "decimal", "encoding", "missing_values")
"""The keys that are of a CSV alone."""


class CsvForm(Section, Later):
    """How a CSV is written, as programs of other countries do; `yes` and `no` hold for other sources of text, too.

    Attributes:
        separator: Of fields.
        decimal: The sign before a fraction. A sign for thousands is not read.
        encoding: By Python's name, "cp1252" or "utf-16" for instance.
        yes: Words that stand for true in a column declared as a boolean, besides "true" and 1.
        no: Words that stand for false there, besides "false" and 0.
        missing_values: What stands for a missing value, besides nothing at all: the whole field, as it is spelled.
    """

    LATER: ClassVar[tuple[str, ...]] = ("separator", "decimal", "encoding", "yes", "no", "missing_values")

    separator: Literal[",", ";", "\t", "|"] = ","
    decimal: Literal[".", ","] = "."
    encoding: Annotated[str, Field(max_length=40), AfterValidator(_is_an_encoding)] = "utf-8"
    yes: Words = ()
    no: Words = ()
    missing_values: Words = ()

    @model_validator(mode="after")
    def _words_differ(self) -> CsvForm:
        if bool(self.yes) != bool(self.no):
            raise ValueError("yes and no are given together: which words stand for true, and which for false")
        seen: dict[str, str] = {}
        for word in (*self.yes, *self.no):
            form = word_form(word)
            if form in _OWN_WORDS or not form:
                raise ValueError(f"yes, no: {word!r} is read as it is already; leave it out")
            if form in seen:
                raise ValueError(f"yes, no: {word!r} and {seen[form]!r} are read as one; give each word once")
            seen[form] = word
        return self

    @property
    def truths(self) -> dict[str, bool]:
        """What its words stand for, by the form in which they are compared."""
        return {word_form(word): True for word in self.yes} | {word_form(word): False for word in self.no}

    @property
    def is_plain(self) -> bool:
        """Whether its lines are as a CSV's are where nothing is said."""
        fields = CsvForm.model_fields
        return all(getattr(self, key) == fields[key].default for key in FORM)
