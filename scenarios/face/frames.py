"""A run's figures as pandas has them. pandas comes with the extra `notebook`.

What is shown of such a frame rounds figures of privacy outwards, as all of this project does
(`fedmodel.privacy.rounding`); the values in it are not rounded. A column that is taken out of it is pandas' own, and
shows itself as pandas does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from fedmodel.errors import ConfigError
from fedmodel.privacy.events import EPSILON_IF_HIDDEN
from fedmodel.privacy.rounding import noise, small, up
from scenarios.face.figures import figures_of, largest

try:
    import pandas as pd
except ImportError as error:
    raise ConfigError(
        "a frame of figures needs pandas, which is not installed; install it by: pip install 'fedmodel[notebook]'"
    ) from error

_UP: Final = (
    "epsilon",
    "epsilon_of_steps_taken",
    "odometer",
    "target_epsilon",
    "budget",
    "mu",
    "advantage",
    EPSILON_IF_HIDDEN,
)


def _shown(rounded: Callable[[float], str]) -> Callable[[float | None], str]:
    """Return how a figure is shown: rounded, or as nothing where there is none."""
    return lambda figure: "" if figure is None or math.isnan(figure) else rounded(figure)


_SHOWN: Final = {
    **{name: _shown(up) for name in _UP},
    "delta": _shown(small),
    "noise_multiplier": _shown(noise),
}
_FIRST: Final = ("silo", "unit", "epsilon", "delta", "noise_multiplier", "steps", "steps_reserved")
_BOUNDS: Final = ("epsilon", "epsilon_of_steps_taken")
_NOT_OF_A_ROW: Final = frozenset(("parts", "mu_floor"))


class Figures(pd.DataFrame):  # type: ignore[misc] # pandas ships no types
    """A frame that is shown with its figures of privacy rounded outwards."""

    @property
    def _constructor(self) -> type[Figures]:
        return Figures

    def __repr__(self) -> str:
        return str(self.to_string(formatters=self._rounded(), max_rows=pd.get_option("display.max_rows")))

    def _repr_html_(self) -> str:
        rows = pd.get_option("display.max_rows")
        return str(self.to_html(formatters=self._rounded(), max_rows=rows, border=0, notebook=True))

    def _rounded(self) -> dict[str, Callable[[float | None], str]]:
        return {name: shown for name, shown in _SHOWN.items() if name in self.columns}


def metrics(lines: Iterable[Mapping[str, Any]]) -> Figures:
    """Return a row for each round, by its number: figures of the model, and how many silos were summed.

    A figure that was not defined in a round is NaN there, and so are all of a round that failed closed.

    Args:
        lines: Of `metrics.jsonl`.
    """
    rows = [
        {
            "round": line["round"],
            **figures_of(line),
            "silos": line["summed"],
            "dropouts": len(line["dropouts"]),
            "failed": "failed" in line,
            "seconds": line["seconds"],
        }
        for line in lines
    ]
    found: Figures = Figures(rows, columns=None if rows else ["round", "loss"]).set_index("round")
    return found


def privacy(rows: Iterable[Mapping[str, Any]]) -> Figures:
    """Return a row for each silo, by its name: what `summary.json` says of its privacy.

    An epsilon that has no bound is infinite, and never left out.
    """
    found = []
    for row in rows:
        plain = {key: value for key, value in row.items() if key not in _NOT_OF_A_ROW}
        plain["odometer"] = None if row["odometer"] is None else row["odometer"]["epsilon"]
        plain |= {key: largest([row[key]]) for key in _BOUNDS if key in row}
        found.append({key: plain[key] for key in _FIRST} | plain)
    frame: Figures = Figures(found).set_index("silo")
    return frame
