"""The report's plots, as SVG that stands inside an HTML page, and the reconstruction pictures as PNG too.

Every plot is drawn 360 units wide, a telephone's width, so that its text stays readable there; the page lays two beside
each other where there is room. Colours are the page's own (`var(--ink)` and so on), so a plot follows light, dark and
print. What a colour tells, a line style or a marker tells too. Each carries a title and a description in words, with
its figures, for whoever does not see it. The same arguments give the same bytes.

A plot shows figures and computes none of a claim: epsilon, bounds and verdicts come from elsewhere. The one exception
is the curve that mu-GDP allows, from Dong, Roth and Su 2022, "Gaussian differential privacy", definition 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from scenarios.report.page.catalogue import Catalogue, catalogue
from scenarios.report.page.drawing import (
    BAND,
    CAP,
    FAINT,
    FILL_ONE,
    FILL_TWO,
    INK,
    ONE,
    SMALL,
    TEXT,
    TWO,
    WIDTH,
    drawing,
    panel,
    png,
    svg,
)
from scenarios.report.page.odds import by_gdp
from scenarios.report.page.told import Told

MOST_PANELS = 6
_ON_WHITE = {INK: "#111111", FAINT: "#555555"}  # where no page gives colours
_FONT = "DejaVu Sans, sans-serif"
_CHANCE = 0.95  # simultaneous confidence of the band around the bound of a ROC


@dataclass(frozen=True)
class Spent:
    """What one silo had spent after each charge.

    Args:
        label: Its name.
        points: When each charge was entered, rising, aware of its time zone; the epsilon spent after it, over all that
            the budget covers, None where no bound was computed; the cap that held then.
    """

    label: str
    points: Sequence[tuple[datetime, float | None, float]]

    @property
    def share(self) -> float:
        """The share of its cap that is spent."""
        _, epsilon, cap = self.points[-1]
        return math.inf if epsilon is None else epsilon / cap


def budget_over_time(
    name: str, silos: Sequence[Spent], title: str, description: str, said: Catalogue | None = None
) -> str:
    """Draw what each silo has spent over time, a small panel a silo, against its cap.

    Args:
        name: The figure's name in the page, which all ids in it begin with.
        silos: At least one, none without a point. Of more than six, those that spent most of their cap are drawn.
        title: What the plot shows.
        description: The same in words, with figures.
        said: What its axes are called; by default in English.
    """
    say = _say(said)
    drawn = sorted(silos, key=lambda one: -one.share)[:MOST_PANELS] if len(silos) > MOST_PANELS else list(silos)
    start = min(one.points[0][0] for one in drawn)
    unit, unit_s = _unit(max((one.points[-1][0] - start).total_seconds() for one in drawn))
    top = max(value for one in drawn for point in one.points for value in (point[1] or 0.0, point[2])) * 1.3
    columns = min(2, len(drawn))
    rows = -(-len(drawn) // columns)
    with drawing(name):
        figure = Figure(figsize=(WIDTH / 72, (104 * rows + 26) / 72), layout="constrained")
        panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
        for axes, one in zip(panels, drawn, strict=False):
            at = [(when - start).total_seconds() / unit_s for when, _, _ in one.points]
            spent = [math.nan if epsilon is None else epsilon for _, epsilon, _ in one.points]
            caps = [cap for _, _, cap in one.points]
            axes.step([at[0], *at], [0.0, *spent], where="post", color=ONE)
            axes.fill_between([at[0], *at], [0.0, *spent], step="post", color=FILL_ONE, linewidth=0)
            axes.step(at, caps, where="post", color=CAP, linestyle=(0, (5, 2)), linewidth=1.3)
            cap = say("cap", cap=Told(said or catalogue()).epsilon(caps[-1]))
            end = (at[-1], caps[-1])
            axes.annotate(cap, end, (0, 2), textcoords="offset points", ha="right", color=CAP, fontsize=SMALL)
            axes.set_title(one.label if len(one.label) <= 22 else f"{one.label[:21]}…", loc="left", pad=3)
            axes.set_ylim(0, top)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        for axes in panels[len(drawn) :]:
            axes.set_axis_off()
        figure.supylabel(say("spent"), fontsize=TEXT)
        figure.supxlabel(say("since", unit=say(unit), moment=f"{start:%Y-%m-%d %H:%M} UTC"), fontsize=TEXT)
        return svg(figure, name, title, description)


def delta_curve(
    name: str,
    curve: Sequence[tuple[float, float]],
    claim: tuple[float, float],
    title: str,
    description: str,
    said: Catalogue | None = None,
) -> str:
    """Draw delta as a function of epsilon on a logarithmic axis, with the claim marked on it.

    Args:
        name: As in `budget_over_time`.
        curve: Pairs of epsilon, rising, and delta; a delta of 0 is left out.
        claim: The epsilon and delta that the report claims.
        title: What the plot shows.
        description: The same in words, with figures.
        said: What its axes are called; by default in English.
    """
    say = _say(said)
    epsilons, deltas = zip(*[(epsilon, delta) for epsilon, delta in curve if delta > 0] or [claim], strict=True)
    with drawing(name):
        figure, axes = panel(190)
        axes.plot(epsilons, deltas, color=ONE)
        axes.set_yscale("log")
        low = math.floor(math.log10(min(*deltas, claim[1])))
        high = max(math.ceil(math.log10(max(*deltas, claim[1]))), low + 1)
        powers = range(low, high + 1, -(-(high - low) // 6))
        axes.yaxis.set_major_locator(FixedLocator([10.0**power for power in powers]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(10.0**low, 10.0**high)
        axes.set_xlim(0, max(*epsilons, claim[0] * 1.5) or 1.0)  # of a run that delta alone covers, all of them are 0
        axes.axvline(claim[0], color=TWO, linestyle=(0, (2, 2)), linewidth=1.1)
        axes.axhline(claim[1], color=TWO, linestyle=(0, (2, 2)), linewidth=1.1)
        axes.plot([claim[0]], [claim[1]], marker="o", markersize=6, color=TWO, linestyle="none")
        axes.annotate(say("claim"), claim, (6, 5), textcoords="offset points", color=TWO)  # the curve falls below here
        axes.set_xlabel(say("epsilon"))
        axes.set_ylabel(say("delta"))
        return svg(figure, name, title, description)


def learning(
    name: str,
    rounds: Sequence[int],
    curves: Mapping[str, Sequence[float | None]],
    title: str,
    description: str,
    said: Catalogue | None = None,
) -> str:
    """Draw figures over the rounds, a panel a figure, one over the other.

    Args:
        name: As in `budget_over_time`.
        rounds: Numbers of rounds, rising.
        curves: By figure (such as "loss"), a value a round, None where it is not known.
        title: What the plot shows.
        description: The same in words, with figures.
        said: What its axes are called; by default in English.
    """
    say = _say(said)
    with drawing(name):
        figure = Figure(figsize=(WIDTH / 72, (88 * len(curves) + 22) / 72), layout="constrained")
        panels = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
        styles = [(ONE, "-"), (TWO, (0, (5, 1.5)))]
        for place, (axes, (label, values)) in enumerate(zip(panels, curves.items(), strict=True)):
            colour, style = styles[place % 2]
            heights = [math.nan if value is None else value for value in values]
            axes.plot(
                rounds, heights, color=colour, linestyle=style, marker="o" if len(rounds) < 4 else "", markersize=4
            )
            axes.set_ylabel(label)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panels[-1].set_xlabel(say("round"))
        figure.align_ylabels(list(panels))
        return svg(figure, name, title, description)


def bounds(
    name: str,
    bars: Sequence[tuple[str, float]],
    claim: float,
    title: str,
    description: str,
    said: Catalogue | None = None,
) -> str:
    """Draw what estimators leave open: a bar each from its lower bound to the claim, past the claim where it is over.

    Args:
        name: As in `budget_over_time`.
        bars: Labels and lower bounds on epsilon; at least one.
        claim: The epsilon that is claimed.
        title: What the plot shows.
        description: The same in words, with figures.
        said: What its axes are called; by default in English.
    """
    say = _say(said)
    with drawing(name):
        figure, axes = panel(40 + 27 * len(bars))
        for place, (_, low) in enumerate(bars):
            against = low > claim
            axes.barh(place, low - claim, left=claim, height=0.4, facecolor="none" if against else FILL_ONE,
                      edgecolor=CAP if against else ONE, hatch="////" if against else None, linewidth=1)  # fmt: skip
            axes.plot([low], [place], marker="d" if against else ">", markersize=6, color=CAP if against else ONE)
        axes.axvline(claim, color=TWO, linestyle=(0, (5, 1.5)), linewidth=1.4)
        axes.annotate(say("claim"), (claim, -0.62), (4, 0), textcoords="offset points", color=TWO, va="center")
        axes.set_yticks(range(len(bars)), [label for label, _ in bars])
        axes.set_ylim(len(bars) - 0.5, -0.95)
        axes.set_xlim(0, max(claim, *(low for _, low in bars)) * 1.25 or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(say("epsilon"))
        return svg(figure, name, title, description)


def score_histograms(
    name: str,
    included: Sequence[float],
    excluded: Sequence[float],
    title: str,
    description: str,
    said: Catalogue | None = None,
) -> str:
    """Draw how the attack scored canaries that were in the training data, and canaries that were not.

    Args:
        name: As in `budget_over_time`.
        included: Scores of canaries that were in.
        excluded: Scores of canaries that were not.
        title: What the plot shows.
        description: The same in words, with figures.
        said: What its axes are called; by default in English.
    """
    both = np.asarray([*included, *excluded], dtype=np.float64)
    edges = np.histogram_bin_edges(both, bins=min(30, max(5, math.isqrt(len(both))))).tolist()
    say = _say(said)
    with drawing(name):
        figure, axes = panel(225)
        axes.hist(excluded, edges, histtype="stepfilled", color=FILL_TWO, edgecolor=TWO, linestyle=(0, (3, 1.5)),
                  linewidth=1.3, label=say("left_out", n=len(excluded)))  # fmt: skip
        axes.hist(
            included, edges, histtype="step", edgecolor=ONE, linewidth=1.6, label=say("included", n=len(included))
        )
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_ylim(0, axes.get_ylim()[1] * 1.28)
        axes.legend(loc="upper center", ncols=2, frameon=False, fontsize=TEXT, handlelength=1.6, borderaxespad=0.1)
        axes.set_xlabel(say("score"))
        axes.set_ylabel(say("canaries"))
        return svg(figure, name, title, description)


def roc(
    name: str,
    included: Sequence[float],
    excluded: Sequence[float],
    mu: float | None,
    band: bool,
    title: str,
    description: str,
    said: Catalogue | None = None,
) -> str:
    """Draw the attack's ROC, and the curve of mu-GDP that no attack may pass but by chance.

    The band over the curve is what chance may add, at 95% for the whole of it: the inequality of Dvoretzky, Kiefer and
    Wolfowitz with Massart's constant, once for each axis.

    Args:
        name: As in `budget_over_time`.
        included: Scores of canaries that were in; one at least.
        excluded: Scores of canaries that were not; one at least.
        mu: Of the claim, above 0; None draws no bound.
        band: Whether to draw what chance may add: right where canaries are independent.
        title: What the plot shows.
        description: The same in words, with figures.
        said: What its axes are called; by default in English.
    """
    false, true = roc_points(included, excluded)
    say = _say(said)
    with drawing(name):
        figure, axes = panel(300)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=(0, (1, 2)), label=say("blind"))
        if mu is not None:
            grid = np.concatenate([[0.0], np.geomspace(1e-4, 0.05, 40), np.linspace(0.06, 1.0, 80)])
            bound = gdp_allows(grid, mu)
            if band:
                least = math.log(2 / (1 - _CHANCE)) / 2  # each of the two bounds fails with (1 - _CHANCE) / 2 at most
                wrongly = np.minimum(grid + math.sqrt(least / len(excluded)), 1.0)
                by_chance = np.minimum(gdp_allows(wrongly, mu) + math.sqrt(least / len(included)), 1.0)
                axes.fill_between(grid, bound, by_chance, color=BAND, linewidth=0, label=say("chance"))
            axes.plot(grid, bound, color=TWO, linestyle=(0, (5, 1.5)), label=say("most"))
        axes.plot(false, true, color=ONE, drawstyle="steps-post", label=say("attack"))
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_aspect("equal")
        axes.set_xlabel(say("wrongly"))
        axes.set_ylabel(say("found"))
        axes.legend(loc="lower right", fontsize=SMALL, frameon=False, handlelength=2.2, borderaxespad=0.2)
        return svg(figure, name, title, description)


def roc_points(included: Sequence[float], excluded: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return false-alarm rates and detection rates over all thresholds, from (0, 0) to (1, 1); ties go together.

    >>> [values.tolist() for values in roc_points([2.0, 1.0], [1.0, 0.0])]
    [[0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0]]
    """
    inside, outside = np.sort(np.asarray(included, np.float64)), np.sort(np.asarray(excluded, np.float64))
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    true = 1 - np.searchsorted(inside, thresholds) / len(inside)
    false = 1 - np.searchsorted(outside, thresholds) / len(outside)
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def gdp_allows(false: NDArray[np.float64], mu: float) -> NDArray[np.float64]:
    """Return the highest detection rate at each false-alarm rate that mu-GDP allows.

    >>> gdp_allows(np.array([0.0, 0.5, 1.0]), 1.0).round(4).tolist()
    [0.0, 0.8413, 1.0]
    """
    return np.array([by_gdp(rate, mu) for rate in false.tolist()])


