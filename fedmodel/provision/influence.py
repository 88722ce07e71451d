"""How much of a sum is one silo's update, by the public figures of a scenario.

Masks hide an update among the others of a sum only if the others carry weight. Three public figures of each silo scale
its update against the others, and whoever writes a scenario chooses all of them:

    weight                  multiplies the update before it is quantised
    expected_batch_size     divides a step of plain SGD; Adam and Adagrad divide by what they have accumulated instead
    sample_rate             gives the number of steps, if that is stated in epochs: gradients of one direction grow with
                            it, and with momentum faster; independent noise grows with its root

Guarantee, for every list of survivors for which `unevenness` returns None:
- the weights are worth at least `least_effective_silos` equal ones (`fedmodel.secagg.weights`);
- if any `colluding` silos of the list, or fewer, work with the server, the others are worth at least `BEYOND_COLLUDERS`
  equal ones, or the law's number if that is smaller: of two silos, neither then has more than 3.7 times the other's
  weight. This holds for three figures separately: the weights; noise, which moves a weighted update by independent
  steps of one size; and signal, clipped gradients of one direction and size at every step of a round. With plain SGD,
  noise and signal are exact, momentum and a proximal term included, and so they are in each round of a schedule, which
  scales all silos' steps alike; beside a proximal term it takes silos that take equally many steps. If momentum is kept
  between rounds, signal is the most that any history allows. With Adam and Adagrad they count steps of equal length.
  Where lots grow it holds in every phase, whose steps and divisors are its own; the history is then that of rounds of
  the same phase.

And no silo quantises its update to nothing, if `levels_of_noise` is at least 1: then the weighted noise of one step is
at least one level of the quantiser.

Does NOT bound how far records move an update: a silo with a thousand records in a lot where ten were declared moves a
sum a hundred times as far. Does NOT bound the length of a step of Adam or Adagrad, which depends on earlier gradients.
Noise multipliers are not counted either: more noise at one silo hides that silo's own records.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np

from fedmodel.config import Scenario
from fedmodel.config.training import TrainingConfig
from fedmodel.errors import ConfigError
from fedmodel.privacy.plan import SiloPlan
from fedmodel.privacy.rounding import down
from fedmodel.secagg import least_effective
from fedmodel.secagg.quantize import Quantizer

BEYOND_COLLUDERS: Final = 1.5


@dataclass(frozen=True)
class _Sum:
    """A sum that is asked about; two are equal whose scenarios say the same."""

    text: str
    scenario: Scenario = field(compare=False)
    silos: tuple[str, ...]
    least: float
    colluding: int
    leaving: int


def unevenness(
    scenario: Scenario, silos: Collection[str], least: float, colluding: int, leaving: int = 0
) -> str | None:
    """Return in words why a sum of these silos' updates could be nearly one update, or None if it could not.

    Of one sum of one scenario it is computed once a process, whichever silos ask.

    Args:
        scenario: Gives weights, denominators and steps.
        silos: The silos in the sum. One that is not in the scenario is ignored.
        least: The law's `least_effective_silos`.
        colluding: c, silos that may work with the server.
        leaving: How many of the silos, any of them, may be left out; the least even remaining list counts.
    """
    return _unevenness(_Sum(scenario.json_text, scenario, tuple(silos), least, colluding, leaving))


@lru_cache(maxsize=64)
def _unevenness(asked: _Sum) -> str | None:
    scenario, federation, least = asked.scenario, asked.scenario.federation, asked.least
    known = set(federation.silos)
    members = [silo for silo in asked.silos if silo in known]
    weights = [federation.weight(silo) for silo in members]
    found = least_effective(weights, asked.leaving)
    if found < least:
        return f"their weights are worth {down(found, 2)} equal silos, where {least:g} are needed"
    figures = [("weights", weights)]
    for part in range(len(scenario.phases)):
        noise, signal = zip(*(_moves(scenario.plan(silo, part), scenario.training) for silo in members), strict=True)
        figures += [
            ("moves by noise", _products(weights, noise)),
            ("moves by gradients of one direction", _products(weights, signal)),
        ]
    needed = min(least, BEYOND_COLLUDERS)
    for what, values in figures:
        found = least_effective(values, asked.leaving + asked.colluding)
        if found < needed:
            less = f", less any {asked.colluding} of them that work with the server," if asked.colluding else ""
            return f"their {what}{less} are worth {down(found, 2)} equal silos, where {needed:g} are needed"
    return None


def check_even(scenario: Scenario, least: float, colluding: int) -> None:
    """Refuse a scenario if some full cohort of it could not be summed.

    Raises:
        ConfigError: When a single update could stand out in one of the cohorts.
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
    """Refuse a silo whose update, or answer besides it, noise included, would be quantised to nothing.

    Raises:
        ConfigError: When noise of one step, or of a job besides training, is less than a level of the quantiser.
    """
    levels = levels_of_noise(scenario, silo, noise_multiplier, quantizer)
    if levels < 1:
        raise ConfigError(
            f"noise of one step at silo {silo!r}, weighed, is {levels:.2g} of a level of the quantiser, so that its"
            " update would be rounded to nothing; lower encryption.bound, take more ring_bits, or raise its weight"
        )
    for job, asked in scenario.besides.items():
        levels = asked.noise_multiplier / asked.bound * quantizer.levels
        if levels < 1:
            raise ConfigError(
                f"noise of job {job!r} is {levels:.2g} of a level of the quantiser, so that an answer would be rounded"
                f" to nothing; lower besides.{job}.bound, or take more ring_bits"
            )


