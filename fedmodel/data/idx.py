"""Images from IDX files, the form in which MNIST is handed on: a head, then bytes; plain, or by gzip.

Of a file only as much is read as its head declares, and one that is shorter or longer is refused.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.pictures import digest_of
from fedmodel.data.places import At
from fedmodel.data.reading import Reading
from fedmodel.data.records import onto_unit
from fedmodel.data.taken import Taken, numbered
from fedmodel.errors import DataError
from fedmodel.kinds.sources.idx import IdxConfig

_BYTES: Final = 0x08
_TEST: Final = ("t10k", "test")
IMAGES: Final = "-images-idx3-ubyte"
LABELS: Final = "-labels-idx1-ubyte"
_MOST_BYTES: Final = 8_000_000_000


def has_test(folder: Path) -> bool:
    """Return whether a folder has files of the server's beside others."""
    prefixes = _prefixes(folder)
    return any(prefix in _TEST for prefix in prefixes) and any(prefix not in _TEST for prefix in prefixes)


def read_idx(config: IdxConfig, folder: Path, reading: Reading, *, test: bool = False) -> Taken:
    """Return the images of a folder, with their labels. Sensitive.

    Args:
        config: What they are.
        folder: Holds one pair of files, or one to train on and the server's.
        reading: Which of them are read, by what each picture holds.
        test: Whether the server's is asked for, of two.

    Raises:
        DataError: Which file breaks which rule.
    """
    pixels_NHW, y_N = labelled_pixels(config, folder, reading, test=test)
    x_N = onto_unit(pixels_NHW[:, None].astype(np.float32), 0.0, 255.0, config.feature_bound)
    return Taken(x_N, y_N, numbered(None, len(y_N)), str(folder))


def labelled_pixels(
    config: IdxConfig, folder: Path, reading: Reading, *, test: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the pictures that are read, shape `(N, height, width)`, and their labels; as of `read_idx`. Sensitive."""
    images, labels = pair_of(folder, test=test)
    pixels_NHW, y_N = _read(images, 3), _read(labels, 1).astype(np.int64)
    if pixels_NHW.shape[1:] != config.size:
        raise DataError(
            f"{images}: its images are {pixels_NHW.shape[1]}x{pixels_NHW.shape[2]}, and data.size ="
            f" {list(config.size)} is declared"
        )
    if len(pixels_NHW) != len(y_N):
        raise DataError(f"{images}: holds another number of images than {labels.name} of labels")
    is_read_N = np.ones(len(y_N), dtype=np.bool_)
    if reading.whose.looks_at_pictures:
        is_read_N = np.array([reading.whose.has_picture(digest_of(one)) for one in pixels_NHW], dtype=np.bool_)
    for place in np.flatnonzero(is_read_N & (y_N >= len(config.labels))).tolist():
        with reading.record():
            raise At(labels, place, "record").refused(
                f"its label is none from 0 to {len(config.labels) - 1}, and data.labels names so many"
            )
    return pixels_NHW[is_read_N], y_N[is_read_N]


def pair_of(folder: Path, *, test: bool = False) -> tuple[Path, Path]:
    """Return the two files that `read_idx` reads.

    Raises:
        DataError: When there are none, or several pairs.
    """
    prefixes = _prefixes(folder)
    if has_test(folder):
        prefixes = [prefix for prefix in prefixes if (prefix in _TEST) == test]
    if len(prefixes) != 1:
        found = f"has files of {', '.join(prefixes)}" if prefixes else f"has no file named PREFIX{IMAGES}"
        raise DataError(f"{folder}: {found}; one pair of PREFIX{IMAGES} and PREFIX{LABELS}, or .gz of them, is read")
    return _file(folder, prefixes[0] + IMAGES), _file(folder, prefixes[0] + LABELS)


def is_idx(path: Path) -> bool:
    """Return whether a file is one of IDX by its name."""
    return path.name.removesuffix(".gz").endswith((IMAGES, LABELS)) and not path.name.startswith(".")


def _prefixes(folder: Path) -> list[str]:
    """Return what the names of image files in a folder begin with, each once."""
    names = sorted(path.name.removesuffix(".gz") for path in folder.iterdir() if is_idx(path) and path.is_file())
    return list(dict.fromkeys(name.removesuffix(IMAGES) for name in names if name.endswith(IMAGES)))


def _file(folder: Path, name: str) -> Path:
    """Return a file, plain or by gzip."""
    there = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if len(there) != 1:
        raise DataError(f"{folder}: {'both' if there else 'neither'} of {name} and {name}.gz there; one is read")
    return there[0]


def written(values: NDArray[np.uint8]) -> bytes:
    """Return bytes of any number of axes as an IDX file."""
    head = bytes([0, 0, _BYTES, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return head + np.ascontiguousarray(values).tobytes()


def _read(path: Path, axes: int) -> NDArray[np.uint8]:
    """Return what a file holds."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * axes)
            if len(head) < 4 + 4 * axes or head[:4] != bytes([0, 0, _BYTES, axes]):
                raise DataError(f"{path}: does not begin as an IDX file of bytes with {axes} axes does")
            shape = struct.unpack(f">{axes}I", head[4:])
            size = math.prod(shape)
            if size > _MOST_BYTES:
                raise DataError(f"{path}: declares more than {_MOST_BYTES} bytes, and is not read")
            data = file.read(size + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{path}: is cut short, or damaged") from None
    if len(data) != size:
        raise DataError(f"{path}: is {'shorter' if len(data) < size else 'longer'} than its head declares")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
