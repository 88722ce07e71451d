"""What `import fedmodel` offers to a script: to simulate a federation, and to read what a run left.

A run from Python is the run of the command: the same checks, the same folder, the same ledgers and claims. `fedmodel`
names what is here, and imports it when it is asked for.

Does NOT take a model or data of the script's own: a scenario names both. A process runs one federation at a time.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedmodel.system.environment import SWITCHES

os.environ.update(SWITCHES)  # before anything of Flower is imported

from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Run:
    """A simulated run that has ended, as it lies in its folder.

    Attributes:
        folder: Where it lies; README says what is in it.
        scenario: What was done, as resolved.
        summary: Every figure, as `summary.json` has them.
    """

    folder: Path
    scenario: Scenario
    summary: dict[str, Any]

    @classmethod
    def read(cls, folder: str | Path) -> Run:
        """Read a run's folder.

        Raises:
            ConfigError: When no run has ended there.
        """
        from scenarios.simulation.resuming import SUMMARY

        path = Path(folder)
        try:
            summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: no run has ended here, since {SUMMARY} cannot be read") from error
        return cls(path.resolve(), read_scenario(str(path / "scenario.toml")), summary)

    @property
    def metrics(self) -> dict[str, float]:
        """Figures of the final model on the server's held-out records."""
        return dict(self.summary["metrics"])

    @property
    def epsilon(self) -> dict[str, float]:
        """By silo, the epsilon that its run cost; infinite for a baseline, which protects nobody.

        It is of the whole plan that the silo's ledger reserved, and holds wherever the run ended.
        """
        bounds = {row["silo"]: row["epsilon"] for row in self.summary["privacy"]}
        return {silo: math.inf if bound is None else bound for silo, bound in bounds.items()}

    def model(self) -> nn.Module:
        """Return the final model, in evaluation mode, on the CPU."""
        from scenarios.audit.black_box import final_model

        return final_model(self.scenario, self.folder)

    def report(self) -> Path:
        """Write the run's report, signed by its server, and return where the page lies.

        Raises:
            FedmodelError: When a figure does not follow from the ledgers, or there is a report already.
        """
        from scenarios.report.illustrated import write_report

        return write_report(self.folder)


def simulate(
    scenario: str | Path | Scenario,
    settings: Iterable[str] = (),
    *,
    engine: str = "in-process",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    out: str | Path | None = None,
) -> Run:
    """Train a scenario's model over simulated silos on this machine.

    Args:
        scenario: A TOML file, the name of a built-in scenario, or one that was read or made before.
        settings: `a.b=value` overrides, each value in TOML, or a bare word for a string.
        engine: What carries the run: "in-process", or "flower" for Flower's own runtime.
        device: Where silos train.
        out: The run's folder: new, empty, or of a run that was cut short, which goes on then. Default: under `runs/`.

    Returns:
        The run, with its model, figures and folder.

    Raises:
        ConfigError: When the scenario, an override or the folder is not acceptable; nothing was written then.
        FedmodelError: When the run fails; what was written until then stays.
    """
    from scenarios.simulation.prepared import prepare

    prepared = prepare(scenario, settings, engine, device, None if out is None else Path(out))
    with prepared.held() as run_dir:
        summary = prepared.run(run_dir, nullcontext())
    return Run(run_dir, prepared.scenario, summary)
