"""Records from files in a simulation's folder (`fedmodel.kinds.files`): which part is whose, and each part read.

What a record becomes is a function of its own file or line and of what the scenario declares. Records are in the order
of the files' names, so the same folder gives the same records.

Errors name a file, by its place in the folder, and a rule, never a value. Links are followed as the file system has
them: whoever simulates owns the folder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from fedmodel.config import Scenario, data_from_json
from fedmodel.data import idx, images, json_lines
from fedmodel.data.parts import Parts
from fedmodel.data.records import Records
from fedmodel.data.taking import Taken
from fedmodel.errors import ConfigError, DataError, FedmodelError
from fedmodel.kinds.files import HELD_OUT, TRAIN, Files
from fedmodel.kinds.sources.idx import IdxConfig
from fedmodel.kinds.sources.images import ImagesConfig
from fedmodel.kinds.sources.json_lines import JsonLinesConfig

_READERS: Final[dict[type[Files], Callable[[Any, Path], Taken]]] = {
    ImagesConfig: images.read_images,
    IdxConfig: idx.read_idx,
    JsonLinesConfig: json_lines.read_json_lines,
}
_State = tuple[tuple[str, int, int], ...]


def folder_dealt(scenario: Scenario) -> tuple[Records, tuple[Records, ...]]:
    """Return the server's held-out records, and every silo's.

    Raises:
        ConfigError: When it is not said what the server's are.
        DataError: When a file breaks a rule, or the records cannot be dealt out.
    """
    config = scenario.data
    if not isinstance(config, Files) or scenario.seed is None:
        raise ConfigError("the scenario is of no folder of files, or has no seed; read it as a simulation does")
    state = _state(Path(config.folder))
    return _dealt_once(config.model_dump_json(), scenario.federation.silos, scenario.seed, state)


@lru_cache(maxsize=1)
def _dealt_once(config_json: str, silos: tuple[str, ...], seed: int, _: _State) -> tuple[Records, tuple[Records, ...]]:
    """Read and deal, once a process for as long as the files are the same."""
    config = data_from_json(config_json)
    if not isinstance(config, Files):
        raise ConfigError(f"data.source = {config.source!r} is no folder of files")
    parts = _parts(config, silos)
    return parts.dealt_out(config.held_out, config.partition, config.feature_bound, silos, seed)


def _state(folder: Path) -> _State:
    """Return what of a folder changes when a file in it does."""
    try:
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return tuple((str(path), (one := path.stat()).st_mtime_ns, one.st_size) for path in found)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None


def _parts(config: Files, silos: tuple[str, ...]) -> Parts:
    """Return the parts of a folder, each read."""
    folder = Path(config.folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; data.folder names the one with the files")
    there = [silo for silo in silos if (folder / silo).is_dir()]
    if there and len(there) < len(silos):
        lacking = next(silo for silo in silos if silo not in there)
        raise DataError(f"{folder}: has a folder for silo {there[0]!r} and none for {lacking!r}; each silo needs one")
    train = folder / TRAIN if (folder / TRAIN).is_dir() else folder
    apart = folder / HELD_OUT
    has_test = apart.is_dir() and (bool(there) or train != folder)
    test = _read(config, apart) if has_test else None
    if test is None and isinstance(config, IdxConfig) and not there and idx.has_test(train):
        test = _guarded(train, lambda: idx.read_idx(config, train, test=True))
    if (test is None) == (config.held_out is None):
        found = "has a part for the server, and data.held_out says a share" if test else "has no part for the server"
        raise ConfigError(f"{folder}: {found}; give {HELD_OUT}/ or data.held_out, and not both")
    if there:
        return Parts(tuple(_read(config, folder / silo) for silo in silos), False, test)
    return Parts((_read(config, train),), True, test)


def _read(config: Files, folder: Path) -> Taken:
    """Return one folder's records, of which there have to be some."""
    found = _guarded(folder, lambda: _READERS[type(config)](config, folder))
    if not len(found):
        raise DataError(f"{folder}: holds no record")
    return found


def _guarded(folder: Path, read: Callable[[], Taken]) -> Taken:
    """Say of what goes wrong a rule, and nothing that is in a file."""
    try:
        return read()
    except FedmodelError:
        raise
    except MemoryError:
        raise DataError(f"{folder}: does not fit into this machine's memory") from None
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror or 'it is damaged'}") from None
    except Exception as error:
        # Whatever it is, its words and its trace could quote a value.
        raise DataError(f"{folder}: cannot be read ({type(error).__name__})") from None
