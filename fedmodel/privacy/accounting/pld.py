"""The claim of a plan that was fixed in advance: epsilon, the curve of delta, and what may be read off it.

Guarantee: every figure is an upper bound, floating point included, on any grid. Lots that take every record are one
Gaussian release, of which delta is known in closed form (`gaussian`). Of others, privacy loss distributions (Koskela et
al. 2020) are discretised so that they dominate what they stand for (`cells`), and composed with the error of the
composition counted outwards (`composition`).

What it does NOT cover: plans that are chosen by looking at earlier releases
(`fedmodel.privacy.accounting.renyi_filter`), and the steps that a run took until somebody ended it by looking
(`fedmodel.privacy.accounting.odometer`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, Literal, get_args

import numpy as np

from fedmodel.errors import ConfigError
from fedmodel.privacy.accounting import gaussian
from fedmodel.privacy.accounting.cells import discretise
from fedmodel.privacy.accounting.composition import Composition, Part, tilt_for
from fedmodel.privacy.accounting.mixture import UNIT, Floats, log_moment, loss_deviation, mixture
from fedmodel.privacy.events import LEAST_DELTA, Event, bounded
from fedmodel.privacy.primitives import SampledGaussian

ACCOUNTANT = "pld"
FINE_GRID = 1e-4
COARSE_GRID = 1e-3

_LARGEST_LOSS = 1_000.0  # past which a privacy loss distribution may outgrow memory
_POWERS = (1.0, 0.3, 0.1, 0.03, 0.01)
_TAIL = math.log(1e15)
_CELLS = 4_096
_COMPOSED = 2**20  # widths of the grid within twenty standard deviations of all loss, at most
_TABLED = 2**23  # numbers to find one step's cells, at most
_MOST_CELLS = 2**20
_LEAST_WIDTH = 1e-12  # of a grid: finer than rounding it would gain nothing
_TILTS = (0.0, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)  # of the one that moves a delta of 10^-12 into the middle
_CLOSE = 1e-6  # of delta: how much of it may be error before it is composed again under a larger tilt
_LARGEST_MU = 64.0

_REFUSED = {
    "replace-one": "dp_accounting's Rényi accountant takes it for adding or removing one, at half its sensitivity:"
    " noise 8 over 50 full lots reads 4.11 at delta 1e-5 where 8.60 is true",
    "without-replacement": "with lots of a fixed size one record's presence drives another out, which moves the sum by"
    " two clips: noise 1 and rate 0.01 over 500 steps reads 2.54 at delta 1e-5 where 10.06 is a lower bound",
}

_Plan = tuple[tuple[SampledGaussian, int], ...]
_Direction = Literal["remove", "add"]
_DIRECTIONS: Final = get_args(_Direction)


def check_supported(adjacency: str, sampler: str) -> None:
    """Refuse what is not accounted for, and say why.

    Args:
        adjacency: How neighbours differ; "add-or-remove-one" is accounted for.
        sampler: How lots are drawn; "poisson" is accounted for.

    Raises:
        ConfigError: For any other of either.
    """
    for found, supported in ((adjacency, "add-or-remove-one"), (sampler, "poisson")):
        if found != supported:
            reason = _REFUSED.get(found, "no bound for it is known here")
            raise ConfigError(f"{found!r} is not accounted for: {reason}; use {supported!r}")


def epsilon(events: Iterable[Event], delta: float, grid: float = FINE_GRID) -> float:
    """Return an upper bound on epsilon for all the events together.

    Args:
        events: What was run on one data set, in any order; of one privacy unit, with one `max_records`.
        delta: In (0, 1).
        grid: Width of the discretisation of privacy loss, at most: it is finer where one step's loss is narrower than
            a few of it. `COARSE_GRID` is several times faster and slightly higher.

    Returns:
        Epsilon, 0 for no events; infinity where nothing bounds one of them, and where losses past 1,000 are likely,
        where none is computed though one may hold.

    Raises:
        ConfigError: When delta is out of range, or the events are of different units.
    """
    _check_delta(delta)
    parts = bounded(events)
    return math.inf if parts is None else _epsilon(_plan(parts), delta, grid)


def epsilon_of(parts: Iterable[tuple[SampledGaussian, int]], delta: float, grid: float = FINE_GRID) -> float:
    """Return what `epsilon` does, of primitives that belong to no event yet, as while their noise is sought."""
    _check_delta(delta)
    return _epsilon(_plan(parts), delta, grid)


def deltas(events: Iterable[Event], epsilons: Sequence[float], grid: float = FINE_GRID) -> list[float]:
    """Return an upper bound on delta for all the events together, at each epsilon.

    Args:
        events: As for `epsilon`.
        epsilons: Each at least 0.
        grid: As for `epsilon`.

    Returns:
        One delta in [0, 1] for each epsilon; 1 where nothing bounds one of the events, or `epsilon` would be infinite
        for want of memory.

    Raises:
        ConfigError: When an epsilon is out of range, or the events are of different units.
    """
    for value in epsilons:
        if not 0 <= value < math.inf:
            raise ConfigError(f"epsilon = {value} is out of range; a curve of delta is read at epsilons from 0")
    parts = bounded(events)
    if parts is None:
        return [1.0] * len(epsilons)
    plan = _plan(parts)
    if not plan or not epsilons:
        return [0.0] * len(epsilons)
    if _is_far_out(plan):
        return [1.0] * len(epsilons)
    # Past 700 e^epsilon overflows, and delta does not rise.
    return list(_deltas(plan, tuple(min(float(value), 700.0) for value in epsilons), grid))


def advantage(events: Iterable[Event], grid: float = FINE_GRID) -> float:
    """Return an upper bound on the advantage of any attack on membership: true positive less false positive rate.

    It is delta at epsilon 0, the total variation between what neighbouring data sets release.
    """
    return deltas(events, [0.0], grid)[0]


def gdp_mu(events: Iterable[Event], floor: float, grid: float = FINE_GRID) -> float:
    """Return mu such that the events are as private as mu-GDP, except where delta is below a floor.

    Guarantee: at every epsilon >= 0 where the events' delta is at least the floor, it is at most that of one Gaussian
    release of sensitivity mu (Dong, Roth and Su 2022, corollary 2.13). Below the floor nothing is said: the tail of
    sampled lots is heavier than any Gaussian's, so without a floor there may be no mu (compare the regret of Gomez et
    al. 2025, arXiv 2503.10945). The floor belongs to the figure; say it wherever mu is said.

    Args:
        events: As for `epsilon`.
        floor: The least delta that mu answers for, in [10^-12, 1).
        grid: As for `epsilon`.

    Returns:
        The least such mu nearly: delta is read at 4,096 epsilons, and between two of them the higher delta must be met
        at the higher epsilon. 0 where delta is below the floor everywhere; infinity where none up to 64 is found.

    Raises:
        ConfigError: When the floor is out of range, or the events are of different units.
    """
    if not LEAST_DELTA <= floor < 1:
        raise ConfigError(f"floor = {floor} is out of range; it lies between {LEAST_DELTA:g} and 1")
    parts = bounded(events)
    return math.inf if parts is None else _gdp_mu(_plan(parts), floor, grid)


@lru_cache(maxsize=4096)
def _gdp_mu(plan: _Plan, floor: float, grid: float) -> float:
    """Find mu; cached, since silos that run alike ask alike."""
    last = _epsilon(plan, floor, grid)
    if last == math.inf:
        return math.inf
    # Closer where epsilon is small and delta changes most; and one cell past the end, for the end itself.
    nodes = max(last, grid) * (np.arange(_CELLS + 2) / _CELLS) ** 2
    curve = _deltas_at(plan, np.minimum(nodes[:-1], 700.0), grid) if plan else np.zeros(_CELLS + 1)
    matters = curve >= floor
    if not matters.any():
        return 0.0
    high = nodes[1:][matters]
    asked = curve[matters] * (1 + 1e-12)  # above the rounding of what it is compared with

    def suffices(mu: float) -> bool:
        return bool(np.all(gaussian.delta(mu, high) >= asked))

    upper = 1e-6
    while not suffices(upper):
        upper *= 2
        if upper > _LARGEST_MU:
            return math.inf
    lower = upper / 2
    for _ in range(40):
        middle = (lower + upper) / 2
        lower, upper = (lower, middle) if suffices(middle) else (middle, upper)
    return upper


def forget() -> None:
    """Forget what was computed; for who changes the code underneath, to see it noticed."""
    for cached in (_epsilon, _deltas, _gdp_mu, _composed):
        cached.cache_clear()


def _check_delta(delta: float) -> None:
    if not LEAST_DELTA <= delta < 1:
        raise ConfigError(f"delta = {delta} is out of range; it lies between {LEAST_DELTA:g} and 1")


def _plan(parts: Iterable[tuple[SampledGaussian, int]]) -> _Plan:
    """Count the steps of each kind."""
    counts: Counter[SampledGaussian] = Counter()
    for step, count in parts:
        counts[step] += count
    units = sorted({step.records for step in counts})
    if len(units) > 1:
        raise ConfigError(
            f"events of units with at most {units[0]} and at most {units[-1]} records were put together; epsilons of"
            " different units are never added, so ask for each unit on its own"
        )
    return tuple(sorted(counts.items()))


@lru_cache(maxsize=4096)
def _epsilon(plan: _Plan, delta: float, grid: float) -> float:
    """Read epsilon off the composition; cached, since silos that run alike ask alike."""
    if not plan:
        return 0.0
    if _is_far_out(plan):
        return math.inf  # an upper bound all the same, and no memory is spent on its tail
    if all(step.rate == 1 for step, _ in plan):
        return gaussian.epsilon(_mu(plan), delta)
    return max(_read(plan, grid, direction, delta) for direction in _DIRECTIONS)


def _read(plan: _Plan, grid: float, direction: _Direction, delta: float) -> float:
    """Read one direction's epsilon: the smallest, since under each tilt it is a bound."""
    found = math.inf
    for share in _TILTS:
        whole = _composed(plan, grid, direction, share)
        found = min(found, whole.epsilon(delta))
        if found == 0 or (found < math.inf and whole.error(np.array([found]))[0] <= _CLOSE * delta):
            break
    return found


