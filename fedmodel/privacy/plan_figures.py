"""What a plan of DP-SGD costs, and what noise a target needs, from the figures that a paper states.

Both are upper bounds by a PLD accountant (`fedmodel.privacy.accounting`). They hold for data sets that differ by adding
or removing one record, or one person with at most `max_records` records, and for lots that are Poisson samples.
"""

from __future__ import annotations

import math

from fedmodel.errors import ConfigError, LedgerError
from fedmodel.privacy import accounting
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent


def plan_of(noise_multiplier: float, sample_rate: float, steps: int, max_records: int = 1) -> DpSgdEvent:
    """Return a plan as the event that a ledger would keep, with a clip of 1 and a divisor of 1, which cost nothing.

    Raises:
        ConfigError: When a figure is out of the range that is accounted for.
    """
    try:
        return DpSgdEvent(noise_multiplier, 1.0, sample_rate, steps, denominator=1, max_records=max_records)
    except LedgerError as error:
        raise ConfigError(str(error)) from error


def epsilon(*, noise_multiplier: float, sample_rate: float, steps: int, delta: float, max_records: int = 1) -> float:
    """Return an upper bound on the epsilon of a plan.

    Args:
        noise_multiplier: Standard deviation of the noise on a sum, over the clip.
        sample_rate: Each record's chance to be in a lot, in (0, 1].
        steps: Noised sums that are released, at least 1.
        delta: In (0, 1).
        max_records: Most records of one person, where a person is protected and not a record.

    Returns:
        Epsilon, computed on the accountant's coarse grid, whose bound is a little above that of the fine one.

    Raises:
        ConfigError: When a figure is out of range, or no epsilon is computed for so little noise.

    >>> round(epsilon(noise_multiplier=1.0, sample_rate=0.0128, steps=1560, delta=1e-5), 2)
    2.99
    """
    found = accounting.epsilon(
        [plan_of(noise_multiplier, sample_rate, steps, max_records)], delta, accounting.COARSE_GRID
    )
    if not math.isfinite(found):
        raise ConfigError("no epsilon is computed for this plan: its noise is too small for its steps; raise it")
    return found


def noise_multiplier(*, epsilon: float, sample_rate: float, steps: int, delta: float, max_records: int = 1) -> float:
    """Return the least noise multiplier, to one part in 10^4, that keeps a plan at or under a target epsilon.

    Args:
        epsilon: The target, above 0.
        sample_rate: Each record's chance to be in a lot, in (0, 1].
        steps: Noised sums that are released, at least 1.
        delta: In (0, 1).
        max_records: Most records of one person, where a person is protected and not a record.

    Raises:
        ConfigError: When a figure is out of range, or no noise meets the target.

    >>> round(noise_multiplier(epsilon=3.0, sample_rate=0.0128, steps=1560, delta=1e-5), 1)
    1.0
    """
    return accounting.calibrate(epsilon, delta, sample_rate, steps, max_records)
