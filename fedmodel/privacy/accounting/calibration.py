"""From a target epsilon back to the noise that meets it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from scipy.optimize import brentq

from fedmodel.errors import ConfigError
from fedmodel.privacy.accounting.pld import COARSE_GRID, FINE_GRID, epsilon, epsilon_of
from fedmodel.privacy.events import LEAST_NOISE, LEAST_RATE, MOST_NOISE, MOST_RECORDS, MOST_STEPS, Event, realised_rate
from fedmodel.privacy.plan import Lots
from fedmodel.privacy.primitives import SampledGaussian
from fedmodel.privacy.rounding import up

_TOLERANCE = 1e-4  # of the noise multiplier, relative
_TO_SPARE = 2 * _TOLERANCE  # two machines may round otherwise, and a search on one of them end a step later


def calibrate(
    target_epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    max_records: int = 1,
    besides: tuple[float, ...] = (),
) -> float:
    """Return the least noise multiplier, to one part in 10^4, whose epsilon over the steps is at most the target.

    Args:
        target_epsilon: Above 0.
        delta: In (0, 1).
        sample_rate: Poisson rate in (0, 1], as it is really drawn with.
        steps: At least 1.
        max_records: Most records of one privacy unit, at least 1.
        besides: Noise multipliers of sums over all records that are released besides the steps, one each.

    Returns:
        A multiplier s of at least `LEAST_NOISE` with `epsilon(s) <= target_epsilon` over all of it, on the fine grid.

    Raises:
        ConfigError: When an argument is out of range, or no multiplier up to 10^6 meets the target.
    """
    return calibrate_lots(target_epsilon, delta, (Lots(sample_rate, steps),), max_records, besides)


@lru_cache(maxsize=256)
def calibrate_lots(
    target_epsilon: float, delta: float, lots: tuple[Lots, ...], max_records: int, besides: tuple[float, ...]
) -> float:
    """Return the least noise multiplier of steps at several rates, alike at all of them; as `calibrate` does of one.

    Each rate's steps are composed at that rate, and none is counted at another's. The multiplier is one for all steps,
    so that epsilon falls as it rises whatever the rates are.

    Args:
        target_epsilon: Above 0.
        delta: In (0, 1).
        lots: Steps by the rate that their lots are really drawn with.
        max_records: Most records of one privacy unit, at least 1.
        besides: Noise multipliers of sums over all records that are released besides the steps, one each.

    Raises:
        ConfigError: When an argument is out of range, or no multiplier up to 10^6 meets the target.
    """
    steps = sum(one.steps for one in lots)
    for one in lots:
        _check_ranges(target_epsilon, one.sample_rate, steps, max_records)
    others = [(SampledGaussian(1.0, noise, max_records), 1) for noise in besides]
    alone = epsilon_of(others, delta, FINE_GRID) if others else 0.0
    if alone >= target_epsilon:
        raise ConfigError(
            f"what is released besides training comes to epsilon {up(alone)} by itself, at delta {delta}, where"
            f" {target_epsilon} is asked for all of it; add noise to it, under [besides], or ask for a larger epsilon"
        )
    rates = [(realised_rate(one.sample_rate, "os"), one.steps) for one in lots]
    found = calibrate_parts(
        target_epsilon,
        delta,
        lambda noise: [*((SampledGaussian(rate, noise, max_records), taken) for rate, taken in rates), *others],
    )
    if found is None:
        raise ConfigError(
            f"no noise multiplier up to {MOST_NOISE:g} gives epsilon {target_epsilon} at delta {delta}"
            f" over {steps} steps; ask for a larger epsilon or fewer steps"
        )
    return found


def calibrate_parts(
    target_epsilon: float, delta: float, parts: Callable[[float], Sequence[tuple[SampledGaussian, int]]]
) -> float | None:
    """Return the least noise multiplier whose primitives, together, come to at most a target; as `calibrate` does.

    Args:
        target_epsilon: Above 0.
        delta: In (0, 1).
        parts: What a plan is composed of at a noise multiplier, whose epsilon falls as that rises.

    Returns:
        The multiplier; None where none up to `MOST_NOISE` meets the target.
    """

    def excess(log_noise: float, grid: float) -> float:
        # Kept off 0 and infinity, which a root finder cannot use; neither end is ever near a target.
        return math.log(min(max(epsilon_of(parts(math.exp(log_noise)), delta, grid), 1e-12), 1e12) / target_epsilon)

    # `low` stays where the target is missed, `high` where it is met.
    least = math.log(LEAST_NOISE)
    low, high = least, 0.0
    while excess(high, COARSE_GRID) > 0:
        low, high = high, high + 1
        if high > math.log(MOST_NOISE):
            return None
    if excess(least, COARSE_GRID) <= 0:
        return LEAST_NOISE
    # Epsilon is nearly a power of the noise, so in logarithms nearly a line. The coarse grid brackets the answer from
    # above, since it is the higher bound; the fine grid's lies a little beneath.
    high = brentq(excess, low, high, args=(COARSE_GRID,), xtol=_TOLERANCE) + _TOLERANCE
    low = max(high - 0.01, least)
    while excess(low, FINE_GRID) <= 0:
        if low == least:
            return LEAST_NOISE
        low, high = max(low - 0.1, least), low
    log_noise = brentq(excess, low, high, args=(FINE_GRID,), xtol=_TOLERANCE)
    while excess(log_noise, FINE_GRID) > 0:
        log_noise += _TOLERANCE
    return math.exp(log_noise)


def spares_noise(
    noise: float, target_epsilon: float, delta: float, planned: Callable[[float], Sequence[Event]]
) -> bool:
    """Return whether noise is more than a calibration to the target finds: a little less would meet it too.

    Guarantee: of noise that `calibrate` returns it is false; of noise a thousandth above the least that meets the
    target it is true. It is one epsilon where a calibration is a search.

    Args:
        noise: The multiplier that is said.
        target_epsilon: Above 0.
        delta: In (0, 1).
        planned: All that a run is charged as at a noise multiplier, whose epsilon falls as that rises.
    """
    less = max(LEAST_NOISE, noise * (1 - _TO_SPARE))
    return less < noise and epsilon(planned(less), delta, FINE_GRID) <= target_epsilon


def _check_ranges(target_epsilon: float, sample_rate: float, steps: int, max_records: int) -> None:
    if not 0 < target_epsilon < math.inf:
        raise ConfigError(f"epsilon = {target_epsilon} is out of range; it is a positive number")
    if not LEAST_RATE <= sample_rate <= 1:
        raise ConfigError(f"sample rate = {sample_rate} is out of range; it lies between {LEAST_RATE:g} and 1")
    if not 1 <= steps <= MOST_STEPS:
        raise ConfigError(f"steps = {steps} is out of range; from 1 to {MOST_STEPS} are accounted for")
    if not 1 <= max_records <= MOST_RECORDS:
        raise ConfigError(f"max_records = {max_records} is out of range; from 1 to {MOST_RECORDS} are accounted for")
