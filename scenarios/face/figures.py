"""Figures of a round's line, and the largest of some bounds, as everything here tells them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

_OF_A_ROUND: Final = frozenset(("round", "seconds", "summed", "threshold", "failed"))


def figures_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Return what the server measured of the model in a round, the loss first.

    >>> figures_of({"round": 2, "accuracy": 0.5, "loss": 0.7, "seconds": 0.1, "noise": "os"})
    {'loss': 0.7, 'accuracy': 0.5}
    """
    found = {
        key: float(value)
        for key, value in line.items()
        if key not in _OF_A_ROUND and isinstance(value, int | float) and not isinstance(value, bool)
    }
    return dict(sorted(found.items(), key=lambda item: item[0] != "loss"))


def largest(bounds: Iterable[float | None]) -> float:
    """Return the largest of some bounds on epsilon; one that was not computed, or that is of no noise, is infinite.

    >>> largest([0.5, 2.0]), largest([0.5, None]), largest([])
    (2.0, inf, 0.0)
    """
    return max((math.inf if bound is None else bound for bound in bounds), default=0.0)
