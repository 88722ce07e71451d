"""What trains silos on a node of a cluster: a process that is told the scenario, deals its records, and is asked.

A worker says first what is installed on its node. Only where that is what the run's own process has, is it told the
scenario; and only where it then has the very code and records, does it build what trains. So what a run is said to be
holds wherever its silos train.

Does NOT check processors: kernels differ, and a step's last bits with them.

Shapes: P parameters.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel.config import Scenario, scenario_from_json
from fedmodel.data.own_hash import records_hash
from fedmodel.errors import FedmodelError
from fedmodel.kinds import bases, own_code
from fedmodel.learning.devices import use_device
from fedmodel.provision import bases_of
from fedmodel.system.packages import installed_hash
from scenarios.simulation.resuming import code_of
from scenarios.simulation.stacked_trainer import Stacked, why_not
from scenarios.simulation.trainers import OneByOne, Trained, Trainer

_FOR_DEVELOPERS: Final = 'extra == "dev"'


def installed() -> dict[str, str]:
    """Return what is installed here: the code's hash, Python, and the packages that fedmodel asks for, by version."""
    found = {"code": installed_hash(), "python": platform.python_version()}
    for need in requires("fedmodel") or ():
        if _FOR_DEVELOPERS in need:
            continue
        name = re.split(r"[^\w.-]", need, maxsplit=1)[0]
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


class Worker:
    """One process that trains silos."""

    def __init__(self) -> None:
        self._scenario: Scenario | None = None
        self._trainer: Trainer | None = None

    def installed(self) -> dict[str, str]:
        """Return what is installed on its node."""
        return installed()

    def told(self, run_config: Mapping[str, Any]) -> tuple[str, str]:
        """Take the scenario, and return the hashes of the code that it is carried by and of its silos' records.

        Args:
            run_config: What Flower's apps are told (`scenarios.simulation.engines.Simulation.run_config`).
        """
        use_device("cpu", 1)
        folder, base = run_config.get("own-code"), run_config.get("base")
        own_code.keep_open(Path(folder) if folder else None)
        self._scenario = scenario_from_json(run_config["scenario"])
        if base:
            bases.lie_at(dict.fromkeys(bases_of(self._scenario), base), Path.cwd())
        return code_of(self._scenario), records_hash(self._scenario)

    def built(self) -> None:
        """Build what trains, and measure it."""
        if self._scenario is None:
            raise FedmodelError("a worker was told no scenario")
        self._trainer = (OneByOne if why_not(self._scenario) else Stacked)(self._scenario, torch.device("cpu"))

    def round(self, number: int, silos: Sequence[str], model_P: NDArray[np.float32], lineage: bytes) -> Trained:
        """Return the silos' updates, as a `Trainer` does."""
        if self._trainer is None:
            raise FedmodelError("a worker was asked to train before it was told to build")
        return self._trainer.round(number, silos, model_P, lineage)
