"""A simulated run that was cut short, taken up again by the command that began it.

    OUT/run.json        what began there: number, seed, scenario, engine, device and code; written before all else
    OUT/run.lock        held by the command that runs it
    OUT/serving.lock    held by its server, which under Flower is another process
    OUT/checkpoint      the last round that was whole, as a deployed server keeps it (`server.journal`)

Guarantee: whatever ended a run, at any moment, the same command goes on after the last whole round: one line of
`metrics.jsonl` a round, no release charged twice, no stage of secure aggregation done twice, and with noise of the
operating system none that was ever drawn before. What a silo was charged for and had not finished stays charged; it may
leave in the last round for it, as a deployed silo does. Rounds of a run with "seeded-unsafe" noise are those of an
uninterrupted run to the last bit, as long as the same silos take part.

| Folder                                             | What is done                                                  |
|----------------------------------------------------|---------------------------------------------------------------|
| new, or empty                                      | a run begins                                                  |
| a run that began, and has no summary               | it goes on; kits that were not all made are made anew         |
| the same, of another scenario, engine, device, code| refused, and what differs is said                             |
| the same, of other objects or records of a script  | refused, and which differ is said                             |
| a run that is being run                            | refused                                                       |
| a run that has ended                               | refused; what a kill left that it would go on from is erased  |
| anything else                                      | refused; a run never writes over another                      |

Where it is refused, nothing else in the folder was changed. The kernel lets go of a lock when its process dies.

`run.json` holds a hash of the records of `[data] use`, of all silos and of the test part. It lies in the run's own
folder, on the machine of whoever has the records, and goes into no report: who has it can tell whether it is of given
records.

Does NOT notice that a table was changed meanwhile: its rows then are what the rounds that are left train on.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from fedmodel.config import Scenario, read_scenario, scenario_to_toml
from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code
from fedmodel.provision import SIMULATED, scenario_hash
from fedmodel.system.durable import erase_folder, failed, held, replace_file
from fedmodel.system.packages import installed_hash
from server.journal import forget_all, is_kept
from server.run_files import BEING_RUN, SERVING
from server.runs import RUN, SCENARIO

LOCK: Final = "run.lock"
SUMMARY: Final = "summary.json"
_BEFORE: Final = frozenset({LOCK, f"{RUN}.partial"})  # what a command that was killed at once leaves
_CALLED: Final = {
    "model.use": "the model", "training.loss": "the loss", "data.use": "the data", "data.partition.use": "the partition"
}  # fmt: skip
_WAY_OUT: Final = "a run never writes over another; name a new folder"


@dataclass(frozen=True)
class Begun:
    """What began in a folder.

    Attributes:
        run: The run's number, 64 bits in decimal.
        seed: The scenario's, also where the operating system gave it.
        scenario: The scenario's hash, in hexadecimal.
        engine: What carries messages.
        device: Where silos train.
        code: The hash of the code, with that of a user's own which the scenario names.
        objects: Hashes of what a script handed over, by the key that names it. Runs from before have none.
        records: The hash of a user's own records, empty where there are none. So it is of runs from before.
    """

    run: str
    seed: int
    scenario: str
    engine: str
    device: str
    code: str
    objects: dict[str, str] = field(default_factory=dict)
    records: str = ""


def begun_in(folder: Path | None) -> Begun | None:
    """Return what began in a folder, None where nothing did.

    Raises:
        ConfigError: When `run.json` is none of ours.
    """
    if folder is None:
        return None
    try:
        told: dict[str, Any] = json.loads((folder / RUN).read_text(encoding="utf-8"))
        return Begun(**told)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (IsADirectoryError, ValueError, TypeError) as error:
        raise ConfigError(f"--out {folder}: its {RUN} says of no run that began there; {_WAY_OUT}") from error


@contextmanager
def held_folder(scenario: Scenario, folder: Path, engine: str, device: str) -> Iterator[Path]:
    """Begin a run in a folder, or take up the one that began there, and hold the folder while the block runs.

    Args:
        scenario: As resolved; without a seed of its own, with that of the run that began there.
        folder: New, empty, or of a run that began.
        engine: What carries messages.
        device: Where silos train.

    Raises:
        ConfigError: When the folder is of another run, of one that has ended or is being run, of none, or cannot be
            written to. Nothing in it was changed then, but that what an ended run would have gone on from is erased.
    """
    now = _asked(scenario, engine, device)
    try:
        _end(folder)
        check_same(folder, now, scenario)
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(held(folder / LOCK, BEING_RUN.format(folder)))
            check_same(folder, now, scenario)  # another may have begun it, or ended it, a moment ago
            if begun_in(folder) is None:
                replace_file(folder / RUN, (json.dumps(asdict(now), sort_keys=True) + "\n").encode())
            with held(folder / SERVING, BEING_RUN.format(folder)):  # a server that outlived its command
                _lay_out(folder, scenario)
            locks = stack.pop_all()
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written: {failed(error)}") from error
    with locks:
        yield folder.resolve()


def _end(folder: Path) -> None:
    """Erase what a run would have gone on from that was killed between its summary and that."""
    if _has_ended(folder) and begun_in(folder) is not None and is_kept(folder):
        with held(folder / LOCK, BEING_RUN.format(folder)):
            forget_all(folder)


def left_in(runs: Path, engine: str, device: str) -> list[tuple[Path, Begun]]:
    """Return the runs that were cut short in folders of a folder, by this engine on this device, the newest first.

    One whose `run.json` is none of ours is left out.
    """
    found = []
    for path in runs.glob(f"*/{RUN}"):
        with suppress(ConfigError, OSError):
            begun = begun_in(path.parent)
            if begun is not None and (begun.engine, begun.device) == (engine, device) and not _has_ended(path.parent):
                found.append((path.stat().st_mtime_ns, path.parent, begun))
    return [(folder, begun) for _, folder, begun in sorted(found, key=lambda one: one[0], reverse=True)]


def goes_on_in(folder: Path, scenario: Scenario, engine: str, device: str) -> bool:
    """Tell whether the run that was cut short in a folder is the one that is asked for, and nobody runs it now."""
    try:
        check_same(folder, _asked(scenario, engine, device), scenario)
        with held(folder / LOCK, ""):
            return True
    except (ConfigError, OSError):
        return False


def _asked(scenario: Scenario, engine: str, device: str) -> Begun:
    """Return what would begin now, with a number of its own."""
    from fedmodel.data.own_hash import own_records_hash

    return Begun(str(1 + secrets.randbelow(2**63 - 1)), scenario.seed or 0, scenario_hash(scenario).hex(), engine,
                 device, code_of(scenario), _objects_of(scenario), own_records_hash(scenario))  # fmt: skip


def _has_ended(folder: Path) -> bool:
    return (folder / SUMMARY).exists()


def code_of(scenario: Scenario) -> str:
    """Return the hash of the code that a run is carried by: what is installed, and files of a user's own code."""
    if not scenario.own_code:
        return installed_hash()
    return hashlib.sha256(f"{installed_hash()} {own_code.source_hash(scenario.own_code)}".encode()).hexdigest()