def levels_of_noise(scenario: Scenario, silo: str, noise_multiplier: float, quantizer: Quantizer) -> float:
    """Return the least standard deviation of one step's noise in a weighted update, in levels of the quantiser.

    Where lots grow that is of the largest lots, at the least of all rounds' learning rates.
    """
    plan = scenario.plans(silo)[-1]
    noise = noise_multiplier * plan.max_grad_norm / plan.expected_batch_size
    step = scenario.training.least_rate(scenario.rounds) * scenario.training.noise_step(noise)
    return step * scenario.federation.relative_weight(silo) * quantizer.scale


def _moves(plan: SiloPlan, training: TrainingConfig) -> tuple[float, float]:
    """Return how far noise, and clipped gradients of one direction, move a silo's update in a round of a phase.

    Each figure lacks a factor that all silos have in common, and the silo's weight.
    """
    divisor = plan.expected_batch_size if training.optimizer == "sgd" else 1
    noise, signal = _momentum_sums(plan.steps_per_round, training.momentum, training.pull)
    if training.keep_optimizer_state:
        signal = plan.steps_per_round / (
            1 - training.momentum
        )  # of a velocity that earlier rounds brought to its limit
    return noise / divisor, signal / divisor


@lru_cache(maxsize=4096)
def _momentum_sums(steps: int, momentum: float, pull: float) -> tuple[float, float]:
    """Return how far `steps` steps of SGD move by independent gradients (one standard deviation), and by equal ones.

    A gradient has moved the model by r, i steps after it, at a velocity v: both are 1 after its own step. Each step
    makes the velocity m v - p r, and adds it to r, where a proximal term pulls back by the share p. Without it r is
    1 + m + ... + m^(i - 1), and nothing in the matrices is negative; with it, figures stay bounded, since p is less
    than 2 (1 + m). The rows of the matrices carry r and v, the sum of r, and r^2, r v, v^2 and the sum of r^2 on.
    """
    m, p = momentum, pull
    a = 1 - p
    moved = np.array([[a, m, 0], [-p, m, 0], [a, m, 1]])
    squared = np.array(
        [
            [a * a, 2 * a * m, m * m, 0],
            [-a * p, (a - p) * m, m * m, 0],
            [p * p, -2 * p * m, m * m, 0],
            [a * a, 2 * a * m, m * m, 1],
        ]
    )
    total = np.linalg.matrix_power(moved, steps - 1)[2].sum()
    squares = np.linalg.matrix_power(squared, steps - 1)[3].sum()
    return math.sqrt(squares), abs(float(total))


def _products(weights: Sequence[float], factors: Sequence[float]) -> list[float]:
    return [weight * factor for weight, factor in zip(weights, factors, strict=True)]
