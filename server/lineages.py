"""Which state each silo holds between rounds, by what the server saw, and which one a round begins from.

A round begins from a lineage that every silo which is asked is known to hold, or else fresh. Who was asked and did not
answer may hold the state of before, that of the round, or none: it is not known to hold any. So a dropout makes the
next round that it is asked in begin fresh for all, and the round after that is a common one again.

A silo believes none of this: it refuses a lineage that is not its own (`clients.carried`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fedmodel.config import Scenario
from fedmodel.provision import scenario_hash
from fedmodel.secagg import FRESH, lineage_after
from fedmodel.wire import TrainRequest


class Lineages:
    """What silos hold in one run.

    Args:
        scenario: Says whether anything is carried from one round to the next.
        run: The run's number.
        held: What `state` returned last, in a process that is gone.
    """

    def __init__(self, scenario: Scenario, run: int, held: Mapping[str, str] | None = None) -> None:
        self._carries, self._scenario, self._run = scenario.carries_state, scenario_hash(scenario), run
        self._held = {silo: bytes.fromhex(lineage) for silo, lineage in (held or {}).items()}

    def state(self) -> dict[str, str]:
        """Return what is known, as plain data."""
        return {silo: lineage.hex() for silo, lineage in sorted(self._held.items())}

    def named(self, request: TrainRequest, silos: Iterable[str]) -> TrainRequest:
        """Return a request that names what the round begins from; until they answer, these silos hold nothing known."""
        found = {self._held.pop(silo, FRESH) for silo in silos}
        return replace(request, lineage=found.pop() if len(found) == 1 else FRESH)

    def answered(self, request: TrainRequest, silos: Iterable[str]) -> None:
        """Note who trained as was asked, and so holds what the round leaves."""
        if self._carries:
            model = request.model_hash
            left = lineage_after(request.lineage, self._run, request.round_number, model, self._scenario)
            self._held.update(dict.fromkeys(silos, left))
