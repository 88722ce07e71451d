"""What lines of rounds say of silos' epsilons, held to what silos were charged.

A line says them by silo, or of many silos each bound once, and of how many it is (`server.metrics`). Each is of the
whole plan on the accountant's coarse grid, whatever the round is.

Guarantee: `check_bounds` passes lines only if each bound in them is that of the silo's charge, or of some silo's where
none is named; of an experiment's noise, under its label alone.

Does NOT miss a bound that is left out: a line that says nothing claims nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fedmodel.errors import ClaimRefuted
from fedmodel.privacy.events import EPSILON_IF_HIDDEN

_NAMES: Final = ("epsilon", EPSILON_IF_HIDDEN)
_RELATIVE: Final = 1e-9  # of floating point on another machine


def check_bounds(lines: Iterable[Mapping[str, Any]], costs: Mapping[str, float], *, hidden: bool) -> None:
    """Refuse lines of which a bound is not what follows.

    Args:
        lines: Of `metrics.jsonl`.
        costs: By silo that was charged, the epsilon of its whole plan; infinite where nothing bounds it.
        hidden: Whether noise was an experiment's, of which bounds have a label.

    Raises:
        ClaimRefuted: The first round and figure that does not follow.
    """
    figures = {silo: cost if math.isfinite(cost) else None for silo, cost in costs.items()}
    for line in lines:
        for name in _NAMES:
            follows = figures if (name == EPSILON_IF_HIDDEN) == hidden else dict.fromkeys(figures)
            if not _follows(line.get(name, {}), follows):
                raise ClaimRefuted(
                    f"metrics.jsonl: round {line['round']}: {name}: is not what follows from what silos were charged"
                )


def _follows(told: Any, figures: Mapping[str, float | None]) -> bool:
    if isinstance(told, Mapping):
        return all(silo in figures and _alike(bound, figures[silo]) for silo, bound in told.items())
    try:
        known, silos = set(figures.values()), sum(int(number) for _, number in told)
        return silos <= len(figures) and all(any(_alike(bound, one) for one in known) for bound, _ in told)
    except (TypeError, ValueError):
        return False


def _alike(bound: Any, figure: float | None) -> bool:
    if bound is None or figure is None:
        return bound is figure
    return type(bound) in (int, float) and math.isclose(bound, figure, rel_tol=_RELATIVE)
