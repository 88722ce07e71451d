"""A run's rounds drawn for a notebook or a file: the figures of its model on the server's held-out records.

It stands in no report, whose plots (`scenarios.report.page.plots`) are of what was claimed. Curves are drawn from
figures that stand in the run's folder, and nothing is computed here.
"""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_STYLES: Final = ("o-", "s--", "^:", "v-.", "D-", "x--", "+:")
_NO_CURVE: Final = frozenset(("round", "seconds", "summed", "threshold", "failed"))


class Rounds(Figure):
    """A figure of matplotlib's that a notebook shows wherever it is the last value of a cell."""

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        FigureCanvasAgg(self).print_figure(out, format="png", dpi=110)
        return out.getvalue()


def rounds_figure(lines: Sequence[Mapping[str, Any]], claim: str) -> Rounds:
    """Return a panel of the loss, and one of the other figures where there are any, under what the run cost.

    Args:
        lines: Of `metrics.jsonl`. Rounds that failed closed are left out.
        claim: The run's cost, in a sentence.
    """
    whole = [line for line in lines if "failed" not in line]
    names = sorted({key for line in whole for key in line if _is_curve(key, line[key])} - {"loss"})
    panels = 1 + bool(names)
    figure = Rounds(figsize=(4.4 * panels, 3.4), layout="constrained")
    loss, *others = figure.subplots(1, panels, squeeze=False).flat
    _curve(loss, whole, "loss", "o-")
    loss.set_title("loss")
    for axes in others:
        for name, style in zip(names, itertools.cycle(_STYLES)):
            _curve(axes, whole, name, style)
        axes.set_title("other figures")
        axes.legend(fontsize="small")
    for axes in (loss, *others):
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.suptitle("\n".join(textwrap.wrap(claim, 38 * panels)), fontsize="small")
    return figure


def _curve(axes: Any, lines: Sequence[Mapping[str, Any]], name: str, style: str) -> None:
    there = [(line["round"], line[name]) for line in lines if name in line]
    if there:
        axes.plot(*zip(*there, strict=True), style, markersize=3, label=name)


def _is_curve(key: str, value: object) -> bool:
    return key not in _NO_CURVE and isinstance(value, int | float) and not isinstance(value, bool)
