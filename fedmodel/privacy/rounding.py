"""The one place where a figure of privacy is rounded for a person: outwards, so that what is printed still holds.

Upper bounds (an epsilon, a delta, an advantage, noise that suffices, odds) are rounded up; lower bounds, power and what
is left of a budget are rounded down. Terminal, tables, page, plots' descriptions and the sentences of a report all call
this module, so that one figure is never told in two ways.

Guarantee, for every finite float x and number of digits: read back as a float, `up(x)` is at least x and `down(x)` at
most x; and both are x itself where x is the float nearest to a decimal of so many digits. Rounding is decimal, of the
shortest decimal that reads back as x, so that 1.1 stays 1.1 and 0.14 stays 0.1400: the double nearest to 0.14 times
10,000 is above 1,400, and rounding that product up would tell 0.1401.

| x | up | down |
|---|---|---|
| x is a decimal of so many digits | x | x |
| None, or infinity, which stand for "no bound" | `NO_BOUND` | |
| from -0.00005 to 0, at four digits | 0.0000, without a minus | -0.0001, with one |

Does NOT round what is no bound: `scenarios.runs.words.number` writes figures that are for reading alone.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Final

# The largest float has 309 digits before its point: no figure is too long to be rounded.
_DIGITS: Final = Context(prec=400)
NO_BOUND: Final = "no bound computed"
_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def up(figure: float | None, digits: int = 4) -> str:
    """Return a figure with so many decimals, rounded up.

    >>> up(2.99999988, 2), up(1.1, 2), up(0.14), up(None), up(math.inf)
    ('3.00', '1.10', '0.1400', 'no bound computed', 'no bound computed')
    """
    return NO_BOUND if figure is None or not math.isfinite(figure) else _rounded(_exact(figure), digits, ROUND_CEILING)


def noise(multiplier: float) -> str:
    """Return a noise multiplier, rounded up; where no noise is added there is no figure to round.

    >>> noise(1.1), noise(0.0)
    ('1.1000', 'none')
    """
    return up(multiplier) if multiplier else "none"


def down(figure: float, digits: int = 4) -> str:
    """Return a figure with so many decimals, rounded down.

    >>> down(1.0899, 2), down(0.14)
    ('1.08', '0.1400')
    """
    return _rounded(_exact(figure), digits, ROUND_FLOOR)


def raised(figure: float, *more: float, digits: int = 4) -> float:
    """Return the sum of some figures as a float of so many decimals, rounded up: a cap that leaves room for them.

    >>> raised(0.14), raised(0.1, 0.2), raised(2.00001)
    (0.14, 0.3, 2.0001)
    """
    whole = sum(map(_exact, more), start=_exact(figure))
    return float(whole.quantize(Decimal(1).scaleb(-digits), ROUND_CEILING, _DIGITS))


def percent_up(share: float, digits: int = 1) -> str:
    """Return a share in percent, rounded up.

    >>> percent_up(0.20186)
    '20.2%'
    """
    return f"{_rounded(_exact(share) * 100, digits, ROUND_CEILING)}%"


def percent_down(share: float, digits: int = 1) -> str:
    """Return a share in percent, rounded down.

    >>> percent_down(0.9999)
    '99.9%'
    """
    return f"{_rounded(_exact(share) * 100, digits, ROUND_FLOOR)}%"


def small(delta: float) -> str:
    """Return a small probability with two digits, rounded up, without an E.

    >>> small(0.001), small(1.23e-5), small(1e-9), small(0.0)
    ('0.001', '0.000013', '10⁻⁹', '0')
    """
    if delta == 0:
        return "0"
    exact = _exact(delta)
    mantissa = exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1), ROUND_CEILING)
    if mantissa >= Decimal("1e-6"):
        return f"{mantissa.normalize():f}"
    power = f"10{str(mantissa.adjusted()).translate(_RAISED)}"
    leading = mantissa.scaleb(-mantissa.adjusted()).normalize()
    return power if leading == 1 else f"{leading:f} × {power}"


def _exact(figure: float) -> Decimal:
    """Return the shortest decimal that reads back as a float."""
    return Decimal(repr(float(figure)))


def _rounded(exact: Decimal, digits: int, way: str) -> str:
    """Round a figure one way, with a comma between thousands and a proper minus."""
    rounded = exact.quantize(Decimal(1).scaleb(-digits), way, _DIGITS)
    return f"{rounded if rounded else abs(rounded):,f}".replace("-", "−")
