"""Names, moments, counts and figures that are no bounds, as a person reads them, the same everywhere.

A figure of privacy is rounded so that it still holds: `fedmodel.privacy.rounding` does that, and nothing here does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_SHORT = {
    "steinke": "One-run test",
    "fdp": "One-run test, f-DP",
    "clopper_pearson": "Exact binomial",
    "gaussian": "Gaussian",
}
_NAMES = {
    "steinke": "One-run test (Steinke, Nasr and Jagielski 2023)",
    "fdp": "One-run test, f-DP (Mahloujifar, Melis and Chaudhuri 2024)",
    "clopper_pearson": "Exact binomial limits over thresholds (Clopper and Pearson)",
    "gaussian": "Distance of the two score distributions",
    "auroc": "AUROC",
    "f1": "F1",
    "noise_std": "Spread of the noise",
    "canary_mean": "Height of a canary after clipping",
    "canary_peak": "No canary above the clip",
    "out_mean": "Nothing where no canary is",
    "noise_shape": "Noise is as a normal distribution",
    "noise_grid": "Noised sums lie on the grid that they are rounded to",
    "noise_repeat": "No noise is used twice",
    "draw_dispersion": "Every record is drawn as often",
    "accountants": "Other accountants agree",
    "accountants_at_extremes": "The accountant is sound at its edges",
    "noise_everywhere": "Noise lies on every tensor of the model",
    "model_noise_std": "Noise lies on every coordinate of the model that is followed",
    "model_noise_shape": "Noise on the model is as a normal distribution",
    "model_noise_lag1": "Noise on the model does not repeat from step to step",
    "model_noise_repeat": "No noise on the model is used twice",
    "model_noise_between_silos": "Noise on the model is not shared between silos",
    "update_explained": "The update is what the noised gradients make",
    "noise_lag1": "Noise does not repeat from step to step",
    "noise_between_silos": "Noise is not shared between silos",
    "lot_rate": "Share of records drawn",
    "lot_dispersion": "Lots vary as Poisson sampling does",
    "denominator": "The divisor is public and constant",
    "poison": "A broken record adds nothing",
    "finite": "Every figure released is a number",
    "noise_shares": "Every share of noise is there",
    "effective_silos": "Every sum is of enough silos, by their weights",
    "charged_before_release": "Charged before release",
    "charged_steps": "Every step was charged",
}
# Why a figure of `server.metrics` may be left out, by what has to have happened.
_UNDEFINED = {
    "precision": "Precision is left out, as it is not defined: a class, the positive one of two, was predicted of no"
    " held-out record.",
    "recall": "Recall is left out, as it is not defined: a class, the positive one of two, has no held-out record.",
    "f1": "F1 is left out, as it is made of precision and recall.",
    "auroc": "AUROC is left out, as it is not defined: a class has no held-out record.",
}


def undefined(figures: Collection[str]) -> list[str]:
    """Return a sentence on each figure of a classifier that is not among those measured; none where nothing was.

    >>> undefined(["accuracy", "recall", "loss", "auroc"])[1]
    'F1 is left out, as it is made of precision and recall.'
    """
    return [reason for name, reason in _UNDEFINED.items() if "accuracy" in figures and name not in figures]


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


def moment(text: str | None, seconds: bool = False) -> str:
    """Return a moment of ISO 8601 for a person, in UTC; what is none stays as it is.

    >>> moment("2026-11-25T00:34:12.123Z"), moment("2026-11-25T01:34:12+01:00", seconds=True), moment(None)
    ('25 November 2026, 00:34 UTC', '25 November 2026, 00:34:12 UTC', 'never')
    """
    if text is None:
        return "never"
    try:
        when = when_of(text)
    except ValueError:
        return text
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}, {when:%H:%M:%S} UTC" if seconds else (
        f"{when.day} {_MONTHS[when.month - 1]} {when.year}, {when:%H:%M} UTC")  # fmt: skip


def when_of(text: str) -> datetime:
    """Return a moment of ISO 8601 in UTC; one without a zone is taken to be in UTC.

    Raises:
        ValueError: When it is none.
    """
    when = datetime.fromisoformat(text)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def name(key: str) -> str:
    """Return a key of the document as words.

    >>> name("noise_std"), name("some_new_gauge")
    ('Spread of the noise', 'Some new gauge')
    """
    return _NAMES.get(key) or key.replace("_", " ").replace("-", " ").capitalize()


def plainly(reason: str) -> str:
    """Return a reason with the checks' names in words, where it lists them after its last colon.

    >>> plainly("could not be measured: noise_std, finite"), plainly("the noise is finite")
    ('could not be measured: spread of the noise, every figure released is a number', 'the noise is finite')
    """
    before, colon, after = reason.rpartition(": ")
    keys = after.split(", ")
    if not colon or not set(keys) <= _NAMES.keys():
        return reason
    return f"{before}: {', '.join(name(key)[0].lower() + name(key)[1:] for key in keys)}"


def short(estimator: str) -> str:
    """Return an estimator's name for the margin of a plot.

    >>> short("fdp"), short("some_other")
    ('One-run test, f-DP', 'Some other')
    """
    return _SHORT.get(estimator) or name(estimator)


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"


def counted(figure: int, thing: str) -> str:
    """Return a count with its thing, in the plural where it is.

    >>> counted(1, "run"), counted(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{figure:,} {thing}{'' if figure == 1 else 's'}"


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