@lru_cache(maxsize=256)
def _deltas(plan: _Plan, epsilons: tuple[float, ...], grid: float) -> tuple[float, ...]:
    """Return the curve of delta at some epsilons; cached, since silos that run alike ask alike."""
    return tuple(_deltas_at(plan, np.array(epsilons, dtype=np.float64), grid).tolist())


def _deltas_at(plan: _Plan, epsilons: Floats, grid: float) -> Floats:
    """Read the curve of delta off compositions around as many places as it needs, each of them a bound everywhere."""
    if all(step.rate == 1 for step, _ in plan):
        return gaussian.delta(_mu(plan), epsilons)
    return np.maximum(*(_curve(plan, grid, direction, epsilons) for direction in _DIRECTIONS))


def _curve(plan: _Plan, grid: float, direction: _Direction, epsilons: Floats) -> Floats:
    """Read one direction's deltas: the smallest, since under each tilt they are bounds."""
    found = np.ones_like(epsilons)
    for share in _TILTS:
        whole = _composed(plan, grid, direction, share)
        found = np.minimum(found, whole.delta(epsilons))
        if np.all(whole.error(epsilons) <= _CLOSE * np.maximum(found, LEAST_DELTA)):
            break
    return found


def _mu(plan: _Plan) -> float:
    """Return the mu of one Gaussian release that full lots together are, rounded up."""
    return math.sqrt(math.fsum(count * (step.records / step.noise) ** 2 for step, count in plan)) * (1 + 8 * UNIT)


