"""What the figures of a claim mean as odds: the most that anybody finds of those who are present.

Three bounds hold at once, and the least of them counts: of every point (epsilon, delta) of a silo's privacy curve, of
the point that is claimed, and of mu-GDP (Dong, Roth and Su 2022, "Gaussian differential privacy", definition 4), which
lies over that curve but for `mu_floor`.

Does NOT say what an attack finds: these are upper bounds, for any test whatever.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

from scenarios.report.document import CurvePoint, SiloAccounting, SiloClaim
from scenarios.runs import words


def right_at_most(wrong: float, silos: Sequence[SiloClaim], counted: Sequence[SiloAccounting]) -> float:
    """Return the most that a test finds of those who are present, at the silo where it finds most.

    Args:
        wrong: Share of those who are absent that it calls present, in (0, 1).
        silos: What is claimed of each; 1 is returned where that is nothing.
        counted: Its privacy curve, in the same order.
    """
    return max((_at_silo(wrong, one, of.curve) for one, of in zip(silos, counted, strict=True)), default=1.0)


def by_gdp(wrong: float, mu: float) -> float:
    """Return the most that mu-GDP allows.

    >>> by_gdp(0.0, 1.0), round(by_gdp(0.5, 1.0), 4), by_gdp(1.0, 1.0)
    (0.0, 0.8413, 1.0)
    """
    normal = NormalDist()
    return wrong if wrong in (0.0, 1.0) else normal.cdf(normal.inv_cdf(wrong) + mu)


def _at_silo(wrong: float, silo: SiloClaim, curve: Sequence[CurvePoint]) -> float:
    if silo.epsilon is None:
        return 1.0
    points = [(silo.epsilon, silo.delta), *((point.epsilon, point.delta) for point in curve)]
    bounds = [words.right_at_most(wrong, epsilon, delta) for epsilon, delta in points]
    return min(*bounds, 1.0 if silo.mu is None else by_gdp(wrong, silo.mu) + silo.mu_floor)
