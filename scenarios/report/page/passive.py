"""A page that does nothing in a browser, whoever made it and whatever it says.

A page that other versions drew cannot be compared byte for byte, and is text of whoever signed it. It is held to this
all the same: its first bytes are the policy by which a browser runs no script and fetches nothing, and after them come
elements that show text and pictures, and no others.

Guarantee: of a page that `check_passive` passes, every `<` begins a tag of one form, in which neither `<` nor an
unquoted value stands: so a browser, in whatever state its parser is, finds no tag that was not looked at here. None of
them is a script, a frame, a form, a picture or a link from elsewhere, or has an event's handler.

Does NOT say that what the page tells is what the report does: `scenarios.report.page_check` renders it again for that.
"""

from __future__ import annotations

import re
from typing import Final

POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)  # fmt: skip


def beginning(language: str = "en") -> str:
    """Return how every page begins: a policy in a `<meta>` is of what comes after it, so nothing may come before.

    Args:
        language: Two letters.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    )


BEGINNING: Final = beginning()

_ELEMENTS: Final = frozenset(
    ("a", "body", "caption", "clippath", "code", "dd", "defs", "desc", "details", "div", "dl", "dt", "em", "figcaption",
     "figure", "footer", "g", "h1", "h2", "h3", "h4", "head", "header", "html", "i", "image", "img", "li", "main",
     "meta", "nav", "ol", "p", "path", "pattern", "pre", "rect", "section", "span", "strong", "style", "summary", "svg",
     "table", "tbody", "td", "text", "th", "thead", "title", "tr", "tspan", "ul", "use")
)  # fmt: skip
_LANGUAGE: Final = re.compile(r'<!DOCTYPE html>\n<html lang="([a-z]{2})">')
_NAME: Final = r"[A-Za-z][-A-Za-z0-9_:.]*"
# HTML's own white space. What else `\s` matches, a browser takes for a part of the name, and a quote after it too.
_SPACE: Final = r"[ \t\n\f\r]"
_TAG: Final = re.compile(rf'</?({_NAME})((?:{_SPACE}+{_NAME}(?:="[^"<>]*")?)*){_SPACE}*/?>')
_ATTRIBUTE: Final = re.compile(rf'({_NAME})(?:="([^"]*)")?')
_ACTING: Final = frozenset(
    ["http-equiv", "srcdoc", "srcset", "action", "formaction", "ping", "target", "background", "data", "manifest"]
)
_DATA: Final = ("data:image/svg+xml;base64,", "data:image/png;base64,")


def check_passive(page: str) -> None:
    """Refuse a page that could do anything.

    Raises:
        ValueError: When it could; what was found is named.
    """
    language = language_of(page)
    if language is None:
        raise ValueError("does not begin with the policy that lets nothing run or be fetched")
    place = len(beginning(language))
    while (place := page.find("<", place)) >= 0:
        tag = _TAG.match(page, place)
        if tag is None:
            raise ValueError(f"has markup that is no plain tag: {page[place : place + 40]!r}")
        if tag[1].lower() not in _ELEMENTS:
            raise ValueError(f"has an element {tag[1][:40]!r}, and a page shows text and pictures alone")
        for name, value in _ATTRIBUTE.findall(tag[2]):
            _check_attribute(tag[1].lower(), name.lower(), value)
        place = tag.end()


def language_of(page: str) -> str | None:
    """Return the language that a page says it is in; None where it does not begin as a page does."""
    found = _LANGUAGE.match(page)
    return found[1] if found and page.startswith(beginning(found[1])) else None


def _check_attribute(element: str, name: str, value: str) -> None:
    """Refuse what acts, or points out of the page."""
    own = name.rpartition(":")[2]
    inside = value.startswith(_DATA if element in ("img", "image") else "#")
    if own.startswith("on") or own in _ACTING or (own in ("href", "src") and not inside):
        raise ValueError(f"has an attribute that acts or points elsewhere: {name}={value[:40]!r}")
