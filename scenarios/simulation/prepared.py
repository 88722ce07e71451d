"""A simulation that is asked for, by the command or a script: read, checked, and ready to be run in its folder."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmodel.config import Scenario, folder_of, read_scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code
from scenarios.simulation.engines import Engine, chosen, engine_of, refuse_objects
from scenarios.simulation.resuming import begun_in, held_folder
from scenarios.simulation.simulate import check_scenario, default_folder, placed, resolve_device, simulate

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A checked run, of which nothing was written yet.

    Attributes:
        scenario: As resolved.
        parameters: Of its model.
        engine: What carries it, by name.
        device: Where silos train, "cpu", "cuda" or "cuda:N".
        folder: The run's, which may be there or not.
    """

    scenario: Scenario
    parameters: int
    engine: str
    device: str
    folder: Path

    def held(self) -> AbstractContextManager[Path]:
        """Begin the run in its folder, or take up the one that was cut short there, and hold the folder meanwhile.

        Raises:
            ConfigError: As `scenarios.simulation.resuming.held_folder` does.
        """
        return held_folder(self.scenario, self.folder, self.engine, self.device)

    def run(
        self, run_dir: Path, watching: AbstractContextManager[object], carrying: Engine | None = None
    ) -> dict[str, Any]:
        """Run it in its folder, which is held, and return its summary, as `scenarios.simulation.simulate` does."""
        return simulate(self.scenario, self.parameters, self.engine, self.device, run_dir, watching, carrying=carrying)


def prepare(
    scenario: str | Path | Scenario,
    settings: Iterable[str],
    engine: str | None,
    device: str,
    out: Path | None,
    base: Path | None = None,
) -> Prepared:
    """Read and check what is asked for; nothing is written.

    This process is opened to code that the scenario names (`fedmodel.kinds.own_code`), of the folder of its file first.

    Args:
        scenario: A TOML file, the name of a built-in scenario, or one that was read or made before.
        settings: `a.b=value` overrides of a file.
        engine: What carries the run, by name; None for the one that the number of silos chooses, which is said.
        device: Where silos train.
        out: The run's folder. Default: a new one under `runs/`. One in which a run was cut short says the seed, where
            the scenario does not.
        base: Where paths of data begin. Default: the folder that this process works in.

    Raises:
        ConfigError: When something of it is not acceptable.
        DataError: When data cannot be loaded and dealt.
    """
    if engine is not None:
        engine_of(engine)
    begun = begun_in(out)
    resolved = resolve(scenario, settings, None if begun is None else begun.seed)
    if resolved.audit is not None:
        raise ConfigError("a scenario with [audit] is for `fedmodel audit run`, which writes that section itself")
    open_own_code(resolved, scenario)
    with own_logging():
        where, resolved = resolve_device(device), placed(resolved, base)
        engine = _named(resolved) if engine is None else engine
        refuse_objects(resolved, engine)
        engine_of(engine).check(resolved)
        parameters = check_scenario(resolved)
    return Prepared(resolved, parameters, engine, where, out or default_folder(resolved.name))


def _named(scenario: Scenario) -> str:
    """Return the engine of a run that names none, and say so where it is the one that keeps no ledgers."""
    name = chosen(scenario)
    if not engine_of(name).keeps_ledgers:
        _log.warning(
            "%d silos train together, by --engine %s, and no ledger is kept; --engine in-process keeps one for each",
            *(len(scenario.federation.silos), name),
        )
    return name


def open_own_code(resolved: Scenario, named: str | Path | Scenario) -> None:
    """Open this process to code that a scenario names, where it names any, and forget what was built of it before.

    Args:
        resolved: The scenario.
        named: The file that it was read from, or itself where it was made.
    """
    if not resolved.own_code:
        return
    from fedmodel.data.own import forget_deals

    with own_logging():
        from fedmodel.learning.jobs._pipelines import forget_pipelines  # imports Opacus

    own_code.open_to_all(None if isinstance(named, Scenario) else folder_of(str(named)))
    forget_pipelines()
    forget_deals()


def resolve(scenario: str | Path | Scenario, settings: Iterable[str], seed: int | None = None) -> Scenario:
    """Return the scenario that is asked for, as it is read and not checked.

    Args:
        scenario: A TOML file, the name of a built-in scenario, or one that was read or made before.
        settings: `a.b=value` overrides of a file.
        seed: What a scenario without a seed gets; None for a new one.

    Raises:
        ConfigError: When it cannot be read.
    """
    if not isinstance(scenario, Scenario):
        return read_scenario(str(scenario), settings, seed)
    if tuple(settings):
        raise ConfigError("settings override keys of a file; a Scenario that was made already says its own")
    return scenario


@contextmanager
def own_logging() -> Iterator[None]:
    """Leave a process's logging as it was: Opacus, as it is imported, has everything printed where nobody set it up."""
    root = logging.getLogger()
    if root.handlers or logging.lastResort is None:
        yield
        return
    root.addHandler(logging.lastResort)  # by which Python prints warnings, where nobody set logging up
    try:
        import fedmodel.learning.dp_sgd  # noqa: F401 - with Opacus

        yield
    finally:
        root.removeHandler(logging.lastResort)
