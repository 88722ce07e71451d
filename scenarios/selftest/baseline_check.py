"""A run without noise: does a deployed silo refuse it, and does a ledger that holds one bound nothing any more?

The checks `deployed_baseline` and `unbounded_release` of the suite of planted faults. No run is needed: the questions
go to the silos' own policy and to a ledger of their own kind, with a private run's figures beside.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Final

from fedmodel import plans
from fedmodel.config import Scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import PolicyRefused
from fedmodel.ledger import Asked, Ledger, Scope, verify_ledger
from fedmodel.privacy import accounting
from fedmodel.provision import law_of

_ROOM: Final = Scope("selftest", "record", 1, 1e-3, 1000.0, 8)


def let_in(scenario: Scenario) -> str | None:
    """Ask a deployed silo's policy for a run without noise; say where it was not refused, None where it was."""
    from clients import policy

    silo = scenario.federation.silos[0]
    asked = _without_noise(scenario)
    law = law_of(scenario, silo, bytes(32))
    event = plans.planned_event(asked.plan(silo))
    refused = set()
    with suppress(PolicyRefused):
        refused.add("scenario")
        policy.check_baseline(asked, simulated=False)
        refused.remove("scenario")
    with suppress(PolicyRefused):
        refused.add("release")
        policy.check_event(law, event, simulated=False)
        refused.remove("release")
    let = {"scenario", "release"} - refused
    return f"a deployed silo took a run without noise by its {' and its '.join(sorted(let))}" if let else None


def bounded(folder: Path, scenario: Scenario) -> str | None:
    """Charge a run without noise to a new ledger; say what is bounded of it all the same, None where nothing is.

    Args:
        folder: An empty one.
        scenario: With noise; what is charged is its baseline.
    """
    silo, key = scenario.federation.silos[0], SigningKey.generate()
    private = plans.planned_event(scenario.plan(silo))
    bare = plans.planned_event(_without_noise(scenario).plan(silo))
    for what, events in (("it", [bare]), ("it and a private run", [private, bare])):
        if (found := accounting.epsilon(events, _ROOM.delta)) < math.inf:
            return f"epsilon {found:.4g} is told of {what}"
    path = folder / "ledger.sqlite"
    with Ledger(path, silo, key, folder / "head") as ledger:
        ledger.reserve(Asked(_ROOM, "1", bare, bare.steps))
        ledger.charge("1", 1, bare.steps, "baseline")
    found = verify_ledger(path, key.public, [(folder / "head").read_bytes()]).standing.bound(_ROOM.name)
    return None if found == math.inf else f"a ledger that holds it bounds it by epsilon {found:.4g}"


def _without_noise(scenario: Scenario) -> Scenario:
    privacy = scenario.privacy.model_copy(update={"baseline": "no-noise"})
    return scenario.model_copy(update={"privacy": privacy})
