"""How many equal silos a weighted sum is worth.

The measure is Kish's effective number, (sum w)^2 / (sum w^2). It is n if n weights are equal, and 1 if one weight is
all that counts. The variance of a weighted mean of independent parts falls by this factor. Take a sum of a thousand
updates of which one has 10^9 times the weight of the others. It is in effect that one update, and its effective number
is close to 1.

After L. Kish, *Survey Sampling*, 1965, section 11.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate


def effective_silos(weights: Iterable[float]) -> float:
    """Return the effective number of weights, none of them negative; 0 if none is above 0.

    >>> effective_silos([1.0, 1.0, 1.0]), effective_silos([1e9, 1.0, 1.0]) < 1.01
    (3.0, True)
    """
    return least_effective(weights, 0)


def least_effective(weights: Iterable[float], leaving: int) -> float:
    """Return the smallest effective number among all lists that leave out `leaving` of the weights.

    As one weight grows and the others stay fixed, the number rises up to a point, and falls from there on. So in the
    worst list no kept weight lies between two that were left out: in order of size, those left out lie side by side.

    >>> least_effective([3.0, 2.0, 1.0, 1.0], 2) == effective_silos([3.0, 1.0])
    True
    """
    ordered = sorted(weights)
    kept = len(ordered) - leaving
    if kept < 1 or ordered[-1] <= 0:
        return 0.0
    ordered = [weight / ordered[-1] for weight in ordered]  # so that equal ones are counted to the bit
    smallest, largest = _sums(ordered), _sums(ordered[::-1])
    totals = [(smallest[few][0] + largest[kept - few][0], smallest[few][1] + largest[kept - few][1])
              for few in range(kept + 1)]  # fmt: skip
    return min((total * total / squares if squares else 0.0) for total, squares in totals)


def _sums(weights: Sequence[float]) -> list[tuple[float, float]]:
    """Return the sum and the sum of squares of the first k weights, for k = 0, 1, 2 and so on."""
    return list(
        zip(accumulate(weights, initial=0.0), accumulate((one * one for one in weights), initial=0.0), strict=True)
    )
