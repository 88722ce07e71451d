"""Whether lots, sampling rate and delta fit how many records a silo holds.

Nothing of it may be told to a server: an answer that hung on a private count would be a free comparison of it. So it is
said to whoever owns the records: of a simulation, or on the screen of a silo's own operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from fedmodel.data.places import first_few
from fedmodel.privacy.grid import most_records, too_many
from fedmodel.privacy.plan import SiloPlan

_FAR: Final = 4.0  # times the divisor, either way, past which a lot's size is most likely a mistake
_NAMED: Final = 10  # silos of one line


def under_a_lot(plan: SiloPlan, records: int) -> str | None:
    """Return that there are fewer records than the largest expected lot, and what to do; None where there are not."""
    if records >= plan.largest_lot:
        return None
    grown = f", and by training.lots they grow to {plan.largest_lot}" if plan.lots else ""
    return (
        f"silo {plan.silo!r} holds fewer records than a lot: privacy.expected_batch_size ="
        f" {plan.expected_batch_size}{grown}; declare a smaller lot for it,"
        f" privacy.silo.{plan.silo}.expected_batch_size"
    )


def far_from_divisors(sized: Sequence[tuple[SiloPlan, int]]) -> list[str]:
    """Return that lots are not of the size that sums are divided by: those too large, then those too small, at once.

    Args:
        sized: Of each silo its plan, and how many records it holds. Sensitive.
    """
    far = [(plan, plan.sample_rate * records, records) for plan, records in sized if records]
    wrong = {
        "far too large": [one for one in far if one[1] > _FAR * one[0].expected_batch_size],
        "tiny": [one for one in far if _FAR * one[1] < one[0].expected_batch_size],
    }
    return [_far(those, steps) for steps, those in wrong.items() if those]


def _far(those: Sequence[tuple[SiloPlan, float, int]], steps: str) -> str:
    """Return that the lots of these silos are so, with what mends it at each, in the silos' order."""
    named, several = those[:_NAMED], len(those) > 1
    names = first_few([plan.silo for plan, _, _ in those], _NAMED)
    lots = _in_order(f"{lot:.4g}" for _, lot, _ in named)
    said = _in_order(str(plan.expected_batch_size) for plan, _, _ in named)
    rates = _in_order(f"{min(1.0, plan.expected_batch_size / records):.2g}" for plan, _, records in named)
    # Public, as the rate is: two digits of the count at most.
    divisors = _in_order(str(max(1, round(float(f"{lot:.2g}")))) for _, lot, _ in named)
    have, its, key = ("lots have", "their", "NAME") if several else ("a lot has", "its", named[0][0].silo)
    return (
        f"{names}: {have} some {lots} records, and {its} sums are divided by privacy.expected_batch_size = {said}, so"
        f" {its} steps are {steps}; set privacy.silo.{key}.sample_rate = {rates}, or"
        f" privacy.silo.{key}.expected_batch_size = {divisors}{', in this order of silos' if several else ''}"
    )


def _in_order(values: Iterable[str]) -> str:
    """Return what is said of each silo, in their order; once where it is the same of all."""
    found = list(values)
    return ", ".join(found if len(set(found)) > 1 else found[:1])


def over_delta(plan: SiloPlan, records: int) -> str | None:
    """Return that delta allows publishing a record outright; None where it does not."""
    if plan.delta * records < 1:
        return None
    return (
        f"privacy.delta = {plan.delta} is not under one over the records of silo {plan.silo!r}, so it would allow"
        " publishing a record outright; choose a smaller delta"
    )


def over_the_grid(noise_multiplier: float, records: int) -> str | None:
    """Return that there are more records than sums are exact for; None where there are not."""
    if records <= most_records(noise_multiplier):
        return None
    return f"there are {too_many(noise_multiplier)}"
