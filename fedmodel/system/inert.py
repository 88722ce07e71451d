r"""Text that others chose, made inert before a person sees it: names, reasons, errors, messages of peers.

A terminal obeys escape sequences. Characters that change the direction of writing, or have no width, mislead a reader.
Whoever can write a line's end can forge a line of a log. Here each of these characters is replaced by its name.

    ESC, BEL, CR, all else of C0 and C1, DEL           \x1b, \r, \x9b
    marks, overrides and isolates of direction         \u202e
    no width, no ink: joiners, fillers, selectors      \u200b, \ufeff, \ufe0f
    other ends of lines and paragraphs                 \u2028
    halves of pairs, private use, tags                 \ud800, \ue000, \U000e0041

Guarantee: the result of `inert` has none of them, and no line's end; the result of `inert_lines` has none of them
except newlines. Everything else stays as it is, and text that is inert already is not changed. The list consists of
numbers, and not of a table of Unicode, so that every version of Python shows the same text in the same way;
`test_inert` compares it with that table.

Each way out to a person passes through here in one place, so that no call can forget it: the terminal in
`scenarios.cli.printing`, logs by `InertFormatter` and, for a process that a supervisor started, `InertStream`, a silo's
own log in `clients.silo`, the page in `scenarios.report.page.render`. JSON and YAML escape by themselves.

Does NOT distinguish letters that look alike, nor remove marks that pile up over a letter. A backslash is not escaped,
so a text may contain the characters `\x1b` itself; they do nothing to a reader.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import traceback
from types import TracebackType
from typing import Final

_ACTIVE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad"
    "\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"  # joins and signs of Arabic and Syriac
    "\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0"  # fillers, selectors
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\ufffe\uffff"
    "\ud800-\udfff\ue000-\uf8ff\ufe00-\ufe0f"
    "\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U0010ffff]"
)
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def inert(text: str) -> str:
    r"""Return a text in one line, with each active character replaced by its name.

    >>> inert("left\x1b[2J\nright") == r"left\x1b[2J\nright"
    True
    """
    return _ACTIVE.sub(_said, text)


def inert_lines(text: str) -> str:
    """Return a text with each active character except newlines replaced by its name: for text whose lines are ours."""
    return "\n".join(map(inert, text.split("\n")))


def _said(found: re.Match[str]) -> str:
    """Return a character's name, as Python writes it."""
    character = found[0]
    number = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


class InertFormatter(logging.Formatter):
    """Formats a record as one line, whatever it contains, and an exception as lines that begin with a space."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the record's line."""
        return inert(super().formatMessage(record))

    def formatException(  # noqa: N802 - logging's name
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        """Return an exception's text; none of its lines could be taken for a record."""
        return indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        """Return a stack's text; none of its lines could be taken for a record."""
        return indented(super().formatStack(stack_info))


def show_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print what nothing caught, as Python would, but for what of its text would act; for `sys.excepthook`."""
    sys.stderr.write(inert_lines("".join(traceback.format_exception(kind, error, trace))))


def indented(text: str) -> str:
    """Return the lines of a trace, inert, each with two spaces before it."""
    return "\n".join(f"  {line}" for line in inert_lines(text).split("\n"))


class InertStream(io.TextIOWrapper):
    """A text stream that makes everything inert that is written to it; newlines stay."""

    def write(self, text: str, /) -> int:
        """Write a text, and return its length."""
        super().write(inert_lines(text))
        return len(text)
