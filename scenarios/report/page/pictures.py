"""A picture that comes from outside the report, as data in an `<img>`: none of it is markup of the page.

Inside an `<img>` a browser runs no script of an SVG, fetches nothing for it, and shows it in its frame alone. What is
put there besides is not the text that came, but the tree that was parsed from it, written again: elements and
attributes that `plots.pictures_row` draws with, and their text.

Guarantee: of any text, `framed` returns one `<img>` whose attributes hold escaped text and base64, or raises. Comments,
processing instructions and CDATA sections, which HTML reads otherwise than XML does, are not in the tree that is
written; a declaration, an element of another namespace or with another name, and an attribute that is not known are
refused. The same text gives the same bytes.

Does NOT say that a picture tells the truth: what stands in one is the word of whoever signed the report.
"""

from __future__ import annotations

import base64
import re
from typing import Final
from xml.etree import ElementTree as ET

from markupsafe import Markup

from fedmodel.system.inert import inert_lines

_SVG: Final = "http://www.w3.org/2000/svg"
_MOST_BYTES: Final = 8 * 2**20
_ELEMENTS: Final = frozenset(
    ("svg", "title", "desc", "g", "defs", "clipPath", "rect", "path", "text", "tspan", "image", "use")
)
_ATTRIBUTES: Final = frozenset(
    ("id", "class", "role", "viewBox", "aria-labelledby", "clip-path", "d", "style", "href", "transform", "x", "y",
     "width", "height", "font-family")
)  # fmt: skip
_STYLED: Final = frozenset(["fill", "font-family", "font-size", "text-anchor", ""])


def framed(svg: str) -> Markup:
    """Return a picture as an element of the page.

    Args:
        svg: As `plots.pictures_row` returns it.

    Raises:
        ValueError: When it is no such SVG.
    """
    root = _tree(svg)
    told = [element.text or "" for element in root if element.tag in ("title", "desc")]
    data = base64.b64encode(inert_lines(ET.tostring(root, encoding="unicode")).encode()).decode()
    image = Markup('<img class="plot" alt="{}" src="data:image/svg+xml;base64,{}">')
    return image.format(" ".join(told), data)


def _tree(svg: str) -> ET.Element:
    """Return what is drawn, without namespaces but the one that the root names."""
    if len(svg) > _MOST_BYTES:
        raise ValueError(f"a picture is at most {_MOST_BYTES} bytes, and this one has {len(svg)}")
    if "<!" in svg:  # before it is parsed: entities are expanded by the parser
        raise ValueError("a picture is an SVG of plots.pictures_row, and this one has a declaration or a comment in it")
    try:
        root = ET.fromstring(svg)  # noqa: S314 - nothing is declared in it
    except (ET.ParseError, ValueError) as error:
        raise ValueError(f"a picture is an SVG of plots.pictures_row, and this is no XML: {error}") from None
    if root.tag != f"{{{_SVG}}}svg":
        raise ValueError(f"a picture is an SVG of plots.pictures_row, and this begins with {root.tag!r}")
    for element in root.iter():
        element.tag = _name(str(element.tag))
        for key, value in element.attrib.items():
            _check_attribute(key, value)
    root.set("xmlns", _SVG)
    return root


def _name(tag: str) -> str:
    """Return an element's own name, where it is one that pictures are drawn with."""
    namespace, _, name = tag.removeprefix("{").rpartition("}")
    if namespace != _SVG or name not in _ELEMENTS:
        raise ValueError(f"a picture is an SVG of plots.pictures_row, and this one has an element {tag!r} in it")
    return name


def _check_attribute(key: str, value: str) -> None:
    """Refuse an attribute that pictures are not drawn with, or that points out of its picture."""
    elsewhere = key == "href" and not value.startswith(("#", "data:image/png;base64,"))
    if key.lower().startswith("on") or elsewhere or re.search(r"url\((?!#)", value):
        raise ValueError(f"a picture holds all that it shows, and runs nothing; found {key}={value[:60]!r}")
    styled = {one.partition(":")[0].strip() for one in value.split(";")} if key == "style" else set()
    if key not in _ATTRIBUTES or not styled <= _STYLED or (key == "class" and value != "plot"):
        raise ValueError(f"a picture has what plots.pictures_row does not draw with: {key}={value[:60]!r}")
