"""Lists, counts and figures that are no bounds, as a person reads them, the same everywhere.

A figure of privacy is rounded so that it still holds: `fedmodel.privacy.rounding` does that, and nothing here does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from fedmodel.system.counts import counted as counted

BOOK = "book"
"""What the row of a silo says its figures are from, in the summary of a run that kept no ledgers."""
NO_LEDGER = "Simulated: no ledger was kept, and the figures follow from the book of whoever ran it."

# Why a figure of `server.metrics` may be left out, by what has to have happened.
_UNDEFINED = {
    "precision": "Precision is left out, as it is not defined: a class, the positive one of two, was predicted of no"
    " held-out record.",
    "recall": "Recall is left out, as it is not defined: a class, the positive one of two, has no held-out record.",
    "f1": "F1 is left out, as it is made of precision and recall.",
    "auroc": "AUROC is left out, as it is not defined: a class has no held-out record.",
}


def undefined(figures: Collection[str], left_out: Collection[str] | None = None) -> list[str]:
    """Return a sentence on each figure that is not among those measured; none where nothing was.

    Args:
        figures: Those measured.
        left_out: Those that are not defined; of a classifier whose figures nobody named, None.

    >>> undefined(["accuracy", "recall", "loss", "auroc"])[1]
    'F1 is left out, as it is made of precision and recall.'
    """
    if left_out is not None:
        return [f"{name} is left out, as it is not defined on these records." for name in left_out]
    return [reason for name, reason in _UNDEFINED.items() if "accuracy" in figures and name not in figures]


def metric(figure: float) -> str:
    """Return what a model was measured at.

    >>> metric(0.5), metric(12.34567), metric(0.0000123)
    ('0.5000', '12.3457', '1.23e-05')
    """
    return f"{figure:.4f}" if figure == 0 or abs(figure) >= 0.0005 else f"{figure:.3g}"


def weights(found: Sequence[float]) -> str:
    """Return class weights as they were declared.

    >>> weights([1.0, 9.0, 0.25])
    '1, 9, 0.25'
    """
    return ", ".join(f"{weight:.12g}" for weight in found)


def number(figure: float | None) -> str:
    """Return a figure with four digits; it is for reading, and no bound.

    >>> number(6.560156), number(40.0), number(0.00012), number(1560000.0), number(None)
    ('6.560', '40', '0.00012', '1,560,000', 'none')
    """
    if figure is None:
        return "none"
    if figure == int(figure) and abs(figure) < 1e15:
        return f"{int(figure):,}".replace("-", "−")
    if abs(figure) < 1e-5 or abs(figure) >= 1e6:
        return f"{figure:.3e}".replace("-", "−")
    decimals = max(0, 3 - math.floor(math.log10(abs(figure))))
    text = f"{figure:,.{min(decimals, 6)}f}"
    return (text.rstrip("0").rstrip(".") if abs(figure) < 0.01 else text).replace("-", "−")


def when_of(text: str) -> datetime:
    """Return a moment of ISO 8601 in UTC; one without a zone is taken to be in UTC.

    Raises:
        ValueError: When it is none.
    """
    when = datetime.fromisoformat(text)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"


def right_at_most(wrong: float, epsilon: float, delta: float) -> float:
    """Return the most that an observer can be right about presence who is wrong about absence so often.

    The trade-off of (epsilon, delta)-DP: Kairouz, Oh and Viswanath 2015, "The composition theorem for differential
    privacy", theorem 2.1.

    >>> round(right_at_most(0.01, 3.0, 1e-3), 4), right_at_most(0.0, 3.0, 1e-3), right_at_most(0.5, 50.0, 0.0)
    (0.2019, 0.001, 1.0)
    """
    by_presence = math.exp(min(epsilon, 700.0)) * wrong + delta
    by_absence = 1 - math.exp(-epsilon) * (1 - delta - wrong)
    return min(by_presence, by_absence, 1.0)
