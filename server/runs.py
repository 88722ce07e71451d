"""A deployed server's runs: a folder each, handed in by one process and brought to its outcome by another.

    runs/NAME/scenario.toml   what is to be done
    runs/NAME/start.safetensors.age   what it begins from, where that is a file; sealed to the server
    runs/NAME/run.json        {"name": NAME, "run": decimal, "submitted": time}, {"network": kind} of a rehearsal, and
                              {"checked": what it was checked with} where the scenario names code of the user's own;
                              written last, so a folder without it is not looked at
    runs/NAME/outcome.json    {"completed": true}, or {"completed": false, "error": line, "code": code}; ends it

Whoever may write into the server's kit may hand in a run, and nobody else: there is no port for it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fedmodel.config import Scenario, scenario_to_toml
from fedmodel.crypto.sealed import write_sealed
from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.learning.starts import START
from fedmodel.provision import read_federation_roster
from fedmodel.system.durable import MISSING, erase_folder, replace_file

SCENARIO: Final = "scenario.toml"
RUN: Final = "run.json"
OUTCOME: Final = "outcome.json"
NETWORK: Final = "network"
CHECKED: Final = "checked"
_RUNS: Final = "runs"


@dataclass(frozen=True)
class Submitted:
    """A run that waits for its outcome: its folder, and its number, which is the same for as long as it takes."""

    folder: Path
    number: int


@dataclass(frozen=True)
class Outcome:
    """How a run ended; `error` and `code` are empty where it completed."""

    completed: bool
    error: str = ""
    code: str = ""


def submit(
    home: Path,
    scenario: Scenario,
    start: bytes | None = None,
    rehearsed: str | None = None,
    checked: Mapping[str, object] | None = None,
) -> Submitted:
    """Hand in a run, and return where it is.

    Args:
        home: The server's kit.
        scenario: What is to be done.
        start: The file that it begins from, opened.
        rehearsed: On what network one machine plays all parties; None where each is its own.
        checked: What code of the user's own it was checked with, and what followed of that; None where it names none.

    Raises:
        ConfigError: When its silos are not the roster's, or the kit cannot be written to.
    """
    _check_silos(home, scenario)
    now = datetime.now(UTC)
    folder = home / _RUNS / f"{scenario.name}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    number = 1 + secrets.randbelow(2**63 - 1)
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
        replace_file(folder / SCENARIO, scenario_to_toml(scenario).encode())
        if start is not None:
            write_sealed(folder / f"{START}.age", start, [read_federation_roster(home).server.age])
        told: dict[str, object] = {
            "name": folder.name,
            "run": str(number),
            "submitted": now.isoformat(timespec="milliseconds"),
        }
        told |= {} if rehearsed is None else {NETWORK: rehearsed}
        told |= {} if checked is None else {CHECKED: dict(checked)}
        replace_file(folder / RUN, json.dumps(told, sort_keys=True).encode())
    except OSError as error:
        with suppress(OSError):  # whoever was told that it failed hands it in again, and must not be charged twice
            (folder / RUN).unlink(missing_ok=True)
        with suppress(OSError):
            erase_folder(folder)
        raise ConfigError(
            f"{folder}: cannot be written: {error.strerror}; submit as the server's own account"
        ) from error
    return Submitted(folder, number)


def number_of(folder: Path) -> str | None:
    """Return the number that a run's folder says it has, None where it says none."""
    try:
        said = json.loads((folder / RUN).read_text(encoding="utf-8"))["run"]
    except (*MISSING, ValueError, KeyError, TypeError):
        return None
    return str(said)


def network_of(folder: Path) -> str | None:
    """Return on what network one machine played all parties of a run; None where it was no rehearsal."""
    try:
        said = json.loads((folder / RUN).read_text(encoding="utf-8")).get(NETWORK)
    except (*MISSING, ValueError, AttributeError):
        return None
    return None if said is None else str(said)


def checked_of(folder: Path) -> dict[str, Any] | None:
    """Return what code of the user's own a run was checked with as it was handed in, None where nothing says so."""
    try:
        said = json.loads((folder / RUN).read_text(encoding="utf-8")).get(CHECKED)
    except (*MISSING, ValueError, AttributeError):
        return None
    return said if isinstance(said, dict) else None


def waiting(home: Path) -> Submitted | None:
    """Return the run that has waited longest, None where none does; one that says nothing has its outcome now.

    Raises:
        OSError: When a file cannot be read; that is no verdict on a run.
    """
    found = []
    for folder in folders(home):
        if outcome_of(folder) is not None:
            continue
        try:
            said = json.loads((folder / RUN).read_text(encoding="utf-8"))
            found.append((str(said["submitted"]), Submitted(folder, _number(said["run"]))))
        except (*MISSING, ValueError, KeyError, TypeError) as error:
            end(folder, ConfigError(f"{folder / RUN} does not say a run's number and time ({type(error).__name__})"))
    return min(found, key=lambda one: one[0])[1] if found else None


def folders(home: Path) -> list[Path]:
    """Return the folders of all runs that were handed in, by name."""
    return [folder for folder in sorted((home / _RUNS).glob("*/")) if (folder / RUN).exists()]


def home_of(folder: Path) -> Path:
    """Return the server's kit that a run's folder lies in."""
    return folder.parent.parent


def end(folder: Path, error: FedmodelError | None) -> None:
    """Write down how a run ended; it is not taken up again."""
    told: dict[str, object] = {"completed": error is None}
    if error is not None:
        told |= {"error": str(error), "code": error.code}
    replace_file(folder / OUTCOME, json.dumps(told, sort_keys=True).encode())


def outcome_of(folder: Path) -> Outcome | None:
    """Return how a run ended, None where it has not."""
    try:
        said = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Outcome(bool(said["completed"]), str(said.get("error", "")), str(said.get("code", "")))


def _check_silos(home: Path, scenario: Scenario) -> None:
    """Refuse a scenario for other silos than the federation has."""
    roster = {member.name for member in read_federation_roster(home).silos}
    asked = set(scenario.federation.silos)
    if unknown := sorted(asked - roster):
        raise ConfigError(
            f"scenario {scenario.name!r} names silo {unknown[0]!r}, which is not in the roster; known:"
            f" {', '.join(sorted(roster))}"
        )
    if scenario.encryption.secure_aggregation == "on" and (left_out := sorted(roster - asked)):
        raise ConfigError(
            f"scenario {scenario.name!r} leaves out silo {left_out[0]!r} of the roster; under secure aggregation the"
            " whole roster signs who is in a sum, so a scenario names all of it"
        )


def _number(said: object) -> int:
    number = int(str(said))
    if not 0 < number < 2**64:
        raise ValueError("a run's number has 64 bits, and is not 0")
    return number
