"""What a run asks a ledger to reserve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from fedmodel.errors import LedgerError
from fedmodel.ledger.runs import Run
from fedmodel.ledger.standing import Standing
from fedmodel.privacy.events import Event


@dataclass(frozen=True)
class Asked:
    """What is asked to be reserved, as `Ledger.reserve` says."""

    run: str
    plan: Event
    steps_per_round: int
    scenario: str
    partial: bool
    besides: tuple[Event, ...]
    held: timedelta | None
    name: str = ""
    check: Callable[[Standing], None] | None = None


def as_known(known: Run, scope: str, asked: Asked) -> Event:
    """Return what a run reserved, where it is what is asked.

    Raises:
        LedgerError: When it is not, or a person gave it back.
    """
    plan = asked.plan
    wanted = ((plan.times(known.plan.steps), *asked.besides), scope, asked.scenario)
    as_long = known.plan.steps == plan.steps or (asked.partial and known.plan.steps < plan.steps)
    if known.closed or not as_long or (known.parts, known.scope, known.scenario) != wanted:
        raise LedgerError(f"run {asked.run} reserved another plan, or gave it back; a plan is made once")
    return known.plan
