"""Whatever text others choose, what a person is shown of it does nothing."""

from __future__ import annotations

import io
import logging
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmodel.system.inert import InertFormatter, InertStream, inert, inert_lines

# What Unicode says acts, or is nothing to see: controls, formats, ends of lines and paragraphs, halves, private use.
ACTING = ("Cc", "Cf", "Zl", "Zp", "Cs", "Co")
# Fillers and selectors, which Unicode counts among letters and marks and says to show nothing of.
UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0\ufe00\ufe0f\U000e0100\U000e01ef"
HOSTILE = "a\x1b[2J\x1b]8;;http://x\x07b\rc\x9b31m\u202ed\u2066\u200b\ufeff\u2028\U000e0041\ud800\x7f"


def test_every_character_that_acts_or_is_not_seen_is_said_instead() -> None:
    """All of Unicode, as this Python has it: a character is escaped exactly if it is one of these."""
    unassigned = {number for number in range(0x110000) if unicodedata.category(chr(number)) == "Cn"}
    for number in range(0x110000):
        character = chr(number)
        acts = unicodedata.category(character) in ACTING or "VARIATION SELECTOR" in unicodedata.name(character, "")
        if acts or character in UNSEEN:
            assert inert(character) != character, f"U+{number:04X} is let through"
        elif number not in unassigned:
            assert inert(character) == character, f"U+{number:04X} is a letter, and is not shown"


@given(st.text(st.characters()))
def test_what_is_inert_stays_as_it_is(text: str) -> None:
    shown = inert(text)
    assert inert(shown) == shown
    assert inert_lines(shown) == shown
    assert "\n" not in shown
    assert inert_lines(text).count("\n") == text.count("\n")


def test_an_escape_says_which_character_it_was() -> None:
    assert inert(HOSTILE) == (
        r"a\x1b[2J\x1b]8;;http://x\x07b\rc\x9b31m\u202ed\u2066\u200b\ufeff\u2028\U000e0041\ud800\x7f"
    )
    assert inert("Zoë's silo №1 – 患者, שלום") == "Zoë's silo №1 – 患者, שלום"


def _logged(message: str, *args: object, error: BaseException | None = None) -> str:
    """Return what a handler of ours writes for a record."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(InertFormatter("%(levelname)s %(message)s"))
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    handler.handle(logging.LogRecord("a", logging.WARNING, "f", 1, message, args, exc_info))
    return out.getvalue()


def test_a_record_is_one_line_whatever_it_says() -> None:
    assert _logged("%s said %s", "left\nERROR all is lost", HOSTILE) == (
        f"WARNING left\\nERROR all is lost said {inert(HOSTILE)}\n"
    )


def test_no_line_of_a_trace_looks_like_a_record() -> None:
    try:
        raise RuntimeError(f"first\nERROR forged {HOSTILE}")
    except RuntimeError as error:
        written = _logged("failed", error=error)
    first, *trace = written.rstrip("\n").split("\n")
    assert first == "WARNING failed"
    assert trace
    assert all(line.startswith("  ") for line in trace)
    assert f"  ERROR forged {inert(HOSTILE)}" in trace


def test_whatever_a_child_prints_comes_out_inert() -> None:
    raw = io.BytesIO()
    stream = InertStream(raw, encoding="utf-8", line_buffering=True)
    print("a line", HOSTILE, file=stream)
    assert raw.getvalue().decode() == f"a line {inert(HOSTILE)}\n"


def test_every_log_that_a_process_of_ours_writes_is_formatted_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedmodel.wire.runtime import log_plainly

    before, level = logging.root.handlers[:], logging.root.level
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    try:
        log_plainly()
        logging.getLogger("anything").warning("a peer says %s", HOSTILE)
    finally:
        logging.root.handlers[:] = before
        logging.root.setLevel(level)
    assert out.getvalue().endswith(f"a peer says {inert(HOSTILE)}\n")
