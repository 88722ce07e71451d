"""Whether lots, sampling rate and delta fit how many records a silo holds.

Nothing of it may be told to a server: an answer that hung on a private count would be a free comparison of it. So it is
said to whoever owns the records: of a simulation, or on the screen of a silo's own operator.
"""

from __future__ import annotations

from typing import Final

from fedmodel.privacy.grid import most_records, too_many
from fedmodel.privacy.plan import SiloPlan

_FAR: Final = 4.0  # times the divisor, either way, past which a lot's size is most likely a mistake


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


def far_from_divisor(plan: SiloPlan, records: int) -> str | None:
    """Return that lots are not of the size that sums are divided by; None where they nearly are, or there are none."""
    lot = plan.sample_rate * records
    if not records or 1 / _FAR <= lot / plan.expected_batch_size <= _FAR:
        return None
    steps = "far too large" if lot > plan.expected_batch_size else "tiny"
    rate = min(1.0, plan.expected_batch_size / records)
    divisor = max(1, round(float(f"{lot:.2g}")))  # public, as the rate is: two digits of the count at most
    return (
        f"{plan.silo}: a lot has some {lot:.4g} records, and its sums are divided by privacy.expected_batch_size ="
        f" {plan.expected_batch_size}, so its steps are {steps}; set privacy.silo.{plan.silo}.sample_rate ="
        f" {rate:.2g}, or privacy.silo.{plan.silo}.expected_batch_size = {divisor}"
    )


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
