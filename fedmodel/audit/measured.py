"""What a gauge is, and what it is measured from.

Shapes: T steps, K canaries, I of them in, O of them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmodel.canaries.observations import Observations
from fedmodel.privacy.events import Event, clip_of


@dataclass(frozen=True)
class Gauge:
    """One invariant, measured.

    Attributes:
        name: Which.
        silo: Of which silo; None where it is of all together.
        measured: The figure.
        low: Where `measured` lies under correct code, but for a probability of a false alarm: from here,
        high: to here.
        expected: What it is on average under correct code, or near it.
        passed: Whether it lies there.
        explanation: One sentence with the figures.
    """

    name: str
    silo: str | None
    measured: float
    low: float
    high: float
    expected: float
    passed: bool
    explanation: str


def gauge(
    name: str, silo: str | None, measured: float, expected: float, within: tuple[float, float], explanation: str
) -> Gauge:
    """Return a gauge that passes where `measured` lies in the interval, its ends included; NaN lies in none."""
    low, high = (float(end) for end in within)
    passed = bool(low <= measured <= high)
    return Gauge(name, silo, float(measured), low, high, float(expected), passed, explanation)


def worst(gauges: Sequence[Gauge]) -> Gauge:
    """Return the gauge that is farthest out, in halves of its own interval."""
    return max(gauges, key=lambda one: abs(2 * one.measured - one.low - one.high) / max(one.high - one.low, 1e-300))


@dataclass(frozen=True)
class Seen:
    """One silo's observations with what its ledger was charged for."""

    of: Observations
    event: Event

    @property
    def silo(self) -> str:
        """Its name."""
        return self.of.silo

    @property
    def scale(self) -> float:
        """The standard deviation of the noise that is claimed, sigma C."""
        return self.event.noise_multiplier * clip_of(self.event)

    @property
    def noise(self) -> NDArray[np.float64]:
        """Noise on the coordinates of canaries that are out, over what is claimed; shape `(T, O)`."""
        return self._block(~self.of.coins_K) / self.scale

    @property
    def kept(self) -> NDArray[np.float64]:
        """Sums on the coordinates of canaries that are in, over the clip; shape `(T, I)`."""
        return self._block(self.of.coins_K) / clip_of(self.event)

    @property
    def squares(self) -> tuple[float, int]:
        """The sum of squares of all that is noise alone, over (sigma C)^2, and its degrees of freedom."""
        out_TO, in_TI = self.noise, self.kept
        total, degrees = float((out_TO**2).sum()), out_TO.size
        if self.event.realised_sample_rate == 1 and in_TI.size > 1:
            total += float(((in_TI - in_TI.mean()) ** 2).sum()) / self.event.noise_multiplier**2
            degrees += in_TI.size - 1
        return total, degrees

    def _block(self, chosen_K: NDArray[np.bool_]) -> NDArray[np.float64]:
        sums_TK = self.of.sums_TK.astype(np.float64)
        return sums_TK[:, chosen_K] if sums_TK.shape[1] else sums_TK  # loss canaries have no coordinates


def groups(seen: Sequence[Seen], level: float) -> list[tuple[Sequence[Seen], str | None, float]]:
    """Return each silo alone, and all together where there are several, with what each may have of the level.

    Half goes to the silos in equal parts and half to all together, where a fault that all have shows soonest.
    """
    if len(seen) == 1:
        return [(seen, seen[0].silo, level)]
    alone: list[tuple[Sequence[Seen], str | None, float]] = [([one], one.silo, level / 2 / len(seen)) for one in seen]
    return [*alone, (seen, None, level / 2)] if seen else []
