"""Engines: what carries a simulated run to its end, a file each.

A kind is one file here, whose `ENGINE` is an `Engine`. `--engine` names it, as its file is named, with a hyphen for
each underscore. An engine is given the run as a whole, above Flower's Grid and messages: one that needs neither can
stand beside those that do. What it has to leave is the run's folder: ledgers, metrics and the model.

Guarantee: an engine is no part of a claim. Of one that keeps ledgers, each silo's law, ledger and noise are the silo's
own, and a run's figures of privacy are computed from the ledgers in its folder, whatever carried it. One that keeps
none has all silos' charges in one book (`scenarios.runs.event_book`), from which the figures are computed, and what is
said of its runs says so. The report says where noise was added and records were read in the engine's own words.

Each file is imported for its name alone, with the command line: what is heavy is imported when a run is carried.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from fedmodel.errors import ConfigError
from fedmodel.system.kinds import kinds, not_known

if TYPE_CHECKING:
    from fedmodel.config import Scenario


@dataclass(frozen=True)
class Simulation:
    """A run that is to be carried.

    Attributes:
        scenario: What is done; checked.
        run_dir: The run's folder, with each party's kit. A run that was cut short goes on from what lies there.
        device: Where silos train, "cpu", "cuda" or "cuda:N".
        run: The run's number; empty where it gets one as it begins.
    """

    scenario: Scenario
    run_dir: Path
    device: str
    run: str

    @property
    def run_config(self) -> dict[str, bool | float | int | str]:
        """What Flower's two apps are told, for an engine that carries messages between them."""
        from fedmodel.kinds import bases, own_code
        from fedmodel.provision import bases_of

        told: dict[str, bool | float | int | str] = {
            "scenario": self.scenario.model_dump_json(exclude_none=True),
            "run-dir": str(self.run_dir),
            "device": self.device,
        }
        if self.scenario.own_code and (folder := own_code.folder()) is not None:
            told["own-code"] = str(folder)
        for sha256 in bases_of(self.scenario):
            told["base"] = str(bases.folder_of_base(sha256) or "")
        return told | ({"run": self.run} if self.run else {})


class Engine(Protocol):
    """Carries a run to its end, and says for the report what that means for records."""

    @property
    def one_process(self) -> bool:
        """Whether all of a run is carried in this process, where a script's own objects can be found."""

    @property
    def keeps_ledgers(self) -> bool:
        """Whether each silo has a kit and a ledger; else the run has one book of all silos' charges."""

    @property
    def noise_added(self) -> str:
        """Where a silo adds its noise, as a part of a sentence."""

    @property
    def records_read(self) -> str:
        """Who could have read silos' records, in a sentence."""

    def check(self, scenario: Scenario) -> None:
        """Refuse by name what of a scenario it does not carry, before anything is written.

        Raises:
            ConfigError: With the key, and what to do.
        """

    def carry(self, simulation: Simulation) -> None:
        """Return when the run has ended.

        Raises:
            FedmodelError: When it fails; what was written until then stays.
        """


def refuse_objects(scenario: Scenario, engine: str) -> None:
    """Refuse what a script handed over, for an engine that carries a run in other processes.

    Raises:
        ConfigError: When the scenario names such an object.
    """
    from fedmodel.kinds import own_code

    for key, use in scenario.own_code.items():
        if own_code.is_handed_over(use) and not engine_of(engine).one_process:
            raise ConfigError(
                f"{key} = {use!r} is an object of this script, and --engine {engine} runs silos in other processes,"
                " which cannot have it; put it into a file, or take --engine in-process"
            )


KINDS: Final = kinds(__name__)
"""By name, the modules of the engines."""


MANY: Final = 200
"""From so many silos on, a run that names no engine is the vectorised one's, where that takes it."""
_FEW_SILOS, _MANY_SILOS = "in-process", "vectorised"


def chosen(scenario: Scenario) -> str:
    """Return the engine of a run that names none: with ledgers, or from `MANY` silos on the one that keeps a book."""
    if len(scenario.federation.silos) < MANY:
        return _FEW_SILOS
    try:
        engine_of(_MANY_SILOS).check(scenario)
    except ConfigError:
        return _FEW_SILOS
    return _MANY_SILOS


def engine_of(name: str) -> Engine:
    """Return an engine by its name.

    Raises:
        ConfigError: When there is none of that name.
    """
    if name not in KINDS:
        raise ConfigError(f"--engine: {not_known('engine', name, KINDS)}")
    engine: Engine = KINDS[name].ENGINE
    return engine
