"""A report's page, read as a browser's parser reads it: is anything on it that only a picture could have brought?

The check `page_markup` of the suite of planted faults. The picture is well-formed XML and hostile HTML: behind a
processing instruction, which HTML knows only as a comment that ends at the first `>`, it leaves its frame and covers
the page. A page on which that picture is data shows nothing of it but an image.

Does NOT try every way to write such a picture: `tests/scenarios/report/test_page.py` has the kinds.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from scenarios.report import build
from scenarios.report.page.render import render

_MARK: Final = "brought-by-a-picture"
_HOSTILE: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><?x ></svg></figure>'
    f'<div id="{_MARK}"><p>Epsilon, at most 0.01</p></div><?y ?><g/></svg>'
)


def brought_by_a_picture(run_dir: Path) -> int:
    """Build a run's report with a hostile picture, and return how many elements of its page the picture brought."""
    page = build.build(run_dir, render, pictures={"A picture": _HOSTILE})
    reader = _Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    reader.close()
    return reader.found


class _Reader(HTMLParser):
    """Counts elements that bear the picture's mark."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count an element."""
        del tag
        self.found += ("id", _MARK) in attrs
