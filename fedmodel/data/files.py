"""A party's own files as records: each kind of files has a reader, by which a simulation and a run read alike.

What a record becomes is a function of its own file, line or row and of what the scenario declares. Records are in the
order of the files' names, so the same folder gives the same records.

Errors name a file, by its place in the folder, and a rule, never a value. Links to files are followed as the file
system has them. In a deployed silo's no folder may be a link, since whether one source has two budgets is seen by the
files that lie there (`fedmodel.data.same_source`).

Guarantee: of a deployed silo's folder no record of a person who withdrew, or who is held out, is looked at beyond her
id, and of the others each is what it would be without hers. Where a share of pictures is held out that nothing says
whose they are, none of these is a record (`fedmodel.data.whose`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import TableSource
from fedmodel.data import cifar, idx, images, json_lines, pictures, saved
from fedmodel.data.cache import Cache
from fedmodel.data.kept import read_or_kept
from fedmodel.data.named import arrays, each
from fedmodel.data.reading import Reading
from fedmodel.data.records import Records
from fedmodel.data.scattering import scattered
from fedmodel.data.sources import identity
from fedmodel.data.taken import Taken, by_record
from fedmodel.data.tokenizer import check_tokenizer
from fedmodel.data.whose import Whose
from fedmodel.data.withdrawn import Withdrawn
from fedmodel.errors import ConfigError, DataError, FedmodelError
from fedmodel.kinds.files import Files
from fedmodel.kinds.pictures import Framed
from fedmodel.kinds.scattering import VERSION
from fedmodel.kinds.shape import ArrayShape
from fedmodel.kinds.sources.cifar import CifarConfig
from fedmodel.kinds.sources.idx import IdxConfig
from fedmodel.kinds.sources.images import ImagesConfig
from fedmodel.kinds.sources.json_lines import JsonLinesConfig
from fedmodel.kinds.sources.saved_images import SavedImagesConfig
from fedmodel.kinds.sources.saved_texts import SavedTextsConfig
from fedmodel.kinds.texts import Texts

T = TypeVar("T")


@dataclass(frozen=True)
class _Kind:
    """How one kind of files is read.

    Attributes:
        read: Returns its records.
        files: Returns the files that are read for it.
        told: What is read, in words for a person.
        has_test: Returns whether a folder has records of the server's beside others, where a kind knows them by name.
        test: Reads these.
        test_told: Which files these are, in words for a person.
    """

    read: Callable[[Any, Path, Reading], Taken]
    files: Callable[[Any, Path], Sequence[Path]]
    told: str
    has_test: Callable[[Path], bool] = lambda _: False
    test: Callable[[Any, Path, Reading], Taken] | None = None
    test_told: str = ""


_SAVED: Final = "the Arrow files that state.json of a saved data set names are read"


def _saved_files(_: Files, folder: Path) -> list[Path]:
    # Both stand beside each set, and no other file than the first is looked at.
    return [folder / saved.STATE, folder / "dataset_info.json", *saved.saved_files(folder)]


_KINDS: Final[Mapping[type[Files], _Kind]] = {
    ImagesConfig: _Kind(
        images.read_images,
        images.image_files,
        "images in the folder of each label are read, or those that the scenario's data.listing names",
    ),
    IdxConfig: _Kind(
        idx.read_idx,
        lambda _, folder: idx.pair_of(folder),
        "one pair of PREFIX-images-idx3-ubyte and PREFIX-labels-idx1-ubyte, or .gz of them, is read",
        idx.has_test,
        partial(idx.read_idx, test=True),
        "a second pair, whose PREFIX is t10k or test",
    ),
    CifarConfig: _Kind(
        cifar.read_cifar,
        lambda _, folder: cifar.cifar_files(folder),
        "files that end in .bin, in the folder itself, are read",
        cifar.has_test,
        partial(cifar.read_cifar, test=True),
        "beside others a .bin whose name begins with test, as test_batch.bin",
    ),
    JsonLinesConfig: _Kind(
        json_lines.read_json_lines,
        lambda _, folder: json_lines.line_files(folder),
        "files that end in .jsonl, in the folder itself, are read",
    ),
    SavedTextsConfig: _Kind(saved.read_texts, _saved_files, _SAVED),
    SavedImagesConfig: _Kind(saved.read_images, _saved_files, _SAVED),
}
_LABEL: Final = b"fedmodel/v1/files-key"


def read_folder(config: Files, folder: Path, reading: Reading) -> Taken:
    """Return the records of a folder. Sensitive.

    Raises:
        DataError: Which file breaks which rule.
    """
    return guarded(folder, lambda: _KINDS[type(config)].read(config, folder, reading))


def read_test(config: Files, folder: Path) -> Taken | None:
    """Return the records of the server's that a folder has beside others; None where it has none. Sensitive.

    Raises:
        DataError: As `read_folder` does.
    """
    kind = _KINDS[type(config)]
    read = kind.test
    if read is None or not guarded(folder, lambda: kind.has_test(folder)):
        return None
    return guarded(folder, lambda: read(config, folder, Reading()))


def featured(config: Files, x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> NDArray[Any] | Mapping[str, NDArray[Any]]:
    """Return records as a model is given them: features of each, where the scenario asks for some. Sensitive.

    Guarantee: a record's features are a function of that record alone, and within `feature_bound`.

    Args:
        config: Declares the files.
        x: Records as they are read. Sensitive.
    """
    if not isinstance(config, Framed) or config.scattering_of is None or isinstance(x, Mapping):
        return x
    return np.clip(scattered(x, decorrelated=config.are_decorrelated), -config.feature_bound, config.feature_bound)


def _is_scattered(config: Files) -> bool:
    return isinstance(config, Framed) and config.scattering_of is not None


def _with_features(config: Files, taken: Taken) -> Taken:
    return replace(taken, x=featured(config, taken.x))


def guarded(folder: Path, read: Callable[[], T]) -> T:
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
            does not; persons withdrew by another word on that than its own file has now; or the tokenizer is another.
        DataError: Which file breaks which rule; never a value.
    """
    reading = reading_of(config, source, withdrawn)
    shape = config.shape
    flat = read_or_kept(
        f"data set {config.data_set!r}",
        config.data_set,
        cache,
        lambda: _key(config, source, withdrawn),
        lambda: _side_by_side(config, _with_features(config, read_folder(config, Path(source.files or ""), reading))),
        sum(math.prod(one.size) for one in arrays(shape.arrays)),
        shape.targets,
    )
    return Records(_apart(flat.x_NF, shape.arrays), flat.y_N, flat.person_N)


