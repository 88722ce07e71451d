"""Known releases of differentially private data, beside which an epsilon stands: published figures, as published.

| Release | Epsilon | Delta | Unit |
|---|---|---|---|
| Wikipedia's page views by country | about 1 (rho 0.015) | 1e-7 | first 10 pages of a device in a day |
| Gboard's next-word models | 0.994 to 13.69 | 1e-10 | a user's device |
| US census 2020, redistricting data | 19.61: 17.14 and 2.47 | 1e-10 | a person; a housing unit |

Sources stand in the catalogue beside each (`scale.*_source`).

- Wikipedia: rho, epsilon and delta stand so in the README beside the files. By the conversion of Canonne, Kamath and
  Steinke 2020, rho 0.015 at 1e-7 is epsilon 0.86. The figure is of 2023: since 15 February 2024 it varies by country.
- Gboard: both ends of the range and delta stand so in the article, of more than 30 models.
- The census: 17.14 and 2.47 are the Bureau's figures, and 19.61 is their sum. Delta is that of its budget allocation of
  8 June 2021, to which the README of the code that it ran refers
  (github.com/uscensusbureau/DAS_2020_Redistricting_Production_Code). By the same conversion, rho 2.56 at 1e-10 is
  epsilon 17.16. Its neighbours have one person replaced, not one more or less.

Does NOT rank: units and neighbours differ, and epsilons of different units do not compare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

LEFT, RIGHT = 0.1, 100.0
"""Ends of the scale; what lies past them is drawn at them."""


@dataclass(frozen=True)
class Release:
    """One release.

    Attributes:
        name: By which the catalogue knows it.
        low: Its least published epsilon.
        high: Its largest one; the same where there is one.
        delta: At which.
    """

    name: str
    low: float
    high: float
    delta: float


KNOWN: Final = (
    Release("wikipedia", 1.0, 1.0, 1e-7),
    Release("gboard", 0.994, 13.69, 1e-10),
    Release("census", 19.61, 19.61, 1e-10),
)


def place(epsilon: float) -> float:
    """Return where an epsilon lies on the scale, in percent of its width.

    >>> place(0.1), round(place(1.0), 1), place(100.0), place(1e9), place(0.0)
    (0.0, 33.3, 100.0, 100.0, 0.0)
    """
    inside = min(max(epsilon, LEFT), RIGHT)
    return 100 * math.log10(inside / LEFT) / math.log10(RIGHT / LEFT)
