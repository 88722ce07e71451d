"""DP-SGD: Poisson lots, per-record clipping, Gaussian noise on the sum. Abadi et al. 2016, section 3."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, Self

from fedmodel.errors import ConfigError, PolicyRefused
from fedmodel.privacy.events import (
    LEAST_NOISE,
    LEAST_RATE,
    MOST_NOISE,
    Event,
    NoiseSourceName,
    check_lots,
    check_source,
    clip_of,
    is_real,
    realised_rate,
    require,
)
from fedmodel.privacy.mechanisms._mechanism import Facts, Limits
from fedmodel.privacy.mechanisms._sentences import clipped, sampled
from fedmodel.privacy.plan import Lots, SiloPlan
from fedmodel.privacy.primitives import Parts, SampledGaussian

if TYPE_CHECKING:
    from torch import Tensor

    from fedmodel.privacy.noise import NoiseSource

_DESCRIPTION: Final = (
    "DP-SGD (Abadi et al. 2016): Poisson lots, each record's gradient clipped in L2, Gaussian noise on the sum, a"
    " public denominator. Each step is charged to the silo's ledger before records are read for it."
)
_GAINED: Final = "what that gains is accounted for at the rate with which the sampler really draws"


@dataclass(frozen=True)
class DpSgdEvent:
    """Some steps of DP-SGD: Poisson lots, per-record clipping, Gaussian noise on the sum.

    Guarantee: each step is one sampled Gaussian of this noise multiplier, at the rate that is really drawn with. A
    unit's records move a sum by at most `max_records` clips. A mechanism that trains alike and charges for more has an
    event that is made from this one.

    Attributes:
        noise_multiplier: Standard deviation of the noise over `max_grad_norm`, on the sum of clipped gradients.
        max_grad_norm: The clip C in L2.
        sample_rate: The Poisson rate q as planned, in (0, 1]; every lot includes each record independently with
            probability q.
        steps: Noised sums released, at least 1. An empty lot is one of them.
        denominator: The public divisor of every sum.
        noise_source: "os", or "seeded-unsafe" when whoever knows the seed can subtract the noise.
        sampler: How lots were drawn.
        mechanism: The name under which the event is stored.
        realised_sample_rate: The rate with which the sampler really draws, in (0, 1], which is what is accounted for;
            by default what `realised_rate` says.
        max_records: Most records of one privacy unit among those that were trained on.
    """

    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int
    denominator: int
    noise_source: NoiseSourceName = "os"
    sampler: Literal["poisson"] = "poisson"
    mechanism: str = "dp-sgd"
    realised_sample_rate: float = -1.0
    max_records: int = 1

    def __post_init__(self) -> None:
        if self.realised_sample_rate == -1.0:
            object.__setattr__(self, "realised_sample_rate", realised_rate(self.sample_rate, self.noise_source))
        require(
            is_real(self.noise_multiplier) and LEAST_NOISE <= self.noise_multiplier <= MOST_NOISE,
            "noise_multiplier",
            f"a number from {LEAST_NOISE:g} to {MOST_NOISE:g}",
        )
        require(is_real(self.max_grad_norm) and self.max_grad_norm > 0, "max_grad_norm", "a positive number")
        require(self.mechanism == type(self).mechanism, "mechanism", f'"{type(self).mechanism}"')
        check_source(self.noise_source, "noise_source")
        check_lots(self)

    @property
    def drawn_from(self) -> NoiseSourceName:
        """Where lots and dropout masks are drawn from: whence noise is."""
        return self.noise_source

    def parts(self) -> Parts:
        """Return one sampled Gaussian a step."""
        return ((SampledGaussian(self.realised_sample_rate, self.noise_multiplier, self.max_records), self.steps),)

    def times(self, steps: int) -> Self:
        """Return the same event of so many steps."""
        return replace(self, steps=steps)


class DpSgd:
    """Plans, checks, releases and describes DP-SGD."""

    event: type[DpSgdEvent] = DpSgdEvent
    protects = True
    draws = 1

    def plan(self, plan: SiloPlan) -> DpSgdEvent:
        """Return a plan's event, with the noise that is declared, or calibrated to the target over all of a run.

        A phase of a run whose lots grow is planned at the noise of all phases, which is one.
        """
        return self.event(
            noise_multiplier=_noise_multiplier(plan),
            max_grad_norm=plan.max_grad_norm,
            sample_rate=plan.sample_rate,
            steps=plan.steps,
            denominator=plan.expected_batch_size,
            noise_source=plan.noise,
            max_records=plan.max_records,
        )

    def check(self, event: Event, law: Limits) -> None:
        """Refuse less noise than a law asks for, or a larger clip than it allows."""
        if event.noise_multiplier < law.least_noise_multiplier:
            raise PolicyRefused(
                f"noise multiplier {event.noise_multiplier:g} is under this silo's minimum"
                f" {law.least_noise_multiplier:g}"
            )
        if clip_of(event) > law.largest_clip:
            raise PolicyRefused(f"clip {clip_of(event):g} is over this silo's maximum {law.largest_clip:g}")

    def release(self, event: Event, sums_L: list[Tensor], noise: NoiseSource) -> list[Tensor]:
        """Return the noised mean: noise of the event's multiplier times its clip, the grid, the public denominator."""
        from fedmodel.privacy.release import release  # it loads torch, which whoever joins a run does not need

        return release(sums_L, noise, event.noise_multiplier * clip_of(event), event.denominator)

    def describe(self, event: Event, unit: str) -> Facts:
        """Return what holds of DP-SGD by an event's figures."""
        return Facts(_DESCRIPTION, clipped(event, unit), sampled(event, _GAINED))


MECHANISM: Final = DpSgd()


def _noise_multiplier(plan: SiloPlan) -> float:
    """Return the noise that a plan needs: as declared, or calibrated to its target over all that is planned."""
    if plan.noise_multiplier is not None:
        return plan.noise_multiplier
    if plan.epsilon is None:
        raise ConfigError(f"silo {plan.silo!r} has neither a noise multiplier nor a target epsilon")
    from fedmodel.privacy.accounting import calibrate_lots  # it loads scipy, which whoever reads a name does not need

    # What a silo draws with, be it a little above the plan. The least rate is rounded down out of range.
    lots = tuple(Lots(max(realised_rate(one.sample_rate, plan.noise), LEAST_RATE), one.steps) for one in plan.trained)
    return calibrate_lots(plan.epsilon, plan.delta, lots, plan.max_records, plan.besides)
