"""Records from files in a folder (`fedmodel.kinds.files`): a simulation's, part by part, and a deployed silo's own.

What a record becomes is a function of its own file or line and of what the scenario declares. Records are in the order
of the files' names, so the same folder gives the same records.

Errors name a file, by its place in the folder, and a rule, never a value. Links are followed as the file system has
them: whoever simulates owns the folder. In a deployed silo's no folder may be a link, since whether one source has two
budgets is seen by the files that lie there (`fedmodel.data.same_source`).

Guarantee: of a deployed silo's folder no record of a person who withdrew is looked at beyond her id, and of the others
each is what it would be without hers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario, TableSource, data_from_json
from fedmodel.data import idx, images, json_lines
from fedmodel.data.cache import Cache
from fedmodel.data.kept import read_or_kept
from fedmodel.data.named import arrays, each
from fedmodel.data.parts import Parts
from fedmodel.data.records import Records
from fedmodel.data.sources import identity
from fedmodel.data.taken import Taken, by_record
from fedmodel.data.whose import Whose
from fedmodel.data.withdrawn import Withdrawn
from fedmodel.errors import ConfigError, DataError, FedmodelError
from fedmodel.kinds.files import HELD_OUT, TRAIN, Files
from fedmodel.kinds.shape import ArrayShape
from fedmodel.kinds.sources.idx import IdxConfig
from fedmodel.kinds.sources.images import ImagesConfig
from fedmodel.kinds.sources.json_lines import JsonLinesConfig

T = TypeVar("T")
_READERS: Final[dict[type[Files], Callable[[Any, Path, Whose | None], Taken]]] = {
    ImagesConfig: images.read_images,
    IdxConfig: lambda config, folder, _: idx.read_idx(config, folder),
    JsonLinesConfig: json_lines.read_json_lines,
}
_FILES: Final[dict[type[Files], Callable[[Any, Path], Sequence[Path]]]] = {
    ImagesConfig: images.image_files,
    IdxConfig: lambda _, folder: idx.pair_of(folder),
    JsonLinesConfig: lambda _, folder: json_lines.line_files(folder),
}
_LABEL: Final = b"fedmodel/v1/files-key"
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
    return _dealt_once(config.model_dump_json(), scenario.federation.silos, scenario.seed, state)


@lru_cache(maxsize=1)
def _dealt_once(config_json: str, silos: tuple[str, ...], seed: int, _: _State) -> tuple[Records, tuple[Records, ...]]:
    """Read and deal, once a process for as long as the files are the same."""
    config = data_from_json(config_json)
    if not isinstance(config, Files):
        raise ConfigError(f"data.source = {config.source!r} is no folder of files")
    parts = _parts(config, silos)
    return parts.dealt_out(config.held_out, config.partition, config.feature_bound, silos, seed)


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
    person = getattr(config, "person", None)
    whose = None if person is None else Whose(person)
    found = _guarded(folder, lambda: _READERS[type(config)](config, folder, whose))
    if not len(found):
        raise DataError(f"{folder}: holds no record")
    return found


def _guarded(folder: Path, read: Callable[[], T]) -> T:
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


def files_records(
    config: Files, source: TableSource, cache: Cache | None = None, withdrawn: Withdrawn | None = None
) -> Records:
    """Return a party's own files as records; none where it has none. Sensitive.

    Args:
        config: Declares them; where a simulation's lie is not looked at.
        source: Where they lie, with absolute paths.
        cache: Where they are kept, sealed, once read; None keeps them in memory alone.
        withdrawn: Persons whose records are not read.

    Raises:
        ConfigError: When the party's own file says otherwise than the scenario whose a record is, or says it of what
            does not; or persons withdrew by another word on that than its own file has now.
        DataError: Which file breaks which rule; never a value.
    """
    whose = whose_of(config, source, withdrawn)
    shape = config.shape
    flat = read_or_kept(
        f"data set {config.data_set!r}",
        config.data_set,
        cache,
        lambda: _key(config, source, withdrawn),
        lambda: _side_by_side(config, _READERS[type(config)](config, Path(source.files or ""), whose)),
        sum(math.prod(one.size) for one in arrays(shape.arrays)),
        shape.targets,
    )
    return Records(_apart(flat.x_NF, shape.arrays), flat.y_N, flat.person_N)


def files_read(config: Files, folder: Path) -> Sequence[Path]:
    """Return the files that records are read from, of a folder that can be read.

    Raises:
        DataError: As `files_records` does.
    """
    return _guarded(folder, lambda: _FILES[type(config)](config, folder))


def may_hold_records(path: Path) -> bool:
    """Return whether a reader here would take a file for one of records, by its name: no other is ever read as one."""
    return images.is_image(path) or idx.is_idx(path) or json_lines.is_lines(path)


def check_files(config: Files, source: TableSource) -> None:
    """Refuse a folder that is not there, and a listing without the columns that are declared.

    Guarantee: the answer hangs on whether the folder is one and, of images with a listing, on that file's header, and
    on no record: it may be told to a server.

    Raises:
        ConfigError: As `files_records` does.
        DataError: What is not there.
    """
    folder = Path(source.files or "")
    whose = whose_of(config, source, None)
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    if isinstance(config, ImagesConfig) and config.listing is not None:
        listing = folder / config.listing
        _guarded(folder, lambda: images.check_listing(listing, whose))


def whose_of(config: Files, source: TableSource, withdrawn: Withdrawn | None) -> Whose | None:
    """Return by which field it is known whose a record is: the party's own word goes before the scenario's.

    Raises:
        ConfigError: When the two name different fields, the files do not say whose a record is, or persons withdrew by
            another word than the party's own file has now.
    """
    asked, told = getattr(config, "person", None), source.person
    name = config.data_set
    if told is not None and (reason := config.why_no_ids()) is not None:
        raise ConfigError(f"[tables.{name}] says person, and {reason}; leave person out")
    if asked is not None and told is not None and told.column != asked:
        raise ConfigError(
            f"data set {name!r}: the scenario says by {asked!r} whose a record is, and this party's own file by"
            f" {told.column!r}; only its own holds"
        )
    if withdrawn is not None and withdrawn.ids:
        if told != withdrawn.person:
            raise ConfigError(
                f"data set {name!r}: persons withdrew by {withdrawn.person.column!r} in form ="
                f' "{withdrawn.person.form}", and silo.toml says otherwise now; say it again under [tables.{name}]'
            )
        return Whose(told.column, told.form, frozenset(withdrawn.normal()))
    if told is not None:
        return Whose(told.column, told.form)
    return None if asked is None else Whose(asked)


def _key(config: Files, source: TableSource, withdrawn: Withdrawn | None) -> bytes:
    """Return a digest of what is declared, of which files there are now, and of who withdrew."""
    declared = config.model_dump_json(exclude={"folder", "held_out", "partition"}).encode()
    gone = bytes(32) if withdrawn is None else withdrawn.digest()
    return hashlib.sha256(_LABEL + hashlib.sha256(declared).digest() + identity(source) + gone).digest()


def _side_by_side(config: Files, taken: Taken) -> Records:
    """Return records each of which is one row of numbers, float32, as they are kept; real numbers bounded.

    A whole number is under 2^24 here, the tokens of a text, so that float32 has it exactly.
    """
    bound = config.feature_bound
    bounded = each(taken.x, lambda one: np.clip(one, -bound, bound) if one.dtype.kind == "f" else one)
    rows = [by_record(one).astype(np.float32) for one in arrays(bounded)]
    # Whose a record is, is told only where the scenario asks: else each is a person of its own.
    is_asked = getattr(config, "person", None) is not None
    person_N = taken.person_N if is_asked else np.arange(len(taken))
    return Records(np.concatenate(rows, axis=1), taken.y_N, person_N)


def _apart(
    x_NF: NDArray[np.float32], shapes: ArrayShape | Mapping[str, ArrayShape]
) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """Return rows as the arrays that they were made of."""
    if isinstance(shapes, ArrayShape):
        return x_NF.reshape(len(x_NF), *shapes.size)
    found, at = dict[str, NDArray[Any]](), 0
    for name, one in shapes.items():
        width = math.prod(one.size)
        part = x_NF[:, at : at + width].reshape(len(x_NF), *one.size)
        found[name] = part if one.below is None else part.astype(np.int64)
        at += width
    return found
