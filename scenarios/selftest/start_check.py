"""Two runs, the second of which begins from the first one's model: do its ledgers hold both?

The check `earlier_run` of the suite of planted faults. Both are whole simulations by the code that `fedmodel simulate`
runs; what is looked at is what their silos' ledgers hold when the second has ended.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from fedmodel.config import Scenario, StartConfig
from fedmodel.errors import LedgerTampered
from fedmodel.ledger import verify_ledger
from scenarios.runs.ledgers import ledger_in_run
from scenarios.simulation.simulate import check_scenario, placed, run_folder, simulate
from scenarios.simulation.starting import check_carried


def forgotten(folder: Path, scenario: Scenario) -> str | None:
    """Run a scenario, and again from the model that it left, and say whose cost was forgotten; None where none was.

    Args:
        folder: An empty one.
        scenario: Without canaries.
    """
    _run(scenario, folder / "first")
    second = placed(scenario.begun(StartConfig(file=str(folder / "first"))))
    _run(second, folder / "second")
    paths = {silo: ledger_in_run(folder / "second", silo) for silo in second.federation.silos}
    standings = {silo: verify_ledger(path, unused=False).standing for silo, path in paths.items() if path.exists()}
    try:
        check_carried(second, standings)
    except LedgerTampered as error:
        return str(error)
    return None


def _run(scenario: Scenario, folder: Path) -> None:
    with run_folder(scenario, folder) as run_dir:
        simulate(scenario, check_scenario(scenario), "in-process", "cpu", run_dir, nullcontext())
