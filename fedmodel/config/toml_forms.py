"""Why a text is not TOML: the true cause, where it is what an editor or a word processor made of it.

What such programs put in place of plain characters looks like them, so that a person who sees only a line and a column
looks in vain. Nothing is mended by itself: what a file says is what its bytes say.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_PLACE: Final = re.compile(r"\(at line ([0-9]+), column ([0-9]+)\)")
_STRAY: Final = ("Z", "C", "P", "S")
"""Unicode's general categories of what a person outside of ASCII takes for a plain character, or does not see."""


def why_no_toml(text: str, error: Exception) -> str:
    r"""Return the cause that can be told from the line of a reader's error, as the end of a sentence; or nothing.

    >>> why_no_toml("rounds = 2\nname = “tiny”", ValueError("Invalid value (at line 2, column 8)"))
    '; the line holds U+201C (left double quotation mark), which is no plain character: type it anew'
    >>> why_no_toml('folder = "C:\\data"', ValueError("Unescaped '\\' in a string (at line 1, column 15)"))
    '; in double quotes a backslash begins an escape: write a path in single quotes'
    """
    if "\0" in text:
        return "; it holds null bytes, as UTF-16 has: save it as UTF-8"
    lines = text.replace("\r\n", "\n").split("\n")
    found = _PLACE.search(str(error))
    line = lines[min(int(found[1]), len(lines)) - 1] if found else lines[-1]
    if "\r" in line:
        return "; its lines end in a carriage return alone: save it with the ends of lines of Unix or Windows"
    stray = next((one for one in line if _is_stray(one)), None)
    if stray is not None:
        name = unicodedata.name(stray, "a control character").lower()
        return f"; the line holds U+{ord(stray):04X} ({name}), which is no plain character: type it anew"
    if found and "\\" in line[: int(found[2])] and '"' in line:
        return "; in double quotes a backslash begins an escape: write a path in single quotes"
    return ""


def _is_stray(character: str) -> bool:
    """Return whether a character is one that TOML takes for itself in quotes and comments alone."""
    if character.isascii():
        return unicodedata.category(character) == "Cc" and character != "\t"
    return unicodedata.category(character)[0] in _STRAY
