"""A run whose lots grow to all records: is every round charged at the rate that its lots were drawn with?

The check `charged_rate` of the suite of planted faults. The run is a whole simulation by the code that `fedmodel
simulate` runs. What is looked at is how many records each step summed, and what the silos' ledgers hold for its round.
An audit's gauges plan for one rate (`fedmodel.config.scenario`), so that lots that grow have this check of their own.

A lot of all records is told from one at a smaller rate without a doubt: at a quarter, all of a silo's 25 records or
more are in two lots with a chance of at most 2^-100.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.data import Records
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.jobs import Carried, Question
from fedmodel.learning.jobs.training import Answering
from fedmodel.ledger import Standing, verify_ledger
from fedmodel.privacy.events import Event
from scenarios.runs.ledgers import ledger_in_run
from scenarios.selftest.planting import replaced, together
from scenarios.simulation.simulate import check_scenario, run_folder, simulate

Drawn = dict[tuple[str, int], list[bool]]
"""By silo and round, of each step whether its lot had all records."""


def charged_less(folder: Path, scenario: Scenario) -> str | None:
    """Run a scenario, and say which round was charged at another rate than it drew with; None where none was.

    Args:
        folder: An empty one.
        scenario: Without canaries, whose lots grow from a part of the records to all of them.
    """
    drawn: Drawn = defaultdict(list)
    with run_folder(scenario, folder / "run") as run_dir, together(*_watching(drawn)):
        simulate(scenario, check_scenario(scenario), "in-process", "cpu", run_dir, nullcontext())
    paths = {silo: ledger_in_run(folder / "run", silo) for silo in scenario.federation.silos}
    standings = {silo: verify_ledger(path, unused=False).standing for silo, path in paths.items()}
    return next(filter(None, (_compared(*one, standings) for one in sorted(drawn.items()))), None)


def _compared(place: tuple[str, int], steps: list[bool], standings: dict[str, Standing]) -> str | None:
    """Compare one round of a silo with what its ledger holds for it."""
    silo, number = place
    (run,) = standings[silo].runs.values()
    rates = {run.parts[one.part].sample_rate for one in run.charges.values() if one.round == number}
    if rates and all(steps) == (rates == {1.0}):
        return None
    told = ", ".join(f"{rate:g}" for rate in sorted(rates)) or "nothing"
    lots = "all of its records" if all(steps) else "some of its records"
    return f"{silo} drew {lots} into the lots of round {number}, and its ledger was charged for a rate of {told}"


def _watching(drawn: Drawn) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return what notes of every step, while it is planted, whether its lot has all records."""
    now: list[tuple[str, int]] = []
    answer, step = Answering.answer, DpSgd.step

    def answered(
        self: Answering, question: Question, records: Callable[[], Records], event: Event, carried: Carried
    ) -> NDArray[np.float32]:
        now[:] = [(self.site.silo, question.number)]
        return answer(self, question, records, event, carried)

    def stepped(self: DpSgd, x_N: Any, y_N: Any, lot: NDArray[np.intp]) -> None:
        drawn[now[0]].append(len(lot) == len(y_N))
        step(self, x_N, y_N, lot)

    return lambda: replaced(Answering, "answer", answered), lambda: replaced(DpSgd, "step", stepped)
