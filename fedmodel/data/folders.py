"""A simulation's folder of files (`fedmodel.kinds.files`), part by part: each silo's own, or one that is dealt out.

Each part is read as a deployed silo's own is (`fedmodel.data.files`). Links are followed as the file system has them:
whoever simulates owns the folder.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from fedmodel.config import Scenario, data_from_json
from fedmodel.data.files import (
    featured,
    files_read,
    guarded,
    read_folder,
    read_test,
    what_is_read,
    which_are_the_servers,
)
from fedmodel.data.parts import Parts
from fedmodel.data.places import first_few, found_in
from fedmodel.data.reading import Reading
from fedmodel.data.records import Records
from fedmodel.data.taken import Taken
from fedmodel.data.whose import Whose
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.files import HELD_OUT, TRAIN, Files
from fedmodel.kinds.texts import Texts
from fedmodel.privacy.events import UnitName

_OF_DEBIAN: Final = Path("/usr/share/datasets")
_TABLES: Final = (".csv", ".parquet")
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
    state = _state(_folder_of(config))
    return _dealt_once(config.model_dump_json(), scenario.federation.silos, scenario.seed, scenario.privacy.unit, state)


@lru_cache(maxsize=1)
def _dealt_once(
    config_json: str, silos: tuple[str, ...], seed: int, unit: UnitName, _: _State
) -> tuple[Records, tuple[Records, ...]]:
    """Read and deal, once a process for as long as the files are the same, as a claim for `unit` asks it."""
    config = data_from_json(config_json)
    if not isinstance(config, Files):
        raise ConfigError(f"data.source = {config.source!r} is no folder of files")
    parts = _parts(config, silos)
    parts.check_apart(unit)
    test, own = parts.dealt_out(config.held_out, config.partition, config.feature_bound, silos, seed)
    # Once they are dealt: features of all images at once would be held twice.
    return _with_features(config, test), tuple(_with_features(config, one) for one in own)


def _with_features(config: Files, records: Records) -> Records:
    """Return records as a model is given them."""
    return replace(records, x=featured(config, records.x))


def _folder_of(config: Files) -> Path:
    """Return where a simulation's files lie."""
    if config.folder is None:
        raise ConfigError("data.folder is missing: a simulation reads each silo's files, and the server's, from there")
    return Path(config.folder)


def _state(folder: Path) -> _State:
    """Return what of a folder changes when a file in it does."""
    try:
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return tuple((str(path), (one := path.stat()).st_mtime_ns, one.st_size) for path in found)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None


def _parts(config: Files, silos: tuple[str, ...]) -> Parts:
    """Return the parts of a folder, each read."""
    folder = _folder_of(config)
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; {_what_to_do(folder)}")
    there = silos_there(folder, silos)
    if there and len(there) < len(silos):
        lacking = next(silo for silo in silos if silo not in there)
        raise DataError(f"{folder}: has a folder for silo {there[0]!r} and none for {lacking!r}; each silo needs one")
    train = folder / TRAIN if (folder / TRAIN).is_dir() else folder
    apart = folder / HELD_OUT
    if apart.is_dir() and not there and train == folder:
        raise DataError(
            f"{folder}: has {HELD_OUT}/ and neither {TRAIN}/ nor a folder of a silo (found: {_found(folder)}), so that"
            f" {HELD_OUT}/ would not be read; put what is dealt out into {TRAIN}/, or call the silos' folders as"
            " federation.silos does"
        )
    test = _read(config, apart) if apart.is_dir() else None
    if test is None and not there:
        test = read_test(config, train)
    if (test is None) == (config.held_out is None):
        found = "has a part for the server, and data.held_out says a share" if test else None
        found = found or _without_the_servers(config, train, is_dealt=not there)
        raise ConfigError(f"{folder}: {found}; give {HELD_OUT}/ or data.held_out, and not both")
    if there:
        return Parts(tuple(_read(config, folder / silo) for silo in silos), False, test)
    return Parts((_read(config, train),), True, test)


def silos_there(folder: Path, silos: tuple[str, ...]) -> list[str]:
    """Return the silos that have a folder of their own in one; where none has, what lies there is dealt out."""
    return [silo for silo in silos if (folder / silo).is_dir()]


def unread_beside(config: Files, folder: Path, silos: tuple[str, ...]) -> str | None:
    """Return that folders beside the silos' are not read: whoever put them there may believe that they train.

    To leave a silo out of a scenario is no mistake, so nothing is refused. A folder whose name the system or a tool
    hides is none of a silo's.

    Returns:
        Which, in one line; None where there is none, or silos have no folders of their own.

    Raises:
        DataError: When the folder cannot be looked into.
    """
    if not silos_there(folder, silos):
        return None
    tokenizer = config.tokenizer if isinstance(config, Texts) else None
    known = {*silos, HELD_OUT, *(Path(tokenizer.file).parts[:1] if tokenizer is not None else ())}
    found = guarded(folder, lambda: sorted(path.name for path in folder.iterdir() if path.is_dir()))
    unread = [f"{name}/" for name in found if name not in known and not name.startswith((".", "__"))]
    return _unread(folder, "folders", unread)


def unread_tables(folder: Path, silos: tuple[str, ...]) -> str | None:
    """Return that tables beside the silos' are not read, as `unread_beside` does of folders; None where none is so.

    Raises:
        DataError: When the folder cannot be looked into.
    """
    found = guarded(folder, lambda: sorted(path for path in folder.iterdir() if path.suffix in _TABLES))
    known = {*silos, HELD_OUT}
    unread = [path.name for path in found if path.stem not in known and not path.name.startswith((".", "__"))]
    return _unread(folder, "tables", unread)


def _unread(folder: Path, what: str, names: list[str]) -> str | None:
    if not names:
        return None
    return (
        f"{folder}: beside the silos' {what} lies what federation.silos does not name, and nothing of it is read:"
        f" {first_few(names)}; name it there if it is to train"
    )


def _without_the_servers(config: Files, train: Path, *, is_dealt: bool) -> str:
    """Say that no part is the server's: which one is looked for, and what lies there in its place.

    Raises:
        DataError: When there is nothing to deal out either.
    """
    if is_dealt and not files_read(config, train):
        raise _no_record(config, train)
    told = which_are_the_servers(config) if is_dealt else ""
    if not told:
        return "has no part for the server"
    return f"has no part for the server, neither {HELD_OUT}/ nor {told} (found: {_found(train)})"


def _found(folder: Path) -> str:
    return guarded(folder, lambda: found_in(folder))


def _no_record(config: Files, folder: Path) -> DataError:
    return DataError(f"{folder}: holds no record (found: {_found(folder)}); {what_is_read(config)}")


def _what_to_do(folder: Path) -> str:
    """Say how a folder that is missing comes to be there: data sets of Debian's lie by their names in one place."""
    if folder.parent == _OF_DEBIAN:
        install = f"apt install dataset-{folder.name}"
        return f"Debian has it as a package, {install}, or data.folder names another one with the files"
    return "data.folder names the one with the files"


def _read(config: Files, folder: Path) -> Taken:
    """Return one folder's records, of which there have to be some."""
    found = read_folder(config, folder, _reading(config))
    if not len(found):
        raise _no_record(config, folder)
    return found


def _reading(config: Files) -> Reading:
    """Return how a simulation reads files: all of them, with the tokenizer that lies where the scenario says."""
    tokenizer = config.tokenizer if isinstance(config, Texts) else None
    return Reading(
        Whose(getattr(config, "person", None)), None if tokenizer is None else _folder_of(config) / tokenizer.file
    )
