"""How the report's plots are drawn: one style for all, colours that are the page's, and SVG fit to stand inside HTML.

Matplotlib's object interface alone, no pyplot: nothing is registered anywhere, and settings are put back. The same
figure gives the same bytes: ids come from its name, and neither date nor version is written.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH = 360  # user units, which are points: a viewBox on a telephone shows them about one to one
SMALL, TEXT = 8.5, 9.0

# Drawn in these, and then replaced by the page's own.
INK, FAINT, GRID, ONE, TWO, CAP, FILL_ONE, FILL_TWO, BAND = (f"#0102{n:02x}" for n in range(3, 12))
_COLOURS = {
    INK: "var(--ink)",
    FAINT: "var(--muted)",
    GRID: "var(--grid)",
    ONE: "var(--line1)",
    TWO: "var(--line2)",
    CAP: "var(--cap)",
    FILL_ONE: "var(--fill1)",
    FILL_TWO: "var(--fill2)",
    BAND: "var(--band)",
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be selected, searched and read aloud
    "svg.image_inline": True,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so widths are the same everywhere
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "axes.unicode_minus": True,
    "figure.dpi": 72,
    "savefig.dpi": 72,
}


def panel(height: int) -> tuple[Figure, Axes]:
    """Return a figure of one panel, its height in points."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
    return figure, figure.subplots()


@contextmanager
def drawing(name: str, colours: Mapping[str, str] | None = None) -> Iterator[None]:
    """Draw in this module's style, whatever the user's matplotlib is set to, and leave that as it was.

    Args:
        name: The figure's name in the page, which all ids in it begin with.
        colours: Other colours for `INK` and `FAINT`, where the figure is not for a page.

    Raises:
        ValueError: When the name cannot begin an id.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(f"a figure's name begins its ids: small letters, digits and hyphens, found {name!r}")
    with mpl.rc_context():
        mpl.rcdefaults()
        # Its stubs know the keys as literals alone.
        settings: Any = {
            key: (colours or {}).get(value, value) if isinstance(value, str) else value for key, value in _STYLE.items()
        }
        settings["svg.hashsalt"] = name
        mpl.rcParams.update(settings)
        yield


def svg(figure: Figure, name: str, title: str, description: str, font: str | None = None) -> str:
    """Return a figure as an SVG element for an HTML page.

    Args:
        figure: Drawn inside `drawing`, and still inside it.
        name: The same name.
        title: What it shows.
        description: The same in words, with figures, for whoever does not see it.
        font: Its own, where no page gives it one.
    """
    out = io.BytesIO()
    # `print_figure` would draw all of it once before, for its layout alone.
    FigureCanvasSVG(figure).print_svg(out)  # type: ignore[no-untyped-call]
    root = ET.fromstring(out.getvalue())  # noqa: S314 - written by matplotlib a line ago
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", out.getvalue().decode()))
    for parent in root.iter():
        parent.tag = parent.tag.partition("}")[2]
        for child in list(parent):
            # Metadata hold the date; a style sheet would reach the whole page.
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
        _clean(parent, name, used)
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": root.attrib["viewBox"],
        "class": "plot",
        "id": name,
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
        **({} if font is None else {"font-family": font}),
    }
    told = [ET.Element("title", {"id": f"{name}-title"}), ET.Element("desc", {"id": f"{name}-desc"})]
    told[0].text, told[1].text = title, description
    root[:0] = told
    text = ET.tostring(root, encoding="unicode")
    for drawn, shown in _COLOURS.items():
        text = text.replace(drawn, shown)
    return re.sub(r"\s*\n\s*", "\n", text)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG on white, at three times its size in points."""
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(out, format="png", dpi=216, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def _clean(element: ET.Element, name: str, used: set[str]) -> None:
    """Keep only ids that something refers to, put the figure's name before them, and let the page choose the font."""
    kept = {}
    for key, value in element.attrib.items():
        key = key.rpartition("}")[2]
        if key == "id":
            if value not in used:
                continue
            value = f"{name}-{value}"
        elif key == "href":
            value = f"#{name}-{value[1:]}" if value.startswith("#") else "".join(value.split())
        value = re.sub(r"url\(#", f"url(#{name}-", value)
        if key == "style":
            value = re.sub(r"font: ([0-9.]+px) [^;]+", r"font-size: \1", value)
        kept[key] = value
    element.attrib = kept
