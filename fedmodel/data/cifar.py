"""Images from CIFAR's binary files (Krizhevsky 2009): of each image its label, then all red, green and blue bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.pictures import digest_of
from fedmodel.data.places import At, found_in
from fedmodel.data.reading import Reading
from fedmodel.data.records import onto_unit
from fedmodel.data.taken import Taken, numbered
from fedmodel.errors import DataError
from fedmodel.kinds.sources.cifar import CifarConfig

_ENDING: Final = ".bin"
_TEST: Final = "test"
_MOST_BYTES: Final = 8_000_000_000


def has_test(folder: Path) -> bool:
    """Return whether a folder has files of the server's beside others."""
    tests = [_is_test(path) for path in _files(folder)]
    return any(tests) and not all(tests)


def read_cifar(config: CifarConfig, folder: Path, reading: Reading, *, test: bool = False) -> Taken:
    """Return the images of a folder, with their labels. Sensitive.

    Args:
        config: What they are.
        folder: Holds the files, perhaps the server's beside others.
        reading: Which images are read, by what each holds.
        test: Whether the server's are asked for.

    Raises:
        DataError: Which file breaks which rule.
    """
    pixels, y_N = labelled_pixels(config, folder, reading, test=test)
    x_N = onto_unit(pixels.astype(np.float32), 0.0, 255.0, config.feature_bound)
    return Taken(x_N, y_N, numbered(None, len(y_N)), str(folder))


def labelled_pixels(
    config: CifarConfig, folder: Path, reading: Reading, *, test: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images that are read, shape `(N, 3, height, width)`, and their labels. Sensitive.

    Raises:
        DataError: As `read_cifar` does.
    """
    parts = [_read(config, path, reading) for path in cifar_files(folder, test=test)]
    return np.concatenate([pixels for pixels, _ in parts]), np.concatenate([y_N for _, y_N in parts])


def cifar_files(folder: Path, *, test: bool = False) -> list[Path]:
    """Return the files that `read_cifar` reads, by name.

    Raises:
        DataError: When there is none.
    """
    found = _files(folder)
    if has_test(folder):
        found = [path for path in found if _is_test(path) == test]
    if not found:
        raise DataError(
            f"{folder}: has no file that ends in {_ENDING} (found: {found_in(folder)}); those of CIFAR's binary version"
            " are read, unpacked"
        )
    return found


def is_cifar(path: Path) -> bool:
    """Return whether a file is one of CIFAR's by its name."""
    return path.suffix == _ENDING and not path.name.startswith(".")


def written(pixels: NDArray[np.uint8], y_N: NDArray[np.int64], label_bytes: int) -> bytes:
    """Return images, shape `(N, 3, height, width)`, as one file; a first label of two is 0."""
    rows = pixels.reshape(len(pixels), math.prod(pixels.shape[1:]))
    labels = np.zeros((len(rows), label_bytes), dtype=np.uint8)
    labels[:, -1] = y_N
    return np.concatenate([labels, rows], axis=1).tobytes()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_cifar(path) and path.is_file())


def _is_test(path: Path) -> bool:
    return path.name.startswith(_TEST)


def _read(config: CifarConfig, path: Path, reading: Reading) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return what a file holds."""
    row = config.label_bytes + math.prod(config.pixels)
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise DataError(f"{path}: has more than {_MOST_BYTES} bytes, and is not read")
    if not size or size % row:
        raise DataError(
            f"{path}: has {size} bytes, which is no whole number of records of {row}, a label of {config.label_bytes}"
            f" and {config.size[0]}x{config.size[1]} pixels of three colours; it is damaged, or of another form"
        )
    rows = np.frombuffer(path.read_bytes(), dtype=np.uint8).reshape(-1, row)
    pixels = rows[:, config.label_bytes :].reshape(-1, *config.pixels)
    y_N = rows[:, config.label_bytes - 1].astype(np.int64)
    is_read_N = np.ones(len(y_N), dtype=np.bool_)
    if reading.whose.looks_at_pictures:
        whose = [reading.whose.has_picture(digest_of(np.moveaxis(one, 0, 2))) for one in pixels]
        is_read_N = np.array(whose, dtype=np.bool_)
    for place in np.flatnonzero(is_read_N & (y_N >= len(config.labels))).tolist():
        with reading.record():
            raise At(path, place, "record").refused(
                f"its label is none from 0 to {len(config.labels) - 1}, and data.labels names so many"
            )
    return pixels[is_read_N], y_N[is_read_N]
