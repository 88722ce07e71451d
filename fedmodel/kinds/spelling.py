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


class CsvForm(Section, Later):
    """How a CSV is written, as programs of other countries do.

    Attributes:
        separator: Of fields.
        decimal: The sign before a fraction. A sign for thousands is not read.
        encoding: By Python's name, "cp1252" or "utf-16" for instance.
    """

    LATER = ("separator", "decimal", "encoding")

    separator: Literal[",", ";", "\t", "|"] = ","
    decimal: Literal[".", ","] = "."
    encoding: Annotated[str, Field(max_length=40), AfterValidator(_is_an_encoding)] = "utf-8"

    @property
    def is_plain(self) -> bool:
        """Whether it is as a CSV is where nothing is said."""
        return all(getattr(self, key) == CsvForm.model_fields[key].default for key in CsvForm.LATER)
