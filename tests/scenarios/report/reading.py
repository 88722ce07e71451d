"""Reads a page for tests of what it says: its pieces of text, each with the elements that it stands in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser

_VOID = {"meta", "link", "br", "img", "input", "hr"}
_BLOCKS = {"p", "li", "dd", "dt", "h1", "h2", "h3", "h4", "caption", "th", "td", "figcaption", "summary"}


@dataclass(frozen=True)
class Piece:
    """A piece of text.

    Attributes:
        text: As it stands.
        within: Elements around it, outermost first, as "tag.class.class#id".
        block: Number of the paragraph, the cell or the like that it stands in.
    """

    text: str
    within: tuple[str, ...]
    block: int

    def stands_in(self, *marks: str) -> bool:
        return any(mark in element for element in self.within for mark in marks)


class Pieces(HTMLParser):
    """All pieces of a page's text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[Piece] = []
        self.attributes: list[tuple[str, str]] = []
        self._open: list[str] = []
        self._block = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {key: value or "" for key, value in attrs}
        self.attributes += told.items()
        if tag in _BLOCKS:
            self._block += 1
        if tag not in _VOID:
            classes = "".join(f".{one}" for one in told.get("class", "").split())
            self._open.append(f"{tag}{classes}#{told.get('id', '')}")

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._block += 1
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.found.append(Piece(data, tuple(self._open), self._block))


def blocks(html: str, part: str, without: tuple[str, ...] = ()) -> Iterator[str]:
    """Go through the paragraphs, cells and the like of a part of a page, as text.

    Args:
        html: The page.
        part: A mark of the part, "#front" for instance.
        without: Marks of what is left out.
    """
    found: dict[int, str] = {}
    for piece in Pieces(html).found:
        if piece.stands_in(part) and not (without and piece.stands_in(*without)):
            found[piece.block] = found.get(piece.block, "") + piece.text
    yield from (" ".join(text.split()) for text in found.values())
