"""What one silo is asked to do over a whole run, in figures: what a mechanism plans its event from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fedmodel.privacy.events import Baseline, NoiseSourceName, UnitName


class Lots(NamedTuple):
    """Steps whose lots are drawn at one rate.

    Attributes:
        sample_rate: The Poisson rate, public.
        steps: How many.
        divisor: Of their sums, public. It changes nothing of what they cost, and whoever asks for that leaves it out.
    """

    sample_rate: float
    steps: int
    divisor: int = 1


@dataclass(frozen=True)
class SiloPlan:
    """What one silo is asked to do over a whole run: the figures its claim is calibrated from.

    Of a run whose lots grow it is one phase: its sample rate, divisor, steps and rounds are that phase's, and a target
    is of all that `lots` says.

    Attributes:
        silo: The silo's name.
        data: The data set.
        unit: The privacy unit; neighbours differ by adding or removing one of these.
        max_records: Most records of one unit that are trained on.
        delta: The delta of the claim.
        epsilon: The target, or None where the noise multiplier is given.
        noise_multiplier: The noise's standard deviation over the clip, or None where a target is given.
        max_grad_norm: The clip C, in the L2 norm of one record's gradient.
        sample_rate: The Poisson rate q of every lot, public.
        expected_batch_size: The public denominator of every step.
        steps_per_round: DP-SGD steps in one round.
        rounds: Rounds in the run, at most.
        noise: Where lots and noise are drawn from.
        baseline: What is left out of the run, which then protects nobody; None where nothing is.
        mechanism: What the silo releases by, where nothing is left out.
        besides: Noise multipliers of what the run releases besides, a sum over all records each; a target is of all.
        lots: Every phase's rate, steps and divisor, in order, this one's too, where lots grow; else nothing, and the
            plan is all that is trained.
    """

    silo: str
    data: str
    unit: UnitName
    max_records: int
    delta: float
    epsilon: float | None
    noise_multiplier: float | None
    max_grad_norm: float
    sample_rate: float
    expected_batch_size: int
    steps_per_round: int
    rounds: int
    noise: NoiseSourceName
    baseline: Baseline | None = None
    mechanism: str = "dp-sgd"
    besides: tuple[float, ...] = ()
    lots: tuple[Lots, ...] = ()

    @property
    def target_epsilon(self) -> float | None:
        """The target that a run aims at: a baseline, whose `epsilon` is of the run that it is beside, has none."""
        return self.epsilon if self.baseline is None else None

    @property
    def steps(self) -> int:
        """Steps of the whole run; of its phase, where lots grow."""
        return self.steps_per_round * self.rounds

    @property
    def largest_lot(self) -> int:
        """Records that the largest lot is expected to have: the divisor, or what it grows to."""
        return self.lots[-1].divisor if self.lots else self.expected_batch_size

    @property
    def trained(self) -> tuple[Lots, ...]:
        """All that the run trains, by rate: this plan's own steps, or every phase's."""
        return self.lots or (Lots(self.sample_rate, self.steps),)
