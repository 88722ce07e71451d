"""The section on the mechanism: what was done to records, as planned and as charged."""

from __future__ import annotations

from pydantic import Field

from fedmodel.privacy.events import NoiseSourceName
from fedmodel.privacy.mechanisms import MECHANISMS
from scenarios.report.document.forms import MechanismName, Questions
from scenarios.runs.parts import Part


class PhaseMechanism(Part):
    """One phase of a silo's training, where lots grew; what was charged is null where nothing of it was.

    Attributes:
        from_round: The first round that belongs to it.
        sample_rate_planned: Each record's chance to be in a lot.
        sample_rate_realised: With what the sampler really drew.
        steps_planned: Of the whole phase.
        steps_charged: Noised sums, empty lots included.
        denominator_planned: The public divisor of the plan.
        denominator: As charged.
    """

    from_round: int
    sample_rate_planned: float
    sample_rate_realised: float | None
    steps_planned: int
    steps_charged: int
    denominator_planned: int
    denominator: int | None


class SiloMechanism(Part):
    """One silo's mechanism, as planned and as charged; what was charged is null where it released nothing.

    Where lots grew, its rates and divisors are those of the first phase, and `phases` has all of them.

    Attributes:
        silo: Its name.
        mechanism: What was planned; "none-unsafe" where no noise is added, which protects nobody.
        noise_multiplier_planned: Noise over the clip that the plan needs.
        noise_multiplier: As charged.
        max_grad_norm_planned: The clip of the plan; null where gradients are not clipped.
        max_grad_norm: As charged.
        sample_rate_planned: Each record's chance to be in a lot.
        sample_rate_realised: With what the sampler really drew.
        steps_planned: Of the whole run.
        steps_charged: Noised sums, empty lots included.
        rounds_charged: Rounds.
        denominator_planned: The public divisor of the plan.
        denominator: As charged.
        sampler: How lots were drawn.
        noise_source: Where noise was drawn from.
        weight: Of the silo in the average, public.
        phases: A row for each, where lots grew; left out where they did not.
    """

    silo: str
    mechanism: MechanismName
    noise_multiplier_planned: float
    noise_multiplier: float | None
    max_grad_norm_planned: float | None
    max_grad_norm: float | None
    sample_rate_planned: float
    sample_rate_realised: float | None
    steps_planned: int
    steps_charged: int
    rounds_charged: int
    denominator_planned: int
    denominator: int | None
    sampler: str | None
    noise_source: NoiseSourceName | None
    weight: float
    phases: tuple[PhaseMechanism, ...] = Field(default=(), exclude_if=lambda phases: not phases)


class Dropout(Part):
    """A silo that did not answer.

    Attributes:
        silo: Its name.
        code: Why, as a code.
        rounds: How often.
    """

    silo: str
    code: str
    rounds: int


class Withdrawal(Part):
    """A silo that left.

    Attributes:
        silo: Its name.
        code: Why, as a code.
        round: When.
    """

    silo: str
    code: str
    round: int


class Mechanism(Part):
    """What was done to records, as planned and as charged.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        description: In a sentence.
        sensitivity: How what one unit can do is bounded.
        sampling: How lots were drawn, and what that is worth.
        side_channels: What is done about floating point, timing and counts, and what is not.
        silos: A row each.
        rounds_planned: Of the scenario.
        rounds_completed: That changed the model.
        rounds_failed: That failed closed.
        ended_early: Why there are fewer than planned; null where there are not.
        dropouts: Who did not answer, and how often.
        withdrawn: Who left.
    """

    nist: Questions = (
        "Which mechanism is it, and is its sensitivity bounded?",
        "How are records sampled, and is that accounted for?",
        "What of side channels and floating point?",
    )
    description: str
    sensitivity: str
    sampling: str
    side_channels: str
    silos: tuple[SiloMechanism, ...]
    rounds_planned: int
    rounds_completed: int
    rounds_failed: int
    ended_early: str | None
    dropouts: tuple[Dropout, ...]
    withdrawn: tuple[Withdrawal, ...]

    @property
    def is_baseline(self) -> bool:
        """Whether no noise was to be added, so that the run protects nobody."""
        return any(not MECHANISMS[one.mechanism].protects for one in self.silos)
