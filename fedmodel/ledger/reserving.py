"""What a run asks a ledger to reserve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from fedmodel.errors import LedgerError
from fedmodel.ledger.runs import Run
from fedmodel.ledger.scope import Scope
from fedmodel.ledger.standing import Standing
from fedmodel.privacy.events import Event


@dataclass(frozen=True)
class Asked:
    """What a run asks for, once.

    Attributes:
        scope: The budget; it is created in the same step where its data set has none yet.
        run: The run.
        plan: All of its steps.
        steps_per_round: Of which a round takes so many.
        scenario: Hash of the scenario that the plan is of.
        partial: Whether the first rounds of the plan are reserved where the budget does not pay all of them.
        besides: What else the run may release, in order; each in full, or nothing is reserved.
        held: For how long it is held while nothing is charged for the run; None for ever.
        name: What the run's server calls it; asked again, the first one stays.
        check: Refuses by where the ledger stands once what lapsed is given back, in the same step.
    """

    scope: Scope
    run: str
    plan: Event
    steps_per_round: int
    scenario: str = ""
    partial: bool = False
    besides: tuple[Event, ...] = ()
    held: timedelta | None = None
    name: str = ""
    check: Callable[[Standing], None] | None = None


def as_known(known: Run, asked: Asked) -> Event:
    """Return what a run reserved, where it is what is asked.

    Raises:
        LedgerError: When it is not, or a person gave it back.
    """
    plan = asked.plan
    wanted = ((plan.times(known.plan.steps), *asked.besides), asked.scope.name, asked.scenario)
    as_long = known.plan.steps == plan.steps or (asked.partial and known.plan.steps < plan.steps)
    if known.closed or not as_long or (known.parts, known.scope, known.scenario) != wanted:
        raise LedgerError(f"run {asked.run} reserved another plan, or gave it back; a plan is made once")
    return known.plan
