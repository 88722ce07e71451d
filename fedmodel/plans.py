"""What a scenario asks of one silo, as an event: what its whole plan is charged as, and the noise that it needs."""

from __future__ import annotations

from dataclasses import replace

from fedmodel.errors import ConfigError
from fedmodel.privacy import accounting
from fedmodel.privacy.events import LEAST_RATE, DpSgdEvent, Event, UnprotectedEvent, realised_rate
from fedmodel.privacy.plan import SiloPlan


def noise_multiplier(plan: SiloPlan) -> float:
    """Return the noise that a plan needs: as declared, or calibrated to its target over all planned steps."""
    if plan.noise_multiplier is not None:
        return plan.noise_multiplier
    if plan.epsilon is None:
        raise ConfigError(f"silo {plan.silo!r} has neither a noise multiplier nor a target epsilon")
    # What a silo draws with, be it a little above the plan. The least rate is rounded down out of range.
    rate = max(realised_rate(plan.sample_rate, plan.noise), LEAST_RATE)
    return accounting.calibrate(plan.epsilon, plan.delta, rate, plan.steps, plan.max_records)


def planned_event(plan: SiloPlan) -> Event:
    """Return what a whole plan is charged as: its own figures, and the noise that it needs; or that none is added."""
    if plan.baseline is not None:
        return UnprotectedEvent(
            max_grad_norm=plan.max_grad_norm if plan.baseline == "no-noise" else None,
            sample_rate=plan.sample_rate,
            steps=plan.steps,
            denominator=plan.expected_batch_size,
            drawn_from=plan.noise,
            max_records=plan.max_records,
        )
    return private_event(plan)


def private_event(plan: SiloPlan) -> DpSgdEvent:
    """Return what a whole plan is charged as where nothing is left out: what a baseline is compared with."""
    return DpSgdEvent(
        noise_multiplier=noise_multiplier(plan),
        max_grad_norm=plan.max_grad_norm,
        sample_rate=plan.sample_rate,
        steps=plan.steps,
        denominator=plan.expected_batch_size,
        noise_source=plan.noise,
        max_records=plan.max_records,
    )


def pipeline_event(plan: SiloPlan, event: Event) -> DpSgdEvent:
    """Return the figures that a charge's pipeline is built and measured with.

    They are the charge's own. A baseline's are those of the private run that it is compared with, for as many steps: it
    is the same pipeline, and what is left out is left out at the end.
    """
    return event if isinstance(event, DpSgdEvent) else replace(private_event(plan), steps=event.steps)
