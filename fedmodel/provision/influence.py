"""How much of a sum is one silo's, by the public figures of a scenario: what masks can hide an update among.

Masks hide an update among the others of a sum only while the others are there. Three public figures of each silo scale
its update against the others', and who writes a scenario chooses all of them:

    weight                  multiplies the update before it is quantised
    expected_batch_size     divides a step of plain SGD; Adam and Adagrad divide by what they have accumulated instead
    sample_rate             gives the number of steps, where it is said in epochs: gradients of one direction grow with
                            it, and with momentum faster; independent noise grows with its root

Guarantee, for every list of survivors that `unevenness` finds nothing in:
- the weights are worth at least `least_effective_silos` equal ones (`fedmodel.secagg.weights`);
- whichever silos of it work with the server, `colluding` of them or fewer, the others are worth at least
  `BEYOND_COLLUDERS` equal ones (or as many as the law asks for, where that is less): of two silos, none has more than
  3.7 times the other's. That holds of three figures, each apart: the weights; noise, which moves a weighed update by
  independent steps of one size; signal, clipped gradients of one direction and size at every step of a round. With
  plain SGD the last two are exact, momentum included, and where it is kept between rounds signal is the most that any
  history allows; with Adam and Adagrad they count steps of equal length.

And no silo quantises its update to nothing: noise of one step, weighed, is at least a level of the quantiser
(`levels_of_noise`).

Does NOT bound what records make of an update: a silo of a thousand records in a lot where ten were declared moves a sum
a hundred times as far. Nor how long a step of Adam or Adagrad is, which hangs on the gradients before it. Noise
multipliers are not counted either: more noise at one silo hides that silo's own records.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from fedmodel.config import Scenario
from fedmodel.errors import ConfigError
from fedmodel.privacy.rounding import down
from fedmodel.secagg import least_effective
from fedmodel.secagg.quantize import Quantizer

BEYOND_COLLUDERS: Final = 1.5


def unevenness(
    scenario: Scenario, silos: Collection[str], least: float, colluding: int, leaving: int = 0
) -> str | None:
    """Return why a sum of these silos' updates could be nearly one update, in words, or None where it could not.

    Args:
        scenario: Whose weights, denominators and steps.
        silos: In the sum. One that is not in the scenario has no part in it.
        least: The law's `least_effective_silos`.
        colluding: c, silos that may work with the server.
        leaving: Any so many of the silos may be left out; the least even list that is left counts.
    """
    federation = scenario.federation
    known = set(federation.silos)
    members = [silo for silo in silos if silo in known]
    weights = [federation.weight(silo) for silo in members]
    found = least_effective(weights, leaving)
    if found < least:
        return f"their weights are worth {down(found, 2)} equal silos, where {least:g} are needed"
    noise, signal = zip(*(_moves(scenario, silo) for silo in members), strict=True)
    figures = {
        "weights": weights,
        "moves by noise": _products(weights, noise),
        "moves by gradients of one direction": _products(weights, signal),
    }
    needed = min(least, BEYOND_COLLUDERS)
    for what, values in figures.items():
        found = least_effective(values, leaving + colluding)
        if found < needed:
            less = f", less any {colluding} of them that work with the server," if colluding else ""
            return f"their {what}{less} are worth {down(found, 2)} equal silos, where {needed:g} are needed"
    return None


def check_even(scenario: Scenario, least: float, colluding: int) -> None:
    """Refuse a scenario of which some whole cohort could not be summed.

    Raises:
        ConfigError: When in one of them a single update could stand out.
    """
    federation = scenario.federation
    leaving = len(federation.silos) - federation.cohort_size
    found = unevenness(scenario, federation.silos, least, colluding, leaving)
    if found is not None:
        raise ConfigError(
            f"a sum of {federation.cohort_size} silos could be nearly one silo's update: {found}; bring"
            " federation.weights, or privacy.silo's expected_batch_size and sample_rate, closer together"
        )


def check_levels(scenario: Scenario, silo: str, noise_multiplier: float, quantizer: Quantizer) -> None:
    """Refuse a silo whose update would be quantised to nothing, noise and all.

    Raises:
        ConfigError: When noise of one step is less than a level of the quantiser.
    """
    levels = levels_of_noise(scenario, silo, noise_multiplier, quantizer)
    if levels < 1:
        raise ConfigError(
            f"noise of one step at silo {silo!r}, weighed, is {levels:.2g} of a level of the quantiser, so that its"
            " update would be rounded to nothing; lower encryption.bound, take ring_bits = 32, or raise its weight"
        )


def levels_of_noise(scenario: Scenario, silo: str, noise_multiplier: float, quantizer: Quantizer) -> float:
    """Return the standard deviation of one step's noise in a weighed update, in levels of the quantiser."""
    plan = scenario.plan(silo)
    noise = noise_multiplier * plan.max_grad_norm / plan.expected_batch_size
    return scenario.training.noise_step(noise) * scenario.federation.relative_weight(silo) * quantizer.scale


def _moves(scenario: Scenario, silo: str) -> tuple[float, float]:
    """Return what noise, and what clipped gradients of one direction, move at a silo in a round.

    Each to a factor that all silos have in common, and weights apart.
    """
    plan, training = scenario.plan(silo), scenario.training
    divisor = plan.expected_batch_size if training.optimizer == "sgd" else 1
    noise, signal = _momentum_sums(plan.steps_per_round, training.momentum)
    if training.keep_optimizer_state:
        signal = plan.steps_per_round / (
            1 - training.momentum
        )  # of a velocity that earlier rounds brought to its limit
    return noise / divisor, signal / divisor


@lru_cache(maxsize=4096)
def _momentum_sums(steps: int, momentum: float) -> tuple[float, float]:
    """Return how far so many steps of SGD go by independent gradients, one standard deviation, and by equal ones.

    The gradient of the i-th step from the end moves by r = 1 + m + ... + m^(i - 1) in all. Row by row the matrix takes
    the sum of r^2, r^2, r, the sum of r, and 1 one step on. Nothing in it is negative, so nothing cancels.
    """
    m = momentum
    step = np.array(
        [
            [1, m * m, 2 * m, 0, 1],
            [0, m * m, 2 * m, 0, 1],
            [0, 0, m, 0, 1],
            [0, 0, m, 1, 1],
            [0, 0, 0, 0, 1],
        ]
    )
    squares, _, _, total, _ = np.linalg.matrix_power(step, steps)[:, -1]
    return math.sqrt(squares), float(total)


def _products(weights: Sequence[float], factors: Sequence[float]) -> list[float]:
    return [weight * factor for weight, factor in zip(weights, factors, strict=True)]
