"""What a scenario asks of one silo, as an event: the one way from a plan to what is charged for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fedmodel.config import Scenario
from fedmodel.privacy.events import Event, protects
from fedmodel.privacy.mechanisms import MECHANISMS
from fedmodel.privacy.plan import SiloPlan

_BASELINE: Final = "none-unsafe"


def planned_event(plan: SiloPlan) -> Event:
    """Return what a whole plan is charged as: its own figures, and the noise that it needs; or that none is added."""
    return MECHANISMS[plan.mechanism if plan.baseline is None else _BASELINE].plan(plan)


def events_besides(scenario: Scenario, silo: str) -> tuple[Event, ...]:
    """Return what a silo is charged as for the jobs besides training, one each, in their order."""
    return tuple(planned_event(scenario.plan_besides(silo, job)) for job in scenario.besides)


def planned_parts(scenario: Scenario, silo: str) -> tuple[Event, ...]:
    """Return all that a run asks of a silo, as the parts of its reservation.

    They are training's phases, each at its own rate, and one where lots do not grow; then what comes besides. Which
    part a round is charged to, `Scenario.part_of` says.
    """
    return (*map(planned_event, scenario.plans(silo)), *events_besides(scenario, silo))


def private_parts(scenario: Scenario, silo: str) -> tuple[Event, ...]:
    """Return all that a run asks of a silo where nothing is left out."""
    return (*map(private_event, scenario.plans(silo)), *events_besides(scenario, silo))


def parts_beginning(scenario: Scenario, silo: str, first: Event) -> tuple[Event, ...]:
    """Return all parts of a run whose first is as a silo says it is: training's later phases have that one's noise.

    Args:
        scenario: Of which all else is.
        silo: Whose.
        first: What it charges in the first phase, of however many steps.
    """
    plan, *later = scenario.plans(silo)
    if protects(first):
        later = [replace(one, epsilon=None, noise_multiplier=first.noise_multiplier) for one in later]
    phases = map(planned_event, later)
    return (first.times(plan.steps), *phases, *events_besides(scenario, silo))


def allowed_event(plan: SiloPlan, said: Event) -> Event:
    """Return what a silo that says a plan may say: the scenario's, at its own noise where a target is given.

    Whether that noise is what the target needs, this leaves open (`spares_noise`).

    Args:
        plan: Of the first phase.
        said: What the silo says of it, of however many steps.

    Raises:
        LedgerError: When nothing has the noise that is said.
    """
    if plan.target_epsilon is not None and said.mechanism == plan.mechanism:
        plan = replace(plan, epsilon=None, noise_multiplier=said.noise_multiplier)
    return planned_event(plan)


def spares_noise(scenario: Scenario, silo: str, first: Event) -> bool:
    """Return whether a silo says more noise than its target needs; less would follow of it than the scenario asks for.

    `planned_parts` never has more, so that no silo that runs this code does. Without a target it is false: there the
    noise is the scenario's.

    Args:
        scenario: Of which all else is.
        silo: Whose.
        first: What it charges in the first phase, of however many steps.
    """
    plan = scenario.plan(silo)
    if plan.target_epsilon is None:
        return False
    from fedmodel.privacy import accounting  # it loads scipy, which whoever reads a plan does not need

    def planned(noise: float) -> tuple[Event, ...]:
        return parts_beginning(scenario, silo, planned_event(replace(plan, epsilon=None, noise_multiplier=noise)))

    return accounting.spares_noise(first.noise_multiplier, plan.target_epsilon, plan.delta, planned)


def event_of_round(scenario: Scenario, silo: str, first: Event, number: int) -> Event:
    """Return what a silo charges for a round of training, at the rate of that round's phase.

    Args:
        scenario: What is run.
        silo: Whose.
        first: What it charges for a round of the first phase.
        number: The round.
    """
    part = scenario.phase_of(number)
    if part == 0:
        return first
    return parts_beginning(scenario, silo, first)[part].times(scenario.plan(silo, part).steps_per_round)


def private_event(plan: SiloPlan) -> Event:
    """Return what a whole plan is charged as where nothing is left out: what a baseline is compared with."""
    return planned_event(replace(plan, baseline=None))


def noise_multiplier(plan: SiloPlan) -> float:
    """Return the noise that a plan needs: as declared, or calibrated to its target over all planned steps."""
    return private_event(plan).noise_multiplier


def pipeline_event(plan: SiloPlan, event: Event) -> Event:
    """Return the figures that a charge's pipeline is built and measured with.

    They are the charge's own. A baseline's are those of the private run that it is compared with, for as many steps: it
    is the same pipeline, and what is left out is left out at the end.
    """
    return event if protects(event) else private_event(plan).times(event.steps)