def pictures_row(name: str, images: Sequence[tuple[str, NDArray[Any]]], title: str, description: str) -> str:
    """Draw grey pictures in a row, each with its caption and its correlation with the first.

    It is an image by itself, with colours for white and a font, since it does not stand in the page but in a frame.

    Args:
        name: As in `budget_over_time`.
        images: Captions and pictures of two dimensions; the first is what the others try to reconstruct. Each is
            stretched to its own darkest and lightest value.
        title: What the pictures show.
        description: The same in words, with figures.
    """
    with drawing(name, _ON_WHITE):
        return svg(_pictures(images), name, title, description, font=_FONT)


def pictures_png(images: Sequence[tuple[str, NDArray[Any]]]) -> bytes:
    """Return the same row as a PNG on white.

    Args:
        images: As `pictures_row` takes them.
    """
    with drawing("pictures", _ON_WHITE):
        return png(_pictures(images))


def correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return Pearson's correlation of two pictures' pixels; 0 where one of them is flat.

    >>> correlation(np.array([[0, 1], [2, 3]]), np.array([[0, 2], [4, 6]]))
    1.0
    """
    first, second = (np.asarray(each, np.float64).ravel() for each in (one, other))
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return round(float(first @ second) / scale, 12) if scale else 0.0


def _pictures(images: Sequence[tuple[str, NDArray[Any]]]) -> Figure:
    """Return the figure of `pictures_row`, at most four pictures a row."""
    columns = min(len(images), 4)
    rows = -(-len(images) // columns)
    said = [_wrapped(caption) for caption, _ in images]
    said[1:] = [f"{one}\ncorrelation {_signed(correlation(images[0][1], image))}"
                for one, (_, image) in zip(said[1:], images[1:], strict=True)]  # fmt: skip
    lines = max(one.count("\n") for one in said) + 1
    figure = Figure(figsize=(WIDTH / 72, rows * (360 / columns + 10 * lines + 4) / 72), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    for axes, caption, (_, image) in zip(panels, said, images, strict=False):
        axes.imshow(np.asarray(image, np.float64), cmap="gray", interpolation="nearest")
        axes.set_title(caption, fontsize=8, pad=4)
    return figure


def _wrapped(caption: str, width: int = 15) -> str:
    """Break a caption between words."""
    lines = [""]
    for word in caption.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _signed(value: float) -> str:
    """Write a correlation with two digits and a proper minus, never as a negative zero."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _power(value: float) -> str:
    """Write a power of ten as one."""
    return "10" + str(round(math.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _say(said: Catalogue | None) -> Callable[..., str]:
    """Return what says the words of plots, by their keys in the catalogue's `plot`."""
    found = catalogue() if said is None else said
    return lambda key, **values: found.plain(f"plot.{key}", **values)


def _unit(span_s: float) -> tuple[str, float]:
    """Return the unit that a span of time is best told in."""
    for unit, seconds in (("seconds", 1.0), ("minutes", 60.0), ("hours", 3600.0)):
        if span_s < 150 * seconds:
            return unit, seconds
    return "days", 86400.0
