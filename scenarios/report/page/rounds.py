"""A run's rounds drawn for a notebook or a file: the figures of its model on the server's held-out records.

It stands in no report, whose plots (`scenarios.report.page.plots`) are of what was claimed. Curves are drawn from
figures that stand in the run's folder, and nothing is computed here.
"""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_STYLES: Final = ("o-", "s--", "^:", "v-.", "D-", "x--", "+:")
_NO_CURVE: Final = frozenset(("round", "seconds", "summed", "threshold", "failed"))
_OF_THE_LABEL: Final = ("rmse", "mae")  # in its units, which may be of any size
_BY_ITSELF: Final = ("perplexity",)  # from 1 up to the number of classes
_ACROSS: Final = 3  # panels side by side


class Rounds(Figure):
    """A figure of matplotlib's that a notebook shows wherever it is the last value of a cell."""

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        FigureCanvasAgg(self).print_figure(out, format="png", dpi=110)
        return out.getvalue()


def rounds_figure(lines: Sequence[Mapping[str, Any]], claim: str) -> Rounds:
    """Return a panel of the loss, and one of the other figures of each scale, under what the run cost.

    No figure shares an axis with one of another scale: those in units of the label are apart from those that are at
    most 1, and a figure of the user's own, of which nothing is known, is alone.

    Args:
        lines: Of `metrics.jsonl`. Rounds that failed closed are left out.
        claim: The run's cost, in a sentence.
    """
    whole = [line for line in lines if "failed" not in line]
    names = sorted({key for line in whole for key in line if _is_curve(key, line[key])} - {"loss"})
    panels = {"loss": ["loss"], **_by_scale(names)}
    across = min(_ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Rounds(figsize=(4.4 * across, 3.4 * down), layout="constrained")
    for number, (title, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(down, across, number)
        for name, style in zip(curves, itertools.cycle(_STYLES)):
            _curve(axes, whole, name, style)
        axes.set_title(title)
        if curves != [title]:
            axes.legend(fontsize="small")
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.suptitle("\n".join(textwrap.wrap(claim, 38 * across)), fontsize="small")
    return figure


def _by_scale(names: Sequence[str]) -> dict[str, list[str]]:
    """Return figures by the panel that they stand in.

    >>> _by_scale(["accuracy", "auroc", "mae", "mine:cost", "r2", "rmse"])
    {'other figures': ['accuracy', 'auroc', 'r2'], 'in units of the label': ['mae', 'rmse'], 'mine:cost': ['mine:cost']}
    """
    found: dict[str, list[str]] = {}
    for name in names:
        alone = name in _BY_ITSELF or ":" in name
        panel = name if alone else "in units of the label" if name in _OF_THE_LABEL else "other figures"
        found.setdefault(panel, []).append(name)
    return found


def _curve(axes: Any, lines: Sequence[Mapping[str, Any]], name: str, style: str) -> None:
    there = [(line["round"], line[name]) for line in lines if name in line]
    if there:
        axes.plot(*zip(*there, strict=True), style, markersize=3, label=name)


def _is_curve(key: str, value: object) -> bool:
    return key not in _NO_CURVE and isinstance(value, int | float) and not isinstance(value, bool)
