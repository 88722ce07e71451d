"""The pipeline of DP-SGD WITHOUT noise, which protects nobody: by it a simulation shows what privacy costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self

from fedmodel.errors import PolicyRefused
from fedmodel.privacy.events import (
    LEFT_OUT,
    Baseline,
    Event,
    NoiseSourceName,
    check_lots,
    check_source,
    is_real,
    realised_rate,
    require,
)
from fedmodel.privacy.mechanisms._mechanism import Facts, Limits
from fedmodel.privacy.mechanisms._sentences import clipped, sampled
from fedmodel.privacy.plan import SiloPlan
from fedmodel.privacy.primitives import Parts, Unbounded

if TYPE_CHECKING:
    from torch import Tensor

    from fedmodel.privacy.noise import NoiseSource


@dataclass(frozen=True)
class UnprotectedEvent:
    """Some steps of DP-SGD's pipeline WITHOUT noise: sums of gradients, released as they are. It protects nobody.

    Guarantee: there is none, whatever the other figures are: `fedmodel.privacy.accounting` reads every epsilon over it
    as infinite, and a ledger that holds one reserves nothing more on that budget. What is known of it has the names
    that every event has: `noise_multiplier` is 0 and `noise_source` is None, so that whoever takes it for another
    divides by zero.

    Attributes:
        max_grad_norm: The clip C in L2 of each record's gradient; None where gradients were not clipped either.
        sample_rate: The Poisson rate q as planned, in (0, 1].
        steps: Sums released, at least 1.
        denominator: The public divisor of every sum.
        drawn_from: Where lots and dropout masks were drawn from.
        sampler: How lots were drawn.
        mechanism: The name under which the event is stored.
        realised_sample_rate: The rate with which the sampler really draws.
        max_records: Most records of one privacy unit.
    """

    max_grad_norm: float | None
    sample_rate: float
    steps: int
    denominator: int
    drawn_from: NoiseSourceName = "os"
    sampler: Literal["poisson"] = "poisson"
    mechanism: Literal["none-unsafe"] = "none-unsafe"
    realised_sample_rate: float = -1.0
    max_records: int = 1

    noise_multiplier: ClassVar[float] = 0.0
    noise_source: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.realised_sample_rate == -1.0:
            object.__setattr__(self, "realised_sample_rate", realised_rate(self.sample_rate, self.drawn_from))
        clip = self.max_grad_norm
        require(clip is None or (is_real(clip) and clip > 0), "max_grad_norm", "a positive number, or null")
        require(self.mechanism == "none-unsafe", "mechanism", '"none-unsafe"')
        check_source(self.drawn_from, "drawn_from")
        check_lots(self)

    def parts(self) -> Parts:
        """Return one unbounded release a step."""
        return ((Unbounded(self.max_records), self.steps),)

    def times(self, steps: int) -> Self:
        """Return the same event of so many steps."""
        return replace(self, steps=steps)


class NoneUnsafe:
    """Plans, releases and describes what a baseline leaves out; no law admits it."""

    event = UnprotectedEvent
    protects = False
    draws = 0

    def plan(self, plan: SiloPlan) -> UnprotectedEvent:
        """Return a whole plan's event, without noise, and without a clip where the baseline leaves that out too."""
        return UnprotectedEvent(
            max_grad_norm=plan.max_grad_norm if plan.baseline == "no-noise" else None,
            sample_rate=plan.sample_rate,
            steps=plan.steps,
            denominator=plan.expected_batch_size,
            drawn_from=plan.noise,
            max_records=plan.max_records,
        )

    def check(self, event: Event, law: Limits) -> None:  # noqa: ARG002 - no limit of a law makes it any better
        """Refuse it: nothing bounds what it releases, so that no law can allow it."""
        raise PolicyRefused(f"a {event.mechanism} release protects nobody, and no law of a silo allows it")

    def release(self, event: Event, sums_L: list[Tensor], noise: NoiseSource) -> list[Tensor]:  # noqa: ARG002 - no noise
        """Return the mean itself, not rounded, whoever it tells of."""
        from fedmodel.privacy.release import divided  # it loads torch, which whoever joins a run does not need

        return [divided(sum_, event.denominator) for sum_ in sums_L]

    def describe(self, event: Event, unit: str) -> Facts:
        """Return what is left out, and what then holds."""
        baseline: Baseline = "no-noise-no-clip" if event.max_grad_norm is None else "no-noise"
        return Facts(
            f"The pipeline of DP-SGD, in which {LEFT_OUT[baseline]}: Poisson lots, sums of gradients, a public"
            " denominator. It is a baseline, by which a simulation shows what privacy costs, and protects nobody.",
            "A gradient is not clipped: nothing bounds what one record does to a sum."
            if event.max_grad_norm is None
            else clipped(event, unit),
            sampled(event, "without noise nothing is gained by that"),
        )


MECHANISM: Final = NoneUnsafe()