def reading_of(config: Files, source: TableSource, withdrawn: Withdrawn | None = None) -> Reading:
    """Return how a party's own files are read for training.

    Raises:
        ConfigError: As `files_records` does.
    """
    return Reading(whose_of(config, source, withdrawn), None if source.tokenizer is None else Path(source.tokenizer))


def files_read(config: Files, folder: Path) -> Sequence[Path]:
    """Return the files that records are read from, of a folder that can be read.

    Raises:
        DataError: As `files_records` does.
    """
    return guarded(folder, lambda: _KINDS[type(config)].files(config, folder))


def what_is_read(config: Files) -> str:
    """Say which files of a folder are read."""
    return _KINDS[type(config)].told


def which_are_the_servers(config: Files) -> str:
    """Say which files are the server's beside others; nothing of a kind that knows none by their names."""
    return _KINDS[type(config)].test_told


def may_hold_records(path: Path) -> bool:
    """Return whether a reader here would take a file for one of records, by its name: no other is ever read as one."""
    known = (pictures.is_image, idx.is_idx, cifar.is_cifar, json_lines.is_lines, saved.is_saved)
    return any(is_known(path) for is_known in known)


def check_files(config: Files, source: TableSource) -> None:
    """Refuse a folder that is not there, a listing or a saved set without the columns declared, or another tokenizer.

    Guarantee: the answer hangs on whether the folder is one; of images with a listing, on that file's header; of a
    saved set, on the names of its files and columns; of texts, on the tokenizer's file; and on no record: it may be
    told to a server.

    Raises:
        ConfigError: As `files_records` does.
        DataError: What is not there.
    """
    folder = Path(source.files or "")
    whose = whose_of(config, source, None)
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    known = [] if whose.column is None else [whose.column]
    if isinstance(config, ImagesConfig) and config.listing is not None:
        listing = folder / config.listing
        guarded(folder, lambda: images.check_listing(listing, whose.column))
    if isinstance(config, SavedTextsConfig):
        columns = [*saved.text_columns(config), *known]
        guarded(folder, lambda: saved.check_saved(folder, columns))
    if isinstance(config, SavedImagesConfig):
        columns = [config.image, config.label, *known]
        guarded(folder, lambda: saved.check_saved(folder, columns))
    _check_tokenizer(config, source)


def _check_tokenizer(config: Files, source: TableSource) -> None:
    """Refuse a tokenizer's file that is not there, or of which a byte is another."""
    if not isinstance(config, Texts) or config.tokenizer is None:
        return
    if source.tokenizer is None:
        raise ConfigError(
            f"data set {config.data_set!r}: the scenario reads texts by a tokenizer, and [tables.{config.data_set}]"
            " does not say where its file lies; add tokenizer = PATH"
        )
    check_tokenizer(config.tokenizer, Path(source.tokenizer), config.length)


def whose_of(config: Files, source: TableSource, withdrawn: Withdrawn | None, *, held_out: bool = False) -> Whose:
    """Return which records are read, and by which field: the party's own word goes before the scenario's.

    Args:
        config: Declares the files.
        source: What the party's own file says.
        withdrawn: Persons whose records are not read.
        held_out: Whether what is held out is read, and not the rest.

    Raises:
        ConfigError: When the two name different fields; the files do not say whose a record is, or nobody says by which
            field, where persons or their records are told apart; or persons withdrew by another word than the party's
            own file has now.
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
    if source.held_out is not None and told is None and (asked is not None or not config.are_pictures):
        raise ConfigError(
            f"[tables.{name}] says held_out and no person, by which it is known whose records go together; add person,"
            " the field or column that says it. Pictures alone need none, where a scenario asks for none"
        )
    part = Whose(share=source.held_out, held_out=held_out)
    if withdrawn is not None and withdrawn.ids:
        if told != withdrawn.person:
            raise ConfigError(
                f"data set {name!r}: persons withdrew by {withdrawn.person.column!r} in form ="
                f' "{withdrawn.person.form}", and silo.toml says otherwise now; say it again under [tables.{name}]'
            )
        return replace(part, column=told.column, form=told.form, gone=frozenset(withdrawn.normal()))
    if told is not None:
        return replace(part, column=told.column, form=told.form)
    return part if asked is None else replace(part, column=asked)


def _key(config: Files, source: TableSource, withdrawn: Withdrawn | None) -> bytes:
    """Return a digest of what is declared, of which files there are now, and of who withdrew."""
    _check_tokenizer(config, source)
    declared = config.model_dump_json(exclude={"folder", "held_out", "partition"}).encode()
    gone = bytes(32) if withdrawn is None else withdrawn.digest()
    made = VERSION if _is_scattered(config) else b""
    return hashlib.sha256(_LABEL + made + hashlib.sha256(declared).digest() + identity(source) + gone).digest()


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
