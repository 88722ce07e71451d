"""Figures as the page tells them: one function for each quantity, so that one figure has the same digits everywhere.

| Quantity | Digits | Rounded |
|---|---|---|
| epsilon, a cap, a target | two; four under 0.1 | up |
| a lower bound on epsilon | as an epsilon | down |
| delta, and other small probabilities | two that count | up |
| noise over the clip | four | up |
| a clip | four | up |
| a sample rate | six | up |
| a share that bounds from above | a tenth of a percent | up |
| a share that holds at least | a tenth of a percent | down |
| a model's accuracy and the like | three; of a small RMSE or MAE, three that count | down; a loss or an error up |
| a measurement of an audit | four that count | to the nearest |

Does NOT bound where a figure is no bound: measurements are for reading.
"""

from __future__ import annotations

import math
from typing import Final

from fedmodel.privacy.rounding import down, percent_down, percent_up, small, up
from fedmodel.privacy.rounding import noise as noise_up
from scenarios.report.page.catalogue import Catalogue
from scenarios.runs import words

_LARGEST_WRITTEN: Final = 13.8  # e to this is about a million; past it a power of ten is easier to read
_FEW_DIGITS: Final = 0.1
_IN_UNITS: Final = ("rmse", "mae")  # of the label, which may be of any size
_ERRORS: Final = (*_IN_UNITS, "perplexity", "brier", "calibration-error")  # the smaller, the better


def factor(epsilon: float) -> str:
    """Write e^epsilon with three digits or more, rounded up.

    >>> factor(0.0), factor(0.3283), factor(2.9999998), factor(8.0), factor(900.0)
    ('1.00', '1.39', '20.1', '2,981', '10^391')
    """
    if epsilon > _LARGEST_WRITTEN:
        return f"10^{math.ceil(epsilon / math.log(10))}"
    times = math.exp(epsilon)
    return up(times, max(0, 2 - math.floor(math.log10(times))))


class Told:
    """Figures in the words of one catalogue, where a figure may be none."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def epsilon(self, figure: float | None) -> str:
        """An epsilon, a cap or a target, from above."""
        if figure is None or not math.isfinite(figure):
            return self._catalogue.plain("told.no_bound")
        return up(figure, _digits(figure))

    def epsilon_at_least(self, figure: float) -> str:
        """An epsilon from below."""
        return down(figure, _digits(figure))

    def delta(self, figure: float) -> str:
        """A delta, from above."""
        return small(figure)

    def noise(self, multiplier: float | None) -> str | None:
        """Noise over the clip; None where there is none to tell of."""
        if multiplier is None:
            return None
        return noise_up(multiplier) if multiplier else self._none()

    def clip(self, figure: float | None) -> str | None:
        """A clip, from above; None where there is none to tell of."""
        return None if figure is None else up(figure)

    def rate(self, figure: float | None) -> str | None:
        """A sample rate, from above; None where there is none to tell of."""
        return None if figure is None else up(figure, 6).rstrip("0").rstrip(".")

    def share(self, figure: float) -> str:
        """A share that bounds from above."""
        return percent_up(figure)

    def share_at_least(self, figure: float) -> str:
        """A share that holds at least."""
        return percent_down(figure)

    def metric(self, name: str, figure: float) -> str:
        """What a model was measured at, three digits behind the point, or of a small error in any unit three digits."""
        if name in _IN_UNITS and 0 < figure < 1:
            return up(figure, 2 - math.floor(math.log10(figure)))
        return up(figure, 3) if "loss" in name or name in _ERRORS else down(figure, 3)

    def measured(self, figure: float | None) -> str:
        """A measurement, or a figure of the protocol, for reading."""
        return self._none() if figure is None else words.number(figure)

    def gauge(self, name: str, figure: float | None) -> str:
        """A figure of a check of the mechanism: as its quantity is told elsewhere on the page."""
        if figure is None:
            return self._none()
        if name == "noise_std":
            return noise_up(figure)
        if name == "lot_rate":
            return str(self.rate(figure))
        return self.effective(figure) if name == "effective_silos" else self.measured(figure)

    def count(self, figure: int | None) -> str:
        """A whole number."""
        return self._none() if figure is None else f"{figure:,}"

    def effective(self, figure: float | None) -> str:
        """Equal silos that a sum is worth, from below."""
        return self._none() if figure is None else down(figure, 2)

    def _none(self) -> str:
        return self._catalogue.plain("told.none")


def _digits(epsilon: float) -> int:
    return 4 if abs(epsilon) < _FEW_DIGITS and epsilon else 2