def _objects_of(scenario: Scenario) -> dict[str, str]:
    """Return a hash of each object of a script that the scenario names, by the key that names it."""
    named = {key: use for key, use in scenario.own_code.items() if own_code.is_handed_over(use)}
    return {key: own_code.source_hash({key: use}) for key, use in named.items()}


def check_same(folder: Path, now: Begun, scenario: Scenario) -> None:
    """Refuse a folder in which a run can neither begin nor go on; changes nothing."""
    begun = begun_in(folder)
    if begun is None:
        if folder.exists() and (not folder.is_dir() or any(one.name not in _BEFORE for one in folder.iterdir())):
            raise ConfigError(f"--out {folder}: is not an empty folder; {_WAY_OUT}")
        return
    if _has_ended(folder):
        raise ConfigError(f"--out {folder}: holds a run that has ended, and there is nothing to take up; {_WAY_OUT}")
    if differs := _difference(folder, begun, now, scenario):
        raise ConfigError(
            f"--out {folder}: holds a run that began with {differs}; give the command that began it to go on, or name"
            " a new folder: a run never writes over another"
        )


def _difference(folder: Path, begun: Begun, now: Begun, scenario: Scenario) -> str:
    """Say what differs between a run that began and the one that is asked for, nothing where nothing does."""
    for name in ("engine", "device"):
        there, here = getattr(begun, name), getattr(now, name)
        if there != here:
            return f"--{name} {there}, where this is {here}"
    if begun.scenario != now.scenario:
        return _key_that_differs(folder / SCENARIO, scenario)
    for key, there in begun.objects.items():
        if there != now.objects.get(key):
            called = _CALLED.get(key, "the metric")
            return f"other code: {called}'s code differs ({key} = {scenario.own_code.get(key)!r})"
    if begun.records and begun.records != now.records:
        return "other records: train or test differs (data.use), or is drawn anew each time, without a seed"
    if begun.code != now.code:
        return f"code {begun.code[:16]}..., where {now.code[:16]}... is installed now"
    return ""


def _key_that_differs(path: Path, scenario: Scenario) -> str:
    """Name the first key of a scenario that differs from the one on disk."""
    if path.exists():
        there, here = (_flat(one.model_dump(mode="json")) for one in (read_scenario(str(path)), scenario))
        for key in sorted(there.keys() | here.keys()):
            if there.get(key) != here.get(key):
                return f"{key} = {json.dumps(there.get(key))}, where this is {json.dumps(here.get(key))}"
    return "another scenario"


def _flat(document: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Return a document's values by dotted key."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def _lay_out(folder: Path, scenario: Scenario) -> None:
    """Write the scenario as resolved, and take away kits that were not all made: nothing was asked of any."""
    replace_file(folder / SCENARIO, scenario_to_toml(scenario).encode())
    if not (folder / SIMULATED).exists():
        for part in ("server", "silos", "ledgers"):  # ledgers, where a run goes on from another's, are copies yet
            erase_folder(folder / part)
