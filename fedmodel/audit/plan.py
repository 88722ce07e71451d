"""What an audit will test, fixed before the run: canaries, guesses, significance, statistic, and what it could find.

Guarantee: a plan's hash names everything that the verdict hangs on but the observations themselves: how many canaries
each silo has, how many guesses are made, how a canary is scored, what is tested and at what significance, and the
number of correct guesses that refutes the claim. Entered in the silos' ledgers before their first charge, it leaves
nothing to choose afterwards.

The claim that is tested is of all silos' canaries together. Each lies in one silo, so that to add or remove one is to
change one silo's data, and whatever the silos release together is as private as the least private of them (parallel
composition). The test is against the Gaussian trade-off curve of the largest claim, mu-GDP, which every mechanism that
keeps its claim is at least as private as; the verdict needs no model of scores.

Power is the chance that the claim is refuted though every silo's noise is only half of what was claimed, found by
simulating the mechanism; for probe canaries that is what an observer really sees. An audit of less power than
`LEAST_POWER` says nothing either way.

Does NOT say that a claim is true: a fault that shows on no canary is not found.

Shapes: M canaries of all silos, S simulated runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedmodel.audit.guesses import least_correct
from fedmodel.canaries.observations import Observations
from fedmodel.crypto import digest
from fedmodel.errors import ConfigError
from fedmodel.seeds import derive_seed

LEAST_POWER: Final = 0.8
SIGNIFICANCE: Final = 0.05
MOST_SIGNIFICANCE: Final = 0.1
LESS_NOISE: Final = 0.5  # of the claimed, what power is against

_LABEL: Final = b"fedmodel/v1/audit-plan"
RUNS: Final = 400
_SHARES: Final = tuple(share / 20 for share in range(1, 21))  # of the canaries, that are guessed about
STATISTIC: Final = "f-DP, one run (Mahloujifar, Melis and Chaudhuri 2024), of the largest and smallest scores"


@dataclass(frozen=True)
class SiloCanaries:
    """One silo's canaries, and the mechanism that is claimed for them.

    Attributes:
        silo: Its name.
        canaries: How many, in and out together.
        noise_multiplier: Standard deviation of the noise over the clip.
        rate: With which the sampler draws a record.
        steps: Of the whole plan.
        max_records: Records of one canary.
        epsilon: What the plan spends, at `delta`.
        delta: Of the claim.
        mu: Of the plan.
    """

    silo: str
    canaries: int
    noise_multiplier: float
    rate: float
    steps: int
    max_records: int
    epsilon: float
    delta: float
    mu: float


@dataclass(frozen=True)
class Plan:
    """What will be tested.

    Attributes:
        scenario: Hash of the scenario with its canaries, in hexadecimal.
        kind: "probe" or "loss".
        silos: Their canaries, by name.
        guesses: Made about all silos' canaries together; even.
        significance: Of the test.
        needed: Correct guesses from which on the claim is refuted; one more than there are guesses where none refute.
        power: Chance of a refutation at `LESS_NOISE` of the noise.
        statistic: What is computed.
        less_noise: `LESS_NOISE`.
        least_power: `LEAST_POWER`.
        runs: Simulated for the power.
    """

    scenario: str
    kind: Literal["probe", "loss"]
    silos: tuple[SiloCanaries, ...]
    guesses: int
    significance: float
    needed: int
    power: float
    statistic: str = STATISTIC
    less_noise: float = LESS_NOISE
    least_power: float = LEAST_POWER
    runs: int = RUNS

    @property
    def canaries(self) -> int:
        """M."""
        return sum(silo.canaries for silo in self.silos)

    @property
    def epsilon(self) -> float:
        """The largest of the silos' claims, which holds for all of them together at `delta`."""
        return max(silo.epsilon for silo in self.silos)

    @property
    def delta(self) -> float:
        """The largest delta of a silo's claim."""
        return max(silo.delta for silo in self.silos)

    @property
    def mu(self) -> float:
        """The largest mu of a silo's plan."""
        return max(silo.mu for silo in self.silos)

    def document(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return found

    @property
    def hash(self) -> str:
        """The hash of all of it, in hexadecimal."""
        return plan_hash(self.document())


def plan_hash(document: dict[str, Any]) -> str:
    """Return the hash of a plan's document, in hexadecimal."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return digest(_LABEL, text.encode()).hex()


def make_plan(
    scenario: str, kind: Literal["probe", "loss"], silos: Sequence[SiloCanaries], significance: float = SIGNIFICANCE
) -> Plan:
    """Fix the number of guesses, and say what they could find.

    Of the shares of canaries that could be guessed about, that one is taken with which the number of correct guesses
    lies furthest above what refutes the claim, in standard deviations, were the noise `LESS_NOISE` of what is claimed.

    Args:
        scenario: Hash of the scenario, in hexadecimal.
        kind: Of canaries.
        silos: Their canaries, one silo at least.
        significance: Over 0, up to `MOST_SIGNIFICANCE`.

    Returns:
        The plan; the same for the same arguments. Its power is that of probe canaries: what loss canaries could find is
        for who can train to find out (`with_power`).

    Raises:
        ConfigError: When there are too few canaries to guess about, or the significance is none.
    """
    if not 0 < significance <= MOST_SIGNIFICANCE:
        raise ConfigError(
            f"significance = {significance} is out of range; it is over 0, and at most {MOST_SIGNIFICANCE:g}"
        )
    total, mu = sum(silo.canaries for silo in silos), max(silo.mu for silo in silos)
    if total < 20:
        raise ConfigError(f"{total} canaries are too few to tell anything; take 20 at least, and 1,000 to tell much")
    ranked_SM = _ranked(*_simulated(silos, scenario, "guesses"))
    best: tuple[float, int, int] | None = None
    for share in _SHARES:
        guesses = max(2, min(2 * round(share * total / 2), total - total % 2))
        needed = least_correct(total, guesses, mu, significance)
        correct_S = _correct(ranked_SM, guesses)
        margin = (float(correct_S.mean()) - needed) / max(float(correct_S.std()), 0.5)
        if best is None or margin > best[0]:
            best = (margin, guesses, needed)
    assert best is not None  # noqa: S101 - there is a share
    plan = Plan(scenario, kind, tuple(silos), best[1], significance, best[2], 0.0)
    return replace(plan, power=power_of(plan, silos))


def power_of(plan: Plan, silos: Sequence[SiloCanaries]) -> float:
    """Return the chance that a plan's test refutes at `LESS_NOISE` of the noise, by simulation.

    Args:
        plan: Gives guesses and what they must reach.
        silos: Its canaries, with the steps that are asked about: planned, or really taken.
    """
    # Other runs than those that the number of guesses was chosen by, which look better than they are.
    correct_S = _correct(_ranked(*_simulated(silos, plan.scenario, "power")), plan.guesses)
    return float((correct_S >= plan.needed).mean())


def with_power(plan: Plan, correct: Sequence[int]) -> Plan:
    """Return the plan with the power that trained runs at `LESS_NOISE` of the noise found.

    Args:
        plan: Of loss canaries.
        correct: Correct guesses of each such run, two at least. A normal distribution is laid through them, whose mean
            is a standard error under theirs: so few runs could have been lucky ones.
    """
    spread = max(float(np.std(correct, ddof=1)), 0.5)
    mean = float(np.mean(correct)) - spread / math.sqrt(len(correct))
    power = 0.5 * math.erfc((plan.needed - 0.5 - mean) / spread / math.sqrt(2))
    return replace(plan, power=power, runs=len(correct))


def score(seen: Observations, silo: SiloCanaries, max_grad_norm: float) -> NDArray[np.float64]:
    """Return a probe canary's score, shape `(K,)`, by what its coordinate was seen to hold over all steps.

    It is the logarithm of a likelihood ratio under the claimed mechanism, its counts of draws taken at their mean: the
    sum over the steps, shifted and scaled by public figures, so that scores of silos with other noise can be compared.

    Args:
        seen: What the silo's audit saw.
        silo: What is claimed for it.
        max_grad_norm: The clip C.
    """
    sums_K = seen.sums_TK.astype(np.float64).sum(axis=0) / max_grad_norm
    return _log_ratio(sums_K, silo, len(seen.sums_TK))


def _log_ratio(sums: NDArray[np.float64], silo: SiloCanaries, steps: int) -> NDArray[np.float64]:
    """Return the logarithm of N(m, v)'s density over N(0, v)'s: m what a canary adds up to, v the noise's variance."""
    expected, variance = steps * silo.rate * silo.max_records, max(steps, 1) * silo.noise_multiplier**2
    ratio: NDArray[np.float64] = (sums * expected - expected**2 / 2) / variance
    return ratio


def _simulated(
    silos: Sequence[SiloCanaries], scenario: str, purpose: str
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return coins and scores of runs of the mechanism with less noise, each of shape `(S, M)`."""
    rng = np.random.default_rng(derive_seed(int(scenario[:15], 16), "audit-simulation", purpose))
    coins, scores = [], []
    for silo in silos:
        shape = (RUNS, silo.canaries)
        coins_SK = rng.random(shape) < 0.5
        drawn_SK = rng.binomial(silo.steps * silo.max_records, silo.rate, shape)
        noise_SK = rng.normal(0.0, LESS_NOISE * silo.noise_multiplier * math.sqrt(silo.steps), shape)
        coins.append(coins_SK)
        scores.append(_log_ratio(coins_SK * drawn_SK + noise_SK, silo, silo.steps))
    return np.concatenate(coins, axis=1), np.concatenate(scores, axis=1)


def _ranked(coins_SM: NDArray[np.bool_], scores_SM: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return each run's coins in the order of its scores, the smallest first."""
    ranked_SM: NDArray[np.bool_] = np.take_along_axis(coins_SM, np.argsort(scores_SM, axis=1), axis=1)
    return ranked_SM


def _correct(ranked_SM: NDArray[np.bool_], guesses: int) -> NDArray[np.int64]:
    """Return how many of a run's guesses are right: its largest scores are guessed in, its smallest out."""
    half = guesses // 2
    correct_S: NDArray[np.int64] = (~ranked_SM[:, :half]).sum(axis=1) + ranked_SM[:, -half:].sum(axis=1)
    return correct_S