def _is_far_out(plan: _Plan) -> bool:
    """Whether losses past `_LARGEST_LOSS` are likely enough to be kept in memory: by Chernoff's bound, roughly."""
    if any(step.rate < 1 and mixture(step).losses[-1] > _LARGEST_LOSS for step, _ in plan):
        return True
    reach = min((sum(log_moment(step, power) * count for step, count in plan) + _TAIL) / power for power in _POWERS)
    return reach > _LARGEST_LOSS


@lru_cache(maxsize=16)
def _composed(plan: _Plan, grid: float, direction: _Direction, share: float) -> Composition:
    """Compose one direction under a share of the largest tilt; few are kept, for one may hold a million numbers."""
    full = tuple((step, count) for step, count in plan if step.rate == 1)
    sampled = tuple((step, count) for step, count in plan if step.rate < 1)
    # All full lots are one, whose noise is rounded down.
    whole = ((SampledGaussian(1.0, full[0][0].records / _mu(full), full[0][0].records), 1),) if full else ()
    width = _width(whole + sampled, grid)
    found = [(discretise(step, width), count) for step, count in whole + sampled]
    parts = [Part(one.remove if direction == "remove" else one.add, count) for one, count in found]
    slack = math.fsum(one.slack * count for one, count in found) * (1 + 4 * UNIT)
    return Composition(parts, width, slack, share * tilt_for(parts, width, LEAST_DELTA) if share else 0.0)


def _width(plan: _Plan, grid: float) -> float:
    """Return the grid to compose on: the given one, halved until steps keep their shape, doubled until all fits.

    Connecting the dots over a width w adds at most w^2 / 4 to the variance of each step's loss, w^2 / 6 where it is
    smooth. Over 10^6 narrow steps that is more than there is, so the width is held to a share of a step's deviation.
    """
    deviation = math.sqrt(math.fsum(count * loss_deviation(step) ** 2 for step, count in plan))
    share = min(0.5, 1000 * grid)
    finest = max(share * deviation / math.sqrt(sum(count for _, count in plan)), _LEAST_WIDTH)
    width = grid * 2.0 ** min(0, math.floor(math.log2(finest / grid)))
    while _is_too_fine(plan, width, deviation):
        width *= 2
    return width


def _is_too_fine(plan: _Plan, width: float, deviation: float) -> bool:
    """Whether a grid has more points than memory and patience are for."""
    if 20 * deviation / width > _COMPOSED:
        return True
    for step, _ in plan:
        pair = mixture(step)
        cells = float(pair.losses[-1] - pair.losses[0]) / width
        if cells > min(_MOST_CELLS, max(_TABLED / len(pair.shifts), 2**14)):
            return True
    return False
