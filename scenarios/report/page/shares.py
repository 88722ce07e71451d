"""What each silo would get, as a picture: a bar for each silo, as long as it has records, in the colours of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import matplotlib as mpl
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from scenarios.report.page.drawing import FAINT, GRID, INK, drawing, png

if TYPE_CHECKING:
    from scenarios.simulation.shares import Shares

_PAPER: Final = {INK: "#111111", FAINT: "#555555", GRID: "#dddddd"}
_WIDTH, _BAR, _LEAST, _MOST = 540, 15, 90, 620  # points
_NAMED: Final = 40
"""Silos up to which each bar has its name."""
_TOLD: Final = 20
"""Labels up to which each colour has its name."""
_LETTERS, _PATCH = 110, 8  # side by side under the bars, and as wide as a colour beside its name


def shares_png(found: Shares, title: str) -> bytes:
    """Draw it as a PNG on white.

    Args:
        found: The silos' records by label.
        title: What it is of.
    """
    silos, labels = found.count_SL.shape
    height = min(_MOST, max(_LEAST, _BAR * silos)) + 60 + 14 * -(-min(labels, _TOLD) // _columns(_names(found)))
    with drawing("shares", _PAPER):
        figure = Figure(figsize=(_WIDTH / 72, height / 72), layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        colours = _colours(labels)
        thick = 0.8 if silos <= _NAMED else 1.0
        end_SL = np.cumsum(found.count_SL, axis=1)
        low_S = np.arange(silos) - thick / 2
        for label, colour in enumerate(colours):
            begin_S, end_S = end_SL[:, label] - found.count_SL[:, label], end_SL[:, label]
            corners = ((begin_S, low_S), (end_S, low_S), (end_S, low_S + thick), (begin_S, low_S + thick))
            bars = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
            axes.add_collection(PolyCollection(list(bars), facecolors=[colour], edgecolors="none"))
        axes.set_xlim(0, 1.02 * max(1, end_SL.max()))
        axes.set_ylim(silos - 0.4, -0.6)  # the first silo on top
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("records")
        if silos <= _NAMED:
            axes.set_yticks(range(silos), found.silos)
        else:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylabel("silo, in the scenario's order")
        axes.set_title(title, parse_math=False)
        _key(figure, found, colours)
        return png(figure)


def _key(figure: Figure, found: Shares, colours: list[str]) -> None:
    """Say which colour is of which label, below the bars; of many, how many there are."""
    if len(found.labels) > _TOLD:
        figure.supxlabel(f"{len(found.labels)} labels, from {found.labels[0]} to {found.labels[-1]}", fontsize=8.5)
        return
    if len(found.labels) == 1:
        return
    patches = [Patch(color=colour) for colour in colours]
    names = _names(found)
    legend = figure.legend(patches, names, loc="outside lower center", ncols=_columns(names), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _names(found: Shares) -> list[str]:
    """Return names of labels: a number before each word, since matplotlib leaves out what begins with an underscore."""
    return [name if name.isdecimal() else f"{number}: {name}"[:40] for number, name in enumerate(found.labels)]


def _columns(names: list[str]) -> int:
    """Return how many names stand side by side: five, or as many as there is room for."""
    return max(1, min(5, len(names), _LETTERS // (max(map(len, names)) + _PATCH)))


def _colours(labels: int) -> list[str]:
    """Return a colour for each label: distinct ones of few, a scale of many."""
    if labels <= _TOLD:
        found = mpl.colormaps["tab10" if labels <= 10 else "tab20"](range(labels))
    else:
        found = mpl.colormaps["viridis"](np.linspace(0, 1, labels))
    return [to_hex(colour) for colour in found]
