"""How a model answers, drawn: what it rests on, how it bends, and where in an image it looks.

The same figures stand in the report's page, as SVG in the page's colours, and beside an explanation, as PNG on white.
Everything drawn is a figure of the explanation. What a colour tells, a hatch or a line style tells too; each plot has a
title, and a description in words with its figures.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedmodel.system.inert import inert
from scenarios.report.page.catalogue import Catalogue, catalogue
from scenarios.report.page.drawing import (
    CAP,
    FAINT,
    FILL_ONE,
    FILL_TWO,
    GRID,
    INK,
    ONE,
    SMALL,
    TEXT,
    TWO,
    WIDTH,
    drawing,
    png,
    svg,
)
from scenarios.runs import words
from scenarios.runs.explanation import Dependence, Explained, Explanation

MOST_BARS: Final = 12
MOST_CURVES: Final = 6
_MOST_ANSWERS: Final = 4
_MOST_SCORES: Final = 4
_ON_WHITE: Final = {
    INK: "#111111", FAINT: "#555555", GRID: "#dddddd", ONE: "#1f5fa8", TWO: "#b3541e", CAP: "#7a1f5c",
    FILL_ONE: "#9cc2ea", FILL_TWO: "#f0c4a6",
}  # fmt: skip
_LINES: Final[tuple[tuple[str, Any], ...]] = ((ONE, "-"), (TWO, (0, (5, 1.5))), (CAP, (0, (1, 1.5))), (FAINT, "-."))

Inks = Mapping[str, str]
"""By a colour of the page, the one that is drawn in its place; those of the page itself where there is none."""


@dataclass(frozen=True)
class Drawn:
    """A plot, not yet drawn.

    Attributes:
        name: Its own, which all ids in it begin with.
        title: What it shows.
        description: The same in words, with figures.
        caption: How to read it.
    """

    name: str
    title: str
    description: str
    caption: str
    _what: Explained | tuple[Dependence, ...]
    _said: Catalogue

    def as_svg(self) -> str:
        """Return it for the page."""
        with drawing(self.name):
            return svg(self._figure({}), self.name, self.title, self.description)

    def as_png(self) -> bytes:
        """Return it on white, with its title."""
        with drawing(self.name, _ON_WHITE):
            figure = self._figure(_ON_WHITE)
            figure.suptitle(textwrap.fill(self.title, 60), fontsize=TEXT)
            return png(figure)

    def _figure(self, inks: Inks) -> Figure:
        mpl.rcParams["text.parse_math"] = False  # within `drawing`, which puts it back; names may hold a dollar
        if not isinstance(self._what, Explained):
            return _curves(self._what, self._said, inks)
        return _maps(self._what, self._said) if self._what.towards else _bars(self._what, self._said, inks)


def drawn(explanation: Explanation, said: Catalogue | None = None) -> Iterator[Drawn]:
    """Yield the plots of an explanation; of many scores the first.

    Args:
        explanation: What was found.
        said: Its sentences; by default in English.
    """
    said = catalogue() if said is None else said
    for place, one in enumerate(explanation.explained[:_MOST_SCORES], start=1):
        name, score = f"plot-effects-{place}", _score(one, said)
        kind = "map" if one.towards else "bars"
        title = said.plain("explained.bars", score=score)
        caption = said.plain(f"explained.{kind}_read", score=score)
        yield Drawn(name, title, _in_words(one, said), caption, one, said)
    if explanation.dependence:
        shown = explanation.dependence[:MOST_CURVES]
        title = said.plain("explained.curves", answers=said.few([inert(name) for name in _answers(shown)]))
        told = " ".join(_curve_in_words(one, said) for one in shown)
        yield Drawn("plot-dependence", title, told, said.plain("explained.curves_read"), shown, said)


def _score(one: Explained, said: Catalogue) -> str:
    """Return what a score is called: what more of it speaks for."""
    keys = {"margin": "explained.predicted", "hazard": "explained.event"}
    return said.plain(keys[one.scale]) if one.scale in keys else inert(one.name)


def _answers(shown: Sequence[Dependence]) -> list[str]:
    """Return which answers are drawn: of many, those that move most over the columns that are drawn."""
    span = {name: max(max(one.answers[name]) - min(one.answers[name]) for one in shown) for name in shown[0].answers}
    most = sorted(span, key=lambda name: -span[name])[:_MOST_ANSWERS]
    return [name for name in span if name in most]


def _bars(one: Explained, said: Catalogue, inks: Inks) -> Figure:
    """Draw a bar for each column, of what it adds and of what it takes away."""
    shown = one.effects[:MOST_BARS]
    figure = Figure(figsize=(WIDTH / 72, (17 * len(shown) + 62) / 72), layout="constrained")
    axes = figure.subplots()
    at = np.arange(len(shown))
    toward = np.array([effect.toward for effect in shown])
    away = np.array([effect.away for effect in shown])
    for key, left, width, fill, edge, hatch in (
        ("toward", None, toward, FILL_ONE, ONE, None), ("away", toward, away, FILL_TWO, TWO, "////"),
    ):  # fmt: skip
        axes.barh(at, width, left=left, height=0.62, facecolor=inks.get(fill, fill), edgecolor=inks.get(edge, edge),
                  linewidth=1, hatch=hatch, label=said.plain(f"explained.{key}"))  # fmt: skip
    axes.set_yticks(at, [_cut(effect.name, 24) for effect in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(said.plain(f"explained.scale_{one.scale}"))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL, handlelength=1.4)
    return figure


def _maps(one: Explained, said: Catalogue) -> Figure:
    """Draw where in an image something speaks for the score, and where against it."""
    both = (("explained.toward", one.towards), ("explained.away", one.aways))
    top = max(max(map(max, rows)) for _, rows in both) or 1.0
    height, width = len(one.towards), len(one.towards[0])
    figure = Figure(figsize=(WIDTH / 72, (170 * height / width + 40) / 72), layout="constrained")
    for axes, (key, rows) in zip(figure.subplots(1, 2), both, strict=True):
        # As cells and not as an image, which would be one picture of another's pixels.
        axes.pcolormesh(np.asarray(rows), cmap="cividis", vmin=0, vmax=top, edgecolors="none")
        axes.set_aspect("equal")
        axes.invert_yaxis()
        axes.set_axis_off()
        axes.set_title(said.plain(key), fontsize=SMALL)
    figure.supxlabel(said.plain("explained.map_scale", top=words.number(top)), fontsize=SMALL)
    return figure


def _curves(shown: Sequence[Dependence], said: Catalogue, inks: Inks) -> Figure:
    """Draw the mean answer over each column, a small panel a column."""
    names = _answers(shown)
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(WIDTH / 72, (100 * rows + 22) / 72), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes, one in zip(panels, shown, strict=False):
        for name, (colour, style) in zip(names, _LINES, strict=False):
            _curve(axes, one, name, inks.get(colour, colour), style)
        axes.set_title(_cut(one.name, 26), loc="left", pad=3)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.supylabel(said.plain("explained.mean_answer"), fontsize=TEXT)
    if len(names) > 1:
        handles = panels[0].get_lines()[: len(names)]
        told = [f"{place}: {_cut(name, 18)}" for place, name in enumerate(names, start=1)]
        figure.legend(
            handles, told, loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL, handlelength=2.2
        )
    return figure


def _curve(axes: Axes, one: Dependence, name: str, colour: str, style: Any) -> None:
    """Draw one answer over one column: a line over numbers, a mark at each choice."""
    heights = one.answers[name]
    if one.at:
        axes.plot(one.at, heights, color=colour, linestyle=style)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        return
    at = range(len(one.choices))
    axes.plot(at, heights, color=colour, linestyle=style, linewidth=0.8, marker="o", markersize=4)
    if len(one.choices) <= 6:
        axes.set_xticks(at, [_cut(choice, 30 // len(one.choices)) for choice in one.choices])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _in_words(one: Explained, said: Catalogue) -> str:
    """Say what a score rests on."""
    if one.towards:
        both = ((key, np.asarray(rows)) for key, rows in (("map_toward", one.towards), ("map_away", one.aways)))
        found = []
        for key, value_HW in both:
            row, column = np.unravel_index(value_HW.argmax(), value_HW.shape)
            most, total = words.number(float(value_HW.max())), words.number(float(value_HW.sum()))
            found.append(said.plain(f"explained.{key}", row=row + 1, column=column + 1, most=most, total=total))
        return " ".join(found)
    return " ".join(
        said.plain(
            "explained.bar_said", name=inert(effect.name), size=words.number(effect.size),
            toward=words.number(effect.toward), away=words.number(effect.away),
        )
        for effect in one.effects[:MOST_BARS]
    )  # fmt: skip


def _curve_in_words(one: Dependence, said: Catalogue) -> str:
    """Say how an answer depends on a column, at its ends or choices."""
    name = _answers([one])[0]
    found = one.answers[name]
    told = {
        "column": inert(one.name), "answer": inert(name),
        "low": words.number(min(found)), "high": words.number(max(found)),
    }  # fmt: skip
    if one.at:
        ends = {"first": words.number(found[0]), "last": words.number(found[-1])}
        return said.plain(
            "explained.curve_said", **told, **ends, begin=f"{one.at[0]:.6g}", end=f"{one.at[-1]:.6g}"
        )  # fmt: skip
    most = inert(one.choices[found.index(max(found))])
    return said.plain("explained.choice_said", **told, most=most)


def _cut(text: str, most: int) -> str:
    """Return a text that fits, inert."""
    told = inert(text)
    return told if len(told) <= most else f"{told[: max(1, most - 1)]}…"
