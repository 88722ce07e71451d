"""What a server's operator does: hand in a run and follow it, and ask how server, silos and runs stand.

Everything is read from the kit's own folder, as the account that the server runs under; no port is opened for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from fedmodel.config import Scenario
from fedmodel.errors import error_kind
from scenarios.runner import check_scenario
from scenarios.summary import rows_reported, sum_up
from server import runs

_POLL_S: Final = 0.2


def submit(home: Path, scenario: Scenario) -> tuple[runs.Submitted, int]:
    """Check a scenario and hand it in; returns the run, and the number of the model's parameters.

    Raises:
        ConfigError: When the scenario could not run, or names other silos than the roster.
    """
    parameters = check_scenario(scenario, deployed=True)
    return runs.submit(home, scenario), parameters


def follow(run: runs.Submitted, watching: AbstractContextManager[object], alive: Callable[[], None]) -> None:
    """Wait until a run has its outcome.

    Args:
        run: As it was handed in.
        watching: Open meanwhile, such as a progress bar over the run's metrics.
        alive: Called again and again; raises where nobody is there any more to bring the run to its end.

    Raises:
        FedmodelError: When the run failed, with the reason that the server wrote down and the exit status of its kind.
    """
    with watching:
        while (ended := runs.outcome_of(run.folder)) is None:
            alive()
            time.sleep(_POLL_S)
    if not ended.completed:
        raise error_kind(ended.code)(f"run {run.folder.name} failed: {ended.error}")


def summary_of(run: runs.Submitted, scenario: Scenario, parameters: int, seconds: float) -> dict[str, Any]:
    """Sum up a run at the server, which has no ledger of a silo: privacy is what silos reported."""
    privacy = rows_reported(scenario, run.folder)
    return sum_up(
        scenario, run.folder, seconds, privacy, engine="deployment", device="silos' own", parameters=parameters
    )
