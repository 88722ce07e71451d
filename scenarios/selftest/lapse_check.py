"""A reservation past its time, of a run that was charged: does another run's request give it back?

The check `charge_kept` of the suite of planted faults. No run is needed: a ledger of its own is charged, and asked.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from fedmodel import plans
from fedmodel.config import Scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import FedmodelError
from fedmodel.ledger import MICRO, Asked, Ledger, Scope, clock, read_ledger
from scenarios.selftest.planting import replaced

_HELD: Final = timedelta(hours=1)


def given_back(folder: Path, scenario: Scenario) -> str | None:
    """Charge a run of a budget for one and a half, let its time pass, and ask for another; say if it is given room.

    Args:
        folder: An empty one.
        scenario: What both runs are of.

    Returns:
        None where the charged run kept what it holds.
    """
    silo, key = scenario.federation.silos[0], SigningKey.generate()
    plan = plans.planned_event(scenario.plan(silo))
    wide = Scope("selftest", "record", 1, 1e-3, 1000.0, 8)
    room = replace(wide, epsilon=wide.epsilon - (wide.cap - 1.5 * wide.cost(plan)) / MICRO)
    path = folder / "ledger.sqlite"
    with Ledger(path, silo, key, folder / "head") as ledger:
        ledger.reserve(Asked(room, "1", plan, 1, held=_HELD))
        ledger.charge("1", 1, 1, "of the first round")
        later = datetime.now(UTC) + _HELD
        with replaced(clock, "now", lambda: later), suppress(FedmodelError):  # as it has to be: the budget is taken
            ledger.reserve(Asked(room, "2", plan, 1, held=_HELD))
    runs = read_ledger(path).runs
    if runs.keys() == {"1"} and not runs["1"].closed:
        return None
    return "a silo gave back what a run held that was charged, and another run was given that budget"
