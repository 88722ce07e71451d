"""A simulated run, as a script reads it: from its folder alone, whether it has ended or was cut short.

Guarantee: figures of privacy are those that follow from the silos' ledgers in the folder, which are verified before
they are read; of a run that was cut short too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedmodel.errors import ConfigError
from fedmodel.system.durable import failed
from scenarios.face.figures import figures_of, largest
from scenarios.face.scenario import Scenario
from scenarios.face.shown import Told, cost_in_words, run_html, run_in_a_line

if TYPE_CHECKING:
    from torch import nn

    from scenarios.face.frames import Figures
    from scenarios.report.page.rounds import Rounds

_SCENARIO: Final = "scenario.toml"
_METRICS: Final = "metrics.jsonl"
_HELD: Final = ("run.lock", "serving.lock")


@dataclass(frozen=True, repr=False)
class Run:
    """A simulated run, as it lies in its folder. A notebook shows its figures, and what it cost.

    Attributes:
        folder: Where it lies; docs/first-run.md says what is in it.
        scenario: What was done, as resolved.
        summary: Every figure, as `summary.json` has them; of a run that was cut short those that there are:
            `rounds_completed`, `metrics` and `privacy`.
        ended: Whether it ran to its end. One that did not goes on by the call that began it, with the same `out`.
    """

    folder: Path
    scenario: Scenario
    summary: dict[str, Any] = field(hash=False)
    ended: bool = True

    @classmethod
    def read(
        cls,
        folder: str | Path,
        *,
        model: Callable[..., nn.Module] | nn.Module | None = None,
        base: str | Path | None = None,
    ) -> Run:
        """Read a run's folder.

        Args:
            folder: Of a run that has ended, or that was cut short.
            model: What made the run's model, where that was an object of a script that no other process can import.
            base: The folder of the base that the run's model was trained on, where it was on one: for its `model`.

        Raises:
            ConfigError: When no run began there, or the base is another than the run's.
            LedgerError: When a run was cut short, and a ledger of it is not as it was written.
        """
        from scenarios.models.trained import find_base
        from scenarios.simulation.resuming import SUMMARY

        path = Path(folder)
        if not (path / _SCENARIO).is_file():
            raise ConfigError(f"{path}: no run began here: it has no {_SCENARIO}")
        scenario = Scenario.read(path / _SCENARIO)
        if base is not None:
            find_base(scenario.model, Path(base), path / _SCENARIO, "base=")
        if model is not None:
            scenario = scenario.with_model(model)
        if not (path / SUMMARY).exists():
            return cls(path.resolve(), scenario, _so_far(path, scenario), ended=False)
        try:
            summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {SUMMARY} cannot be read: it is damaged") from error
        return cls(path.resolve(), scenario, summary)

    @property
    def metrics(self) -> Figures:
        """A row for each round, by its number: figures on the server's held-out records. `privacy` says what it cost.

        Raises:
            ConfigError: When pandas is not installed.
        """
        from scenarios.face import frames

        return frames.metrics(self._lines)

    @property
    def figures(self) -> dict[str, float]:
        """Figures of the last model on the server's held-out records; none before the first whole round."""
        return dict(self.summary["metrics"])

    @property
    def epsilon(self) -> float:
        """The largest epsilon of all silos: what the run cost each of them at most. `privacy` has a row for each.

        It is of the whole plan that a silo's ledger reserved, and holds wherever the run ended. Infinite for a
        baseline and for noise of an experiment, which protect nobody.
        """
        return largest(row["epsilon"] for row in self.summary["privacy"])

    @property
    def epsilon_if_noise_were_secret(self) -> float:
        """What `epsilon` would be if an experiment's noise (`noise = "experiment"`) were secret; else `epsilon`."""
        from fedmodel.privacy.events import EPSILON_IF_HIDDEN

        return largest(row.get(EPSILON_IF_HIDDEN, row["epsilon"]) for row in self.summary["privacy"])

    @property
    def privacy(self) -> Figures:
        """A row for each silo, by its name: what it spent, by its ledger, and the figures that this rests on.

        Raises:
            ConfigError: When pandas is not installed.
        """
        from scenarios.face import frames

        return frames.privacy(self.summary["privacy"])

    @cached_property
    def model(self) -> nn.Module:
        """The trained model, in evaluation mode, on the CPU.

        Raises:
            ConfigError: When the run has not ended, or the model is of an object that this process does not have.
        """
        from scenarios.audit.black_box import final_model

        if not self.ended:
            raise ConfigError(f"{self.folder}: the run has not ended, and has no model yet; {self._goes_on}")
        self.scenario.hand_over()
        return final_model(self.scenario, self.folder)

    @cached_property
    def report(self) -> Path:
        """The page of the run's report. It is made and signed when it is first asked for, which takes some seconds.

        Raises:
            FedmodelError: When the run has not ended, or a figure does not follow from the ledgers.
        """
        from scenarios.report.illustrated import write_report
        from scenarios.report.page_check import PAGE

        if not self.ended:
            raise ConfigError(f"{self.folder}: the run has not ended, and has no report yet; {self._goes_on}")
        page = self.folder / PAGE
        self.scenario.hand_over()
        return page if page.exists() else write_report(self.folder)

    def plot(self) -> Rounds:
        """Return a figure of matplotlib's: the model's figures by round, and what the run cost. A notebook shows it."""
        from scenarios.report.page.rounds import rounds_figure

        return rounds_figure(self._lines, cost_in_words(self._told))

    def save(self, folder: str | Path) -> Run:
        """Copy the run's folder, with its ledgers and its silos' keys, and return the copy.

        The copy can be reported on, verified and begun from as the run itself. To hand a model to others, export it
        (docs/model.md): keys of the run's parties are in no export.

        Args:
            folder: New, or empty.

        Raises:
            ConfigError: When the folder holds something already, or cannot be written.
        """
        place = Path(folder)
        try:
            if place.exists() and (not place.is_dir() or any(place.iterdir())):
                raise ConfigError(f"{place}: is not an empty folder; a run never writes over another")
            shutil.copytree(self.folder, place, ignore=shutil.ignore_patterns(*_HELD), dirs_exist_ok=True)
        except (OSError, shutil.Error) as error:
            said = failed(error) if isinstance(error, OSError) and error.errno else "a file could not be copied"
            raise ConfigError(f"{place}: cannot be written: {said}") from error
        return Run(place.resolve(), self.scenario, self.summary, self.ended)

    @cached_property
    def _lines(self) -> list[dict[str, Any]]:
        from scenarios.runs.summary import read_metrics

        return read_metrics(self.folder / _METRICS)

    @property
    def _told(self) -> Told:
        return Told(self.folder, self.scenario, self.summary, self.ended, self._lines)

    @property
    def _goes_on(self) -> str:
        return f"the call that began it goes on with out={str(self.folder)!r}"

    def __repr__(self) -> str:
        return run_in_a_line(self._told)

    def _repr_html_(self) -> str:
        return run_html(self._told)


def _so_far(folder: Path, scenario: Scenario) -> dict[str, Any]:
    """Return what a run that was cut short has done, and what its silos were charged."""
    from scenarios.runs.summary import read_metrics, rows_from_ledgers

    whole = [line for line in read_metrics(folder / _METRICS) if "failed" not in line]
    ledgers = {silo: folder / "ledgers" / f"{silo}.sqlite" for silo in scenario.federation.silos}
    return {
        "scenario": scenario.name,
        "rounds_completed": len(whole),
        "metrics": figures_of(whole[-1]) if whole else {},
        "privacy": rows_from_ledgers(scenario, ledgers),
    }
